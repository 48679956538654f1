"""TensorFlow's tensor bundle: `<prefix>.index`, a sorted table of what there is, and `<prefix>.data-SSSSS-of-NNNNN`.

https://github.com/tensorflow/tensorflow/blob/v2.21.0/tensorflow/core/protobuf/tensor_bundle.proto and, for how the
bytes lie, tensorflow/core/util/tensor_bundle/tensor_bundle.cc. TensorFlow itself is not needed, to read or to write.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate, pairwise
from types import MappingProxyType
from typing import Literal

from converter.encoding import crc32c, protobuf
from converter.encoding.folder import open_inside
from converter.encoding.leveldb_table import build_table, read_table
from converter.encoding.protobuf import FIXED32, LENGTH_DELIMITED, VARINT, Message
from converter.encoding.tensor_slices import Extent, Slice, joined, slice_key
from converter.errors import ReadError, WriteError
from converter.model.dtype import DType
from converter.model.file import Checksum, Location, SourceFile, is_there
from converter.model.output import Late, OutputFile, Watched
from converter.model.tensor import FileTensor, Tensor, byteswapped

OBJECT_GRAPH_KEY = "_CHECKPOINTABLE_OBJECT_GRAPH"

_VERSION = 1
_BIG_ENDIAN = 1
_HEADER = {1: VARINT, 2: VARINT, 3: LENGTH_DELIMITED}
_VERSIONS = {1: VARINT, 2: VARINT}
_ENTRY = {1: VARINT, 2: LENGTH_DELIMITED, 3: VARINT, 4: VARINT, 5: VARINT, 6: FIXED32, 7: LENGTH_DELIMITED}
_SHAPE = {2: LENGTH_DELIMITED, 3: VARINT}
_DIMENSION = {1: VARINT}
_SLICE = {1: LENGTH_DELIMITED}
_EXTENT = {1: VARINT, 2: VARINT}
_OBJECT_GRAPH = {1: LENGTH_DELIMITED}
_OBJECT = {2: LENGTH_DELIMITED}
_SERIALIZED_TENSOR = {2: LENGTH_DELIMITED, 3: LENGTH_DELIMITED}
_SHARD_LIMIT = 100_000
_RANK_LIMIT = 32
_TEXT_LIMIT_BYTES = 256 << 20
_STRING = 7
_TYPE_NAMES = {
    1: "float32", 2: "float64", 3: "int32", 4: "uint8", 5: "int16", 6: "int8", 7: "string", 8: "complex64",
    9: "int64", 10: "bool", 11: "qint8", 12: "quint8", 13: "qint32", 14: "bfloat16", 15: "qint16", 16: "quint16",
    17: "uint16", 18: "complex128", 19: "float16", 20: "resource", 21: "variant", 22: "uint32", 23: "uint64",
    24: "float8_e5m2", 25: "float8_e4m3fn", 26: "float8_e4m3fnuz", 27: "float8_e4m3b11fnuz", 28: "float8_e5m2fnuz",
    29: "int4", 30: "uint4", 31: "int2", 32: "uint2", 33: "float4_e2m1fn",
}  # fmt: skip
"""tensorflow/core/framework/types.proto. Those that are no DType are listed, and refused when they are asked for."""
_DTYPES = {number: DType(name) for number, name in _TYPE_NAMES.items() if name in DType._value2member_map_}
TYPE_NUMBERS = {dtype: number for number, dtype in _DTYPES.items()}
_NUMBERS = {name: number for number, name in _TYPE_NAMES.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What the index says of one tensor. `type_name` is TensorFlow's; `dtype` is None when tensors cannot have it.

    `crc32c` is unmasked. A tensor that is stored as `slices` has no bytes of its own.
    """

    type_name: str
    dtype: DType | None
    shape: tuple[int, ...]
    shard: int
    offset: int
    size: int
    crc32c: int
    slices: tuple[tuple[Extent, ...], ...] = ()

    @property
    def is_text(self) -> bool:
        """Whether the elements are byte strings."""
        return self.type_name == _TYPE_NAMES[_STRING]


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredEntry:
    """What is no tensor of ours, text above all, as it is stored; `crc32c` is unmasked."""

    type_name: str
    shape: tuple[int, ...]
    data: bytes
    crc32c: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """A bundle whose index has been read and checked.

    `entries` has all keys but those of slices; `tensors` those entries that hold numbers of a type that tensors can
    have, whole and unread.
    """

    path: Location
    entries: Mapping[str, Entry]
    tensors: Mapping[str, Tensor]
    shards: Mapping[int, SourceFile]
    is_big_endian: bool

    def stored(self, key: str, *, limit_bytes: int) -> StoredEntry:
        """Return an entry as it is stored. Raises ReadError when it is damaged, in slices, or larger than that."""
        entry = self.entries[key]
        if entry.slices or entry.size > limit_bytes:
            raise ReadError(f"is not one piece of at most {limit_bytes} bytes", path=self.path, tensor=key)
        data = self.shards[entry.shard].read(entry.offset, entry.size)
        if entry.is_text:
            self.text(key)  # which has a checksum of its own kind
        elif crc32c.update(data, 0) != entry.crc32c:
            raise ReadError("CRC mismatch: the file is damaged", path=self.path, tensor=key)
        return StoredEntry(type_name=entry.type_name, shape=entry.shape, data=data, crc32c=entry.crc32c)

    def text(self, key: str) -> list[bytes]:
        """Return the elements of a string tensor. Raises KeyError, and ReadError when they are damaged or not text."""
        entry = self.entries[key]
        if not entry.is_text or entry.slices or entry.size > _TEXT_LIMIT_BYTES:
            raise ReadError(f"is not text of at most {_TEXT_LIMIT_BYTES} bytes", path=self.path, tensor=key)
        file = self.shards[entry.shard]
        data = memoryview(file.read(entry.offset, entry.size))
        order: Literal["big", "little"] = "big" if self.is_big_endian else "little"
        lengths, position, checksum = [], 0, 0
        for _ in range(math.prod(entry.shape)):
            length, position = protobuf.read_varint(data, position, file.path)
            lengths.append(length)
            # TensorFlow sums the numbers as its memory holds them, not as they are stored
            checksum = crc32c.update(length.to_bytes(8 if length >> 32 else 4, order), checksum)
        stored, start = data[position : position + 4], position + 4
        if int.from_bytes(stored, order) != crc32c.mask(checksum) or start + sum(lengths) != len(data):
            raise ReadError("has damaged string lengths", path=file.path, tensor=key)
        if crc32c.update(data[position:], checksum) != entry.crc32c:
            raise ReadError("CRC mismatch: the file is damaged", path=file.path, tensor=key)
        boundaries = accumulate(lengths, initial=start)
        return [bytes(data[begin:end]) for begin, end in pairwise(boundaries)]


