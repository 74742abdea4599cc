"""One class for every backend: load an engine directory, give it faces, get logits."""

from __future__ import annotations

import threading
import weakref
from itertools import chain, islice
from pathlib import Path
from types import TracebackType
from typing import Any, Callable, Iterable, Iterator, List, Optional, Tuple, Type

import numpy as np

from ampnet_opt.core.errors import MisuseError
from ampnet_opt.core.files import PathLike
from ampnet_opt.core.graph_interface import IMAGE_SHAPES, IMAGE_SIDE, LANDMARKS_SHAPE
from ampnet_opt.core.lifetime import Calls, end_with_process, keep_in_children, native
from ampnet_opt.runtime.backend import Executor, LoadOptions, find_backend, pad_batch
from ampnet_opt.runtime.sidecar import Sidecar, read_sidecar, require_outputs

Run = Callable[[Any, Any], np.ndarray]  # of an executor: images and landmarks of one batch -> logits


class Engine:
    """A loaded engine. `Engine.load(directory)` makes one; it is a context manager, and `close` frees what it holds.

    Any number of threads may use it at once, with the answers of one thread, bit for bit. It costs waiting: the cpu backend
    computes one `infer` at a time of each of the graphs it compiles (for one image, for the batch that the engine is fastest
    at, and for all other batches), on all cores, and a GPU as many as it has contexts. `infer_each` is for throughput; its
    batches run beside those of `infer`, and the two then share the cores.

    After `close`, and in a child of fork(), each use raises AmpnetError. An exception in the midst of a call, Ctrl-C
    included, leaves the engine usable.
    """

    def __init__(self, directory: Path, sidecar: Sidecar, executor: Executor) -> None:
        self.directory = directory
        self.sidecar = sidecar
        self._executor = executor
        self._calls = Calls()
        self._unfinished: weakref.WeakSet[_Results] = weakref.WeakSet()
        end_with_process(self)

    @classmethod
    def load(
        cls,
        directory: PathLike,
        threads: Optional[int] = None,
        *,
        contexts: int = 1,
        cuda_graph: bool = True,
        blocking_wait: bool = False,
        trusted: bool = False,
    ) -> Engine:
        """Check an engine against its sidecar and this machine, then load it.

        Args:
            directory: of the engine.
            threads: on a CPU, how many to run on; by default one per core.
            contexts: on a GPU, how many inferences run at a time; threads that are more wait their turn. (On a CPU one
                inference takes all cores.) Each context takes its own memory for activations and batches, and with TensorRT
                8.5 for the weights too.
            cuda_graph: on a GPU, launch a batch as one CUDA graph, for batches of a size that come one after the other.
            blocking_wait: on a GPU, sleep while it computes, which leaves the processor to others, and costs a call some
                microseconds; by default the thread keeps asking.
            trusted: load files that were changed after they were built, too: they are a program that is not the one that
                the sidecar names.

        Raises:
            MisuseError: there is no engine there.
            AmpnetError: it is damaged, or made for another machine or version.
        """
        sidecar = read_sidecar(directory, trusted)
        backend = find_backend(sidecar.backend)
        if contexts < 1:
            raise MisuseError(f"contexts must be at least 1, got {contexts}")
        options = LoadOptions(threads, contexts, cuda_graph, blocking_wait)

        def load() -> Engine:
            backend.check(sidecar)
            require_outputs(f"engine {directory}", sidecar, backend.outputs(Path(directory)))
            return cls(Path(directory), sidecar, backend.open(Path(directory), sidecar, options))

        return native(load)

    @property
    def classes(self) -> List[str]:
        """Names of the logits, in their order."""
        return list(self.sidecar.classes)

    def infer(self, images: Any, landmarks: Any) -> np.ndarray:
        """Logits float32 [N, classes] of N faces.

        Any N, 0 included: more images than the profile's largest batch run in several batches.

        Either argument may be on the GPU already, as an object with `__cuda_array_interface__`, and is read there in place:
        images exactly as the engine takes them (uint8 [N, 224, 224, 3], or float32 [N, 3, 224, 224] with `--input float32`),
        landmarks float32 [N, 5, 2]; what they hold is not checked.

        Args:
            images: uint8 [N, 224, 224, 3], or floating point [N, 3, 224, 224] in [0, 1]; RGB. An engine that takes uint8
                rounds floating-point images to 1/255.
            landmarks: [N, 5, 2], (x, y) in pixels, image-left eye, image-right eye, nose tip, image-left and image-right
                mouth corner; points outside the image count as on its border. A face whose points all lie within [-1, 1] is
                refused: these are shares of the image, or stand for a face that was not found. No other landmarks are
                judged here.

        Raises:
            MisuseError: the arguments are no such faces.
        """
        return self._calls.run(self._infer, self._executor.run, images, landmarks)

    @property
    def streams(self) -> int:
        """How many inferences `infer_on_stream` runs at a time."""
        return self._executor.streams

    def infer_on_stream(self, images: Any, landmarks: Any) -> np.ndarray:
        """As `infer`, for several threads: with the cpu backend each computes on one of `streams` parts of the cores.

        An inference takes longer than on all cores, but more are done in a second, in less processor time. The first one
        compiles a graph of its own. Other backends have one stream, and do what `infer` does.

        Args:
            images: as of `infer`.
            landmarks: as of `infer`.

        Raises:
            MisuseError: as `infer`.
        """
        return self._calls.run(self._infer, self._executor.run_on_stream, images, landmarks)

    def _infer(self, run: Run, images: Any, landmarks: Any) -> np.ndarray:
        batch = self.sidecar.batch
        pictures, points = engine_inputs(images, landmarks, self.sidecar.image_input)
        self._require_reachable(pictures, points)
        logits = np.empty((len(pictures), len(self.sidecar.classes)), np.float32)
        for start in range(0, len(pictures), batch.max):
            part = slice(start, start + batch.max)
            self._calls.require_running()
            logits[part] = self._run(run, pictures[part], points[part])
        return logits

    def warm_up(self, *, on_stream: bool = False) -> None:
        """Compile, load and run once what the first faces would wait for: for one image, and for the profile's opt batch.

        Other batch sizes, `infer_each`, and on a GPU further contexts, are prepared when first used.

        Args:
            on_stream: for `infer_on_stream` in place of `infer`.

        Raises:
            AmpnetError: as `infer`.
        """
        batch, shape = self.sidecar.batch, IMAGE_SHAPES[self.sidecar.image_input]
        infer = self.infer_on_stream if on_stream else self.infer
        for size in sorted({batch.min, batch.opt}):
            images = np.zeros((size, *shape), self.sidecar.image_input)
            infer(images, np.full((size, 5, 2), IMAGE_SIDE / 2, np.float32))

    def infer_each(self, faces: Iterable[Tuple[np.ndarray, np.ndarray]]) -> Iterator[np.ndarray]:
        """Logits float32 [classes] of each face, in their order: for many faces, at the highest rate.

        Faces are taken ahead of what is returned, for as many batches as the backend works at. The iterator's `close`
        ends it early; the engine's `close` does too, and what is left of it raises AmpnetError.

        Args:
            faces: pairs of an image [224, 224, 3] or [3, 224, 224] and landmarks [5, 2], else as for `infer`; all images of
                one kind.
        """
        return self._calls.run(self._results, faces)

    def _results(self, faces: Iterable[Tuple[np.ndarray, np.ndarray]]) -> _Results:
        results = _Results(self._calls, self._infer_each(faces))
        self._unfinished.add(results)
        return results

    def _infer_each(self, faces: Iterable[Tuple[np.ndarray, np.ndarray]]) -> Iterator[np.ndarray]:
        batch, executor = self.sidecar.batch, self._executor
        size = max(batch.min, min(batch.max, executor.many or batch.max))
        batches = self._batches(iter(faces), size)
        first = list(islice(batches, 2))
        everything = chain(first, batches)
        if executor.many and len(first) == 2:
            results = executor.run_many(everything)
        else:
            results = (self._run(executor.run, images, landmarks) for images, landmarks in everything)
        for logits in results:
            yield from logits

    def _batches(self, faces: Iterator[Tuple[np.ndarray, np.ndarray]], size: int) -> Iterator[Tuple[np.ndarray, np.ndarray]]:
        for part in iter(lambda: self._calls.outside(lambda: list(islice(faces, size))), []):
            images, landmarks = zip(*part)
            yield engine_inputs(np.stack(images), np.stack(landmarks), self.sidecar.image_input)

    def _require_reachable(self, *inputs: Any) -> None:
        """MisuseError for what is on the GPU, where this engine cannot take it from there."""
        if all(isinstance(value, np.ndarray) for value in inputs):
            return
        if find_backend(self.sidecar.backend).device == "cpu":
            raise MisuseError(
                f"an engine of the {self.sidecar.backend} backend takes images and landmarks in host memory, not on the GPU"
            )
        count, least = len(inputs[0]), self.sidecar.batch.min
        if 0 < count % self.sidecar.batch.max < least:
            raise MisuseError(f"the engine takes batches of at least {least} images: {count} on the GPU cannot be filled up")

    def _run(self, run: Run, images: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
        least = self.sidecar.batch.min  # the profile has no smaller batch; the results of what fills it up are dropped
        return run(pad_batch(images, least), pad_batch(landmarks, least))[: len(images)]

    def close(self) -> None:
        """Wait for the calls that run, end each unfinished `infer_each`, and free what the engine holds.

        A second call does nothing.

        Raises:
            AmpnetError: the faces that an `infer_each` reads call it.
        """
        self._calls.close(self._free)

    def _free(self) -> None:
        for results in list(self._unfinished):
            results.end()
        self._executor.close()

    def end(self, deadline: float) -> None:
        """`close` at the end of the process: what cannot be freed until `time.monotonic()` is `deadline` is left."""
        if not self._calls.forked:
            self._calls.end(self._free, deadline)

    def __enter__(self) -> Engine:
        self._calls.require_open()
        return self

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self.close()


class _Results(Iterator[np.ndarray]):
    """What `infer_each` gives; of several threads that share it, one takes a result at a time."""

    def __init__(self, calls: Calls, rows: Iterator[np.ndarray]) -> None:
        self._calls, self._rows, self._lock = calls, rows, threading.RLock()
        self._finished = False
        keep_in_children(self)

    def __next__(self) -> np.ndarray:
        if self._finished:
            raise StopIteration
        return self._calls.run(self._take)

    def _take(self) -> np.ndarray:
        with self._lock:
            try:
                return next(self._rows)
            except BaseException:
                self._finished = True  # as a generator is, by whatever it raised
                raise

    def close(self) -> None:
        """Take no more faces, and free what was computed; another `next` raises StopIteration."""
        if not self._calls.forked:
            self._finished = True
            self.end()

    def end(self) -> None:
        with self._lock:
            self._rows.close()  # type: ignore[attr-defined]


def engine_inputs(images: Any, landmarks: Any, image_input: str) -> Tuple[Any, Any]:
    """Contiguous inputs as the graph takes them, or MisuseError when they are not faces; arguments as in `Engine.infer`.

    What is on the GPU becomes a DeviceArray, all else a numpy array.
    """
    if is_on_device(images, "images"):
        pictures: Any = _device_array(images, "images", image_input, IMAGE_SHAPES[image_input])
    else:
        pictures = _host_images(np.asarray(images), image_input)
    if is_on_device(landmarks, "landmarks"):
        points: Any = _device_array(landmarks, "landmarks", "float32", LANDMARKS_SHAPE)
    else:
        points = np.asarray(landmarks)
    if points.shape != (len(pictures), 5, 2):
        raise MisuseError(f"landmarks must be [{len(pictures)}, 5, 2] for {len(pictures)} images, got {list(points.shape)}")
    if not isinstance(points, np.ndarray):
        return pictures, points
    if points.dtype.kind not in "fiu" or not np.isfinite(points).all():
        raise MisuseError("landmarks must be finite numbers")
    if points.size and float(np.abs(points).reshape(len(points), 10).max(1).min()) <= 1:
        raise MisuseError(
            "all landmarks of a face lie within [-1, 1]: they must be pixels of the 224 x 224 image, not shares of it"
        )
    return pictures, np.ascontiguousarray(points, np.float32)


def is_on_device(array: Any, name: str) -> bool:
    """Whether an array lies in GPU memory. name: of the tensor, for the MisuseError of one that requires grad."""
    if getattr(array, "requires_grad", False):  # PyTorch gives neither its memory nor a numpy array of it
        raise MisuseError(f"{name} requires grad; pass {name}.detach()")
    return hasattr(array, "__cuda_array_interface__")


def _device_array(array: Any, name: str, dtype: str, row: Tuple[int, ...]) -> Any:
    from ampnet_opt.runtime.cuda.device_array import device_array

    return device_array(array, name, dtype, row)


def _host_images(images: np.ndarray, image_input: str) -> np.ndarray:
    if images.dtype == np.uint8 and images.shape[1:] == IMAGE_SHAPES["uint8"]:
        if image_input == "float32":
            images = images.transpose(0, 3, 1, 2).astype(np.float32) / np.float32(255)
    elif images.dtype.kind == "f" and images.shape[1:] == IMAGE_SHAPES["float32"]:
        if not (images.size == 0 or (images.min() >= 0 and images.max() <= 1)):
            raise MisuseError("images of floating point must be within [0, 1] and hold no NaN")
        if image_input == "uint8":
            images = np.rint(images.transpose(0, 2, 3, 1) * 255).astype(np.uint8)
    else:
        raise MisuseError(
            f"images must be uint8 [N, {IMAGE_SIDE}, {IMAGE_SIDE}, 3] or floating point [N, 3, {IMAGE_SIDE}, {IMAGE_SIDE}], "
            f"got {images.dtype} {list(images.shape)}"
        )
    return np.ascontiguousarray(images, np.dtype(image_input))
