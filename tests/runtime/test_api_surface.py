"""Every name of NVIDIA's libraries that the code uses, on the real modules and on the recorded names of other versions.

The uses are read off the source; tests/api/*.txt are written by tools/api_names.py, from NVIDIA's bindings.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Container
from functools import cache
from itertools import takewhile
from operator import attrgetter
from pathlib import Path

import pytest
from places import SUPPORT

from ampnet_opt.runtime import cuda
from ampnet_opt.runtime.compile_options import HARDWARE
from ampnet_opt.runtime.tensorrt import library
from ampnet_opt.runtime.tensorrt.compile import FLAGS, PLATFORM_CHECKS
from ampnet_opt.runtime.tensorrt.options import FEATURES

SOURCES = Path(library.__file__).parent
RECORDED = SUPPORT / "api"
VERSIONS = sorted(path.stem for path in RECORDED.glob("*.txt"))
# tensorrt_lean runs plans, and has nothing else.
RUNNING = {"context.py", "executor.py", "library.py", "plan.py"}

# What variables and attributes are of which class, by file. `library` and `trt` are the module itself.
OBJECTS = {
    "builder.py": {
        "builder": "Builder",
        "config": "IBuilderConfig",
        "network": "INetworkDefinition",
        "parser": "OnnxParser",
        "profile": "IOptimizationProfile",
        "error": "ParserError",
    },
    "build_progress.py": {"builder": "Builder", "config": "IBuilderConfig"},
    "compile.py": {
        "builder": "Builder",
        "config": "IBuilderConfig",
        "network": "INetworkDefinition",
        "layer": "ILayer",
        "tensor": "ITensor",
    },
    "context.py": {"engine": "ICudaEngine", "_native": "IExecutionContext"},
    "executor.py": {"engine": "ICudaEngine"},
    "kernel_cache.py": {"config": "IRuntimeConfig", "_native": "IRuntimeCache", "native": "IRuntimeCache"},
    "layers.py": {"engine": "ICudaEngine", "context": "IExecutionContext", "inspector": "EngineInspector"},
    "library.py": {},
    "network_plan.py": {"network": "INetworkDefinition", "tensor": "ITensor"},
    "options.py": {"builder": "Builder", "config": "IBuilderConfig"},
    "plan.py": {
        "engine": "ICudaEngine",
        "context": "IExecutionContext",
        "_runtime": "Runtime",
        "config": "IRuntimeConfig",
    },
    "profiler.py": {},
    "timing_cache.py": {"config": "IBuilderConfig", "_config": "IBuilderConfig", "cache": "ITimingCache"},
}

# What is used only where something else is there: name -> what the code asks for first, itself by `hasattr` mostly.
GUARDS = {
    "BuilderFlag.OBEY_PRECISION_CONSTRAINTS": "BuilderFlag.FP16",  # weakly typed libraries
    "BuilderFlag.VERSION_COMPATIBLE": "BuilderFlag.VERSION_COMPATIBLE",
    "DynamicShapesKernelSpecializationStrategy.EAGER": "IRuntimeCache",
    "IRuntimeConfig.create_runtime_cache": "IRuntimeCache",
    "IRuntimeConfig.set_runtime_cache": "IRuntimeCache",
    "IRuntimeConfig.dynamic_shapes_kernel_specialization_strategy": "IRuntimeCache",
    "IRuntimeCache.deserialize": "IRuntimeCache",
    "IRuntimeCache.serialize": "IRuntimeCache",
    "CudaGraphStrategy.WHOLE_GRAPH_CAPTURE": "CudaGraphStrategy",
    "EngineInvalidityDiagnostics": "Runtime.get_engine_validity",
    "EngineValidity.INVALID": "Runtime.get_engine_validity",
    "HardwareCompatibilityLevel": "HardwareCompatibilityLevel",
    "ComputeCapability": "IBuilderConfig.num_compute_capabilities",
    "IBuilderConfig.builder_optimization_level": "IBuilderConfig.builder_optimization_level",
    "IBuilderConfig.hardware_compatibility_level": "HardwareCompatibilityLevel",
    "IBuilderConfig.num_compute_capabilities": "IBuilderConfig.num_compute_capabilities",
    "IBuilderConfig.set_compute_capability": "IBuilderConfig.num_compute_capabilities",
    "IBuilderConfig.progress_monitor": "IProgressMonitor",
    "ICudaEngine.create_runtime_config": "CudaGraphStrategy",
    "ILayer.precision": "BuilderFlag.FP16",
    "ILayer.set_output_type": "BuilderFlag.FP16",
    "IProgressMonitor": "IProgressMonitor",
    "IRuntimeConfig.cuda_graph_strategy": "CudaGraphStrategy",
    "ParserError.node_name": "ParserError.node_name",
    "ParserError.node_operator": "ParserError.node_name",
    "PreviewFeature.PROFILE_SHARING_0806": "PreviewFeature.PROFILE_SHARING_0806",
    "Runtime.engine_host_code_allowed": "BuilderFlag.VERSION_COMPATIBLE",
    "Runtime.get_engine_validity": "Runtime.get_engine_validity",
}


def chain_of(node: ast.expr, ends: Container[str]) -> list[str]:
    """`a.trt.BuilderFlag.TF32` -> [trt, BuilderFlag, TF32]: back to the first name in `ends`; [] without one."""
    parts: list[str] = []
    while isinstance(node, (ast.Attribute, ast.Name)):
        name = node.attr if isinstance(node, ast.Attribute) else node.id
        parts.insert(0, name)
        if name in ends and len(parts) > 1:
            return parts
        if isinstance(node, ast.Name):
            break
        node = node.value
    return []


@cache
def uses(name: str) -> frozenset[str]:
    """What a file of the runtime uses of the library, named as in tests/api: "BuilderFlag.TF32", "ILayer.precision"."""
    tree = ast.parse((SOURCES / name).read_text(encoding="utf-8"))
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    ours = {alias.asname or alias.name for node in imports for alias in node.names}
    modules = {"trt", "library"} - ours
    objects = OBJECTS[name]
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            first, *rest = chain_of(node, modules | objects.keys()) or [""]
            public = list(takewhile(lambda part: not part.startswith("__"), rest))
            if first in modules:
                found.add(".".join(public))
            elif public:
                found.add(f"{objects[first]}.{public[0]}")
    # Of a chain, only the longest: DataType.FLOAT, not DataType.
    return frozenset(use for use in found if use and not any(other.startswith(f"{use}.") for other in found))


@cache
def recorded(version: str) -> frozenset[str]:
    return frozenset((RECORDED / f"{version}.txt").read_text(encoding="utf-8").splitlines()[1:])


def test_there_are_names_of_all_that_the_package_supports() -> None:
    for prefix in ("tensorrt-8.5.", "tensorrt-8.6.", "tensorrt-10.", "tensorrt-11.", "tensorrt_lean-", "tensorrt_rtx-"):
        assert any(version.startswith(prefix) for version in VERSIONS), prefix


def test_files_that_use_the_library_are_all_in_the_table() -> None:
    using = [path.name for path in SOURCES.glob("*.py") if re.search(r"\b(trt: Any|self\.library)\b", path.read_text())]
    assert set(using) <= OBJECTS.keys()
    for name in OBJECTS:
        assert uses(name), name


@pytest.mark.parametrize("version", VERSIONS)
def test_every_name_is_there_or_asked_for_before_it_is_used(version: str) -> None:
    there = recorded(version)
    files = RUNNING if version.startswith("tensorrt_lean") else OBJECTS
    missing = [
        f"{name}: {use}"
        for name in sorted(files)
        for use in sorted(uses(name))
        if use not in there and (use not in GUARDS or GUARDS[use] in there)
    ]
    assert not missing, f"{version} lacks names; say in GUARDS what the code asks for before it uses them"


def test_guards_are_names_of_some_version_and_needed() -> None:
    used = {use for name in OBJECTS for use in uses(name)}
    for use, guard in GUARDS.items():
        assert use in used, f"{use} is no longer used"
        assert any(use in recorded(version) and guard in recorded(version) for version in VERSIONS), (use, guard)
        assert any(use not in recorded(version) for version in VERSIONS), f"{use} is everywhere and needs no guard"


def test_features_asked_for_by_name_exist_somewhere() -> None:
    names = [(owner, attribute) for owner, attribute, _ in FEATURES.values()]
    names += [("BuilderFlag", flag) for flags in FLAGS.values() for flag in flags]
    names += [("Builder", attribute) for attribute in PLATFORM_CHECKS.values()]
    for owner, attribute in names:
        choices = HARDWARE.values() if attribute == "{hardware}" else [attribute]
        for choice in choices:
            assert any(f"{owner}.{choice}" in recorded(version) for version in VERSIONS), (owner, choice)


def test_recorded_names_are_those_of_the_installed_library() -> None:
    library = pytest.importorskip("tensorrt_rtx")
    version = f"tensorrt_rtx-{library.__version__}"
    if version not in VERSIONS:
        pytest.skip(f"no names of {version} are recorded")
    for name in recorded(version):
        attrgetter(name)(library)
    for name in OBJECTS:
        for use in uses(name):
            assert use in recorded(version) or GUARDS[use] not in recorded(version)


@pytest.mark.parametrize(
    ("module", "known"),
    [
        ("runtime", {"cudaStreamBeginCapture", "cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal"}),
        ("driver", {"cuCtxGetCurrent"}),
    ],
)
def test_every_name_of_cuda_python_is_there(module: str, known: set[str]) -> None:
    binding = pytest.importorskip(f"cuda.bindings.{module}")
    tree = ast.parse((Path(cuda.__file__).parent / "cuda_python.py").read_text(encoding="utf-8"))
    chains = {".".join(chain_of(node, {module})[1:]) for node in ast.walk(tree) if isinstance(node, ast.Attribute)} - {""}
    assert known <= chains
    for chain in chains:
        attrgetter(chain)(binding)


TYPED = ("build_progress.py", "compile.py", "executor.py", "kernel_cache.py", "library.py", "options.py", "plan.py")
# What the signatures of the binding do not say: Dims are given and taken as tuples, counts arrive as int.
IMPRECISE = re.compile(r'"Dims"|"SupportsInt"|"rest"')
STUBGEN = "from mypy.stubgen import main; main()"


def stub_of(module: str, folder: Path) -> None:
    """`folder`/tensorrt.pyi with the signatures of the installed binding, which ships no stub."""
    command = [sys.executable, "-c", STUBGEN, "--inspect-mode", "-m", module, "-o", str(folder / "out")]
    subprocess.run(command, check=True, capture_output=True)
    lines = (folder / "out" / f"{module.replace('.', '/')}.pyi").read_text().splitlines()
    # The library's names for data types shadow Python's.
    lines = [line for line in lines if not re.match(r"(bool|int|float|str)\b.*:", line)]
    while True:
        try:
            ast.parse("\n".join(lines))
            break
        except SyntaxError as error:  # a signature whose defaults no Python takes
            del lines[(error.lineno or 1) - 1]
    (folder / "tensorrt.pyi").write_text("\n".join([*lines, "__version__: str"]), encoding="utf-8")


def with_types(name: str) -> str:
    """A file of the runtime, its variables of the table annotated with what they are, and `trt` the module itself."""
    text = (SOURCES / name).read_text(encoding="utf-8")
    for variable, kind in OBJECTS[name].items():
        text = re.sub(rf"\b{variable}: Any\b", f'{variable}: "trt.{kind}"', text)
    text = re.sub(r"\btrt: Any\b", "_: Any", text)
    text = re.sub(r"\btrt = load_library", "load_library", text)
    text = re.sub(r"\btrt, (.*?) = self\.(?:_plan\.)?library, ", r"\1 = ", text)
    return text.replace("annotations\n", "annotations\nimport tensorrt as trt\n", 1)


def mypy_complaints(folder: Path) -> list[str]:
    """Of the files in `folder`, without what the table of guards or the binding's signatures explain."""
    command = [sys.executable, "-m", "mypy", "--no-error-summary", "--hide-error-context", "--no-strict-optional"]
    command += ["--follow-imports=skip", "--ignore-missing-imports", "--cache-dir=cache", "tensorrt.pyi", *TYPED]
    found = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert found.returncode in (0, 1), found.stdout + found.stderr
    guarded = re.compile("|".join(rf'"{re.escape(use.rpartition(".")[2])}"' for use in GUARDS))
    errors = [line for line in found.stdout.splitlines() if ": error: " in line and not line.startswith("tensorrt.pyi")]
    return [line for line in errors if not IMPRECISE.search(line) and not guarded.search(line)]


def test_calls_fit_the_signatures_of_the_installed_library(tmp_path: Path) -> None:
    pytest.importorskip("mypy")
    pytest.importorskip("tensorrt_rtx")
    stub_of("tensorrt_rtx_bindings.tensorrt_rtx", tmp_path)
    for name in TYPED:
        (tmp_path / name).write_text(with_types(name), encoding="utf-8")
    assert mypy_complaints(tmp_path) == []
    wrong = with_types("compile.py") + (
        '\n\ndef wrong(config: "trt.IBuilderConfig") -> None:\n    config.clear_flag(1, 2)\n    config.clear_fla(1)\n'
    )
    (tmp_path / "compile.py").write_text(wrong, encoding="utf-8")
    found = " ".join(mypy_complaints(tmp_path))
    assert "Too many arguments" in found and '"clear_fla"' in found, "mypy sees no mistakes"
