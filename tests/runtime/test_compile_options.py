"""Options of TensorRT's builder: with the real tensorrt_rtx, and against the names that NVIDIA's other bindings have."""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from full_disk import no_file_beyond
from hypothesis import given
from hypothesis import strategies as st
from small import CLASSES, float_graph
from typer.testing import CliRunner

from ampnet_opt.cli.main import application
from ampnet_opt.core import processor
from ampnet_opt.core.errors import AmpnetError, MisuseError
from ampnet_opt.network.checkpoint import init_checkpoint
from ampnet_opt.runtime.backend import find_backend
from ampnet_opt.runtime.compile_options import FLAGS, BuilderOptions, CompileOptions
from ampnet_opt.runtime.cuda import Gpu
from ampnet_opt.runtime.sidecar import BatchRange, read_sidecar
from ampnet_opt.runtime.tensorrt import host_memory as memory
from ampnet_opt.runtime.tensorrt.builder import network_flags, strongly_typed
from ampnet_opt.runtime.tensorrt.compile import build_plan
from ampnet_opt.runtime.tensorrt.library import new_logger, started
from ampnet_opt.runtime.tensorrt.options import NOT_FOR_RTX, apply_options, require_features, require_options
from ampnet_opt.runtime.tensorrt.timing_cache import TimingCache, default_path

ONE = BatchRange(1, 1, 1)
# A value of every option that is not its default.
SET: dict[str, Any] = {
    "workspace": 64,
    "timing_cache": Path("times"),
    "optimization_level": 5,
    "version_compatible": True,
    "hardware_compatible": "ampere+",
    "dla_core": 0,
    "log": Path("log"),
}


def surface(version: str, cores: int = 2) -> Any:
    """What the binding files of tensorrt 8.5.3, 8.6.1, 10.3.0, 10.13.0 and 11.4.0 have of the names used here."""
    numbers = tuple(map(int, version.split(".")))
    config = ["create_timing_cache"] + (["builder_optimization_level"] if numbers >= (8, 6) else [])
    flags = ["GPU_FALLBACK"] + (["VERSION_COMPATIBLE"] if numbers >= (8, 6) else [])
    flags += ["FP16", "INT8"] if numbers < (11,) else []
    network = {} if numbers < (10,) else {"STRONGLY_TYPED": 1 if numbers < (11,) else 0}
    network.update({"EXPLICIT_BATCH": 0} if numbers < (11,) else {})
    levels = ["AMPERE_PLUS"] + (["SAME_COMPUTE_CAPABILITY"] if numbers >= (10, 13) else [])
    names = {
        "__version__": version,
        "ILogger": type("ILogger", (), {"Severity": SimpleNamespace()}),
        "IBuilderConfig": named(config),
        "BuilderFlag": named(flags),
        "NetworkDefinitionCreationFlag": SimpleNamespace(**network),
        "MemoryPoolType": named(["WORKSPACE"]),
        "Builder": type("Builder", (), {"num_DLA_cores": cores, "__init__": lambda self, logger: None}),
    }
    if numbers >= (8, 6):
        names["HardwareCompatibilityLevel"] = named(levels)
    return SimpleNamespace(**names)


def named(names: list[str]) -> SimpleNamespace:
    return SimpleNamespace(**dict.fromkeys(names))


@pytest.fixture(scope="module")
def graph() -> bytes:
    return float_graph().SerializeToString()


def rtx_config() -> tuple[Any, ...]:
    trt = pytest.importorskip("tensorrt_rtx")
    logger = new_logger(trt)
    builder = trt.Builder(logger.native)
    return trt, builder.create_builder_config(), logger, builder


def test_every_option_has_a_flag_that_the_command_takes() -> None:
    assert set(FLAGS) == set(SET) == set(BuilderOptions.__dataclass_fields__)
    assert BuilderOptions(**SET).given() == list(BuilderOptions.__dataclass_fields__)
    said = CliRunner().invoke(application(), ["build", "--help"], env={"COLUMNS": "200"}).output
    assert all(flag in said for flag in FLAGS.values())


