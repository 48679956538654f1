"""Flax: `flax_model.msgpack`, nested maps of arrays in MessagePack.

https://github.com/google/flax/blob/v0.12.0/flax/serialization.py. An array is extension 1, a numpy scalar extension
3: a MessagePack document of its own, [shape, dtype name, bytes]. Arrays above 1 GiB are maps of chunks. Names are
the keys on the way to an array, joined with `/`; plain numbers are read as tensors without axes.

What this program writes has one more array at the root, `__ckconv__`: the bytes of a JSON document that says in which
dialect the names are, and `separator`, which joins the keys to names.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from converter.encoding import msgpack
from converter.encoding.description import LIMIT_BYTES, Description, described, parse_document
from converter.encoding.folder import CONFIG_NAME, open_inside
from converter.encoding.msgpack import Binary, Extension
from converter.errors import ReadError
from converter.formats import Format, NoOptions, Probe
from converter.model.checkpoint import Checkpoint, Part
from converter.model.dtype import DType
from converter.model.file import SourceFile
from converter.model.ledger import LedgerLine, dropped
from converter.model.output import Late, Output, OutputFile, Piece, Provenance
from converter.model.tensor import ArrayTensor, FileTensor, Tensor, concat

_FILE_NAME = "flax_model.msgpack"
_SUFFIX = ".msgpack"
_DESCRIPTION = "__ckconv__"
_CHUNKED = "__msgpack_chunked_array__"
_CHUNK_BYTES = 1 << 30
_ARRAY, _COMPLEX, _SCALAR = 1, 2, 3  # the extension types of flax
_RANK_LIMIT = 64
_DTYPES = {dtype.value: dtype for dtype in DType}
_DIALECTS_OF_PATHS = ("flax", "tensorflow", "keras")


def sniff(probe: Probe) -> bool:
    """A map whose first long value is an extension, or a folder with such a file and no config.json."""
    if probe.is_folder:
        return _FILE_NAME in probe.entries and CONFIG_NAME not in probe.entries
    return msgpack.starts_with_map_of_extensions(probe.head, probe.size)


def read(path: Path, options: NoOptions) -> Checkpoint:
    """Read the structure of a file; arrays stay where they are.

    Text is a ledger line. Raises ReadError for malformed MessagePack, element types that are no numbers, shapes that
    do not fit the bytes, and keys that give two arrays one name.
    """
    file = open_inside(path, _FILE_NAME) if path.is_dir() else SourceFile(path)
    tree = msgpack.read(file)
    if not isinstance(tree, dict):
        raise ReadError("does not hold a map of arrays", path=file.path)
    document = _document(file, tree.pop(_DESCRIPTION)) if _DESCRIPTION in tree else {}
    separator = document.get("separator", "/")
    if separator not in ("/", ".", ""):
        raise ReadError(f"joins names with {separator!r}", path=file.path)
    tensors: dict[str, Tensor] = {}
    lines: list[LedgerLine] = []
    for keys, value in _leaves(tree, ()):
        name = separator.join(keys)
        if name in tensors:
            raise ReadError("is the name of two arrays", path=file.path, tensor=name)
        if isinstance(value, str):
            lines.append(dropped(name, "text, not numbers", is_refused_by_default=True))
        elif value is not None:
            tensors[name] = _named_tensor(file, name, value)
    checkpoint = Checkpoint(tensors=tensors, dialect="flax", lines=tuple(lines))
    return described(checkpoint, {**document, "ties": {}}, file.path) if document else checkpoint


def _document(file: SourceFile, value: Any) -> dict[str, Any]:
    tensor = _named_tensor(file, _DESCRIPTION, value)
    if tensor.dtype is not DType.UINT8 or tensor.nbytes > LIMIT_BYTES:
        raise ReadError("is no document", path=file.path, tensor=_DESCRIPTION)
    return parse_document(tensor.numpy().tobytes(), file.path)


def _leaves(value: Any, keys: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield the keys on the way to every value that is no container; items of lists have their position as key."""
    match value:
        case dict() if _CHUNKED not in value:
            for key, item in value.items():
                yield from _leaves(item, (*keys, key))
        case list():
            for position, item in enumerate(value):
                yield from _leaves(item, (*keys, str(position)))
        case _:
            yield keys, value


def _named_tensor(file: SourceFile, name: str, value: Any) -> Tensor:
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
                raise ReadError("is a scalar with axes")
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
        case _:
            return ArrayTensor.of(np.array(value, np.int64 if value < 1 << 63 else np.uint64))


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
    if value[_CHUNKED] is not True or len(value) != 3 or not chunks:
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


def write(checkpoint: Checkpoint, options: NoOptions, provenance: Provenance) -> Output:
    """Lay out a file that flax.serialization.msgpack_restore opens; tied tensors are there under each name.

    Names are nested at `/` or, in dialects that use it, at `.`; when a name is the start of another, not at all.
    """
    preferred = "/" if checkpoint.dialect in _DIALECTS_OF_PATHS else "."
    stored_as = _stored_names(checkpoint.names, preferred)
    separator = preferred if _can_nest(stored_as.values(), preferred) else ""
    description = Description(
        checkpoint=checkpoint,
        provenance=provenance,
        names={stored: name for name, stored in stored_as.items() if stored != name},
        more={"separator": separator},
    )
    tree: dict[str, Any] = {_DESCRIPTION: Late(nbytes=description.nbytes, render=description.render)}
    for name, stored in stored_as.items():
        *above, last = stored.split(separator) if separator else [stored]
        node = tree
        for key in above:
            node = node.setdefault(key, {})
        node[last] = checkpoint.tensor(name)
    pieces = tuple(_joined(_pieces(tree)))
    return Output(files=(OutputFile(name=_FILE_NAME, pieces=pieces),), names={name: name for name in checkpoint.names})


def _stored_names(names: tuple[str, ...], separator: str) -> dict[str, str]:
    """Return name -> the name it is stored under: another one where a key would mean something to a reader."""
    stored_as = {}
    taken = set(names)
    for name in names:
        keys = name.split(separator)
        stored = name
        if {_CHUNKED, _DESCRIPTION}.intersection((*keys, name)):
            stored = separator.join(key + "_" if key in (_CHUNKED, _DESCRIPTION) else key for key in keys)
            while stored in taken:
                stored += "_"
            taken.add(stored)
        stored_as[name] = stored
    return stored_as


def _can_nest(names: Any, separator: str) -> bool:
    """Whether no name is the start of another."""
    leaves = {tuple(name.split(separator)) for name in names}
    return not any(keys[:length] in leaves for keys in leaves for length in range(1, len(keys)))


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
    yield msgpack.map_header(3) + msgpack.text(_CHUNKED) + b"\xc3" + msgpack.text("shape")
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


FORMAT = Format(
    name="flax",
    description="flax_model.msgpack: nested maps of arrays in MessagePack",
    suffixes=(_SUFFIX,),
    holds=frozenset({Part.WEIGHTS}),
    dtypes=frozenset(DType),
    sniff=sniff,
    read=read,
    write=write,
    file_name=_FILE_NAME,
    entries=("*" + _SUFFIX,),
)
