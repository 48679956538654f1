"""What a command and its children did, from strace's account: files opened for writing, sockets, programs run."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from tests.faults.conversions import run
from tests.faults.injection import tool

_CHANGES = (
    "open,openat,openat2,creat,truncate,rename,renameat,renameat2,link,linkat,symlink,symlinkat,unlink,unlinkat,"
    "mkdir,mkdirat,rmdir,mknod,mknodat,chmod,fchmodat,chown,lchown,fchownat,utime,utimes,utimensat,setxattr"
)
_STARTS = ("clone", "clone3", "fork", "vfork")
_CALLS = f"{_CHANGES},{','.join(_STARTS)},socket,connect,bind,execve,execveat,landlock_restrict_self,seccomp"
_LINE = re.compile(r"(?P<call>\w+)\((?P<arguments>.*)\) += (?P<result>-?\d+|\?)(?P<rest>.*)")
_PATH = re.compile(r'(?:(?:AT_FDCWD|\d+)<(?P<folder>(?:[^<>\\]|\\.)*)>, )?"(?P<path>(?:[^"\\]|\\.)*)"')
_DEVICES = {Path("/dev/null")}
_CHANCE = re.compile(r"(?<=/call-)\w+|(?<=/\.ckconv-)[\w-]+|0x[0-9a-f]+|\d+")
_WRITE_FLAGS = ("O_WRONLY", "O_RDWR", "O_CREAT", "O_TRUNC")


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """Of a whole run: what was done; and apart what a `closed` box refused (EPERM, EACCES) of calls that change things.

    `refused` has calls with their paths, numbers and names of scratch folders left out: frameworks try some of them
    whatever the file, as TensorFlow does to name its threads (/proc/self/task/N/comm). Who asks what a file did takes
    those off that a harmless one brings about. Refused reading is not in it: frameworks look for much.
    """

    written: frozenset[Path]
    sockets: tuple[str, ...]
    programs_after_closing: tuple[str, ...]
    closed: int
    refused: frozenset[str]
    code: int
    output: str
    errors: str

    def assert_nothing_outside(self, folder: Path) -> None:
        """Hold it to the box's promise: no file is written but in `folder`, nobody is talked to, nothing is run."""
        assert self.closed >= 1, self.errors
        assert [path for path in sorted(self.written - _DEVICES) if not path.is_relative_to(folder)] == []
        assert [line for line in self.sockets if "AF_UNIX" not in line] == []
        assert self.programs_after_closing == ()


def trace(command: list[str], folder: Path, *, is_refused_asked: bool = True, limit_seconds: float = 240) -> Account:
    """Run `command` to its end, its logs in `folder`.

    Without `is_refused_asked` strace lets the kernel choose what it sees, which is twice as fast, and does not hear of
    calls that a box's own filter refuses.
    """
    folder.mkdir()
    options = ["-ff", "-y", "-qq", "-s", "4096", "-e", f"trace={_CALLS}", "-e", "signal=none"]
    faster = [] if is_refused_asked else ["--seccomp-bpf"]
    traced = [tool("strace"), *options, *faster, "-o", os.fspath(folder / "log"), *command]
    result = run(traced, limit_seconds)
    written: set[Path] = set()
    sockets: list[str] = []
    programs: list[str] = []
    refused: set[str] = set()
    closed = 0
    logs = {log.suffix[1:]: log for log in folder.glob("log.*")}  # one for each thread
    assert logs, result.stderr
    texts = {thread: log.read_text(errors="backslashreplace") for thread, log in logs.items()}
    inside = _started_inside(texts)
    for thread, text in texts.items():
        is_closed = thread in inside
        for line in text.splitlines():
            match = _LINE.match(line)
            if match is None:
                continue
            is_reading = match["call"].startswith("open") and not any(f in match["arguments"] for f in _WRITE_FLAGS)
            if match["result"].startswith("-"):
                if is_closed and not is_reading and match["rest"].startswith((" EPERM", " EACCES")):
                    refused.add(_attempt(match, folder))
            elif match["call"] in _STARTS:
                continue
            elif match["call"] == "seccomp" and "SET_MODE_FILTER" in match["arguments"]:
                closed, is_closed = closed + 1, True
            elif match["call"] in ("socket", "connect", "bind"):
                sockets.append(line)
            elif match["call"] in ("execve", "execveat"):
                programs += [line] if is_closed else []
            elif not is_reading:
                paths = list(_PATH.finditer(match["arguments"]))
                written |= {
                    Path(os.path.normpath(Path(path["folder"] or os.getcwd(), path["path"])))
                    for path in (paths[-1:] if match["call"].startswith("symlink") else paths)  # what it says, first
                }
    return Account(
        written=frozenset(written),
        sockets=tuple(sockets),
        programs_after_closing=tuple(programs),
        closed=closed,
        refused=frozenset(refused),
        code=result.returncode,
        output=result.stdout,
        errors=result.stderr,
    )


def _started_inside(texts: dict[str, str]) -> set[str]:
    """Return the threads and processes that were started from within a box."""
    starters: dict[str, tuple[str, bool]] = {}
    for thread, text in texts.items():
        is_closed = False
        for match in filter(None, map(_LINE.match, text.splitlines())):
            is_closed |= match["call"] == "seccomp" and "SET_MODE_FILTER" in match["arguments"]
            if match["call"] in _STARTS:
                starters[match["result"]] = thread, is_closed
    inside = {started for started, (_, is_closed) in starters.items() if is_closed}
    while more := {started for started, (starter, _) in starters.items() if starter in inside} - inside:
        inside |= more
    return inside


def _attempt(match: re.Match[str], folder: Path) -> str:
    path = _PATH.search(match["arguments"])
    said = match["arguments"] if path is None else path["path"].replace(os.fspath(folder.parent), "")
    return f"{match['call']} {_CHANCE.sub('N', said)}"
