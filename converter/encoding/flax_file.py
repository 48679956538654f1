"""Files of flax.serialization: nested maps of arrays in MessagePack.

https://github.com/google/flax/blob/v0.12.0/flax/serialization.py. An array is extension 1, a numpy scalar extension
3: a MessagePack document of its own, [shape, dtype name, bytes]. Arrays above 1 GiB are maps of chunks. Names are
the keys on the way to an array; plain numbers are read as tensors without axes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from converter.encoding import msgpack
from converter.encoding.msgpack import Binary, Extension
from converter.errors import ReadError
from converter.model.dtype import DType
from converter.model.file import SourceFile
from converter.model.ledger import LedgerLine, dropped
from converter.model.output import Late, Piece, Provenance
from converter.model.tensor import ArrayTensor, FileTensor, Tensor, concat

FILE_NAME = "flax_model.msgpack"
OWN_KEY = "__ckconv__"
"""Where a file of this program's says more than flax does: an array, or keys without one, which flax leaves out."""
CHUNKED = "__msgpack_chunked_array__"

_CHUNK_BYTES = 1 << 30
_ARRAY, _COMPLEX, _SCALAR = 1, 2, 3  # the extension types of flax
_RANK_LIMIT = 64
_DTYPES = {dtype.value: dtype for dtype in DType}


def read_tree(file: SourceFile) -> dict[str, Any]:
    """Return the outermost map of a file; arrays stay where they are. Raises ReadError when there is none."""
    tree = msgpack.read(file)
    if not isinstance(tree, dict):
        raise ReadError("does not hold a map of arrays", path=file.path)
    return tree


def tensors_of(
    file: SourceFile, tree: Mapping[str, Any], separator: str = "/"
) -> tuple[dict[str, Tensor], tuple[LedgerLine, ...]]:
    """Return the arrays of a tree by the keys on the way to them, and lines of the texts in it.

    Raises ReadError for what is no array of numbers, and keys that give two arrays one name.
    """
    tensors: dict[str, Tensor] = {}
    lines: list[LedgerLine] = []
    for keys, value in _leaves(tree, ()):
        name = separator.join(keys)
        if name in tensors:
            raise ReadError("is the name of two arrays", path=file.path, tensor=name)
        if isinstance(value, str):
            lines.append(dropped(name, "text, not numbers", is_refused_by_default=True))
        elif value is not None:
            tensors[name] = named_tensor(file, name, value)
    return tensors, tuple(lines)


def nested(tensors: Mapping[str, Tensor], separator: str) -> dict[str, Any]:
    """Return the tree of tensors by name: nested at `separator`, not at all when it is empty."""
    tree: dict[str, Any] = {}
    for name, tensor in tensors.items():
        *above, last = name.split(separator) if separator else [name]
        node = tree
        for key in above:
            node = node.setdefault(key, {})
        node[last] = tensor
    return tree


def loadable_pieces(tensors: Mapping[str, Tensor], provenance: Provenance) -> tuple[Piece, ...]:
    """Lay out a file with no array but `tensors`; the provenance is a key without one, which flax leaves out."""
    head = _without_items(nested(tensors, "/"), more=1)
    length = provenance.nbytes
    own = msgpack.text(OWN_KEY) + msgpack.map_header(1) + msgpack.text_header(length)
    rest = Late(nbytes=length, render=provenance.render)
    return tuple(_joined(iter((*head, own, rest, msgpack.map_header(0)))))


def _without_items(tree: Mapping[str, Any], *, more: int) -> Iterable[Piece]:
    """Yield a map that has `more` entries than are in `tree`, which come after it."""
    yield msgpack.map_header(len(tree) + more)
    for key, value in tree.items():
        yield msgpack.text(key)
        yield from _pieces(value)


def pieces(tree: Mapping[str, Any]) -> tuple[Piece, ...]:
    """Lay out a file that flax.serialization.msgpack_restore opens."""
    return tuple(_joined(_pieces(tree)))


