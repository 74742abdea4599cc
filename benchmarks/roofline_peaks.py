"""What this machine can do at most: multiply-accumulates a second in each precision, and bytes a second, both measured."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from ampnet_opt.runtime.openvino.backend import precisions
from ampnet_opt.runtime.openvino.library import configuration, core

CHANNELS, SIDE, KERNEL, DEPTH = 256, 14, 3, 2  # square convolutions, short and small: their data stays in a core's cache
COPIED = 128 << 20  # bytes; several times any cache but the largest servers'
ROUNDS = 5
RUNS = 50  # in a round


@dataclass(frozen=True)
class Peaks:
    """macs: multiply-accumulates a second, by precision; bandwidth: bytes a second, read and written together."""

    macs: dict[str, float]
    bandwidth: float


def measure_peaks(threads: int) -> Peaks:
    """The best of several rounds: what disturbs a measurement can only lower it. Takes a few seconds."""
    able = precisions()
    requests = {name: _request(name, threads) for name in able}
    best = dict.fromkeys(able, 0.0)
    bandwidth = 0.0
    memory = np.ones(COPIED, np.uint8), np.ones(COPIED, np.uint8)  # written to, or the system has not given it yet
    for _ in range(ROUNDS):
        for name, request in requests.items():
            best[name] = max(best[name], *(probe_macs() / _seconds(request) for _ in range(RUNS)))
        bandwidth = max(bandwidth, _copy(*memory, threads))
    return Peaks(best, bandwidth)


def probe_macs() -> int:
    return DEPTH * CHANNELS**2 * KERNEL**2 * SIDE**2


def probe(quantised: bool) -> onnx.ModelProto:
    """`x`, float32 [1, 256, 14, 14], through two convolutions of 256 channels with ReLU; quantised: Q/DQ around each."""
    rng = np.random.default_rng(0)
    shape = (CHANNELS, CHANNELS, KERNEL, KERNEL)
    nodes, constants = [], {"scale": np.float32(1 / 64), "zero": np.uint8(0)}
    constants["steps"] = np.full(CHANNELS, 1 / 64, np.float32)
    constants["zeros"] = np.zeros(CHANNELS, np.int8)
    last = "x"
    for i in range(DEPTH):
        weights = rng.integers(-8, 9, shape, np.int8)
        weight = f"w{i}"
        if quantised:
            constants[f"q{i}"] = weights
            nodes += [
                helper.make_node("QuantizeLinear", [last, "scale", "zero"], [f"{last}q"]),
                helper.make_node("DequantizeLinear", [f"{last}q", "scale", "zero"], [f"{last}d"]),
                helper.make_node("DequantizeLinear", [f"q{i}", "steps", "zeros"], [weight], axis=0),
            ]
            last = f"{last}d"
        else:
            constants[weight] = weights.astype(np.float32) / 64
        pads = [KERNEL // 2] * 4
        nodes.append(helper.make_node("Conv", [last, weight], [f"c{i}"], pads=pads))
        last = f"r{i}"
        nodes.append(helper.make_node("Relu", [f"c{i}"], [last]))
    sides = [1, CHANNELS, SIDE, SIDE]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, sides) for name in ("x", last)]
    held = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    used = {name for node in nodes for name in node.input}
    graph = helper.make_graph(nodes, "probe", ends[:1], ends[1:], [tensor for tensor in held if tensor.name in used])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])


def _request(precision: str, threads: int) -> Any:
    config = configuration(precision, threads, PERFORMANCE_HINT="LATENCY")
    model = core().read_model(probe(precision == "int8").SerializeToString())
    request = core().compile_model(model, "CPU", config).create_infer_request()
    # Ordinary numbers: on what memory happens to hold, subnormal ones perhaps, a processor is slower by far.
    request.get_input_tensor(0).data[:] = np.random.default_rng(1).random((1, CHANNELS, SIDE, SIDE), np.float32)
    request.infer()
    return request


def _seconds(request: Any) -> float:
    start = time.perf_counter()
    request.start_async()
    request.wait()
    return time.perf_counter() - start


def _copy(source: np.ndarray, target: np.ndarray, threads: int) -> float:
    """Bytes a second of one large copy, a part in each thread (numpy leaves the interpreter to the others meanwhile)."""
    parts = [slice(i * COPIED // threads, (i + 1) * COPIED // threads) for i in range(threads)]
    with ThreadPoolExecutor(threads) as pool:
        start = time.perf_counter()
        list(pool.map(lambda part: np.copyto(target[part], source[part]), parts))
        return 2 * COPIED / (time.perf_counter() - start)
