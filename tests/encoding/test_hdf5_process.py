"""libhdf5 in a process of its own: whatever becomes of it, the file is an error and the next one is read."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest

from converter.encoding import hdf5
from converter.encoding.hdf5 import process, structure
from converter.errors import ReadError
from converter.model.file import LocalFile

ANSWER = "def _answer("
FRUITLESS = """
def _answer(question, descriptor, types):
    tried = {tried}
    try:
        tried()
    except (OSError, MemoryError) as error:
        return {{"error": f"{{type(error).__name__}} {{getattr(error, 'errno', '')}}"}}
    return {{"error": "nothing stopped it"}}
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A good file."""
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["x"] = np.arange(4.0)
        file.create_dataset("y", data=np.arange(8.0), chunks=(2,))
    return tmp_path / "x.h5"


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, str], None]]:
    """Change the program that parses, as a file that takes it over would."""

    def change(before: str, after: str) -> None:
        text = Path(structure.__file__).read_text()
        assert before in text
        (tmp_path / "program.py").write_text(text.replace(before, after))
        with monkeypatch.context() as patch:
            patch.setattr(structure, "__file__", str(tmp_path / "program.py"))
            process._running[:] = [process._Parser()]

    yield change
    process._running.clear()


def read(path: Path) -> list[str]:
    return ["/".join(place) for place, _ in hdf5.read(LocalFile(path)).datasets()]


def replaced(body: str) -> str:
    return f"def _answer(question, descriptor, types):\n    {body}\n\n\ndef _unused("


ENDS = {
    "a crash": ("os.kill(os.getpid(), signal.SIGSEGV)", r"libhdf5 could not read it: Segmentation fault \(signal 11\)"),
    "an abort": ("os.abort()", r"libhdf5 could not read it: Aborted \(signal 6\)"),
    "no end": ("while True: pass", "libhdf5 was not done with its structure after 1 s"),
    "an early end": ("os._exit(0)", "libhdf5 could not read it: it ended without a message"),
    "an enormous answer": (
        "return {'objects': ['x' * (80 << 20)]}",
        "declares a structure larger than any checkpoint has",
    ),
}


@pytest.mark.parametrize("case", ENDS)
def test_the_end_of_the_fork_is_an_error(case: str, path: Path, program: Callable[[str, str], None]) -> None:
    assert read(path) == ["x", "y"]
    body, said = ENDS[case]
    program(ANSWER, replaced(body))
    for _ in range(2):  # the process that forks is as it was
        with pytest.raises(ReadError, match=said) as caught:
            read(path)
        assert caught.value.path == str(path)


def test_a_flood_is_cut_off(path: Path, program: Callable[[str, str], None]) -> None:
    program("    view = memoryview(data)\n", "    while True:\n        os.write(out, bytes(1 << 20))\n    view = b''\n")
    with pytest.raises(ReadError, match="declares a structure larger than any checkpoint has"):
        read(path)


FRUITLESS_ATTEMPTS = {
    "open a file": ("lambda: os.open('/etc/hostname', os.O_RDONLY)", "OSError 24"),
    "open the network": ("lambda: socket.socket()", "PermissionError 1"),
    "run a program": ("lambda: os.execv('/bin/true', ['true'])", "PermissionError 1"),
    "start a process": ("lambda: os.fork()", "PermissionError 1"),
    "signal its parent": ("lambda: os.kill(os.getppid(), 0)", "PermissionError 1"),
    "take a gibibyte": ("lambda: bytearray(1 << 30)", "MemoryError"),
}


@pytest.mark.parametrize("attempt", FRUITLESS_ATTEMPTS)
def test_what_the_fork_may_not(attempt: str, path: Path, program: Callable[[str, str], None]) -> None:
    tried, said = FRUITLESS_ATTEMPTS[attempt]
    program(ANSWER, FRUITLESS.format(tried=tried) + "\n\ndef _unused(")
    with pytest.raises(ReadError, match=said):
        read(path)


def test_a_mistake_of_ours_is_not_the_fault_of_the_file(path: Path, program: Callable[[str, str], None]) -> None:
    program(ANSWER, replaced("return None.attribute"))
    with pytest.raises(RuntimeError, match="AttributeError"):
        read(path)


@pytest.mark.parametrize(
    ("limit", "what"), [("_OBJECT_LIMIT = 1 << 17", "objects"), ("_CHUNK_LIMIT = 1 << 18", "chunks")]
)
def test_more_than_can_be_meant(limit: str, what: str, path: Path, program: Callable[[str, str], None]) -> None:
    name = limit.partition(" ")[0]
    program(limit, f"{name} = 4")
    assert read(path) == ["x", "y"]
    program(limit, f"{name} = 1")
    with pytest.raises(ReadError, match=f"more than 1 {what}"):
        read(path)


def test_a_process_that_is_gone_is_followed_by_another(path: Path) -> None:
    read(path)
    gone = process._running[0]._process
    gone.kill()
    gone.wait()
    assert read(path) == ["x", "y"]
    assert process._running[0]._process.pid != gone.pid


def test_a_process_that_nobody_asks_ends(path: Path, program: Callable[[str, str], None]) -> None:
    program("_IDLE_SECONDS = 10", "_IDLE_SECONDS = 0.1")
    read(path)
    assert process._running[0]._process.wait(timeout=10) == 0
    assert read(path) == ["x", "y"]


def test_a_process_that_does_not_start_is_an_error(path: Path, program: Callable[[str, str], None]) -> None:
    program("    requests.settimeout", "    raise SystemExit\n    requests.settimeout")
    assert process._running[0]._process.wait(timeout=10) == 0
    assert read(path) == ["x", "y"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "executable", "/bin/false")
        process._running.clear()
        with pytest.raises(ReadError, match="h5py did not start"):
            read(path)


def test_from_several_threads(path: Path) -> None:
    found: list[list[str]] = []
    threads = [threading.Thread(target=lambda: found.append(read(path))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [["x", "y"]] * 8


def test_it_outlives_the_thread_that_started_it(path: Path) -> None:
    process._running.clear()
    thread = threading.Thread(target=read, args=(path,))
    thread.start()
    thread.join()
    started = process._running[0]._process
    with pytest.raises(subprocess.TimeoutExpired):
        started.wait(timeout=0.5)
    assert read(path) == ["x", "y"]
    assert process._running[0]._process is started


def test_a_fork_of_this_process_has_its_own(path: Path) -> None:
    read(path)
    mine = process._running[0]._process.pid
    child = os.fork()
    if child == 0:
        code = 1
        try:
            code = 0 if read(path) == ["x", "y"] and process._running[0]._process.pid != mine else 2
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
    assert read(path) == ["x", "y"]
    assert process._running[0]._process.pid == mine


READING = """
import sys, threading, time
from converter.encoding import hdf5
from converter.encoding.hdf5 import process, structure
from converter.model.file import LocalFile
{before}
threading.Thread(target=hdf5.read, args=(LocalFile(sys.argv[1]),), daemon=True).start()
while not process._running:
    time.sleep(0.01)
print(process._running[0]._process.pid, flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("is_at_work", [False, True])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_nothing_stays_behind(number: signal.Signals, is_at_work: bool, path: Path, tmp_path: Path) -> None:
    """Nor a fork that would be busy for a while yet."""
    (tmp_path / "program.py").write_text(
        Path(structure.__file__).read_text().replace(ANSWER, replaced('__import__("time").sleep(30)'))
    )
    script = READING.format(before=f"structure.__file__ = {str(tmp_path / 'program.py')!r}" if is_at_work else "")
    with subprocess.Popen([sys.executable, "-c", script, str(path)], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        started = [int(parent.stdout.readline())]
        if is_at_work:
            while not (forks := Path(f"/proc/{started[0]}/task/{started[0]}/children").read_text().split()):
                time.sleep(0.01)
            started += map(int, forks)
        assert all(map(is_running, started))
        parent.send_signal(number)
    ends = time.monotonic() + 15  # a machine may stall; what stays behind stays for 30 s
    while any(map(is_running, started)) and time.monotonic() < ends:
        time.sleep(0.01)
    assert not any(map(is_running, started))


def is_running(process_id: int) -> bool:
    try:
        return Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
