"""Frameworks run in a child process: offline, with their caches in a scratch folder, their chatter in the log.

The parent never imports them, their memory goes when the child does, and two frameworks never share a process.
"""

from __future__ import annotations

import errno
import importlib.util
import json
import logging
import math
import os
import re
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from io import FileIO
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from converter import errors
from converter.box import Box
from converter.box.environment import kept
from converter.box.limits import Limits, is_out_of_memory
from converter.errors import CkconvError, GraphError, LimitError, MissingExtraError, WriteError
from converter.execution import processes
from converter.execution.hashing import signals_held_back
from converter.execution.inside import ARGUMENTS, RESULT
from converter.execution.processes import Setting
from converter.model.child_function import Call, ChildFunction, P, R

_LOG = logging.getLogger(__name__)
_MODULES = {
    "torch": ("torch", "transformers", "onnx", "onnx_ir", "onnxscript"),
    "tensorflow": ("tensorflow", "onnx", "onnx_ir", "onnxscript"),
    "onnx": ("onnx", "onnx_ir", "onnxscript", "onnxruntime"),
}
_INSIDE = "converter.execution.inside"
_SCRATCH = ("HOME", "HF_HOME", "KERAS_HOME", "TMPDIR", "XDG_CACHE_HOME", "TORCH_HOME", "MPLCONFIGDIR")
_LOGGED = re.compile(r"\s*([IW]\d{4} [\d:.]+ |\d{4}-\d\d-\d\d [\d:.,]+: [IW] |(INFO|WARNING):)")
"""What frameworks log on their way, in the styles of glog, of TensorFlow and of absl: no cause of an end."""
_told: set[str] = set()
_KEPT_BYTES = 1 << 16
_LOOKING_SECONDS, _ENDING_SECONDS = 0.05, 0.002


def require(extra: str, need: str) -> None:
    """Raise MissingExtraError when a module of `extra` is not installed. Imports none."""
    if not all(map(_is_installed, _MODULES[extra])):
        raise MissingExtraError(extra, need)


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ImportError:
        return False


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What a child process is given; the box of `converter.box` is closed before it does anything.

    `timeout_seconds`   how long it may take by the clock
    `limits`            what else it may use
    `reads`, `writes`   files and folders besides its scratch folder
    `own_code`          folders of the user's own code, which the child is to import
    `is_box_required`   whether it is to raise SafetyError where a layer of the box is missing
    """

    timeout_seconds: float = math.inf
    limits: Limits = field(default_factory=Limits)
    reads: tuple[Path, ...] = ()
    writes: tuple[Path, ...] = ()
    own_code: tuple[Path, ...] = ()
    is_box_required: bool = False


NO_TERMS = Terms()


def call(function: ChildFunction[P, R], scratch: Path, *args: P.args, **arguments: P.kwargs) -> R:
    """Call one function as `call_all` does several."""
    return call_all([function.call(*args, **arguments)], scratch)[0]


def call_all(calls: Sequence[Call[R]], scratch: Path, *, terms: Terms = NO_TERMS, at_once: int = 1) -> list[R]:
    """Run every call in a child process of its own, `at_once` of them at a time, and return what they return.

    Results are JSON values. `scratch` is an existing folder that the children may fill.

    No child outlives this function, however it ends, nor this process. A server that children were forked from waits a
    while for the next call (`converter.execution.processes`), unless this one is interrupted.

    Raises the CkconvError that a child raised, LimitError when one reached a limit of its `terms`, WriteError when the
    disk would not take what it wrote, GraphError when it failed in any other way.
    """
    results: list[R] = []
    for first in range(0, len(calls), at_once):
        results += _together(calls[first : first + at_once], scratch, terms)
    return results


def start_ahead(function: ChildFunction[..., Any], scratch: Path, *, terms: Terms = NO_TERMS) -> None:
    """Begin to import what `function` needs, for a call with these `terms` that is to come.

    Raises WriteError where its scratch folder cannot be made.
    """
    try:
        folder = Path(tempfile.mkdtemp(prefix="ahead-", dir=scratch))
        with signals_held_back():
            processes.start_ahead(_setting(folder, function.imports, terms))
    except OSError as error:
        raise WriteError(os.strerror(error.errno or 0), path=scratch) from error


def _together(calls: Sequence[Call[R]], scratch: Path, terms: Terms) -> list[R]:
    children: list[_Child] = []
    try:
        for each in calls:
            with signals_held_back():
                children.append(_Child(each, scratch, terms))
        answers: dict[_Child, Any] = {}
        while len(answers) < len(children):
            for child in _over([child for child in children if child not in answers]):
                answers[child] = child.answer()
        return [answers[child] for child in children]
    except Exception:
        raise
    except BaseException:
        processes.end_servers()  # who was interrupted asks for nothing more
        raise
    finally:
        for child in children:
            child.end()


def _over(children: Sequence[_Child]) -> list[_Child]:
    """Hear what the children say until some of them end, or are to."""
    while True:
        over = [child for child in children if child.is_over()]
        if over:
            return over
        pipes: dict[Any, tuple[FileIO, _Child]] = {
            pipe.fileno(): (pipe, child) for child in children for pipe in child.pipes if not pipe.closed
        }
        seconds = min(_LOOKING_SECONDS, *(child.seconds_left() for child in children))
        for ready in wait(list(pipes), max(0.0, seconds if pipes else _ENDING_SECONDS)):
            pipe, child = pipes[ready]
            child.hear(pipe)


class _Child:
    """A process in a session of its own: a terminal's signals are for the process that waits, which ends this one."""

    def __init__(self, call: Call[Any], scratch: Path, terms: Terms) -> None:
        self._call, self._scratch, self._terms = call, scratch, terms
        try:
            self._folder = Path(tempfile.mkdtemp(prefix="call-", dir=scratch))
            request = {
                "function": call.address,
                "arguments": call.arguments,
                "box": _box(scratch, terms).to_json(),
                "is_box_required": terms.is_box_required,
            }
            (self._folder / ARGUMENTS).write_text(json.dumps(request))
        except OSError as error:
            raise WriteError(os.strerror(error.errno or 0), path=scratch) from error
        reading, writing = zip(os.pipe(), os.pipe(), strict=True)
        self.pipes = tuple(FileIO(descriptor) for descriptor in reading)
        self._output = {pipe: bytearray() for pipe in self.pipes}
        try:
            self._process = processes.start(_setting(self._folder, call.imports, terms), writing)
        finally:
            for descriptor in writing:
                os.close(descriptor)
        self._deadline = time.monotonic() + terms.timeout_seconds

    def seconds_left(self) -> float:
        return self._deadline - time.monotonic()

    def hear(self, pipe: FileIO) -> None:
        """Keep the end of what it says."""
        data = os.read(pipe.fileno(), _KEPT_BYTES)
        self._output[pipe] += data
        del self._output[pipe][:-_KEPT_BYTES]
        if not data:
            pipe.close()

    def is_over(self) -> bool:
        """Whether it ended, or has no time left."""
        return self._process.poll() is not None or self.seconds_left() <= 0

    def answer(self) -> Any:
        """Return what the function returned; raise what `call_all` says for anything else."""
        code = self._process.poll()
        if code is None:
            raise self._limit("time", f"{self._terms.timeout_seconds:g} s", hint="--timeout SECONDS sets another")
        self._process.end()
        for pipe in self.pipes:
            while not pipe.closed and wait([pipe.fileno()], 0):
                self.hear(pipe)
        out, stderr = (self._output[pipe].decode("utf-8", "backslashreplace") for pipe in self.pipes)
        _LOG.debug("%s: %s%s", self._call.address, out, stderr)
        result = self._folder / RESULT
        limits = self._terms.limits
        if code == -signal.SIGXCPU:
            raise self._limit("processor time", f"{limits.processor_seconds} s", hint="--timeout SECONDS sets another")
        if code == -signal.SIGXFSZ:
            raise self._limit("the size of a file", _human(limits.file_bytes))
        if code != 0 and is_out_of_memory(stderr):
            raise self._memory_limit()
        if code != 0 or not result.exists():
            raise _failure(self._call.what, code, stderr, self._scratch)
        answer = json.loads(result.read_text())
        _tell(answer["missing"])
        if "limit" in answer:
            raise self._memory_limit()
        if "error" in answer:
            raise _revived(answer["error"])
        return answer["result"]

    def _memory_limit(self) -> LimitError:
        return self._limit("memory", _human(self._terms.limits.memory_bytes), hint="--verify weights runs no graph")

    def _limit(self, limit: str, value: str, hint: str | None = None) -> LimitError:
        return LimitError(f"{self._call.what} reached its limit of {limit}, {value}", hint=hint)

    def end(self) -> None:
        """Leave nothing of it."""
        self._process.end()
        for pipe in self.pipes:
            pipe.close()


