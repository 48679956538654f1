"""What foreign code would try, were it to run. ``python -m tests.faults.attempts SECRET SCRATCH`` tries it unboxed."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any


def _forked() -> None:
    if os.fork() == 0:
        os._exit(0)
    os.wait()


def _executed() -> None:
    if (process := os.fork()) == 0:
        with contextlib.suppress(OSError):
            os.execv("/bin/true", ["true"])
        os._exit(1)
    assert os.waitpid(process, 0)[1] == 0


def _linked(secret: Path, scratch: Path, link: Callable[[Path, Path], None]) -> bytes:
    place = scratch / "link"
    place.unlink(missing_ok=True)
    link(secret, place)
    return place.read_bytes()


def attempts(secret: Path, scratch: Path) -> dict[str, Callable[[], Any]]:
    """Return what to try with a file `secret` that is none of the box's."""
    beside = secret.with_name("beside")
    return {
        "read a file": secret.read_bytes,
        "read it through a link": lambda: _linked(secret, scratch, lambda target, place: place.symlink_to(target)),
        "read it by another name": lambda: _linked(secret, scratch, lambda target, place: place.hardlink_to(target)),
        "read who there is": Path("/etc/passwd").read_bytes,
        "list a folder": lambda: os.listdir(secret.parent),
        "write beside it": lambda: beside.write_bytes(b""),
        "append to it": lambda: open(secret, "ab").close(),
        "shorten it": lambda: os.truncate(secret, 1),
        "shorten it while reading": lambda: os.close(os.open(secret, os.O_RDONLY | os.O_TRUNC)),
        "change who may read it": lambda: os.chmod(secret, 0o644),
        "change its time": lambda: os.utime(secret, (0, 0)),
        "make a folder beside it": lambda: secret.with_name(f"folder-{os.getpid()}").mkdir(),
        "make a link beside it": lambda: secret.with_name(f"link-{os.getpid()}").symlink_to("/"),
        "open the network": lambda: socket.socket().close(),
        "open it for datagrams": lambda: socket.socket(socket.AF_INET6, socket.SOCK_DGRAM).close(),
        "open a local socket": lambda: socket.socket(socket.AF_UNIX).close(),
        "talk to whoever listens": lambda: socket.socketpair(type=socket.SOCK_DGRAM),
        "start a process": _forked,
        "run a program": _executed,
        "run a program as Python does": lambda: subprocess.run(["/bin/true"], check=True),
        "signal another process": lambda: os.kill(os.getppid(), 0),
        "look into another process": Path(f"/proc/{os.getppid()}/environ").read_bytes,
    }


def tried(*, secret: str, scratch: str) -> dict[str, str]:
    """Return what became of every attempt: "done", or the name of the error."""
    outcomes = {}
    for name, attempt in attempts(Path(secret), Path(scratch)).items():
        try:
            attempt()
            outcomes[name] = "done"
        except OSError as error:
            outcomes[name] = errno.errorcode[error.errno or 0]
    return outcomes


def ordinary(*, source: str, scratch: str) -> list[str]:
    """Do what computing needs: read, write, move, start threads, pair sockets, map memory; return what was read."""
    import threading

    found = [Path(source).read_text()]
    moved = Path(scratch, "folder", "file")
    moved.parent.mkdir(exist_ok=True)
    Path(scratch, "file").write_text("moved")
    os.replace(Path(scratch, "file"), moved)
    Path("/dev/null").write_text("nothing")
    thread = threading.Thread(target=lambda: found.append(moved.read_text()))
    thread.start()
    thread.join()
    for each in socket.socketpair():
        each.close()
    return found


def grow() -> None:
    """Take memory without end."""
    kept = []
    while True:
        kept.append(b"x" * (16 << 20))


def write(*, scratch: str) -> None:
    """Write a file without end."""
    with open(Path(scratch, "long"), "wb") as file:
        while True:
            file.write(bytes(1 << 20))


def spin() -> None:
    """Compute without end."""
    while True:
        pass


def wait() -> None:
    """Wait without end."""
    import threading

    threading.Event().wait()


def environment() -> dict[str, str]:
    """Return the environment."""
    return dict(os.environ)


def imported(*, module: str) -> list[str]:
    """Import a module of the user's own; return the folders that it says it could read."""
    found: list[str] = __import__(module).READABLE
    return found


if __name__ == "__main__":
    print(json.dumps(tried(secret=sys.argv[1], scratch=sys.argv[2])))
