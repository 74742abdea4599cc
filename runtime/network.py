"""Networks that are no engines of AMP-Net: any ONNX graph of one image, which a backend runs at any size."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from typing import Dict

import numpy as np

from ampnet_opt.core.lifetime import Calls, end_with_process, keep_in_children


class Network(ABC):
    """A loaded network, for any number of threads, of which one computes at a time.

    `Backend.open_network` makes one. After `close`, and in a child of fork(), each use raises AmpnetError.
    """

    def __init__(self) -> None:
        self._calls = Calls()
        self._lock = threading.Lock()
        keep_in_children(self)
        end_with_process(self)

    def run(self, image: np.ndarray, *, recurring: bool = False) -> Dict[str, np.ndarray]:
        """All outputs, by name, of an image.

        Args:
            image: float32 [1, 3, height, width].
            recurring: many images of this size will come. OpenVINO compiles the network for it, in half a second the first
                time; each inference then takes less.

        Raises:
            AmpnetError: the library cannot compute it, as at a size that the network does not take.
        """
        return self._calls.run(self._run_alone, image, recurring)

    def _run_alone(self, image: np.ndarray, recurring: bool) -> Dict[str, np.ndarray]:
        with self._lock:  # memory for one at a time
            return self._run(np.ascontiguousarray(image, np.float32), recurring)

    @abstractmethod
    def _run(self, image: np.ndarray, recurring: bool) -> Dict[str, np.ndarray]:
        """As `run`, of a contiguous image; one at a time."""

    def close(self) -> None:
        """Wait for the calls that run, then free what the network holds. A second call does nothing."""
        self._calls.close(self._free)

    @abstractmethod
    def _free(self) -> None:
        """Free all; nothing runs then."""

    def end(self, deadline: float) -> None:
        """`close` at the end of the process: what cannot be freed until `time.monotonic()` is `deadline` is left."""
        if not self._calls.forked:
            self._calls.end(self._free, deadline)
