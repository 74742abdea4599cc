"""Pictures and a CSV of landmarks in, an expression for each out; a picture that fails does not stop the others."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Sequence, Tuple

import numpy as np

from ampnet_opt.errors import AmpnetError, MisuseError
from ampnet_opt.faces import PICTURES, Face, load_face, read_landmarks


@dataclass(frozen=True)
class Classified:
    """file as it was given; label: the likeliest class; probabilities of all (softmax of the logits); or error."""

    file: Path
    label: str = ""
    probabilities: Dict[str, float] = field(default_factory=dict)
    error: Optional[AmpnetError] = None

    def as_dict(self) -> Dict[str, Any]:
        return {"file": str(self.file), "label": self.label, "probabilities": self.probabilities}


def find_faces(paths: Sequence[Path], landmarks: Path) -> List[Face]:
    """The pictures in `paths` (files, or folders of them) with their landmarks, which a CSV gives by file name.

    Raises MisuseError that names what is missing: a path, or a picture's row in the CSV.
    """
    pictures: List[Path] = []
    for path in paths:
        if path.is_dir():
            inside = sorted(file for file in path.iterdir() if file.suffix.lower() in PICTURES)
            if not inside:
                raise MisuseError(f"folder {path} holds no pictures ({', '.join(sorted(PICTURES))})")
            pictures += inside
        elif path.exists():
            pictures.append(path)
        else:
            raise MisuseError(f"image {path} does not exist")
    points = read_landmarks(landmarks, {picture.name for picture in pictures})
    return [Face(picture, points[picture.name]) for picture in pictures]


def classify(engine: Any, faces: Sequence[Face]) -> Iterator[Classified]:
    """Results in the order of `faces`, computed in batches of the engine's largest."""
    size = engine.sidecar.batch.max
    for start in range(0, len(faces), size):
        part = faces[start : start + size]
        loaded = [_load(face) for face in part]
        good = [item for item in loaded if not isinstance(item, AmpnetError)]
        logits = iter(engine.infer(np.stack([i for i, _ in good]), np.stack([p for _, p in good])) if good else ())
        for face, item in zip(part, loaded):
            yield Classified(face.file, error=item) if isinstance(item, AmpnetError) else _result(face, next(logits), engine)


def _load(face: Face) -> Tuple[np.ndarray, np.ndarray] | AmpnetError:
    try:
        return load_face(face)
    except AmpnetError as error:
        return error


def _result(face: Face, logits: np.ndarray, engine: Any) -> Classified:
    shares = np.exp(logits - logits.max())
    shares = shares / shares.sum()
    probabilities = {name: round(float(share), 6) for name, share in zip(engine.classes, shares)}
    return Classified(face.file, engine.classes[int(logits.argmax())], probabilities)
