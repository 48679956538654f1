"""Tensors that know what they are before a byte of them is read.

A tensor declares `dtype` and `shape`; its bytes (C order, little-endian) are read when they are asked for, checked
against the declaration, and never kept. The name is not here: the key in the checkpoint owns it.
"""

from __future__ import annotations

import math
import mmap
from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, BinaryIO, Protocol, runtime_checkable

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from converter.errors import ReadError
from converter.model.dtype import DType
from converter.model.file import CHUNK_BYTES, Checksum, SourceFile
from converter.model.interleaving import interleaved

Array = NDArray[Any]
_NARROWEST_BYTES = 64 << 10


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Tensor(ABC):
    """The declaration of an array, and a way to its bytes."""

    dtype: DType
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """The number of elements."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """The number of bytes, known without reading any."""
        return self.size * self.dtype.itemsize

    def numpy(self) -> Array:
        """Read the tensor into a new array.

        Raises ReadError when the bytes cannot be had, or are not what was declared.
        """
        array = self._read()
        if array.shape != self.shape or array.dtype != self.dtype.numpy:
            raise ReadError(
                f"declared as {self.dtype.value}{list(self.shape)}, read as {array.dtype}{list(array.shape)}"
            )
        return array

    def chunks(self) -> Iterator[memoryview]:
        """Yield the bytes in order, in pieces of about CHUNK_BYTES, each valid until the next one is asked for."""
        yield from _pieces_of(self.numpy())

    @property
    def working_bytes(self) -> int:
        """Bytes of memory that `chunks` takes besides the chunks themselves."""
        return 0

    def write_to(self, out: BinaryIO) -> None:
        """Write the bytes to `out`."""
        for chunk in self.chunks():
            out.write(chunk)

    @abstractmethod
    def _read(self) -> Array: ...

    def reshape(self, shape: tuple[int, ...]) -> Tensor:
        """Return the same elements in another shape; nothing is read."""
        return self if shape == self.shape else _computed(Reshape(shape=shape), self)

    def transpose(self, axes: tuple[int, ...]) -> Tensor:
        """Return the tensor with its axes permuted; nothing is read."""
        return self if axes == tuple(range(len(self.shape))) else _computed(Transpose(axes=axes), self)

    def cast(self, dtype: DType) -> Tensor:
        """Return the tensor in another element type, rounded to nearest even; nothing is read."""
        return self if dtype is self.dtype else _computed(Cast(dtype=dtype), self)

    def take(self, *, axis: int, start: int, stop: int) -> Tensor:
        """Return the elements `start` to `stop` of one axis; nothing is read."""
        whole = (start, stop) == (0, self.shape[axis])
        return self if whole else _computed(Take(axis=axis, start=start, stop=stop), self)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ArrayTensor(Tensor):
    """A tensor that is already in memory."""

    array: Array

    @classmethod
    def of(cls, array: Array) -> ArrayTensor:
        """Wrap `array`. Raises KeyError for dtypes that tensors cannot have."""
        dtype = DType.of(array.dtype)
        return cls(dtype=dtype, shape=array.shape, array=np.asarray(array, dtype=dtype.numpy))

    def _read(self) -> Array:
        return self.array


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FileTensor(Tensor):
    """A contiguous little-endian range of a file.

    Construction checks that the range lies inside the file, and raises ReadError when it does not.
    """

    file: SourceFile
    offset: int
    checksum: Checksum | None = None

    def __post_init__(self) -> None:
        if any(type(extent) is not int or extent < 0 for extent in self.shape):
            raise ReadError(f"has the impossible shape {list(self.shape)}", path=self.file.path)
        if type(self.offset) is not int or self.offset < 0 or self.offset + self.nbytes > self.file.size:
            raise ReadError(
                f"needs {self.nbytes} bytes at {self.offset}, the file has {self.file.size}", path=self.file.path
            )

    def chunks(self, limit_bytes: int = CHUNK_BYTES) -> Iterator[memoryview]:
        """Yield the bytes in order, in pieces of at most `limit_bytes`, each valid until the next one is asked for."""
        if self.checksum is None:
            yield from self.file.chunks(self.offset, self.nbytes, limit_bytes)
        elif self.checksum.covers(self.offset, self.nbytes):
            yield from self.checksum.chunks(limit_bytes)
        else:
            self.checksum.verify()
            yield from self.file.chunks(self.offset, self.nbytes, limit_bytes)

    def reshape(self, shape: tuple[int, ...]) -> Tensor:
        if math.prod(shape) != self.size:
            raise ReadError(f"cannot be reshaped from {list(self.shape)} to {list(shape)}", path=self.file.path)
        return replace(self, shape=shape)

    def take(self, *, axis: int, start: int, stop: int) -> Tensor:
        if any(extent != 1 for extent in self.shape[:axis]) or not 0 <= start <= stop <= self.shape[axis]:
            return Tensor.take(self, axis=axis, start=start, stop=stop)
        row_bytes = math.prod(self.shape[axis + 1 :]) * self.dtype.itemsize
        shape = (*self.shape[:axis], stop - start, *self.shape[axis + 1 :])
        return replace(self, shape=shape, offset=self.offset + start * row_bytes)

    def _read(self) -> Array:
        return _filled(self)


class Operation(Protocol):
    """A pure function of arrays whose result can be declared without reading them."""

    def declare(self, inputs: Sequence[Tensor]) -> tuple[DType, tuple[int, ...]]:
        """Return dtype and shape of the result."""

    def __call__(self, *arrays: Array) -> Array:
        """Compute the result."""


@runtime_checkable
class StreamedOperation(Protocol):
    """An operation that need not have its inputs whole."""

    def stream(self, inputs: Sequence[Tensor]) -> Iterator[memoryview] | None:
        """Return the bytes of the result as `Tensor.chunks` does, None where these inputs must be whole."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ComputedTensor(Tensor):
    """A function of other tensors, computed each time it is read, in pieces where the operation allows it."""

    inputs: tuple[Tensor, ...]
    operation: Operation

    def reshape(self, shape: tuple[int, ...]) -> Tensor:
        if isinstance(self.operation, Reshape):
            return self.inputs[0].reshape(shape)
        return Tensor.reshape(self, shape)

    def take(self, *, axis: int, start: int, stop: int) -> Tensor:
        is_range_of_parts = isinstance(self.operation, Concat) and self.operation.axis == axis
        if not is_range_of_parts or not 0 <= start <= stop <= self.shape[axis]:
            return Tensor.take(self, axis=axis, start=start, stop=stop)
        parts: list[Tensor] = []
        position = 0
        for tensor in self.inputs:
            begin, end = (min(max(at - position, 0), tensor.shape[axis]) for at in (start, stop))
            if begin < end or (start == stop and not parts):
                parts.append(tensor.take(axis=axis, start=begin, stop=end))
            position += tensor.shape[axis]
        return concat(parts, axis=axis)

    def transpose(self, axes: tuple[int, ...]) -> Tensor:
        if isinstance(self.operation, Transpose):
            merged = tuple(self.operation.axes[axis] for axis in axes)
            return self.inputs[0].transpose(merged)
        return Tensor.transpose(self, axes)

    def chunks(self) -> Iterator[memoryview]:
        streamed, left = self._streamed(), self.nbytes
        if streamed is None:
            yield from Tensor.chunks(self)
            return
        for chunk in streamed:
            left -= len(chunk)
            if left < 0:
                break
            yield chunk
        if left:
            raise ReadError(f"declared as {self.nbytes} bytes, computed as {'more' if left < 0 else 'fewer'}")

    @property
    def working_bytes(self) -> int:
        if isinstance(self.operation, Concat):
            return self.operation.working_bytes(self.inputs)
        if self._streamed() is not None:
            return max((tensor.working_bytes for tensor in self.inputs), default=0)
        copied = 0 if isinstance(self.operation, Transpose | Strided | Take) else self.nbytes
        return copied + sum(tensor.nbytes + tensor.working_bytes for tensor in self.inputs)

    def _streamed(self) -> Iterator[memoryview] | None:
        return self.operation.stream(self.inputs) if isinstance(self.operation, StreamedOperation) else None

    def _read(self) -> Array:
        if self._streamed() is not None:
            return _filled(self)
        return self.operation(*(tensor.numpy() for tensor in self.inputs))


