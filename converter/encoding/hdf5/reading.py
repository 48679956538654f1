"""Walking an HDF5 file: one object at a time, by links that stay inside it, to declarations of tensors."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np

from converter.encoding.hdf5.chunks import DEFLATE, FLETCHER32, LZF, SHUFFLE, Assembled, Chunk
from converter.errors import ReadError, SafetyError
from converter.model.dtype import DType
from converter.model.file import Checksum, SourceFile
from converter.model.tensor import ArrayTensor, ComputedTensor, FileTensor, Tensor, byteswapped

_DEPTH_LIMIT = 64
_OBJECT_LIMIT = 1 << 20
_CHUNK_LIMIT = 1 << 20
_SNIFFED_OBJECTS = 10_000
_ATTRIBUTE_LIMIT_BYTES = 64 << 20
_FREE_BYTES = 16 << 20
_GROWTH_LIMIT = 64
_FILTERS = {DEFLATE, SHUFFLE, FLETCHER32, LZF}
_ATTRIBUTES = re.compile(
    r"(?:layer_names|weight_names)\d*|name|dtype|backend|keras_version|model_config|training_config|ckconv(?:_\w+)?"
)
_OPAQUE_DTYPES = {dtype.value: dtype for dtype in DType if dtype.is_floating and dtype.itemsize <= 2}
_BFLOAT16_FIELDS = (15, 7, 8, 0, 7)
_BFLOAT16_BIAS = 127
_IS_EXTENSION = 2
"""numpy.dtype.isbuiltin of the types of ml_dtypes, which HDF5 has no names for."""

_KINDS = (
    *("INTEGER", "FLOAT", "TIME", "BITFIELD", "OPAQUE"),
    *("COMPOUND", "REFERENCE", "ENUM", "VLEN", "ARRAY"),
)

Attributes = Mapping[str, "str | tuple[str, ...]"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Dataset:
    """A dataset; `tensor` is None for text. Two hard links to one dataset give one object."""

    tensor: Tensor | None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Group:
    """A group: its textual attributes and its members, in the order of the file."""

    attributes: Attributes
    members: Mapping[str, Group | Dataset]

    def datasets(self) -> Iterator[tuple[tuple[str, ...], Dataset]]:
        """Yield path and dataset of everything below."""
        for name, member in self.members.items():
            if isinstance(member, Dataset):
                yield (name,), member
            else:
                for path, dataset in member.datasets():
                    yield (name, *path), dataset

    def group(self, *path: str) -> Group | None:
        """Return the group at `path`, None when there is none."""
        here: Group | Dataset | None = self
        for name in path:
            here = here.members.get(name) if isinstance(here, Group) else None
        return here if isinstance(here, Group) else None


def read(file: SourceFile, *, offset: int = 0, length: int | None = None, checksum: Checksum | None = None) -> Group:
    """Return the root group of the HDF5 file in `file`, or in a range of it. No tensor is read.

    Datasets stored whole become FileTensors, under `checksum` when there is one; chunked ones are put together as
    they are read. Raises ReadError for damage, element types that are no numbers, overlaps, and more than can be
    meant; SafetyError for soft and external links, external and virtual storage, and filters beyond deflate, shuffle,
    fletcher32 and lzf.
    """
    whole = _Range(file, offset, file.size - offset if length is None else length)
    with _opened(whole) as root:
        walk = _Walk(file=file, offset=offset, checksum=checksum)
        group = walk.group(root, ())
    walk.check_overlaps()
    return group


def is_numbered(file: SourceFile) -> bool:
    """Whether a file numbers variables in groups called `vars`, as `.weights.h5` does, and lists no layers.

    Looks at a bounded number of objects. Never raises for what it finds.
    """
    from h5py import h5a

    try:
        with _opened(_Range(file, 0, file.size)) as root:
            names = [h5a.open(root, index=index).name for index in range(h5a.get_num_attrs(root))]
            return not any(name.startswith(b"layer_names") for name in names) and _find(root, b"vars", _SNIFFED_OBJECTS)
    except ReadError:
        return False


def _find(root: Any, name: bytes, limit: int) -> bool:
    """Search depth first: what layers hold is told by the first of them."""
    from h5py import h5g, h5l, h5o

    waiting, seen = [(root, iter(list(root)))], set()
    while waiting and limit > 0:
        here, links = waiting[-1]
        link = next(links, None)
        if link is None:
            waiting.pop()
            continue
        limit -= 1
        if here.links.get_info(link).type != h5l.TYPE_HARD:
            continue
        member = h5o.open(here, link)
        address = h5o.get_info(member).addr
        if isinstance(member, h5g.GroupID) and address not in seen:
            if link == name:
                return True
            seen.add(address)
            waiting.append((member, iter(list(member))))
    return False


class _Range(io.RawIOBase):
    """A part of a file as h5py takes it: opened once, by us, so that libhdf5 never opens a path."""

    def __init__(self, file: SourceFile, offset: int, length: int) -> None:
        self._file, self._offset, self._length, self._position = file, offset, length, 0
        self.path = file.path

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, position: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._length}[whence]
        self._position = start + position
        return self._position

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        count = max(0, min(len(view), self._length - self._position))
        self._file.read_into(self._offset + self._position, view[:count])
        self._position += count
        return count


@contextmanager
def _opened(file: _Range) -> Iterator[Any]:
    """Open the root group. What libhdf5 finds wrong, now or until the end of the block, becomes a ReadError."""
    import h5py

    try:
        with _without_plugins(h5py.h5pl), h5py.File(file, "r") as root:
            yield root["/"].id
    except (OSError, RuntimeError, KeyError, ValueError) as error:
        text = str(error.args[0]) if error.args else ""
        raise ReadError(f"is damaged, or no HDF5: {text}", path=file.path) from error


@contextmanager
def _without_plugins(plugins: Any) -> Iterator[None]:
    """Empty the path that libhdf5 loads filters from (HDF5_PLUGIN_PATH, or a default) while a file is open."""
    paths = [plugins.get(index) for index in range(plugins.size())]
    for _ in paths:
        plugins.remove(0)
    try:
        yield
    finally:
        for path in paths:
            plugins.append(path)


@dataclass(slots=True, kw_only=True)
class _Walk:
    file: SourceFile
    offset: int
    checksum: Checksum | None
    objects: dict[int, Dataset | None] = field(default_factory=dict)
    ranges: list[tuple[int, int, str]] = field(default_factory=list)

    def group(self, group: Any, path: tuple[str, ...]) -> Group:
        from h5py import h5o

        if len(path) > _DEPTH_LIMIT:
            raise ReadError(f"has groups nested more than {_DEPTH_LIMIT} deep", path=self.file.path)
        address = h5o.get_info(group).addr
        if address in self.objects:
            raise ReadError("is a group that is linked twice", path=self.file.path, tensor="/".join(path))
        self.objects[address] = None
        members = {name: self.member(group, raw, (*path, name)) for raw, name in self.links(group, path)}
        return Group(attributes=self.attributes(group), members=members)

    def links(self, group: Any, path: tuple[str, ...]) -> Iterator[tuple[bytes, str]]:
        from h5py import h5l

        if group.get_num_objs() + len(self.objects) > _OBJECT_LIMIT:
            raise ReadError(f"has more than {_OBJECT_LIMIT} objects", path=self.file.path)
        for raw in list(group):
            name = raw.decode("utf-8")
            if group.links.get_info(raw).type != h5l.TYPE_HARD:
                raise SafetyError(
                    "is a link to another place, which is not followed",
                    path=self.file.path,
                    tensor="/".join((*path, name)),
                )
            yield raw, name

    def member(self, group: Any, raw: bytes, path: tuple[str, ...]) -> Group | Dataset:
        from h5py import h5d, h5g, h5o

        member = h5o.open(group, raw)
        if isinstance(member, h5g.GroupID):
            return self.group(member, path)
        name = "/".join(path)
        if not isinstance(member, h5d.DatasetID):
            raise ReadError("is neither group nor dataset", path=self.file.path, tensor=name)
        address = h5o.get_info(member).addr
        if address not in self.objects:
            self.objects[address] = self.dataset(member, name)
        known = self.objects[address]
        if known is None:
            raise ReadError("is a group and a dataset", path=self.file.path, tensor=name)
        return known

    def attributes(self, owner: Any) -> dict[str, str | tuple[str, ...]]:
        """Return the attributes that this program knows, as text; those of other types are left out."""
        from h5py import AttributeManager, h5a, h5s, h5t

        found: dict[str, str | tuple[str, ...]] = {}
        for index in range(h5a.get_num_attrs(owner)):
            attribute = h5a.open(owner, index=index)
            name = attribute.name.decode("utf-8")
            if not _ATTRIBUTES.fullmatch(name) or attribute.get_space().get_simple_extent_type() == h5s.NULL:
                continue
            if math.prod(attribute.shape) == 0:  # Keras writes no names as an array of no float64s
                found[name] = ()
            elif attribute.get_type().get_class() == h5t.STRING:
                nbytes = attribute.get_type().get_size() * math.prod(attribute.shape)
                if nbytes > _ATTRIBUTE_LIMIT_BYTES or len(attribute.shape) > 1:
                    raise ReadError(f"has an attribute {name!r} that makes no sense", path=self.file.path)
                value = AttributeManager(_Owner(owner))[name]
                found[name] = tuple(_text(item) for item in value) if attribute.shape else _text(value)
        return found

    def dataset(self, dataset: Any, name: str) -> Dataset:
        try:
            return self._declared(dataset, name)
        except (ReadError, SafetyError) as error:
            error.path, error.tensor = error.path or str(self.file.path), name
            raise

    def _declared(self, dataset: Any, name: str) -> Dataset:
        from h5py import h5d, h5s, h5t

        properties = dataset.get_create_plist()
        layout = properties.get_layout()
        if properties.get_external_count() or layout == h5d.VIRTUAL:
            raise SafetyError("has its data in another file")
        filters = tuple(properties.get_filter(index)[0] for index in range(properties.get_nfilters()))
        if not _FILTERS.issuperset(filters):
            raise SafetyError(f"needs the filters {', '.join(map(str, filters))}")
        type_id = dataset.get_type()
        if type_id.get_class() == h5t.STRING:
            return Dataset(tensor=None)
        dtype, is_big_endian = _element_type(type_id, self.attributes(dataset).get("dtype"))
        if dataset.get_space().get_simple_extent_type() == h5s.NULL:
            raise ReadError("has no shape")
        shape = tuple(int(extent) for extent in dataset.shape)
        nbytes, stored = math.prod(shape) * dtype.itemsize, dataset.get_storage_size()
        if nbytes > max(_FREE_BYTES, _GROWTH_LIMIT * stored):
            raise ReadError(f"declares {nbytes} bytes, of which {stored} are stored")
        if layout == h5d.CHUNKED:
            tensor = self._chunked(dataset, properties, filters, dtype, shape, name)
        elif filters:
            raise ReadError("has filters and is not in chunks")
        else:
            tensor = self._whole(dataset, properties, dtype, shape, name)
        return Dataset(tensor=byteswapped(tensor) if is_big_endian else tensor)

    def _whole(self, dataset: Any, properties: Any, dtype: DType, shape: tuple[int, ...], name: str) -> Tensor:
        from h5py import h5d, h5s

        nbytes, stored = math.prod(shape) * dtype.itemsize, dataset.get_storage_size()
        start = dataset.get_offset()
        if start is not None and stored:
            if stored < nbytes:
                raise ReadError(f"has {stored} bytes instead of {nbytes}")
            tensor = FileTensor(
                dtype=dtype, shape=shape, file=self.file, offset=self.offset + start, checksum=self.checksum
            )
            self.ranges.append((start, start + nbytes, name))
            return tensor
        if properties.get_layout() == h5d.COMPACT and nbytes:
            array = np.empty(shape, f"V{dtype.itemsize}")
            dataset.read(h5s.ALL, h5s.ALL, array, dataset.get_type())
            return ArrayTensor(dtype=dtype, shape=shape, array=_viewed(array, dtype))
        filled = np.full(shape, np.frombuffer(_fill(properties, dataset, dtype), f"V{dtype.itemsize}")[0])
        return ArrayTensor(dtype=dtype, shape=shape, array=_viewed(filled, dtype))

    def _chunked(
        self, dataset: Any, properties: Any, filters: tuple[int, ...], dtype: DType, shape: tuple[int, ...], name: str
    ) -> Tensor:
        chunk_shape = tuple(int(extent) for extent in properties.get_chunk())
        chunk_bytes, stored = math.prod(chunk_shape) * dtype.itemsize, dataset.get_storage_size()
        if len(chunk_shape) != len(shape) or chunk_bytes > max(_FREE_BYTES, _GROWTH_LIMIT * stored):
            raise ReadError(f"has chunks of shape {list(chunk_shape)}, which make no sense")
        count = dataset.get_num_chunks()
        places = math.prod(-(-extent // step) for extent, step in zip(shape, chunk_shape, strict=True))
        if count > min(places, _CHUNK_LIMIT):
            raise ReadError(f"has {count} chunks where {places} belong")
        inputs, chunks = [], []
        for index in range(count):
            info = dataset.get_chunk_info(index)
            origin = tuple(int(start) for start in info.chunk_offset)
            if any(start >= extent for start, extent in zip(origin, shape, strict=True)):
                raise ReadError(f"has a chunk at {list(origin)}, outside of it")
            chunks.append(Chunk(origin=origin, skipped=info.filter_mask))
            inputs.append(
                FileTensor(
                    dtype=DType.UINT8,
                    shape=(int(info.size),),
                    file=self.file,
                    offset=self.offset + int(info.byte_offset),
                    checksum=self.checksum,
                )
            )
            self.ranges.append((int(info.byte_offset), int(info.byte_offset) + int(info.size), name))
        assembled = Assembled(
            dtype=dtype,
            shape=shape,
            chunk_shape=chunk_shape,
            chunks=tuple(chunks),
            filters=filters,
            fill=_fill(properties, dataset, dtype),
        )
        return ComputedTensor(dtype=dtype, shape=shape, inputs=tuple(inputs), operation=assembled)

    def check_overlaps(self) -> None:
        """Raise ReadError when two datasets share bytes: small files must not become large checkpoints."""
        end, before = 0, ""
        for start, stop, name in sorted(item for item in self.ranges if item[0] < item[1]):
            if start < end:
                raise ReadError(f"shares bytes with {before!r}", path=self.file.path, tensor=name)
            end, before = stop, name


@dataclass(frozen=True, slots=True)
class _Owner:
    """What h5py's attribute manager wants of an object."""

    id: Any


