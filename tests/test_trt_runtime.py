from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from ampnet_opt.checkpoint import init_checkpoint, read_checkpoint
from ampnet_opt.convert.export import export
from ampnet_opt.errors import AmpnetError, MisuseError
from ampnet_opt.labels import PRESETS
from ampnet_opt.runtime import cuda, trt
from ampnet_opt.runtime.plan import build_plan
from ampnet_opt.runtime.sidecar import BatchRange, Sidecar

SIDECAR = Sidecar(
    backend="tensorrt-rtx",
    backend_version="",
    precision="fp32",
    classes=list(PRESETS["ferplus"]),
    image_input="uint8",
    patch_radius=5,
    trained=False,
    batch=BatchRange(1, 1, 4),
    files={},
    checkpoint_sha256="",
    graph_sha256="",
    built="",
    build_seconds=0.0,
    ampnet_opt_version="",
    target={"compute_capabilities": ["8.6"]},
)


def installed() -> Sidecar:
    """A sidecar of the installed TensorRT-RTX."""
    return replace(SIDECAR, backend_version=pytest.importorskip("tensorrt_rtx").__version__)


@pytest.fixture
def gpu() -> cuda.Gpu:
    try:
        return cuda.gpu()
    except AmpnetError as error:
        pytest.skip(str(error))


@pytest.fixture
def no_gpu() -> None:
    try:
        found = cuda.gpu()
    except AmpnetError:
        return
    pytest.skip(f"there is a GPU here: {found.name}")


def test_patch_releases_of_rtx_share_plans_and_others_do_not(no_gpu: None) -> None:
    sidecar = installed()
    major, minor, *_ = sidecar.backend_version.split(".")
    with pytest.raises(AmpnetError, match="no CUDA GPU"):  # the version was accepted
        trt.check(replace(sidecar, backend_version=f"{major}.{minor}.99.9"))
    with pytest.raises(
        AmpnetError, match=rf"built with tensorrt-rtx {major}\.99\.0.*ampnet-opt build .*--backend tensorrt-rtx"
    ):
        trt.check(replace(sidecar, backend_version=f"{major}.99.0"))


def test_engine_of_another_platform_is_refused() -> None:
    with pytest.raises(AmpnetError, match=r"built for linux-pdp11, but this machine is .*build it again"):
        trt.check(replace(installed(), target={"platform": "linux-pdp11", "compute_capability": "8.6"}))


def test_missing_tensorrt_is_one_sentence() -> None:
    try:
        import tensorrt  # noqa: F401
    except ImportError:
        pass
    else:
        pytest.skip("tensorrt is installed here")
    with pytest.raises(AmpnetError, match=r"needs the module tensorrt .*pip install 'ampnet-opt\[tensorrt\]'"):
        trt.check(replace(SIDECAR, backend="tensorrt"))


def test_threads_are_misuse(tmp_path: Path) -> None:
    with pytest.raises(MisuseError, match="cpu backend"):
        trt.open_executor(tmp_path, SIDECAR, threads=2)


def test_without_a_gpu_loading_says_so(no_gpu: None, tmp_path: Path) -> None:
    sidecar = installed()
    for attempt in (lambda: trt.check(sidecar), lambda: trt.open_executor(tmp_path, sidecar, None), cuda.gpu):
        with pytest.raises(AmpnetError, match=r"CUDA") as caught:
            attempt()
        assert "\n" not in str(caught.value)


def test_cuda_statuses_become_sentences() -> None:
    runtime = pytest.importorskip("cuda.bindings.runtime")
    assert cuda._checked((runtime.cudaError_t.cudaSuccess, 7)) == 7
    assert cuda._checked((runtime.cudaError_t.cudaSuccess,)) is None
    with pytest.raises(AmpnetError, match=r"^CUDA failed: out of memory \(cudaErrorMemoryAllocation\)$"):
        cuda._checked((runtime.cudaError_t.cudaErrorMemoryAllocation, None))


