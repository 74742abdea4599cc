"""Executors for several threads: each is used by one thread at a time."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import Any, Iterator, List, Sequence, Tuple

import numpy as np

from ampnet_opt.core.errors import AmpnetError
from ampnet_opt.core.lifetime import CLOSED, keep_in_children
from ampnet_opt.runtime.backend import Executor

LOST = 0.1  # seconds, after which a thread looks for itself: the one that was to wake it may have died of Ctrl-C


class Pool(Executor):
    """Runs each call on an executor that no other thread uses, waiting for one where all are in use.

    executors: with `run(images, landmarks) -> logits` and `close()`; they belong to the pool from here on. Who uses one
    holds a lock meanwhile, which `with` leaves unlocked whatever ends the call.
    """

    def __init__(self, executors: Sequence[Any]) -> None:
        # Each executor and the lock of its last user, those first that were used last.
        self._lent: List[Tuple[Any, Any]] = [(executor, threading.Lock()) for executor in executors]
        self._changed = threading.Condition()
        self._closed = False
        keep_in_children(self)

    def run(self, images: Any, landmarks: Any) -> np.ndarray:
        """What an executor gives. Raises AmpnetError when the pool is closed, also while waiting for an executor."""
        user = threading.Lock()
        try:
            with user:
                logits: np.ndarray = self._take(user).run(images, landmarks)
                return logits
        finally:
            self._wake()

    @contextmanager
    def borrow(self) -> Iterator[Any]:
        """An executor, for this thread alone until the block ends."""
        user = threading.Lock()
        try:
            with user:
                yield self._take(user)
        finally:
            self._wake()

    def _take(self, user: Any) -> Any:
        with self._changed:
            while not self._closed:
                for executor, last in self._lent:
                    if not last.locked():
                        others = [pair for pair in self._lent if pair[0] is not executor]
                        # To the front: the CUDA graph of one that was just used is likelier to be of this batch size.
                        self._lent = [(executor, user), *others]
                        return executor
                self._changed.wait(LOST)
            raise AmpnetError(CLOSED)

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def close(self) -> None:
        """Close all executors, each when the call that uses it has ended. A second call does nothing.

        An executor that fails to close does not keep the others open; the first error is raised at the end.
        """
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            lent, self._lent = self._lent, []
        errors: List[AmpnetError] = []
        for executor, user in lent:
            with user:
                try:
                    executor.close()
                except AmpnetError as error:
                    errors.append(error)
        if errors:
            raise errors[0]
