"""What a writer answers: files as sequences of pieces, laid out before a byte of any tensor is read."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from converter.model.child_function import ChildFunction, P, R
from converter.model.file import SourceFile
from converter.model.ledger import LedgerLine, Status
from converter.model.tensor import Tensor

_COUNT_LIMIT = 10**9


class Sum(Protocol):
    """A running checksum or hash: fed every byte of the one piece it watches, in order, each time that is read."""

    def reset(self) -> None:
        """Forget what it was fed: the piece is read again."""

    def update(self, data: memoryview | bytes, /) -> None:
        """Take the next bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """A piece whose bytes also go through a checksum."""

    piece: bytes | Tensor
    sum: Sum

    @property
    def nbytes(self) -> int:
        """Bytes of the piece."""
        return len(self.piece) if isinstance(self.piece, bytes) else self.piece.nbytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Late:
    """Bytes whose number is known now and whose values only when all other pieces of the output are written."""

    nbytes: int
    render: Callable[[], bytes]


Piece = bytes | Tensor | Watched | Late | SourceFile


def piece_bytes(piece: Piece) -> int:
    """Return how many bytes `piece` will take."""
    match piece:
        case bytes():
            return len(piece)
        case SourceFile():
            return piece.size
        case _:
            return piece.nbytes


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputFile:
    """One file: its name inside the output and its pieces in order. Pieces are independent, but for late ones."""

    name: str
    pieces: Sequence[Piece]

    @property
    def nbytes(self) -> int:
        """Bytes of the whole file."""
        return sum(map(piece_bytes, self.pieces))


class Workshop(Protocol):
    """What a writer may use to build files that only a framework can make."""

    @property
    def folder(self) -> Path:
        """The staged output; what is put here is published."""

    @property
    def scratch(self) -> Path:
        """A folder of its own for intermediate files, gone afterwards."""

    def stream(self, file: OutputFile, folder: Path) -> None:
        """Write `file` into `folder`, in bounded memory."""

    def call(self, function: ChildFunction[P, R], *args: P.args, **arguments: P.kwargs) -> R:
        """Run `function` in a child process, offline, with arguments and result as JSON."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ArraysAlone:
    """Why the framework that a format is of opens nothing in a file but its arrays, and what would help."""

    problem: str
    hint: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """The plan of a whole target.

    `names` says which tensor of the checkpoint fills which slot of the target: slot -> name (tied slots included).
    `ties` says under which slot the target holds the values of names that have no slot of their own: name -> slot.
    `files` are in the order in which they may appear: one without which nobody takes the others for a checkpoint, such
    as an index, comes after them, and what `build` makes comes last.
    `build` makes what cannot be laid out in advance, after `files` are written; `built` are the files it makes in a
    format of single files; `build_bytes` are there in the end, `scratch_bytes` are needed meanwhile. `built_by` is the
    framework that makes more than that, how much nobody knows before, None where all is known.
    `lines` are the writer's own losses: what it could not hold, what it had to add.
    `has_config` says that the files have the config in them, so that none is put beside them.
    `read_with` are the options with which its reader finds what is planned.
    `arrays_alone` is set where no loader of the format's own framework makes a model of them.
    `unchecked` is what no table knows, where nothing says what that loader asks for.
    """

    files: tuple[OutputFile, ...]
    names: Mapping[str, str]
    ties: Mapping[str, str] = field(default_factory=dict)
    build: Callable[[Workshop], None] | None = None
    built: tuple[str, ...] = ()
    build_bytes: int = 0
    built_by: str | None = None
    scratch_bytes: int = 0
    lines: tuple[LedgerLine, ...] = ()
    warnings: tuple[str, ...] = ()
    has_config: bool = False
    read_with: Mapping[str, Any] = field(default_factory=dict)
    arrays_alone: ArraysAlone | None = None
    unchecked: str | None = None

    @property
    def file_names(self) -> tuple[str, ...]:
        """The names of all files that are known in advance, in the order in which they may appear."""
        return (*(file.name for file in self.files), *self.built)

    @property
    def nbytes(self) -> int:
        """Bytes that appear, as far as they are known in advance: not those that a framework adds for a graph."""
        return sum(file.nbytes for file in self.files) + self.build_bytes

    @property
    def space_bytes(self) -> int:
        """Bytes on disk while it is made."""
        return self.nbytes + self.scratch_bytes


@dataclass(slots=True, kw_only=True)
class Provenance:
    """Where an output comes from: tool, options, source and counts, without time stamps or paths.

    Readers of the output rely on none of it; `ckconv verify` takes from there the `options` that decided it, as
    `planning.recorded` writes them. `source_hash` gives "" for a source that is no file. The hash and the counts are
    known only late, so a file reserves `nbytes` for `render()`, which pads with spaces.
    """

    tool: str
    source_name: str
    source_hash: Callable[[], str]
    algorithm: str = "blake3"
    options: Mapping[str, Any] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)

    @property
    def nbytes(self) -> int:
        """Bytes that `render` returns."""
        return len(self.widest())

    def widest(self) -> bytes:
        """Return a document no shorter than the later one, for laying out what encloses it."""
        return self._json("0" * 64, {status.value: _COUNT_LIMIT for status in Status})

    def render(self) -> bytes:
        """Return the document as one line of JSON, padded with spaces to `nbytes`. Call it late."""
        return self._json(self.source_hash(), self.counts).ljust(self.nbytes)

    def hash_of(self, hex_digits: str) -> dict[str, str]:
        """Return the hash as JSON values."""
        return {"algorithm": self.algorithm, "hex": hex_digits}

    def _json(self, hex_digits: str, counts: Mapping[str, int]) -> bytes:
        origin = {"source": {"name": self.source_name}, "source_hash": self.hash_of(hex_digits)}
        ledger = {status.value: counts.get(status.value, 0) for status in Status}
        values = {"generator": self.tool, "options": dict(self.options), **origin, "ledger": ledger}
        return json.dumps(values).encode("ascii")
