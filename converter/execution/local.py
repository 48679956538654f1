"""Streaming a planned file to disk, in memory bounded by the largest tensor that has to be computed."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

from converter.errors import ReadError, WriteError
from converter.model.file import SourceFile
from converter.model.output import Late, OutputFile, Piece, Watched
from converter.model.tensor import Tensor
from converter.observer import SILENT, Observer

_BUFFER_BYTES = 1 << 20


def stream(
    file: OutputFile,
    folder: Path,
    *,
    names: Mapping[int, str] = MappingProxyType({}),
    observer: Observer = SILENT,
) -> None:
    """Write `file` into `folder`, where it must not exist yet.

    `names` says what tensors are called, by id, for errors.

    Raises WriteError when the disk will not take it, ReadError when a tensor's bytes cannot be had.
    """
    path = folder / file.name
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "xb", buffering=_BUFFER_BYTES) as out:
            late: list[tuple[int, Late]] = []
            for piece in file.pieces:
                if isinstance(piece, Late):
                    late.append((out.tell(), piece))
                    out.write(bytes(piece.nbytes))
                    continue
                for chunk in _named_chunks(piece, names):
                    out.write(chunk)
                    observer.advance(len(chunk))
            for position, piece in late:
                data = piece.render()
                if len(data) != piece.nbytes:
                    raise AssertionError(f"{file.name}: {len(data)} bytes where {piece.nbytes} were laid out")
                out.seek(position)
                out.write(data)
    except OSError as error:
        raise WriteError(os.strerror(error.errno or 0), path=path) from error


def _named_chunks(piece: Piece, names: Mapping[int, str]) -> Iterator[memoryview | bytes]:
    try:
        yield from _chunks(piece)
    except ReadError as error:
        error.tensor = error.tensor or names.get(id(piece.piece if isinstance(piece, Watched) else piece))
        raise


def _chunks(piece: Piece) -> Iterator[memoryview | bytes]:
    match piece:
        case Watched():
            for chunk in _chunks(piece.piece):
                piece.sum.update(chunk)
                yield chunk
        case bytes():
            yield piece
        case SourceFile():
            yield from piece.chunks(0, piece.size)
        case Tensor():
            yield from piece.chunks()
