from __future__ import annotations

import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import sidecars
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ampnet_opt.convert.export import export
from ampnet_opt.core.errors import AmpnetError, MisuseError
from ampnet_opt.core.files import sha256
from ampnet_opt.core.installing import install_command
from ampnet_opt.core.labels import PRESETS
from ampnet_opt.network.checkpoint import init_checkpoint, read_checkpoint
from ampnet_opt.runtime import Engine, cuda
from ampnet_opt.runtime.backend import LoadOptions, find_backend
from ampnet_opt.runtime.compile_options import CompileOptions
from ampnet_opt.runtime.cuda.device_array import DeviceArray, device_array
from ampnet_opt.runtime.engine import engine_inputs
from ampnet_opt.runtime.sidecar import BatchRange, Sidecar
from ampnet_opt.runtime.tensorrt import plan as trt
from ampnet_opt.runtime.tensorrt.compile import build_plan
from ampnet_opt.runtime.tensorrt.context import Key, Step, next_step
from ampnet_opt.runtime.tensorrt.library import library_folder, no_kernels

SIDECAR = replace(sidecars.SIDECAR, batch=BatchRange(1, 1, 4))


def installed() -> Sidecar:
    """A sidecar of the installed TensorRT-RTX."""
    return replace(SIDECAR, backend_version=pytest.importorskip("tensorrt_rtx").__version__)


@pytest.fixture
def gpu() -> cuda.Gpu:
    try:
        return cuda.gpu()
    except AmpnetError as error:
        pytest.skip(str(error))


def test_plans_of_rtx_are_for_the_release_that_built_them(no_gpu: None) -> None:
    sidecar = installed()
    major, minor, *_ = sidecar.backend_version.split(".")
    with pytest.raises(AmpnetError, match="no CUDA GPU"):  # the version was accepted
        trt.check(sidecar)
    for other in (f"{major}.{minor}.99.9", f"{major}.99.0"):
        with pytest.raises(
            AmpnetError, match=rf"built with tensorrt-rtx {re.escape(other)}.*ampnet-opt build .*--backend tensorrt-rtx"
        ):
            trt.check(replace(sidecar, backend_version=other))


def test_int8_and_bf16_are_not_for_turing() -> None:
    """Its plans would have no INT8 kernel, for any of their GPUs, and no plan at all would be built of BF16."""
    rtx, both = find_backend("tensorrt-rtx"), CompileOptions(compute_capabilities=("7.5", "8.6"))
    with pytest.raises(MisuseError, match=r"7\.5 is not for --int8"):
        rtx.require_options(both, ["fp16", "int8"])
    with pytest.raises(MisuseError, match=r"7\.5 is not for --bf16"):
        rtx.require_options(both, ["bf16"])
    rtx.require_options(both, ["fp16"])
    rtx.require_options(CompileOptions(compute_capabilities=("8.6",)), ["int8", "bf16"])


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
    with pytest.raises(AmpnetError, match=rf"needs the module tensorrt .*{re.escape(install_command('tensorrt'))}"):
        trt.check(replace(SIDECAR, backend="tensorrt"))


def test_threads_are_misuse(tmp_path: Path) -> None:
    with pytest.raises(MisuseError, match="cpu backend"):
        find_backend(SIDECAR.backend).open(tmp_path, SIDECAR, LoadOptions(threads=2))


def test_without_a_gpu_loading_says_so(no_gpu: None, tmp_path: Path) -> None:
    sidecar = installed()
    for attempt in (lambda: trt.check(sidecar), lambda: trt.open_pool(tmp_path, sidecar), cuda.gpu):
        with pytest.raises(AmpnetError, match=r"CUDA") as caught:
            attempt()
        assert "\n" not in str(caught.value)


def test_cuda_statuses_become_sentences() -> None:
    runtime = pytest.importorskip("cuda.bindings.runtime")
    from ampnet_opt.runtime.cuda.cuda_python import checked

    status = runtime.cudaError_t
    assert checked((status.cudaSuccess, 7)) == 7
    assert checked((status.cudaSuccess,)) is None
    with pytest.raises(AmpnetError, match=r"^CUDA failed: out of memory \(cudaErrorMemoryAllocation\)$"):
        checked((status.cudaErrorMemoryAllocation, None))


