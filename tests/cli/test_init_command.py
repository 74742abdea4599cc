"""`ampnet-opt init`: an untrained checkpoint."""

from __future__ import annotations

from pathlib import Path

import torch
from console_script import fails, left_in, succeeds
from safetensors.torch import load_file
from world import World


def test_init_says_that_the_weights_are_untrained_and_repeats_itself(world: World, tmp_path: Path) -> None:
    again = tmp_path / "again.safetensors"
    assert "untrained" in succeeds("init", again, "--width", 0.125).stdout
    ours, theirs = load_file(again), load_file(world.checkpoint)
    assert all(torch.equal(tensor, theirs[key]) for key, tensor in ours.items())
    before = again.read_bytes()
    fails(2, "exists already", "init", again, "--width", 0.125, "--seed", 1)
    assert again.read_bytes() == before
    succeeds("init", again, "--width", 0.125, "--seed", 1, "--force")
    assert again.read_bytes() != before
    assert left_in(tmp_path) == ["again.safetensors"]
