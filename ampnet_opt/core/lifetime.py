"""Who is using an engine: the calls that closing waits for, and what a forked child must leave alone."""

from __future__ import annotations

import atexit
import ctypes
import logging
import os
import threading
import time
import weakref
from typing import Any, Callable, Dict, List, Set, TypeVar

from ampnet_opt.core.errors import AmpnetError

Result = TypeVar("Result")
log = logging.getLogger(__name__)

CLOSED = "the engine is closed; load it again"
FORKED = (
    "this engine was loaded before this process was forked, and works in the parent alone: start processes with "
    "multiprocessing's spawn method (on a CPU, a forked one may load engines of its own)"
)
ENDING = "this process is ending"
AT_EXIT = 60.0  # seconds that the end of the process waits for what daemon threads do in a library: one batch, or a load
_kept: weakref.WeakSet[Any] = weakref.WeakSet()
_engines: weakref.WeakSet[Any] = weakref.WeakSet()
_native: Dict[Any, None] = {}  # locks of what runs in `native`
_left: List[Any] = []  # what daemon threads have not freed
_last: List[Callable[[], object]] = []  # what engines need until they are freed
_ending = False


class Calls:
    """The calls that run on one engine, in any number of threads.

    Each holds a lock of its own for as long as it runs. `with` on a lock is left unlocked by whatever ends the call, Ctrl-C
    at the worst moment included, which a counter is not.
    """

    def __init__(self) -> None:
        self._process = os.getpid()
        self._running: Dict[Any, int] = {}  # lock of a call -> its thread
        self._closing = threading.RLock()
        self._closed = self._ended = False
        self._outside: Set[Any] = set()  # locks of calls that run the caller's code

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

    def outside(self, work: Callable[[], Result]) -> Result:
        """`work()`, which is the caller's code within a call of this thread: the end of the process does not wait for it."""
        locks = [lock for lock, thread in list(self._running.items()) if thread == threading.get_ident()]
        self._outside.update(locks)
        try:
            return work()
        finally:
            self._outside.difference_update(locks)
            self.require_running()

    def require_running(self) -> None:
        """AmpnetError when the process is ending: a call stops between two batches then."""
        if self._ended:
            raise AmpnetError(ENDING)

    def end(self, free: Callable[[], object], deadline: float) -> None:
        """At the end of the process: as `close`, until `time.monotonic()` is `deadline`. What cannot be freed by then, or is
        in the caller's code, is left."""
        self._closed = self._ended = True
        idle = True
        for lock in list(self._running):
            while not lock.acquire(timeout=0.02):
                if lock in self._outside or time.monotonic() > deadline:
                    idle = False
                    break
            else:
                lock.release()
        if idle and self._closing.acquire(timeout=max(0.0, deadline - time.monotonic())):
            try:
                free()
            finally:
                self._closing.release()


def native(work: Callable[..., Result], *arguments: Any) -> Result:
    """`work(*arguments)`, which loads or frees what a library holds: the end of the process waits for it. Raises AmpnetError
    in a daemon thread once the process is ending."""
    lock = threading.Lock()
    with lock:
        try:
            _native[lock] = None
            if _ending and threading.current_thread() is not threading.main_thread():
                raise AmpnetError(ENDING)
            return work(*arguments)
        finally:
            _native.pop(lock, None)


def free(attributes: Dict[str, Any], name: str, work: Callable[[], object]) -> None:
    """Free the object of a library that `attributes`, of its holder, has under `name`, after `work()`. A daemon thread
    leaves it to the main one, with all that it may read, when the process is ending."""

    def both() -> None:
        work()
        attributes.pop(name, None)

    try:
        native(both)
    except AmpnetError:
        _left.append(dict(attributes))
        attributes.clear()


def end_with_process(engine: Any) -> None:
    """Call `engine.end(deadline)` at the end of the process, unless it is freed before."""
    _engines.add(engine)


def end_after_engines(work: Callable[[], object]) -> None:
    """Call `work()` at the end of the process, once all engines are freed; what `atexit` is told later, it does before."""
    _last.append(work)


@atexit.register
def _end() -> None:
    """Everything is freed while the interpreter is whole. A daemon thread that came back from a library into an interpreter
    that is gone would abort the process: Python ends such a thread, and C++ does not let it."""
    global _ending
    _ending = True
    deadline = time.monotonic() + AT_EXIT
    _wait_for_native(deadline)  # no engine is loaded from here on
    for engine in list(_engines):
        try:
            engine.end(deadline)
        except AmpnetError as error:  # a GPU that has failed frees nothing; the others are freed all the same
            log.warning("an engine could not be freed: %s", error)
    _wait_for_native(deadline)
    for work in _last:
        work()


def _wait_for_native(deadline: float) -> None:
    for lock in list(_native):
        if lock.acquire(timeout=max(0.0, deadline - time.monotonic())):
            lock.release()


def keep_in_children(owner: Any) -> None:
    """In children forked from now on, `owner` and all it refers to is never freed: libraries would wait for threads, or a
    GPU, that only the parent has."""
    _kept.add(owner)


def _keep() -> None:
    _native.clear()
    for owner in list(_kept):
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(owner))


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_keep)
