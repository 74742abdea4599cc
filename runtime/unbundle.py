"""From a bundle to engine directories, on the machine that runs them: numpy and the backend, nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Callable, ContextManager, Dict, Optional, Sequence

from ampnet_opt.errors import AmpnetError, MisuseError
from ampnet_opt.files import PathLike, new_directory, require_new, reserved
from ampnet_opt.runtime.build import Machine, build_engine, engine_name, form_for, not_runnable, require_possible
from ampnet_opt.runtime.builder_options import BuilderOptions
from ampnet_opt.runtime.bundle import Bundle, Part, open_bundle
from ampnet_opt.runtime.plan import DEFAULTS
from ampnet_opt.runtime.sidecar import BatchRange, read_sidecar

# As of convert.build: `step(what, total)` opens a step, and gives what is called with the units done.
Steps = Callable[[str, int], ContextManager[Callable[[float], None]]]


def build_bundle(
    path: PathLike,
    output: PathLike,
    step: Steps,
    precisions: Sequence[str] = (),
    backend: Optional[str] = None,
    batch: BatchRange = BatchRange(),  # noqa: B008 (frozen)
    compute_capabilities: Sequence[str] = (),
    options: BuilderOptions = DEFAULTS,
    force: bool = False,
) -> Dict[Path, str]:
    """Build the engines of a bundle in `output`; returns, for each, why it was not run here, or "".

    precisions: by default all that the bundle holds. backend: MisuseError when it is not the bundle's. An engine that this
    machine can run is compared with the golden faces before it is handed out. An engine that came in the bundle is put in
    its place as it is. Raises MisuseError when one stands there already and `force` is not given, or the bundle lacks what
    is asked for; AmpnetError when it is damaged or a step fails. An engine appears whole or not at all.
    """
    with open_bundle(path) as bundle:
        contents = bundle.contents
        if backend not in {None, contents.backend}:
            raise MisuseError(f"bundle {path} is for the backend {contents.backend}, not {backend}")
        if compute_capabilities and (contents.backend != "tensorrt-rtx" or contents.engine_precision is not None):
            raise MisuseError(f"--compute-capability is for graphs of the backend tensorrt-rtx; bundle {path} holds none")
        held = [contents.engine_precision] if contents.parts is None else [part.precision for part in contents.parts]
        missing = [name for name in precisions if name not in held]
        if missing:
            raise MisuseError(
                f"bundle {path} holds {', '.join(map(str, held))}, not {missing[0]}: make one with --{missing[0]}"
            )
        chosen = [name for name in held if name is not None and (name in precisions or not precisions)]
        targets = {name: require_new(Path(output) / engine_name(contents.backend, name), force) for name in chosen}
        if contents.parts is None:
            return {target: _unpack(bundle, target, step, force) for target in targets.values()}
        require_possible(contents.backend, chosen, options, batch)
        parts = {part.precision: part for part in contents.parts}
        machine = Machine(contents.backend, batch, compute_capabilities, options)
        with reserved(*targets.values()):
            return {target: _build(bundle, parts[name], target, machine, step, force) for name, target in targets.items()}


def _build(bundle: Bundle, part: Part, target: Path, machine: Machine, step: Steps, force: bool) -> str:
    assert bundle.contents.origin is not None  # as of a bundle with parts
    with step(f"building {target.name}", 1) as progress:
        prepared = bundle.prepared(part, form_for(machine.backend, machine.options))
        return build_engine(target, machine, bundle.contents.origin, prepared, bundle.proof(part), progress, force=force)


def _unpack(bundle: Bundle, target: Path, step: Steps, force: bool) -> str:
    with step(f"unpacking {target.name}", 0), new_directory(target, force) as directory:
        for name in bundle.contents.engine_files or []:
            bundle.copy(name, directory)
        sidecar = read_sidecar(directory)
        name = engine_name(sidecar.backend, sidecar.precision)
        if name != target.name:
            raise AmpnetError(
                f"bundle {bundle.path} is damaged (its engine is {name}, not {target.name}); copy it again, or make another"
            )
        return not_runnable(sidecar)
