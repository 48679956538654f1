"""The metadata of torch.distributed.checkpoint: which items there are, and where each lies in which file.

torch/distributed/checkpoint/metadata.py and filesystem.py, torch 2.13. `.metadata` is a pickle of dataclasses, read
here as plain data; items are small files of torch.save, one after the other in `*.distcp`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from converter.encoding.folder import open_inside
from converter.encoding.pickle import PLAIN, Constructor, Global, Machine, Placeholder, writer
from converter.encoding.tensor_slices import Slice, joined
from converter.encoding.torch_file import View, ZipArchive
from converter.encoding.torch_file.storages import DTYPES
from converter.errors import CkconvError, ReadError, of_tensor
from converter.model.dtype import DType
from converter.model.file import Location, PartFile, SourceFile
from converter.model.tensor import Tensor

METADATA_NAME = ".metadata"
SUFFIX = ".distcp"

_LIMIT_BYTES = 256 << 20
_RANK_LIMIT = 64
_METADATA = "torch.distributed.checkpoint.metadata"
_FILESYSTEM = "torch.distributed.checkpoint.filesystem"
_FIELDS = {
    "Metadata": ("state_dict_metadata", "planner_data", "storage_data"),
    "TensorStorageMetadata": ("properties", "size", "chunks"),
    "BytesStorageMetadata": (),
    "TensorProperties": ("dtype",),
    "ChunkStorageMetadata": ("offsets", "sizes"),
    "MetadataIndex": ("fqn", "offset"),
    "_StorageInfo": ("relative_path", "offset", "length", "transform_descriptors"),
}
"""Dataclasses and their first fields, in the order of their constructors."""

Key = str | int


@dataclass(frozen=True, slots=True, kw_only=True)
class FileRange:
    """A range of a data file."""

    file_name: str
    offset: int
    length: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """A part of a tensor: where it begins on each axis, its extents, and where it is."""

    starts: tuple[int, ...]
    shape: tuple[int, ...]
    place: FileRange


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorItem:
    """A tensor in one chunk or several; `path` leads to it through the nested state dict."""

    path: tuple[Key, ...]
    dtype: DType
    shape: tuple[int, ...]
    chunks: tuple[Chunk, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ValueItem:
    """Any other value."""

    path: tuple[Key, ...]
    place: FileRange


Item = TensorItem | ValueItem


def _extents(value: Any) -> tuple[int, ...]:
    is_sound = isinstance(value, tuple) and all(type(extent) is int and 0 <= extent < 1 << 62 for extent in value)
    if not is_sound or len(value) > _RANK_LIMIT:
        raise ReadError("has a shape or an offset that is not a tuple of whole numbers")
    return tuple(value)


def _size(arguments: tuple[Any, ...]) -> tuple[int, ...]:
    match arguments:
        case (tuple() | list() as extents,):
            return _extents(tuple(extents))
    raise ReadError("has a shape that is not a list of whole numbers")


_CONSTRUCTORS: Mapping[tuple[str, str], Constructor] = {
    **PLAIN,
    ("torch", "Size"): _size,
    ("torch.serialization", "_get_layout"): lambda arguments: None,
}


def read_metadata(file: SourceFile) -> dict[str, Item]:
    """Return the items by their dotted names. Raises ReadError for what is malformed, SafetyError as pickles do."""
    if file.size > _LIMIT_BYTES:
        raise ReadError(f"is metadata of {file.size} bytes, and at most {_LIMIT_BYTES} are read", path=file.path)
    machine = Machine(file, path=file.path, constructors=_CONSTRUCTORS)
    try:
        root = machine.load()
        if machine.end != file.size:
            raise ReadError("has bytes after the end of its pickle")
        return _items(root)
    except CkconvError as error:
        error.path = error.path or str(file.path)
        raise


def _items(root: Any) -> dict[str, Item]:
    declared, paths, places = _values(root, "Metadata")
    if not isinstance(declared, dict) or not isinstance(places, dict) or not isinstance(paths, dict | None):
        raise ReadError("does not say what it holds, or where")
    where: dict[tuple[str, tuple[int, ...] | None], FileRange] = {}
    for index, info in places.items():
        name, starts = _values(index, "MetadataIndex")
        key = (name, None if starts is None else _extents(starts))
        if not isinstance(name, str) or key in where:
            raise ReadError("stores something twice, or under no name")
        where[key] = _place(info, name)
    items: dict[str, Item] = {}
    for name, value in declared.items():
        path = _path(name, None if paths is None else paths.get(name))
        with of_tensor(name):
            items[name] = _item(name, value, path, where)
    if where:
        raise ReadError("is stored and not declared", tensor=next(iter(where))[0])
    return items


def _values(value: Any, *names: str) -> list[Any]:
    """Return the fields of an instance of one of these dataclasses, None for those that are not there."""
    of = value.of if isinstance(value, Placeholder) else None
    if of is None or of.name not in names or not of.module.startswith("torch.distributed."):
        raise ReadError(f"has something else where {names[0]} belongs")
    fields = _FIELDS[of.name]
    state = value.state
    if isinstance(state, dict):
        return [state.get(field) for field in fields]
    arguments = state if isinstance(state, tuple) else value.arguments
    return [*arguments, *[None] * len(fields)][: len(fields)]


def _place(info: Any, name: str) -> FileRange:
    match _values(info, "_StorageInfo"):
        case [str() as file_name, int() as offset, int() as length, None | () | []] if offset >= 0 and length >= 0:
            return FileRange(file_name=file_name, offset=offset, length=length)
    raise ReadError("is not stored as a range of bytes of a file, or is compressed", tensor=name)


def _path(name: Any, path: Any) -> tuple[Key, ...]:
    if not isinstance(name, str) or any("\ud800" <= character <= "\udfff" for character in name):
        raise ReadError("has an item without a name that is text")
    if path is None:
        return (name,)
    is_path = isinstance(path, tuple) and all(type(key) is int or isinstance(key, str) for key in path)
    if not is_path or not 0 < len(path) <= _RANK_LIMIT:
        raise ReadError("is listed without its place in the state dict", tensor=name)
    return tuple(path)


def _item(
    name: str, value: Any, path: tuple[Key, ...], where: dict[tuple[str, tuple[int, ...] | None], FileRange]
) -> Item:
    """Return an item, and take its places out of `where`."""

    def popped(starts: tuple[int, ...] | None) -> FileRange:
        if (name, starts) not in where:
            raise ReadError("is declared and not stored")
        return where.pop((name, starts))

    fields = _values(value, "TensorStorageMetadata", "BytesStorageMetadata")
    if not fields:
        return ValueItem(path=path, place=popped(None))
    properties, size, chunks = fields
    (of,) = _values(properties, "TensorProperties")
    dtype = DTYPES.get(of.name) if isinstance(of, Global) and of.module == "torch" else None
    if dtype is None:
        raise ReadError(f"has the element type {of}, which is not read")
    shape = _extents(size)
    if not isinstance(chunks, list) or not chunks:
        raise ReadError("has no chunks")
    found = []
    for chunk in chunks:
        starts, extents = (_extents(part) for part in _values(chunk, "ChunkStorageMetadata"))
        if not len(starts) == len(extents) == len(shape):
            raise ReadError("has a chunk with other axes than its own")
        found.append(Chunk(starts=starts, shape=extents, place=popped(starts)))
    return TensorItem(path=path, dtype=dtype, shape=shape, chunks=tuple(found))


class DataFiles:
    """The data files of a folder, each opened once."""

    def __init__(self, folder: Location) -> None:
        self.folder = folder
        self._opened: dict[str, SourceFile] = {}

    def check(self, items: Mapping[str, Item]) -> None:
        """Raise ReadError for ranges that are not inside their files, or overlap without being the same."""
        places = [(place, name) for name, item in items.items() for place in places_of(item)]
        last = FileRange(file_name="", offset=0, length=0)
        for place, name in sorted(places, key=lambda pair: (pair[0].file_name, pair[0].offset, pair[0].length)):
            file = self._file(place.file_name)
            if place.offset + place.length > file.size:
                end = place.offset + place.length
                raise ReadError(f"ends at byte {end}, the file has {file.size}", path=file.path, tensor=name)
            is_apart = place.file_name != last.file_name or place.offset >= last.offset + last.length
            if not (is_apart or place == last):
                raise ReadError("overlaps what is stored beside it", path=file.path, tensor=name)
            last = place

    def value(self, place: FileRange) -> Any:
        """Return what is stored at a place, as converter.encoding.torch_file gives it."""
        return ZipArchive(PartFile(self._file(place.file_name), place.offset, place.length)).load()

    def tensor(self, item: TensorItem) -> Tensor:
        """Return a tensor, unread. Raises ReadError unless its chunks are what is declared, and form a grid."""
        slices = [Slice(starts=chunk.starts, tensor=self._chunk(item, chunk)) for chunk in item.chunks]
        whole = joined(slices, item.shape)
        if whole is None:
            raise ReadError("has chunks that overlap, leave gaps or form no grid")
        return whole

    def _chunk(self, item: TensorItem, chunk: Chunk) -> Tensor:
        value = self.value(chunk.place)
        if not isinstance(value, View):
            raise ReadError("is stored as something else than a tensor")
        tensor = value.tensor()
        if (tensor.dtype, tensor.shape) != (item.dtype, chunk.shape):
            found, declared = (
                (dtype.value, list(shape)) for dtype, shape in ((tensor.dtype, tensor.shape), (item.dtype, chunk.shape))
            )
            raise ReadError(f"is stored as {found}, declared as {declared}")
        return tensor

    def _file(self, name: str) -> SourceFile:
        if name not in self._opened:
            self._opened[name] = open_inside(self.folder, name)
        return self._opened[name]


def places_of(item: Item) -> Sequence[FileRange]:
    """Return where an item is."""
    return [chunk.place for chunk in item.chunks] if isinstance(item, TensorItem) else [item.place]


def metadata_pickle(items: Mapping[str, Item]) -> bytes:
    """Return the `.metadata` that torch.distributed.checkpoint reads as these items."""
    places: dict[Any, Any] = {}
    for name, item in items.items():
        parts = item.chunks if isinstance(item, TensorItem) else (None,)
        for part, place in zip(parts, places_of(item), strict=True):
            index = (
                _instance("MetadataIndex", name)
                if part is None
                else _instance("MetadataIndex", name, _torch_size(part.starts))
            )
            places[index] = _instance("_StorageInfo", place.file_name, place.offset, place.length, module=_FILESYSTEM)
    declared = {name: _declared(item) for name, item in items.items()}
    paths = {name: item.path for name, item in items.items()}
    return writer.dumps(_instance("Metadata", declared, paths, places))


def _declared(item: Item) -> writer.Call:
    if isinstance(item, ValueItem):
        return _instance("BytesStorageMetadata")
    chunks = [
        _instance("ChunkStorageMetadata", _torch_size(chunk.starts), _torch_size(chunk.shape)) for chunk in item.chunks
    ]
    properties = _instance("TensorProperties", Global(module="torch", name=item.dtype.value))
    return _instance("TensorStorageMetadata", properties, _torch_size(item.shape), chunks)


def _instance(name: str, *arguments: Any, module: str = _METADATA) -> writer.Call:
    return writer.Call(function=Global(module=module, name=name), arguments=arguments)


def _torch_size(extents: tuple[int, ...]) -> writer.Call:
    return writer.Call(function=Global(module="torch", name="Size"), arguments=(extents,))


def whole_tensor(path: tuple[Key, ...], tensor: Tensor, place: FileRange) -> TensorItem:
    """Return the item of a tensor that is stored in one chunk."""
    chunk = Chunk(starts=(0,) * len(tensor.shape), shape=tensor.shape, place=place)
    return TensorItem(path=path, dtype=tensor.dtype, shape=tensor.shape, chunks=(chunk,))
