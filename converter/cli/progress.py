"""A progress bar in bytes, on stderr, when a person looks at it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from converter.observer import Observer

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")


def human_bytes(nbytes: int) -> str:
    """Return a decimal size of three significant digits: "440 MB"."""
    value, unit = float(nbytes), 0
    while value >= 999.5 and unit < len(_UNITS) - 1:
        value, unit = value / 1000, unit + 1
    return f"{value:.3g} {_UNITS[unit]}"


class _Quiet(Observer):
    def __init__(self, committing: Callable[[], None]) -> None:
        self._committing = committing

    def committing(self) -> None:
        self._committing()


class _Bar(_Quiet):
    def __init__(self, bars: Progress, committing: Callable[[], None]) -> None:
        super().__init__(committing)
        self._bars = bars
        self._task: TaskID | None = None

    def stage(self, name: str, total_bytes: int | None = None) -> None:
        if self._task is not None:
            self._bars.remove_task(self._task)
        self._task = self._bars.add_task(name, total=total_bytes)

    def advance(self, nbytes: int) -> None:
        if self._task is not None:
            self._bars.advance(self._task, nbytes)


@contextmanager
def progress(*, is_shown: bool, committing: Callable[[], None]) -> Iterator[Observer]:
    """Yield an observer that draws a bar, if `is_shown` and stderr is a terminal, and calls `committing` in time."""
    is_terminal = sys.stderr is not None and sys.stderr.isatty()
    if not is_shown or not is_terminal or os.environ.get("HF_HUB_DISABLE_PROGRESS_BARS"):
        yield _Quiet(committing)
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        yield _Bar(bars, committing)
