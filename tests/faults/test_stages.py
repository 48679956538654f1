"""A signal to the process alone, as `docker stop` sends it, at every stage; and what takes too long ends at its limit.

Each stage is interrupted by one signal, another with every seed; CKCONV_ORACLE_FULL=1 sends all of them.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import converter
from tests.conftest import ROOT
from tests.faults.conversions import assert_one_line, entries, run, start
from tests.faults.test_child_processes import children, is_running
from tests.slices import IS_FULL, SEED

LIMIT_SECONDS = 2
TRIES = 3  # the rest of the suite may keep the machine busy for a moment; what waits, waits every time
SIGNALS = [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129)]
STAGES = [
    ("graph.onnx", "savedmodel", "reading the graph", 0.0),
    ("graph.onnx", "savedmodel", "reading the graph", 0.2),
    ("graph.onnx", "savedmodel", "writing", 0.0),
    ("graph.onnx", "savedmodel", "building", 0.1),
    ("endless.onnx", "savedmodel", "verifying", 0.0),
    ("endless.onnx", "savedmodel", "comparing outputs", 1.0),
    ("endless.onnx", "onnx", "comparing outputs", 2.5),
    ("pretrained", "onnx", "tracing BertForQuestionAnswering", 0.0),
    ("pretrained", "onnx", "tracing BertForQuestionAnswering", 1.0),
]
CASES = [
    (*stage, *SIGNALS[(number + turn) % len(SIGNALS)])
    for turn in range(len(SIGNALS) if IS_FULL else 1)
    for number, stage in enumerate(STAGES, SEED)
]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that is computed at once, one whose Loop of 1 kB never ends, and a folder of a transformers class."""
    pytest.importorskip("onnxruntime")
    from tests.graphs import onnx_models

    folder = tmp_path_factory.mktemp("models")
    onnx_models.save(onnx_models.dense(), folder / "graph.onnx")
    onnx_models.save(onnx_models.endless(), folder / "endless.onnx")
    converter.convert(ROOT / "fixtures/squad-bert/checkpoint.pth", folder / "pretrained", to="pretrained")
    return folder


def until(stage: str, read: Callable[[], str]) -> None:
    while line := read():
        if line.strip() == stage:
            return
    raise AssertionError(f"ended before {stage}")


@pytest.mark.parametrize(("model", "to", "stage", "after_seconds", "number", "code"), CASES)
def test_interrupted(
    model: str,
    to: str,
    stage: str,
    after_seconds: float,
    number: signal.Signals,
    code: int,
    models: Path,
    tmp_path: Path,
) -> None:
    if model == "pretrained":
        pytest.importorskip("transformers")
    command = [sys.executable, "-m", "tests.faults.staged", f"{models / model}", f"{tmp_path / 'out'}", "--to", to]
    times = []
    while not times or (times[-1] >= LIMIT_SECONDS and len(times) < TRIES):
        process = start(command)
        assert process.stdout is not None
        until(stage, process.stdout.readline)
        time.sleep(after_seconds)
        started = children(process.pid)
        process.send_signal(number)
        sent = time.monotonic()
        _, errors = process.communicate(timeout=LIMIT_SECONDS + 20)
        times.append(time.monotonic() - sent)
        assert process.returncode == code, errors
        assert len(errors.splitlines()) == 1
        assert errors.rstrip().endswith("interrupted, nothing written")
        assert entries(tmp_path) == []
        while any(map(is_running, started)) and time.monotonic() < sent + LIMIT_SECONDS:  # the kernel takes a moment
            time.sleep(0.01)
        assert not any(map(is_running, started))
        if after_seconds:
            assert started, "nothing was at work"
    assert min(times) < LIMIT_SECONDS, times


@pytest.mark.parametrize("number", [each for each, _ in SIGNALS] if IS_FULL else [SIGNALS[SEED % len(SIGNALS)][0]])
def test_interrupted_while_it_publishes(number: signal.Signals, models: Path, tmp_path: Path) -> None:
    """All was proven by then: the output appears, and nothing beside it."""
    model = os.fspath(models / "graph.onnx")
    times = []
    while not times or (times[-1] >= LIMIT_SECONDS and len(times) < TRIES):
        folder = tmp_path / str(len(times))
        folder.mkdir()
        process = start([sys.executable, "-m", "tests.faults.staged", model, os.fspath(folder / "out.safetensors")])
        assert process.stdout is not None
        until("publishing", process.stdout.readline)
        process.send_signal(number)
        sent = time.monotonic()
        _, errors = process.communicate(timeout=LIMIT_SECONDS + 20)
        times.append(time.monotonic() - sent)
        assert (process.returncode, errors) == (0, "")
        assert entries(folder) == ["out.safetensors"]
    assert min(times) < LIMIT_SECONDS, times


def test_an_endless_loop_ends_at_its_limit_with_one_line(models: Path, tmp_path: Path) -> None:
    for model, code in (("graph.onnx", 0), ("endless.onnx", 7)):
        command = [sys.executable, "-m", "converter", f"{models / model}", f"{tmp_path / model}", "--timeout", "15"]
        result = run([*command, "--quiet"])
        assert result.returncode == code, result.stderr
    assert_one_line(
        result, "comparing outputs: onnxruntime reached its limit of time, 15 s; --timeout SECONDS sets another"
    )
    assert entries(tmp_path) == ["graph.onnx"]


def test_a_caller_of_the_library_is_left_no_child_either(models: Path, tmp_path: Path) -> None:
    """Who has handlers of their own gets the exception, and its children are gone by then."""
    program = (
        "import os, signal, sys, threading, time\n"
        "import converter\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs start with it ignored\n"
        "class Observer(converter.Observer):\n"
        "    def stage(self, name, total_bytes=None):\n"
        "        if name == 'comparing outputs':\n"
        "            threading.Timer(2, os.kill, (os.getpid(), signal.SIGINT)).start()\n"
        "try:\n"
        "    converter.convert(sys.argv[1], sys.argv[2], observer=Observer())\n"
        "except KeyboardInterrupt:\n"
        "    tasks = os.listdir('/proc/self/task')\n"
        "    print([open(f'/proc/self/task/{task}/children').read() for task in tasks])\n"
    )
    result = run([sys.executable, "-c", program, os.fspath(models / "endless.onnx"), os.fspath(tmp_path / "out.onnx")])
    assert result.stdout.replace("''", "").replace(", ", "").strip() == "[]", result.stderr
    assert entries(tmp_path) == []
