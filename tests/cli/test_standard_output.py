"""A standard output that takes nothing: one line, the right exit code, and no doubt of what was done before."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

_CONVERT = "convert SRC NEW"
# command, exit code, what is said of the work that was done
_COMMANDS = (
    (_CONVERT, 1, "; the output is in place"),
    (f"{_CONVERT} --json", 1, "; the output is in place"),
    (f"{_CONVERT} --dry-run", 1, "; nothing was written"),
    ("verify SRC OUT", 1, "; the destination is what the source says"),
    ("verify SRC OUT --json", 1, "; the destination is what the source says"),
    ("inspect SRC", 1, ""),
    ("inspect SRC --json", 1, ""),
    ("diff SRC OUT", 2, ""),
    ("diff SRC OUT --json", 2, ""),
    ("formats", 1, ""),
    ("formats safetensors", 1, ""),
    ("formats --json", 1, ""),
    ("convert --help", 1, ""),
    ("--version", 1, ""),
)
_PLACES = {"> /dev/full": "No space left on device", "| false": "Broken pipe"}
_ONCE = ("> /dev/full",)  # where the others end in the same lines
_CASES = [
    (command, exit_code, done, place)
    for command, exit_code, done in _COMMANDS
    for place in (_PLACES if command in (_CONVERT, "verify SRC OUT", "diff SRC OUT", "convert --help") else _ONCE)
]


@pytest.fixture(scope="module")
def converted(squad_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("stdout")
    paths = {"SRC": squad_bert, "OUT": folder / "out.safetensors", "NEW": folder / "new.safetensors"}
    done = shell("convert SRC OUT", "", paths)
    assert (done.returncode, done.stderr) == (0, "")
    return paths


def shell(command: str, place: str, paths: dict[str, Path]) -> subprocess.CompletedProcess[str]:
    """Run a command of ckconv in bash, its output redirected; the exit code is ckconv's."""
    words = [os.fspath(paths.get(word, word)) for word in command.split()]
    program = shlex.join([sys.executable, "-m", "converter", *words])
    started = "sleep 0.2; " if place.startswith("|") else ""  # the reader has gone by then
    text = f"set -o pipefail; {{ {started}{program}; }} {place}; exit ${{PIPESTATUS[0]}}"
    environment = {**os.environ, "PYTHONPATH": os.fspath(ROOT)}
    return subprocess.run(
        ["bash", "-c", text], capture_output=True, text=True, env=environment, check=False, timeout=120
    )


@pytest.mark.one_in(2)
@pytest.mark.parametrize(("command", "exit_code", "done", "place"), _CASES)
def test_what_is_printed_goes_nowhere(
    command: str, exit_code: int, done: str, place: str, converted: dict[str, Path]
) -> None:
    converted["NEW"].unlink(missing_ok=True)
    result = shell(command, place, converted)
    expected = "" if place == "| false" and not done else f"ckconv: standard output: {_PLACES[place]}{done}\n"
    assert (result.returncode, result.stderr) == (exit_code, expected)
    if command.startswith(_CONVERT) and "--dry-run" not in command:
        assert converted["NEW"].read_bytes() == converted["OUT"].read_bytes()
    else:
        assert not converted["NEW"].exists()


@pytest.mark.parametrize("place", _PLACES)
def test_an_error_is_said_all_the_same(place: str, converted: dict[str, Path]) -> None:
    result = shell("convert SRC OUT --json", place, converted)
    assert (result.returncode, result.stderr) == (
        6,
        f"ckconv: {converted['OUT']}: exists; --overwrite replaces it\n",
    )


@pytest.mark.parametrize("place", ["2> /dev/full", "2>&-", "<&- >&- 2>&-"])
def test_nothing_that_is_closed_or_full_reaches_a_file(place: str, converted: dict[str, Path]) -> None:
    converted["NEW"].unlink(missing_ok=True)
    assert shell("convert SRC NEW --quiet", place, converted).returncode == 0
    assert converted["NEW"].read_bytes() == converted["OUT"].read_bytes()
    assert shell("convert SRC NEW --quiet", place, converted).returncode == 6


@pytest.mark.parametrize("command", [_CONVERT, "verify SRC OUT", "diff SRC OUT", "formats --json", "--version"])
@pytest.mark.parametrize("place", [">&-", ">&- 2>&-"])
def test_what_is_closed_is_not_missed(command: str, place: str, converted: dict[str, Path]) -> None:
    converted["NEW"].unlink(missing_ok=True)
    result = shell(command, place, converted)
    assert (result.returncode, result.stderr) == (0, "")
