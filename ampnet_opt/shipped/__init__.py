"""What comes with the package: a checkpoint (MODEL_CARD.md), a face detector in INT8 (CENTERFACE.md), a network that refines
landmarks (LANDMARKS.md), and drawn faces that builds are proved on.
"""

from pathlib import Path

CHECKPOINT = Path(__file__).parent / "ampnet-w025.safetensors"
GOLDEN_FACES = Path(__file__).parent / "golden"  # one of each expression, by tools/golden_faces.py
CENTERFACE_INT8 = Path(__file__).parent / "centerface-int8.onnx"  # for OpenVINO, by tools/quantise_detector.py
LANDMARKS = Path(__file__).parent / "landmarks.onnx"  # refines those of face detectors, by tools/train_landmarks.py
