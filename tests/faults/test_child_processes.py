"""A framework at work in a child process: it ends when its parent does, and its failures are the parent's."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import pytest

from tests.faults.conversions import assert_one_line, entries, run, start, wait_for
from tests.faults.injection import in_mounts

LIMIT_SECONDS = 2


def command(function: str, destination: Path) -> list[str]:
    return [sys.executable, "-m", "tests.faults.framework", function, os.fspath(destination)]


def children(process: int) -> list[int]:
    """Return the processes that it started, and theirs."""
    try:
        tasks = list(Path(f"/proc/{process}/task").iterdir())
        below = [int(child) for task in tasks for child in (task / "children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):  # it ended meanwhile
        return []
    return below + [process for child in below for process in children(child)]


def is_running(process_id: int) -> bool:
    try:
        return Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("function", ["work", "work-forked"])
@pytest.mark.parametrize(
    ("number", "code"), [("SIGKILL", -9), ("SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 129), ("SIGINT to all", 130)]
)
def test_the_child_ends_with_its_parent(number: str, code: int, function: str, tmp_path: Path) -> None:
    """A framework that went on alone would write into a staging folder that a later run sweeps."""
    process = start(["setsid", *command(function, tmp_path / "x")])
    assert wait_for(tmp_path, ".ckconv-*/output/3", process)
    started = children(process.pid)
    assert len(started) == len(function.split("-"))
    send = os.killpg if number == "SIGINT to all" else os.kill  # as a terminal does
    send(process.pid, signal.Signals[number.split()[0]])
    sent = time.monotonic()
    _, errors = process.communicate(timeout=LIMIT_SECONDS)
    while any(map(is_running, started)) and time.monotonic() < sent + LIMIT_SECONDS:
        time.sleep(0.01)
    assert not any(map(is_running, started))
    assert process.returncode == code, errors
    if code > 0:
        assert errors.splitlines() == [f"ckconv: {tmp_path}/x: interrupted, nothing written"]
        assert entries(tmp_path) == []
    else:
        assert_a_later_run_sweeps(tmp_path)


def assert_a_later_run_sweeps(folder: Path) -> None:
    (left,) = entries(folder)
    assert left.startswith(".ckconv-")
    process = start(command("work", folder / "x"))
    assert wait_for(folder, f".ckconv-{process.pid}-*/output", process)
    assert left not in entries(folder)
    process.terminate()
    process.communicate(timeout=LIMIT_SECONDS)
    assert entries(folder) == []


@pytest.mark.parametrize("function", ["fill", "fill-forked"])
def test_the_disk_is_full(function: str, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)]
    look = ["sh", "-c", '"$@"; code=$?; ls -A "$0"; exit $code', str(disk), *command(function, disk / "x")]
    result = run(in_mounts(mount, look))
    assert_one_line(result, f"{disk}/x: No space left on device")
    assert result.returncode == 1
    assert result.stdout == ""