def read_bundle(prefix: Location) -> Bundle:
    """Read the index of the bundle `prefix`, and open its data files, as `read_bundle_inside` does."""
    return read_bundle_inside(prefix.parent, prefix.name)


def read_bundle_inside(root: Location, inside: str) -> Bundle:
    """Read the index of the bundle whose prefix is called `inside` in the folder `root`, and open its data files.

    No tensor is read, and no file outside `root` opened. Raises ReadError for whatever is
    malformed, missing, overlapping or of a version that is not known, SafetyError for links that leave `root`.
    """
    index = open_inside(root, f"{inside}.index")
    table = read_table(index)
    shard_count, is_big_endian = _header(table, index)
    entries: dict[str, Entry] = {}
    parts: dict[bytes, Entry] = {}
    for key, value in table:
        if key.startswith(b"\0"):
            parts[key] = _entry(value, shard_count, index.path, key.decode("utf-8", "replace"))
        else:
            name = protobuf.as_text(key, index.path)
            entries[name] = _entry(value, shard_count, index.path, name)
    stored = [entry for entry in (*entries.values(), *parts.values()) if not entry.slices]
    shards = {}
    for shard in sorted({entry.shard for entry in stored}):
        data_name = f"{inside}.data-{shard:05d}-of-{shard_count:05d}"
        if not is_there(root / data_name):
            raise ReadError(f"needs {data_name}, which is not there", path=index.path)
        shards[shard] = open_inside(root, data_name)
    _check_ranges(stored, shards)
    tensors = {}
    for name, entry in entries.items():
        if entry.slices:
            tensors[name] = _joined(name, entry, parts, shards, is_big_endian, index.path)
        elif entry.dtype is not None:
            tensors[name] = _stored(entry, entry.dtype, shards, is_big_endian)
    claimed = {slice_key(name, extents) for name, entry in entries.items() for extents in entry.slices}
    if claimed != set(parts):
        raise ReadError(f"has {len(set(parts) - claimed)} slices that belong to no tensor", path=index.path)
    return Bundle(path=index.path, entries=entries, tensors=tensors, shards=shards, is_big_endian=is_big_endian)


def _header(table: Iterator[tuple[bytes, memoryview]], index: SourceFile) -> tuple[int, bool]:
    key, value = next(table, (None, memoryview(b"")))
    if key != b"":
        raise ReadError("does not start with a header", path=index.path)
    header = Message.parse(value, _HEADER, index.path)
    versions = Message.parse(header.content(3), _VERSIONS, index.path)
    producer, min_consumer = versions.signed(1), versions.signed(2)
    if producer < 0 or min_consumer > _VERSION:
        raise ReadError(f"is of version {producer}, for readers of version {min_consumer} and up", path=index.path)
    shard_count, endianness = header.signed(1), header.unsigned(2)
    if not 0 < shard_count <= _SHARD_LIMIT or endianness > _BIG_ENDIAN:
        raise ReadError(f"says it has {shard_count} data files in byte order {endianness}", path=index.path)
    return shard_count, endianness == _BIG_ENDIAN