def test_contexts_are_for_gpus_and_at_least_one(tmp_path: Path) -> None:
    names = ("engine.xml", "engine.bin")
    for name in names:
        (tmp_path / name).write_bytes(b"")
    replace(SIDECAR, backend="cpu", files={name: sha256(tmp_path / name) for name in names}).write(tmp_path)
    with pytest.raises(MisuseError, match="contexts are for engines on a GPU"):
        Engine.load(tmp_path, contexts=2)
    with pytest.raises(MisuseError, match="blocking_wait is for engines on a GPU"):
        Engine.load(tmp_path, blocking_wait=True)
    with pytest.raises(MisuseError, match="at least 1, got 0"):
        Engine.load(tmp_path, contexts=0)


A, B = (Key((("image", (rows, 3)), ("landmarks", (rows, 5))), (("image", 0x1000), ("landmarks", 0x2000))) for rows in (4, 2))


@pytest.mark.parametrize(
    "other", [B, A._replace(addresses=(("image", 0x3000), *A.addresses[1:])), A._replace(addresses=A.addresses[:1])]
)
def test_a_graph_is_recorded_the_second_time_in_a_row_and_ended_by_other_shapes_or_addresses(other: Key) -> None:
    steps, bound, recorded = [], None, False
    for key in (A, A, A, other, A, A, A):
        step = next_step(key, bound, recorded, records=True)
        recorded = step is Step.RECORD or (recorded and step is not Step.BIND)
        bound = key
        steps.append(step.name)
    assert steps == ["BIND", "RECORD", "NOTHING", "BIND", "BIND", "RECORD", "NOTHING"]


def test_without_graphs_shapes_are_still_set_once() -> None:
    assert next_step(A, None, False, records=False) is Step.BIND
    assert next_step(A, A, False, records=False) is Step.NOTHING
    assert next_step(B, A, False, records=False) is Step.BIND


@dataclass
class OnDevice:
    """An array that says it is on the GPU, in the words of a numpy array's own description."""

    __cuda_array_interface__: dict[str, Any]


def on_device(array: np.ndarray, **changes: Any) -> OnDevice:
    return OnDevice({**array.__array_interface__, "version": 3, **changes})


@settings(max_examples=60)
@given(
    shape=st.lists(st.integers(1, 4), min_size=2, max_size=4),
    order=st.permutations(range(4)),
    step=st.sampled_from([1, 1, 2, -1]),
)
def test_exactly_the_contiguous_arrays_are_taken(shape: list[int], order: list[int], step: int) -> None:
    array = np.zeros(shape, np.float32).transpose([axis for axis in order if axis < len(shape)])[::step]
    row = array.shape[1:]
    strides = {"strides": array.strides}
    if array.flags.c_contiguous:
        assert device_array(on_device(array, **strides), "images", "float32", row).shape == array.shape
    else:
        with pytest.raises(MisuseError, match="C-contiguous"):
            device_array(on_device(array, **strides), "images", "float32", row)


IMAGES = np.zeros((3, 224, 224, 3), np.uint8)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (on_device(IMAGES.astype(np.float32)), r"must be uint8 \[N, 224, 224, 3\].* got float32 \[3, 224, 224, 3\]"),
        (on_device(IMAGES[:, :, :, :1].copy()), r"got uint8 \[3, 224, 224, 1\]"),
        (on_device(IMAGES[0]), r"got uint8 \[224, 224, 3\]"),
        (on_device(np.zeros((), np.uint8)), r"got uint8 \[\]"),
        (on_device(IMAGES, mask=on_device(IMAGES)), "mask"),
        (on_device(IMAGES, stream=0), "stream 0"),
    ],
)
def test_other_arrays_on_the_gpu_are_refused(array: OnDevice, message: str) -> None:
    with pytest.raises(MisuseError, match=message) as caught:
        device_array(array, "images", "uint8", (224, 224, 3))
    assert "\n" not in str(caught.value)


