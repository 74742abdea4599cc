"""`engine.json`: what an engine is, beside the backend's own file. Read and checked before anything is loaded."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Dict, List, Optional

from ampnet_opt.errors import AmpnetError, MisuseError
from ampnet_opt.files import PathLike, sha256, write_json

NAME = "engine.json"
FORMAT = "ampnet-opt-engine/1"
INPUTS = ("image", "landmarks")
OUTPUT = "logits"


@dataclass(frozen=True)
class BatchRange:
    """Optimisation profile over the batch: the engine takes `min` to `max` images and is fastest at `opt`."""

    min: int = 1
    opt: int = 1
    max: int = 16

    def __post_init__(self) -> None:
        if not 1 <= self.min <= self.opt <= self.max:
            raise MisuseError(f"a batch profile needs 1 <= min <= opt <= max, got {self.min}, {self.opt}, {self.max}")


@dataclass(frozen=True)
class Sidecar:
    """The contents of `engine.json`.

    backend: cpu, tensorrt or tensorrt-rtx; backend_version: of the library that built it. precision: fp32, fp16, bf16 or
    int8. target: what the engine was built for (compute capabilities, say). classes: in the order of the logits.
    image_input: uint8 ([N, 224, 224, 3]) or float32 ([N, 3, 224, 224] in [0, 1]). trained: False when the weights were
    only seeded. files: name -> SHA-256 of every file of the engine. The other hashes are of what the engine was made
    from. mixed_precision: which layers of int8 stayed in floating point, why, and what was measured. built: UTC, ISO 8601.
    """

    backend: str
    backend_version: str
    precision: str
    classes: List[str]
    image_input: str
    patch_radius: int
    trained: bool
    batch: BatchRange
    files: Dict[str, str]
    checkpoint_sha256: str
    graph_sha256: str
    built: str
    build_seconds: float
    ampnet_opt_version: str
    calibration_sha256: Optional[str] = None
    mixed_precision: Optional[Dict[str, Any]] = None
    target: Dict[str, Any] = field(default_factory=dict)

    def write(self, directory: Path) -> None:
        write_json(directory / NAME, {"format": FORMAT, **asdict(self)})


def read_sidecar(directory: PathLike) -> Sidecar:
    """The sidecar of an engine directory, after checking that every file it names is there and unchanged.

    Raises MisuseError when `directory` is no engine, AmpnetError when the engine is damaged or of another format.
    """
    folder = Path(directory)
    path = folder / NAME
    if not folder.is_dir():
        reason = "is a file; an engine is a directory" if folder.exists() else "does not exist"
        raise MisuseError(f"engine {folder} {reason}")
    if not path.is_file():
        raise MisuseError(f"{folder} is not an engine: it has no {NAME}")
    sidecar = _parse(path)
    for name, digest in sidecar.files.items():
        if Path(name).name != name:
            raise AmpnetError(f"{path} names a file outside the engine: {name}")
        if not (folder / name).is_file():
            raise AmpnetError(f"engine {folder} is incomplete: {name} is missing; build it again")
        if sha256(folder / name) != digest:
            raise AmpnetError(
                f"engine {folder} was changed after it was built: {name} does not match {NAME}; build it again"
            )
    return sidecar


def _parse(path: Path) -> Sidecar:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content.pop("format") != FORMAT:
            raise AmpnetError(f"{path} is of another version of ampnet-opt; build the engine again")
        content["batch"] = BatchRange(**content["batch"])
        for key, kind in (("files", dict), ("classes", list), ("target", dict), ("backend", str), ("backend_version", str)):
            if not isinstance(content.get(key), kind):
                raise ValueError(f"{key} is no {kind.__name__}")
        known = {f.name for f in fields(Sidecar)}
        return Sidecar(**{key: value for key, value in content.items() if key in known})
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise AmpnetError(f"{path} is damaged ({error}); build the engine again") from error