def type_named(number: int, path: Location, name: str) -> tuple[str, DType | None]:
    """Return what TensorFlow calls the type of a number, and what we do. Raises ReadError for one that nobody knows."""
    if number not in _TYPE_NAMES:
        raise ReadError(f"has the unknown type number {number}", path=path, tensor=name)
    return _TYPE_NAMES[number], _DTYPES.get(number)


def _entry(value: memoryview, shard_count: int, path: Location, key: str) -> Entry:
    message = Message.parse(value, _ENTRY, path)
    number, shape = message.unsigned(1), _shape(message.content(2), path, key)
    type_name, dtype = type_named(number, path, key)
    entry = Entry(
        type_name=type_name,
        dtype=dtype,
        shape=shape,
        shard=message.signed(3),
        offset=message.signed(4),
        size=message.signed(5),
        crc32c=crc32c.unmask(message.unsigned(6)),
        slices=tuple(extents_of(extents, path) for extents in message.repeated(7)),
    )
    if not 0 <= entry.shard < shard_count:
        raise ReadError(f"is in data file {entry.shard} of {shard_count}", path=path, tensor=key)
    elements = math.prod(shape)
    is_size_right = entry.size >= elements if entry.is_text else entry.size >= 0
    if entry.dtype is not None:
        is_size_right = entry.size == elements * entry.dtype.itemsize
    if entry.offset < 0 or not (is_size_right or entry.slices):
        what = f"{entry.size} bytes at {entry.offset} for {entry.type_name}{list(shape)}"
        raise ReadError(f"has an entry that contradicts itself: {what}", path=path, tensor=key)
    return entry


def _shape(data: memoryview, path: Location, key: str) -> tuple[int, ...]:
    message = Message.parse(data, _SHAPE, path)
    shape = tuple(Message.parse(dimension, _DIMENSION, path).signed(1) for dimension in message.repeated(2))
    if message.unsigned(3) or len(shape) > _RANK_LIMIT or any(extent < 0 for extent in shape):
        raise ReadError(f"has the impossible shape {list(shape)}", path=path, tensor=key)
    return shape


def extents_of(data: memoryview, path: Location) -> tuple[Extent, ...]:
    """Return what a TensorSliceProto says."""
    extents = []
    for encoded in Message.parse(data, _SLICE, path).repeated(1):
        message = Message.parse(encoded, _EXTENT, path)
        extents.append(Extent(start=message.signed(1), length=message.signed(2) if message.has(2) else None))
    return tuple(extents)


def _check_ranges(stored: list[Entry], shards: Mapping[int, SourceFile]) -> None:
    """Refuse ranges that are not inside their files, or that overlap."""
    ends = dict.fromkeys(shards, 0)
    for entry in sorted(stored, key=lambda entry: (entry.shard, entry.offset, entry.size)):
        file, end = shards[entry.shard], entry.offset + entry.size
        if end > file.size:
            raise ReadError(f"has {file.size} bytes, the index tells of {end}", path=file.path)
        if entry.size and entry.offset < ends[entry.shard]:
            raise ReadError(f"has two tensors that overlap at byte {entry.offset}", path=file.path)
        ends[entry.shard] = max(ends[entry.shard], end)


def _stored(entry: Entry, dtype: DType, shards: Mapping[int, SourceFile], is_big_endian: bool) -> Tensor:
    file, offset = shards[entry.shard], entry.offset
    checksum = Checksum(file=file, offset=offset, length=entry.size, expected=entry.crc32c, update=crc32c.update)
    tensor = FileTensor(dtype=dtype, shape=entry.shape, file=file, offset=offset, checksum=checksum)
    return byteswapped(tensor) if is_big_endian else tensor


def _joined(
    key: str,
    entry: Entry,
    parts: Mapping[bytes, Entry],
    shards: Mapping[int, SourceFile],
    is_big_endian: bool,
    path: Location,
) -> Tensor:
    """Return the tensor that is stored as slices. Raises ReadError unless they are all there and form a grid."""
    slices = []
    for extents in entry.slices:
        part = parts.get(slice_key(key, extents))
        if part is None or part.slices or len(extents) != len(entry.shape):
            raise ReadError("says it is stored in slices that are not there", path=path, tensor=key)
        ranges = [extent.within(whole) for extent, whole in zip(extents, entry.shape, strict=True)]
        if part.dtype is None or part.dtype is not entry.dtype or part.shape != tuple(length for _, length in ranges):
            raise ReadError("has a slice of another type or shape than it says", path=path, tensor=key)
        tensor = _stored(part, part.dtype, shards, is_big_endian)
        slices.append(Slice(starts=tuple(start for start, _ in ranges), tensor=tensor))
    whole = joined(slices, entry.shape)
    if whole is None:
        raise ReadError("has slices that overlap, leave gaps or form no grid", path=path, tensor=key)
    return whole


