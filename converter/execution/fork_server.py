"""A process that has imported what child processes need, and forks for each of them.

Run as ``python -m converter.execution.fork_server PARENT DESCRIPTOR MODULE ...``. It reads no file but those of its
modules. Requests come over the socket DESCRIPTOR: the folder of the fork, with the descriptors for stdout, for stderr,
and of a socket on which the asker is told its wait status. A fork whose asker hangs up is killed, with what it started.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import selectors
import signal
import socket
import struct
import sys
import tempfile
import traceback
import warnings
from dataclasses import dataclass
from pathlib import Path

from converter import box
from converter.box.privileges import die_with, outlive_parent
from converter.execution import inside

READY, STATUS = b"ready", struct.Struct("<i")
_REQUEST_BYTES = 1 << 16
_IDLE_SECONDS = 30.0


def kill_group(leader: int) -> None:
    """Kill a process and what it started, if anything of it is there."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, signal.SIGKILL)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Fork:
    pid: int
    ended: int
    asker: socket.socket

    def kill(self) -> None:
        """Kill what is left of it. Its number is its own until it is buried."""
        kill_group(self.pid)
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)  # before it leads a group

    def bury(self) -> None:
        """Tell how it ended."""
        self.kill()
        _, status = os.waitpid(self.pid, 0)
        os.close(self.ended)
        with self.asker, contextlib.suppress(OSError):
            self.asker.send(STATUS.pack(status))


class _Server:
    def __init__(self, requests: socket.socket, folder: str) -> None:
        self._requests, self._folder = requests, folder
        self._forks: dict[int, _Fork] = {}
        self._selector = selectors.DefaultSelector()
        self._selector.register(requests, selectors.EVENT_READ)

    def serve(self) -> None:
        """Fork for every request, until nobody can ask any more or nobody did for a while."""
        while True:
            events = self._selector.select(None if self._forks else _IDLE_SECONDS)
            if not events:
                self._requests.shutdown(socket.SHUT_RD)  # who asks from now on is told; one may have asked just now
            for key, _ in events:
                if key.fileobj is not self._requests:
                    self._attend(key.fileobj, key.data)
                elif not self._accept():
                    return

    def _accept(self) -> bool:
        data, descriptors, _, _ = socket.recv_fds(self._requests, _REQUEST_BYTES, 3)
        if not data:
            return False
        *outputs, asker = descriptors
        ended, ending = os.pipe()  # what a fork has open is closed at its end
        pid = os.fork()
        if pid == 0:
            self._forget()
            os.close(asker)
            os.close(ended)
            _run(Path(os.fsdecode(data)), self._folder, outputs)
        fork = _Fork(pid=pid, ended=ended, asker=socket.socket(fileno=asker))
        for descriptor in (*outputs, ending):
            os.close(descriptor)
        self._forks[pid] = fork
        self._selector.register(fork.ended, selectors.EVENT_READ, fork)
        self._selector.register(fork.asker, selectors.EVENT_READ, fork)
        return True

    def _attend(self, ready: object, fork: _Fork) -> None:
        if ready is fork.asker:  # nobody says anything here: it hung up
            self._selector.unregister(fork.asker)
            fork.kill()
            return
        self._selector.unregister(fork.ended)
        with contextlib.suppress(KeyError):
            self._selector.unregister(fork.asker)
        del self._forks[fork.pid]
        fork.bury()

    def _forget(self) -> None:
        """Close what a fork has of its server."""
        self._selector.close()
        self._requests.close()
        for fork in self._forks.values():
            os.close(fork.ended)
            fork.asker.close()


def _run(folder: Path, earlier: str, outputs: list[int]) -> None:
    """Be the child process of `folder`, and end without the rites of an interpreter.

    `earlier` is the server's folder, in which some modules have put their caches when they were imported.
    """
    code = 1
    try:
        server = os.getppid()
        os.setsid()
        for number, descriptor in enumerate(outputs, start=1):
            os.dup2(descriptor, number)
            os.close(descriptor)
        os.chdir(folder)
        for name, value in os.environ.items():
            os.environ[name] = value.replace(earlier, os.fspath(folder))
        tempfile.tempdir = None
        inside.main(folder, server)
        code = 0
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _main(parent: int, descriptor: int, modules: list[str]) -> None:
    die_with(parent)
    box.close_around_imports()
    die_with(parent)  # entering a namespace made the kernel forget
    requests, folder = socket.socket(fileno=descriptor), os.getcwd()
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
    inside.try_no_socket()
    for module in modules:
        with contextlib.suppress(Exception):  # who needs it is told what is wrong
            importlib.import_module(module)
    gc.freeze()  # what is there stays there, and is not copied by a fork that looks whether it is garbage
    os.chdir("/")
    outlive_parent()  # PR_SET_PDEATHSIG is for the end of a thread of it; from here on the socket tells
    with contextlib.suppress(OSError):
        requests.send(READY)
    _Server(requests, folder).serve()


if __name__ == "__main__":
    _main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
