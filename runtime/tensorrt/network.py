"""Runs a network that is no engine of AMP-Net in TensorRT or TensorRT for RTX."""

from __future__ import annotations

import logging
from typing import Dict, Optional

import numpy as np

from ampnet_opt.runtime import cuda, network
from ampnet_opt.runtime.onnx_interface import FlexibleGraph
from ampnet_opt.runtime.tensorrt.context import Context, Shape
from ampnet_opt.runtime.tensorrt.library import load_library
from ampnet_opt.runtime.tensorrt.network_plan import NetworkPlan, Sizes, network_plan, sizes_for
from ampnet_opt.runtime.tensorrt.plan import LoadedPlan, PlanRefused

log = logging.getLogger(__name__)


class Network(network.Network):
    """One context of one plan, with buffers for the largest input so far.

    An input that the plan does not take loads another, which takes those before as well, and builds it where none is kept;
    so does the first. What is wrong with the graph shows there. Raises AmpnetError when the library or the GPU is missing.
    """

    def __init__(self, backend: str, graph: FlexibleGraph) -> None:
        super().__init__()
        load_library(backend)
        cuda.gpu()
        self._backend, self._graph = backend, graph
        self._sizes: Optional[Sizes] = None  # of the last plan
        self._plan: Optional[LoadedPlan] = None
        self._context: Optional[Context] = None
        self._buffers: Dict[str, cuda.Buffer] = {}  # of float32 in a row, for tensors of any shape
        self._outputs: Dict[Shape, Dict[str, Shape]] = {}  # shapes of the outputs, for the inputs that came

    def _run(self, image: np.ndarray, recurring: bool) -> Dict[str, np.ndarray]:
        name, shape = self._graph.input, image.shape
        context = self._opened_for(shape)
        queue, buffers, outputs = context.queue, self._buffers, self._outputs[shape]
        sizes = {output: int(np.prod(own)) for output, own in outputs.items()}
        with queue.current():
            try:
                buffers[name].host[: image.size] = image.ravel()
                queue.upload(buffers[name], image.size)
                context.enqueue({name: shape}, {tensor: buffer.address for tensor, buffer in buffers.items()})
                for output, size in sizes.items():
                    queue.download(buffers[output], size)
            finally:
                queue.synchronize()
            context.keep_kernels()
        return {
            output: buffers[output].host[: sizes[output]].reshape(outputs[output]).copy() for output in self._graph.outputs
        }

    def _opened_for(self, shape: Shape) -> Context:
        """The context, of a plan that takes an input of this shape, with room for its outputs."""
        if self._plan is None or self._sizes is None or not self._sizes.take(shape):
            self._free()
            self._load(shape)
        assert self._plan is not None
        if self._context is None:
            self._context = Context(self._plan)
        if shape not in self._outputs:
            with self._context.queue.current():
                outputs = self._context.output_shapes({self._graph.input: shape})
            needed = {self._graph.input: shape, **outputs}
            self._make_room({tensor: int(np.prod(own)) for tensor, own in needed.items()})
            self._outputs[shape] = outputs
        return self._context

    def _load(self, shape: Shape) -> None:
        sizes = sizes_for(shape, self._sizes)
        plan = network_plan(self._backend, self._graph, sizes, self._require_open)
        try:
            self._plan = self._loaded(plan)
        except PlanRefused as error:
            if not plan.kept:
                raise
            # The name of a kept plan has the library's version, but not always to the last number.
            log.warning("%s; it is built again", error)
            self._plan = self._loaded(network_plan(self._backend, self._graph, sizes, self._require_open, anew=True))
        self._sizes = sizes

    def _loaded(self, plan: NetworkPlan) -> LoadedPlan:
        with cuda.current():
            return LoadedPlan(self._backend, load_library(self._backend), plan.data, plan.name)

    def _require_open(self, done: float) -> None:
        """Stops a build once the network is to be closed, which waits for this call."""
        self._calls.require_open()

    def _make_room(self, sizes: Dict[str, int]) -> None:
        """Buffers of these numbers of float32, at least."""
        assert self._context is not None and self._plan is not None
        there = {tensor: len(buffer.host) for tensor, buffer in self._buffers.items()}
        if there and all(there[tensor] >= size for tensor, size in sizes.items()):
            return
        if there:  # a stream frees its buffers all at once
            self._buffers.clear()
            context, self._context = self._context, None
            context.close()
            self._context = Context(self._plan)
        queue = self._context.queue
        try:
            with queue.current():
                for tensor, size in sizes.items():
                    self._buffers[tensor] = queue.buffer((max(size, there.get(tensor, 0)),), "float32")
        except BaseException:
            self._free()  # some of them are there
            raise

    def _free(self) -> None:
        self._buffers.clear()
        self._outputs.clear()
        context, self._context = self._context, None
        if context is not None:
            self._plan = None  # the context frees it, as the last that has it
            context.close()
        elif self._plan is not None:
            with cuda.current():
                self._plan = None