def object_names(graph: bytes, *, path: Location) -> dict[str, str]:
    """Return checkpoint key -> full name of the variable, from a serialized TrackableObjectGraph.

    tensorflow/core/protobuf/trackable_object_graph.proto. Raises ReadError when it is malformed, or gives one key two
    names.
    """
    names: dict[str, str] = {}
    for node in Message.parse(graph, _OBJECT_GRAPH, path).repeated(1):
        for attribute in Message.parse(node, _OBJECT, path).repeated(2):
            message = Message.parse(attribute, _SERIALIZED_TENSOR, path)
            key, full_name = message.text(3), message.text(2)
            if names.setdefault(key, full_name) != full_name:
                raise ReadError(f"is called both {names[key]!r} and {full_name!r}", path=path, tensor=key)
    return names


@dataclass(slots=True)
class _Crc32c:
    """The running checksum of one tensor as it is written."""

    value: int = 0

    def reset(self) -> None:
        self.value = 0

    def update(self, data: memoryview | bytes, /) -> None:
        self.value = crc32c.update(data, self.value)


def bundle_files(
    prefix_name: str,
    tensors: Mapping[str, Tensor],
    object_graph: bytes | None,
    stored: Mapping[str, StoredEntry] = MappingProxyType({}),
) -> tuple[OutputFile, OutputFile]:
    """Return the data file and the index of a bundle; `object_graph` is a serialized TrackableObjectGraph.

    What is `stored` goes from another bundle as it is.

    Raises WriteError for names and element types that a bundle cannot hold.
    """
    sums: dict[str, _Crc32c] = {}
    entries: dict[str, bytes] = {}
    pieces: list[bytes | Watched] = []
    offset = 0
    for key, tensor in tensors.items():
        if tensor.dtype not in TYPE_NUMBERS:
            raise WriteError(f"TensorFlow has no type {tensor.dtype.value}", tensor=key)
        if not key or key.startswith("\0") or key == OBJECT_GRAPH_KEY:
            raise WriteError("has a name that a TensorFlow checkpoint cannot hold", tensor=key)
        sums[key] = _Crc32c()
        pieces.append(Watched(piece=tensor, sum=sums[key]))
        entries[key] = _entry_proto(TYPE_NUMBERS[tensor.dtype], tensor.shape, offset, tensor.nbytes)
        offset += tensor.nbytes
    for key, entry in stored.items():
        sums[key] = _Crc32c(entry.crc32c)
        pieces.append(entry.data)
        entries[key] = _entry_proto(_NUMBERS[entry.type_name], entry.shape, offset, len(entry.data))
        offset += len(entry.data)
    if object_graph is not None:
        data, sums[OBJECT_GRAPH_KEY] = _text_scalar(object_graph)
        pieces.append(data)
        entries[OBJECT_GRAPH_KEY] = _entry_proto(_STRING, (), offset, len(data))

    def index() -> bytes:
        checked = {
            key.encode("utf-8"): proto + protobuf.fixed32_field(6, crc32c.mask(sums[key].value))
            for key, proto in entries.items()
        }
        versions = protobuf.number_field(1, _VERSION)
        header = protobuf.number_field(1, 1) + protobuf.content_field(3, versions)
        return build_table([(b"", header), *sorted(checked.items())])

    return (
        OutputFile(name=f"{prefix_name}.data-00000-of-00001", pieces=tuple(pieces)),
        OutputFile(name=f"{prefix_name}.index", pieces=(Late(nbytes=len(index()), render=index),)),
    )


def _entry_proto(type_number: int, shape: tuple[int, ...], offset: int, size: int) -> bytes:
    dimensions = protobuf.content_fields(2, (protobuf.number_field(1, extent) for extent in shape))
    return (
        protobuf.number_field(1, type_number)
        + protobuf.content_field(2, dimensions)
        + protobuf.number_field(4, offset)
        + protobuf.number_field(5, size)
    )


def _text_scalar(text: bytes) -> tuple[bytes, _Crc32c]:
    """Return a string tensor of one element as it is stored, and its checksum."""
    total = _Crc32c()
    total.update(len(text).to_bytes(8 if len(text) >> 32 else 4, "little"))
    checked = crc32c.mask(total.value).to_bytes(4, "little") + text
    total.update(checked)
    return protobuf.varint(len(text)) + checked, total
