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
_CALLS = f"{_CHANGES},socket,connect,bind,execve,execveat,landlock_restrict_self,seccomp"
_LINE = re.compile(r"(?P<call>\w+)\((?P<arguments>.*)\) += (?P<result>-?\d+|\?)(?P<rest>.*)")
_PATH = re.compile(r'(?:(?:AT_FDCWD|\d+)<(?P<folder>(?:[^<>\\]|\\.)*)>, )?"(?P<path>(?:[^"\\]|\\.)*)"')
_WRITE_FLAGS = ("O_WRONLY", "O_RDWR", "O_CREAT", "O_TRUNC")


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """Of a whole run; what was refused is not in it, but for its number, nor what `closed` filters are for."""

    written: frozenset[Path]
    sockets: tuple[str, ...]
    programs_after_closing: tuple[str, ...]
    closed: int
    refused: int
    code: int
    errors: str


def trace(command: list[str], folder: Path, *, limit_seconds: float = 240) -> Account:
    """Run `command` to its end, its logs in `folder`."""
    folder.mkdir()
    options = ["-ff", "-y", "-qq", "-s", "4096", "-e", f"trace={_CALLS}", "-e", "signal=none"]
    traced = [tool("strace"), *options, "-o", os.fspath(folder / "log"), *command]
    result = run(traced, limit_seconds)
    written: set[Path] = set()
    sockets: list[str] = []
    programs: list[str] = []
    closed = refused = 0
    logs = sorted(folder.glob("log.*"))
    assert logs, result.stderr
    for log in logs:
        is_closed = False
        for line in log.read_text(errors="backslashreplace").splitlines():
            match = _LINE.match(line)
            if match is None:
                continue
            if match["result"].startswith("-"):
                refused += is_closed and match["rest"].startswith((" EPERM", " EACCES"))
            elif match["call"] == "seccomp" and "SET_MODE_FILTER" in match["arguments"]:
                closed, is_closed = closed + 1, True
            elif match["call"] in ("socket", "connect", "bind"):
                sockets.append(line)
            elif match["call"] in ("execve", "execveat"):
                programs += [line] if is_closed else []
            elif not match["call"].startswith("open") or any(flag in match["arguments"] for flag in _WRITE_FLAGS):
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
        refused=refused,
        code=result.returncode,
        errors=result.stderr,
    )
