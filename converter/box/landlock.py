"""Landlock (https://docs.kernel.org/userspace-api/landlock.html): which files, ports and processes are in reach."""

from __future__ import annotations

import ctypes
import os
import stat
import struct
import sys
from collections.abc import Iterable
from pathlib import Path

from converter.box.libc import system_call

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # on every processor
_VERSION, _PATH_BENEATH = 1, 1
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR, _REMOVE_DIR, _REMOVE_FILE = (1 << bit for bit in range(6))
_MAKE_CHAR, _MAKE_DIR, _MAKE_REG, _MAKE_SOCK, _MAKE_FIFO, _MAKE_BLOCK, _MAKE_SYM = (1 << bit for bit in range(6, 13))
_REFER, _TRUNCATE, _IOCTL_DEV = (1 << bit for bit in range(13, 16))
_NET_BIND_TCP, _NET_CONNECT_TCP = 1, 2
_SCOPE_ABSTRACT_SOCKETS, _SCOPE_SIGNALS = 1, 2
_OF_FILES = _WRITE_FILE | _READ_FILE | _TRUNCATE
_READING = _READ_FILE | _READ_DIR
_WRITING = _READING | _WRITE_FILE | _REMOVE_DIR | _REMOVE_FILE | _MAKE_DIR | _MAKE_REG | _REFER | _TRUNCATE
"""No links: who is outside the box opens files of the scratch folder, and would follow them."""
_WANTED = {
    2: "moving files between folders (Landlock 2, Linux 5.19)",
    3: "the length of files elsewhere (Landlock 3, Linux 6.2)",
}
"""What each version adds that nothing else here sees to; ports, devices and signals are seccomp's too."""


def version() -> int:
    """Return the version of the kernel's Landlock, 0 where there is none."""
    return max(0, system_call(_CREATE_RULESET, None, 0, _VERSION)) if sys.platform == "linux" else 0


def close(*, reads: Iterable[Path], writes: Iterable[Path], lists: Iterable[Path] = ()) -> list[str]:
    """Let this thread, and what it starts, read below `reads`, change files below `writes`, list names below `lists`.

    Paths that do not exist are left out. No file is run as a program, no TCP port bound or connected to, no abstract
    socket or process outside signalled where the kernel knows how. Returns what is missing. The process has to have
    no_new_privs.
    """
    known = version()
    if known < 2:  # the first version forbids every move between folders, which frameworks need
        return ["reading SRC and writing the scratch folder alone (Landlock 2, Linux 5.19)"]
    handled = (1 << 13) - 1 | _REFER
    handled |= _TRUNCATE if known >= 3 else 0
    handled |= _IOCTL_DEV if known >= 5 else 0
    ports = _NET_BIND_TCP | _NET_CONNECT_TCP if known >= 4 else 0
    scopes = _SCOPE_ABSTRACT_SOCKETS | _SCOPE_SIGNALS if known >= 6 else 0
    attributes = struct.pack("=QQQ", handled, ports, scopes)
    ruleset = system_call(_CREATE_RULESET, attributes, len(attributes) if known >= 6 else 16 if known >= 4 else 8, 0)
    if ruleset < 0:
        return ["reading SRC and writing the scratch folder alone (Landlock does not answer)"]
    try:
        for path in dict.fromkeys(reads):
            _allow(ruleset, path, _READING)
        for path in dict.fromkeys(lists):
            _allow(ruleset, path, _READ_DIR)
        for path in dict.fromkeys(writes):
            _allow(ruleset, path, _WRITING & handled)
        if system_call(_RESTRICT_SELF, ruleset, 0) != 0:
            return ["reading SRC and writing the scratch folder alone (Landlock does not close)"]
    finally:
        os.close(ruleset)
    return [what for since, what in _WANTED.items() if known < since]


def _allow(ruleset: int, path: Path, rights: int) -> None:
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    try:
        if not stat.S_ISDIR(os.fstat(descriptor).st_mode):
            rights &= _OF_FILES
        rule = ctypes.create_string_buffer(struct.pack("=Qi", rights, descriptor))
        system_call(_ADD_RULE, ruleset, _PATH_BENEATH, rule, 0)
    finally:
        if path != PROCESS:
            os.close(descriptor)


PROCESS = Path("/proc/self")
"""Its descriptor stays open: the kernel makes the folder anew, and no rule is for it, once nobody has it open."""
