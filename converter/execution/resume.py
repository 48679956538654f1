"""Going on from what a process that died left in its staging folder.

Every staging folder says which attempt it is of: destination, source files (path, size, time of change, inode),
options and version. A later run of the same attempt takes the files over, and compares each with what it would write,
byte for byte, before it is kept: none is trusted to be whole, whatever became of the process or the machine.
"""

from __future__ import annotations

import json
import os
import shutil
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from converter.errors import ReadError, SafetyError
from converter.execution.pieces import named_chunks, rendered
from converter.model.file import LocalFile, Location, SourceFile
from converter.model.output import Late, OutputFile, piece_bytes
from converter.model.tensor import is_same_bytes
from converter.observer import SILENT, Observer

_ATTEMPT, _EARLIER = "attempt.json", "earlier"
_ATTEMPT_LIMIT_BYTES = 16 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """What a conversion is of: its `destination`, the `request`, and the state of the files that are its `sources`."""

    destination: str
    request: Mapping[str, Any]
    sources: Sequence[Sequence[Any]]

    @classmethod
    def of(cls, destination: Location, files: Sequence[SourceFile], request: Mapping[str, Any]) -> Attempt:
        """Describe a conversion of `files`. Its `request` is what else decides about the output."""
        sources = sorted(list(file.state) for file in files)
        return cls(destination=str(destination), request=json.loads(json.dumps(request)), sources=sources)

    def write(self, folder: Path) -> None:
        """Put the description into a staging folder. Raises OSError."""
        described = {"destination": self.destination, "request": self.request, "sources": self.sources}
        (folder / _ATTEMPT).write_text(json.dumps(described))

    @classmethod
    def read(cls, folder: Path) -> Attempt | None:
        """Return what a staging folder says, None when it says nothing that can be understood."""
        try:
            file = LocalFile(folder / _ATTEMPT, follow_symlink=False)
            described = json.loads(file.read(0, min(file.size, _ATTEMPT_LIMIT_BYTES)))
            if not isinstance(described, dict):
                return None
            return cls(**{key: described[key] for key in ("destination", "request", "sources")})
        except (ReadError, SafetyError, ValueError, KeyError):
            return None

    def difference(self, earlier: Attempt) -> str | None:
        """Say why an earlier attempt at the same destination cannot be gone on from."""
        if earlier.sources != self.sources:
            return "the source has changed since"
        return None if earlier.request == self.request else "it was asked for something else"


@dataclass(frozen=True, slots=True, kw_only=True)
class Earlier:
    """What an earlier attempt left: its files in `folder`, None when there are none; `notes` on what was not taken."""

    folder: Path | None = None
    notes: tuple[str, ...] = ()

    def bytes_of(self, files: Sequence[OutputFile]) -> int:
        """Return how many bytes of `files` may be there already, for an estimate of the space still needed."""
        found = (self._candidate(file) for file in files)
        return sum(path.stat().st_size for path in found if path is not None)

    def keep(
        self,
        file: OutputFile,
        folder: Path,
        *,
        names: Mapping[int, str] = MappingProxyType({}),
        observer: Observer = SILENT,
    ) -> bool:
        """Whether the earlier `file` is, byte for byte, what would be written; it is moved into `folder` then.

        Feeds checksums as writing does. Raises ReadError when a tensor's bytes cannot be had, OSError when the file
        cannot be moved.
        """
        path = self._candidate(file)
        if path is None:
            return False
        if not _is_whole(file, LocalFile(path, follow_symlink=False), names, observer):
            path.unlink()
            return False
        target = folder / file.name
        target.parent.mkdir(parents=True, exist_ok=True)
        os.rename(path, target)
        return True

    def _candidate(self, file: OutputFile) -> Path | None:
        path = None if self.folder is None else self.folder / file.name
        return (
            path if path is not None and _is_ours(path, stat.S_IFREG) and path.stat().st_size == file.nbytes else None
        )


NOTHING = Earlier()


def _is_ours(path: Path, kind: int) -> bool:
    """Whether nobody else can change what is at `path`: it is ours, and has no other name."""
    try:
        status = os.lstat(path)
    except OSError:
        return False
    is_alone = kind == stat.S_IFDIR or status.st_nlink == 1
    return stat.S_IFMT(status.st_mode) == kind and status.st_uid == os.geteuid() and is_alone


def _is_whole(file: OutputFile, found: SourceFile, names: Mapping[int, str], observer: Observer) -> bool:
    position, late = 0, []
    for piece in file.pieces:
        if isinstance(piece, Late):
            late.append((position, piece))
        else:
            planned = _reported(named_chunks(piece, names), observer)
            if not is_same_bytes(planned, found.chunks(position, piece_bytes(piece))):
                return False
        position += piece_bytes(piece)
    return all(found.read(at, piece.nbytes) == rendered(piece, file) for at, piece in late)


def _reported(chunks: Iterator[memoryview | bytes], observer: Observer) -> Iterator[memoryview]:
    for chunk in chunks:
        yield memoryview(chunk)
        observer.advance(len(chunk))


def moved_into(attempt: Attempt, leftovers: Sequence[Path], folder: Path, output_name: str) -> Earlier:
    """Move what `leftovers` have of the same attempt into `folder`, and remove those of its destination.

    Those of other destinations stay for whoever resumes them. Raises OSError when files cannot be moved.
    """
    notes: list[str] = []
    earlier = folder / _EARLIER
    for leftover in leftovers:
        found = Attempt.read(leftover) if _is_ours(leftover, stat.S_IFDIR) else None
        if found is None or found.destination != attempt.destination:
            continue
        difference = attempt.difference(found)
        if difference is None:
            for name in (output_name, _EARLIER):
                _merge(leftover / name, earlier)
        else:
            notes.append(f"started anew: an earlier attempt is not resumed, {difference}")
        shutil.rmtree(leftover, ignore_errors=True)
    return Earlier(folder=earlier if earlier.exists() else None, notes=tuple(notes))


def _merge(source: Path, target: Path) -> None:
    for at, _, names in os.walk(source):
        for name in names:
            path = Path(at, name)
            place = target / path.relative_to(source)
            if not place.exists():
                place.parent.mkdir(parents=True, exist_ok=True)
                os.rename(path, place)
