"""What comes with the package: a checkpoint, which MODEL_CARD.md describes, and drawn faces that builds are proved on."""

from pathlib import Path

CHECKPOINT = Path(__file__).parent / "ampnet-w025.safetensors"
GOLDEN_FACES = Path(__file__).parent / "golden"  # one of each expression, by tools/golden_faces.py
