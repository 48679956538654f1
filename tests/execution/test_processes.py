"""Servers that have imported what child processes need: which one is asked, how long it stays, what it leaves."""

from __future__ import annotations

import errno
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from converter.errors import GraphError, LimitError
from converter.execution import child, fork_server, processes
from converter.execution.child import Terms
from converter.model.child_function import ChildFunction, child_function
from tests.conftest import ROOT
from tests.execution import asked

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="elsewhere a fork of a process with threads is not safe"
)


@pytest.fixture(autouse=True)
def none_left() -> Iterator[None]:
    processes.end_servers()
    yield
    processes.end_servers()


def task(name: str, *imports: str) -> ChildFunction[..., Any]:
    return child_function("a task", imports=imports)(getattr(asked, name))


def server_of(folder: Path, *imports: str, terms: Terms = child.NO_TERMS) -> int:
    found = child.call_all([task("about", *imports).call()], folder, terms=terms)[0]["parent"]
    assert isinstance(found, int)
    return found


def test_a_fork_has_what_it_imports_already_and_all_else_for_itself(tmp_path: Path) -> None:
    about = child.call(task("about", "csv", "of_no_package"), tmp_path)
    assert "csv" in about["modules"]
    assert about["parent"] != os.getpid()
    assert about["session"] == about["process"]
    assert about["folder"] == about["home"] == about["temporary"]
    assert Path(about["folder"]).is_relative_to(tmp_path)
    plain = child.call(task("about"), tmp_path)
    assert plain["parent"] == os.getpid()
    assert plain["folder"] != about["folder"]
    for name in ("umask", "signals"):
        assert plain[name] == about[name], name
    assert about["descriptors"] == plain["descriptors"] + 1  # its end of a pipe, by which its server knows its end


def test_what_a_module_put_into_the_servers_folder_is_in_the_forks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = "import os, tempfile\nos.environ['ITS_CACHE'] = tempfile.gettempdir() + '/cache'\n"
    (tmp_path / "with_cache.py").write_text(program)
    monkeypatch.syspath_prepend(tmp_path)
    for _ in range(2):
        about = child.call(task("about", "with_cache"), tmp_path)
        assert about["cache"] == f"{about['temporary']}/cache" == f"{about['folder']}/cache"


def test_one_server_is_asked_for_what_it_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = server_of(tmp_path, "csv", "colorsys")
    assert server_of(tmp_path, "colorsys") != first
    assert server_of(tmp_path, "csv", "colorsys") == first
    assert server_of(tmp_path, "csv", "wave") != first
    assert server_of(tmp_path, "csv", "colorsys") == first
    monkeypatch.setenv("TF_SOMETHING", "1")
    assert server_of(tmp_path, "csv", "colorsys") != first


def test_the_users_own_code_gets_a_process_of_its_own(tmp_path: Path) -> None:
    assert server_of(tmp_path, "csv", terms=Terms(own_code=(tmp_path,))) == os.getpid()


def test_at_most_three_stay_those_asked_last(tmp_path: Path) -> None:
    servers = {name: server_of(tmp_path, name) for name in ("csv", "colorsys", "wave")}
    assert server_of(tmp_path, "csv") == servers["csv"]
    assert server_of(tmp_path, "chunk_of_nothing") not in servers.values()
    assert not is_there(servers["colorsys"])
    assert is_there(servers["csv"])
    assert is_there(servers["wave"])
    assert len(processes._servers) == 3


