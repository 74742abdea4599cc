"""Who is using an engine: the calls that closing waits for, and what a forked child must leave alone."""

from __future__ import annotations

import atexit
import ctypes
import os
import threading
import time
import weakref
from typing import Any, Callable, Dict, TypeVar

from ampnet_opt.errors import AmpnetError

Result = TypeVar("Result")

CLOSED = "the engine is closed; load it again"
FORKED = (
    "this engine was loaded before this process was forked, and works in the parent alone: load engines in the child, or "
    "start it with multiprocessing's spawn method"
)
AT_EXIT = 5.0  # seconds that the end of the process waits for what daemon threads compute
_kept: weakref.WeakSet[Any] = weakref.WeakSet()
_open: weakref.WeakSet[Calls] = weakref.WeakSet()


class Calls:
    """The calls that run on one engine, in any number of threads.

    Each holds a lock of its own for as long as it runs. `with` on a lock is left unlocked by whatever ends the call, Ctrl-C
    at the worst moment included, which a counter is not.
    """

    def __init__(self) -> None:
        self._process = os.getpid()
        self._running: Dict[Any, int] = {}  # lock of a call -> its thread
        self._closing = threading.RLock()
        self._closed = False
        _open.add(self)

    @property
    def forked(self) -> bool:
        """Whether this is a child of the process that the engine was loaded in."""
        return os.getpid() != self._process

    def require_open(self) -> None:
        """AmpnetError after `close`, or in a forked child."""
        if self.forked:
            raise AmpnetError(FORKED)
        if self._closed:
            raise AmpnetError(CLOSED)

    def run(self, work: Callable[..., Result], *arguments: Any) -> Result:
        """`work(*arguments)`, which `close` waits for. Raises AmpnetError as `require_open`, and what `work` raises."""
        self.require_open()
        lock = threading.Lock()
        with lock:
            try:
                self._running[lock] = threading.get_ident()
                self.require_open()  # from here on, close sees this call
                return work(*arguments)
            finally:
                self._running.pop(lock, None)

    def close(self, free: Callable[[], object]) -> None:
        """Let no further call begin, wait for those that run, then call `free`, which may be called again and do nothing.

        Nothing happens in a forked child. Raises AmpnetError when this thread is within a call: it would wait for itself.
        """
        if self.forked:
            return
        if any(thread == threading.get_ident() and lock.locked() for lock, thread in list(self._running.items())):
            raise AmpnetError(
                "an engine cannot be closed by what one of its own calls runs: the faces that infer_each reads"
            )
        self._closed = True
        with self._closing:
            for lock in list(self._running):
                with lock:
                    pass
            free()

    def end(self, deadline: float) -> None:
        """Let no further call begin, and wait for those that run until `time.monotonic()` is `deadline`."""
        self._closed = True
        for lock in list(self._running):
            if lock.acquire(timeout=max(0.0, deadline - time.monotonic())):
                lock.release()


@atexit.register
def _end() -> None:
    """A daemon thread that came back from a library into an interpreter that is gone would abort the process."""
    deadline = time.monotonic() + AT_EXIT
    for calls in list(_open):
        if not calls.forked:
            calls.end(deadline)


def keep_in_children(owner: Any) -> None:
    """In children forked from now on, `owner` and all it refers to is never freed: libraries would wait for threads, or a
    GPU, that only the parent has."""
    _kept.add(owner)


def _keep() -> None:
    for owner in list(_kept):
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(owner))


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_keep)
