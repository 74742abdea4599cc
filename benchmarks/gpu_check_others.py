"""What engines stand beside on the same GPU: PyTorch eager and compiled, and ONNX Runtime."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np

from ampnet_opt.benchmarks.gpu_check_networks import Network
from ampnet_opt.benchmarks.workers import time_runs
from ampnet_opt.convert.export import export
from ampnet_opt.core.errors import AmpnetError
from ampnet_opt.core.metrics import latency
from ampnet_opt.runtime.golden import relative_error


def torch_parts(net: Network, runs: int) -> Iterator[Work]:
    for title, compiled, half in (
        ("PyTorch eager FP32", False, False),
        ("PyTorch eager, autocast to FP16", False, True),
        ("torch.compile FP32", True, False),
        ("torch.compile, autocast to FP16", True, True),
    ):
        yield title, partial(_torch, net, compiled, half, runs)


def _torch(net: Network, compiled: bool, half: bool, runs: int) -> Figures:
    import torch

    if not torch.cuda.is_available():
        raise Skipped(f"torch {torch.__version__} sees no GPU")
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False  # FP32 means FP32, as in the engines
    model = net.checkpoint.model.cuda()
    forward = torch.compile(model) if compiled else model

    @torch.inference_mode()
    def answer(images: Any, landmarks: Any) -> Any:
        with torch.autocast("cuda", torch.float16, enabled=half):
            return forward(images.permute(0, 3, 1, 2).float() / 255, landmarks)

    def infer(images: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
        return answer(torch.from_numpy(images).cuda(), torch.from_numpy(landmarks).cuda()).float().cpu().numpy()

    rows = []
    for batch in BATCHES:
        images, landmarks = some_faces(net, batch)
        whole = end_to_end(infer, images, landmarks, runs)
        placed, gpu = (torch.from_numpy(images).cuda(), torch.from_numpy(landmarks).cuda()), []
        for _ in range(runs):
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            answer(*placed)
            end.record()
            end.synchronize()
            gpu.append(start.elapsed_time(end) / 1e3)
        rows.append(row_of(batch, whole, gpu))
    return {"latency": rows, "relative_error": relative_error(infer(*some_faces(net, 8)), net.logits[:8])}


def run_onnxruntime(net: Network, runs: int) -> Figures:
    import onnxruntime

    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        raise Skipped(f"onnxruntime {onnxruntime.__version__} is built without CUDA; onnxruntime-gpu has it")
    graph = export(net.checkpoint, "uint8").SerializeToString()
    providers: list[Any] = [("CUDAExecutionProvider", {"use_tf32": "0"})]
    session = onnxruntime.InferenceSession(graph, providers=providers)
    if session.get_providers()[0] != "CUDAExecutionProvider":
        raise AmpnetError("ONNX Runtime fell back to the CPU; its log says which library of CUDA it misses")

    def infer(images: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
        return session.run(None, {"image": images, "landmarks": landmarks})[0]

    rows = [row_of(batch, end_to_end(infer, *some_faces(net, batch), runs), None) for batch in BATCHES]
    return {"latency": rows, "relative_error": relative_error(infer(*some_faces(net, 8)), net.logits[:8])}


BATCHES = (1, 8, 32)
WARM_UP, RUNS = 30, 200

Figures = dict[str, Any]
Work = tuple[str, Callable[[], Figures]]


class Skipped(Exception):
    """A part that cannot be tried here; its message says why."""


def some_faces(net: Network, batch: int) -> tuple[np.ndarray, np.ndarray]:
    chosen = np.arange(batch) % len(net.images)
    return net.images[chosen], net.landmarks[chosen].astype(np.float32)


def end_to_end(
    infer: Callable[[np.ndarray, np.ndarray], object], images: np.ndarray, landmarks: np.ndarray, runs: int
) -> list[float]:
    """Wall-clock seconds of each of `runs`, inputs and logits in host memory; after untimed ones, WARM_UP or as many."""
    return time_runs(infer, images, landmarks, min(WARM_UP, runs), runs)


def row_of(batch: int, end_to_end: Sequence[float], gpu: Sequence[float] | None) -> Figures:
    """Milliseconds: p50 and p99."""
    whole = latency(end_to_end, batch)
    row: Figures = {"batch": batch, "end_to_end": [whole.p50, whole.p99]}
    if gpu is not None:
        alone = latency(gpu, batch)
        row["gpu"] = [alone.p50, alone.p99]
    return row
