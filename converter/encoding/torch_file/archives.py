"""The two layouts of torch.save: a zip archive (since torch 1.6), and five pickles followed by raw storages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from converter.encoding import zip as zip_archive
from converter.encoding.pickle import FileBytes, Machine, MemoryBytes, looks_like_pickle
from converter.encoding.torch_file.rebuild import CONSTRUCTORS
from converter.encoding.torch_file.script import Script, is_script
from converter.encoding.torch_file.storages import Storage, storage_dtype
from converter.encoding.zip import Member
from converter.errors import ReadError
from converter.model.dtype import DType
from converter.model.file import Checksum, SourceFile
from converter.model.tensor import ArrayTensor, FileTensor, Tensor, byteswapped

MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_PROTOCOL = 1001
_PICKLE_LIMIT_BYTES = 256 << 20
_CODE_LIMIT_BYTES = 64 << 20
_HEAD_BYTES = 4096
_STORAGE_OF_ITS_OWN = ("torch.storage", "_load_from_bytes")
_NUMEL_LIMIT = 1 << 62
_COUNT_BYTES = 8
_PADDING_LIMIT_BYTES = (1 << 16) - 1
"""Zeros behind the last storage, which torch does not look at; as many as it allows behind a zip archive."""


class ZipArchive:
    """``<root>/data.pkl`` and one record ``<root>/data/<key>`` per storage; of TorchScript, beside code.

    `operations` is what its pickle has. It may be a part of a file; then `scope` tells its storages from those of other
    parts.
    """

    def __init__(self, file: SourceFile, *, scope: str = "") -> None:
        self._file = file
        self._scope = scope
        self._members = zip_archive.read_members(file)
        self.root = self._find_root()
        self._is_big_endian = self._byte_order() == b"big"
        self.operations = 0
        self._checksums: dict[str, Checksum] = {}
        self._kinds: dict[str, tuple[DType | None, int]] = {}

    def load(self) -> Any:
        """Return the root value. Raises ReadError for bytes after the end of the pickle."""
        member = self._member("data.pkl")
        data = MemoryBytes(zip_archive.read_bytes(self._file, member, limit_bytes=_PICKLE_LIMIT_BYTES))
        machine = Machine(
            data,
            path=self._file.path,
            constructors=CONSTRUCTORS,
            persistent=self._persistent,
            stored_bytes=self._file.size,
        )
        value = machine.load()
        self.operations = machine.operations
        if machine.end != data.size:
            raise ReadError("has bytes after the end of its pickle", path=self._file.path)
        return Script(code=self._code).module(value) if self.is_script else value

    def flat(self, storage: Storage, dtype: DType, numel: int) -> Tensor:
        """Return all elements of a storage; its CRC is checked as they are read.

        Raises ReadError where it has fewer bytes than they need.
        """
        member = self._member(f"data/{storage.key.removeprefix(self._scope)}")
        crc = self._checksums.setdefault(storage.key, zip_archive.checksum(self._file, member))
        tensor = zip_archive.member_tensor(self._file, member, dtype=dtype, shape=(numel,), crc=crc)
        return byteswapped(tensor) if self._is_big_endian else tensor

    def _storage(self, of: Any, key: str, numel: int) -> Storage:
        dtype = storage_dtype(of)
        is_another = self._kinds.setdefault(key, (dtype, numel)) != (dtype, numel)
        return Storage(archive=self, key=key, dtype=dtype, numel=numel, root_numel=numel, is_another=is_another)

    @property
    def is_script(self) -> bool:
        """Whether it is of TorchScript."""
        return is_script(self._members)

    @property
    def has_constants(self) -> bool:
        """Whether its code has tensors of its own, which have no names."""
        return any(name.startswith(f"{self.root}/constants/") for name in self._members)

    def _code(self, name: str) -> str:
        if f"{self.root}/{name}" not in self._members:
            return ""
        data = zip_archive.read_bytes(self._file, self._member(name), limit_bytes=_CODE_LIMIT_BYTES)
        return data.decode("utf-8", "replace")

    def _find_root(self) -> str:
        roots = [name.removesuffix("/data.pkl") for name in self._members if name.endswith("/data.pkl")]
        roots = [root for root in roots if "/" not in root]
        if len(roots) != 1:
            count = "no data.pkl" if not roots else f"{len(roots)} roots, each with a data.pkl"
            raise ReadError(f"is a zip archive with {count}", path=self._file.path)
        if any(name.partition("/")[0] != roots[0] for name in self._members):
            raise ReadError("is a zip archive with members beside its root folder", path=self._file.path)
        return roots[0]

    def _byte_order(self) -> bytes:
        if f"{self.root}/byteorder" not in self._members:
            return b"little"
        order = zip_archive.read_bytes(self._file, self._member("byteorder"), limit_bytes=16)
        if order not in (b"little", b"big"):
            raise ReadError("has an unknown byte order", path=self._file.path)
        return order

    def _member(self, name: str) -> Member:
        member = self._members.get(f"{self.root}/{name}")
        if member is None:
            raise ReadError(f"has no record {name!r}", path=self._file.path)
        return member

    def _persistent(self, identity: Any) -> Storage:
        match identity:
            case ("storage", of, str() as key, str(), int() as numel):
                return self._storage(of, self._scope + key, _count(numel))
        raise ReadError("the pickle has a malformed storage")


@dataclass(slots=True)
class _Range:
    nbytes: int
    itemsize: int
    offset: int = -1


class _Memory(MemoryBytes):
    """A file that is in memory, and a part of the one at `path`."""

    __slots__ = ("data", "path")

    def __init__(self, data: bytes, path: object) -> None:
        super().__init__(data)
        self.data, self.path = data, path


class LegacyArchive:
    """Five pickles (magic, version, system, value, storage keys), then per key a count and raw elements.

    Elements are little-endian whatever the system that wrote them; big-endian ones once wrote their counts as they
    were (torch/csrc/generic/serialization.cpp, writeFileRaw). It may be a part of a file, from `start` to `end`; then
    `scope` tells its storages from those of other parts.

    A file with one pickle alone is what pickle.dump made of a value: of arrays of numpy, or of tensors, each of whose
    storages is such an archive of its own.
    """

    def __init__(self, file: SourceFile | _Memory, *, start: int = 0, end: int | None = None, scope: str = "") -> None:
        self._file = file
        self._scope = scope
        self._parts = 0
        self._ranges: dict[str, _Range] = {}
        self._offset = start
        self._end = file.size if end is None else end
        self._is_whole = end is None
        self.operations = 0

    def load(self) -> Any:
        """Return the root value. Raises ReadError for a layout that torch.save did not write."""
        first = self._pickle(is_first=self._is_whole)
        if first != MAGIC:
            if not self._is_whole:
                raise ReadError("the pickle has a storage that torch.save did not write", path=self._file.path)
            self._check_end("pickle")
            return first
        if self._pickle() != _LEGACY_PROTOCOL:
            raise ReadError("is of an unknown version of the legacy layout", path=self._file.path)
        system = self._pickle()
        if not isinstance(system, dict):
            raise ReadError("lacks the description of the system that wrote it", path=self._file.path)
        value = self._pickle()
        self._place(self._pickle(), has_swapped_counts=system.get("little_endian") is False)
        return value

    def flat(self, storage: Storage, dtype: DType, numel: int) -> Tensor:
        """Return all elements of a storage."""
        place = self._ranges[storage.key]
        if numel * dtype.itemsize > place.nbytes or place.offset < 0:
            raise ReadError(f"needs {numel} elements of a storage of {place.nbytes} bytes")
        if isinstance(self._file, _Memory):
            array = np.frombuffer(self._file.data, dtype.numpy, numel, place.offset)
            return ArrayTensor(dtype=dtype, shape=(numel,), array=array)
        whole, offset = self._file.at(place.offset)
        return FileTensor(dtype=dtype, shape=(numel,), file=whole, offset=offset)

    def _pickle(self, *, is_first: bool = False) -> Any:
        """Return the value of the next pickle. The first may be all there is: its long bytes stay in the file."""
        limit = self._end if is_first else min(self._end, self._offset + _PICKLE_LIMIT_BYTES)
        machine = Machine(
            _Limited(self._file, limit),
            offset=self._offset,
            path=self._file.path,
            constructors={**CONSTRUCTORS, _STORAGE_OF_ITS_OWN: self._storage_of_its_own} if is_first else CONSTRUCTORS,
            persistent=self._persistent,
            stored_bytes=self._end,
            file=self._file if is_first else None,
        )
        value = machine.load()
        self.operations += machine.operations
        self._offset = machine.end
        return value

    def _storage_of_its_own(self, arguments: tuple[Any, ...]) -> Storage:
        """Return a storage that was pickled as a file of torch.save, which only the same machine reads."""
        self._parts += 1
        scope = f"{self._parts}/"
        match arguments:
            case (FileBytes() as data,):
                end = data.offset + data.length
                inner = LegacyArchive(self._file, start=data.offset, end=end, scope=scope)
            case (bytes() as data,):
                inner = LegacyArchive(_Memory(data, self._file.path), end=len(data), scope=scope)
            case _:
                raise ReadError("the pickle has a malformed storage")
        storage = inner.load()
        self.operations += inner.operations
        if not isinstance(storage, Storage):
            raise ReadError("the pickle has a malformed storage")
        return storage

    def _check_end(self, last: str) -> None:
        """Raise ReadError for more behind the `last` thing than zeros, which torch does not look at."""
        rest = self._end - self._offset
        if rest > _PADDING_LIMIT_BYTES or any(self._file.read(self._offset, rest)):
            hint = f"head -c {self._offset} FILE > OTHER cuts them off" if self._is_whole else None
            raise ReadError(f"has bytes after its last {last} that are no padding", path=self._file.path, hint=hint)

    def _place(self, keys: Any, *, has_swapped_counts: bool) -> None:
        """Find where each storage is. Raises ReadError unless keys, counts and the end of the file all agree."""
        known = isinstance(keys, list) and all(isinstance(key, str) for key in keys)
        scoped = [self._scope + key for key in keys] if known else []
        if not known or sorted(scoped) != sorted(self._ranges):
            raise ReadError("lists other storages than its tensors use", path=self._file.path)
        for key in scoped:
            place = self._ranges[key]
            raw_count = self._file.read(self._offset, _COUNT_BYTES)
            count = int.from_bytes(raw_count, "little", signed=True)
            if has_swapped_counts and count * place.itemsize != place.nbytes:
                count = int.from_bytes(raw_count, "big", signed=True)
            if count * place.itemsize != place.nbytes:
                raise ReadError(
                    f"has {count} elements in storage {key!r}, its tensors expect {place.nbytes // place.itemsize}",
                    path=self._file.path,
                )
            place.offset = self._offset + _COUNT_BYTES
            self._offset = place.offset + place.nbytes
            if self._offset > self._end:
                raise ReadError(f"is cut short inside storage {key!r}", path=self._file.path)
        self._check_end("storage")

    def _persistent(self, identity: Any) -> Any:
        match identity:
            case ("module", of, _, _):
                return of
            case ("storage", of, str() as key, str(), int() as numel, None):
                return self._storage(of, key, _count(numel))
            case ("storage", of, str() as key, str(), int() as numel, (str(), int() as start, int() as part)):
                if _count(start) + _count(part) > _count(numel):
                    raise ReadError("the pickle has a view that its storage does not hold")
                return self._storage(of, key, numel, start=start, part=part)
        raise ReadError("the pickle has a malformed storage")

    def _storage(self, of: Any, key: str, numel: int, *, start: int = 0, part: int | None = None) -> Storage:
        dtype, key = storage_dtype(of), self._scope + key
        itemsize = 1 if dtype is None else dtype.itemsize
        place = self._ranges.setdefault(key, _Range(nbytes=numel * itemsize, itemsize=itemsize))
        if (place.nbytes, place.itemsize) != (numel * itemsize, itemsize):
            raise ReadError(f"the pickle has the storage {key!r} in two sizes")
        return Storage(
            archive=self,
            key=key,
            dtype=dtype,
            numel=numel if part is None else part,
            start=start,
            root_numel=numel,
        )


class _Limited:
    """The bytes of a file before a limit."""

    def __init__(self, file: SourceFile | _Memory, limit: int) -> None:
        self._file = file
        self.size = min(file.size, limit)

    def read(self, offset: int, length: int) -> bytes:
        return self._file.read(offset, length)


def _count(value: Any) -> int:
    if type(value) is not int or not 0 <= value < _NUMEL_LIMIT:
        raise ReadError(f"the pickle has a storage of {value} elements")
    return value


def archive_of(file: SourceFile, *, scope: str = "") -> ZipArchive | LegacyArchive:
    """Return the archive that `file` is, by its first bytes. Raises ReadError when it is none.

    `scope` tells its storages from those of others.
    """
    head = file.read(0, min(file.size, _HEAD_BYTES))
    if head.startswith(b"PK\x03\x04"):
        return ZipArchive(file, scope=scope)
    if not looks_like_pickle(head, file.size):
        is_pointer = head.startswith(b"version https://git-lfs")
        what = "is a Git LFS pointer, not the checkpoint itself" if is_pointer else "is no file that torch.save wrote"
        raise ReadError(what, path=file.path)
    return LegacyArchive(file, scope=scope)
