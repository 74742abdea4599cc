"""Landmarks of drawn faces, without drawing them."""

from __future__ import annotations

import numpy as np

from ampnet_opt.synthetic.dataset import DEFAULT_CLASSES
from ampnet_opt.synthetic.geometry import landmarks
from ampnet_opt.synthetic.parameters import require_label, sample_person, sample_pose, sample_units


def drawn_points(count: int) -> np.ndarray:
    """float64 [count, 5, 2], in pixels of 224 x 224: those of `synthetic.dataset.face`, of each class in turn."""
    found = []
    for number in range(count):
        label = DEFAULT_CLASSES[number % len(DEFAULT_CLASSES)]
        rng = np.random.default_rng([require_label(label), number])
        person, pose = sample_person(rng), sample_pose(rng)
        found.append(landmarks(person, pose, sample_units(rng, label)))
    return np.stack(found).astype(np.float64)


# Landmarks of one face, upright, in a picture of 224 x 224 pixels.
FACE = np.array([[70, 90], [150, 92], [112, 135], [76, 170], [142, 172]], np.float32)
