"""`engine.json`: what an engine is, beside the backend's own file. Read and checked before anything is loaded."""

from __future__ import annotations

import hashlib
import logging
import os
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Callable, Dict, List, Mapping, Optional, Tuple, Union

from ampnet_opt.core.errors import AmpnetError, MisuseError
from ampnet_opt.core.field_types import require_types
from ampnet_opt.core.files import PathLike, sha256, write_json
from ampnet_opt.core.graph_interface import IMAGE_SHAPES
from ampnet_opt.core.json_files import read_json
from ampnet_opt.core.text import command, count, one_line
from ampnet_opt.runtime.backend import REGISTERED, find_backend

log = logging.getLogger(__name__)

NAME = "engine.json"
FORMAT = "ampnet-opt-engine/1"
PRECISIONS = ("fp32", "fp16", "bf16", "int8")
LARGEST_BATCH = 1 << 16
# What `layers` holds when it is known (`layers.summarise`); each item of the list is [kind, precision, bytes or None, name].
LISTED = {
    "precision": str,
    "as_asked": Dict[str, int],
    "by_design": Dict[str, int],
    "downgraded": Dict[str, str],
    "untold": List[str],
    "reformats": int,
    "list": List[List[Any]],
}
# Options of a build that its target records under these names (`compile_options`).
OPTIONS = {
    "optimization_level": "--optimization-level",
    "version_compatible": "--version-compatible",
    "hardware_compatible": "--hardware-compatible",
    "workspace_mib": "--workspace",
    "dla_core": "--dla",
}
# What `mixed_precision` holds beside its budgets, of which each may be missing.
SEARCHED = {"top1": float, "float_top1": float, "agreement": float, "sqnr_db": Optional[float], "held_out_faces": int}
# Budgets of `mixed_precision`: the option of each, and what its number is multiplied by for it.
BUDGET = {"max_drop": ("--max-drop", 1), "min_sqnr": ("--min-sqnr", 1), "min_agreement": ("--min-agreement", 100)}
# Where the faces of the choice came from, in a `mixed_precision`, of which each may be missing: its type, and its option.
FACES_FROM = {
    "split": (str, "--split"),
    "faces": (int, "--faces"),
    "held_out": (str, "--held-out"),
    "landmarks_format": (str, "--landmarks-format"),
    "drawn": (bool, ""),
}
# What `optimized` holds.
OPTIMIZED = ("goal", "why")
ATTEMPTS = 5  # at reading an engine that is replaced meanwhile
UNCHANGED, CHANGED, MISSING = "unchanged", "changed", "missing"


@dataclass(frozen=True)
class BatchRange:
    """Optimisation profile over the batch: the engine takes `min` to `max` images and is fastest at `opt`."""

    min: int = 1
    opt: int = 1
    max: int = 16

    def __post_init__(self) -> None:
        if not 1 <= self.min <= self.opt <= self.max <= LARGEST_BATCH:
            raise MisuseError(
                f"a batch profile needs 1 <= min <= opt <= max <= {LARGEST_BATCH}, got {self.min}, {self.opt}, {self.max}"
            )


@dataclass(frozen=True)
class Accuracy:
    """INT8 logits beside the float network's.

    on: DRAWN or CALIBRATION faces, of which there are `faces`. same_top1: share of them with the same top-1. sqnr_db: of the
    logits, without what all faces have in common; None where INT8 changes nothing (JSON has no infinity). engine: whether
    the engine itself was measured, or its graph in ONNX Runtime.
    """

    on: str
    faces: int
    same_top1: float
    sqnr_db: Optional[float]
    engine: bool

    def __str__(self) -> str:
        sqnr = "infinite" if self.sqnr_db is None else f"{self.sqnr_db:.1f} dB"
        return f"same top-1 on {self.same_top1:.0%} of {count(self.faces, f'{self.on} face')}, SQNR {sqnr}"


