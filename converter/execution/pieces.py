"""The bytes of pieces, in order, with errors that name the tensor."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from converter.errors import of_tensor
from converter.execution.digests import Digests
from converter.model.file import SourceFile
from converter.model.output import Late, OutputFile, Piece, Watched
from converter.model.tensor import Tensor


def named_chunks(
    piece: Piece, names: Mapping[int, str], digests: Digests | None = None
) -> Iterator[memoryview | bytes]:
    """Yield the bytes of a piece that is not late, in chunks that are valid until the next one is asked for.

    `names` says what tensors are called, by id, for errors; `digests` keeps what they were. Raises ReadError when a
    tensor's bytes cannot be had.
    """
    inner = piece.piece if isinstance(piece, Watched) else piece
    with of_tensor(names.get(id(inner))):
        chunks = _chunks(piece)
        yield from digests.watched(inner, chunks) if digests is not None and isinstance(inner, Tensor) else chunks


def _chunks(piece: Piece) -> Iterator[memoryview | bytes]:
    match piece:
        case Watched():
            piece.sum.reset()
            for chunk in _chunks(piece.piece):
                piece.sum.update(chunk)
                yield chunk
        case bytes():
            yield piece
        case SourceFile():
            yield from piece.chunks(0, piece.size)
        case Tensor():
            yield from piece.chunks()


def rendered(late: Late, file: OutputFile) -> bytes:
    """Return the bytes of a late piece. Raises AssertionError when they are not as many as were laid out."""
    data = late.render()
    if len(data) != late.nbytes:
        raise AssertionError(f"{file.name}: {len(data)} bytes where {late.nbytes} were laid out")
    return data


def working_bytes(piece: Piece) -> int:
    """Return how much memory reading a piece takes besides its chunks."""
    inner = piece.piece if isinstance(piece, Watched) else piece
    return inner.working_bytes if isinstance(inner, Tensor) else 0