def test_the_sidecar_gets_what_shapes_the_plan() -> None:
    assert BuilderOptions().record() == {}
    assert BuilderOptions(**SET).record() == {
        "workspace_mib": 64,
        "optimization_level": 5,
        "version_compatible": True,
        "hardware_compatible": "ampere+",
        "dla_core": 0,
    }


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"workspace": 0}, "MiB from 1 to [0-9]+, not 0"),
        ({"optimization_level": 6}, r"0 \(built fast\) to 5 \(runs fast\), not 6"),
        ({"optimization_level": -1}, "not -1"),
        ({"hardware_compatible": "all"}, r"none, ampere\+, same-compute-capability, not 'all'"),
        ({"dla_core": -1}, "counted from 0, not -1"),
    ],
)
def test_value_that_no_library_takes_is_misuse(values: dict[str, Any], words: str) -> None:
    with pytest.raises(MisuseError, match=words):
        BuilderOptions(**values)


@pytest.mark.parametrize("name", list(SET))
def test_cpu_takes_none_of_them(name: str) -> None:
    find_backend("cpu").require_options(CompileOptions(ONE), ["fp32"])
    with pytest.raises(MisuseError, match=f"{FLAGS[name]}: for tensorrt and tensorrt-rtx, not for cpu"):
        find_backend("cpu").require_options(CompileOptions(ONE, builder=BuilderOptions(**{name: SET[name]})), ["fp32"])


@pytest.mark.parametrize("name", list(NOT_FOR_RTX))
def test_rtx_refuses_what_it_would_ignore(name: str, graph: bytes) -> None:
    pytest.importorskip("tensorrt_rtx")
    with pytest.raises(MisuseError, match=f"{FLAGS[name]} is not for tensorrt-rtx: ") as caught:
        build_plan("tensorrt-rtx", graph, "fp32", CompileOptions(ONE, builder=BuilderOptions(**{name: SET[name]})))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", list(SET))
def test_every_option_of_the_command_reaches_its_check(name: str, tmp_path: Path) -> None:
    value = [] if SET[name] is True else [str(SET[name])]
    answer = CliRunner().invoke(
        application(), ["build", "--fp32", "--backend", "cpu", FLAGS[name], *value, "-o", str(tmp_path / "e")]
    )
    assert isinstance(answer.exception, MisuseError) and str(answer.exception).startswith(f"{FLAGS[name]}: for tensorrt")


def test_rtx_does_ignore_them() -> None:
    """Why they are refused; when one of these changes, it may be allowed."""
    trt, config, logger, builder = rtx_config()
    config.hardware_compatibility_level = trt.HardwareCompatibilityLevel.AMPERE_PLUS
    assert config.hardware_compatibility_level == trt.HardwareCompatibilityLevel.NONE
    assert any("unsupported in TensorRT-RTX" in warning for warning in logger.warnings)
    assert builder.num_DLA_cores == 0


@pytest.mark.parametrize(
    ("version", "options", "words"),
    [
        (
            "8.5.3",
            {"optimization_level": 3},
            "8.5.3 has no IBuilderConfig.builder_optimization_level, .* 8.6 and later have it",
        ),
        (
            "8.5.3",
            {"version_compatible": True},
            "no BuilderFlag.VERSION_COMPATIBLE, which --version-compatible needs; .* 8.6",
        ),
        (
            "8.5.3",
            {"hardware_compatible": "ampere+"},
            "no HardwareCompatibilityLevel.AMPERE_PLUS, .*8.6 and later for ampere",
        ),
        (
            "10.3.0",
            {"hardware_compatible": "same-compute-capability"},
            "no .*SAME_COMPUTE_CAPABILITY, .*10.13 and later for",
        ),
    ],
)
def test_option_that_the_version_lacks_says_who_has_it(version: str, options: dict[str, Any], words: str) -> None:
    with pytest.raises(AmpnetError, match=words):
        require_features(surface(version), BuilderOptions(**options), ["fp16"], ONE)


@pytest.mark.parametrize("version", ["8.6.1", "10.3.0", "10.13.0", "11.4.0"])
def test_option_that_the_version_has_passes(version: str) -> None:
    require_features(surface(version), BuilderOptions(**SET), ["fp16"], ONE)


