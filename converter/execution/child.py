"""Frameworks run in a child process: offline, with their caches in a scratch folder, their chatter in the log.

The parent never imports them, their memory goes when the child does, and two frameworks never share a process.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import logging
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from converter import errors
from converter.errors import CkconvError, GraphError, MissingExtraError

_LOG = logging.getLogger(__name__)
_MODULES = {
    "torch": ("torch", "transformers", "onnx", "onnx_ir", "onnxscript"),
    "tensorflow": ("tensorflow", "onnx", "onnx_ir"),
    "onnx": ("onnx", "onnx_ir", "onnxruntime"),
}
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

    Raises the CkconvError that the child raised, GraphError when it failed in any other way.
    """
    folder = Path(tempfile.mkdtemp(prefix="call-", dir=scratch))
    (folder / _ARGUMENTS).write_text(json.dumps({"function": function, "arguments": arguments}))
    command = [sys.executable, "-P", "-m", "converter.execution.child", os.fspath(folder)]
    if sys.version_info < (3, 11):
        command.remove("-P")
    completed = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, env=_environment(folder), cwd=folder, check=False
    )
    _LOG.debug("%s: %s%s", function, _text(completed.stdout), _text(completed.stderr))
    result = folder / _RESULT
    if completed.returncode != 0 or not result.exists():
        lines = [line for line in _text(completed.stderr).splitlines() if line.strip()]
        what = lines[-1].strip() if lines else f"exit status {completed.returncode}"
        raise GraphError(f"{function} failed: {what}")
    answer = json.loads(result.read_text())
    if "error" in answer:
        raise _revived(answer["error"])
    return answer["result"]


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
    flat = {"kind": type(error).__name__, "message": error.message, "path": error.path, "tensor": error.tensor}
    if isinstance(error, MissingExtraError):
        return {**flat, "extra": error.extra, "need": error.need}
    return {**flat, "hint": error.hint}


def _main(folder: Path) -> None:
    request = json.loads((folder / _ARGUMENTS).read_text())
    module, _, name = request["function"].partition(":")
    try:
        answer = {"result": getattr(importlib.import_module(module), name)(**request["arguments"])}
    except CkconvError as error:
        logging.basicConfig(level=logging.DEBUG)
        _LOG.debug("raised", exc_info=True)
        answer = {"error": _flattened(error)}
    (folder / _RESULT).write_text(json.dumps(answer))


if __name__ == "__main__":
    _main(Path(sys.argv[1]))