def test_rows_of_an_array_on_the_gpu_are_where_numpy_has_them() -> None:
    points = np.zeros((9, 5, 2), np.float32)
    found = device_array(on_device(points, stream=7), "landmarks", "float32", (5, 2))
    assert (found.address, len(found), found.stream) == (points.ctypes.data, 9, 7)
    for rows in (slice(2, 5), slice(7, 20), slice(0, 9)):
        part = found[rows]
        assert (part.address, part.shape) == (points[rows].ctypes.data, points[rows].shape)
    assert replace(found, address=512).aligned and not replace(found, address=512)[1:].aligned


def test_inputs_on_the_gpu_and_in_host_memory_mix() -> None:
    points = np.full((3, 5, 2), 100.0)
    pictures, landmarks = engine_inputs(on_device(IMAGES), points, "uint8")
    assert isinstance(pictures, DeviceArray) and pictures.address == IMAGES.ctypes.data
    assert landmarks.dtype == np.float32 and landmarks.shape == (3, 5, 2)
    pictures, landmarks = engine_inputs(IMAGES, on_device(points.astype(np.float32)), "uint8")
    assert isinstance(pictures, np.ndarray) and isinstance(landmarks, DeviceArray)
    with pytest.raises(MisuseError, match=r"landmarks must be \[3, 5, 2\] for 3 images, got \[2, 5, 2\]"):
        engine_inputs(on_device(IMAGES), on_device(points[:2].astype(np.float32)), "uint8")
    with pytest.raises(MisuseError, match="must be float32"):
        engine_inputs(on_device(IMAGES), points, "float32")


class Waits(cuda.Queue):
    """A queue that only notes what it waits for."""

    handle = 0x77

    def __init__(self) -> None:
        self.waited: list[Any] = []

    def wait_for(self, stream: int) -> None:
        self.waited.append(stream)

    def wait_for_all(self) -> None:
        self.waited.append("all")


class Tensor(OnDevice):
    """As PyTorch's: version 2 of the interface, and `__dlpack__`, which makes the given stream wait for the current one."""

    asked: list[int]

    def __dlpack__(self, stream: int) -> None:
        self.asked.append(stream)


def test_a_tensor_without_a_stream_is_waited_for() -> None:
    tensor = Tensor(on_device(IMAGES, version=2).__cuda_array_interface__)
    tensor.asked = []
    waits = Waits()
    device_array(tensor, "images", "uint8", (224, 224, 3))[1:].order(waits)
    assert (tensor.asked, waits.waited) == ([Waits.handle], [])


@pytest.mark.parametrize(
    ("described", "waited"),
    [
        ({"version": 2}, ["all"]),
        ({"version": 3, "stream": 2}, [2]),
        ({"version": 2, "stream": 5}, [5]),
        ({"version": 3}, []),
    ],
)
def test_other_arrays_are_waited_for_as_they_ask(described: dict[str, Any], waited: list[Any]) -> None:
    waits = Waits()
    device_array(on_device(IMAGES, **described), "images", "uint8", (224, 224, 3)).order(waits)
    assert waits.waited == waited


def test_a_tensor_on_another_gpu_is_refused() -> None:
    """As PyTorch and CuPy tell the device: CUDA is kind 2 of DLPack."""

    class Elsewhere(OnDevice):
        def __dlpack_device__(self) -> tuple[int, int]:
            return 2, self.gpu

    array = Elsewhere(on_device(IMAGES).__cuda_array_interface__)
    array.gpu = 0
    assert len(device_array(array, "images", "uint8", (224, 224, 3))) == 3
    array.gpu = 1
    with pytest.raises(MisuseError, match="images is on GPU 1, but engines run on GPU 0"):
        device_array(array, "images", "uint8", (224, 224, 3))