def _setting(folder: Path, imports: tuple[str, ...], terms: Terms) -> Setting:
    return Setting(
        folder=folder,
        environment=_environment(is_for_own_code=bool(terms.own_code)),
        own=_SCRATCH,
        imports=() if terms.own_code else imports,
    )


def _box(scratch: Path, terms: Terms) -> Box:
    return Box(
        reads=(*terms.reads, *terms.writes, scratch),
        folders=terms.own_code,
        writes=(*terms.writes, scratch),
        home=Path(os.path.abspath(os.path.expanduser("~"))),
        limits=terms.limits,
    )


def _human(nbytes: int | None) -> str:
    return "that of the machine" if nbytes is None else f"{nbytes / 1e9:.3g} GB"


def _tell(missing: Sequence[str]) -> None:
    """Log once what is missing."""
    for layer in missing:
        if layer not in _told:
            _told.add(layer)
            _LOG.info("child processes do without %s", layer)


def _failure(what: str, code: int, stderr: str, scratch: Path) -> CkconvError:
    """Return the error for a child that ended without an answer; frameworks have errors of their own for full disks."""
    for number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO):
        if os.strerror(number) in stderr:
            return WriteError(os.strerror(number), path=scratch)
    lines = [line for line in stderr.splitlines() if line.strip() and not _LOGGED.match(line)]
    how = f"killed by signal {-code}" if code < 0 else f"exit status {code}"
    return GraphError(f"{what} failed: {lines[-1].strip() if lines else how}")


def _environment(*, is_for_own_code: bool) -> dict[str, str]:
    return {
        **kept(os.environ, is_for_own_code=is_for_own_code),
        **({} if is_for_own_code else {"KERAS_BACKEND": "tensorflow"}),
        "USER": "ckconv",  # asked for by name, the user would be looked up in /etc
        "LOGNAME": "ckconv",
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "TF_CPP_MIN_LOG_LEVEL": "2",
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        "PYTHONDONTWRITEBYTECODE": "1",
    }


def _revived(error: dict[str, Any]) -> CkconvError:
    kind = getattr(errors, error["kind"])
    if kind is MissingExtraError:
        return MissingExtraError(error["extra"], error["need"])
    revived: CkconvError = kind(error["message"], path=error["path"], tensor=error["tensor"], hint=error["hint"])
    return revived
