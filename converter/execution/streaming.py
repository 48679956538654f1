"""Streaming a planned file to disk, in memory bounded by the budget or the largest tensor that must be permuted."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from converter.errors import WriteError
from converter.execution.digests import Digests
from converter.execution.parallel import SERIAL, Workers, write_pieces
from converter.execution.pieces import named_chunks, rendered
from converter.model.output import Late, OutputFile
from converter.observer import SILENT, Observer

_BUFFER_BYTES = 1 << 20


def stream(
    file: OutputFile,
    folder: Path,
    *,
    names: Mapping[int, str] = MappingProxyType({}),
    digests: Digests | None = None,
    observer: Observer = SILENT,
    workers: Workers = SERIAL,
) -> None:
    """Write `file` into `folder`, where it must not exist yet. The bytes are the same however many `workers`.

    `names` says what tensors are called, by id, for errors; `digests` keeps what was written of them.

    Raises WriteError when the disk will not take it, ReadError when a tensor's bytes cannot be had.
    """
    path = folder / file.name
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if workers.count_for(file) > 1:
            with open(path, "xb", buffering=0) as unbuffered:
                write_pieces(
                    file, unbuffered.fileno(), names=names, digests=digests, observer=observer, workers=workers
                )
            return
        with open(path, "xb", buffering=_BUFFER_BYTES) as out:
            late: list[tuple[int, Late]] = []
            for piece in file.pieces:
                if isinstance(piece, Late):
                    late.append((out.tell(), piece))
                    out.write(bytes(piece.nbytes))
                    continue
                for chunk in named_chunks(piece, names, digests):
                    out.write(chunk)
                    observer.advance(len(chunk))
            for position, piece in late:
                out.seek(position)
                out.write(rendered(piece, file))
    except OSError as error:
        raise WriteError(os.strerror(error.errno or 0), path=path) from error