@pytest.mark.parametrize(
    ("version", "precisions", "batch", "cores", "words"),
    [
        ("10.3.0", ["fp32"], ONE, 2, "10.3.0 computes in fp16, not in fp32"),
        ("8.5.3", ["fp16", "int8"], ONE, 2, "computes in fp16, not in int8: .* from TensorRT 11.4.1 on"),
        ("11.4.1", ["fp32"], ONE, 2, "computes in fp16 and int8, not in fp32"),
        ("8.5.3", ["fp16"], BatchRange(1, 2, 4), 2, "one batch size, not 1 to 4"),
        ("10.16.1", ["fp16"], ONE, 0, "has no DLA, as TensorRT 10.16.1 sees it; there is DLA on Jetson"),
        ("8.5.3", ["fp16"], ONE, 1, None),
        ("11.4.1", ["fp16", "int8"], BatchRange(4, 4, 4), 1, None),
    ],
)
def test_dla_is_for_what_it_computes(
    version: str, precisions: list[str], batch: BatchRange, cores: int, words: str | None
) -> None:
    if words is None:
        require_features(surface(version, cores), BuilderOptions(dla_core=0), precisions, batch)
        return
    with pytest.raises(AmpnetError, match=words):
        require_features(surface(version, cores), BuilderOptions(dla_core=0), precisions, batch)


def test_dla_core_beyond_the_last_is_refused() -> None:
    with pytest.raises(AmpnetError, match="has 2 DLA cores, counted from 0"):
        require_features(surface("8.5.3"), BuilderOptions(dla_core=2), ["fp16"], ONE)


def test_machine_without_dla_is_found_by_the_real_builder() -> None:
    trt = pytest.importorskip("tensorrt_rtx")
    with pytest.raises(AmpnetError, match="this machine has no DLA"):
        require_features(trt, BuilderOptions(dla_core=0), ["fp16"], ONE)


@pytest.mark.parametrize(
    ("version", "typed", "typed_for_dla", "flags"),
    [("8.5.3", False, False, 1), ("8.6.1", False, False, 1), ("10.3.0", True, False, 3), ("11.4.1", True, True, 1)],
)
def test_networks_are_strongly_typed_where_they_can_be(version: str, typed: bool, typed_for_dla: bool, flags: int) -> None:
    trt, dla = surface(version), BuilderOptions(dla_core=0)
    assert strongly_typed(trt, BuilderOptions()) is typed
    assert strongly_typed(trt, dla) is typed_for_dla
    assert network_flags(trt, BuilderOptions()) == flags
    assert network_flags(trt, dla) == (flags if typed == typed_for_dla else 1)


def test_options_are_in_the_configuration() -> None:
    trt, config, _, _ = rtx_config()
    apply_options(trt, config, BuilderOptions(workspace=64, optimization_level=5, version_compatible=True))
    assert config.get_memory_pool_limit(trt.MemoryPoolType.WORKSPACE) == 64 << 20
    assert config.builder_optimization_level == 5
    assert config.get_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
    assert not config.get_flag(trt.BuilderFlag.GPU_FALLBACK)
    apply_options(trt, config, BuilderOptions(dla_core=0))
    assert config.default_device_type == trt.DeviceType.DLA
    assert config.get_flag(trt.BuilderFlag.GPU_FALLBACK)


def test_hardware_compatibility_is_asked_for() -> None:
    trt, config, logger, _ = rtx_config()
    apply_options(trt, config, BuilderOptions(hardware_compatible="same-compute-capability"))
    assert any("setHardwareCompatibilityLevel()" in warning for warning in logger.warnings)


def test_library_that_does_not_start_says_why() -> None:
    trt, _, logger, _ = rtx_config()
    logger.native.log(trt.ILogger.Severity.WARNING, "CUDA initialization failure with error: 35.\nPlease check")

    def null(logger: Any) -> None:
        raise TypeError("pybind11::init(): factory function returned nullptr")  # as 8.5.3.1 does without a driver

    library = SimpleNamespace(__version__="8.5.3.1", Builder=null)
    with pytest.raises(AmpnetError, match=r"TensorRT 8\.5\.3\.1 does not start: CUDA initialization failure .* check$"):
        started(library, library.Builder, logger)


def test_workspace_that_the_library_does_not_keep_is_an_error() -> None:
    trt = pytest.importorskip("tensorrt_rtx")
    # The real calls of a library that holds on to 64 GiB, as one with a GPU does for all that is beyond its memory.
    stubborn = SimpleNamespace(set_memory_pool_limit=lambda pool, size: None, get_memory_pool_limit=lambda pool: 64 << 30)
    with pytest.raises(AmpnetError, match="refuses a workspace of 1048576 MiB; it takes 65536 MiB here"):
        apply_options(trt, stubborn, BuilderOptions(workspace=1 << 20))


