"""Tensors of ONNX: a TensorProto's own bytes, its lists of numbers, or a range of a file beside the model.

https://github.com/onnx/onnx/blob/v1.19.0/onnx/onnx.proto, and docs/ExternalData.md and docs/security.md there.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from converter.encoding import protobuf
from converter.encoding.folder import open_inside
from converter.encoding.protobuf import FIXED32, FIXED64, LENGTH_DELIMITED, VARINT
from converter.encoding.protobuf_file import (
    Range,
    Readable,
    contents,
    fields,
    read_bytes,
    read_entry,
    read_text,
    wrong_wire_type,
)
from converter.errors import ReadError, SafetyError
from converter.model.dtype import DType
from converter.model.file import Location, SourceFile
from converter.model.tensor import Array, ArrayTensor, ComputedTensor, FileTensor, Tensor, concat

TYPE_NUMBERS = {
    DType.FLOAT32: 1, DType.UINT8: 2, DType.INT8: 3, DType.UINT16: 4, DType.INT16: 5, DType.INT32: 6, DType.INT64: 7,
    DType.BOOL: 9, DType.FLOAT16: 10, DType.FLOAT64: 11, DType.UINT32: 12, DType.UINT64: 13, DType.COMPLEX64: 14,
    DType.COMPLEX128: 15, DType.BFLOAT16: 16, DType.FLOAT8_E4M3FN: 17, DType.FLOAT8_E4M3FNUZ: 18,
    DType.FLOAT8_E5M2: 19, DType.FLOAT8_E5M2FNUZ: 20, DType.FLOAT8_E8M0FNU: 24,
}  # fmt: skip

_DTYPES = {number: dtype for dtype, number in TYPE_NUMBERS.items()}
_STRING = 8
_DIMS, _TYPE, _SEGMENT, _NAME, _RAW, _EXTERNAL, _LOCATION = 1, 2, 3, 8, 9, 13, 14
_FLOATS, _INT32S, _STRINGS, _INT64S, _DOUBLES, _UINT64S = 4, 5, 6, 7, 10, 11
_ELEMENTS = {_FLOATS: FIXED32, _INT32S: VARINT, _INT64S: VARINT, _DOUBLES: FIXED64, _UINT64S: VARINT}
"""How the numbers of a field are encoded."""
_NUMBERS_OF = {
    DType.FLOAT32: _FLOATS, DType.COMPLEX64: _FLOATS, DType.FLOAT64: _DOUBLES, DType.COMPLEX128: _DOUBLES,
    DType.INT64: _INT64S, DType.UINT32: _UINT64S, DType.UINT64: _UINT64S,
}  # fmt: skip
"""The field that holds numbers of a type; `int32_data` for those that are not here."""
_WIRE_TYPES = {
    _TYPE: VARINT, _NAME: LENGTH_DELIMITED, _RAW: LENGTH_DELIMITED, _EXTERNAL: LENGTH_DELIMITED, _LOCATION: VARINT,
}  # fmt: skip
_EXTERNAL_KEYS = ("location", "offset", "length", "checksum")
_SINGLES_LIMIT_BYTES = 64 << 20
_VARINT_LIMIT_BYTES = 10
_DECODED_AT_ONCE_BYTES = 128 << 10
_RANK_LIMIT = 64


def tensor_name(file: Readable, within: Range) -> str:
    """Return the name of a TensorProto. Raises ReadError unless it has one."""
    names = [read_text(file, value) for _, value in contents(file, within, (_NAME,))]
    if len(names) != 1 or not names[0]:
        raise ReadError(f"has an initializer with {len(names)} names, or an empty one", path=file.path)
    return names[0]


def read_tensor(file: SourceFile, within: Range, beside: FilesBeside) -> Tensor | None:
    """Return the tensor that a TensorProto declares, unread; None for one of strings.

    Raises ReadError for what is malformed or of a type that tensors cannot have, SafetyError for external data that
    is not a file of its own in the model's folder.
    """
    declared = _Declared(file=file, beside=beside)
    for number, wire_type, value in fields(file, within):
        declared.take(number, wire_type, value)
    if declared.type_number == _STRING and declared.raw is None and not declared.numbers:
        return None
    return declared.tensor()


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorDeclaration:
    """The type and shape that a message says; no `dtype` for a type that tensors cannot have. Nothing is checked."""

    type_number: int
    shape: tuple[int, ...]

    @property
    def dtype(self) -> DType | None:
        """The element type."""
        return _DTYPES.get(self.type_number)

    @property
    def is_text(self) -> bool:
        """Whether it holds strings."""
        return self.type_number == _STRING


def declaration_of(file: Readable, within: Range) -> TensorDeclaration:
    """Return what a TensorProto declares. Raises ReadError for an impossible shape."""
    type_number, axes = 0, list[int]()
    for number, wire_type, value in fields(file, within):
        if number == _TYPE and isinstance(value, int):
            type_number = value
        elif number == _DIMS:
            axes += extents_of(file, wire_type, value)
    return TensorDeclaration(type_number=type_number, shape=checked_shape(axes))


def extents_of(file: Readable, wire_type: int, value: int | Range) -> list[int]:
    """Return the extents in one field of a shape: one, or several that are packed."""
    if isinstance(value, int):
        extents = [value]
    elif wire_type == LENGTH_DELIMITED and value.nbytes <= _RANK_LIMIT * _VARINT_LIMIT_BYTES:
        extents, position, data = [], 0, memoryview(read_bytes(file, value))
        while position < len(data):
            extent, position = protobuf.read_varint(data, position, file.path)
            extents.append(extent)
    else:
        raise wrong_wire_type(file, _DIMS)
    return [extent - (1 << 64) if extent >> 63 else extent for extent in extents]


def checked_shape(extents: Sequence[int]) -> tuple[int, ...]:
    """Return a shape. Raises ReadError for an impossible one."""
    if len(extents) > _RANK_LIMIT or min(extents, default=0) < 0:
        raise ReadError(f"has the impossible shape {list(extents)}")
    return tuple(extents)


def count_of(file: Readable, packed: Range) -> int:
    """Return how many varints there are in a field."""
    starts = range(packed.start, packed.stop, _DECODED_AT_ONCE_BYTES)
    pieces = (file.read(start, min(_DECODED_AT_ONCE_BYTES, packed.stop - start)) for start in starts)
    return sum(int((np.frombuffer(piece, np.uint8) < 0x80).sum()) for piece in pieces)


def read_floats(file: SourceFile, within: Range, field_number: int) -> Tensor:
    """Return the floats of a repeated field of a message, packed or not, as a tensor of one axis."""
    declared = _Declared(file=file, beside=FilesBeside(model=file.path), type_number=TYPE_NUMBERS[DType.FLOAT32])
    for number, wire_type, value in fields(file, within):
        if number == field_number:
            declared.take(_FLOATS, wire_type, value)
    pieces = declared.numbers.get(_FLOATS, [])
    declared.shape.append(sum(len(each) if isinstance(each, bytearray) else each.nbytes for each in pieces) // 4)
    return declared.tensor()


def check_location(file: SourceFile, within: Range, beside: FilesBeside) -> None:
    """Raise what `read_tensor` does for the name and the external data of a TensorProto that is not to be read.

    What is outside need not be there.
    """
    for number, value in contents(file, within, (_NAME, _EXTERNAL)):
        if number == _NAME:
            read_text(file, value)
            continue
        key, location = read_entry(file, value)
        if key == "location":
            with contextlib.suppress(ReadError):
                beside.open(location)


@dataclass(slots=True, kw_only=True)
class _Declared:
    """A TensorProto as far as it was read. `numbers` are the values of each typed field, encoded, in pieces."""

    file: SourceFile
    beside: FilesBeside
    shape: list[int] = field(default_factory=list)
    type_number: int | None = None
    raw: Range | None = None
    location: int | None = None
    external: dict[str, str] = field(default_factory=dict)
    numbers: dict[int, list[Range | bytearray]] = field(default_factory=dict)

    def take(self, number: int, wire_type: int, value: int | Range) -> None:
        """Take one field. Raises ReadError when it may not be there."""
        if number in _WIRE_TYPES and wire_type != _WIRE_TYPES[number]:
            raise wrong_wire_type(self.file, number)
        match number, value:
            case 1, _:
                self._take_axes(wire_type, value)
            case 2, int():
                self._check_first(number, self.type_number)
                self.type_number = value
            case 3, _:
                raise ReadError("is stored in segments, which are not read")
            case 9, Range():
                self._check_first(number, self.raw)
                self.raw = value
            case 13, Range():
                key, text = read_entry(self.file, value)
                if key not in _EXTERNAL_KEYS or key in self.external:
                    raise ReadError(f"has external data with the key {key!r}, unknown or there twice")
                self.external[key] = text
            case 14, int():
                self._check_first(number, self.location)
                self.location = value
            case _ if number in _ELEMENTS:
                self._take_numbers(number, wire_type, value)

    def _check_first(self, number: int, current: object) -> None:
        if current is not None:
            raise ReadError(f"has field {number} twice")

    def _take_axes(self, wire_type: int, value: int | Range) -> None:
        self.shape += extents_of(self.file, wire_type, value)
        checked_shape(self.shape)

    def _take_numbers(self, number: int, wire_type: int, value: int | Range) -> None:
        """Keep packed numbers as a range of the file, and single ones as bytes of the same encoding."""
        pieces = self.numbers.setdefault(number, [])
        if isinstance(value, Range) and wire_type == LENGTH_DELIMITED:
            pieces.append(value)
            return
        if wire_type != _ELEMENTS[number]:
            raise wrong_wire_type(self.file, number)
        encoded = protobuf.varint(value) if isinstance(value, int) else read_bytes(self.file, value)
        last = pieces[-1] if pieces else None
        if not isinstance(last, bytearray):
            last = bytearray()
            pieces.append(last)
        last += encoded
        if len(last) > _SINGLES_LIMIT_BYTES:
            raise ReadError(f"holds more than {_SINGLES_LIMIT_BYTES} bytes of numbers that are not packed")

    def tensor(self) -> Tensor:
        """Return what is declared.

        Raises ReadError for a type that is not read, and for values twice or not where they claim to be.
        """
        dtype = _DTYPES.get(self.type_number or 0)
        if dtype is None:
            raise ReadError(f"is of type number {self.type_number}, which is not read")
        if self.location not in (None, 0, 1):
            raise ReadError(f"is at the unknown location {self.location}")
        is_external = self.location == 1
        if is_external + (self.raw is not None) + len(self.numbers) > 1 or is_external != bool(self.external):
            raise ReadError("has its values twice, or not where it says")
        shape = tuple(self.shape)
        if is_external:
            return self._external(dtype, shape)
        if self.raw is not None:
            return self._raw(self.raw, dtype, shape)
        if math.prod(shape) == 0 and not self.numbers:
            return FileTensor(dtype=dtype, shape=shape, file=self.file, offset=0)
        return self._typed(dtype, shape)

    def _raw(self, raw: Range, dtype: DType, shape: tuple[int, ...]) -> Tensor:
        needed = math.prod(shape) * dtype.itemsize
        if raw.nbytes != needed:
            raise ReadError(f"has {raw.nbytes} bytes, {dtype.value}{list(shape)} needs {needed}")
        return FileTensor(dtype=dtype, shape=shape, file=self.file, offset=raw.start)

    def _external(self, dtype: DType, shape: tuple[int, ...]) -> Tensor:
        needed = math.prod(shape) * dtype.itemsize
        offset, length = (_whole_number(self.external.get(key), key) for key in ("offset", "length"))
        if length is not None and length != needed:
            raise ReadError(f"has {length} bytes outside, {dtype.value}{list(shape)} needs {needed}")
        file = self.beside.open(self.external.get("location"))
        return FileTensor(dtype=dtype, shape=shape, file=file, offset=offset or 0)

    def _typed(self, dtype: DType, shape: tuple[int, ...]) -> Tensor:
        number = _NUMBERS_OF.get(dtype, _INT32S)
        pieces = self.numbers.get(number)
        if pieces is None:
            raise ReadError("has no values")
        if _ELEMENTS[number] == VARINT:
            return _from_varints(self.file, pieces, dtype, shape)
        parts = [_flat(self.file, piece, dtype) for piece in pieces]
        held = sum(part.size for part in parts)
        if held != math.prod(shape):
            raise ReadError(f"has {held} values, its shape {list(shape)} has {math.prod(shape)}")
        return concat(parts, axis=0).reshape(shape)


def _flat(file: SourceFile, piece: Range | bytearray, dtype: DType) -> Tensor:
    nbytes = len(piece) if isinstance(piece, bytearray) else piece.nbytes
    if nbytes % dtype.itemsize:
        raise ReadError(f"has {nbytes} bytes of {dtype.value}")
    if isinstance(piece, bytearray):
        return ArrayTensor.of(np.frombuffer(bytes(piece), dtype.numpy))
    return FileTensor(dtype=dtype, shape=(nbytes // dtype.itemsize,), file=file, offset=piece.start)


def _from_varints(
    file: SourceFile, pieces: Sequence[Range | bytearray], dtype: DType, shape: tuple[int, ...]
) -> Tensor:
    parts = tuple(_flat(file, piece, DType.UINT8) for piece in pieces)
    encoded, count = sum(part.size for part in parts), math.prod(shape)
    if not count <= encoded <= count * _VARINT_LIMIT_BYTES:
        raise ReadError(f"has {encoded} bytes of numbers, its shape {list(shape)} has {count}")
    return ComputedTensor(dtype=dtype, shape=shape, inputs=parts, operation=Varints(dtype=dtype, shape=shape))


@dataclass(frozen=True, slots=True, kw_only=True)
class Varints:
    """Numbers that are encoded as varints; those below 16 bits wide, and float16's bits, are int32 there."""

    dtype: DType
    shape: tuple[int, ...]

    def declare(self, inputs: Sequence[Tensor]) -> tuple[DType, tuple[int, ...]]:
        """Return dtype and shape of the result."""
        return self.dtype, self.shape

    def __call__(self, *arrays: Array) -> Array:
        """Decode. Raises ReadError as `stream` does."""
        pieces = self._decoded(array.data for array in arrays)
        return np.concatenate([np.zeros(0, self.dtype.numpy), *pieces]).reshape(self.shape)

    def stream(self, inputs: Sequence[Tensor]) -> Iterator[memoryview]:
        """Decode. Raises ReadError for too many or too few numbers, and for numbers that the type cannot hold."""
        for array in self._decoded(chunk for tensor in inputs for chunk in tensor.chunks()):
            yield array.view(np.uint8).data

    def _decoded(self, chunks: Iterator[memoryview]) -> Iterator[Array]:
        rest, found, count = b"", 0, math.prod(self.shape)
        for chunk in chunks:
            for start in range(0, len(chunk), _DECODED_AT_ONCE_BYTES):
                data = np.frombuffer(rest + bytes(chunk[start : start + _DECODED_AT_ONCE_BYTES]), np.uint8)
                values, length = _varints(data)
                rest, found = data[length:].tobytes(), found + len(values)
                if len(rest) >= _VARINT_LIMIT_BYTES:
                    raise ReadError("holds a number of more than 64 bits")
                yield self._stored(values)
        if rest or found != count:
            raise ReadError(f"holds {found} numbers, its shape has {count}")

    def _stored(self, values: Array) -> Array:
        name = self.dtype.value
        stored = np.dtype(name if "int" in name else f"uint{8 * self.dtype.itemsize}")
        wide = values if name in ("uint32", "uint64") else values.view(np.int64)
        limits = np.iinfo(stored)
        largest = 1 if self.dtype is DType.BOOL else limits.max
        if wide.size and (wide.min() < limits.min or wide.max() > largest):
            raise ReadError(f"holds a number that is no {name}")
        return wide.astype(stored).view(self.dtype.numpy)


