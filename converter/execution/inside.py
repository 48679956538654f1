"""What a child process does: the one call that it was started for, and then it ends."""

from __future__ import annotations

import ctypes
import importlib
import json
import logging
import os
import signal
import sys
from pathlib import Path
from typing import Any

from converter import errors
from converter.errors import CkconvError, MissingExtraError

ARGUMENTS, RESULT = "arguments.json", "result.json"
_LOG = logging.getLogger(__name__)
_PR_SET_PDEATHSIG = 1  # prctl(2)


def _flattened(error: CkconvError) -> dict[str, Any]:
    kind = next(each.__name__ for each in type(error).__mro__ if each.__module__ == errors.__name__)
    flat = {"kind": kind, "message": error.message, "path": error.path, "tensor": error.tensor}
    if isinstance(error, MissingExtraError):
        return {**flat, "extra": error.extra, "need": error.need}
    return {**flat, "hint": error.hint}


def _main(folder: Path, parent: int) -> None:
    _die_with(parent)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())  # some were held back while this process was started
    request = json.loads((folder / ARGUMENTS).read_text())
    module, _, name = request["function"].partition(":")
    try:
        answer = {"result": getattr(importlib.import_module(module), name)(**request["arguments"])}
    except CkconvError as error:
        logging.basicConfig(level=logging.DEBUG)
        _LOG.debug("raised", exc_info=True)
        answer = {"error": _flattened(error)}
    (folder / RESULT).write_text(json.dumps(answer))


def _die_with(parent: int) -> None:
    """Be killed when the parent is: what is written after that, nobody would clean up."""
    prctl = getattr(ctypes.CDLL(None), "prctl", None)
    if prctl is not None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    _main(Path(sys.argv[1]), int(sys.argv[2]))
