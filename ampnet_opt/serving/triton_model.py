"""The model of Triton's Python backend that finds faces in an encoded picture and reads their expressions.

Triton makes one object per instance of the model, each in a process of its own, and calls it from one thread.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, List

import numpy as np

from ampnet_opt.core.errors import AmpnetError
from ampnet_opt.core.pictures import decoded_photo
from ampnet_opt.detection.detector import load_detector
from ampnet_opt.pipeline.frames import Frame, FrameResult
from ampnet_opt.pipeline.pipeline import Pipeline
from ampnet_opt.runtime import Engine
from ampnet_opt.serving.model_config import FACES, PICTURE
from ampnet_opt.serving.repository import DETECTOR, ENGINE


class TritonPythonModel:
    """One picture a request, answered by its faces, largest first; a picture that cannot be read is answered by an error."""

    def initialize(self, args: Dict[str, str]) -> None:
        """Load the engine and the detector out of the folder of the model's version, and compile both.

        args: of Triton; `model_repository` is the model's folder. Raises AmpnetError, which Triton shows, when this Python
        lacks a package or the engine does not run here.
        """
        folder = Path(args["model_repository"]) / args["model_version"]
        self._engine = Engine.load(folder / ENGINE)
        self._detector = load_detector(folder / DETECTOR)
        self._pipeline = Pipeline(self._engine, self._detector)
        self._engine.warm_up()

    def execute(self, requests: List[Any]) -> List[Any]:
        """A response to each request."""
        return [self._respond(request) for request in requests]

    def finalize(self) -> None:
        """Free the engine and the detector."""
        self._detector.close()
        self._engine.close()

    def _respond(self, request: Any) -> Any:
        import triton_python_backend_utils as triton  # of Triton's own process, nowhere else

        content = triton.get_input_tensor_by_name(request, PICTURE).as_numpy().ravel()[0]
        try:
            faces = faces_of(self._pipeline, content, self._engine.classes)
        except AmpnetError as error:
            return triton.InferenceResponse([], triton.TritonError(str(error)))
        return triton.InferenceResponse([triton.Tensor(name, faces[name]) for name in FACES])


def faces_of(pipeline: Pipeline, content: bytes, classes: List[str]) -> Dict[str, np.ndarray]:
    """The faces of an encoded picture, largest first.

    Returns:
        For F faces, in pixels of the picture: boxes float32 [F, 4] (x, y, width, height), scores float32 [F], landmarks
        float32 [F, 5, 2]; labels [F] of UTF-8 bytes; probabilities float32 [F, classes].

    Raises:
        MisuseError: the picture cannot be read.
    """
    with decoded_photo(content) as photo:
        frame = Frame(np.asarray(photo.image), name=PICTURE, scale=photo.scale)
        return arrays(pipeline.picture(frame), classes)


def arrays(result: FrameResult, classes: List[str]) -> Dict[str, np.ndarray]:
    """The faces of a picture as `faces_of` gives them."""
    faces, scale = result.faces, result.frame.scale
    return {
        "boxes": np.array([face.detection.box for face in faces], np.float32).reshape(-1, 4) * np.float32(scale),
        "scores": np.array([face.detection.score for face in faces], np.float32),
        "landmarks": np.array([face.detection.landmarks for face in faces], np.float32).reshape(-1, 5, 2)
        * np.float32(scale),
        "labels": np.array([classes[face.label].encode() for face in faces], np.object_),
        "probabilities": np.array([face.probabilities for face in faces], np.float32).reshape(-1, len(classes)),
    }
