from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import settings
from recorded import published_weights

from ampnet_opt.core.cache import CACHE_VARIABLE
from ampnet_opt.core.errors import AmpnetError
from ampnet_opt.runtime import cuda
from ampnet_opt.runtime.openvino.library import load_openvino

# A test is right or wrong, however long a busy machine takes for it.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")

# Tests side by side (-n 2) share the cores: as many threads each as there are cores would wait for each other.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))

# A shell starts what it puts into the background with Ctrl-C ignored, and programs inherit that: tests send it.
signal.signal(signal.SIGINT, signal.default_int_handler)
if hasattr(signal, "SIGHUP"):  # as nohup leaves it ignored
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Neighbouring tests stay in one process, which makes their fixtures once; an idle one takes from the other end."""
    from xdist.scheduler import WorkStealingScheduling

    return WorkStealingScheduling(config, log)


# Imported as the runtime does, without telemetry, before a test imports it.
with contextlib.suppress(AmpnetError):
    load_openvino()


@pytest.fixture(scope="session")
def published_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of the recorded weights, wrapped and prefixed as the authors save theirs."""
    path = tmp_path_factory.mktemp("published") / "ampnet.pth"
    state = {f"module.{key}": torch.from_numpy(np.asarray(value)) for key, value in published_weights().items()}
    torch.save({"epoch": 3, "state_dict": state, "best_acc": 89.25}, path)
    return path


@pytest.fixture(scope="session")
def no_gpu() -> None:
    """For tests of what is said where there is no GPU."""
    try:
        found = cuda.gpu()
    except AmpnetError:
        return
    pytest.skip(f"there is a GPU here: {found.name}")


@pytest.fixture(autouse=True, scope="session")
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The tests, and the commands that they start, neither read nor fill the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(CACHE_VARIABLE, str(tmp_path_factory.mktemp("cache")))
        yield
