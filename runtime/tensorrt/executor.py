"""Runs a plan on the GPU: one execution context, with a stream, buffers and a CUDA graph of its own."""

from __future__ import annotations

import logging
from enum import Enum
from typing import TYPE_CHECKING, Any, Dict, List, NamedTuple, Optional, Set, Tuple, Union

import numpy as np

from ampnet_opt.core.errors import AmpnetError
from ampnet_opt.core.graph_interface import INPUTS, OUTPUT
from ampnet_opt.runtime import cuda
from ampnet_opt.runtime.cuda.device_array import DeviceArray
from ampnet_opt.runtime.tensorrt.library import FAMILIES

if TYPE_CHECKING:
    from ampnet_opt.runtime.tensorrt.plan import LoadedPlan

log = logging.getLogger(__name__)

Tensor = Union[np.ndarray, DeviceArray]


class Key(NamedTuple):
    """What a context is set up for, and a CUDA graph of it holds for: rows of the inputs, and where they are read."""

    rows: int
    images: int
    landmarks: int


class Step(Enum):
    """What comes before the network runs."""

    BIND = "set shapes and addresses"
    RECORD = "record a CUDA graph"
    NOTHING = "nothing"


def next_step(key: Key, bound: Optional[Key], recorded: bool, records: bool) -> Step:
    """bound: the last run's key. recorded: whether there is a graph of it; records: whether there is to be one.

    TensorRT wants a plain run with new shapes before it is recorded, and no change to a context that a graph is of: so a
    key is recorded when it comes the second time in a row, and another key ends the graph.
    """
    if key != bound:
        return Step.BIND
    return Step.RECORD if records and not recorded else Step.NOTHING


