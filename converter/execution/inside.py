"""What a child process does: the one call that it was started for, and then it ends."""

from __future__ import annotations

import importlib
import json
import logging
import signal
import sys
from pathlib import Path
from typing import Any

from converter import box, errors
from converter.box.limits import is_out_of_memory
from converter.box.privileges import die_with
from converter.errors import CkconvError, MissingExtraError, SafetyError
from converter.model.child_function import child_function

ARGUMENTS, RESULT = "arguments.json", "result.json"
_LOG = logging.getLogger(__name__)


def _flattened(error: CkconvError) -> dict[str, Any]:
    kind = next(each.__name__ for each in type(error).__mro__ if each.__module__ == errors.__name__)
    flat = {"kind": kind, "message": error.message, "path": error.path, "tensor": error.tensor}
    if isinstance(error, MissingExtraError):
        return {**flat, "extra": error.extra, "need": error.need}
    return {**flat, "hint": error.hint}


@child_function("a child process")
def nothing() -> None:
    """Do nothing, in a box: whether it closes is the question."""


def main(folder: Path, parent: int) -> None:
    """Do what the request in `folder` asks for, and leave the answer beside it."""
    die_with(parent)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())  # some were held back while this process was started
    request = json.loads((folder / ARGUMENTS).read_text())
    answer: dict[str, Any] = {"missing": box.close(box.Box.from_json(request["box"]))}
    die_with(parent)  # entering a namespace made the kernel forget
    try:
        if request["is_box_required"] and answer["missing"]:
            raise _lacking(answer["missing"])
        answer["result"] = _called(request["function"], request["arguments"])
    except CkconvError as error:
        logging.basicConfig(level=logging.DEBUG)
        _LOG.debug("raised", exc_info=True)
        answer |= {"limit": "memory"} if _is_for_memory(error) else {"error": _flattened(error)}
    except Exception as error:
        if not _is_for_memory(error):
            raise
        answer["limit"] = "memory"
    (folder / RESULT).write_text(json.dumps(answer))


def _called(function: str, arguments: dict[str, Any]) -> Any:
    try_no_socket()
    module, _, name = function.partition(":")
    return getattr(importlib.import_module(module), name)(**arguments)


def try_no_socket() -> None:
    """Have urllib3 try none when it is imported: the box refuses it."""
    import socket

    socket.has_ipv6 = False


def _lacking(layers: list[str]) -> SafetyError:
    what = "; ".join(layers)
    return SafetyError(
        f"--require-sandbox: this system does not have {what}",
        hint="without that option the rest of the sandbox is used",
    )


def _is_for_memory(error: BaseException | None) -> bool:
    """Whether an exception, or what it was raised for, is that no memory was left."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:  # some are the cause of their own cause
        seen.add(id(error))
        if isinstance(error, MemoryError) or is_out_of_memory(str(error)):
            return True
        error = error.__cause__ or error.__context__
    return False


if __name__ == "__main__":
    main(Path(sys.argv[2]), int(sys.argv[1]))