def test_cuda_python_has_what_the_code_asks_for() -> None:
    runtime = pytest.importorskip("cuda.bindings.runtime")
    device = ["GetDeviceCount", "DeviceGetAttribute", "GetDeviceProperties", "SetDevice", "DeviceAttr"]
    stream = ["StreamCreate", "StreamSynchronize", "StreamDestroy", "MemcpyAsync", "MemcpyKind"]
    memory = ["MallocHost", "FreeHost", "Malloc", "Free", "GetErrorString"]
    assert not [name for name in device + stream + memory if not hasattr(runtime, f"cuda{name}")]


def test_names_of_what_is_wrong_with_a_plan() -> None:
    library = pytest.importorskip("tensorrt_rtx")
    if not hasattr(library.Runtime, "get_engine_validity"):
        pytest.skip("this TensorRT-RTX cannot tell whether a plan is valid")
    runtime = library.Runtime(trt.new_logger(library))
    validity, why = runtime.get_engine_validity(b"not a plan" * 100)
    assert validity == library.EngineValidity.INVALID
    assert trt.diagnostics(library, why) == "malformed engine"


@pytest.mark.parametrize(
    ("module", "queue"), [("pycuda.driver", "PyCudaQueue"), ("cuda.bindings.runtime", "CudaPythonQueue")]
)
def test_bytes_go_to_the_gpu_and_back_in_any_thread(gpu: cuda.Gpu, module: str, queue: str) -> None:
    pytest.importorskip(module)
    opened: cuda.Queue = getattr(cuda, queue)()
    with opened.current():
        first, second = opened.buffer((4, 5), "float32"), opened.buffer((4, 5), "float32")
    results = []

    def work() -> None:
        with opened.current():
            first.host[:] = np.arange(20).reshape(4, 5)
            opened.upload(first, 3)
            first.host[:] = -1
            opened.download(first, 3)
            opened.synchronize()
            results.append(first.host.copy())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert first.address != second.address
    with opened.current():
        opened.close()
    assert opened.gpus()[0] == gpu
    np.testing.assert_array_equal(results[0][:3], np.arange(15).reshape(3, 5))
    np.testing.assert_array_equal(results[0][3], -1)


@pytest.mark.parametrize("image_input", ["uint8", "float32"])
def test_plan_runs_on_the_gpu_and_agrees_with_onnx_runtime(gpu: cuda.Gpu, tmp_path: Path, image_input: str) -> None:
    pytest.importorskip("tensorrt_rtx")
    init_checkpoint(tmp_path / "small.safetensors", seed=3, width=0.125, classes=PRESETS["ferplus"])
    graph = export(read_checkpoint(tmp_path / "small.safetensors"), image_input)
    plan = build_plan("tensorrt-rtx", graph.SerializeToString(), "fp32", SIDECAR.batch)
    sidecar = replace(installed(), image_input=image_input, target=plan.target)
    if gpu.compute_capability not in plan.target["compute_capabilities"]:
        with pytest.raises(AmpnetError, match=f"compute capability .* has {gpu.compute_capability}"):
            trt.check(sidecar)
        pytest.skip(f"TensorRT-RTX does not build for the {gpu.name} (compute capability {gpu.compute_capability})")
    trt.check(sidecar)
    (tmp_path / trt.PLAN).write_bytes(plan.data)
    session = onnxruntime.InferenceSession(graph.SerializeToString())
    rng = np.random.default_rng(0)
    executor = trt.open_executor(tmp_path, sidecar, None)
    for count in (1, 4, 2, 2):
        images = rng.integers(0, 256, (count, 224, 224, 3), np.uint8)
        if image_input == "float32":
            images = np.ascontiguousarray(images.transpose(0, 3, 1, 2)) / np.float32(255)
        landmarks = rng.uniform(0, 224, (count, 5, 2)).astype(np.float32)
        (expected,) = session.run(None, {"image": images, "landmarks": landmarks})
        np.testing.assert_allclose(executor.run(images, landmarks), expected, atol=1e-3)
    with pytest.raises(AmpnetError, match="does not take image"):
        executor.run(np.zeros((5, *images.shape[1:]), images.dtype), np.zeros((5, 5, 2), np.float32))
    executor.close()
