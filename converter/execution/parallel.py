"""Several threads over one file: pieces go to the places that the plan gives them, in memory that is rationed.

A thread takes the next task and waits until what it needs besides chunks is free; a task that needs more than there
is waits for all of it. So the peak is the budget, or the largest tensor that has to be computed whole.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

from converter.execution.digests import Digests
from converter.execution.hashing import signals_held_back
from converter.execution.pieces import named_chunks, rendered, working_bytes
from converter.model.file import CHUNK_BYTES
from converter.model.output import Late, OutputFile, Piece, piece_bytes
from converter.observer import Observer

_CHUNKS_EACH = 4  # two streams that are compared, and what a permutation or a cast makes of one


Task = tuple[int, Callable[[Observer], None]]
"""The bytes that a task needs besides chunks, and the task."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Workers:
    """How many threads write a file, and the memory that they share."""

    jobs: int = 1
    memory_bytes: int = 256 << 20

    @property
    def count(self) -> int:
        """The number of threads whose chunks take no more than half of the memory."""
        return max(1, min(self.jobs, self.memory_bytes // (2 * _CHUNKS_EACH * CHUNK_BYTES)))

    @property
    def rationed_bytes(self) -> int:
        """The memory that is left beside chunks."""
        return self.memory_bytes - self.count * _CHUNKS_EACH * CHUNK_BYTES

    def count_for(self, file: OutputFile) -> int:
        """The number of threads that `file` keeps busy."""
        if self.count == 1 or file.nbytes < CHUNK_BYTES:
            return 1
        return min(self.count, sum(not isinstance(piece, bytes | Late) for piece in file.pieces))

    def run(self, tasks: Iterable[Task], observer: Observer) -> None:
        """Run tasks, begun in their order; each is given an observer to tell. Raises what the first that failed did."""
        if self.count == 1:
            for _, task in tasks:
                task(observer)
        else:
            _run(tasks, observer, self.count, _Ration(limit_bytes=self.rationed_bytes))


SERIAL = Workers()


def write_pieces(
    file: OutputFile,
    descriptor: int,
    *,
    names: Mapping[int, str],
    digests: Digests | None,
    observer: Observer,
    workers: Workers,
) -> None:
    """Write the pieces of `file` to an empty file, late ones last.

    Raises what reading or writing the first of the pieces that failed raised; the others are given up.
    """
    late: list[tuple[int, Late]] = []
    tasks: list[Task] = []
    for at, piece in _placed(file.pieces):
        if isinstance(piece, Late):
            late.append((at, piece))
        else:
            tasks.append((working_bytes(piece), partial(_write, piece, descriptor, at, names, digests)))
    os.ftruncate(descriptor, file.nbytes)
    workers.run(tasks, observer)
    for at, piece in late:
        _write_at(descriptor, rendered(piece, file), at)


def _placed(pieces: Sequence[Piece]) -> Iterator[tuple[int, Piece]]:
    position = 0
    for piece in pieces:
        yield position, piece
        position += piece_bytes(piece)


def _write(
    piece: Piece, descriptor: int, at: int, names: Mapping[int, str], digests: Digests | None, observer: Observer
) -> None:
    for chunk in named_chunks(piece, names, digests):
        _write_at(descriptor, chunk, at)
        at += len(chunk)
        observer.advance(len(chunk))


def _write_at(descriptor: int, data: memoryview | bytes, at: int) -> None:
    left = memoryview(data)
    while left:
        count = os.pwrite(descriptor, left, at)
        left, at = left[count:], at + count


class _GivenUpError(Exception):
    """Nobody waits for the task any more."""


@dataclass(slots=True, kw_only=True)
class _Ration:
    """Memory handed out and taken back."""

    limit_bytes: int
    used_bytes: int = 0
    is_cancelled: bool = False
    changed: threading.Condition = field(default_factory=threading.Condition)

    @contextmanager
    def of(self, nbytes: int) -> Iterator[None]:
        """Wait for `nbytes`, or for all there is when that is less."""
        needed = min(nbytes, self.limit_bytes)
        with self.changed:
            self.changed.wait_for(lambda: self.is_cancelled or self.used_bytes + needed <= self.limit_bytes)
            self.used_bytes += needed
        try:
            yield
        finally:
            with self.changed:
                self.used_bytes -= needed
                self.changed.notify_all()

    def give_up(self) -> None:
        """Let nobody wait any longer."""
        with self.changed:
            self.is_cancelled = True
            self.changed.notify_all()


@dataclass(slots=True, kw_only=True)
class _Guard(Observer):
    """Passes on what threads tell, one at a time, and stops those that nobody waits for."""

    observer: Observer
    ration: _Ration
    lock: threading.Lock = field(default_factory=threading.Lock)

    def advance(self, nbytes: int) -> None:
        if self.ration.is_cancelled:
            raise _GivenUpError
        with self.lock:
            self.observer.advance(nbytes)


def _run(tasks: Iterable[Task], observer: Observer, count: int, ration: _Ration) -> None:
    left, taking = enumerate(tasks), threading.Lock()
    guard = _Guard(observer=observer, ration=ration)
    failed: dict[int, Exception] = {}

    def work() -> None:
        while not ration.is_cancelled:
            with taking:
                number, (nbytes, task) = next(left, (-1, (0, None)))
            if task is None:
                return
            try:
                with ration.of(nbytes):
                    task(guard)
            except _GivenUpError:
                return
            except Exception as error:
                failed[number] = error
                ration.give_up()

    executor = ThreadPoolExecutor(max_workers=count, thread_name_prefix="work")
    try:
        with signals_held_back():
            running = [executor.submit(work) for _ in range(count)]
        for future in running:
            future.result()
    finally:
        ration.give_up()
        executor.shutdown(wait=True)
    if failed:
        raise failed[min(failed)]
