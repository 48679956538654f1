"""A gzip file (RFC 1952) as the file that is in it, read by position without keeping what it holds.

One pass checks size and CRC and keeps the state of the decompressor at a few places; reading goes on from the nearest.
"""

from __future__ import annotations

import threading
import zlib
from collections.abc import Iterator
from typing import Any

from converter.errors import ReadError
from converter.model.file import CHUNK_BYTES, SourceFile

_MAGIC = b"\x1f\x8b"
_WBITS = 16 + zlib.MAX_WBITS
_FREE_BYTES, _RATIO_LIMIT = 16 << 20, 64
_PLACES = 128
_FIRST_STEP_BYTES = 16 << 20


def looks_like(head: bytes) -> bool:
    """Whether a file that starts with `head` is compressed."""
    return head.startswith(_MAGIC)


def start_of(head: bytes, length: int) -> bytes:
    """Return the first bytes, at most `length`, of what `head` is the beginning of; none where it is damaged."""
    try:
        return zlib.decompressobj(_WBITS).decompress(head, length)
    except zlib.error:
        return b""


class _State:
    """A decompressor, how far it is in the compressed file and in what comes out, and what it has not taken yet."""

    def __init__(self, inflater: Any, source: int, at: int, rest: bytes) -> None:
        self.inflater, self.source, self.at, self.rest = inflater, source, at, rest

    def copy(self) -> _State:
        """Return one that goes on from here by itself, and keeps no bytes: what was not taken is read again."""
        return _State(self.inflater.copy(), self.source - len(self.rest), self.at, b"")


class GunzipFile(SourceFile):
    """What the gzip file `whole` holds. Raises ReadError when it is damaged, or grows as no checkpoint does."""

    def __init__(self, whole: SourceFile) -> None:
        self.whole = whole
        self.path = whole.path
        self.size = max(_FREE_BYTES, _RATIO_LIMIT * whole.size)
        self._lock = threading.Lock()
        self._places: list[_State] = []
        self._step = _FIRST_STEP_BYTES
        self._current = state = _State(zlib.decompressobj(_WBITS), 0, 0, b"")
        for _ in self._pieces(state, self.size + 1):
            if state.at - (self._places[-1].at if self._places else 0) >= self._step:
                self._keep(state)
        if not state.inflater.eof or state.at > self.size:
            raise self._damaged("it is cut short" if state.at <= self.size else "it grows too much")
        if state.inflater.unused_data or state.source != whole.size:
            raise self._damaged("something is behind its end")
        self.size = state.at

    @property
    def state(self) -> tuple[str | int, ...]:
        """What is another when the compressed file has changed."""
        return self.whole.state

    @property
    def stored(self) -> SourceFile:
        """The compressed file."""
        return self.whole

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill `buffer` from `offset`. Raises ReadError when the file ends before that."""
        with self._lock:
            state = self._at(offset)
            skipped = offset - state.at
            filled = -skipped
            for piece in self._pieces(state, len(buffer) + skipped):
                taken = piece[max(-filled, 0) :]
                if taken:
                    start = max(filled, 0)
                    buffer[start : start + len(taken)] = taken
                filled += len(piece)
            self._current = state
        if filled < len(buffer):
            raise ReadError("ended while it was being read", path=self.path)

    def _at(self, offset: int) -> _State:
        """Return the state from which `offset` is reached soonest."""
        before = [place for place in self._places if place.at <= offset]
        nearest = before[-1].copy() if before else _State(zlib.decompressobj(_WBITS), 0, 0, b"")
        return self._current if nearest.at <= self._current.at <= offset else nearest

    def _keep(self, state: _State) -> None:
        self._places.append(state.copy())
        if len(self._places) > _PLACES:
            self._places = self._places[1::2]
            self._step *= 2

    def _pieces(self, state: _State, length: int) -> Iterator[bytes]:
        """Yield the next `length` bytes of what is compressed, or as many as there are."""
        while length > 0 and not state.inflater.eof:
            if not state.rest:
                wanted = min(CHUNK_BYTES, self.whole.size - state.source)
                state.rest = self.whole.read(state.source, wanted)
                state.source += wanted
            is_last = state.source == self.whole.size and not state.rest
            try:
                piece = state.inflater.decompress(state.rest, min(length, CHUNK_BYTES))
            except zlib.error as error:
                raise self._damaged(str(error)) from error
            state.rest = state.inflater.unconsumed_tail
            state.at += len(piece)
            length -= len(piece)
            yield piece
            if is_last and not piece:
                return

    def _damaged(self, why: str) -> ReadError:
        return ReadError(f"is a damaged gzip file: {why}", path=self.path)
