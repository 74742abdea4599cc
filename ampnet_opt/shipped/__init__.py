"""The checkpoint that comes with the package; MODEL_CARD.md beside it says what it knows and how it was made."""

from pathlib import Path

CHECKPOINT = Path(__file__).parent / "ampnet-w025.safetensors"
