"""A build of TensorRT's that reports how far it is and can be stopped."""

from __future__ import annotations

import threading
from typing import Any, Dict, List, Optional

from ampnet_opt.runtime.backend import Progress


class Watch:
    """What a build and the thread that waits for it tell each other: the part done, and what stopped it."""

    def __init__(self, progress: Optional[Progress]) -> None:
        self.stopped = threading.Event()
        self.error: Optional[BaseException] = None
        self._progress = progress
        self._shown = 0.0
        self._phases: Dict[str, List[float]] = {}  # open phases: [steps done, steps], the outermost first

    def start(self, phase: str, steps: int) -> None:
        self._phases[phase] = [0, max(1, steps)]

    def step(self, phase: str, step: int) -> bool:
        """Count a finished step; False when the build is to stop."""
        if phase in self._phases:
            self._phases[phase][0] = step + 1
        self._report()
        return not self.stopped.is_set()

    def finish(self, phase: str) -> None:
        self._phases.pop(phase, None)

    def _report(self) -> None:
        part, share = 0.0, 1.0
        for done, steps in self._phases.values():  # each phase is one step of the phase around it
            part, share = part + share * done / steps, share / steps
        if self._progress is not None and not self.stopped.is_set() and part > self._shown:
            self._shown = min(1.0, part)
            try:
                self._progress(self._shown)
            except BaseException as error:
                self.error = error
                self.stopped.set()


def _monitor(trt: Any, watch: Watch) -> Any:
    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]  # the library has no types
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)

        def phase_start(self, phase_name: str, parent_phase: Optional[str], num_steps: int) -> None:
            watch.start(phase_name, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            return watch.step(phase_name, step)

        def phase_finish(self, phase_name: str) -> None:
            watch.finish(phase_name)

    return Monitor()


def watched_build(
    trt: Any, builder: Any, network: Any, config: Any, progress: Optional[Progress], *, name: Optional[str] = None
) -> Any:
    """The serialised network, or None when the library failed. name: of the thread in which the library works.

    The library works in a thread of its own, because Python hears Ctrl-C in the main thread only, and not in the middle of
    a call. A library without progress reports cannot be asked to stop: its thread is left behind, to end with the process.
    """
    watch, results = Watch(progress), []
    monitored = hasattr(trt, "IProgressMonitor")
    if monitored:
        config.progress_monitor = monitor = _monitor(trt, watch)  # noqa: F841 (the library keeps no reference)

    # Waited for instead of the thread: Python 3.11 takes a thread for ended when its join is interrupted.
    done = threading.Event()

    def work() -> None:
        try:
            if not watch.stopped.is_set():
                results.append(builder.build_serialized_network(network, config))
        except BaseException as error:
            watch.error = watch.error or error
        finally:
            done.set()

    thread = threading.Thread(target=work, daemon=True, name=name)
    try:
        thread.start()
        while not done.wait(0.1):
            pass
    except BaseException:
        watch.stopped.set()
        while monitored and thread.ident is not None and not done.wait(0.1):
            pass
        raise
    if watch.error is not None:
        raise watch.error
    return results[0]