def _text(value: Any) -> str:
    return value.decode("utf-8") if isinstance(value, bytes) else str(value)


def _fill(properties: Any, dataset: Any, dtype: DType) -> bytes:
    from h5py import h5d

    if properties.fill_value_defined() == h5d.FILL_VALUE_USER_DEFINED:
        typed = np.zeros((), dataset.dtype)
        properties.get_fill_value(typed)
        return bytes(typed.tobytes())
    return bytes(dtype.itemsize)


def _viewed(array: Any, dtype: DType) -> Any:
    return array.reshape(-1).view(dtype.numpy).reshape(array.shape)


def _element_type(type_id: Any, named: str | tuple[str, ...] | None) -> tuple[DType, bool]:
    """Return the element type, and whether it is stored big-endian.

    bfloat16 and 8-bit floats are opaque with an attribute `dtype`, as Keras 3 (saving_lib.py) writes bfloat16.
    """
    from h5py import h5t

    kind = type_id.get_class()
    if kind == h5t.OPAQUE and isinstance(named, str) and named in _OPAQUE_DTYPES:
        dtype = _OPAQUE_DTYPES[named]
        if type_id.get_size() == dtype.itemsize:
            return dtype, False
    for stored, dtype, is_big_endian in _standard_types():
        if type_id.equal(stored):
            return dtype, is_big_endian
    if kind == h5t.FLOAT and type_id.get_fields() == _BFLOAT16_FIELDS and type_id.get_ebias() == _BFLOAT16_BIAS:
        return DType.BFLOAT16, bool(type_id.get_order() == h5t.ORDER_BE)
    known = next((name.lower() for name in _KINDS if getattr(h5t, name) == kind), str(kind))
    raise ReadError(f"holds elements of type {known}, which is not read")


@cache
def _standard_types() -> tuple[tuple[Any, DType, bool], ...]:
    from h5py import h5t

    return tuple(
        (h5t.py_create(dtype.numpy.newbyteorder(order), logical=True), dtype, order == ">")
        for dtype in DType
        if dtype.numpy.isbuiltin != _IS_EXTENSION
        for order in ("<", ">")
    )
