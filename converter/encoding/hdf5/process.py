"""Asking libhdf5 about a file in a process of its own: whatever the file does to libhdf5, this one goes on.

The process is started once, forks for every file (`structure`), and ends when it has not been asked for a while.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import weakref
from pathlib import Path
from typing import Any

from converter import box
from converter.box.environment import kept
from converter.encoding.hdf5 import structure
from converter.errors import ReadError
from converter.model.file import CHUNK_BYTES, SourceFile

_SECONDS, _MOST_SECONDS = 1, 30
_BYTES_PER_SECOND = 1 << 20
_SNIFFING_SECONDS = 1
_OUT_OF_TIME = (signal.SIGXCPU, signal.SIGALRM)
_LOCK = threading.Lock()
_running: list[_Parser] = []


def is_numbered(file: SourceFile, *, offset: int, length: int) -> bool:
    """Whether a group is called `vars` and the root lists no layers, as far as a bounded search sees.

    Raises ReadError as `objects` does.
    """
    question = {"what": "is_numbered", "offset": offset, "length": length, "seconds": _SNIFFING_SECONDS}
    return bool(_answer(file, question)["is_numbered"])


def objects(file: SourceFile, *, offset: int, length: int) -> list[dict[str, Any]]:
    """Return what `structure` says of every object of the HDF5 file in a range of `file`; the first is the root group.

    Raises ReadError when libhdf5 finds damage, crashes, or takes more time or memory than such a structure is worth.
    """
    stored_bytes = os.fstat(file.fileno()).st_blocks * 512  # what is sparse is soon made
    seconds = min(_MOST_SECONDS, _SECONDS + stored_bytes // _BYTES_PER_SECOND)
    question = {"what": "objects", "offset": offset, "length": length, "seconds": seconds}
    found: list[dict[str, Any]] = _answer(file, question)["objects"]
    return found


def _answer(file: SourceFile, question: dict[str, Any]) -> dict[str, Any]:
    status, data = _asked(file, json.dumps(question).encode("ascii"))
    code = os.waitstatus_to_exitcode(status)
    if -code in _OUT_OF_TIME:
        raise ReadError(f"libhdf5 was not done with its structure after {question['seconds']} s", path=file.path)
    if code < 0:
        raise ReadError(f"libhdf5 could not read it: {signal.strsignal(-code)} (signal {-code})", path=file.path)
    if code > 0 and len(data) <= structure.ANSWER_LIMIT_BYTES:
        raise RuntimeError(data.decode("ascii", "backslashreplace"))
    if len(data) > structure.ANSWER_LIMIT_BYTES:
        raise ReadError("declares a structure larger than any checkpoint has", path=file.path)
    if not data:
        raise ReadError("libhdf5 could not read it: it ended without a message", path=file.path)
    answer: dict[str, Any] = json.loads(data)
    if "error" in answer:
        raise ReadError(answer["error"], path=file.path)
    return answer


def _asked(file: SourceFile, question: bytes) -> tuple[int, bytes]:
    """Return how the fork ended and its message. One that has grown tired of waiting is followed by another."""
    with _LOCK:
        for _ in range(2):
            try:
                if not _running or not _running[0].is_ours:
                    _running[:] = [_Parser()]
                return _running[0].ask(file, question)
            except ConnectionError:
                _running.clear()
            except OSError as error:
                _running.clear()
                raise ReadError(f"cannot be parsed: {os.strerror(error.errno or 0)}", path=file.path) from error
            except BaseException:
                _running.clear()  # its next answer would be to this question
                raise
    raise ReadError(
        "cannot be parsed: the process that reads it with h5py did not start, or ended early", path=file.path
    )


class _Parser:
    """The process, and the socket that it is asked through."""

    def __init__(self) -> None:
        self._owner = os.getpid()
        self._socket, theirs = socket.socketpair()
        with theirs:
            paths = [*filter(None, sys.path), os.fspath(Path(box.__file__).parents[2])]
            arguments = [str(theirs.fileno()), json.dumps(paths)]
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-B", structure.__file__, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                start_new_session=True,  # a terminal's signals are for the process that asks
                cwd="/",
                env={**kept(os.environ), "HDF5_PLUGIN_PRELOAD": "::", "OPENBLAS_NUM_THREADS": "1"},
            )
        weakref.finalize(self, _end, self._owner, self._process, self._socket)

    @property
    def is_ours(self) -> bool:
        """Whether this process started it, and not one that this is a fork of."""
        return self._owner == os.getpid()

    def ask(self, file: SourceFile, question: bytes) -> tuple[int, bytes]:
        """Return wait status and answer; the answer may be cut short after its limit. Raises ConnectionError."""
        reading, writing = os.pipe()
        try:
            try:
                socket.send_fds(self._socket, [question], [file.fileno(), writing])
            finally:
                os.close(writing)
            data = bytearray()
            while len(data) <= structure.ANSWER_LIMIT_BYTES and (piece := os.read(reading, CHUNK_BYTES)):
                data += piece
        finally:
            os.close(reading)
        status = self._socket.recv(4)
        if len(status) != 4:
            raise ConnectionResetError
        return int(struct.unpack("<i", status)[0]), bytes(data)


def _end(owner: int, process: subprocess.Popen[bytes], requests: socket.socket) -> None:
    requests.close()
    if os.getpid() == owner:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)  # its fork too, if one is at work
        process.wait()
