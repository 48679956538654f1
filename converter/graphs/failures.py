"""What an exception of a framework says, in one line."""

from __future__ import annotations

import re
from itertools import takewhile

_LIMIT_CHARACTERS = 300
_WHERE = "Exception encountered when calling"
_ARGUMENTS = ("Arguments received", "Call arguments received")
_IN_USER_CODE = "in user code:"
"""With this AutoGraph begins a text that has a whole traceback before what went wrong."""
_RAISED = re.compile(r"(?:\w+\.)*\w*(?:Error|Exception): (.+)")
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


def summary_of(error: BaseException) -> str:
    """Return the type and the first line of `error` that says what went wrong.

    torch.onnx wraps that in a text on how to report it: the line is then that of the cause. Keras says first where.
    """
    while type(error).__module__.startswith("torch.onnx") and error.__cause__ is not None:
        error = error.__cause__
    lines = lines_of(error)
    return f"{type(error).__name__}: {lines[0][:_LIMIT_CHARACTERS]}" if lines else type(error).__name__


def lines_of(error: BaseException) -> list[str]:
    """Return what `error` says, line by line, without colours, and without where in Keras and with what."""
    lines = [line.strip() for line in _COLOURS.sub("", str(error)).splitlines() if line.strip(" =-")]
    if len(lines) > 1 and lines[0].startswith(_WHERE):
        lines = list(takewhile(lambda line: not line.startswith(_ARGUMENTS), lines[1:]))
    raised = [found[1] for line in lines if (found := _RAISED.fullmatch(line))] if lines[:1] == [_IN_USER_CODE] else []
    return raised[-1:] or lines