def _filled(tensor: Tensor) -> Array:
    """Return an array of what `tensor.chunks` yields."""
    array = _empty(tensor.nbytes).view(tensor.dtype.numpy).reshape(tensor.shape)
    target, position = array.reshape(-1).view(np.uint8).data, 0
    for chunk in tensor.chunks():
        target[position : position + len(chunk)] = chunk
        position += len(chunk)
    return array


def _empty(nbytes: int) -> Array:
    """Return bytes to be filled. Large ones are mapped: an allocator might keep them when they are given back."""
    if nbytes <= CHUNK_BYTES:
        return np.empty(nbytes, np.uint8)
    try:
        return np.frombuffer(mmap.mmap(-1, nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS), np.uint8)
    except OSError as error:
        raise MemoryError from error


def _narrow_chunks(tensor: Tensor, count: int) -> Iterator[memoryview]:
    """Yield the bytes of one of `count` tensors that are read together, in pieces that are the smaller the more."""
    return tensor.chunks(_narrow_bytes(tensor, count)) if isinstance(tensor, FileTensor) else tensor.chunks()


def _narrow_bytes(tensor: Tensor, count: int) -> int:
    return max(_NARROWEST_BYTES, CHUNK_BYTES // count) if isinstance(tensor, FileTensor) else CHUNK_BYTES


def _pieces_of(array: Array) -> Iterator[memoryview]:
    """Yield the bytes of an array in C order; one that is not laid out so is never copied whole."""
    if array.flags.c_contiguous:
        data = array.reshape(-1).view(np.uint8).data
        for start in range(0, len(data), CHUNK_BYTES):
            yield data[start : start + CHUNK_BYTES]
    elif array.nbytes <= CHUNK_BYTES:
        yield np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
    else:
        rows = len(array) * CHUNK_BYTES // array.nbytes
        for start in range(0, len(array), max(rows, 1)):
            yield from _pieces_of(array[start : start + rows] if rows else array[start])


def _elements(chunks: Iterator[memoryview], dtype: DType) -> Iterator[Array]:
    """Yield flat arrays of whole elements; what is left of a chunk goes before the next one."""
    rest = b""
    for chunk in chunks:
        data = rest + bytes(chunk) if rest else chunk
        end = len(data) - len(data) % dtype.itemsize
        yield np.frombuffer(data[:end], dtype.numpy)
        rest = bytes(data[end:])
    if rest:
        raise ReadError(f"ends within an element of {dtype.value}")


def _computed(operation: Operation, *inputs: Tensor) -> ComputedTensor:
    dtype, shape = operation.declare(inputs)
    return ComputedTensor(dtype=dtype, shape=shape, inputs=inputs, operation=operation)


def concat(tensors: Sequence[Tensor], *, axis: int) -> Tensor:
    """Return the tensors joined along one axis; nothing is read."""
    return tensors[0] if len(tensors) == 1 else _computed(Concat(axis=axis), *tensors)


def strided(storage: Tensor, *, offset: int, shape: tuple[int, ...], strides: tuple[int, ...]) -> Tensor:
    """Return a view of a flat `storage`: `offset` and `strides` count elements. Bounds are the caller's to check."""
    dense = _dense_strides(shape)
    needs_gather = math.prod(shape) > 0 and any(
        extent > 1 and stride != expected for extent, stride, expected in zip(shape, strides, dense, strict=True)
    )
    if needs_gather:
        return _computed(Strided(offset=offset, shape=shape, strides=strides), storage)
    return storage.take(axis=0, start=offset, stop=offset + math.prod(shape)).reshape(shape)


def _dense_strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))


