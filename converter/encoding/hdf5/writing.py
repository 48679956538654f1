"""Laying out an HDF5 file: libhdf5 writes the structure into memory, and never sees the bytes of a tensor."""

from __future__ import annotations

import io
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from converter.model.dtype import DType
from converter.model.output import Late, Piece, piece_bytes
from converter.model.tensor import Array, Tensor, identity

_PAGE_BYTES = 1 << 16
_PLACEHOLDER = b"\x1fckconv provenance goes here"
_NAMES_LIMIT_BYTES = 64_000
"""An attribute goes into its object's header, which holds less than 64 KiB; Keras (legacy_h5_format.py) splits too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileContent:
    """The content of a file: tensors by path, paths that share a tensor, and attributes of groups by path.

    Groups exist when something is in them, or when `attributes` names them.
    """

    tensors: Mapping[str, Tensor]
    links: Mapping[str, str] = field(default_factory=dict)
    attributes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


def shared(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors that are to be stored, and the paths that are links to them: ties are stored once."""
    owners: dict[Hashable, str] = {}
    links = {}
    for path, tensor in tensors.items():
        owner = owners.setdefault(identity(tensor), path)
        if owner != path:
            links[path] = owner
    return {path: tensor for path, tensor in tensors.items() if path not in links}, links


def pieces(content: FileContent) -> list[Piece]:
    """Return the pieces of an HDF5 file that holds `content`, the same for the same content: no time stamps.

    Every dataset is contiguous and allocated where it stands. An attribute that is Late is filled in at the end.
    """
    image = _Image()
    placed = _create(image, content)
    late = [value for owned in content.attributes.values() for value in owned.values() if isinstance(value, Late)]
    return list(_cut(image, placed, late))


def image(content: FileContent) -> Tensor:
    """Return the file that holds `content` as one tensor of bytes, for what encloses it. It may have nothing late."""
    parts = [piece for piece in pieces(content) if isinstance(piece, bytes | Tensor)]
    return _Joined(dtype=DType.UINT8, shape=(sum(map(piece_bytes, parts)),), parts=tuple(parts))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Joined(Tensor):
    """The bytes of one piece after the other."""

    parts: tuple[bytes | Tensor, ...]

    def chunks(self) -> Iterator[memoryview]:
        for part in self.parts:
            if isinstance(part, bytes):
                yield memoryview(part)
            else:
                yield from part.chunks()

    def _read(self) -> Array:
        return np.frombuffer(b"".join(map(bytes, self.chunks())), np.uint8)


def _create(image: _Image, content: FileContent) -> dict[int, Tensor]:
    """Write the structure; return where libhdf5 put each tensor."""
    import h5py

    placed: dict[int, Tensor] = {}
    with h5py.File(image, "w", track_order=False) as file:
        for path, owned in content.attributes.items():
            group = file.require_group(path) if path else file
            for name, value in owned.items():
                _set_attribute(group, name, value)
        for path, tensor in content.tensors.items():
            dataset = h5py.Dataset(_created(h5py, file, path, tensor))
            if dataset.dtype.kind == "V":
                dataset.attrs["dtype"] = tensor.dtype.value
            if tensor.nbytes:
                placed[dataset.id.get_offset()] = tensor
        for path, target in content.links.items():
            file[path] = file[target]
    return placed


def _created(h5py: Any, file: Any, path: str, tensor: Tensor) -> Any:
    """Create a dataset whose place in the file is settled at once, and never written by libhdf5."""
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_layout(h5py.h5d.CONTIGUOUS)
    properties.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    properties.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    properties.set_obj_track_times(False)
    links = h5py.h5p.create(h5py.h5p.LINK_CREATE)
    links.set_create_intermediate_group(True)
    links.set_char_encoding(h5py.h5t.CSET_UTF8)
    numpy = tensor.dtype.numpy
    stored = h5py.h5t.py_create(np.dtype(f"V{numpy.itemsize}") if numpy.isbuiltin == 2 else numpy, logical=True)
    space = h5py.h5s.create_simple(tensor.shape) if tensor.shape else h5py.h5s.create(h5py.h5s.SCALAR)
    return h5py.h5d.create(file.id, path.encode("utf-8"), stored, space, properties, links)


def _set_attribute(group: Any, name: str, value: Any) -> None:
    match value:
        case str():
            group.attrs[name] = value
        case Late():
            group.attrs[name] = np.bytes_(_PLACEHOLDER.ljust(value.nbytes, b"."))
        case _:
            for key, part in _split(name, [item.encode("utf-8") for item in value]):
                group.attrs[key] = np.array(part) if part else np.zeros(0, "S1")


def _split(name: str, items: list[bytes]) -> Iterator[tuple[str, list[bytes]]]:
    """Yield attribute names and the items in each: one attribute while it fits, else `name0`, `name1` ..."""
    width = max(map(len, items), default=1)
    each = max(1, _NAMES_LIMIT_BYTES // max(1, width))
    if len(items) <= each:
        yield name, items
        return
    for number, start in enumerate(range(0, len(items), each)):
        yield f"{name}{number}", items[start : start + each]


def _cut(image: _Image, placed: Mapping[int, Tensor], late: Sequence[Late]) -> Iterator[Piece]:
    """Yield the file: what libhdf5 wrote, and each tensor where it left room."""
    position = 0
    for offset, tensor in sorted(placed.items(), key=lambda item: item[0]):
        yield from _with_late(image.bytes_between(position, offset), late)
        yield tensor
        position = offset + tensor.nbytes
    yield from _with_late(image.bytes_between(position, image.size), late)


def _with_late(data: bytes, late: Sequence[Late]) -> Iterator[Piece]:
    for value in late:
        before, marker, rest = data.partition(_PLACEHOLDER.ljust(value.nbytes, b"."))
        if marker:
            yield before
            yield value
            data = rest
    if data:
        yield data


class _Image(io.RawIOBase):
    """A file in memory of which only what is written takes room."""

    def __init__(self) -> None:
        self._pages: dict[int, bytearray] = {}
        self._position = 0
        self.size = 0

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, position: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self.size}[whence]
        self._position = start + position
        return self._position

    def tell(self) -> int:
        return self._position

    def truncate(self, size: int | None = None) -> int:
        self.size = self._position if size is None else size
        return self.size

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        for page, start, stop, done in _spans(self._position, len(view)):
            self._pages.setdefault(page, bytearray(_PAGE_BYTES))[start:stop] = view[done : done + stop - start]
        self._position += len(view)
        self.size = max(self.size, self._position)
        return len(view)

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        count = max(0, min(len(view), self.size - self._position))
        view[:count] = self.bytes_between(self._position, self._position + count)
        self._position += count
        return count

    def bytes_between(self, start: int, stop: int) -> bytes:
        """Return a range; what was never written is zeros."""
        blank = bytes(_PAGE_BYTES)
        parts = (self._pages.get(page, blank)[low:high] for page, low, high, _ in _spans(start, stop - start))
        return b"".join(map(bytes, parts))


def _spans(position: int, length: int) -> Iterator[tuple[int, int, int, int]]:
    """Yield page, start and stop inside it, and how much came before, for a range."""
    done = 0
    while done < length:
        page, start = divmod(position + done, _PAGE_BYTES)
        stop = min(_PAGE_BYTES, start + length - done)
        yield page, start, stop, done
        done += stop - start