@pytest.mark.parametrize("wanting", ["images", "landmarks"])
def test_a_tensor_that_requires_grad_is_an_error_in_words(wanting: str) -> None:
    faces = {"images": torch.zeros(3, 3, 224, 224), "landmarks": torch.full((3, 5, 2), 100.0)}
    faces[wanting].requires_grad_()
    with pytest.raises(MisuseError, match=rf"^{wanting} requires grad; pass {wanting}\.detach\(\)$"):
        engine_inputs(faces["images"], faces["landmarks"], "float32")


class Seen:
    """An executor that only notes what it is given."""

    def __init__(self) -> None:
        self.batches: list[tuple[Any, Any]] = []

    def run(self, images: Any, landmarks: Any) -> np.ndarray:
        self.batches.append((images, landmarks))
        return np.zeros((len(images), len(SIDECAR.classes)), np.float32)

    def close(self) -> None:
        pass


def test_batches_beyond_the_profile_are_read_in_place_too() -> None:
    seen = Seen()
    engine = Engine(Path(), replace(SIDECAR, batch=BatchRange(1, 1, 2)), seen)
    assert engine.infer(on_device(IMAGES), on_device(np.zeros((3, 5, 2), np.float32))).shape == (3, len(SIDECAR.classes))
    assert [len(images) for images, _ in seen.batches] == [2, 1]
    assert seen.batches[1][0].address == IMAGES[2:].ctypes.data


def test_what_an_engine_cannot_take_from_the_gpu_is_misuse() -> None:
    points = np.full((3, 5, 2), 100, np.float32)
    with pytest.raises(MisuseError, match="cpu backend takes images and landmarks in host memory"):
        Engine(Path(), replace(SIDECAR, backend="cpu"), Seen()).infer(on_device(IMAGES), points)
    least_two = Engine(Path(), replace(SIDECAR, batch=BatchRange(2, 2, 2)), Seen())
    with pytest.raises(MisuseError, match="at least 2 images: 3 on the GPU"):
        least_two.infer(IMAGES, on_device(points))
    assert len(least_two.infer(IMAGES, points)) == 3


def test_all_that_is_loaded_hears_the_library_through_one_logger_that_is_never_freed() -> None:
    library = pytest.importorskip("tensorrt_rtx")
    first, second = trt.new_logger(library), trt.new_logger(library)
    loaded, other = library.Runtime(first.native), library.Runtime(second.native)
    assert second.native is first.native and not second.warnings  # "... differs from one already ..."
    del loaded, first
    assert other.deserialize_cuda_engine(b"not a plan" * 100) is None
    assert "deserializeCudaEngine" in second.errors[0]
    later = trt.new_logger(library)
    second.native.log(library.ILogger.Severity.ERROR, "one\n  more")
    assert later.errors == ["one more"] == second.errors[-1:]
    assert len(second.native.listeners) < 50


@pytest.mark.parametrize(
    ("backend", "version", "shared"),
    [
        ("tensorrt", "8.5.2.2", False),
        ("tensorrt", "8.6.2", True),
        ("tensorrt", "10.3.0", True),
        ("tensorrt", "11.4.0.106", True),
        ("tensorrt-rtx", "1.7.1.116", True),
    ],
)
def test_contexts_of_tensorrt_8_5_have_a_plan_each(backend: str, version: str, shared: bool) -> None:
    assert trt.shares_profile(replace(SIDECAR, backend=backend, backend_version=version)) is shared


def test_names_of_what_is_wrong_with_a_plan() -> None:
    library = pytest.importorskip("tensorrt_rtx")
    if not hasattr(library.Runtime, "get_engine_validity"):
        pytest.skip("this TensorRT-RTX cannot tell whether a plan is valid")
    runtime = library.Runtime(trt.new_logger(library).native)
    validity, why = runtime.get_engine_validity(b"not a plan" * 100)
    assert validity == library.EngineValidity.INVALID
    assert trt.diagnostics(library, why) == "malformed engine"


QUEUES = [("pycuda.driver", "pycuda.PyCudaQueue"), ("cuda.bindings.runtime", "cuda_python.CudaPythonQueue")]


