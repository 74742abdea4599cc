"""One execution context of a plan, with a stream and a CUDA graph of its own: engines and other networks run through it."""

from __future__ import annotations

import logging
from enum import Enum
from typing import TYPE_CHECKING, Any, Dict, List, Mapping, NamedTuple, Optional, Set, Tuple

from ampnet_opt.core.errors import AmpnetError
from ampnet_opt.runtime import cuda
from ampnet_opt.runtime.tensorrt.library import FAMILIES

if TYPE_CHECKING:
    from ampnet_opt.runtime.tensorrt.plan import LoadedPlan

log = logging.getLogger(__name__)

Shape = Tuple[int, ...]


def within(shape: Shape, low: Shape, high: Shape) -> bool:
    """Whether a shape has as many dimensions as both others, and lies between them."""
    return len(shape) == len(low) and all(least <= size <= most for least, size, most in zip(low, shape, high))


class Key(NamedTuple):
    """What a context is set up for, and a CUDA graph of it holds for.

    shapes: of each input, by name. addresses: of each input and output, by name.
    """

    shapes: Tuple[Tuple[str, Shape], ...]
    addresses: Tuple[Tuple[str, int], ...]


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


class Context:
    """Used by one thread at a time; all but making and closing it within `with context.queue.current():`.

    queue: its stream, on which the caller makes its buffers and copies. cuda_graph: launch the network as one CUDA graph:
    recorded by TensorRT-RTX itself, else here, where the CUDA binding can. blocking_wait: `queue.synchronize` sleeps.
    """

    def __init__(self, plan: LoadedPlan, cuda_graph: bool = True, blocking_wait: bool = False) -> None:
        self._plan = plan
        self._native: Any = None
        self._bound: Optional[Key] = None
        self._graph: Any = None  # of what is bound
        self._seen: Set[Tuple[Tuple[str, Shape], ...]] = set()  # shapes whose kernels are kept
        self._profiles: List[Dict[str, Tuple[Shape, Shape]]] = []  # of each, the smallest and largest shape of each input
        self.queue = cuda.open_queue(blocking_wait)
        by_library = FAMILIES[plan.backend].ahead
        self._records = cuda_graph and not by_library and self.queue.can_record
        self._without_graph = "none"
        if cuda_graph and not self._records:
            recorded = by_library and hasattr(plan.library, "CudaGraphStrategy")
            without = "this TensorRT-RTX records no CUDA graphs" if by_library else "PyCUDA has no CUDA graphs"
            self._without_graph = "left to the library" if recorded else f"none: {without}"
        try:
            with self.queue.current():
                self._native = plan.create_context(cuda_graph)
        except BaseException:
            self.close()
            raise
        engine = plan.engine
        inputs = [name for name, is_input in plan.tensors.items() if is_input]
        for i in range(engine.num_optimization_profiles):
            ranges = {name: [tuple(shape) for shape in engine.get_tensor_profile_shape(name, i)] for name in inputs}
            self._profiles.append({name: (low, high) for name, (low, _, high) in ranges.items()})

    def output_shapes(self, shapes: Mapping[str, Shape]) -> Dict[str, Shape]:
        """What the outputs are for inputs of these shapes. Raises AmpnetError when the plan does not take them."""
        self._set_shapes(shapes)
        outputs = [name for name, is_input in self._plan.tensors.items() if not is_input]
        return {name: tuple(self._native.get_tensor_shape(name)) for name in outputs}

    def enqueue(self, shapes: Mapping[str, Shape], addresses: Mapping[str, int]) -> None:
        """Queue the network on the stream.

        shapes: of each input. addresses: in GPU memory, of each input and output. Raises AmpnetError when the plan does not
        take the shapes, or the library fails.
        """
        key = Key(tuple(shapes.items()), tuple(addresses.items()))
        step = next_step(key, self._bound, self._graph is not None, self._records)
        if step is Step.BIND:
            self._set_shapes(shapes)
            for name, address in addresses.items():
                self._native.set_tensor_address(name, address)
            self._bound = key
        elif step is Step.RECORD:
            try:
                self._graph = self.queue.record(self._execute)
            except AmpnetError as error:
                self._records = False
                self._without_graph = f"none: recording one failed ({error})"
                log.warning("%s runs without a CUDA graph: recording one failed (%s)", self._plan.name, error)
        if self._graph is None:
            self._execute()
        else:
            self.queue.launch(self._graph)

    def keep_kernels(self) -> None:
        """Keep what TensorRT-RTX has compiled for the last shapes, for the next process, once they were waited for."""
        if self._bound is not None and self._bound.shapes not in self._seen:
            self._seen.add(self._bound.shapes)
            self._plan.keep_kernels()

    def report_to(self, profiler: Any) -> None:
        """Have the library tell `profiler`, an IProfiler, what every layer takes from now on."""
        self._native.profiler = profiler

    @property
    def graph(self) -> str:
        """How the last run was launched: "recorded here", as a CUDA graph, "left to the library", or "none", with the reason
        where one was asked for."""
        return self._without_graph if self._graph is None else "recorded here"

    def _set_shapes(self, shapes: Mapping[str, Shape]) -> None:
        self._forget_graph()
        self._bound = None
        self._choose_profile(shapes)
        for name, shape in shapes.items():
            if not self._native.set_input_shape(name, shape):
                reason = self._plan.logger.reason()
                raise AmpnetError(f"{self._plan.name} does not take {name} of {list(shape)}: {reason}")

    def _choose_profile(self, shapes: Mapping[str, Shape]) -> None:
        """Take the profile whose kernels were chosen for shapes like these."""
        fitting = [i for i, of in enumerate(self._profiles) if all(within(shapes[name], *of[name]) for name in shapes)]
        if not fitting or fitting[0] == self._native.active_optimization_profile:
            return  # of none, the shape will be refused
        with cuda.RECORDING.waiting():  # it may take GPU memory
            try:
                chosen = self._native.set_optimization_profile_async(fitting[0], self.queue.handle)
            except RuntimeError:  # what the bindings make of False
                chosen = False
        if not chosen:
            sizes = " and ".join(f"{name} of {list(shape)}" for name, shape in shapes.items())
            raise AmpnetError(f"{self._plan.name} does not take {sizes}: {self._plan.logger.reason()}")

    def _execute(self) -> None:
        if not self._native.execute_async_v3(self.queue.handle):
            raise AmpnetError(f"{self._plan.name} failed to compute: {self._plan.logger.reason()}")

    def _forget_graph(self) -> None:
        if self._graph is not None:
            graph, self._graph = self._graph, None
            self.queue.forget(graph)

    def close(self) -> None:
        """Free graph, context and stream with its buffers, and with the last context the plan; in that order, which TensorRT
        asks for."""
        with self.queue.current():
            self._forget_graph()
            self._native = None
            del self._plan
            self.queue.close()
