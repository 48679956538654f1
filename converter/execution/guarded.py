"""The one way to write a file that is not the output: a report, or whatever else an option names.

Such a file is never the source or the destination, never inside them or named like a file that a reader of any format
takes beside them, never reached through a link, and replaces nothing but an earlier file of its own kind. All of that
is checked before the work begins, and once more when the file is written; the folder stays open in between, so that
nothing put in its place redirects the file. It appears whole, by one rename.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from converter import formats
from converter.encoding.folder import ASSET_NAMES, CONFIG_NAMES, LEVELS_OF_CONFIG
from converter.errors import DestinationExistsError, UsageError, WriteError
from converter.execution import places
from converter.execution.mounted import PREFIX
from converter.model.file import Location

_EARLIER_LIMIT_BYTES = 256 << 20
_KINDS = ((stat.S_ISLNK, "a symbolic link"), (stat.S_ISFIFO, "a pipe"), (stat.S_ISSOCK, "a socket"))
_WITHOUT_HARD_LINKS = (errno.EPERM, errno.ENOSYS, errno.ENOTSUP, errno.EMLINK)


@dataclass(frozen=True, slots=True, kw_only=True)
class GuardedFile:
    """A place for a file, found fit to be written to; `guarded` makes it."""

    path: Path
    option: str
    overwrite: bool
    is_earlier: Callable[[bytes], bool]
    folder: int

    def check(self) -> bool:
        """Whether an earlier file of this kind is there, which `overwrite` lets go.

        Raises UsageError for a folder, DestinationExistsError for anything else that must stay.
        """
        try:
            status = os.stat(self.path.name, dir_fd=self.folder, follow_symlinks=False)
        except FileNotFoundError:
            return False
        except OSError as error:
            raise self._failed(error) from error
        if stat.S_ISDIR(status.st_mode):
            raise UsageError(f"is a folder, {self.option} names a file", path=self.path)
        if not stat.S_ISREG(status.st_mode):
            what = next((name for is_kind, name in _KINDS if is_kind(status.st_mode)), "a device")
            raise DestinationExistsError(f"is {what}, {self.option} names a file of its own", path=self.path)
        if not self.overwrite:
            hint = f"--overwrite replaces what an earlier {self.option} wrote"
            raise DestinationExistsError("exists", path=self.path, hint=hint)
        if not self._is_earlier():
            raise DestinationExistsError(f"exists, and was not written by an earlier {self.option}", path=self.path)
        return True

    def write(self, content: bytes) -> None:
        """Put `content` there, flushed to the disk, by one rename.

        Raises what `check` raises, DestinationExistsError for what appeared meanwhile, WriteError. Nothing of
        `content` is left then.
        """
        replaces = self.check()
        staged = f"{PREFIX}{os.getpid()}-{secrets.token_hex(4)}"
        try:
            with self._created(staged) as descriptor:
                with open(descriptor, "wb", closefd=False) as file:
                    file.write(content)
                os.fsync(descriptor)
                self._rename(staged, replaces=replaces)
            os.fsync(self.folder)
        except FileExistsError:
            raise DestinationExistsError("appeared meanwhile", path=self.path) from None
        except OSError as error:
            raise self._failed(error) from error

    def check_writable(self) -> None:
        """Raise WriteError when no file can be made in the folder."""
        try:
            with self._created(f"{PREFIX}{os.getpid()}-{secrets.token_hex(4)}"):
                pass
        except OSError as error:
            raise self._failed(error) from error

    @contextmanager
    def _created(self, name: str) -> Iterator[int]:
        """Make a file in the folder, which is gone afterwards unless it was renamed."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(name, flags, 0o666, dir_fd=self.folder)
        try:
            yield descriptor
        finally:
            os.close(descriptor)
            with suppress(FileNotFoundError):
                os.unlink(name, dir_fd=self.folder)

    def _rename(self, staged: str, *, replaces: bool) -> None:
        inside = {"src_dir_fd": self.folder, "dst_dir_fd": self.folder}
        if replaces:
            os.replace(staged, self.path.name, **inside)
            return
        try:
            os.link(staged, self.path.name, follow_symlinks=False, **inside)  # a rename that replaces nothing
        except OSError as error:
            if error.errno not in _WITHOUT_HARD_LINKS:
                raise
            if self.check():
                raise FileExistsError from error
            os.rename(staged, self.path.name, **inside)

    def _is_earlier(self) -> bool:
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            descriptor = os.open(self.path.name, flags, dir_fd=self.folder)
            with open(descriptor, "rb") as file:
                if not 0 < os.fstat(descriptor).st_size <= _EARLIER_LIMIT_BYTES:  # 0 is what devices in /proc say
                    return False
                content = file.read(_EARLIER_LIMIT_BYTES + 1)
        except OSError as error:
            what = f"exists, and cannot be read: {os.strerror(error.errno or 0)}"
            raise DestinationExistsError(what, path=self.path) from error
        return len(content) <= _EARLIER_LIMIT_BYTES and self.is_earlier(content)

    def _failed(self, error: OSError) -> WriteError:
        return WriteError(f"cannot be written: {os.strerror(error.errno or 0)}", path=self.path)


