"""Compiled models of OpenVINO: the requests that run them, and their cache."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import mmap
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Any, BinaryIO, Callable, Dict, List, Mapping, Optional, Sequence, Tuple, Union

import numpy as np

from ampnet_opt.core.cache import DIGEST, UnsafeCache, cache_folder, forget_oldest, hashed_file, new_hashed_file
from ampnet_opt.core.errors import AmpnetError
from ampnet_opt.core.graph_interface import INPUTS
from ampnet_opt.core.lifetime import free
from ampnet_opt.core.processor import release_memory
from ampnet_opt.core.text import one_line
from ampnet_opt.runtime.openvino.library import core, load_openvino

log = logging.getLogger(__name__)

NEWEST = 12  # compiled models that are kept whatever their size: of three engines and a detector
LARGEST_CACHE = 1 << 30  # bytes; a compiled model is as large as its engine


class Request:
    """An infer request, used by one thread at a time.

    names: of the inputs. memory: what its compiled model reads, if that is mapped: it must outlive the request, whoever
    frees what first.
    """

    def __init__(self, compiled: Compiled, names: Sequence[str] = INPUTS) -> None:
        self._names = names
        self._native = compiled.native.create_infer_request()
        self._memory = compiled.memory
        self._inputs: Optional[Tuple[np.ndarray, ...]] = None  # of the inference that runs, which reads them

    def run(self, *values: np.ndarray, outputs: Sequence[Union[int, str]] = (0,)) -> List[np.ndarray]:
        """The outputs that have these names or places, of contiguous inputs."""
        try:
            self.start(*values)
            return self.results(outputs)
        finally:
            self.wait()

    def start(self, *values: np.ndarray) -> None:
        """Begin an inference; the arrays are read in place until `results` or `wait` returns."""
        self.wait()  # for one that Ctrl-C left running
        # Tensors over our own memory, and one copy out: the request's convenience call costs a tenth of a millisecond.
        tensors = tuple(map(_writable, values))
        try:
            for name, value in zip(self._names, tensors):
                self._native.set_tensor(name, load_openvino().Tensor(value, shared_memory=True))
        except RuntimeError as error:
            raise AmpnetError(f"OpenVINO does not take these inputs: {one_line(error)}") from error
        self._inputs = tensors
        self._native.start_async()

    def results(self, outputs: Sequence[Union[int, str]] = (0,)) -> List[np.ndarray]:
        """Wait for an inference, and copy its outputs."""
        try:
            self._native.wait()
        except RuntimeError as error:
            raise AmpnetError(f"OpenVINO failed to compute: {one_line(error)}") from error
        self._inputs = None
        get = self._native.get_tensor
        return [(self._native.get_output_tensor(one) if isinstance(one, int) else get(one)).data.copy() for one in outputs]

    def wait(self) -> None:
        """Until nothing reads the inputs."""
        if self._inputs is not None:
            with contextlib.suppress(RuntimeError):
                self._native.wait()
            self._inputs = None

    def profile(self) -> List[Any]:
        """OpenVINO's counters of the last inference, layer by layer."""
        return list(self._native.profiling_info)

    def __del__(self) -> None:
        if hasattr(self, "_native"):
            free(self.__dict__, "_native", self.wait)  # before the memory


def _writable(values: np.ndarray) -> np.ndarray:
    """The same memory, as an array that says it may be written to: OpenVINO takes no other, but only reads its inputs."""
    return values if values.flags.writeable else np.asarray(_SameMemory(values))


class _SameMemory:
    def __init__(self, values: np.ndarray) -> None:
        self._values = values  # kept alive
        about = values.__array_interface__
        self.__array_interface__ = {**about, "data": (about["data"][0], False)}


class Compiled:
    """A compiled model, and the memory that it reads, which is freed after it."""

    def __init__(self, native: Any, memory: Any) -> None:
        self.native, self.memory = native, memory

    def __del__(self) -> None:
        if hasattr(self, "native"):
            free(self.__dict__, "native", lambda: None)


