"""Scores a checkpoint on labelled faces, as Markdown for its model card.

usage: python tools/score.py CKPT FACES.csv [SPLIT]
"""

from __future__ import annotations

import sys

import numpy as np
import torch

from ampnet_opt.core.labels import label_indices
from ampnet_opt.core.metrics import Estimate, accuracy, confusion_matrix
from ampnet_opt.faces.face import load_batches, read_faces
from ampnet_opt.network.checkpoint import read_checkpoint
from ampnet_opt.training.faces import as_input


def percent(estimate: Estimate) -> str:
    return f"{estimate.value:.1%} [{estimate.low:.1%}, {estimate.high:.1%}]"


def main(path: str, table: str, split: str) -> None:
    checkpoint, faces = read_checkpoint(path), read_faces(table, split)
    classes = checkpoint.classes
    labels = np.array(label_indices(classes, [face.label for face in faces]))
    with torch.inference_mode():
        found = [
            checkpoint.model(as_input(torch.from_numpy(image)), torch.from_numpy(points)).numpy()
            for image, points in load_batches(faces, 32)
        ]
    logits = np.concatenate(found)
    scores = accuracy(logits, labels, classes)
    most = np.bincount(labels).max()
    print(f"{len(faces)} faces, split {split}. Always guessing the commonest class is right on {most / len(faces):.1%}.\n")
    print(f"| top-1 | macro-F1 |\n|---|---|\n| {percent(scores.top1)} | {percent(scores.macro_f1)} |\n")
    print(f"| label \\ answer | {' | '.join(classes)} | recall |\n|{'---|' * (len(classes) + 2)}")
    recalls = {recall.name: percent(recall.recall) for recall in scores.recalls}
    for name, row in zip(classes, confusion_matrix(labels, logits.argmax(1), len(classes)), strict=True):
        print(f"| {name} | {' | '.join(map(str, row))} | {recalls.get(name, '-')} |")


if __name__ == "__main__":
    if not 3 <= len(sys.argv) <= 4:
        sys.exit(__doc__)
    main(sys.argv[1], sys.argv[2], sys.argv[3] if len(sys.argv) == 4 else "test")
