"""Frameworks run in a child process: offline, with their caches in a scratch folder, their chatter in the log.

The parent never imports them, their memory goes when the child does, and two frameworks never share a process.
"""

from __future__ import annotations

import ctypes
import errno
import importlib
import importlib.util
import json
import logging
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from converter import errors
from converter.errors import CkconvError, GraphError, MissingExtraError, WriteError

_LOG = logging.getLogger(__name__)
_MODULES = {
    "torch": ("torch", "transformers", "onnx", "onnx_ir", "onnxscript"),
    "tensorflow": ("tensorflow", "onnx", "onnx_ir", "onnxscript"),
    "onnx": ("onnx", "onnx_ir", "onnxscript", "onnxruntime"),
}
_PR_SET_PDEATHSIG = 1  # prctl(2)
_ARGUMENTS, _RESULT = "arguments.json", "result.json"


def require(extra: str, need: str) -> None:
    """Raise MissingExtraError when a module of `extra` is not installed. Imports none."""
    if not all(map(_is_installed, _MODULES[extra])):
        raise MissingExtraError(extra, need)


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ImportError:
        return False


def call(function: str, scratch: Path, **arguments: Any) -> Any:
    """Run ``package.module:function(**arguments)`` in a child process and return what it returns.

    Arguments and result are JSON values. `scratch` is an existing folder that the child may fill.

    The child dies with this process. Raises the CkconvError that the child raised, WriteError when the disk would not
    take what it wrote, GraphError when it failed in any other way.
    """
    try:
        folder = Path(tempfile.mkdtemp(prefix="call-", dir=scratch))
        (folder / _ARGUMENTS).write_text(json.dumps({"function": function, "arguments": arguments}))
    except OSError as error:
        raise WriteError(os.strerror(error.errno or 0), path=scratch) from error
    command = [sys.executable, "-P", "-m", "converter.execution.child", os.fspath(folder), str(os.getpid())]
    if sys.version_info < (3, 11):
        command.remove("-P")
    completed = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, env=_environment(folder), cwd=folder, check=False
    )
    _LOG.debug("%s: %s%s", function, _text(completed.stdout), _text(completed.stderr))
    result = folder / _RESULT
    if completed.returncode != 0 or not result.exists():
        raise _failure(function, completed.returncode, _text(completed.stderr), scratch)
    answer = json.loads(result.read_text())
    if "error" in answer:
        raise _revived(answer["error"])
    return answer["result"]


def _failure(function: str, code: int, said: str, scratch: Path) -> CkconvError:
    """Return the error for a child that ended without an answer; frameworks have errors of their own for full disks."""
    for number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO):
        if os.strerror(number) in said:
            return WriteError(os.strerror(number), path=scratch)
    lines = [line for line in said.splitlines() if line.strip()]
    how = f"killed by signal {-code}" if code < 0 else f"exit status {code}"
    return GraphError(f"{function} failed: {lines[-1].strip() if lines else how}")


def _text(data: bytes) -> str:
    return data.decode("utf-8", "backslashreplace")


def _environment(folder: Path) -> dict[str, str]:
    scratch = {name: os.fspath(folder) for name in ("HF_HOME", "KERAS_HOME", "TMPDIR", "XDG_CACHE_HOME", "TORCH_HOME")}
    return {
        **os.environ,
        **scratch,
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


def _flattened(error: CkconvError) -> dict[str, Any]:
    kind = next(each.__name__ for each in type(error).__mro__ if each.__module__ == errors.__name__)
    flat = {"kind": kind, "message": error.message, "path": error.path, "tensor": error.tensor}
    if isinstance(error, MissingExtraError):
        return {**flat, "extra": error.extra, "need": error.need}
    return {**flat, "hint": error.hint}


def _main(folder: Path, parent: int) -> None:
    _die_with(parent)
    request = json.loads((folder / _ARGUMENTS).read_text())
    module, _, name = request["function"].partition(":")
    try:
        answer = {"result": getattr(importlib.import_module(module), name)(**request["arguments"])}
    except CkconvError as error:
        logging.basicConfig(level=logging.DEBUG)
        _LOG.debug("raised", exc_info=True)
        answer = {"error": _flattened(error)}
    (folder / _RESULT).write_text(json.dumps(answer))


def _die_with(parent: int) -> None:
    """Be killed when the parent is: what is written after that, nobody would clean up."""
    prctl = getattr(ctypes.CDLL(None), "prctl", None)
    if prctl is not None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    _main(Path(sys.argv[1]), int(sys.argv[2]))
