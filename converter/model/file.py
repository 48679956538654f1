"""The storage seam: files that are read by position, and folders that have names, wherever they are.

A `Location` is a `Path`, or what another kind of storage has instead (`Elsewhere`). Local files are never mapped: one
that shrinks must not kill the process.
"""

from __future__ import annotations

import errno
import os
import stat
import tempfile
import threading
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeAlias

from converter.errors import ReadError, SafetyError

CHUNK_BYTES = 4 << 20


class SourceFile(ABC):
    """A file that can be read at any position, from any thread, until the object goes.

    `path`   where it is, which is how errors call it
    `size`   in bytes
    """

    path: Location
    size: int
    _descriptor = -1

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.path)!r})"

    @abstractmethod
    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill `buffer` from `offset`. Raises ReadError when the file ends before that."""

    @property
    @abstractmethod
    def state(self) -> tuple[str | int, ...]:
        """What is another when the file has changed, to be kept in a JSON file."""

    @property
    def stored(self) -> SourceFile:
        """The file that is there: of what is compressed in another, that one."""
        return self

    def at(self, offset: int) -> tuple[SourceFile, int]:
        """Return the file that stays open for what is at `offset`, and where it is there: of a part, the whole file."""
        return self, offset

    def fileno(self) -> int:
        """Return the descriptor of a local file with the same bytes, for a library or a child process; stays owned.

        Of a file that is not local, it is that of a copy, which is made when first asked for and has no name. Raises
        OSError, ReadError.
        """
        if self._descriptor < 0:
            self._descriptor, name = tempfile.mkstemp(prefix="ckconv-")
            os.unlink(name)
            with open(self._descriptor, "wb", closefd=False) as copy:
                copy.writelines(self.chunks(0, self.size))
        return self._descriptor

    def __del__(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)

    def read(self, offset: int, length: int) -> bytes:
        """Return exactly `length` bytes from `offset`. Raises ReadError when the file does not hold them."""
        if offset < 0 or length < 0 or offset + length > self.size:
            raise ReadError(f"needs {length} bytes at {offset}, has {self.size} in all", path=self.path)
        buffer = bytearray(length)
        self.read_into(offset, memoryview(buffer))
        return bytes(buffer)

    def chunks(self, offset: int, length: int, limit_bytes: int = CHUNK_BYTES) -> Iterator[memoryview]:
        """Yield `length` bytes from `offset`, in pieces of at most `limit_bytes`, each valid until the next."""
        buffer = memoryview(bytearray(min(length, limit_bytes)))
        while length:
            piece = buffer[: min(length, len(buffer))]
            self.read_into(offset, piece)
            yield piece
            offset, length = offset + len(piece), length - len(piece)


class LocalFile(SourceFile):
    """A regular file, open until the object goes.

    `path` may be a symbolic link only if the caller says so: the path a user names may be one, a path that a
    file names may not. Devices, pipes and sockets are refused without being waited for.

    Raises ReadError when the file is missing, unreadable or not a regular file.
    """

    def __init__(self, path: str | os.PathLike[str], *, follow_symlink: bool = True) -> None:
        self.path = Path(path)
        flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | (0 if follow_symlink else os.O_NOFOLLOW)
        try:
            self._descriptor = os.open(self.path, flags)
        except ValueError as error:
            raise ReadError(str(error), path=path) from error
        except OSError as error:
            if error.errno == errno.ELOOP and not follow_symlink:
                raise SafetyError("is a symbolic link", path=path) from error
            raise ReadError(os.strerror(error.errno or 0), path=path) from error
        status = os.fstat(self._descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise ReadError("is not a regular file", path=path)
        self.size = status.st_size

    @property
    def state(self) -> tuple[str | int, ...]:
        """Path, size, time of the last change and inode."""
        status = os.fstat(self._descriptor)
        return (os.path.abspath(str(self.path)), status.st_size, status.st_mtime_ns, status.st_ino, status.st_dev)

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill `buffer` from `offset`. Raises ReadError when the file ends before that."""
        while buffer:
            try:
                count = os.preadv(self._descriptor, [buffer], offset)
            except OSError as error:
                raise ReadError(os.strerror(error.errno or 0), path=self.path) from error
            if count == 0:
                raise ReadError("ended while it was being read", path=self.path)
            buffer, offset = buffer[count:], offset + count