def cached(identity: Mapping[str, Any], config: Dict[str, Any], make: Callable[[], Any]) -> Compiled:
    """The model that `make()` compiles, from the cache where it is there; put there, where that can be written, if not.

    OpenVINO keeps compiled models itself, when told to, but knows them by their contents: it reads the whole engine beside
    the compiled model. Here an engine is known by the hashes in its sidecar, and what is kept is read alone. A file has its
    own hash, because OpenVINO does not notice damage and would answer with it.

    identity: what tells the engine and its shapes from others, as JSON. The library's version, the processor and `config`
    are told apart as well. What cannot be read, or is damaged, is made again and replaced. A folder that others may write
    to is not used, which a warning says.
    """
    try:
        folder = cache_folder("openvino")
    except AmpnetError as error:
        if isinstance(error, UnsafeCache):
            _warn_once(str(error))
        return Compiled(make(), None)
    openvino, able = load_openvino(), core(computes=True)
    processor = [able.get_property("CPU", name) for name in ("FULL_DEVICE_NAME", "OPTIMIZATION_CAPABILITIES")]
    key = json.dumps([identity, config, openvino.__version__, processor], sort_keys=True, default=str)
    path = folder / f"{sha256(key.encode()).hexdigest()[:32]}.blob"
    with contextlib.suppress(RuntimeError, OSError):
        return _read_compiled(path, config)
    compiled = make()
    try:
        _keep(compiled, path)
    except AmpnetError:
        return Compiled(compiled, None)
    del compiled  # read again, it takes less memory
    release_memory()
    with contextlib.suppress(RuntimeError, OSError):
        return _read_compiled(path, config)
    return Compiled(make(), None)


@lru_cache(maxsize=None)
def _warn_once(reason: str) -> None:
    log.warning("compiled models are not cached: %s", reason)


def _read_compiled(path: Path, config: Dict[str, Any]) -> Compiled:
    """The compiled model of a file and the memory that it reads. Raises OSError and RuntimeError."""
    with hashed_file(path) as file:
        # Copy-on-write because OpenVINO takes no memory that is read-only; it does not write to a model's constants. The
        # file stays as it was hashed: only this user may write to it, and files are replaced here, never changed.
        pages = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    mapped = np.frombuffer(pages, np.uint8)[:-DIGEST]
    able = core(computes=True)
    with contextlib.suppress(TypeError):  # older versions take a copy alone
        compiled = Compiled(able.import_model(load_openvino().Tensor(mapped, shared_memory=True), "CPU", config), mapped)
        if hasattr(mmap, "MADV_DONTNEED"):
            # Most weights were copied into the order that kernels want, and are not read again; what is, is read from the
            # file again. Saves the engine's size in memory.
            pages.madvise(mmap.MADV_DONTNEED)
        return compiled
    return Compiled(able.import_model(io.BytesIO(mapped.tobytes()), "CPU", config), None)


def _keep(compiled: Any, path: Path) -> None:
    """Write a compiled model, and forget the oldest. Raises AmpnetError when it cannot be written."""
    with new_hashed_file(path) as file:
        straight = _Straight(file)
        compiled.export_model(straight)
        if straight.failure:
            raise straight.failure
    forget_oldest(path.parent, "*.blob", LARGEST_CACHE, NEWEST)


class _Straight(io.BytesIO):
    """What is written goes to a file at once: OpenVINO exports into a BytesIO alone, which would be one more copy.

    failure: of a write, Ctrl-C included. OpenVINO would not pass it on.
    """

    def __init__(self, file: BinaryIO) -> None:
        super().__init__()
        self._file = file
        self.failure: Optional[BaseException] = None

    def write(self, content: Any) -> int:
        try:
            return self._file.write(content)
        except BaseException as error:
            self.failure = self.failure or error
            raise

    def seek(self, place: int, whence: int = 0) -> int:
        return self._file.seek(place, whence)

    def tell(self) -> int:
        return self._file.tell()
