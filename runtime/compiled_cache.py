"""Compiled models of the cpu backend, kept for the next process: its first result comes sooner, from less memory.

OpenVINO keeps compiled models itself, when told to, but knows them by their contents: it reads the whole engine beside the
compiled model. Here an engine is known by the hashes in its sidecar, and what is kept is read alone.
"""

from __future__ import annotations

import contextlib
import io
import json
from hashlib import sha256
from pathlib import Path
from typing import Any, Callable, Dict, Mapping

from ampnet_opt.errors import AmpnetError
from ampnet_opt.files import cache_folder, forget_oldest, new_file

KEPT = 9  # each as large as its engine


def load_or_compile(
    openvino: Any, core: Any, identity: Mapping[str, Any], config: Dict[str, Any], make: Callable[[], Any]
) -> Any:
    """The CompiledModel of `make()`, from the cache where it is there; put there, where that can be written, if not.

    identity: what tells the engine and its shapes from others, as JSON. The library's version, the processor and `config`
    are told apart as well. What cannot be read is made again.
    """
    try:
        folder = cache_folder("openvino")
    except AmpnetError:
        return make()
    processor = [core.get_property("CPU", name) for name in ("FULL_DEVICE_NAME", "OPTIMIZATION_CAPABILITIES")]
    key = json.dumps([identity, config, openvino.__version__, processor], sort_keys=True, default=str)
    path = folder / f"{sha256(key.encode()).hexdigest()[:32]}.blob"
    with contextlib.suppress(RuntimeError, OSError):
        return _read(openvino, core, path, config)
    compiled = make()
    with contextlib.suppress(AmpnetError):
        _keep(compiled, path)
    return compiled


def _read(openvino: Any, core: Any, path: Path, config: Dict[str, Any]) -> Any:
    if path.stat().st_size and hasattr(openvino, "tensor_from_file"):
        with contextlib.suppress(TypeError):  # older versions take a copy alone
            return core.import_model(openvino.tensor_from_file(path), "CPU", config)  # mapped
    return core.import_model(io.BytesIO(path.read_bytes()), "CPU", config)


def _keep(compiled: Any, path: Path) -> None:
    """Write a compiled model, and forget the oldest. Raises AmpnetError when it cannot be written."""
    content = io.BytesIO()
    compiled.export_model(content)
    with new_file(path) as unfinished:
        unfinished.write_bytes(content.getvalue())
    forget_oldest(path.parent, "*.blob", KEPT)