@pytest.fixture(params=QUEUES, ids=["pycuda", "cuda-python"])
def queue(gpu: cuda.Gpu, request: pytest.FixtureRequest) -> Iterator[cuda.Queue]:
    """A queue of each binding that is installed; freed at the end, and its buffers."""
    module, name = request.param
    pytest.importorskip(module)
    file, _, kind = name.partition(".")
    opened: cuda.Queue = getattr(import_module(f"ampnet_opt.runtime.cuda.{file}"), kind)()
    assert opened.gpus()[0] == gpu
    yield opened
    with opened.current():
        opened.close()


def test_bytes_go_to_the_gpu_and_back_in_any_thread(queue: cuda.Queue) -> None:
    with queue.current():
        first, second = queue.buffer((4, 5), "float32"), queue.buffer((4, 5), "float32")
    results = []

    def work() -> None:
        with queue.current():
            first.host[:] = np.arange(20).reshape(4, 5)
            queue.upload(first, 3)
            queue.take(second, 3, first.address)
            second.host[:] = -1
            queue.download(second, 3)
            queue.synchronize()
            results.append(second.host.copy())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert first.address != second.address
    if not first.shared:
        np.testing.assert_array_equal(results[0][:3], np.arange(15).reshape(3, 5))
        np.testing.assert_array_equal(results[0][3], -1)


def test_a_recorded_copy_runs_when_it_is_launched(queue: cuda.Queue) -> None:
    if not queue.can_record:
        pytest.skip("this binding has no CUDA graphs")
    with queue.current():
        source, target = queue.buffer((4,), "float32"), queue.buffer((4,), "float32")
        graph = queue.record(lambda: queue.take(target, 4, source.address))
        for value in (3, 5):
            source.host[:] = value
            queue.upload(source, 4)
            assert queue.timed(lambda: queue.launch(graph)) > 0
            queue.download(target, 4)
            queue.synchronize()
            np.testing.assert_array_equal(target.host, value)
        queue.forget(graph)

        def fail() -> None:
            raise AmpnetError("stopped")

        with pytest.raises(AmpnetError, match="stopped"):
            queue.record(fail)
        queue.wait_for(1)
        queue.synchronize()  # the stream is of use after all that


@pytest.mark.parametrize("image_input", ["uint8", "float32"])
def test_plan_runs_on_the_gpu_and_agrees_with_onnx_runtime(gpu: cuda.Gpu, tmp_path: Path, image_input: str) -> None:
    pytest.importorskip("tensorrt_rtx")
    init_checkpoint(tmp_path / "small.safetensors", seed=3, width=0.125, classes=PRESETS["ferplus"])
    graph = export(read_checkpoint(tmp_path / "small.safetensors"), image_input)
    plan = build_plan("tensorrt-rtx", graph.SerializeToString(), "fp32", CompileOptions(SIDECAR.batch))
    (tmp_path / trt.PLAN).write_bytes(plan.data)
    files = {trt.PLAN: sha256(tmp_path / trt.PLAN)}
    sidecar = replace(installed(), image_input=image_input, target=plan.target, files=files)
    if gpu.compute_capability not in plan.target["compute_capabilities"]:
        with pytest.raises(AmpnetError, match=f"compute capability .* has {gpu.compute_capability}"):
            trt.check(sidecar)
        pytest.skip(f"TensorRT-RTX does not build for the {gpu.name} (compute capability {gpu.compute_capability})")
    trt.check(sidecar)
    session = onnxruntime.InferenceSession(graph.SerializeToString())
    rng = np.random.default_rng(0)
    with closing(trt.open_pool(tmp_path, sidecar, contexts=2)) as executor:
        for count in (1, 4, 2, 2, 2):
            images = rng.integers(0, 256, (count, 224, 224, 3), np.uint8)
            if image_input == "float32":
                images = np.ascontiguousarray(images.transpose(0, 3, 1, 2)) / np.float32(255)
            landmarks = rng.uniform(0, 224, (count, 5, 2)).astype(np.float32)
            (expected,) = session.run(None, {"image": images, "landmarks": landmarks})
            np.testing.assert_allclose(executor.run(images, landmarks), expected, atol=1e-3)
        with ThreadPoolExecutor(4) as threads:
            for logits in threads.map(lambda _: executor.run(images, landmarks), range(12)):
                np.testing.assert_allclose(logits, expected, atol=1e-3)
        with executor.borrow() as context:
            assert all(0 < seconds < 1 for seconds in context.gpu_seconds(images, landmarks, 3))
        queue = cuda.open_queue()
        with queue.current():
            there = [queue.buffer(array.shape, array.dtype.name) for array in (images, landmarks)]
            for buffer, array in zip(there, (images, landmarks), strict=True):
                buffer.host[:] = array
                queue.upload(buffer, len(array))
        placed = [
            DeviceArray(buffer.address, array.shape, array.dtype, queue.handle, buffer)
            for buffer, array in zip(there, (images, landmarks), strict=True)
        ]
        np.testing.assert_allclose(executor.run(*placed), expected, atol=1e-3)
        np.testing.assert_allclose(executor.run(*(array[1:] for array in placed)), expected[1:], atol=1e-3)
        with pytest.raises(AmpnetError, match="batches of up to 4, got 5"):
            executor.run(np.zeros((5, *images.shape[1:]), images.dtype), np.zeros((5, 5, 2), np.float32))
        with queue.current():
            queue.close()


