"""Judging what an HDF5 file declares: objects that stay inside it, as declarations of tensors."""

from __future__ import annotations

import base64
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from converter.encoding.hdf5 import process
from converter.encoding.hdf5.chunks import DEFLATE, FLETCHER32, LZF, SHUFFLE, Assembled, Chunk
from converter.errors import ReadError, SafetyError
from converter.model.dtype import DType
from converter.model.file import Checksum, SourceFile
from converter.model.tensor import ArrayTensor, ComputedTensor, FileTensor, Tensor, byteswapped

_DEPTH_LIMIT = 64
_FREE_BYTES, _ALL_FREE_BYTES = 16 << 20, 64 << 20
_GROWTH_LIMIT = 64
_FILTERS = {DEFLATE, SHUFFLE, FLETCHER32, LZF}
_OPAQUE_DTYPES = {dtype.value: dtype for dtype in DType if dtype.is_floating and dtype.itemsize <= 2}
_IS_EXTENSION = 2
"""numpy.dtype.isbuiltin of the types of ml_dtypes, which HDF5 has no names for."""

_ORDERS: tuple[Literal["<", ">"], ...] = ("<", ">")
_TYPES = {
    **{
        dtype.numpy.newbyteorder(order).str: (dtype, order == ">" and dtype.itemsize > 1)
        for dtype in DType
        if dtype.numpy.isbuiltin != _IS_EXTENSION
        for order in _ORDERS
    },
    "<bfloat16": (DType.BFLOAT16, False),
    ">bfloat16": (DType.BFLOAT16, True),
}
"""Element type, and whether it is stored big-endian."""

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

    def groups(self) -> Iterator[tuple[tuple[str, ...], Group]]:
        """Yield path and group of this one, whose path is empty, and of all below."""
        yield (), self
        for name, member in self.members.items():
            if isinstance(member, Group):
                for path, group in member.groups():
                    yield (name, *path), group

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
    length = file.size - offset if length is None else length
    objects = process.objects(file, offset=offset, length=length)
    judge = _Judge(file=file, offset=offset, length=length, checksum=checksum, objects=objects)
    group = judge.group(0, ())
    judge.check_overlaps()
    return group


def is_numbered(file: SourceFile) -> bool:
    """Whether a file numbers variables in groups called `vars`, as `.weights.h5` does, and lists no layers.

    Looks at a bounded number of objects. Raises ReadError for what libhdf5 cannot open.
    """
    return process.is_numbered(file, offset=0, length=file.size)


