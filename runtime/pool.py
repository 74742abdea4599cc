"""Executors for several threads: each is used by one thread at a time."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import Any, Iterator, List, Sequence

import numpy as np

from ampnet_opt.errors import AmpnetError


class Pool:
    """Runs each call on an executor that no other thread uses, waiting for one where all are in use.

    executors: with `run(images, landmarks) -> logits` and `close()`; they belong to the pool from here on.
    """

    def __init__(self, executors: Sequence[Any]) -> None:
        self._executors = list(executors)
        self._free: List[Any] = list(executors)
        self._changed = threading.Condition()
        self._closed = False

    def run(self, images: Any, landmarks: Any) -> np.ndarray:
        """What an executor gives. Raises AmpnetError when the pool is closed, also while waiting for an executor."""
        with self.borrow() as executor:
            return executor.run(images, landmarks)

    @contextmanager
    def borrow(self) -> Iterator[Any]:
        """An executor, for this thread alone until the block ends."""
        with self._changed:
            self._changed.wait_for(lambda: self._free or self._closed)
            if self._closed:
                raise AmpnetError("the engine is closed; load it again")
            # The last one that came back: its CUDA graph is likelier to be of this batch size.
            executor = self._free.pop()
        try:
            yield executor
        finally:
            with self._changed:
                self._free.append(executor)
                self._changed.notify_all()

    def close(self) -> None:
        """Close all executors, each when the call that uses it has ended. A second call does nothing."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: len(self._free) == len(self._executors))
            executors, self._executors, self._free = self._executors, [], []
        for executor in executors:
            executor.close()