@dataclass(frozen=True)
class Sidecar:
    """The contents of `engine.json`.

    backend: cpu, tensorrt or tensorrt-rtx; backend_version: of the library that built it. precision: fp32, fp16, bf16 or
    int8. target: what the engine was built for (compute capabilities, say). classes: in the order of the logits.
    image_input: uint8 ([N, 224, 224, 3]) or float32 ([N, 3, 224, 224] in [0, 1]). trained: False when the weights were
    only seeded. files: name -> SHA-256 of every file of the engine. The other hashes are of what the engine was made
    from. mixed_precision: which layers of int8 stayed in floating point, why, and what was measured. built: UTC, ISO 8601.
    layers: what the backend itself lists (`layers.summarise`), or {"not_listed": why}; None in engines from before that.
    accuracy: of int8, its answers beside the float network's (`Accuracy`); None in engines from before that.
    classes_assumed: whether the checkpoint named no classes, and those of RAF-DB were assumed.
    optimized: of the engine that `ampnet-opt optimize` chose: "goal", and "why" as a sentence; None in all others.
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
    layers: Optional[Dict[str, Any]] = None
    accuracy: Optional[List[Dict[str, Any]]] = None
    classes_assumed: bool = False
    optimized: Optional[Dict[str, Any]] = None

    def write(self, directory: Path) -> None:
        write_json(directory / NAME, {"format": FORMAT, **asdict(self)})


def accuracies(sidecar: Sidecar) -> List[Accuracy]:
    """What a sidecar records of INT8's answers beside the float network's."""
    return [Accuracy(**found) for found in sidecar.accuracy or []]


def describe_accuracy(sidecar: Sidecar) -> str:
    """How far INT8's answers are from the float network's, on each kind of faces."""
    found = accuracies(sidecar)
    where = "" if all(accuracy.engine for accuracy in found) else " (its graph in ONNX Runtime)"
    return f"beside the float network{where}: {'; '.join(map(str, found))}"


def describe_choice(record: Dict[str, Any]) -> str:
    """Of a sidecar's mixed_precision: the layers in floating point, and what was measured with them on held-out faces."""
    names = [row["name"] for row in record["float_layers"]]
    which = f"{count(len(names), 'layer')} kept in floating point" + (f" ({', '.join(names)})" if names else "")
    sqnr = "" if record["sqnr_db"] is None else f", SQNR {record['sqnr_db']:.1f} dB"
    return (
        f"{which}: top-1 {record['top1']:.1%} (float: {record['float_top1']:.1%}), same top-1 {record['agreement']:.1%}"
        f"{sqnr}, on {count(record['held_out_faces'], 'held-out face')}"
    )


def read_sidecar(directory: PathLike, trusted: bool = False) -> Sidecar:
    """The sidecar of an engine directory, after checking that every file it names is there and unchanged.

    trusted: take files that were changed as well, with the hashes that they have now. A hash finds damage, and files of
    different engines; it is no signature: whoever writes a plan can write its sidecar too. An engine that is replaced
    meanwhile is read again, so that all is of one. Raises MisuseError when `directory` is no engine, AmpnetError when the
    engine is damaged or of another format.
    """
    for _ in range(ATTEMPTS):
        before = _identity(directory)
        try:
            sidecar: Union[Sidecar, AmpnetError] = _read_checked(directory, trusted)
        except FileNotFoundError:  # it was there a moment ago
            continue
        except OSError as error:
            sidecar = AmpnetError(f"engine {directory} cannot be read: {error.strerror or error}")
        except AmpnetError as error:
            sidecar = error
        if _identity(directory) == before and (before is not None or isinstance(sidecar, AmpnetError)):
            break
    else:
        sidecar = AmpnetError(f"engine {directory} is being replaced again and again; try it later")
    if isinstance(sidecar, AmpnetError):
        raise sidecar
    return sidecar


def _identity(directory: PathLike) -> Optional[Tuple[int, ...]]:
    """What tells an engine from another in its place, and from itself when it was away meanwhile, for a rename changes its
    ctime; None where there is none."""
    try:
        about = [os.stat(directory), os.stat(os.path.join(directory, NAME))]
    except (OSError, ValueError):
        return None
    return tuple(number for x in about for number in (x.st_dev, x.st_ino, x.st_mtime_ns, x.st_ctime_ns))


