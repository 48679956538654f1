"""Reading a regular file by position, and never by mapping it: a file that shrinks must not kill the process."""

from __future__ import annotations

import errno
import os
import stat
import threading
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

from converter.errors import ReadError, SafetyError

CHUNK_BYTES = 4 << 20


class SourceFile:
    """A regular file, open for reading at any position, from any thread, until the object goes.

    `path` may be a symbolic link only if the caller says so: the path a user names may be one, a path that a
    file names may not. Devices, pipes and sockets are refused without being waited for.

    Raises ReadError when the file is missing, unreadable or not a regular file.
    """

    __slots__ = ("__weakref__", "_descriptor", "path", "size")

    def __init__(self, path: str | os.PathLike[str], *, follow_symlink: bool = True) -> None:
        self.path = Path(path)
        self._descriptor = -1
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

    def __del__(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)

    def __repr__(self) -> str:
        return f"SourceFile({str(self.path)!r})"

    def fileno(self) -> int:
        """Return the descriptor, for a child process to inherit; the object keeps owning it."""
        return self._descriptor

    def read(self, offset: int, length: int) -> bytes:
        """Return exactly `length` bytes from `offset`. Raises ReadError when the file does not hold them."""
        if offset < 0 or length < 0 or offset + length > self.size:
            raise ReadError(f"needs {length} bytes at {offset}, has {self.size} in all", path=self.path)
        buffer = bytearray(length)
        self.read_into(offset, memoryview(buffer))
        return bytes(buffer)

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

    def chunks(self, offset: int, length: int, limit_bytes: int = CHUNK_BYTES) -> Iterator[memoryview]:
        """Yield `length` bytes from `offset`, in pieces of at most `limit_bytes`, each valid until the next."""
        buffer = memoryview(bytearray(min(length, limit_bytes)))
        while length:
            piece = buffer[: min(length, len(buffer))]
            self.read_into(offset, piece)
            yield piece
            offset, length = offset + len(piece), length - len(piece)


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
