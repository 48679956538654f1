"""What an exception of a framework says, in one line."""

from __future__ import annotations

import re

_LIMIT_CHARACTERS = 300
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


def said_by(error: BaseException) -> str:
    """Return the type and the first line of `error`.

    torch.onnx wraps what went wrong in a text on how to report it: the line is then that of the cause.
    """
    while type(error).__module__.startswith("torch.onnx") and error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in _COLOURS.sub("", str(error)).splitlines() if line.strip(" =-")]
    return f"{type(error).__name__}: {lines[0][:_LIMIT_CHARACTERS]}" if lines else type(error).__name__
