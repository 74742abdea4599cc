"""What the commands read: checkpoints, faces, and the engines of a comparison."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence

from ampnet_opt.cli.options import ENGINES
from ampnet_opt.core.errors import AmpnetError, MisuseError
from ampnet_opt.core.installing import install_command
from ampnet_opt.core.messages import remark
from ampnet_opt.core.progress import stages
from ampnet_opt.core.text import command


def require_extra() -> None:
    """AmpnetError where what `[convert]` installs is missing."""
    try:
        import onnxruntime  # noqa: F401
        import torch  # noqa: F401
    except ImportError as error:
        if sys.version_info < (3, 10):
            raise AmpnetError("this command needs Python 3.10 or newer; engines and bundles work with this one") from error
        raise AmpnetError(f"this command needs more than the runtime ({error}): {install_command('convert')}") from error


def read_checkpoint(path: Path, classes: Optional[str], patch_radius: Optional[int]) -> Any:
    from ampnet_opt.core.files import require_file
    from ampnet_opt.core.labels import parse_classes
    from ampnet_opt.shipped import CHECKPOINT

    if path != CHECKPOINT:
        _require_no_bundle(path)
    require_file(path, "checkpoint")
    require_extra()
    from ampnet_opt.network.checkpoint import read_checkpoint

    loaded = read_checkpoint(path, None if classes is None else parse_classes(classes), patch_radius)
    if loaded.dropped:
        remark(f"{path}: {len(loaded.dropped)} weights that the network does not use were left out")
    return loaded


def _require_no_bundle(path: Path) -> None:
    from ampnet_opt.runtime.bundle import is_bundle

    if is_bundle(path):
        build = command("ampnet-opt", "build", path)
        raise MisuseError(f"{path} is a bundle, not a checkpoint: build its engines with {build}")


def faces_of(table: Optional[Path], split: str, form: str = "auto", labelled: bool = True) -> List[Any]:
    """The faces of a split of a table, or of the default data, about which a line on stderr says what they are.

    split: "all" is every row; of a table without splits, every row is taken, and that is said. form: of the landmarks.
    """
    from ampnet_opt.faces.face import ALL, read_faces
    from ampnet_opt.faces.landmark_checks import AUTO, form_of

    form_of(form)  # a wrong one is told before anything is read
    if table is None and form != AUTO:
        raise MisuseError("--landmarks-format would do nothing without --data")
    if table is not None:
        faces = read_faces(table, split, labelled, form, whole=True)
        if split != ALL and not any(face.split for face in faces):
            remark(f"data: {table} has no splits; all {len(faces)} faces are taken")
        return faces
    require_extra()  # whoever wants faces wants the rest too, which older Pythons do not have
    from ampnet_opt.synthetic import default_faces

    with stages() as progress:
        wanted = None if split == ALL else split
        faces = default_faces(wanted, lambda done, total: progress("drawing faces, once", done, total))
    remark(f"data: {len(faces)} drawn faces, split {split} (--data takes yours)")
    return faces


def table_of(data: Optional[Path]) -> Optional[Path]:
    """The table that `faces_of` reads, None for the default data. Raises MisuseError when there is none."""
    from ampnet_opt.core.tables import find_table

    return None if data is None else find_table(data, "data file")


def apart(sets: Sequence[List[Any]], names: Sequence[str]) -> List[List[Any]]:
    """Sets of faces, each of which is to prove what the ones before it gave: no face is in two of them.

    names: the options that chose them. All faces of data without splits are `dealt` out. Copies of a picture under another
    name, of which published data sets have some in other splits, stay in the first set, with a remark. Raises MisuseError
    where splits that were asked for share faces, or nothing would be left of a set.
    """
    from ampnet_opt.core.text import count
    from ampnet_opt.faces.repeats import unseen

    found: List[List[Any]] = list(sets[:1])
    for i in range(1, len(sets)):
        others = sets[i]
        for j, earlier in enumerate(found):
            before = len(others)
            shared, others = unseen(others, earlier)
            if shared and not any(face.split for faces in sets for face in faces):
                return dealt("data without splits", sets[0], names)
            if shared:
                raise MisuseError(
                    f"{names[j]} and {names[i]} share {count(shared, 'face')}: faces that train, calibrate or choose cannot "
                    "prove"
                )
            if not others:
                raise MisuseError(f"all faces of {names[i]} are copies of pictures of {names[j]}, and cannot prove anything")
            if len(others) < before:
                copies = count(before - len(others), "face")
                remark(f"data: {copies} of {names[i]} left out: copies of pictures of {names[j]}")
        found.append(others)
    return found


def dealt(what: str, faces: List[Any], names: Sequence[str]) -> List[List[Any]]:
    """The faces dealt out among the options `names`, each class in turn, so that all get their share of it, with a remark.

    what: whose faces they are, in words. Raises MisuseError when they are too few.
    """
    from ampnet_opt.core.text import listed

    turn: Dict[str, int] = {}
    found: List[List[Any]] = [[] for _ in names]
    for face in faces:
        turn[face.label] = turn.get(face.label, -1) + 1
        found[turn[face.label] % len(names)].append(face)
    if not found[-1]:
        raise MisuseError(f"{what}: no class has {len(names)} faces, one each for {listed(names)}")
    remark(f"data: {what}: {', '.join(f'{len(part)} faces for {name}' for part, name in zip(found, names))}")
    return found


def subjects_of(paths: List[Path]) -> tuple[Path, List[Path]]:
    """Checkpoint and engine directories of a comparison; what is not given is the package's checkpoint and engines/*."""
    from ampnet_opt.runtime.sidecar import NAME
    from ampnet_opt.shipped import CHECKPOINT

    checkpoint = paths[0] if paths and not paths[0].is_dir() else CHECKPOINT
    engines = [path for path in paths if path is not checkpoint]
    if not engines:
        # Without hidden ones: they are in the making, or left by a build that was killed.
        engines = sorted(file.parent for file in ENGINES.glob(f"[!.]*/{NAME}"))
        if not engines:
            raise MisuseError("there are no engines to compare: name them, or make one with ampnet-opt build --int8")
    return checkpoint, engines
