"""Everything that can go wrong, and the exit code `ckconv` ends with.

::

    CkconvError
    ├── ReadError               1  the source is unreadable, malformed, truncated, or changed while it was read
    ├── WriteError              1  the destination cannot be written: no space, read-only, a missing parent folder
    ├── UsageError              2  the request cannot be carried out as it was put
    │   ├── UnknownFormatError  2  no format, or several, answer to the name or the content
    │   ├── ArchitectureError   2  a runnable target, and nothing says which model this is
    │   └── MissingExtraError   2  the work needs a framework that is not installed
    ├── LossError               3  tensors unaccounted for, a loss that was not allowed, ambiguous optimizer state
    ├── VerificationError       4  the staged output is not what the source says
    │   └── UnprovenError       4  nothing differs, and nothing that was compared could have
    ├── SafetyError             5  the file asks for something a checkpoint has no business asking for
    ├── DestinationExistsError  6  something is already there, and may not be replaced
    ├── GraphError              7  the graph could not be exported, or an operator has no lowering
    │   └── LimitError          7  a child process reached its limit of time, memory, processor time or file size
    └── Interrupted           130  a signal arrived before the output was published (128 + its number)

An error is one line, ``<file>: tensor <name>: <what>; <hint>``, safe to print: control, bidirectional and
undecodable characters of names are escaped.
"""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

WITHOUT_GRAPH = "--weights-only writes no graph"
"""The hint where a graph is what cannot be carried."""
GIVES_EXTENTS = "--shape NAME=EXTENT gives an axis of an input one extent"
"""The hint where a graph is more than can be carried at any extent."""
_NAME_LIMIT_CHARACTERS = 200
_MESSAGE_LIMIT_CHARACTERS = 600


def escape(text: str | bytes | os.PathLike[str], limit: int = _NAME_LIMIT_CHARACTERS) -> str:
    """Return `text` fit for a terminal: one line, nothing that moves the cursor or reorders the display."""
    text = os.fspath(text)
    if isinstance(text, bytes):
        text = os.fsdecode(text)
    shown = "".join(character if _is_printable(character) else _escaped(character) for character in text[: limit + 1])
    return shown if len(text) <= limit else shown[:limit] + "..."


def _is_printable(character: str) -> bool:
    return " " <= character <= "~" or (character > "\xa0" and unicodedata.category(character)[0] in "LNPSM")


def _escaped(character: str) -> str:
    if "\udc80" <= character <= "\udcff":  # a byte that is not UTF-8, as os.fsdecode keeps it
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape").decode("ascii")


def _text_of(path: object) -> str:
    return os.fsdecode(path) if isinstance(path, str | bytes | os.PathLike) else str(path)


class CkconvError(Exception):
    """The root of the tree. `path`, `tensor` and `hint` are None where they do not apply."""

    exit_code = 1

    def __init__(
        self,
        message: str,
        *,
        path: object | None = None,
        tensor: str | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.path = None if path is None else _text_of(path)
        self.tensor = tensor
        self.hint = hint
        self.report: Any = None

    @property
    def message_and_hint(self) -> str:
        """What it says without file and tensor, for one who says these: the hint is what a user can do."""
        return self.message if self.hint is None else f"{self.message}; {self.hint}"

    def __str__(self) -> str:
        where = "" if self.path is None else f"{escape(self.path)}: "
        which = "" if self.tensor is None else f"tensor {escape(self.tensor)}: "
        hint = "" if self.hint is None else f"; {escape(self.hint, _MESSAGE_LIMIT_CHARACTERS)}"
        return f"{where}{which}{escape(self.message, _MESSAGE_LIMIT_CHARACTERS)}{hint}"


class ReadError(CkconvError):
    """The source is unreadable, malformed, truncated, or changed while it was read."""


@contextmanager
def of_tensor(name: str | None) -> Iterator[None]:
    """Let a ReadError name the tensor that it is about, where it does not say so by itself."""
    try:
        yield
    except ReadError as error:
        error.tensor = error.tensor or name
        raise


class WriteError(CkconvError):
    """The destination cannot be written."""


class UsageError(CkconvError):
    """The request cannot be carried out as it was put."""

    exit_code = 2


class UnknownFormatError(UsageError):
    """No format, or more than one, answers to the name or the content."""


class ArchitectureError(UsageError):
    """A runnable target was asked for, and nothing says which model this is."""


class MissingExtraError(UsageError):
    """The work needs a framework that is not installed."""

    def __init__(self, extra: str, need: str) -> None:
        super().__init__(f"{need} needs the extra '{extra}'", hint=f"pip install 'ckconv[{extra}]'")
        self.need = need
        self.extra = extra


class LossError(CkconvError):
    """Tensors are unaccounted for, a loss was not allowed, or optimizer state is ambiguous."""

    exit_code = 3


class VerificationError(CkconvError):
    """The staged output is not what the source says; nothing was published."""

    exit_code = 4


class UnprovenError(VerificationError):
    """Nothing that was compared differs, and nothing of it could have; `per_output` says how each output compared."""

    per_output: tuple[Any, ...] = ()


class SafetyError(CkconvError):
    """The file asks for something a checkpoint has no business asking for; nothing of it was executed."""

    exit_code = 5


class DestinationExistsError(CkconvError):
    """Something is already at the destination, and may not be replaced."""

    exit_code = 6


class GraphError(CkconvError):
    """The graph could not be exported, or an operator has no lowering."""

    exit_code = 7


class LimitError(GraphError):
    """A child process reached its limit of time, memory, processor time or file size, and was ended."""


class Interrupted(CkconvError):
    """A signal arrived before the output was published; nothing was."""

    def __init__(self, signal_number: int) -> None:
        super().__init__("interrupted, nothing written")
        self.signal_number = signal_number
        self.exit_code = 128 + signal_number