def _read_checked(directory: PathLike, trusted: bool) -> Sidecar:
    sidecar = parse_sidecar(directory)
    for name, state in file_states(directory, sidecar).items():
        if state == MISSING:
            raise AmpnetError(f"engine {directory} is incomplete: {name} is missing; build it again")
        if state == CHANGED and trusted:
            log.warning("engine %s: %s does not match %s; taken as trusted", directory, name, NAME)
            sidecar.files[name] = sha256(Path(directory) / name)  # it is known by what it is, not by what it was
        elif state == CHANGED:
            raise AmpnetError(
                f"engine {directory} was changed after it was built: {name} does not match {NAME}; an engine is a program: "
                f"build it again: {rebuild_command(sidecar)} (or, if you know who changed it, load it with --trusted)"
            )
    return sidecar


def parse_sidecar(directory: PathLike) -> Sidecar:
    """The sidecar alone, whatever became of the engine's files; errors as of `read_sidecar`."""
    folder = Path(directory)
    path = folder / NAME
    if not folder.is_dir():
        reason = "is a file; an engine is a directory" if folder.exists() else "does not exist"
        raise MisuseError(f"engine {folder} {reason}")
    if not path.is_file():
        raise MisuseError(f"{folder} is not an engine: it has no {NAME}")
    sidecar = _parse(path)
    for name in sidecar.files:
        if Path(name).name != name or name in {"", ".."} or not name.isprintable():
            raise AmpnetError(f"{path} names a file outside the engine: {name!r}")
    missing = [name for name in find_backend(sidecar.backend).files if name not in sidecar.files]
    if missing:
        raise AmpnetError(f"{path} is damaged (it has no hash of {missing[0]}); build the engine again")
    return sidecar


def file_states(directory: PathLike, sidecar: Sidecar) -> Dict[str, str]:
    """Name -> UNCHANGED, CHANGED or MISSING, for each file that the sidecar has a hash of."""
    states = {}
    for name, digest in sidecar.files.items():
        path = Path(directory) / name
        states[name] = MISSING if not os.path.isfile(path) else UNCHANGED if sha256(path) == digest else CHANGED
    return states


def require_outputs(name: str, sidecar: Sidecar, outputs: Optional[int]) -> None:
    """AmpnetError when the network of an engine has another number of outputs than the sidecar has classes: their names
    would be those of other outputs. name: of the engine. outputs: None, unknown."""
    named = len(sidecar.classes)
    if outputs not in (None, named):
        classes = "1 class" if named == 1 else f"{named} classes"
        raise AmpnetError(
            f"{name} is damaged (it names {classes}, its network has {outputs} outputs); build the engine again"
        )


def rebuild_command(sidecar: Sidecar) -> str:
    """The command line that builds this engine once more. CKPT stands for its checkpoint, ENGINE for its old directory, and
    DATA for the table of the faces that its layers were chosen by."""
    if sidecar.optimized is not None:
        return command("ampnet-opt", "optimize", "CKPT", "--data", "DATA", "--goal", sidecar.optimized["goal"])
    words = ["ampnet-opt", "build", "CKPT", f"--{sidecar.precision}", "--backend", sidecar.backend]
    batch, default = sidecar.batch, BatchRange()
    for name in ("min", "opt", "max"):
        if getattr(batch, name) != getattr(default, name):
            words += [f"--{name}-batch", getattr(batch, name)]
    if sidecar.image_input != "uint8":
        words += ["--input", sidecar.image_input]
    for name in sidecar.target.get("compute_capabilities", []):  # of tensorrt-rtx alone
        words += ["--compute-capability", name]
    for name, flag in OPTIONS.items():
        if name in sidecar.target:
            words += [flag] if sidecar.target[name] is True else [flag, sidecar.target[name]]
    if sidecar.calibration_sha256 is not None:
        words += ["--scales", "ENGINE/calibration.json"]
    budget = sidecar.mixed_precision or {}
    if "min_agreement" in budget:
        for name, (flag, factor) in BUDGET.items():
            if name in budget:
                words += [flag, f"{factor * budget[name]:g}"]
        words += [] if budget.get("drawn") else ["--data", "DATA"]
        for name, (_, flag) in FACES_FROM.items():
            if flag and name in budget:
                words += [flag, budget[name]]
    return command(*words)