ADA, ORIN, HOPPER = cuda.Gpu("NVIDIA L4", "8.9"), cuda.Gpu("Orin", "8.7"), cuda.Gpu("NVIDIA H100", "9.0")


def test_the_kernels_of_tensorrt_are_those_of_the_files_beside_it(tmp_path: Path) -> None:
    assert no_kernels("10.3.0", HOPPER, None) == "" == no_kernels("10.3.0", HOPPER, tmp_path)
    (tmp_path / "libnvinfer_builder_resource.so.10.3.0").touch()  # all in one, without a list
    assert no_kernels("10.3.0", HOPPER, tmp_path) == ""
    for name in ("sm75.so.10.16.1", "sm86.so.10.16.1", "sm120.so.10.16.1", "win_sm90.so.10.16.1"):
        (tmp_path / f"libnvinfer_builder_resource_{name}").touch()
    for gpu in (ADA, ORIN, cuda.Gpu("RTX 5090", "12.0"), cuda.Gpu("GB10", "12.1")):
        assert no_kernels("10.16.1", gpu, tmp_path) == ""
    for gpu in (HOPPER, cuda.Gpu("A100", "8.0"), cuda.Gpu("V100", "7.0"), cuda.Gpu("Thor", "11.0")):
        assert (
            f"{gpu.compute_capability}: its libraries in {tmp_path} have kernels for 7.5, 8.6, 12.0; install"
            in no_kernels("10.16.1", gpu, tmp_path)
        )
    (tmp_path / "libnvinfer_builder_resource_ptx.so.10.16.1").touch()  # the driver compiles it
    assert no_kernels("10.16.1", HOPPER, tmp_path) == ""


def test_the_folder_is_that_of_the_library_that_is_loaded(tmp_path: Path) -> None:
    compiler = shutil.which("cc")
    if compiler is None or not Path("/proc/self/maps").exists():
        pytest.skip("needs a C compiler and Linux")
    assert library_folder() is None
    folder = tmp_path / "a folder"
    folder.mkdir()
    (tmp_path / "empty.c").write_text("int empty;\n")
    subprocess.run([compiler, "-shared", "-fPIC", "-o", folder / "libnvinfer.so.10", tmp_path / "empty.c"], check=True)
    script = "import ctypes, sys; ctypes.CDLL(sys.argv[1])\nfrom ampnet_opt.runtime.tensorrt.library import library_folder\n"
    script += "print(library_folder())"
    command = [sys.executable, "-c", script, str(folder / "libnvinfer.so.10")]
    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip() == str(folder)