class PartFile(SourceFile):
    """A range of a file, as a file. Raises ReadError where the file does not hold it."""

    def __init__(self, whole: SourceFile, offset: int, length: int) -> None:
        if offset < 0 or length < 0 or offset + length > whole.size:
            raise ReadError(f"needs {length} bytes at {offset}, has {whole.size} in all", path=whole.path)
        self.whole, self.start = whole.at(offset)
        self.path = whole.path
        self.size = length

    @property
    def state(self) -> tuple[str | int, ...]:
        """What is another when the whole file has changed."""
        return self.whole.state

    def at(self, offset: int) -> tuple[SourceFile, int]:
        """Return the whole file, and where in it `offset` is."""
        return self.whole, self.start + offset

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill `buffer` from `offset` of the range. Raises ReadError when the range ends before that."""
        if offset + len(buffer) > self.size:
            raise ReadError(f"needs {len(buffer)} bytes at {offset}, has {self.size} in all", path=self.path)
        self.whole.read_into(self.start + offset, buffer)


class Elsewhere(ABC):
    """A place in a storage that is not the local file system; compares and hashes by what `str` says.

    A kind of storage is one module: it has such a class and one of `SourceFile`, and a constant `STORAGE`
    (`converter.storage`).
    """

    @property
    @abstractmethod
    def name(self) -> str:
        """The last part of the place."""

    @property
    @abstractmethod
    def parent(self) -> Elsewhere:
        """The folder that it is in; the topmost is its own."""

    @abstractmethod
    def __truediv__(self, name: str) -> Elsewhere:
        """Return what is called `name` in this folder."""

    @abstractmethod
    def __str__(self) -> str:
        """Return the address, as the user writes it."""

    @abstractmethod
    def is_file(self) -> bool:
        """Whether a file is there. Raises ReadError when the storage does not answer."""

    @abstractmethod
    def is_dir(self) -> bool:
        """Whether something is below it. Raises ReadError when the storage does not answer."""

    @abstractmethod
    def names(self) -> Sequence[str]:
        """Return what is in this folder. Raises ReadError when the storage does not answer."""

    @abstractmethod
    def open(self) -> SourceFile:
        """Open the file for reading; nothing is read. Raises ReadError."""

    @abstractmethod
    def put(self, staged: Path, names: Sequence[str]) -> None:
        """Copy a local file, or those of a local folder, to this place, in place of what is there.

        `names` are the files of a folder, in the order in which they are to appear: one that names others comes after
        them. Raises OSError or WriteError after removing what was copied.
        """

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Elsewhere) and str(other) == str(self)

    def __hash__(self) -> int:
        return hash(str(self))


Location: TypeAlias = Path | Elsewhere


def open_file(location: Location, *, follow_symlink: bool = True) -> SourceFile:
    """Open a file of any storage by position. Raises ReadError, SafetyError for a link that is not to be followed."""
    if isinstance(location, Path):
        return LocalFile(location, follow_symlink=follow_symlink)
    return location.open()


def names_in(folder: Location) -> list[str]:
    """Return what a folder of any storage has, in order. Raises ReadError, SafetyError for a name that is a path."""
    if not isinstance(folder, Path):
        names = sorted(folder.names())
        for name in names:
            if name in ("", ".", "..") or "/" in name or "\0" in name:
                raise SafetyError(f"holds {name!r}, which cannot be the name of a file", path=folder)
        return names
    try:
        return sorted(os.listdir(folder))
    except OSError as error:
        raise ReadError(os.strerror(error.errno or 0), path=folder) from error


def is_dir(location: Location) -> bool:
    """Whether a folder is at a place, also through a link; False where nobody can tell."""
    return os.path.isdir(location) if isinstance(location, Path) else location.is_dir()


def is_file(location: Location) -> bool:
    """Whether a file is at a place, also through a link; False where nobody can tell."""
    return os.path.isfile(location) if isinstance(location, Path) else location.is_file()


def is_there(location: Location) -> bool:
    """Whether something is at a place: a file, a folder, or a link that leads nowhere."""
    return os.path.lexists(location) if isinstance(location, Path) else location.is_file() or location.is_dir()


def absolute(location: Location) -> Location:
    """Return a place that does not depend on the working folder."""
    return location.absolute() if isinstance(location, Path) else location


def local_copy(location: Location, scratch: Path) -> Path:
    """Return `location` itself where it is local, else a copy of the file or folder below `scratch`.

    Raises ReadError, OSError when it cannot be written.
    """
    if isinstance(location, Path):
        return location
    folder = Path(tempfile.mkdtemp(dir=scratch))
    _copy(location, folder / location.name)
    return folder / location.name


def _copy(location: Elsewhere, target: Path) -> None:
    if location.is_dir():
        target.mkdir()
        for name in names_in(location):
            _copy(location / name, target / name)
        return
    file = location.open()
    with target.open("xb") as out:
        out.writelines(file.chunks(0, file.size))


class Checksum:
    """The CRC that a container stores for a range of a file. Checked once, whichever tensor is read first.

    `update` takes bytes and the value so far, and returns the new value, as zlib.crc32 does.
    """

    __slots__ = ("_is_verified", "_lock", "expected", "file", "length", "offset", "update")

    def __init__(
        self,
        *,
        file: SourceFile,
        offset: int,
        length: int,
        expected: int,
        update: Callable[[memoryview, int], int] = zlib.crc32,
    ) -> None:
        self.file = file
        self.offset = offset
        self.length = length
        self.expected = expected
        self.update = update
        self._is_verified = False
        self._lock = threading.Lock()

    def covers(self, offset: int, length: int) -> bool:
        """Whether the range is exactly the checked one, so that reading it is checking it."""
        return (offset, length) == (self.offset, self.length)

    def chunks(self, limit_bytes: int = CHUNK_BYTES) -> Iterator[memoryview]:
        """Yield the range; raise ReadError after the last piece when the bytes are not those that were stored."""
        value = 0
        for chunk in self.file.chunks(self.offset, self.length, limit_bytes):
            if not self._is_verified:
                value = self.update(chunk, value)
            yield chunk
        if not self._is_verified and value != self.expected:
            raise ReadError(
                f"CRC mismatch in the record at byte {self.offset}: the file is damaged", path=self.file.path
            )
        self._is_verified = True

    def verify(self) -> None:
        """Read the whole range unless it was found good before. Raises ReadError as `chunks` does."""
        with self._lock:
            if not self._is_verified:
                for _ in self.chunks():
                    pass
