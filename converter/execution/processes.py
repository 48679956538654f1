"""How a child process is started: as a program of its own, or as a fork of one that has imported its frameworks.

Importing PyTorch and transformers takes seconds, and a conversion calls several functions that need them. A server
imports the modules once and reads nothing else; each fork of it closes its own box before it reads anything. A server
ends with this process, and when it has not been asked for a while.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import weakref
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import wait
from pathlib import Path
from typing import Protocol

from converter.execution.fork_server import READY, STATUS, kill_group

_INSIDE, _FORK_SERVER = "converter.execution.inside", "converter.execution.fork_server"
_MOST_SERVERS = 3
_LOCK = threading.Lock()
_servers: list[_Server] = []
"""The one that was asked last is last."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What a child process finds when it starts.

    `folder`       its current folder, with its request
    `environment`  its variables, but for those of `own`, whose value is `folder`
    `imports`      modules that it needs
    """

    folder: Path
    environment: Mapping[str, str]
    own: Sequence[str]
    imports: tuple[str, ...]

    @property
    def is_for_fork(self) -> bool:
        """Whether a server spares it imports. Elsewhere than on Linux no process with threads may fork."""
        return bool(self.imports) and sys.platform == "linux"

    @property
    def variables(self) -> dict[str, str]:
        """All variables of its environment."""
        return {**self.environment, **dict.fromkeys(self.own, os.fspath(self.folder))}


class Process(Protocol):
    """A child process, in a session of its own: a terminal's signals are for the process that waits for it."""

    def poll(self) -> int | None:
        """Return the exit code, or minus the signal that killed it, or None while it runs."""

    def end(self) -> None:
        """Kill what is left of it, processes that it started too, and wait for its end."""


def start(setting: Setting, outputs: tuple[int, int]) -> Process:
    """Start `converter.execution.inside` with the descriptors `outputs` as stdout and stderr. Raises OSError.

    It is a fork of a server where that can be had; signals are held back meanwhile.
    """
    if setting.is_for_fork:
        with _LOCK, contextlib.suppress(ConnectionError):
            return _server(setting).fork(setting, outputs)
    return _Spawned(setting, outputs)


def start_ahead(setting: Setting) -> None:
    """Begin to import what `start` will be asked for. Raises OSError."""
    if setting.is_for_fork:
        with _LOCK:
            _server(setting)


def end_servers() -> None:
    """Leave no process behind."""
    with _LOCK:
        while _servers:
            _servers.pop().end()


def leave(folder: Path) -> None:
    """End the servers that are importing in `folder` or below: it is about to go. Later nothing needs it."""
    with _LOCK:
        for server in [each for each in _servers if folder in each.folder.parents and not each.is_ready]:
            _servers.remove(server)
            server.end()


def _server(setting: Setting) -> _Server:
    """Return one that suits, a new one if need be; the least asked is let go where there are too many."""
    server = next((each for each in _servers if each.suits(setting)), None) or _Server(setting)
    others = [each for each in _servers if each is not server]
    for each in others[: max(0, len(others) - _MOST_SERVERS + 1)]:
        each.end()
    _servers[:] = [*others[1 - _MOST_SERVERS :], server]
    return server


class _Spawned:
    def __init__(self, setting: Setting, outputs: tuple[int, int]) -> None:
        self._process = _python(_INSIDE, [os.fspath(setting.folder)], setting, outputs)

    def poll(self) -> int | None:
        return self._process.poll()

    def end(self) -> None:
        kill_group(self._process.pid)
        self._process.wait()


def _python(
    module: str, arguments: Iterable[str], setting: Setting, outputs: tuple[int, int], passed: Sequence[int] = ()
) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-P", "-m", module, str(os.getpid()), *arguments]
    if sys.version_info < (3, 11):
        command.remove("-P")
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=outputs[0],
        stderr=outputs[1],
        pass_fds=passed,
        env=setting.variables,
        cwd=setting.folder,
        start_new_session=True,
    )


class _Server:
    """A process that has imported modules, and forks whenever it is asked to."""

    def __init__(self, setting: Setting) -> None:
        self._imports, self._environment = setting.imports, dict(setting.environment)
        self.folder = setting.folder
        self._requests, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs, open(os.devnull, "wb") as nowhere:
            arguments, outputs = [str(theirs.fileno()), *setting.imports], (nowhere.fileno(), nowhere.fileno())
            self.process = _python(_FORK_SERVER, arguments, setting, outputs, passed=[theirs.fileno()])
        weakref.finalize(self, _end, self.process, self._requests)
        self._is_ready = False

    def suits(self, setting: Setting) -> bool:
        is_alive = self.process.poll() is None  # for a copy of the process that started it, it is not
        return is_alive and (self._imports, self._environment) == (setting.imports, setting.environment)

    @property
    def is_ready(self) -> bool:
        """Whether its modules are imported."""
        if not self._is_ready and wait([self._requests], 0):
            with contextlib.suppress(ConnectionError):
                self._is_ready = self._requests.recv(len(READY)) == READY
        return self._is_ready

    def fork(self, setting: Setting, outputs: tuple[int, int]) -> Process:
        """Have a fork of it do what is asked for in the folder of `setting`. Raises ConnectionError when it ended."""
        channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            try:
                socket.send_fds(self._requests, [os.fsencode(setting.folder)], [*outputs, theirs.fileno()])
            except BaseException:
                channel.close()
                raise
        return _Forked(self, channel)

    def end(self) -> None:
        _end(self.process, self._requests)


def _end(process: subprocess.Popen[bytes], requests: socket.socket) -> None:
    requests.close()
    process.kill()  # and the kernel its forks
    process.wait()


class _Forked:
    """A fork of a server, which tells on `channel` how it ended, and ends it when nothing can come from there."""

    def __init__(self, server: _Server, channel: socket.socket) -> None:
        self._server, self._channel = server, channel
        self._code: int | None = None

    def poll(self) -> int | None:
        if self._code is None and wait([self._channel], 0):
            self._hear()
        return self._code

    def _hear(self) -> None:
        status = b""
        with contextlib.suppress(ConnectionError):
            status = self._channel.recv(STATUS.size)
        if status:
            self._code = os.waitstatus_to_exitcode(STATUS.unpack(status)[0])
        else:
            self._code = self._server.process.wait() or -signal.SIGKILL  # it ended, and its forks with it

    def end(self) -> None:
        if self.poll() is None:
            if self._server.is_ready:
                with contextlib.suppress(OSError):
                    self._channel.shutdown(socket.SHUT_WR)
            else:
                self._server.process.kill()  # it has seconds to go before it hears of anything
            self._hear()
        self._channel.close()