def byteswapped(tensor: Tensor) -> Tensor:
    """Return the tensor with the bytes of each element reversed, for files written on big-endian machines."""
    return tensor if tensor.dtype.itemsize == 1 else _computed(ByteSwap(), tensor)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reshape:
    """The same elements in another shape."""

    shape: tuple[int, ...]

    def declare(self, inputs: Sequence[Tensor]) -> tuple[DType, tuple[int, ...]]:
        if math.prod(self.shape) != inputs[0].size:
            raise ReadError(f"cannot be reshaped from {list(inputs[0].shape)} to {list(self.shape)}")
        return inputs[0].dtype, self.shape

    def __call__(self, *arrays: Array) -> Array:
        return arrays[0].reshape(self.shape)

    def stream(self, inputs: Sequence[Tensor]) -> Iterator[memoryview]:
        return inputs[0].chunks()


@dataclass(frozen=True, slots=True, kw_only=True)
class Transpose:
    """Axes permuted as numpy.transpose does."""

    axes: tuple[int, ...]

    def declare(self, inputs: Sequence[Tensor]) -> tuple[DType, tuple[int, ...]]:
        return inputs[0].dtype, tuple(inputs[0].shape[axis] for axis in self.axes)

    def __call__(self, *arrays: Array) -> Array:
        return np.transpose(arrays[0], self.axes)


