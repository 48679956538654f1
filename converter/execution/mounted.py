"""Filling a folder that nothing can be renamed over: a mount point, or one whose parent we may not write to.

The output is staged in a dot folder inside it, on the same disk, and its entries are renamed into the folder one after
the other under a lock: in the order of the plan, so that an index appears after the files it names. A failure on the
way takes back what was renamed. A process that is killed between the first rename and the last leaves some of the
files, never a torn one, and without the one that makes a checkpoint of them.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

PREFIX = ".ckconv-"
_DISK_ENTRY = "lost+found"
_MOUNT_ID = re.compile(r"^mnt_id:\s*(\d+)$", re.MULTILINE)


def is_fixed(folder: Path) -> bool:
    """Whether an existing folder can be filled and not replaced."""
    return os.path.ismount(folder) or _mount(folder) != _mount(folder.parent) or not _may_replace_in(folder.parent)


def _may_replace_in(parent: Path) -> bool:
    return os.access(parent, os.W_OK | os.X_OK)


def _mount(folder: Path) -> str | None:
    """Return the mount that holds `folder`: a bind mount of the same disk is seen by this alone."""
    try:
        descriptor = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        found = _MOUNT_ID.search(Path(f"/proc/self/fdinfo/{descriptor}").read_text())
    except OSError:
        return None
    finally:
        os.close(descriptor)
    return None if found is None else found[1]


def visible(entries: Iterable[str], *, is_fixed: bool) -> tuple[str, ...]:
    """Return what of a folder's entries is the user's: no staging folder, and not what an empty disk has."""
    if not is_fixed:
        return tuple(entries)
    return tuple(entry for entry in entries if not entry.startswith(PREFIX) and entry != _DISK_ENTRY)


def fill(folder: Path, staged: Path, aside: Path, *, overwrite: bool, order: Sequence[str]) -> None:
    """Rename the entries of `staged` into `folder`, those that `order` does not have last.

    With `overwrite` what is there goes into `aside` before. Raises FileExistsError when something is there otherwise,
    OSError when a rename fails; everything is where it was then.
    """
    places = {name.partition("/")[0]: place for place, name in reversed(list(enumerate(order)))}
    names = sorted(os.listdir(staged), key=lambda name: (places.get(name, len(order)), name))
    done: list[tuple[Path, Path]] = []

    def rename(source: Path, target: Path) -> None:
        rename_if_absent(source, target)
        done.append((source, target))

    with _locked(folder):
        there = visible(os.listdir(folder), is_fixed=True)
        if there and not overwrite:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), os.fspath(folder))
        try:
            if there:
                (aside / "replaced").mkdir()
            for name in there:
                rename(folder / name, aside / "replaced" / name)
            for name in names:
                rename(staged / name, folder / name)
        except BaseException:
            for source, target in reversed(done):
                with suppress(OSError):
                    os.rename(target, source)
            raise


def rename_if_absent(source: Path, target: Path) -> None:
    """Rename, and raise FileExistsError when something is at `target`; a window remains between look and rename."""
    if os.path.lexists(target):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), os.fspath(target))
    os.rename(source, target)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)