@contextmanager
def guarded(
    file_path: str | os.PathLike[str],
    *,
    option: str,
    source: Location,
    destination: Location,
    overwrite: bool,
    is_earlier: Callable[[bytes], bool],
) -> Iterator[GuardedFile]:
    """Check that `option` may write a file at `file_path`, apart from `source` and `destination`, and yield it.

    `is_earlier` tells from its content whether an existing file was written by the same option.

    Raises UsageError (exit 2) for a path that can never be written to, DestinationExistsError (6) for one where
    something is that must stay, WriteError (1) for a folder in which no file can be made.
    """
    text = os.fspath(file_path)
    if not text or "\0" in text or text.endswith((os.sep, f"{os.sep}.", f"{os.sep}..")) or text in (".", ".."):
        raise UsageError(f"{option} names a file, not {text!r}")
    absolute = Path(os.path.abspath(text))
    try:
        has_folder = places.is_folder(absolute.parent)
    except OSError as error:
        raise WriteError(f"cannot be written: {os.strerror(error.errno or 0)}", path=text) from error
    if not has_folder:
        raise UsageError(f"{option} names a file in a folder that exists", path=text)
    path = Path(os.path.realpath(absolute.parent)) / absolute.name
    others = {"the source": source, "the destination": destination}
    _check_apart(path, option, {name: other for name, other in others.items() if isinstance(other, Path)})
    try:
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise WriteError(f"cannot be written: {os.strerror(error.errno or 0)}", path=path) from error
    try:
        file = GuardedFile(path=path, option=option, overwrite=overwrite, is_earlier=is_earlier, folder=folder)
        file.check()
        file.check_writable()
        yield file
    finally:
        os.close(folder)


def _check_apart(path: Path, option: str, others: dict[str, Path]) -> None:
    if any(part.startswith(PREFIX) for part in path.parts):
        raise UsageError(f"is where outputs are staged, {option} names another place", path=path)
    for name, other in others.items():
        if places.is_same(path, other):
            raise UsageError(f"is {name} itself, {option} names another file", path=path)
        if places.is_inside(path, other):
            raise UsageError(f"is inside {name}, {option} names a file elsewhere", path=path)
    for is_read in (_is_beside, _is_above):
        for name, other in others.items():
            # Where it is a link, a reader may look beside the link, or beside where that leads.
            if is_read(path, Path(os.path.abspath(other))) or is_read(path, Path(os.path.realpath(other))):
                raise UsageError(f"has a name that is read beside {name}, {option} needs another", path=path)


def _is_beside(path: Path, other: Path) -> bool:
    """Whether a reader of `other` would take a file at `path`, in the same folder, for a part of the checkpoint."""
    return formats.is_claimed(path.name) and places.is_same(path.parent, other.parent)


def _is_above(path: Path, other: Path) -> bool:
    """Whether a file at `path` would be the config or an asset of `other`, for which folders above are looked at."""
    above = other.parents[:LEVELS_OF_CONFIG]
    return any(places.is_same(path, folder / name) for folder in above for name in (*CONFIG_NAMES, *ASSET_NAMES))