@dataclass(slots=True, kw_only=True)
class _Judge:
    file: SourceFile
    offset: int
    length: int
    checksum: Checksum | None
    objects: list[dict[str, Any]]
    groups: set[int] = field(default_factory=set)
    datasets: dict[int, Dataset] = field(default_factory=dict)
    ranges: list[tuple[int, int, str]] = field(default_factory=list)
    free_bytes: int = _ALL_FREE_BYTES

    def group(self, index: int, path: tuple[str, ...]) -> Group:
        if index in self.groups:
            raise ReadError("is a group that is linked twice", path=self.file.path, tensor="/".join(path))
        if len(path) > _DEPTH_LIMIT:
            raise ReadError(f"has groups nested more than {_DEPTH_LIMIT} deep", path=self.file.path)
        self.groups.add(index)
        described = self.objects[index]
        members = {name: self.member(place, (*path, name)) for name, place in described["members"]}
        if len(members) != len(described["members"]):
            raise ReadError("has two members of one name", path=self.file.path, tensor="/".join(path) or None)
        return Group(attributes=_attributes(described), members=members)

    def member(self, index: int | None, path: tuple[str, ...]) -> Group | Dataset:
        name = "/".join(path)
        if index is None:
            what = "is a link to another place, which is not followed"
            raise SafetyError(what, path=self.file.path, tensor=name)
        described = self.objects[index]
        if "members" in described:
            return self.group(index, path)
        if "type" not in described:
            raise ReadError("is neither group nor dataset", path=self.file.path, tensor=name)
        if index not in self.datasets:
            try:
                self.datasets[index] = Dataset(tensor=self.tensor(described, name))
            except (ReadError, SafetyError) as error:
                error.path, error.tensor = error.path or str(self.file.path), name
                raise
        return self.datasets[index]

    def tensor(self, described: Mapping[str, Any], name: str) -> Tensor | None:
        filters = tuple(described["filters"])
        if described["is_elsewhere"]:
            raise SafetyError("has its data in another file")
        if not _FILTERS.issuperset(filters):
            raise SafetyError(f"needs the filters {', '.join(map(str, filters))}")
        if described["type"] == "text":
            return None
        dtype, is_big_endian = _element_type(described)
        if described["shape"] is None:
            raise ReadError("has no shape")
        shape = tuple(described["shape"])
        self.check_growth(described, math.prod(shape) * dtype.itemsize, dtype.itemsize)
        if "chunks" in described:
            tensor = self.chunked(described, filters, dtype, shape, name)
        elif filters:
            raise ReadError("has filters and is not in chunks")
        else:
            tensor = self.whole(described, dtype, shape, name)
        return byteswapped(tensor) if is_big_endian else tensor

    def check_growth(self, described: Mapping[str, Any], nbytes: int, item_bytes: int) -> None:
        """Refuse datasets whose decoded size exceeds `_GROWTH_LIMIT` times their stored size, each and in sum.

        Raises ReadError.
        """
        stored = min(described["stored_bytes"], self.length)
        chunk_bytes = math.prod(described.get("chunk_shape", (0,))) * item_bytes
        grown = max(nbytes, len(described.get("chunks", ())) * chunk_bytes) - _GROWTH_LIMIT * stored
        self.free_bytes -= max(0, grown)
        if max(nbytes, chunk_bytes) > max(_FREE_BYTES, _GROWTH_LIMIT * stored) or self.free_bytes < 0:
            raise ReadError(f"declares {nbytes} bytes in chunks of {chunk_bytes}, of which {stored} are stored")

    def whole(self, described: Mapping[str, Any], dtype: DType, shape: tuple[int, ...], name: str) -> Tensor:
        nbytes, start = math.prod(shape) * dtype.itemsize, described.get("offset")
        if start is not None:
            if described["stored_bytes"] < nbytes:
                raise ReadError(f"has {described['stored_bytes']} bytes instead of {nbytes}")
            return self.stored(start, dtype, shape, name)
        if "data" in described:
            data = base64.b64decode(described["data"])
        else:
            data = _fill(described, dtype) * math.prod(shape)
        return ArrayTensor(dtype=dtype, shape=shape, array=np.frombuffer(data, dtype.numpy).reshape(shape))

    def stored(self, start: int, dtype: DType, shape: tuple[int, ...], name: str) -> FileTensor:
        """Return a tensor that lies in the file as it is, not beyond the range that holds the HDF5 file.

        Raises ReadError for one that is.
        """
        tensor = FileTensor(
            dtype=dtype, shape=shape, file=self.file, offset=self.offset + start, checksum=self.checksum
        )
        stop = start + tensor.nbytes
        if not 0 <= start <= stop <= self.length:
            raise ReadError(f"needs {tensor.nbytes} bytes at {start}, of {self.length} in all")
        self.ranges.append((start, stop, name))
        return tensor

    def chunked(
        self, described: Mapping[str, Any], filters: tuple[int, ...], dtype: DType, shape: tuple[int, ...], name: str
    ) -> Tensor:
        chunk_shape = tuple(described["chunk_shape"])
        if len(chunk_shape) != len(shape) or not all(step > 0 for step in chunk_shape):
            raise ReadError(f"has chunks of shape {list(chunk_shape)}, which cannot cover its shape {list(shape)}")
        places = math.prod(-(-extent // step) for extent, step in zip(shape, chunk_shape, strict=True))
        if len(described["chunks"]) > places:
            raise ReadError(f"has {len(described['chunks'])} chunks where {places} belong")
        inputs, chunks = [], {}
        for origin, start, nbytes, skipped in described["chunks"]:
            if any(
                not 0 <= at < extent or at % step for at, extent, step in zip(origin, shape, chunk_shape, strict=True)
            ):
                raise ReadError(f"has a chunk at {origin}, where none belongs")
            chunks[tuple(origin)] = Chunk(origin=tuple(origin), skipped=skipped)
            inputs.append(self.stored(start, DType.UINT8, (nbytes,), name))
        if len(chunks) != len(inputs):
            raise ReadError("has two chunks in one place")
        assembled = Assembled(
            dtype=dtype,
            shape=shape,
            chunk_shape=chunk_shape,
            chunks=tuple(chunks.values()),
            filters=filters,
            fill=_fill(described, dtype),
            path=self.file.path,
        )
        return ComputedTensor(dtype=dtype, shape=shape, inputs=tuple(inputs), operation=assembled)

    def check_overlaps(self) -> None:
        """Raise ReadError when two datasets share bytes: small files must not become large checkpoints."""
        end, before = 0, ""
        for start, stop, name in sorted(item for item in self.ranges if item[0] < item[1]):
            if start < end:
                raise ReadError(f"shares bytes with {before!r}", path=self.file.path, tensor=name)
            end, before = stop, name


def _attributes(described: Mapping[str, Any]) -> dict[str, str | tuple[str, ...]]:
    return {name: value if isinstance(value, str) else tuple(value) for name, value in described["attributes"].items()}


def _fill(described: Mapping[str, Any], dtype: DType) -> bytes:
    data = base64.b64decode(described.get("fill") or b"") or bytes(dtype.itemsize)
    if len(data) != dtype.itemsize:
        raise ReadError(f"has a fill value of {len(data)} bytes")
    return data


def _element_type(described: Mapping[str, Any]) -> tuple[DType, bool]:
    """Return the element type, and whether it is stored big-endian.

    bfloat16 and 8-bit floats are opaque with an attribute `dtype`, as Keras 3 (saving_lib.py) writes bfloat16.
    """
    named = described["attributes"].get("dtype")
    if described["type"] == "opaque" and isinstance(named, str) and named in _OPAQUE_DTYPES:
        dtype = _OPAQUE_DTYPES[named]
        if described["item_bytes"] == dtype.itemsize:
            return dtype, False
    if described["type"] not in _TYPES:
        raise ReadError(f"holds elements of type {described['type']}, which is not read")
    return _TYPES[described["type"]]