def _leaves(value: Any, keys: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield the keys on the way to every value that is no container; items of lists have their position as key."""
    match value:
        case dict() if CHUNKED not in value:
            for key, item in value.items():
                yield from _leaves(item, (*keys, key))
        case list():
            for position, item in enumerate(value):
                yield from _leaves(item, (*keys, str(position)))
        case _:
            yield keys, value


def named_tensor(file: SourceFile, name: str, value: Any) -> Tensor:
    """Return the tensor that a leaf of a Flax file is. Raises ReadError, which names it."""
    try:
        return _tensor(file, value)
    except ReadError as error:
        raise ReadError(error.message, path=file.path, tensor=name) from error


def _tensor(file: SourceFile, value: Any) -> Tensor:
    """Return the tensor that a leaf of the tree is. Raises ReadError for leaves that are none."""
    match value:
        case Extension(code=code) if code in (_ARRAY, _SCALAR):
            array = _array(file, value)
            if code == _SCALAR and array.shape:
                raise ReadError("is a scalar that has a shape")
            return array
        case Extension(code=code) if code == _COMPLEX:
            return ArrayTensor.of(np.array(_complex(file, value), np.complex128))
        case Extension(code=code):
            raise ReadError(f"is of extension type {code}, which is no array")
        case Binary():
            raise ReadError("is a byte string, not an array")
        case dict():
            return _unchunked(file, value)
        case bool():
            return ArrayTensor.of(np.array(value, np.bool_))
        case float():
            return ArrayTensor.of(np.array(value, np.float64))
        case int():
            return ArrayTensor.of(np.array(value, np.int64 if value < 1 << 63 else np.uint64))
        case _:
            raise ReadError("is no array")


def _array(file: SourceFile, extension: Extension) -> Tensor:
    match msgpack.read(file, extension.offset, extension.offset + extension.length):
        case [list() as shape, str() as type_name, Binary() as data]:
            pass
        case _:
            raise ReadError("is no [shape, dtype, bytes]")
    if type_name not in _DTYPES:
        raise ReadError(f"has the element type {type_name!r}, which is not read")
    _check_shape(shape)
    dtype = _DTYPES[type_name]
    needed = math.prod(shape) * dtype.itemsize
    if needed != data.length:
        raise ReadError(f"has {data.length} bytes, {type_name}{shape} needs {needed}")
    return FileTensor(dtype=dtype, shape=tuple(shape), file=file, offset=data.offset)


def _check_shape(shape: list[Any]) -> None:
    if len(shape) > _RANK_LIMIT or not all(type(extent) is int and 0 <= extent < 1 << 63 for extent in shape):
        raise ReadError(f"has the impossible shape {shape[:_RANK_LIMIT]}")


def _complex(file: SourceFile, extension: Extension) -> complex:
    match msgpack.read(file, extension.offset, extension.offset + extension.length):
        case [float() as real, float() as imaginary]:
            return complex(real, imaginary)
    raise ReadError("is no complex number")


def _unchunked(file: SourceFile, value: dict[str, Any]) -> Tensor:
    """Return the array that is stored as {marker: true, "shape": {"0": extent}, "chunks": {"0": array}}."""
    shape, chunks = (_numbered(value.get(key)) for key in ("shape", "chunks"))
    if value[CHUNKED] is not True or len(value) != 3 or not chunks:
        raise ReadError("is no array in chunks")
    _check_shape(shape)
    if not all(isinstance(chunk, Extension) and chunk.code == _ARRAY for chunk in chunks):
        raise ReadError("has chunks that are no arrays")
    parts = [_array(file, chunk) for chunk in chunks]
    if len({part.dtype for part in parts}) != 1 or any(len(part.shape) != 1 for part in parts):
        raise ReadError("has chunks of several types, or with several axes")
    held = sum(part.size for part in parts)
    if held != math.prod(shape):
        raise ReadError(f"has {held} elements in chunks, its shape {shape} has {math.prod(shape)}")
    return concat(parts, axis=0).reshape(tuple(shape))


def _numbered(value: Any) -> list[Any]:
    """Return the values of a map whose keys count from "0", in that order."""
    if not isinstance(value, dict) or any(str(position) not in value for position in range(len(value))):
        raise ReadError("is no array in chunks")
    return [value[str(position)] for position in range(len(value))]


def _pieces(node: Any) -> Iterator[Piece]:
    match node:
        case Mapping():
            yield msgpack.map_header(len(node))
            for key, value in node.items():
                yield msgpack.text(key)
                yield from _pieces(value)
        case Late():
            yield from _array_pieces(DType.UINT8, (node.nbytes,), node.nbytes, node)
        case Tensor() if node.nbytes > _CHUNK_BYTES:
            yield from _chunked_pieces(node)
        case _:
            yield from _array_pieces(node.dtype, node.shape, node.nbytes, node)


def _array_pieces(dtype: DType, shape: tuple[int, ...], nbytes: int, data: Piece) -> Iterator[Piece]:
    start = msgpack.array_header(3) + msgpack.array_header(len(shape))
    start += b"".join(map(msgpack.number, shape)) + msgpack.text(dtype.value) + msgpack.binary_header(nbytes)
    yield msgpack.extension_header(_ARRAY, len(start) + nbytes) + start
    yield data


def _chunked_pieces(tensor: Tensor) -> Iterator[Piece]:
    """As flax does: what MessagePack cannot hold in one value is cut into flat chunks."""
    step = _CHUNK_BYTES // tensor.dtype.itemsize
    starts = range(0, tensor.size, step)
    yield msgpack.map_header(3) + msgpack.text(CHUNKED) + b"\xc3" + msgpack.text("shape")
    yield msgpack.map_header(len(tensor.shape))
    for axis, extent in enumerate(tensor.shape):
        yield msgpack.text(str(axis)) + msgpack.number(extent)
    yield msgpack.text("chunks") + msgpack.map_header(len(starts))
    flat = tensor.reshape((tensor.size,))
    for position, start in enumerate(starts):
        chunk = flat.take(axis=0, start=start, stop=min(start + step, tensor.size))
        yield msgpack.text(str(position))
        yield from _array_pieces(tensor.dtype, chunk.shape, chunk.nbytes, chunk)


def _joined(pieces: Iterator[Piece]) -> Iterator[Piece]:
    """Yield the pieces with adjacent bytes made one."""
    pending = bytearray()
    for piece in pieces:
        if isinstance(piece, bytes):
            pending += piece
            continue
        if pending:
            yield bytes(pending)
            pending.clear()
        yield piece
    if pending:
        yield bytes(pending)
