"""Opens an engine that was just built, and reads the backend's own list of its layers."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, List

from ampnet_opt.core.errors import AmpnetError
from ampnet_opt.core.graph_interface import INPUTS
from ampnet_opt.runtime import cuda
from ampnet_opt.runtime.layers import Expected, Layer, cpu_layers, summarise, trt_layers
from ampnet_opt.runtime.openvino import executor as cpu
from ampnet_opt.runtime.sidecar import Sidecar
from ampnet_opt.runtime.tensorrt import plan as trt


def list_layers(directory: Path, sidecar: Sidecar, expected: Expected) -> Dict[str, Any]:
    """The record, for the sidecar, of an engine's layers; {"not_listed": why} where this machine cannot open the engine."""
    if sidecar.backend == "cpu":
        return summarise(_open_cpu(directory, sidecar), sidecar.precision, expected)
    try:
        trt.check(sidecar)
        layers = _open_plan(directory, sidecar)
    except AmpnetError as error:
        return {"not_listed": f"only a machine that can run the engine can open it: {error}"}
    return summarise(layers, sidecar.precision, expected)


def _open_cpu(directory: Path, sidecar: Sidecar) -> List[Layer]:
    executor = cpu.Executor(directory / cpu.MODEL, sidecar.precision, None, {sidecar.batch.opt})
    try:
        return cpu_layers(executor.compiled(sidecar.batch.opt))
    finally:
        executor.close()


def _open_plan(directory: Path, sidecar: Sidecar) -> List[Layer]:
    queue = cuda.open_queue()  # only to make the GPU's context current
    with queue.current():
        try:
            return trt_layers(_inspected(trt.Plan(directory / trt.PLAN, sidecar), sidecar))
        finally:
            queue.close()


def _inspected(plan: trt.Plan, sidecar: Sidecar) -> str:
    """The engine inspector's JSON for the batch that the engine is tuned for: without shapes it may not know types."""
    context = plan.create_context(cuda_graph=False)
    for name in INPUTS:
        context.set_input_shape(name, (sidecar.batch.opt, *tuple(plan.engine.get_tensor_shape(name))[1:]))
    inspector = plan.engine.create_engine_inspector()
    inspector.execution_context = context
    return str(inspector.get_engine_information(plan.library.LayerInformationFormat.JSON))
