"""Several threads write what one would, within their memory, and fail as one would."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from converter.errors import Interrupted, ReadError, UsageError, WriteError
from converter.execution.parallel import Workers
from converter.execution.streaming import stream
from converter.model.dtype import DType
from converter.model.output import Late, OutputFile, Watched
from converter.model.tensor import Array, ArrayTensor, ComputedTensor, Tensor
from converter.observer import Observer
from converter.options import Options

MEBIBYTE = 1 << 20
FOUR = Workers(jobs=4)


@dataclass(slots=True)
class Total:
    """A sum that depends on the order of what it is fed."""

    value: int = 7

    def reset(self) -> None:
        self.value = 7

    def update(self, data: memoryview | bytes, /) -> None:
        for part in (data[:1], data[-1:]):
            self.value = self.value * 31 % 1_000_003 + sum(bytes(part)) + len(data)


def planned(name: str, broken: int | None = None) -> OutputFile:
    """A header that is known last, many tensors of many sizes, some computed, and a footer."""
    generator, sums, pieces = np.random.default_rng(1), [], []
    for number in range(40):
        tensor: Tensor = ArrayTensor.of(generator.random((1 + number * 7, 1000), np.float32))
        tensor = tensor.transpose((1, 0)) if number % 3 else tensor
        if number == broken:
            tensor = ComputedTensor(dtype=tensor.dtype, shape=tensor.shape, inputs=(tensor,), operation=Broken())
        sums.append(Total())
        pieces.append(Watched(piece=tensor, sum=sums[-1]))
    header = Late(nbytes=400, render=lambda: b"".join(b"%10d" % each.value for each in sums))
    return OutputFile(name=name, pieces=(header, *pieces, b"the end"))


@dataclass(frozen=True)
class Broken:
    def declare(self, inputs: Sequence[Tensor]) -> tuple[DType, tuple[int, ...]]:
        return inputs[0].dtype, inputs[0].shape

    def __call__(self, *arrays: Array) -> Array:
        raise ReadError("is broken")


def test_the_same_bytes_and_progress(tmp_path: Path) -> None:
    heard: dict[str, int] = {"one": 0, "four": 0}

    class Hearing(Observer):
        def __init__(self, name: str) -> None:
            self.name = name

        def advance(self, nbytes: int) -> None:
            heard[self.name] += nbytes

    stream(planned("one"), tmp_path, observer=Hearing("one"))
    stream(planned("four"), tmp_path, observer=Hearing("four"), workers=FOUR)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "four").read_bytes()
    assert heard["one"] == heard["four"] == planned("x").nbytes - 400


@pytest.mark.parametrize("broken", [0, 17, 39])
def test_errors_are_those_of_one_thread(broken: int, tmp_path: Path) -> None:
    for workers in (Workers(), FOUR):
        file = planned(f"{workers.jobs}", broken)
        names = {id(piece.piece): f"t{at}" for at, piece in enumerate(file.pieces[1:-1]) if isinstance(piece, Watched)}
        with pytest.raises(ReadError, match="is broken") as caught:
            stream(file, tmp_path, names=names, workers=workers)
        assert caught.value.tensor == f"t{broken}"


def test_a_disk_that_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stream(planned("fits"), tmp_path, workers=FOUR)
    threads = threading.active_count()

    def pwrite(descriptor: int, data: memoryview, at: int) -> int:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(os, "pwrite", pwrite)
    with pytest.raises(WriteError, match="No space left"):
        stream(planned("does not"), tmp_path, workers=FOUR)
    assert threading.active_count() == threads


def test_of_several_failures_the_first_piece_is_reported(tmp_path: Path) -> None:
    """Whichever thread is the quickest: the first of the pieces waits until the others have failed."""
    others_failed = threading.Event()

    class Failing(Tensor):
        def __init__(self, number: int) -> None:
            super().__init__(dtype=DType.UINT8, shape=(8 * MEBIBYTE,))
            object.__setattr__(self, "number", number)

        def chunks(self) -> Iterator[memoryview]:
            number = self.number  # type: ignore[attr-defined]
            others_failed.wait(5) if number == 0 else others_failed.set()
            raise ReadError(f"number {number}")
            yield

        def _read(self) -> Array:
            raise AssertionError

    file = OutputFile(name="x", pieces=[Failing(number) for number in range(2)])
    with pytest.raises(ReadError, match="number 0"):
        stream(file, tmp_path, workers=Workers(jobs=2))


def test_short_writes_are_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pwrite = os.pwrite
    stream(planned("whole"), tmp_path, workers=FOUR)
    monkeypatch.setattr(os, "pwrite", lambda at, data, offset: pwrite(at, data[:1000], offset))
    stream(planned("pieces"), tmp_path, workers=FOUR)
    assert (tmp_path / "whole").read_bytes() == (tmp_path / "pieces").read_bytes()


@pytest.mark.parametrize("workers", [Workers(), FOUR], ids=["one", "four"])
def test_a_file_that_is_there_is_not_written_over(workers: Workers, tmp_path: Path) -> None:
    (tmp_path / "x").write_text("mine")
    with pytest.raises(WriteError, match="File exists"):
        stream(planned("x"), tmp_path, workers=workers)
    assert (tmp_path / "x").read_text() == "mine"


@pytest.mark.parametrize("nbytes", [399, 401])
def test_what_is_known_last_has_the_size_that_was_laid_out(nbytes: int, tmp_path: Path) -> None:
    stream(OutputFile(name="right", pieces=(Late(nbytes=400, render=lambda: bytes(400)),)), tmp_path)
    with pytest.raises(AssertionError, match="400 were laid out"):
        stream(OutputFile(name="x", pieces=(Late(nbytes=400, render=lambda: bytes(nbytes)),)), tmp_path)


def test_a_sum_starts_anew_with_every_writing(tmp_path: Path) -> None:
    total = Total()
    piece = Watched(piece=ArrayTensor.of(np.arange(5, dtype=np.float32)), sum=total)
    file = OutputFile(name="first", pieces=(piece,))
    stream(file, tmp_path)
    first = total.value
    stream(OutputFile(name="second", pieces=(piece,)), tmp_path)
    assert total.value == first


@dataclass(frozen=True)
class Counted:
    """Counts how many are computed at once."""

    running: list[int]
    most: list[int]
    lock: threading.Lock

    def declare(self, inputs: Sequence[Tensor]) -> tuple[DType, tuple[int, ...]]:
        return inputs[0].dtype, inputs[0].shape

    def __call__(self, *arrays: Array) -> Array:
        with self.lock:
            self.running[0] += 1
            self.most[0] = max(self.most[0], self.running[0])
        time.sleep(0.01)
        with self.lock:
            self.running[0] -= 1
        return arrays[0]


@pytest.mark.parametrize(("memory", "at_once"), [("256MiB", 4), ("128MiB", 1), ("64MiB", 1)])
def test_memory_is_rationed(memory: str, at_once: int, tmp_path: Path) -> None:
    """Twelve tensors that need 48 MiB each, input and result; of 64 MiB 32 are for them, all for one."""
    counted = Counted(running=[0], most=[0], lock=threading.Lock())
    source = ArrayTensor.of(np.zeros((6, MEBIBYTE), np.float32))
    tensors = [
        ComputedTensor(dtype=source.dtype, shape=source.shape, inputs=(source,), operation=counted) for _ in range(12)
    ]
    assert tensors[0].working_bytes == 48 * MEBIBYTE
    workers = Workers(jobs=4, memory_bytes=Options(max_memory=memory).memory_bytes)
    stream(OutputFile(name="x", pieces=tensors), tmp_path, workers=workers)
    assert 1 <= counted.most[0] <= at_once
    assert (tmp_path / "x").stat().st_size == 12 * source.nbytes


def test_small_memory_is_for_few_threads() -> None:
    assert [Workers(jobs=16, memory_bytes=size << 20).count for size in (16, 64, 256, 1024)] == [1, 2, 8, 16]


@pytest.mark.parametrize("given", [{"jobs": 0}, {"jobs": 1000}, {"max_memory": "1MiB"}, {"max_memory": "much"}])
def test_impossible_requests(given: dict[str, str | int]) -> None:
    Options(jobs=8, max_memory=16 * MEBIBYTE)
    with pytest.raises(UsageError):
        Options(**given)  # type: ignore[arg-type]


def test_a_signal_ends_all_threads(tmp_path: Path) -> None:
    class Slow(Tensor):
        def chunks(self) -> Iterator[memoryview]:
            while True:
                time.sleep(0.001)
                yield memoryview(b"x")

        def _read(self) -> Array:
            raise AssertionError

    def interrupt(number: int, frame: object) -> None:
        raise Interrupted(number)

    threads = threading.active_count()
    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        endless = [Slow(dtype=DType.UINT8, shape=(64 * MEBIBYTE,)) for _ in range(4)]
        with pytest.raises(Interrupted):
            stream(OutputFile(name="x", pieces=endless), tmp_path, workers=FOUR)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert threading.active_count() == threads
