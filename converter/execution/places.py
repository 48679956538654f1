"""What is at a path, and whether two are one file or one inside the other: by name, through links, and by inode."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from converter.model.file import Location


def is_folder(path: Path) -> bool:
    """Whether a folder is there. Raises OSError when nobody can tell, as below a folder that may not be searched."""
    try:
        return stat.S_ISDIR(os.stat(path).st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False


def is_same(left: Location, right: Location) -> bool:
    """Whether both are one place, however it is spelled, or one file through a symbolic or a hard link."""
    if not (isinstance(left, Path) and isinstance(right, Path)):
        return left == right
    if _spellings(left) & _spellings(right):
        return True
    try:
        return left.samefile(right)
    except OSError:
        return False


def is_inside(path: Location, folder: Location) -> bool:
    """Whether `path`, or what it links to, is below `folder`: by name, or by inode where a disk is mounted twice."""
    if not (isinstance(path, Path) and isinstance(folder, Path)):
        return type(path) is type(folder) and str(path).startswith(f"{str(folder).rstrip('/')}/")
    return any(
        place in above or any(_is_one(place, parent) for parent in above)
        for above in (here.parents for here in _spellings(path))
        for place in _spellings(folder)
    )


def _spellings(path: Path) -> frozenset[Path]:
    """Where the name is, the folders above it resolved, and where it leads when it is a link."""
    absolute = Path(os.path.abspath(path))
    return frozenset((Path(os.path.realpath(absolute.parent)) / absolute.name, Path(os.path.realpath(absolute))))


def _is_one(left: Path, right: Path) -> bool:
    try:
        return os.path.samestat(os.lstat(left), os.lstat(right))
    except OSError:
        return False
