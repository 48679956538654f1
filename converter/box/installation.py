"""What any Python program reads: the installation, shared libraries, and what the kernel says of the machine."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

from converter.box.landlock import PROCESS

_LIBRARIES = """
/usr/lib /usr/lib32 /usr/lib64 /lib /lib64 /usr/local/lib /usr/local/lib64 /nix/store /gnu/store
"""
_SYSTEM = """
/etc/ld.so.cache /etc/localtime /etc/timezone /usr/share/zoneinfo /usr/share/locale /dev/null /dev/urandom /dev/random
/proc/cpuinfo /proc/meminfo /proc/stat /proc/filesystems /proc/sys/vm /proc/sys/kernel
/sys/devices/system /sys/fs/cgroup /sys/kernel/mm
"""
_IMPORTED = (".py", ".so", ".dist-info", ".egg-info")


def paths(home: Path | None = None) -> Iterator[Path]:
    """Yield the files and folders of this interpreter and of everything on `sys.path`.

    Of a folder on `sys.path` that `home` is in, packages and modules alone.
    """
    yield from map(Path, (*_LIBRARIES.split(), *_SYSTEM.split()))
    yield PROCESS
    yield from map(Path, {sys.prefix, sys.base_prefix, sys.exec_prefix, sys.base_exec_prefix})
    yield Path(os.__file__).parent
    for folder in (*sys.path, *os.environ.get("LD_LIBRARY_PATH", "").split(os.pathsep)):
        if folder:
            yield from _importable(Path(os.path.abspath(folder)), home)
    yield from _mapped()


def shared_with(home: Path | None) -> Iterator[Path]:
    """Yield the folders on `sys.path` that `home` is in."""
    for folder in (Path(os.path.abspath(each)) for each in sys.path if each):
        if home is not None and folder in (home, *home.parents):
            yield folder


def _importable(folder: Path, home: Path | None) -> Iterator[Path]:
    if home is None or folder not in (home, *home.parents):
        yield folder
        return
    try:
        entries = list(os.scandir(folder))
    except OSError:
        return
    for entry in entries:
        if entry.name.endswith(_IMPORTED) or os.path.exists(os.path.join(entry.path, "__init__.py")):
            yield Path(entry.path)


def visible(folder: Path) -> Iterator[Path]:
    """Yield what is in a folder of the user's but for what is hidden there: keys, tokens, histories."""
    try:
        entries = [entry for entry in os.scandir(folder) if not entry.name.startswith(".")]
    except OSError:
        return
    yield from (Path(entry.path) for entry in entries)


def _mapped() -> Iterator[Path]:
    """Yield the folders of the shared libraries in use: some interpreters have theirs in places of their own."""
    try:
        with open(PROCESS / "maps", encoding="utf-8", errors="surrogateescape") as file:
            found = {line.rstrip("\n").partition("/")[2] for line in file if ".so" in line}
    except OSError:
        return
    yield from {Path("/", path).parent for path in found}
