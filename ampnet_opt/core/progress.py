"""Progress on stderr: a bar for each step of a job."""

from __future__ import annotations

from contextlib import contextmanager
from typing import Any, Callable, ContextManager, Dict, Iterator

from ampnet_opt.core.text import printable

# `step("exporting", total)` opens a step of `total` units (0: unknown); the function that it gives is called with the units
# that are done.
Steps = Callable[[str, int], ContextManager[Callable[[float], None]]]


@contextmanager
def _bars() -> Iterator[Any]:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from ampnet_opt.core.console import console

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console(stderr=True)) as bars:
        yield bars


@contextmanager
def steps() -> Iterator[Steps]:
    """Steps of a build, which open and close one by one."""
    with _bars() as bars:

        @contextmanager
        def step(name: str, total: int) -> Iterator[Callable[[float], None]]:
            task = bars.add_task(printable(name), total=total or None)
            yield lambda done: bars.update(task, completed=done)
            bars.update(task, total=total or 1, completed=total or 1)

        yield step


@contextmanager
def stages() -> Iterator[Callable[[str, int, int], None]]:
    """Stages of a measurement: call with the name of a stage, the units done and their total."""
    with _bars() as bars:
        tasks: Dict[str, Any] = {}

        def report(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(printable(stage), total=total)
            bars.update(tasks[stage], completed=done, total=total)

        yield report
        for task in bars.tasks:
            bars.update(task.id, completed=task.total)


@contextmanager
def counter(name: str, total: int) -> Iterator[Callable[[float, str], None]]:
    """One long job: call with the units done and what is being done."""
    with _bars() as bars:
        task = bars.add_task(printable(name), total=total)
        yield lambda done, text: bars.update(task, completed=done, description=printable(text))
