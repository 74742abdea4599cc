"""Pictures and a CSV of landmarks in, an expression for each out; a picture that fails does not stop the others."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Deque, Dict, Iterator, List, Optional, Sequence, Tuple

import numpy as np

from ampnet_opt.core.errors import AmpnetError, MisuseError
from ampnet_opt.core.metrics import softmax
from ampnet_opt.core.pictures import OTHER_PICTURES, PICTURES, image_header, is_picture, opened_photo, remedy
from ampnet_opt.core.processor import available_cores
from ampnet_opt.core.text import listed
from ampnet_opt.faces.face import Face, load_face, read_landmarks
from ampnet_opt.faces.landmark_checks import AUTO
from ampnet_opt.pipeline.stages import begun_ahead

if TYPE_CHECKING:
    from ampnet_opt.pipeline.frames import FrameResult

AHEAD = 16  # pictures that each reading thread may be ahead of the engine


@dataclass(frozen=True)
class Classified:
    """file as it was given; label: the likeliest class; probabilities of all (softmax of the logits); or error."""

    file: Path
    label: str = ""
    probabilities: Dict[str, float] = field(default_factory=dict)
    error: Optional[AmpnetError] = None

    def as_dict(self) -> Dict[str, Any]:
        return {"file": str(self.file), "label": self.label, "probabilities": self.probabilities}


def find_faces(paths: Sequence[Path], landmarks: Path, form: str = AUTO) -> List[Face]:
    """The pictures in `paths` (files, or folders of them) with their landmarks, as `read_landmarks` reads them.

    Raises MisuseError that names what is missing: a path, or a picture's row in the table.
    """
    return read_landmarks(landmarks, picture_files(paths), form)


def picture_files(paths: Sequence[Path]) -> List[Path]:
    """The pictures in `paths`, files or folders of them. Raises MisuseError that names a path that is missing."""
    pictures: List[Path] = []
    for path in paths:
        if path.is_dir():
            pictures += pictures_in(path)
        elif path.exists():
            pictures.append(path)
        else:
            raise MisuseError(f"image {path} does not exist")
    return pictures


def classify(engine: Any, faces: Sequence[Face], threads: Optional[int] = None) -> Iterator[Classified]:
    """Results in the order of `faces`; `threads` (by default one per core) read pictures ahead while the engine computes."""
    waiting: Deque[Tuple[Face, Optional[AmpnetError]]] = deque()  # given to the engine, or failed, without a result yet

    def readable(pool: Executor) -> Iterator[Tuple[np.ndarray, np.ndarray]]:
        loading = begun_ahead(lambda face: pool.submit(_load, face), faces, AHEAD * readers)
        for face, loaded in zip(faces, loading):
            if isinstance(loaded, AmpnetError):
                waiting.append((face, loaded))
            else:
                waiting.append((face, None))
                yield loaded

    def failures() -> Iterator[Classified]:
        while waiting and waiting[0][1] is not None:
            face, error = waiting.popleft()
            yield Classified(face.file, error=error)

    readers = threads or available_cores()
    with ThreadPoolExecutor(readers) as pool:
        for logits in engine.infer_each(readable(pool)):
            yield from failures()
            yield _result(waiting.popleft()[0], logits, engine)
    yield from failures()


def as_frame(index: int, face: Face, answer: Classified, *, pixels: bool) -> FrameResult:
    """An answer as the pipeline gives them, to be drawn or tabulated: the whole picture is the face, with a score of 1.

    Args:
        index: of the picture.
        face: that was classified.
        answer: for it, without an error.
        pixels: whether the picture is needed; without them, the frame's image is empty.

    Raises:
        MisuseError: the picture can no longer be read.
    """
    from ampnet_opt.faces.detection import Detection
    from ampnet_opt.pipeline.frames import Frame, FrameResult, TrackedFace

    image, scale = np.zeros((0, 0, 3), np.uint8), 1.0
    if pixels:
        with opened_photo(face.file) as photo:
            image, (width, height) = np.asarray(photo.image), photo.size
        scale = width / image.shape[1]
    else:
        (width, height), _ = image_header(face.file)
    shares = np.array(list(answer.probabilities.values()), np.float32)
    whole = Detection((0.0, 0.0, width / scale, height / scale), 1.0, (face.landmarks / scale).astype(np.float32))
    frame = Frame(image, index, name=str(face.file), scale=scale)
    return FrameResult(frame, [TrackedFace(whole, shares, shares, int(shares.argmax()))])


def _load(face: Face) -> Tuple[np.ndarray, np.ndarray] | AmpnetError:
    try:
        return load_face(face)
    except AmpnetError as error:
        return error


def _result(face: Face, logits: np.ndarray, engine: Any) -> Classified:
    probabilities = {name: round(float(share), 6) for name, share in zip(engine.classes, softmax(logits))}
    return Classified(face.file, engine.classes[int(logits.argmax())], probabilities)


def pictures_in(folder: Path) -> List[Path]:
    """The pictures in a folder, by name. Raises MisuseError when there are none; it names those that are not read here."""
    inside = sorted(file for file in folder.iterdir() if is_picture(file))
    unread = [] if inside else [Path(file.name) for file in left_out([folder])]
    if unread:
        raise MisuseError(f"folder {folder} holds no pictures in a format that is read, only {name_unread(unread)}")
    if not inside:
        raise MisuseError(f"folder {folder} holds no pictures ({', '.join(sorted(PICTURES))})")
    return inside


def left_out(paths: Sequence[Path]) -> List[Path]:
    """Pictures in the folders among `paths` that are of a format that is not read here."""
    folders = [path for path in paths if path.is_dir()]
    return sorted(file for folder in folders for file in folder.iterdir() if is_picture(file, OTHER_PICTURES))


def name_unread(files: Sequence[Path]) -> str:
    """Pictures that `left_out` found, and what to do with each kind of them."""
    remedies = dict.fromkeys(remedy(file.suffix) for file in files)
    of_each = ([file for file in files if remedy(file.suffix) == what] for what in remedies)
    return "; ".join(f"{listed(some)} ({what})" for what, some in zip(remedies, of_each))