class ContextExecutor:
    """Used by one thread at a time; the buffers are for the profile's largest batch.

    cuda_graph: launch the network as one CUDA graph: recorded by TensorRT-RTX itself, else here, where the CUDA binding can.
    blocking_wait: sleep until the GPU is done.
    """

    def __init__(self, plan: LoadedPlan, cuda_graph: bool, blocking_wait: bool = False) -> None:
        self._plan = plan
        self._context: Any = None
        self._buffers: Dict[str, cuda.Buffer] = {}
        self._bound: Optional[Key] = None
        self._graph: Any = None  # of what is bound
        self._sizes: Set[int] = set()  # rows that were run
        self._profiles: List[Tuple[int, int]] = []  # smallest and largest batch of each optimisation profile
        self._queue = cuda.open_queue(blocking_wait)
        by_library = FAMILIES[plan.sidecar.backend].ahead
        self._records = cuda_graph and not by_library and self._queue.can_record
        self._without_graph = "none"
        if cuda_graph and not self._records:
            recorded = by_library and hasattr(plan.library, "CudaGraphStrategy")
            without = "this TensorRT-RTX records no CUDA graphs" if by_library else "PyCUDA has no CUDA graphs"
            self._without_graph = "left to the library" if recorded else f"none: {without}"
        try:
            with self._queue.current():
                self._context = plan.create_context(cuda_graph)
                self._allocate()
        except BaseException:
            self.close()
            raise

    def _allocate(self) -> None:
        trt, engine, sidecar = self._plan.library, self._plan.engine, self._plan.sidecar
        dtypes = {INPUTS[0]: sidecar.image_input, INPUTS[1]: "float32", OUTPUT: "float32"}
        kinds = {"uint8": "UINT8", "float32": "FLOAT"}
        names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
        if set(names) != set(dtypes):
            raise AmpnetError(f"the plan's tensors are {', '.join(names)}, expected {', '.join(dtypes)}; build it again")
        for name, dtype in dtypes.items():
            if engine.get_tensor_dtype(name) != getattr(trt.DataType, kinds[dtype]):
                raise AmpnetError(f"the plan's {name} is not {dtype}, as its sidecar says; build it again")
            shape = (sidecar.batch.max, *tuple(engine.get_tensor_shape(name))[1:])
            self._buffers[name] = self._queue.buffer(shape, dtype)
        for i in range(engine.num_optimization_profiles):
            low, _, high = engine.get_tensor_profile_shape(INPUTS[0], i)
            self._profiles.append((low[0], high[0]))

    def run(self, images: Tensor, landmarks: Tensor) -> np.ndarray:
        """Logits float32 [n, classes]; images and landmarks as the plan takes them, n within its profile."""
        with self._queue.current():
            try:
                self._upload(images, landmarks)
                self._enqueue(self._key(images, landmarks))
                self._queue.download(self._buffers[OUTPUT], len(images))
            finally:  # also by Ctrl-C: inputs on the GPU are read in place, and their owner may free them
                self._queue.synchronize()
            if len(images) not in self._sizes:
                self._sizes.add(len(images))
                self._plan.keep_kernels()
            logits: np.ndarray = self._buffers[OUTPUT].host[: len(images)].copy()
            return logits

    def gpu_seconds(self, images: Tensor, landmarks: Tensor, runs: int) -> List[float]:
        """What the GPU takes for each of `runs` inferences of these faces, by CUDA events; without copies."""
        with self._queue.current():
            self._upload(images, landmarks)
            key = self._key(images, landmarks)
            return [self._queue.timed(lambda: self._enqueue(key)) for _ in range(runs)]

    def report_to(self, profiler: Any) -> None:
        """Have the library tell `profiler`, an IProfiler, what every layer takes from now on."""
        with self._queue.current():
            self._context.profiler = profiler

    @property
    def graph(self) -> str:
        """How the last run was launched: "recorded here", as a CUDA graph, "left to the library", or "none", with the reason
        where one was asked for."""
        return self._without_graph if self._graph is None else "recorded here"

    def _upload(self, images: Tensor, landmarks: Tensor) -> None:
        """Queue what brings the inputs to where the GPU reads them; nothing, for those that are there."""
        for name, value in zip(INPUTS, (images, landmarks)):
            buffer, count = self._buffers[name], len(value)
            if count > len(buffer.host):
                raise AmpnetError(f"the engine takes batches of up to {len(buffer.host)}, got {count}")
            if not isinstance(value, DeviceArray):
                np.copyto(buffer.host[:count], value, casting="no")
                self._queue.upload(buffer, count)
                continue
            value.order(self._queue)
            if not value.aligned:
                self._queue.take(buffer, count, value.address)

    def _key(self, images: Tensor, landmarks: Tensor) -> Key:
        def address(name: str, value: Tensor) -> int:
            return value.address if isinstance(value, DeviceArray) and value.aligned else self._buffers[name].address

        return Key(len(images), address(INPUTS[0], images), address(INPUTS[1], landmarks))

    def _enqueue(self, key: Key) -> None:
        step = next_step(key, self._bound, self._graph is not None, self._records)
        if step is Step.BIND:
            self._bind(key)
        elif step is Step.RECORD:
            try:
                self._graph = self._queue.record(self._execute)
            except AmpnetError as error:
                self._records = False
                self._without_graph = f"none: recording one failed ({error})"
                log.warning("%s runs without a CUDA graph: recording one failed (%s)", self._plan.path, error)
        if self._graph is None:
            self._execute()
        else:
            self._queue.launch(self._graph)

    def _bind(self, key: Key) -> None:
        self._forget_graph()
        self._bound = None
        self._choose_profile(key.rows)
        self._context.set_tensor_address(OUTPUT, self._buffers[OUTPUT].address)
        for name, address in zip(INPUTS, (key.images, key.landmarks)):
            shape = (key.rows, *self._buffers[name].host.shape[1:])
            if not self._context.set_input_shape(name, shape):
                reason = self._plan.logger.reason()
                raise AmpnetError(f"the engine does not take {name} of {list(shape)}: {reason}")
            self._context.set_tensor_address(name, address)
        self._bound = key

    def _choose_profile(self, rows: int) -> None:
        """Take the profile whose kernels were chosen for batches like this one; a plan for one size has one profile."""
        fitting = [i for i, (low, high) in enumerate(self._profiles) if low <= rows <= high]
        if not fitting or fitting[0] == self._context.active_optimization_profile:
            return  # of none, the shape will be refused
        with cuda.RECORDING:  # it may take GPU memory
            if not self._context.set_optimization_profile_async(fitting[0], self._queue.handle):
                raise AmpnetError(f"the engine does not take batches of {rows}: {self._plan.logger.reason()}")

    def _execute(self) -> None:
        if not self._context.execute_async_v3(self._queue.handle):
            raise AmpnetError(f"the engine failed: {self._plan.logger.reason()}")

    def _forget_graph(self) -> None:
        if self._graph is not None:
            graph, self._graph = self._graph, None
            self._queue.forget(graph)

    def close(self) -> None:
        """Free graph, context and buffers, and with the last executor the plan; in that order, which TensorRT asks for."""
        with self._queue.current():
            self._forget_graph()
            self._context = None
            del self._plan
            self._buffers.clear()
            self._queue.close()
