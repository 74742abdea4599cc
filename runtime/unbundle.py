"""From a bundle to engine directories, on the machine that runs them: numpy and the backend, nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Dict, Optional, Sequence

from ampnet_opt.core.errors import AmpnetError, MisuseError
from ampnet_opt.core.files import PathLike, new_directory, require_new, reserved
from ampnet_opt.runtime.backend import find_backend
from ampnet_opt.runtime.build import EngineRequest, build_engine, engine_name
from ampnet_opt.runtime.bundle import Bundle, BundlePart, open_bundle
from ampnet_opt.runtime.compile_options import CompileOptions
from ampnet_opt.runtime.sidecar import read_sidecar

if TYPE_CHECKING:
    from ampnet_opt.core.progress import Steps


def build_bundle(
    path: PathLike,
    output: PathLike,
    step: Steps,
    *,
    precisions: Sequence[str] = (),
    backend: Optional[str] = None,
    options: CompileOptions = CompileOptions(),  # noqa: B008 (frozen)
    force: bool = False,
) -> Dict[Path, str]:
    """Build the engines of a bundle in `output`; returns, for each, why it was not run here, or "".

    precisions: by default all that the bundle holds. backend: MisuseError when it is not the bundle's. An engine that this
    machine can run is compared with the golden faces before it is handed out. An engine that came in the bundle is put in
    its place as it is; one of tensorrt only where GPU, board and version are those it was built with. Raises MisuseError
    when an engine stands there already and `force` is not given, or the bundle lacks what is asked for; AmpnetError when it
    is damaged or a step fails. An engine appears whole or not at all.
    """
    with open_bundle(path) as bundle:
        contents = bundle.contents
        if backend not in {None, contents.backend}:
            raise MisuseError(f"bundle {path} is for the backend {contents.backend}, not {backend}")
        if options.compute_capabilities and contents.parts is None:
            raise MisuseError(f"--compute-capability is for graphs of the backend tensorrt-rtx; bundle {path} holds none")
        maker = find_backend(contents.backend)
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
        maker.require_possible(options, chosen)
        parts = {part.precision: part for part in contents.parts}
        with reserved(*targets.values()):
            return {
                target: _build(bundle, parts[name], target, options, step=step, force=force)
                for name, target in targets.items()
            }


def _build(bundle: Bundle, part: BundlePart, target: Path, options: CompileOptions, *, step: Steps, force: bool) -> str:
    with step(f"building {target.name}", 1) as progress:
        return build_engine(part_request(bundle, part, options), target, progress, force)


def part_request(bundle: Bundle, part: BundlePart, options: CompileOptions) -> EngineRequest:
    """What an engine of an open bundle of a checkpoint is made of."""
    assert bundle.contents.origin is not None  # as of a bundle with parts
    backend = find_backend(bundle.contents.backend)
    prepared = bundle.prepared(part, backend.graph_form(options.builder))
    return EngineRequest(backend, options, bundle.contents.origin, prepared, bundle.proof(part))


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
        backend = find_backend(sidecar.backend)
        if not backend.portable:
            backend.require_twin(sidecar)
        return backend.why_not_run(sidecar)
