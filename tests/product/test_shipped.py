"""The checkpoint that comes with the package."""

from __future__ import annotations

from ampnet_opt.core.labels import PRESETS
from ampnet_opt.network.checkpoint import read_checkpoint
from ampnet_opt.shipped import CHECKPOINT


def test_shipped_checkpoint_is_small_and_says_what_it_is() -> None:
    loaded = read_checkpoint(CHECKPOINT)
    assert CHECKPOINT.stat().st_size < 8e6
    assert loaded.trained and loaded.classes == PRESETS["rafdb"]
    card = CHECKPOINT.with_name("MODEL_CARD.md").read_text()
    assert loaded.sha256 in card  # the numbers in the card are of these weights