def is_there(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def test_one_that_was_killed_is_followed_by_another(tmp_path: Path) -> None:
    first = server_of(tmp_path, "csv")
    os.kill(first, signal.SIGKILL)
    processes._servers[0].process.wait()
    assert server_of(tmp_path, "csv") not in (first, os.getpid())


def test_one_that_dies_while_it_imports_is_said_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "that_crashes.py").write_text("import os\nos.abort()\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(GraphError, match=r"a task failed: killed by signal 6$"):
        child.call(task("about", "that_crashes"), tmp_path)


def test_what_is_imported_talks_to_nobody_and_starts_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = (
        "import os, socket, subprocess\n"
        "tried = []\n"
        "for attempt in (socket.socket, lambda: subprocess.run(['true'])):\n"
        "    try:\n        attempt()\n    except OSError as error:\n        tried.append(error.strerror)\n"
        "os.environ['ITS_CACHE'] = ', '.join(tried)\n"
    )
    (tmp_path / "that_asks.py").write_text(program)
    monkeypatch.syspath_prepend(tmp_path)
    refused = os.strerror(errno.EPERM)
    assert child.call(task("about", "that_asks"), tmp_path)["cache"] == f"{refused}, {refused}"


def test_what_is_begun_ahead_is_what_is_asked(tmp_path: Path) -> None:
    function = task("about", "csv")
    child.start_ahead(function, tmp_path)
    (server,) = processes._servers
    assert child.call(function, tmp_path)["parent"] == server.process.pid
    child.start_ahead(task("about"), tmp_path)
    assert processes._servers == [server]


def test_a_folder_that_goes_takes_those_along_that_import_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "that_takes_long.py").write_text("import time\ntime.sleep(60)\n")
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
    ready = server_of(tmp_path / "here", "csv")
    child.start_ahead(task("about", "that_takes_long"), tmp_path / "here")
    child.start_ahead(task("about", "that_takes_long", "csv"), tmp_path / "there")
    busy, elsewhere = (server.process.pid for server in processes._servers if server.process.pid != ready)
    processes.leave(tmp_path / "here")
    assert [is_there(process) for process in (ready, busy, elsewhere)] == [True, False, True]


def test_children_end_with_a_call_while_their_server_imports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "that_takes_long.py").write_text("import time\ntime.sleep(60)\n")
    monkeypatch.syspath_prepend(tmp_path)
    began = time.monotonic()
    call = task("about", "that_takes_long").call()
    with pytest.raises(LimitError, match="time, 1 s"):
        child.call_all([call], tmp_path, terms=Terms(timeout_seconds=1))
    assert time.monotonic() - began < 10
    assert not any(each.process.poll() is None for each in processes._servers)


def test_a_fork_that_is_ended_leaves_its_server(tmp_path: Path) -> None:
    server = server_of(tmp_path, "csv")
    with pytest.raises(LimitError, match="time, 1 s"):
        child.call_all([task("wait", "csv").call()], tmp_path, terms=Terms(timeout_seconds=1))
    assert server_of(tmp_path, "csv") == server
    assert Path(f"/proc/{server}/task/{server}/children").read_text().split() == []


def test_several_at_once_are_forks_of_one(tmp_path: Path) -> None:
    server = server_of(tmp_path, "csv")
    answers = child.call_all([task("about", "csv").call()] * 3, tmp_path, at_once=3)
    assert {answer["parent"] for answer in answers} == {server}
    assert len({answer["process"] for answer in answers}) == 3


def test_where_forks_are_not_safe_each_is_started_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    child.start_ahead(task("about", "csv"), tmp_path)
    assert server_of(tmp_path, "csv") == os.getpid()
    assert processes._servers == []


def test_a_server_that_nobody_asks_ends_and_says_so_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fork_server, "_IDLE_SECONDS", 0.01)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        fork_server._Server(theirs, os.fspath(tmp_path)).serve()
        with pytest.raises(BrokenPipeError):
            ours.send(b"/")


def test_one_that_ended_just_now_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server_of(tmp_path, "csv")
    (server,) = processes._servers
    kept = server._requests  # its own end says nothing yet: the process is there
    server._requests, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    theirs.close()
    with kept:
        assert server_of(tmp_path, "csv") == os.getpid()


def test_a_copy_of_this_process_asks_a_server_of_its_own(tmp_path: Path) -> None:
    server = server_of(tmp_path, "csv")
    copy = os.fork()
    if copy == 0:
        try:
            os._exit(0 if server_of(tmp_path, "csv") != server else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(copy, 0)[1]) == 0
    assert server_of(tmp_path, "csv") == server


PROGRAM = """
import os, sys
from pathlib import Path
from converter.execution import child
from tests.execution import asked
from converter.model.child_function import child_function
about = child_function("a task", imports=("csv",))(asked.about)
print(child.call(about, Path(sys.argv[1]))["parent"], flush=True)
if sys.argv[2] == "kill":
    os.kill(os.getpid(), 9)
"""


@pytest.mark.parametrize("how", ["kill", "exit"])
def test_a_server_ends_with_who_started_it(how: str, tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": os.fspath(ROOT)}
    command = [sys.executable, "-c", PROGRAM, os.fspath(tmp_path), how]
    result = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=environment)
    assert result.returncode == {"kill": -9, "exit": 0}[how]
    server = int(result.stdout)
    deadline = time.monotonic() + 5
    while is_there(server) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not is_there(server)
