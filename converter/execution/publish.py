"""Staging beside the destination, and one rename that makes it appear whole.

A staging folder is called ``.ckconv-<process id>-<random>`` and held under a lock as long as its process lives; a
later run sweeps those whose process is gone and whose lock is free (the process may live in another container), or
goes on from them (`resume`). What is staged is flushed to the disk before it is renamed. A folder that cannot be
renamed over, because a disk is mounted there, is staged inside and filled file by file (`mounted`).
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from converter.errors import DestinationExistsError, Interrupted, ReadError, UsageError, WriteError
from converter.execution import mounted, places, processes, resume
from converter.execution.mounted import PREFIX
from converter.execution.resume import NOTHING, Attempt, Earlier
from converter.model.file import Location, is_there, names_in
from converter.storage import location_of

_OUTPUT, _SCRATCH = "output", "scratch"
_NOREPLACE, _EXCHANGE = 1, 2  # renameat2(2)
_AT_FDCWD = -100
_ATTEMPTS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Destination:
    """Where the output goes.

    `as_folder`: the user wrote a trailing slash, or an empty folder is there already. `is_fixed`: it is a folder that
    nothing can be renamed over, a mount point or one in a folder that we may not write to.
    """

    path: Location
    as_folder: bool
    is_fixed: bool = False

    @classmethod
    def of(cls, destination: str | os.PathLike[str]) -> Destination:
        """Read a path as the user wrote it. Raises UsageError for what is none, WriteError without a parent folder."""
        text = os.fspath(destination)
        if not text or "\0" in text:
            raise UsageError(f"{text!r} is not a path")
        place = location_of(destination)
        if not isinstance(place, Path):
            if not place.name:
                raise UsageError("cannot be a destination", path=place)
            return cls(path=place, as_folder=text.endswith("/"))
        path = Path(os.path.abspath(text))
        if not path.name:
            raise UsageError("cannot be a destination", path=path)
        try:
            has_parent, is_folder = places.is_folder(path.parent), not path.is_symlink() and places.is_folder(path)
        except OSError as error:
            raise WriteError(os.strerror(error.errno or 0), path=path) from error
        if not has_parent:
            raise WriteError("its parent folder does not exist", path=path)
        is_fixed = is_folder and mounted.is_fixed(path)
        is_empty_folder = is_folder and not mounted.visible(_entries(path), is_fixed=is_fixed)
        return cls(path=path, as_folder=text.endswith(os.sep) or is_empty_folder, is_fixed=is_fixed)

    def check_apart_from(self, source: Location, *read: Location) -> None:
        """Raise UsageError when the destination is the source, or one of them is inside the other.

        So must it be for the files that are `read`: shards of the source, what is beside it, those that options name.
        """
        if places.is_same(self.path, source):
            raise UsageError("is the source itself", path=self.path)
        if places.is_inside(self.path, source) or places.is_inside(source, self.path):
            raise UsageError("source and destination are inside one another", path=self.path)
        for file in read:
            if places.is_same(self.path, file) or places.is_inside(file, self.path):
                raise UsageError(f"is or holds {str(file)!r}, which is read for this output", path=self.path)

    def check_replaceable(
        self, *, is_folder: bool, overwrite: bool, foreign: Callable[[tuple[str, ...]], str | None]
    ) -> None:
        """Raise DestinationExistsError when something is there that must stay.

        An empty folder counts as absent. With `overwrite` a file replaces a file, and a folder one of whose entries
        none is `foreign`; a folder never replaces a file, nor the reverse. A symbolic link is replaced, not followed.
        """
        if not is_there(self.path):
            return
        is_there_folder = self.path.is_dir() and not (isinstance(self.path, Path) and self.path.is_symlink())
        entries = mounted.visible(_entries(self.path), is_fixed=self.is_fixed) if is_there_folder else ()
        if is_there_folder and is_folder and not entries:
            return
        if is_there_folder != is_folder:
            there, new = ("a folder", "a file") if is_there_folder else ("a file", "a folder")
            raise DestinationExistsError(f"is {there}, the output is {new}", path=self.path)
        if not overwrite:
            raise DestinationExistsError("exists", path=self.path, hint="--overwrite replaces it")
        stranger = foreign(entries)
        if stranger is not None:
            raise DestinationExistsError(f"holds {stranger!r}, which is not part of a checkpoint", path=self.path)


def _entries(folder: Location) -> tuple[str, ...]:
    try:
        return tuple(names_in(folder))
    except ReadError as error:
        raise WriteError(error.message, path=folder) from error


@dataclass(frozen=True, slots=True, kw_only=True)
class Staging:
    """A folder beside the destination: `output` is what will be published, `scratch` is for what will not.

    In a destination that `is_fixed`, the folder is inside. `earlier` is what an earlier attempt left.
    """

    destination: Location
    folder: Path
    is_fixed: bool = False
    earlier: Earlier = NOTHING

    @property
    def output(self) -> Path:
        """The folder in which the output is written."""
        return self.folder / _OUTPUT

    @property
    def scratch(self) -> Path:
        """A folder for intermediate files."""
        return self.folder / _SCRATCH

    def publish(
        self,
        staged: Path,
        *,
        overwrite: bool,
        durable: bool = True,
        check: Callable[[], None] = lambda: None,
        order: Sequence[str] = (),
    ) -> None:
        """Rename `staged` (inside `output`, or `output` itself) to the destination, flushed to the disk if `durable`.

        `order` says in which order files appear where they cannot all at once. `check` is called just before: much may
        have come to the destination since it was looked at first. Raises what it raises, DestinationExistsError when
        something appeared there and `overwrite` is not set, WriteError when the file system refuses. Either way nothing
        was published, unless the error says that it is in place.
        """
        if durable:
            _flush(staged)
        try:
            for _ in range(_ATTEMPTS):
                check()
                if not isinstance(self.destination, Path):
                    self.destination.put(staged, _files_of(staged, order))
                    return
                if self.is_fixed:
                    mounted.fill(self.destination, staged, self.scratch, overwrite=overwrite, order=order)
                    break
                if _move(staged, self.destination, overwrite=overwrite):
                    break
            else:
                what = f"was replaced by someone else {_ATTEMPTS} times while the output was published"
                raise WriteError(what, path=self.destination)
        except FileExistsError:
            raise DestinationExistsError("appeared while the output was made", path=self.destination) from None
        except OSError as error:
            raise WriteError(os.strerror(error.errno or 0), path=self.destination) from error
        if durable:
            _flush_parent(self.destination, is_fixed=self.is_fixed)


def _flush_parent(destination: Path, *, is_fixed: bool) -> None:
    try:
        _flush_one(destination if is_fixed else destination.parent)
    except WriteError as error:
        what = f"is in place and whole, but may not outlast a power failure: {error.message}"
        raise WriteError(what, path=destination) from error


@contextmanager
def staging(
    destination: Location, *, is_fixed: bool = False, attempt: Attempt | None = None, resumes: bool = False
) -> Iterator[Staging]:
    """Make a staging folder beside `destination`, inside if it `is_fixed`; it is gone afterwards, whatever happened.

    What goes to another storage is staged among temporary files.

    The folder says which `attempt` it is of. One that `resumes` takes what dead processes left of the same attempt, and
    leaves its own for the next when a signal ends it, or a disk that is full.

    Raises WriteError when it cannot be made.
    """
    if isinstance(destination, Path):
        parent = destination if is_fixed else destination.parent
    else:
        parent = Path(tempfile.gettempdir())
    if not resumes:
        _sweep(parent)
    folder = parent / f"{PREFIX}{os.getpid()}-{secrets.token_hex(4)}"
    is_left = False
    try:
        with _locked_folder(folder, destination, attempt):
            earlier = NOTHING
            if resumes and attempt is not None:
                with _failing_at(destination), _dead(parent) as leftovers:
                    earlier = resume.moved_into(attempt, leftovers, folder, _OUTPUT)
            yield Staging(destination=destination, folder=folder, is_fixed=is_fixed, earlier=earlier)
    except (Interrupted, WriteError):
        is_left = resumes
        raise
    finally:
        if not is_left:
            _remove(folder)


@contextmanager
def _failing_at(destination: Location) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise WriteError(os.strerror(error.errno or 0), path=destination) from error


@contextmanager
def _locked_folder(folder: Path, destination: Location, attempt: Attempt | None) -> Iterator[None]:
    lock = -1
    try:
        folder.mkdir(mode=0o700)
        lock = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        for name in (_OUTPUT, _SCRATCH):
            (folder / name).mkdir()
        if attempt is not None:
            attempt.write(folder)
    except OSError as error:
        if lock >= 0:
            os.close(lock)
        raise WriteError(os.strerror(error.errno or 0), path=destination) from error
    try:
        yield
    finally:
        os.close(lock)


def _remove(folder: Path) -> None:
    """Remove what is there, and go on with it when a signal arrives meanwhile (the next ones are ignored)."""
    try:
        processes.leave(folder)
        shutil.rmtree(folder, ignore_errors=True)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _sweep(parent: Path) -> None:
    with _dead(parent) as leftovers:
        for folder in leftovers:
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _dead(parent: Path) -> Iterator[list[Path]]:
    """Yield the staging folders of processes that are gone, each under its lock until the end."""
    locks: dict[Path, int] = {}
    try:
        for entry in sorted(parent.glob(PREFIX + "*")):
            if _is_alive(entry.name.removeprefix(PREFIX).partition("-")[0]):
                continue
            try:
                lock = os.open(entry, os.O_RDONLY | os.O_NOFOLLOW | os.O_DIRECTORY | os.O_CLOEXEC)
            except OSError:
                continue
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                os.close(lock)
            else:
                locks[entry] = lock
        yield list(locks)
    finally:
        for lock in locks.values():
            os.close(lock)


def _is_alive(process_id: str) -> bool:
    try:
        os.kill(int(process_id), 0)
    except (ValueError, OverflowError, ProcessLookupError):
        return False
    except PermissionError:
        return True
    return True


def check_space(folder: Path, nbytes: int, destination: Location) -> None:
    """Raise WriteError when the file system of `folder` has less than `nbytes` free."""
    free = shutil.disk_usage(folder).free
    if nbytes > free:
        raise WriteError(f"needs {nbytes} bytes, the disk has {free} free", path=destination)


def bytes_at(path: Path) -> int:
    """Return the bytes of a file, or of all files in a folder."""
    return sum(file.stat().st_size for file in (path.rglob("*") if path.is_dir() else [path]) if file.is_file())


def _files_of(staged: Path, order: Sequence[str]) -> list[str]:
    """Return the files of a staged folder by name, those that `order` does not have last; of a staged file, none."""
    found = sorted(str(path.relative_to(staged)) for path in staged.rglob("*") if path.is_file())
    return [*(name for name in order if name in found), *(name for name in found if name not in order)]


def _flush(staged: Path) -> None:
    if not staged.is_dir():
        _flush_one(staged)
    for folder, _, files in os.walk(staged):
        for name in files:
            _flush_one(Path(folder, name))
        _flush_one(Path(folder))


def _flush_one(path: Path) -> None:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise WriteError(os.strerror(error.errno or 0), path=path) from error


def _move(staged: Path, destination: Path, *, overwrite: bool) -> bool:
    """Whether the move was made; False when what is at the destination changed on the way."""
    is_there_folder = destination.is_dir() and not destination.is_symlink()
    try:
        if is_there_folder and not _entries(destination):
            os.rename(staged, destination)  # replaces an empty folder in one step
        elif is_there_folder and overwrite:
            if not _renameat2(staged, destination, _EXCHANGE):
                _exchange_in_two_steps(staged, destination)
        elif overwrite:
            os.replace(staged, destination)
        elif not _renameat2(staged, destination, _NOREPLACE):
            mounted.rename_if_absent(staged, destination)  # on file systems without RENAME_NOREPLACE
    except OSError as error:
        if error.errno == errno.ENOTEMPTY or (overwrite and error.errno in (errno.EEXIST, errno.ENOENT)):
            return False
        raise
    return True


def _exchange_in_two_steps(staged: Path, destination: Path) -> None:
    """Replace a folder where RENAME_EXCHANGE is missing: for a moment the old one is aside and nothing is there."""
    aside = staged.parent / f"replaced-{secrets.token_hex(4)}"
    os.rename(destination, aside)
    try:
        os.rename(staged, destination)
    except OSError:
        os.rename(aside, destination)
        raise


def _renameat2(source: Path, destination: Path, flags: int) -> bool:
    """Rename with `flags`; False when this system or file system cannot."""
    function = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if function is None:
        return False
    if function(_AT_FDCWD, os.fsencode(source), _AT_FDCWD, os.fsencode(destination), flags) == 0:
        return True
    code = ctypes.get_errno()
    if code in (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP):
        return False
    raise OSError(code, os.strerror(code), os.fspath(destination))
