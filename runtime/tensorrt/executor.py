"""Runs an engine's plan on the GPU: one context of it, with buffers for the largest batch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Dict, List, Union

import numpy as np

from ampnet_opt.core.errors import AmpnetError
from ampnet_opt.core.graph_interface import INPUTS, OUTPUT
from ampnet_opt.runtime import cuda
from ampnet_opt.runtime.cuda.device_array import DeviceArray
from ampnet_opt.runtime.sidecar import require_outputs
from ampnet_opt.runtime.tensorrt.context import Context

if TYPE_CHECKING:
    from ampnet_opt.runtime.sidecar import Sidecar
    from ampnet_opt.runtime.tensorrt.plan import LoadedPlan

Tensor = Union[np.ndarray, DeviceArray]


class ContextExecutor:
    """Used by one thread at a time; the buffers are for the profile's largest batch.

    sidecar: of the engine. cuda_graph, blocking_wait: as of `Context`.
    """

    def __init__(self, plan: LoadedPlan, sidecar: Sidecar, cuda_graph: bool, blocking_wait: bool = False) -> None:
        self._buffers: Dict[str, cuda.Buffer] = {}
        self._context = Context(plan, cuda_graph, blocking_wait)
        self._queue = self._context.queue
        try:
            with self._queue.current():
                self._allocate(plan, sidecar)
        except BaseException:
            self.close()
            raise

    def _allocate(self, plan: LoadedPlan, sidecar: Sidecar) -> None:
        trt, engine = plan.library, plan.engine
        dtypes = {INPUTS[0]: sidecar.image_input, INPUTS[1]: "float32", OUTPUT: "float32"}
        kinds = {"uint8": "UINT8", "float32": "FLOAT"}
        if set(plan.tensors) != set(dtypes):
            names = ", ".join(plan.tensors)
            raise AmpnetError(f"the plan's tensors are {names}, expected {', '.join(dtypes)}; build it again")
        for name, dtype in dtypes.items():
            if engine.get_tensor_dtype(name) != getattr(trt.DataType, kinds[dtype]):
                raise AmpnetError(f"the plan's {name} is not {dtype}, as its sidecar says; build it again")
            shape = (sidecar.batch.max, *tuple(engine.get_tensor_shape(name))[1:])
            if name == OUTPUT:
                require_outputs(plan.name, sidecar, shape[-1])
            self._buffers[name] = self._queue.buffer(shape, dtype)

    def run(self, images: Tensor, landmarks: Tensor) -> np.ndarray:
        """Logits float32 [n, classes]; images and landmarks as the plan takes them, n within its profile."""
        with self._queue.current():
            try:
                self._upload(images, landmarks)
                self._enqueue(images, landmarks)
                self._queue.download(self._buffers[OUTPUT], len(images))
            finally:  # also by Ctrl-C: inputs on the GPU are read in place, and their owner may free them
                self._queue.synchronize()
            self._context.keep_kernels()
            logits: np.ndarray = self._buffers[OUTPUT].host[: len(images)].copy()
            return logits

    def gpu_seconds(self, images: Tensor, landmarks: Tensor, runs: int) -> List[float]:
        """What the GPU takes for each of `runs` inferences of these faces, by CUDA events; without copies."""
        with self._queue.current():
            self._upload(images, landmarks)
            return [self._queue.timed(lambda: self._enqueue(images, landmarks)) for _ in range(runs)]

    def report_to(self, profiler: Any) -> None:
        """Have the library tell `profiler`, an IProfiler, what every layer takes from now on."""
        with self._queue.current():
            self._context.report_to(profiler)

    @property
    def graph(self) -> str:
        """How the last run was launched, as of `Context.graph`."""
        return self._context.graph

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

    def _enqueue(self, images: Tensor, landmarks: Tensor) -> None:
        addresses = {OUTPUT: self._buffers[OUTPUT].address}
        for name, value in zip(INPUTS, (images, landmarks)):
            in_place = isinstance(value, DeviceArray) and value.aligned
            addresses[name] = value.address if in_place else self._buffers[name].address  # type: ignore[union-attr]
        shapes = {name: (len(images), *self._buffers[name].host.shape[1:]) for name in INPUTS}
        self._context.enqueue(shapes, addresses)

    def close(self) -> None:
        """Free the context and the buffers, and with the last executor the plan."""
        self._buffers.clear()
        self._context.close()