def _parse(path: Path) -> Sidecar:
    try:
        content = read_json(path, "sidecar")
        if content.pop("format") != FORMAT:
            raise AmpnetError(f"{path} is of another version of ampnet-opt; build the engine again")
        require_types(content["batch"], Dict[str, int], "batch")
        content["batch"] = BatchRange(**content["batch"])
        known = {f.name for f in fields(Sidecar)}
        sidecar = Sidecar(**{key: value for key, value in content.items() if key in known})
        require_types(sidecar, Sidecar)
        _require_known(sidecar)
        return sidecar
    except (ValueError, KeyError, TypeError, AttributeError, MisuseError) as error:
        raise AmpnetError(f"{path} is damaged ({one_line(error, 120)}); build the engine again") from error


def _require_known(sidecar: Sidecar) -> None:
    """ValueError for words and numbers that mean nothing to this version."""
    for name, value, allowed in (
        ("backend", sidecar.backend, tuple(REGISTERED)),
        ("precision", sidecar.precision, PRECISIONS),
        ("image_input", sidecar.image_input, tuple(IMAGE_SHAPES)),
    ):
        if value not in allowed:
            raise ValueError(f"{name} is {value!r}, expected {', '.join(allowed)}")
    if not sidecar.classes:
        raise ValueError("it has no classes")
    if sidecar.layers is not None:
        _require_layers(sidecar.layers)
    if sidecar.mixed_precision is not None:
        _require_search(sidecar.mixed_precision)
    if sidecar.optimized is not None:
        for name in OPTIMIZED:
            require_types(sidecar.optimized[name], str, name)
    require_types(accuracies(sidecar), List[Accuracy], "accuracy")
    require_types(sidecar.target.get("compute_capabilities", []), List[str], "compute_capabilities")


def _require_layers(record: Dict[str, Any]) -> None:
    """KeyError or ValueError for `layers` that cannot be shown."""
    if "not_listed" in record:
        require_types(record["not_listed"], str, "not_listed")
        return
    for name, hint in LISTED.items():
        require_types(record[name], hint, name)
    for layer in record["list"]:  # hundreds of them, each time an engine is loaded
        kind, precision, size, name = layer
        if {type(kind), type(precision), type(name)} != {str} or type(size) not in (int, type(None)):
            raise ValueError(f"its list of layers holds {str(layer)[:80]}")


def _require_search(record: Dict[str, Any]) -> None:
    """KeyError or ValueError for a `mixed_precision` that cannot be shown, or searched again."""
    for name, hint in SEARCHED.items():
        require_types(record[name], hint, name)
    for name in {*BUDGET} & {*record}:
        require_types(record[name], float, name)
    for name, (kind, _) in FACES_FROM.items():
        if name in record:
            require_types(record[name], kind, name)
    require_types(record["float_layers"], List[Dict[str, Any]], "float_layers")
    for layer in record["float_layers"]:
        require_types(layer["name"], str, "the name of a layer")


def read_unchanged(path: Path, files: Optional[Mapping[str, str]], allocate: Callable[[int], Any] = bytearray) -> Any:
    """The bytes of a file of an engine, in memory that nobody else writes to, after a check that they have its SHA-256.

    files: name -> SHA-256, as of `Sidecar`; None for an engine that is being built. allocate: gives a writable buffer of so
    many bytes. Raises AmpnetError when the file is gone or another one.
    """
    try:
        with open(path, "rb") as file:
            content = allocate(os.fstat(file.fileno()).st_size)
            with memoryview(content) as view:
                length = file.readinto(view)
                whole = length == len(view) and not file.read(1)
                if files is None or (whole and hashlib.sha256(view).hexdigest() == files[path.name]):
                    return content
    except FileNotFoundError as error:
        raise AmpnetError(f"{path} is gone since the engine was loaded; load the engine again") from error
    except OSError as error:
        raise AmpnetError(f"{path} cannot be read: {error.strerror or error}") from error
    raise AmpnetError(f"engine {path.parent} was replaced after it was loaded; load it again")