def _varints(data: Array) -> tuple[Array, int]:
    """Return the varints at the start of `data` as uint64, and how many bytes they take."""
    ends = np.flatnonzero(data < 0x80)
    count = len(ends)
    starts = np.concatenate([[0], ends[:-1] + 1]).astype(np.int64)[:count]
    lengths = ends - starts + 1
    if count and (lengths.max() > _VARINT_LIMIT_BYTES or data[ends[lengths == _VARINT_LIMIT_BYTES]].max(initial=0) > 1):
        raise ReadError("holds a number of more than 64 bits")
    values = np.zeros(count, np.uint64)
    for position in range(int(lengths.max(initial=0))):
        reached = lengths > position
        bits = (data[starts[reached] + position] & 0x7F).astype(np.uint64)
        values[reached] |= bits << np.uint64(7 * position)
    return values, int(ends[-1]) + 1 if count else 0


def _whole_number(text: str | None, key: str) -> int | None:
    if text is None:
        return None
    if not (text.isascii() and text.isdecimal() and len(text) < 20):
        raise ReadError(f"has external data with the {key} {text!r}")
    return int(text)


@dataclass(slots=True, kw_only=True)
class FilesBeside:
    """The files of external data of one model, each opened once."""

    model: Location
    opened: dict[str, SourceFile] = field(default_factory=dict)

    def open(self, location: str | None) -> SourceFile:
        """Return a file as docs/security.md asks: inside the folder, no link of either kind.

        Symbolic links inside the folder are refused as well, but for those of a Hugging Face cache. Raises ReadError
        when there is no such regular file, SafetyError for links and ways out of the folder.
        """
        if location not in self.opened:
            try:
                self.opened[str(location)] = _opened_beside(self.model, location)
            except (ReadError, SafetyError) as error:
                raise type(error)(f"external data {location!r}: {error.message}", path=self.model) from error
        return self.opened[str(location)]


def _opened_beside(model: Location, location: str | None) -> SourceFile:
    folder = model.parent
    file = open_inside(folder, location)
    if not (isinstance(folder, Path) and isinstance(file.path, Path)):
        return file
    is_in_cache = Path(os.path.realpath(folder)).parent.name == "snapshots"
    if not is_in_cache and os.path.realpath(file.path) != os.path.join(os.path.realpath(folder), str(location)):
        raise SafetyError("is a symbolic link")
    if os.fstat(file.fileno()).st_nlink != 1:
        raise SafetyError("has several names (hard links)")
    return file