@dataclass(slots=True, kw_only=True)
class CastTally:
    """What a cast did to values, known once it was computed: finite ones that overflowed, others that lost digits."""

    overflowed: int = 0
    subnormal: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Cast:
    """Another element type, rounded to nearest even."""

    dtype: DType
    tally: CastTally = field(default_factory=CastTally, compare=False)

    def declare(self, inputs: Sequence[Tensor]) -> tuple[DType, tuple[int, ...]]:
        return self.dtype, inputs[0].shape

    def __call__(self, *arrays: Array) -> Array:
        result, overflowed, subnormal = self._cast(arrays[0])
        self.tally.overflowed, self.tally.subnormal = overflowed, subnormal
        return result

    def stream(self, inputs: Sequence[Tensor]) -> Iterator[memoryview]:
        overflowed = subnormal = 0
        for array in _elements(inputs[0].chunks(), inputs[0].dtype):
            result, *counted = self._cast(array)
            overflowed, subnormal = overflowed + counted[0], subnormal + counted[1]
            yield result.view(np.uint8).data
        self.tally.overflowed, self.tally.subnormal = overflowed, subnormal

    def _cast(self, array: Array) -> tuple[Array, int, int]:
        """Return the result, and how many values overflowed and became subnormal."""
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):
            result = array.astype(self.dtype.numpy)
            if not self.dtype.is_floating or not result.size:
                return result, 0, 0
            is_lost = np.isfinite(array) & ~np.isfinite(result)
            limits: Any = ml_dtypes.finfo(self.dtype.numpy)  # type: ignore[no-untyped-call]
            is_small = np.abs(result) < limits.smallest_normal
            return result, int(np.count_nonzero(is_lost)), int(np.count_nonzero(is_small & (array != 0)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Take:
    """A range of one axis."""

    axis: int
    start: int
    stop: int

    def declare(self, inputs: Sequence[Tensor]) -> tuple[DType, tuple[int, ...]]:
        shape = inputs[0].shape
        if not 0 <= self.start <= self.stop <= shape[self.axis]:
            raise ReadError(f"has {shape[self.axis]} elements on axis {self.axis}, not {self.start}:{self.stop}")
        return inputs[0].dtype, (*shape[: self.axis], self.stop - self.start, *shape[self.axis + 1 :])

    def __call__(self, *arrays: Array) -> Array:
        return arrays[0][(slice(None),) * self.axis + (slice(self.start, self.stop),)]

    def stream(self, inputs: Sequence[Tensor]) -> Iterator[memoryview] | None:
        if math.prod(inputs[0].shape[: self.axis]) != 1:
            return None
        row_bytes = inputs[0].nbytes // max(1, inputs[0].shape[self.axis])
        return _range_of(inputs[0].chunks(), self.start * row_bytes, self.stop * row_bytes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Concat:
    """Tensors joined along one axis."""

    axis: int

    def declare(self, inputs: Sequence[Tensor]) -> tuple[DType, tuple[int, ...]]:
        first = inputs[0]
        around = (*first.shape[: self.axis], *first.shape[self.axis + 1 :])
        for tensor in inputs:
            if (
                tensor.dtype is not first.dtype
                or (*tensor.shape[: self.axis], *tensor.shape[self.axis + 1 :]) != around
            ):
                raise ReadError(f"parts of shapes {[list(part.shape) for part in inputs]} do not join")
        joined = sum(tensor.shape[self.axis] for tensor in inputs)
        return first.dtype, (*first.shape[: self.axis], joined, *first.shape[self.axis + 1 :])

    def __call__(self, *arrays: Array) -> Array:
        return np.concatenate(arrays, axis=self.axis)

    def stream(self, inputs: Sequence[Tensor]) -> Iterator[memoryview]:
        rows = math.prod(inputs[0].shape[: self.axis])
        if rows == 1:
            return (chunk for tensor in inputs for chunk in tensor.chunks())
        parts = [_narrow_chunks(tensor, len(inputs)) for tensor in inputs]
        return interleaved(parts, [tensor.nbytes // max(1, rows) for tensor in inputs], rows)

    def working_bytes(self, inputs: Sequence[Tensor]) -> int:
        """Bytes of memory that `stream` takes besides what it yields."""
        if math.prod(inputs[0].shape[: self.axis]) == 1:
            return max(tensor.working_bytes for tensor in inputs)
        return sum(tensor.working_bytes + min(tensor.nbytes, _narrow_bytes(tensor, len(inputs))) for tensor in inputs)


@dataclass(frozen=True, slots=True, kw_only=True)
class Strided:
    """A strided view of a flat storage; `offset` and `strides` count elements."""

    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def declare(self, inputs: Sequence[Tensor]) -> tuple[DType, tuple[int, ...]]:
        return inputs[0].dtype, self.shape

    def __call__(self, *arrays: Array) -> Array:
        flat = arrays[0].reshape(-1)[self.offset :]
        strides = tuple(stride * flat.itemsize for stride in self.strides)
        return np.lib.stride_tricks.as_strided(flat, self.shape, strides, writeable=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class ByteSwap:
    """The bytes of each element reversed."""

    def declare(self, inputs: Sequence[Tensor]) -> tuple[DType, tuple[int, ...]]:
        return inputs[0].dtype, inputs[0].shape

    def __call__(self, *arrays: Array) -> Array:
        swapped: Array = arrays[0].byteswap()
        return swapped

    def stream(self, inputs: Sequence[Tensor]) -> Iterator[memoryview]:
        for array in _elements(inputs[0].chunks(), inputs[0].dtype):
            yield array.byteswap().view(np.uint8).data


def _range_of(chunks: Iterator[memoryview], start: int, stop: int) -> Iterator[memoryview]:
    """Yield the bytes `start` to `stop` of all that `chunks` yields. All of it is read: its end may be a checksum."""
    position = 0
    for chunk in chunks:
        piece = chunk[max(0, start - position) : max(0, stop - position)]
        if piece:
            yield piece
        position += len(chunk)


def is_equal(ours: Tensor, theirs: Tensor) -> bool:
    """Whether two tensors have the same element type, shape and bits. Reads both, in pieces."""
    if ours is theirs:
        return True
    if (ours.dtype, ours.shape) != (theirs.dtype, theirs.shape):
        return False
    return is_same_bytes(ours.chunks(), theirs.chunks())


def is_same_bytes(ours: Iterator[memoryview], theirs: Iterator[memoryview]) -> bool:
    """Whether two streams are the same bytes, however each is cut. Takes both to their ends if they are."""
    left = right = memoryview(b"")
    while True:
        left, right = left or _next(ours), right or _next(theirs)
        length = min(len(left), len(right))
        if not length:
            return len(left) == len(right)
        if not np.array_equal(np.frombuffer(left[:length], np.uint8), np.frombuffer(right[:length], np.uint8)):
            return False
        left, right = left[length:], right[length:]


def _next(chunks: Iterator[memoryview]) -> memoryview:
    """Return the next chunk that is not empty, or nothing at the end."""
    return next((chunk for chunk in chunks if chunk), memoryview(b""))


def identity(tensor: Tensor) -> Hashable:
    """Return what is equal for tensors that are the same elements of one tensor, rearranged in the same way."""
    if isinstance(tensor, ComputedTensor) and isinstance(tensor.operation, Transpose | Reshape):
        return (tensor.operation, identity(tensor.inputs[0]))
    if isinstance(tensor, FileTensor) and tensor.nbytes:
        return (id(tensor.file), tensor.offset, tensor.dtype, tensor.shape)
    return id(tensor)


def files_of(tensor: Tensor) -> Iterator[SourceFile]:
    """Yield the files that reading `tensor` would read."""
    match tensor:
        case FileTensor():
            yield tensor.file
        case ComputedTensor():
            for part in tensor.inputs:
                yield from files_of(part)


def tensor_names(prefix: str, value: Any) -> Iterator[str]:
    """Yield the dotted names of the tensors inside a nested value."""
    match value:
        case Tensor():
            yield prefix
        case Mapping():
            for key, item in value.items():
                yield from tensor_names(f"{prefix}.{key}", item)
        case list() | tuple():
            for position, item in enumerate(value):
                yield from tensor_names(f"{prefix}.{position}", item)
