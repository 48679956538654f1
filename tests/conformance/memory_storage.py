"""A storage that is no file system: files in a dict, at addresses ``memory://folder/name``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from converter.errors import ReadError, WriteError
from converter.model.file import Elsewhere, SourceFile
from converter.storage import Storage

FILES: dict[str, bytes] = {}
"""Address -> content."""
READ: dict[str, int] = {}
"""Address -> bytes that were read of it."""

_SCHEME = "memory://"


class MemoryFile(SourceFile):
    def __init__(self, path: MemoryPlace, content: bytes) -> None:
        self.path, self.size, self._content = path, len(content), content

    @property
    def state(self) -> tuple[str | int, ...]:
        return (str(self.path), hash(self._content))

    def read_into(self, offset: int, buffer: memoryview) -> None:
        if offset + len(buffer) > self.size:
            raise ReadError("ended while it was being read", path=self.path)
        READ[str(self.path)] = READ.get(str(self.path), 0) + len(buffer)
        buffer[:] = self._content[offset : offset + len(buffer)]


class MemoryPlace(Elsewhere):
    def __init__(self, address: str) -> None:
        self._address = address if address == _SCHEME else address.rstrip("/")
        self._start = address if address == _SCHEME else f"{self._address}/"

    @property
    def name(self) -> str:
        return self._address.rpartition("/")[2]

    @property
    def parent(self) -> MemoryPlace:
        above = self._address.rpartition("/")[0]
        return MemoryPlace(above if len(above) > len(_SCHEME) else _SCHEME)

    def __truediv__(self, name: str) -> MemoryPlace:
        return MemoryPlace(f"{self._start}{name}")

    def __str__(self) -> str:
        return self._address

    def is_file(self) -> bool:
        return self._address in FILES

    def is_dir(self) -> bool:
        return any(address.startswith(self._start) for address in FILES)

    def names(self) -> Sequence[str]:
        inside = [address.removeprefix(self._start) for address in FILES if address.startswith(self._start)]
        return list(dict.fromkeys(name.partition("/")[0] for name in inside))

    def open(self) -> MemoryFile:
        if self._address not in FILES:
            raise ReadError("No such file or directory", path=self)
        return MemoryFile(self, FILES[self._address])

    def put(self, staged: Path, names: Sequence[str]) -> None:
        if self.name == "full":
            raise WriteError("is full", path=self)
        if not staged.is_dir():
            FILES[self._address] = staged.read_bytes()
            return
        for name in names:
            FILES[f"{self._start}{name}"] = (staged / name).read_bytes()


def upload(path: Path, address: str) -> None:
    """Put a local file or folder at an address."""
    names = [""] if path.is_file() else [str(each.relative_to(path)) for each in path.rglob("*") if each.is_file()]
    for name in names:
        FILES[f"{address}/{name}".rstrip("/")] = (path / name).read_bytes()


STORAGE = Storage(schemes=("memory",), at=MemoryPlace)
