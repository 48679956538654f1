"""SIGINT, SIGTERM, SIGHUP: gone within two seconds, one line, no traceback, nothing left behind."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.conversions import (
    SAFETENSORS,
    SHARDS,
    Case,
    Target,
    entries,
    fingerprint,
    run,
    start,
    wait_for,
    write_source,
)

LIMIT_SECONDS = 2
SIGNALS = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}
MOMENTS = 3
TRIES = 3  # the rest of the suite may keep the machine busy for a moment; what waits, waits every time


def interrupt(case: Case, folder: Path, number: signal.Signals, *, after: float) -> tuple[bool, float]:
    """Send a signal some seconds after the staging folder appeared; whether it was before the output, and the time."""
    path = case.destination(folder, is_there_one=True)
    process = start(case.command(folder))
    assert wait_for(folder, ".ckconv-*/output", process)
    time.sleep(after)
    process.send_signal(number)
    sent = time.monotonic()
    _, errors = process.communicate(timeout=LIMIT_SECONDS + 20)
    took = time.monotonic() - sent
    assert entries(folder) == [path.name]
    if process.returncode == 0:
        assert fingerprint(path) == case.new
        return False, took
    assert process.returncode == SIGNALS[number], errors
    assert errors.splitlines()[0].endswith("interrupted, nothing written")
    assert len(errors.splitlines()) == 1, errors
    assert fingerprint(path) == case.old
    return True, took


@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
@pytest.mark.parametrize("target", [SAFETENSORS, SHARDS], ids=str)
def test_interrupted(target: Target, number: signal.Signals, tmp_path: Path, case_of: Callable[[Target], Case]) -> None:
    case = case_of(target)
    early = 0
    for moment in range(MOMENTS):
        seconds = case.seconds / 4 * moment / MOMENTS
        times: list[float] = []
        while not times or (times[-1] >= LIMIT_SECONDS and len(times) < TRIES):
            is_early, took = interrupt(case, tmp_path / f"{moment}-{len(times)}", number, after=seconds)
            early += is_early
            times.append(took)
        assert min(times) < LIMIT_SECONDS, times
    assert early, "every output was published before the signal came: the source is too small"


@pytest.mark.parametrize("ends", ["by a signal", "dry", "with an error"])
def test_nobody_waits_for_the_hash_of_a_large_source(ends: str, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    source = write_source(tmp_path / "in" / "source.safetensors", mebibytes=24 << 10, first=None)
    options = {"dry": ["--dry-run"], "with an error": ["--exclude", "*"]}.get(ends, [])
    command = SAFETENSORS.command(source, tmp_path / "out", *options)
    if ends == "by a signal":
        process = start(command)
        assert wait_for(tmp_path / "out", ".ckconv-*/output/*", process)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=LIMIT_SECONDS)
        assert process.returncode == 143
    else:
        began = time.monotonic()
        assert run(command).returncode == (0 if ends == "dry" else 3)
        assert time.monotonic() - began < 2 * LIMIT_SECONDS
    assert entries(tmp_path / "out") == []


def test_a_signal_while_a_failed_run_is_cleaned_up(tmp_path: Path) -> None:
    program = (
        "import pathlib, signal, sys, time\n"
        "from converter.cli import _interrupt\n"
        "from converter.errors import CkconvError\n"
        "from converter.execution import publish\n"
        "signal.signal(signal.SIGTERM, _interrupt)\n"
        "real = publish.shutil.rmtree\n"
        "def interrupted(folder, **options):\n"
        "    publish.shutil.rmtree = real\n"
        "    signal.raise_signal(signal.SIGTERM)\n"
        "publish.shutil.rmtree = interrupted\n"
        "try:\n"
        "    with publish.staging(pathlib.Path(sys.argv[1])) as stage:\n"
        "        (stage.output / 'half').write_text('half')\n"
        "        raise CkconvError('failed')\n"
        "except CkconvError as error:\n"
        "    print(error)\n"
    )
    result = run([sys.executable, "-c", program, os.fspath(tmp_path / "x")])
    assert result.stdout.splitlines() == ["interrupted, nothing written"], result.stderr
    assert entries(tmp_path) == []
