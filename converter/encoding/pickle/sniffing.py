"""Telling a pickle from other files by its first bytes: no magic, only opcodes that make sense in a row."""

from __future__ import annotations

import re

from converter.encoding.pickle.machine import Machine
from converter.errors import CkconvError, SafetyError

_OPERATIONS_ENOUGH = 8
_STARTS = re.compile(rb"\x80[\x00-\x05]|c[A-Za-z_][\w.]*\n[A-Za-z_][\w.]*\n|[(\]})dlIJKLMFGNSTUVX]")


class _BeyondHeadError(Exception):
    """The operations go on after the bytes that are known."""


class _Head:
    """The first bytes of a file of `size` bytes."""

    def __init__(self, head: bytes, size: int) -> None:
        self._head = head
        self.size = size

    def read(self, offset: int, length: int) -> bytes:
        if offset + length > len(self._head):
            raise _BeyondHeadError
        return self._head[offset : offset + length]


def looks_like_pickle(head: bytes, size: int) -> bool:
    """Whether a file of `size` bytes that starts with `head` is a pickle, whatever it would do."""
    start = _STARTS.match(head)
    if start is None:
        return False
    has_header = head[:1] == b"\x80"
    machine = Machine(_Head(head, size), path="", constructors={}, persistent=lambda identity: None, window_bytes=1)
    try:
        machine.load()
    except _BeyondHeadError:
        return machine.operations >= (1 if has_header else _OPERATIONS_ENOUGH)
    except SafetyError:
        return True
    except CkconvError:
        return has_header and machine.operations >= 2
    return machine.operations >= 1
