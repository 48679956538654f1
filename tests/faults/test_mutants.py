"""Seeded mutants, the same in every run: only a CkconvError comes out of a reader, soon, and in bounded memory."""

from __future__ import annotations

import random
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from converter.errors import ReadError
from converter.formats import written
from tests.faults import mutants
from tests.faults.seeds import make_seeds

MUTANTS_PER_FORMAT = 500


@pytest.mark.one_in(2)
@pytest.mark.parametrize("format_name", sorted(written()))
def test_mutants(format_name: str, tell: Callable[[str], None]) -> None:
    answers, wrongs = mutants.run([format_name], count=MUTANTS_PER_FORMAT)
    tell(f"{format_name}: {answers.total()} mutants")
    assert not wrongs
    assert answers[f"{format_name} ReadError"], "no mutation did any harm"
    assert answers[f"{format_name} read"], "every mutation did harm: the reader may never succeed"


def fail(error: BaseException) -> Callable[[Path, str], None]:
    def read(path: Path, format_name: str) -> None:
        raise error

    return read


def hang(path: Path, format_name: str) -> None:
    while True:
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("reader", "said"),
    [
        (fail(ReadError("is damaged", path="{root}")), None),
        (fail(ReadError("is damaged", path="elsewhere")), "names no file"),
        (fail(ReadError("is damaged")), "names no file"),
        (fail(KeyError("a bug")), "KeyError"),
        (fail(MemoryError()), "MemoryError"),
        (fail(RecursionError()), "RecursionError"),
        (hang, "_HangError"),
    ],
)
def test_what_is_wrong_is_noticed(
    reader: Callable[[Path, str], None], said: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (seed, *_) = make_seeds(tmp_path, ["safetensors"])
    monkeypatch.setattr(mutants, "LIMIT_SECONDS", 0.2)
    monkeypatch.setattr(mutants, "read_all", reader)
    before = signal.signal(signal.SIGALRM, mutants._hang)
    try:
        _, wrong = mutants.judge(replace(seed, root=Path("{root}")), 0, 0)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert wrong is None if said is None else said in str(wrong)


def test_the_death_of_a_reader_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    real, died = subprocess.run, []

    def run(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        if died:
            return real(command, **options)
        died.append(command)
        Path(command[command.index("--progress") + 1]).write_text("3 a seed")
        return subprocess.CompletedProcess(command, -11, stdout="")

    monkeypatch.setattr(subprocess, "run", run)
    answers, wrongs = mutants.run(["safetensors"], count=10)
    assert wrongs == [mutants.Wrong(seed="a seed", number=3, what="the process died with -11")]
    assert answers.total() == 6


def test_mutants_are_the_same_each_time(tmp_path: Path) -> None:
    (seed, *_) = make_seeds(tmp_path, ["safetensors"])
    first, again = (mutants.mutate(seed.content, random.Random(7)) for _ in range(2))
    assert first == again != seed.content
