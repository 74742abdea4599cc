"""The model of Triton's Python backend answers as the pipeline does, and refuses a picture with the same sentence.

`tools/try_triton.py` tries it in a real Triton.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from engines import save_engine
from PIL import Image
from places import ROOT
from small import CLASSES, float_graph

from ampnet_opt.core.errors import MisuseError
from ampnet_opt.detection.detector import load_detector
from ampnet_opt.pipeline.frames import Frame
from ampnet_opt.pipeline.pipeline import Pipeline
from ampnet_opt.pipeline.sources import open_source
from ampnet_opt.runtime import Engine
from ampnet_opt.serving.model_config import FACES
from ampnet_opt.serving.repository import write_repository
from ampnet_opt.serving.triton_model import TritonPythonModel, arrays
from ampnet_opt.shipped import GOLDEN_FACES


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("served")
    save_engine(float_graph(), "0" * 64, folder / "small", CLASSES)
    write_repository([folder / "small"], folder / "repository")
    return folder / "repository"


@pytest.fixture(scope="module")
def model(repository: Path) -> Iterator[TritonPythonModel]:
    loaded = TritonPythonModel()
    loaded.initialize({"model_repository": str(repository / "small-faces"), "model_version": "1"})
    yield loaded
    loaded.finalize()


@pytest.fixture()
def triton(monkeypatch: pytest.MonkeyPatch) -> None:
    """What Triton gives to its backend's process, of which the model uses these five."""
    module: Any = ModuleType("triton_python_backend_utils")
    module.get_input_tensor_by_name = lambda request, name: request[name]
    module.Tensor = lambda name, values: (name, values)
    module.TritonError = lambda text: text
    module.InferenceResponse = lambda tensors, error=None: (dict(tensors), error)
    monkeypatch.setitem(sys.modules, module.__name__, module)


class Sent:
    def __init__(self, content: bytes) -> None:
        self.content = content

    def as_numpy(self) -> np.ndarray:
        return np.array([self.content], np.object_)


def group(place: Path) -> bytes:
    picture = Image.new("RGB", (700, 400), (90, 110, 100))
    for left, name in ((40, "happiness"), (400, "anger")):
        picture.paste(Image.open(GOLDEN_FACES / "images" / f"{name}.jpg"), (left, 80))
    picture.save(place)
    return place.read_bytes()


@pytest.mark.usefixtures("triton")
def test_faces_are_those_of_run(model: TritonPythonModel, repository: Path, tmp_path: Path) -> None:
    content = group(tmp_path / "group.png")
    nobody = BytesIO()
    Image.new("RGB", (320, 240), (40, 60, 80)).save(nobody, "PNG")
    answers = model.execute([{"picture": Sent(content)}, {"picture": Sent(nobody.getvalue())}])
    with Engine.load(repository.parent / "small") as engine, open_source(str(tmp_path / "group.png")) as source:
        (result,) = Pipeline(engine, load_detector()).frames(source)
        expected = arrays(result, engine.classes)
    (found, error), (none, _) = answers
    assert error is None and list(found) == list(FACES) and len(found["labels"]) == 2
    assert all(np.array_equal(found[name], expected[name]) for name in FACES)
    assert found["boxes"].shape == (2, 4) and found["landmarks"].shape == (2, 5, 2)
    assert none["boxes"].shape == (0, 4) and none["probabilities"].shape == (0, 3) and none["labels"].shape == (0,)


@pytest.mark.usefixtures("triton")
@pytest.mark.parametrize(("content", "words"), [(b"", "is empty"), (b"no picture", "it is no picture")])
def test_what_is_no_picture_is_an_error_of_that_request(model: TritonPythonModel, content: bytes, words: str) -> None:
    ((tensors, error),) = model.execute([{"picture": Sent(content)}])
    assert tensors == {} and words in error


def test_a_frame_of_a_video_is_no_picture(model: TritonPythonModel) -> None:
    with pytest.raises(MisuseError, match="a picture has a name"):
        model._pipeline.picture(Frame(np.zeros((64, 64, 3), np.uint8)))


@pytest.mark.slow
def test_a_real_triton_answers_the_same(repository: Path) -> None:
    if find_spec("pytriton") is None:
        pytest.skip("nvidia-pytriton, which holds a tritonserver, is not installed: see tools/try_triton.py")
    command = [sys.executable, str(ROOT / "tools" / "try_triton.py"), str(repository.parent / "small")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "equal to the pipeline's" in done.stdout
