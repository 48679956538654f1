"""Which files a process touches, from strace's own account of it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.faults.conversions import run
from tests.faults.injection import tool

_CALLS = (
    "open,openat,openat2,creat,truncate,rename,renameat,renameat2,link,linkat,symlink,symlinkat,unlink,unlinkat,"
    "mkdir,mkdirat,rmdir,mknod,mknodat,chmod,fchmodat,chown,lchown,fchownat,utime,utimes,utimensat,setxattr,execve"
)
_LINE = re.compile(r"(?P<call>\w+)\((?P<arguments>.*)\) += (?P<result>-?\d+|\?)(?P<rest>.*)")
_PATH = re.compile(r'(?:(?:AT_FDCWD|\d+)<(?P<folder>(?:[^<>\\]|\\.)*)>, )?"(?P<path>(?:[^"\\]|\\.)*)"')
_KILLED = "???( <detached ...>"
"""Of a process that was killed as it was about to begin a call, before strace could read which."""
_READS = {"execve"}
_OPENS = {"open", "openat", "openat2"}
_WRITE_FLAGS = ("O_WRONLY", "O_RDWR", "O_CREAT", "O_TRUNC")


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """A file that was opened, or changed in its folder."""

    path: Path
    call: str
    is_write: bool


def accesses(command: list[str], folder: Path) -> Iterator[Access]:
    """Run `command` from beginning to end; yield what it and its children reached, in `folder` being their logs."""
    log = folder / "log"
    options = ["-ff", "-y", "-qq", "-s", "4096", "-e", f"trace={_CALLS}", "-e", "signal=none", "-o", os.fspath(log)]
    result = run([tool("strace"), *options, *command])
    assert result.returncode == 0, result.stderr
    logs = sorted(folder.glob("log.*"))
    assert logs, "strace wrote no account"
    for part in logs:
        for line in part.read_text(errors="backslashreplace").splitlines():
            yield from _parsed(line)


def _parsed(line: str) -> Iterator[Access]:
    match = _LINE.match(line)
    if match is None:
        is_of_an_end = line.startswith(("+++", "---")) or line == _KILLED
        assert not line or is_of_an_end, f"a line of another form: {line}"
        return
    if match["result"].startswith("-"):
        return
    call, arguments = match["call"], match["arguments"]
    is_write = call not in _READS and (call not in _OPENS or any(flag in arguments for flag in _WRITE_FLAGS))
    found = [_PATH.search(arguments)] if call in _READS else list(_PATH.finditer(arguments))
    assert found, line
    for path in found:
        assert path is not None, line
        at = Path(path["folder"] or os.getcwd(), path["path"])
        yield Access(path=Path(os.path.normpath(at)), call=call, is_write=is_write)
