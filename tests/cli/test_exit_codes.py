"""Command x {plain, --json} x what goes wrong: exit code, one line on stderr, and one object on stdout with --json."""

from __future__ import annotations

import errno
import json
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import converter
from converter import errors
from converter.cli import _run, convert, diff, inspect, verify
from converter.errors import (
    ArchitectureError,
    DestinationExistsError,
    GraphError,
    Interrupted,
    LimitError,
    LossError,
    MissingExtraError,
    ReadError,
    SafetyError,
    UnknownFormatError,
    UnprovenError,
    UsageError,
    VerificationError,
    WriteError,
)
from converter.model.checkpoint import Checkpoint
from converter.model.tensor import ArrayTensor
from converter.version import __version__

COMMANDS: dict[str, tuple[Any, str, list[str]]] = {
    "convert": (convert, "convert", ["convert", "SRC", "DST"]),
    "verify": (verify, "verify", ["verify", "SRC", "DST"]),
    "inspect": (inspect, "read", ["inspect", "SRC"]),
    "diff": (diff, "diff", ["diff", "SRC", "DST"]),
}
ERRORS = [
    (ReadError("is cut short", path="SRC"), 1),
    (WriteError("No space left on device", path="DST"), 1),
    (UsageError("is the source itself", path="DST"), 2),
    (UnknownFormatError("is of no known format", path="SRC"), 2),
    (ArchitectureError("nothing says which model", path="SRC"), 2),
    (MissingExtraError("torch", "tracing a model"), 2),
    (LossError("would be lost", tensor="w"), 3),
    (VerificationError("differs from the source", tensor="w"), 4),
    (UnprovenError("outputs not proven: 'y' (constant)"), 4),
    (SafetyError("asks for os.system", path="SRC"), 5),
    (DestinationExistsError("exists", path="DST"), 6),
    (GraphError("an operator has no lowering"), 7),
    (LimitError("comparing outputs: torch reached its limit of time, 1 s"), 7),
    (Interrupted(signal.SIGHUP), 129),
    (Interrupted(signal.SIGINT), 130),
    (Interrupted(signal.SIGTERM), 143),
]


def of_diff(code: int) -> int:
    """`ckconv diff` says 1 of what differs, and so 2 of any failure."""
    return code if code > 128 else 2


