from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from recorded import DATA, image

from ampnet_opt.network.checkpoint import read_checkpoint
from ampnet_opt.network.model import attention_windows, local_windows, to_grid


@pytest.fixture(scope="module")
def recorded() -> dict[str, np.ndarray]:
    with np.load(DATA / "golden_cases.npz") as cases:
        return dict(cases)


def test_logits_equal_the_recorded_ones(recorded: dict[str, np.ndarray], published_file: Path) -> None:
    checkpoint = read_checkpoint(published_file)
    images = np.stack([image(int(seed)) for seed in recorded["image_seed"]])
    batch = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    landmarks = torch.from_numpy(recorded["landmarks"])
    with torch.inference_mode():
        patch, whole = checkpoint.model.heads(batch, landmarks)
    np.testing.assert_allclose(patch, recorded["patch_head_logits"], atol=1e-4, rtol=0)
    np.testing.assert_allclose(whole, recorded["global_head_logits"], atol=1e-4, rtol=0)
    np.testing.assert_allclose((patch + whole) / 2, recorded["fused_logits"], atol=1e-4, rtol=0)


def test_only_live_weights_are_kept(published_file: Path) -> None:
    checkpoint = read_checkpoint(published_file)
    assert round(sum(p.numel() for p in checkpoint.model.parameters()) / 1e6, 1) == 59.4
    assert any(key.startswith("Occlusionlayer") for key in checkpoint.dropped)
    assert any(key.startswith("fc_4_1") for key in checkpoint.dropped)


def test_boxes_equal_the_recorded_ones(recorded: dict[str, np.ndarray]) -> None:
    grid = to_grid(torch.from_numpy(recorded["landmarks"]))

    attention = attention_windows(grid, int(recorded["radius"]))
    low, high = attention.low.numpy(), attention.high.numpy()
    boxes = np.stack([low[..., 0], high[..., 0], low[..., 1], high[..., 1]], 2)
    np.testing.assert_array_equal(boxes, recorded["attention_patch_box"].reshape(-1, 5, 4))

    local = local_windows(grid)
    low, high = local.low.numpy(), local.high.numpy()
    outer_x = np.stack([low[:, 0, 0], high[:, 1, 0], low[:, 2, 0], high[:, 3, 0]], 1)
    outer_y = np.stack([low[:, 0, 1], low[:, 1, 1], high[:, 2, 1], high[:, 3, 1]], 1)
    inner_x = np.stack([high[:, 0, 0], low[:, 1, 0], high[:, 2, 0], low[:, 3, 0]], 1)
    inner_y = np.stack([high[:, 0, 1], high[:, 1, 1], low[:, 2, 1], low[:, 3, 1]], 1)
    np.testing.assert_array_equal(
        np.stack([outer_x, outer_y, inner_x, inner_y], 2), recorded["local_patch_box"].reshape(-1, 4, 4)
    )