def test_plan_is_built_as_asked_and_every_word_is_in_the_log(
    graph: bytes, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    trt = pytest.importorskip("tensorrt_rtx")
    path = tmp_path / "logs" / "build.log"
    options = BuilderOptions(workspace=64, optimization_level=0, log=path)
    plan = build_plan("tensorrt-rtx", graph, "fp32", CompileOptions(BatchRange(1, 2, 8), ["8.9"], options))
    assert plan.target == {"workspace_mib": 64, "optimization_level": 0, "compute_capabilities": ["8.9"]}
    lines = path.read_text(encoding="utf-8").splitlines()
    assert lines[0].startswith("[BUILD] ampnet-opt ") and trt.__version__ in lines[0]
    assert "fp32, batches of 1, 2, 8, {'workspace_mib': 64, 'optimization_level': 0}" in lines[0]
    kinds = [line.split(" ")[0] for line in lines]
    assert kinds.count("[VERBOSE]") > 1000 and "[INFO]" in kinds
    assert any("at optimization level 0" in line for line in lines), "the builder did not hear of it"
    assert capfd.readouterr() == ("", "")


def test_log_is_appended_to_and_keeps_what_a_failed_build_said(tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    path = tmp_path / "build.log"
    for _ in range(2):
        with pytest.raises(AmpnetError, match="cannot read the graph"):
            build_plan("tensorrt-rtx", b"no graph", "fp32", CompileOptions(ONE, builder=BuilderOptions(log=path)))
    said = path.read_text(encoding="utf-8")
    assert said.count("[BUILD] ") == 2 and said.count("[ERROR] ") >= 2


def test_file_that_is_no_log_is_left_alone(tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    path = tmp_path / "thesis.txt"
    path.write_text("years of work", encoding="utf-8")
    with pytest.raises(MisuseError, match=r"thesis\.txt is not a log of a build"):
        require_options("tensorrt-rtx", BuilderOptions(log=path), ["fp32"], ONE)
    assert path.read_text(encoding="utf-8") == "years of work"
    with pytest.raises(AmpnetError, match=r"cannot write the log .*: Is a directory"):
        require_options("tensorrt-rtx", BuilderOptions(log=tmp_path), ["fp32"], ONE)


def test_disk_that_is_full_of_log_costs_no_engine(graph: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pytest.importorskip("tensorrt_rtx")
    path = tmp_path / "build.log"
    with no_file_beyond(2000):
        plan = build_plan("tensorrt-rtx", graph, "fp32", CompileOptions(ONE, ["8.9"], BuilderOptions(log=path)))
    assert plan.data
    assert [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING] == [
        f"the log {path} is incomplete: File too large"
    ]


def test_build_beyond_the_memory_warns_with_both_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("tensorrt_rtx")
    table = tmp_path / "meminfo"
    table.write_text("MemTotal:  4000000 kB\nMemAvailable:  102400 kB\n", encoding="ascii")
    monkeypatch.setattr(processor, "MEMORY", table)
    with pytest.raises(AmpnetError, match="cannot read the graph"):  # the warning is there before anything is built
        build_plan("tensorrt-rtx", b"\xff" * (10 << 20), "fp32", CompileOptions(ONE))
    assert [r.getMessage() for r in caplog.records] == [
        "this build may take 252 MiB of memory, and 100 MiB are free: if it is killed, close other programs, add swap"
    ]


@given(graph=st.integers(0, 1 << 32), workspace=st.integers(0, 1 << 34), free=st.integers(0, 1 << 32))
def test_warning_is_for_exactly_those_builds_that_need_more(graph: int, workspace: int, free: int) -> None:
    said: list[str] = []
    needed = memory.memory_needed(graph, workspace)
    memory.warn_of_memory(graph, workspace, said.append)
    available = processor.memory_available()
    assert available is None or len(said) == (needed > available)
    assert all(("--workspace" in text) == (workspace > 0) for text in said)


def test_memory_needed_is_above_what_was_measured() -> None:
    for size, peak in ((3.8, 206), (57.9, 502), (113.5, 557), (226.9, 896)):
        assert peak < memory.memory_needed(int(size * 2**20), 0) / 2**20 < 2 * peak


@given(st.integers(0, 1 << 40))
def test_memory_is_read_as_the_kernel_writes_it(kib: int) -> None:
    class Table:
        @staticmethod
        def read_text(encoding: str) -> str:
            return f"MemTotal:       99 kB\nMemFree:  1 kB\nMemAvailable:   {kib} kB\nBuffers: 2 kB\n"

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(processor, "MEMORY", Table)
        assert processor.memory_available() == kib * 1024


def test_machine_that_tells_no_memory_gets_no_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processor, "MEMORY", tmp_path / "none")
    assert processor.memory_available() is None
    memory.warn_of_memory(1 << 60, 0, pytest.fail)


@pytest.mark.filterwarnings("ignore:.*Timing cache operations are no-ops")
class TestTimings:
    """The file, with the calls that tensorrt_rtx still has; without a GPU a cache stays empty."""

    def test_kept_for_the_next_build(self, tmp_path: Path) -> None:
        trt, config, logger, _ = rtx_config()
        path = tmp_path / "new" / "times"
        TimingCache(config, logger, path, tmp_path / "default").save()
        assert path.is_file() and not (tmp_path / "default").exists()
        before = path.read_bytes()
        TimingCache(config, logger, None, path).save()
        assert path.read_bytes() == before
        assert [p.name for p in path.parent.iterdir()] == ["times"]
        assert isinstance(config.get_timing_cache(), trt.ITimingCache)

    def test_damaged_file_that_was_named_is_an_error(self, tmp_path: Path) -> None:
        _, config, logger, _ = rtx_config()
        path = tmp_path / "times"
        path.write_bytes(b"garbage")
        with pytest.raises(AmpnetError, match=r"times cannot be used here \(Failed to deserialize.*; delete it or name"):
            TimingCache(config, logger, path, tmp_path / "default")
        assert path.read_bytes() == b"garbage"

    def test_damaged_default_file_is_made_anew(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        _, config, logger, _ = rtx_config()
        path = tmp_path / "times"
        path.write_bytes(b"garbage")
        cache = TimingCache(config, logger, None, path)
        assert [r.getMessage() for r in caplog.records if "is made anew" in r.getMessage()]
        cache.save()
        assert path.read_bytes() != b"garbage"

    def test_place_that_cannot_be_written_costs_only_the_times(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        _, config, logger, _ = rtx_config()
        (tmp_path / "file").touch()
        cache = TimingCache(config, logger, None, tmp_path / "times")
        cache._path = tmp_path / "file" / "times"
        cache.save()
        assert "the kernel times of this build are lost: " in caplog.text

    def test_a_directory_is_misuse(self, tmp_path: Path) -> None:
        with pytest.raises(MisuseError, match="is a directory, not a file"):
            require_options("tensorrt", BuilderOptions(timing_cache=tmp_path), ["fp32"], ONE)


def test_each_gpu_and_version_has_timings_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AMPNET_OPT_CACHE", str(tmp_path))
    path = default_path(Gpu("NVIDIA GeForce RTX 4090 (Ti)", "8.9"), "10.3.0")
    assert path == tmp_path / "timing" / "nvidia-geforce-rtx-4090-ti-8.9-10.3.0.cache"
    others = [default_path(Gpu("Orin", "8.7"), "10.3.0"), default_path(Gpu("Orin", "8.7"), "8.5.2"), path]
    assert len(set(others)) == 3


@pytest.mark.slow
def test_options_of_the_command_are_in_the_engine(tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    checkpoint, engines = tmp_path / "small.safetensors", tmp_path / "engines"
    init_checkpoint(checkpoint, seed=5, width=0.125, classes=CLASSES)
    words = ["--fp32", "--backend", "tensorrt-rtx", "--compute-capability", "8.9", "-o", str(engines)]
    chosen = ["--workspace", "64", "--optimization-level", "1", "--log", str(tmp_path / "log")]
    answer = CliRunner().invoke(application(), ["build", str(checkpoint), *words, *chosen], catch_exceptions=False)
    assert answer.exit_code == 0
    target = read_sidecar(engines / "tensorrt-rtx-fp32").target
    assert {"workspace_mib": 64, "optimization_level": 1, "compute_capabilities": ["8.9"]}.items() <= target.items()
    assert "[VERBOSE]" in (tmp_path / "log").read_text(encoding="utf-8")