@pytest.mark.parametrize("is_json", [False, True], ids=["plain", "json"])
@pytest.mark.parametrize(("error", "code"), ERRORS, ids=lambda each: type(each).__name__ if each else str(each))
@pytest.mark.parametrize("command", COMMANDS)
def test_an_error_of_the_library(
    command: str,
    error: errors.CkconvError,
    code: int,
    is_json: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    module, function, arguments = COMMANDS[command]
    raised = type(error).__new__(type(error))
    raised.__dict__.update(error.__dict__)
    raised.args = error.args

    def fail(*_: object, **__: object) -> None:
        raise raised

    monkeypatch.setattr(module, function, fail)
    expected = of_diff(code) if command == "diff" else code
    assert _run([*arguments, *(["--json"] if is_json else [])]) == expected
    captured = capsys.readouterr()
    assert captured.err == f"ckconv: {error}\n"
    if not is_json:
        assert captured.out == ""
        return
    told = json.loads(captured.out)
    assert told["status"] == "failed"
    assert told["exit_code"] == expected
    assert (told["error"]["file"], told["error"]["message"]) == (error.path, error.message)


@pytest.mark.parametrize("is_json", [False, True], ids=["plain", "json"])
@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    ("error", "said"),
    [
        (MemoryError(), "out of memory"),
        (ValueError("of ours\nin two lines"), r"internal error: ValueError: of ours\nin two lines; -v shows where"),
    ],
    ids=["memory", "a fault of ours"],
)
def test_an_error_that_is_none_of_the_librarys(
    error: Exception,
    said: str,
    command: str,
    is_json: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    module, function, arguments = COMMANDS[command]

    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(module, function, fail)
    assert _run([*arguments, *(["--json"] if is_json else [])]) == (2 if command == "diff" else 1)
    captured = capsys.readouterr()
    assert captured.err == f"ckconv: {said}\n"
    assert captured.out == ""


@pytest.mark.parametrize(
    "arguments",
    [
        ["convert", "SRC"],
        ["convert", "SRC", "DST", "MORE"],
        ["convert", "SRC", "DST", "--no-such-option"],
        ["SRC", "DST", "--opset", "many"],
        ["convert", "SRC", "DST", "--jobs"],
        ["diff", "SRC"],
        ["inspect"],
        ["formats", "no-such-format"],
        ["verify", "SRC"],
    ],
    ids=" ".join,
)
def test_a_wrong_command_line_is_exit_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert _run(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("ckconv: ")
    assert captured.err.count("\n") == 1


@pytest.mark.parametrize("command", ["convert", "verify", "inspect", "diff"])
def test_a_source_that_is_not_there(command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    missing, target = tmp_path / "missing", tmp_path / "x.safetensors"
    arguments = [f"{missing}"] if command == "inspect" else [f"{missing}", f"{target}"]
    assert _run([command, *arguments]) == (2 if command == "diff" else 1)
    captured = capsys.readouterr()
    assert captured.err.startswith(f"ckconv: {missing}: ")
    assert captured.err.count("\n") == 1


@pytest.fixture
def hidden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that may not be searched, whoever asks: the superuser may search any."""
    folder = tmp_path / "hidden"
    (folder / "in").mkdir(parents=True)

    def guarded(name: str) -> None:
        real = getattr(os, name)

        def call(path: Any, *given: Any, **options: Any) -> Any:
            if isinstance(path, str | os.PathLike) and Path(path).is_relative_to(folder) and Path(path) != folder:
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), os.fspath(path))
            return real(path, *given, **options)

        monkeypatch.setattr(os, name, call)

    for name in ("stat", "lstat", "open", "mkdir", "listdir", "scandir", "access"):
        guarded(name)
    return folder


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["convert", "{hidden}/x.pth", "{tmp}/y.pth"], 1),
        (["convert", "{tmp}/x.pth", "{hidden}/y.pth"], 1),
        (["convert", "{tmp}/x.pth", "{hidden}/in/y.pth"], 1),
        (["convert", "{tmp}/x.pth", "{hidden}/in/y/", "--to", "safetensors"], 1),
        (["convert", "{tmp}/x.pth", "{tmp}/y.pth", "--report", "{hidden}/in/r.txt"], 1),
        (["convert", "{tmp}/x.pth", "{tmp}/y.pth", "--config", "{hidden}/config.json"], 1),
        (["convert", "{tmp}/x.pth", "{tmp}/y.pth", "--inputs", "{hidden}/x.npz"], 2),
        (["verify", "{tmp}/x.pth", "{hidden}/y.pth"], 1),
        (["verify", "{hidden}/x.pth", "{tmp}/x.pth"], 1),
        (["inspect", "{hidden}/x.pth"], 1),
        (["diff", "{hidden}/x.pth", "{tmp}/x.pth"], 2),
        (["diff", "{tmp}/x.pth", "{hidden}/in/x.pth"], 2),
    ],
    ids=lambda each: " ".join(each) if isinstance(each, list) else None,
)
def test_a_folder_that_may_not_be_searched_is_no_fault_of_ours(
    arguments: list[str], code: int, hidden: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    converter.write(Checkpoint(tensors={"w": ArrayTensor.of(np.ones(2, np.float32))}), tmp_path / "x.pth")
    assert _run([word.format(hidden=hidden, tmp=tmp_path) for word in arguments]) == code
    said = capsys.readouterr().err
    assert said.startswith(f"ckconv: {hidden}/")
    assert said.endswith(("Permission denied\n", "no such file\n"))
    assert not (tmp_path / "y.pth").exists()


@pytest.mark.parametrize("command", ["convert", "verify", "inspect", "diff"])
def test_a_source_that_may_not_be_read(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source, opened = tmp_path / "x.pth", os.open
    source.write_bytes(b"PK")

    def refuse(path: Any, *given: Any, **options: Any) -> int:
        if path == source:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return opened(path, *given, **options)

    monkeypatch.setattr(os, "open", refuse)
    monkeypatch.setattr(os, "access", lambda path, *given, **options: Path(path) != source)
    arguments = [f"{source}"] if command == "inspect" else [f"{source}", f"{tmp_path}/y.pth"]
    assert _run([command, *arguments]) == (2 if command == "diff" else 1)
    assert capsys.readouterr().err == f"ckconv: {source}: Permission denied\n"


def test_every_kind_of_error_is_in_the_table() -> None:
    kinds = {each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, errors.CkconvError)}
    assert kinds - {type(error) for error, _ in ERRORS} == {errors.CkconvError}


@pytest.mark.parametrize("arguments", [["--version"], ["--help"], ["convert", "--help"], ["formats"]], ids=" ".join)
def test_what_is_no_conversion_is_exit_0(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert _run(arguments) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("command", ["", "convert", "diff", "formats", "inspect", "verify"])
def test_h_is_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    said = []
    for flag in ("--help", "-h"):
        assert _run([*command.split(), flag]) == 0
        said.append(capsys.readouterr())
    assert said[0] == said[1]
    assert f"Usage: ckconv {command}".rstrip() in said[0].out


def test_the_version_is_the_packages(capsys: pytest.CaptureFixture[str]) -> None:
    assert _run(["--version"]) == 0
    assert capsys.readouterr().out == f"ckconv {__version__}\n"
