"""A sidecar for tests that change one thing of it."""

from __future__ import annotations

from ampnet_opt.core.labels import PRESETS
from ampnet_opt.runtime.sidecar import BatchRange, Sidecar

SIDECAR = Sidecar(
    backend="tensorrt-rtx",
    backend_version="1.7.1.116",
    precision="fp32",
    classes=list(PRESETS["ferplus"]),
    image_input="uint8",
    patch_radius=5,
    trained=False,
    batch=BatchRange(),
    files={"engine.plan": "0" * 64},
    checkpoint_sha256="1" * 64,
    graph_sha256="2" * 64,
    built="2026-11-24T12:00:00+00:00",
    build_seconds=1.5,
    ampnet_opt_version="0.1.0",
    target={"compute_capabilities": ["8.6"]},
)
