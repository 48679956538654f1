"""`ckconv` that says on stdout which stage begins: ``python -m tests.faults.staged ARGUMENT ...``."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

from converter.cli import main, outcome
from converter.cli.progress import progress
from converter.observer import Observer

PUBLISHING_SECONDS = 0.5


class _Telling(Observer):
    def __init__(self, observer: Observer) -> None:
        self._observer = observer

    def stage(self, name: str, total_bytes: int | None = None) -> None:
        print(name, flush=True)

    def committing(self) -> None:
        self._observer.committing()
        print("publishing", flush=True)
        time.sleep(PUBLISHING_SECONDS)  # a disk that is slow


@contextlib.contextmanager
def _telling(*, is_shown: bool, committing: Callable[[], None]) -> Iterator[Observer]:
    with progress(is_shown=False, committing=committing) as observer:
        yield _Telling(observer)


if __name__ == "__main__":
    outcome.progress = _telling
    main()
