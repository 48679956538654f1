"""Signals and a standard output that takes nothing, in this process: what is left, what is said, which exit code."""

from __future__ import annotations

import errno
import io
import json
import os
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import converter
from converter import cli, program
from converter.cli import _run, convert, diff, inspect, main, verify
from converter.errors import CkconvError, Interrupted, LossError
from converter.execution import publish
from converter.execution.publish import staging
from converter.model.checkpoint import Checkpoint
from converter.model.tensor import ArrayTensor

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@pytest.fixture(autouse=True)
def _handlers() -> Iterator[None]:
    """Signals are handled as `ckconv` does, and afterwards as they were."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    for number in SIGNALS:
        signal.signal(number, cli._interrupt)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    tensors = {"w": ArrayTensor.of(np.ones((2, 3), np.float32))}
    converter.write(Checkpoint(tensors=tensors), tmp_path / "in" / "x.safetensors")
    return tmp_path / "in" / "x.safetensors"


def signalled(monkeypatch: pytest.MonkeyPatch, *numbers: int) -> None:
    """Let signals arrive while a staging folder is removed: one before each attempt to remove it."""
    coming = list(numbers)
    remove = shutil.rmtree

    def interrupted(folder: Path, **options: Any) -> None:
        if coming:
            signal.raise_signal(coming.pop(0))
        remove(folder, **options)

    monkeypatch.setattr(publish.shutil, "rmtree", interrupted)


@pytest.mark.parametrize("second", SIGNALS, ids=lambda number: number.name)
@pytest.mark.parametrize("first", SIGNALS, ids=lambda number: number.name)
def test_the_first_signal_counts_and_those_after_it_do_not_stop_the_cleaning_up(
    first: signal.Signals, second: signal.Signals, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:

    def work() -> None:
        with staging(tmp_path / "x") as stage:
            (stage.output / "half").write_text("half")
            signalled(monkeypatch, second, second)
            signal.raise_signal(first)

    with pytest.raises(Interrupted) as caught:
        work()
    assert caught.value.exit_code == 128 + first
    assert not list(tmp_path.iterdir())


def test_a_failed_run_is_cleaned_up_when_signals_come_meanwhile(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    signalled(monkeypatch, signal.SIGTERM, signal.SIGINT)

    def work() -> None:
        with staging(tmp_path / "x") as stage:
            (stage.output / "half").write_text("half")
            raise CkconvError("failed")

    with pytest.raises(Interrupted) as caught:
        work()
    assert caught.value.signal_number == signal.SIGTERM
    assert not list(tmp_path.iterdir())


def ended(*arguments: str) -> int:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    return int(caught.value.code or 0)


@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
@pytest.mark.parametrize("step", ["prove", "publish"])
def test_before_an_output_is_committed_a_signal_ends_it_and_afterwards_none_does(
    step: str,
    number: signal.Signals,
    source: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    module, name = (program, "prove") if step == "prove" else (publish, "_move")
    real = getattr(module, name)

    def interrupted(*given: Any, **options: Any) -> Any:
        signal.raise_signal(number)
        return real(*given, **options)

    monkeypatch.setattr(module, name, interrupted)
    code = ended(os.fspath(source), f"{tmp_path}/y.safetensors")
    said = capsys.readouterr()
    assert sorted(os.listdir(tmp_path)) == (["in"] if step == "prove" else ["in", "y.safetensors"])
    if step == "prove":
        assert (code, said.out) == (128 + number, "")
        assert said.err == f"ckconv: {source}: interrupted, nothing written\n"
    else:
        assert (code, said.err) == (0, "")
        assert said.out.splitlines()[-1].startswith("ok: 1 mapped")


class Full(io.StringIO):
    """A stream on a disk that is full."""

    def write(self, text: str) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("command", [convert, verify, inspect, diff], ids=lambda module: module.command.name)
def test_a_failure_that_stdout_does_not_take_is_said_with_its_own_exit_code(
    command: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    name = command.command.name

    def fail(*given: Any, **options: Any) -> None:
        raise LossError("would be lost", tensor="w")

    monkeypatch.setattr(command, "read" if name == "inspect" else name, fail)
    arguments = [name, "SRC", *(["DST"] if name != "inspect" else []), "--json"]
    code = 2 if name == "diff" else 3
    assert _run(arguments) == code
    assert json.loads(capsys.readouterr().out)["exit_code"] == code
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", Full())
        assert _run(arguments) == code
    assert capsys.readouterr().err == "ckconv: tensor w: would be lost\n"


@pytest.mark.parametrize(
    "arguments",
    [["formats"], ["formats", "--json"], ["--version"], ["inspect", "SRC"], ["diff", "SRC", "SRC"]],
    ids=" ".join,
)
def test_what_only_prints_fails_when_stdout_takes_nothing(
    arguments: list[str], source: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [os.fspath(source) if word == "SRC" else word for word in arguments]
    assert _run(words) == 0
    capsys.readouterr()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", Full())
        assert _run(words) == (2 if arguments[0] == "diff" else 1)
    assert capsys.readouterr().err == "ckconv: standard output: No space left on device\n"


@pytest.mark.parametrize("more", [[], ["--json"]], ids=["plain", "json"])
@pytest.mark.parametrize(
    ("command", "done"),
    [
        (["convert", "SRC", "NEW"], "the output is in place"),
        (["convert", "SRC", "NEW", "--dry-run"], "nothing was written"),
        (["verify", "SRC", "SRC"], "the destination is what the source says"),
    ],
    ids=["convert", "dry run", "verify"],
)
def test_what_was_done_is_said_when_stdout_takes_no_verdict(
    command: list[str],
    done: str,
    more: list[str],
    source: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    places = {"SRC": os.fspath(source), "NEW": f"{tmp_path}/y.pth"}
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", Full())
        assert _run([*(places.get(word, word) for word in command), *more]) == 1
    assert capsys.readouterr().err == f"ckconv: standard output: No space left on device; {done}\n"


@pytest.mark.parametrize("command", ["convert", "verify"])
def test_an_earlier_report_is_replaced_where_that_is_asked_for(
    command: str, source: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    target, report = tmp_path / "y.safetensors", tmp_path / "report.json"
    assert _run(["convert", f"{source}", f"{target}", "--report", f"{report}"]) == 0
    arguments = [command, f"{source}", f"{target}", "--report", f"{report}"]
    report.write_text(report.read_text().replace('"w"', '"before"'))
    assert _run(arguments) == 6
    assert '"before"' in report.read_text()
    assert _run([*arguments, "--overwrite"]) == 0
    assert '"before"' not in report.read_text()
    capsys.readouterr()
