from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from recorded import published_weights


@pytest.fixture(scope="session")
def published_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of the recorded weights, wrapped and prefixed as the authors save theirs."""
    path = tmp_path_factory.mktemp("published") / "ampnet.pth"
    state = {f"module.{key}": torch.from_numpy(np.asarray(value)) for key, value in published_weights().items()}
    torch.save({"epoch": 3, "state_dict": state, "best_acc": 89.25}, path)
    return path
