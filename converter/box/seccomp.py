"""A seccomp filter (https://docs.kernel.org/userspace-api/seccomp_filter.html) in classic BPF, written by hand."""

from __future__ import annotations

import ctypes
import errno
import os
import struct
import sys

from converter.box import system_calls as calls
from converter.box.libc import prctl, system_call

_ARCHITECTURES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}  # our column, AUDIT_ARCH_*
_X32_BIT = 0x40000000
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _MASK, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x54, 0x06
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16  # offsets in struct seccomp_data
_ALLOW, _REFUSE = 0x7FFF0000, 0x00050000
_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 22, 2
_SECCOMP_SET_MODE_FILTER, _FOR_ALL_THREADS = 1, 1
_CLONE_THREAD, _CLONE_NEW_NAMESPACES = 0x10000, 0x7E020080
_AF_UNIX, _SOCK_STREAM, _SOCK_FLAGS = 1, 1, 0o2004000  # SOCK_CLOEXEC, SOCK_NONBLOCK

Instruction = tuple[int, int, int, int]


def close(*, can_fork: bool = False) -> str | None:
    """Refuse this process, all its threads and what it forks every call that computing does not need.

    EPERM answers: no program is started, no socket but a connected pair made, no other process signalled or looked
    into, nothing mounted, no attribute of a file changed. Threads may be started; processes only if it `can_fork`.
    Returns what is missing when there is no such filter here. The process has to have no_new_privs.
    """
    if sys.platform != "linux" or os.uname().machine not in _ARCHITECTURES or sys.maxsize < 1 << 32:
        return f"a filter of system calls (seccomp): there is none for {sys.platform} on {os.uname().machine}"
    return install(program(own_process=None if can_fork else os.getpid()))


def program(*, own_process: int | None) -> bytes:
    """Return the filter as an array of struct sock_filter.

    `own_process` is the only one that may be signalled; None for a process that may fork.
    """
    column, architecture = _ARCHITECTURES[os.uname().machine]
    lines: list[Instruction] = [
        (_LOAD, 0, 0, _ARCHITECTURE),
        (_EQUAL, 1, 0, architecture),
        _refuse(errno.EPERM),
        (_LOAD, 0, 0, _NUMBER),
        (_AT_LEAST, 0, 1, _X32_BIT),
        _refuse(errno.EPERM),
        (_AT_LEAST, 0, 1, calls.NEWEST + 1),
        _refuse(errno.ENOSYS),
    ]
    for numbers in calls.REFUSED.values():
        number = numbers[column]
        forks = numbers in (calls.REFUSED["fork"], calls.REFUSED["vfork"])
        if number is not None and not (forks and own_process is None):
            lines += [(_EQUAL, 0, 1, number), _refuse(errno.EPERM)]
    pair = [*_argument(0, _AF_UNIX), *_argument(1, _SOCK_STREAM, but=_SOCK_FLAGS)]
    lines += _only(calls.SOCKETPAIR[column], pair)
    if own_process is not None:
        lines += [(_EQUAL, 0, 1, calls.CLONE3[column]), _refuse(errno.ENOSYS)]  # its flags are out of sight
        thread = [(_ANY_BIT, 1, 0, _CLONE_THREAD), _refuse(errno.EPERM)]
        thread += [(_ANY_BIT, 0, 1, _CLONE_NEW_NAMESPACES), _refuse(errno.EPERM)]
        lines += _only(calls.CLONE[column], [(_LOAD, 0, 0, _ARGUMENTS), *thread])
        lines += _only(calls.KILL[column], _argument(0, own_process))
        lines += _only(calls.TGKILL[column], _argument(0, own_process))
        lines += _only(calls.PRLIMIT64[column], _argument(0, 0, own_process))
    lines.append((_RETURN, 0, 0, _ALLOW))
    return b"".join(struct.pack("=HBBI", *line) for line in lines)


def _refuse(number: int) -> Instruction:
    return (_RETURN, 0, 0, _REFUSE | number)


def _only(number: int, check: list[Instruction]) -> list[Instruction]:
    """Let the call pass where `check`, which loads what it likes, refuses nothing."""
    return [(_EQUAL, 0, len(check) + 1, number), *check, (_RETURN, 0, 0, _ALLOW)]


def _argument(index: int, *allowed: int, but: int = 0) -> list[Instruction]:
    """Refuse an argument, its bits `but` aside, that is none of those."""
    tests = [(_EQUAL, len(allowed) - at, 0, value) for at, value in enumerate(allowed)]
    mask = [(_MASK, 0, 0, ~but & 0xFFFFFFFF)] if but else []
    return [(_LOAD, 0, 0, _ARGUMENTS + 8 * index), *mask, *tests, _refuse(errno.EPERM)]


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def install(filter_: bytes) -> str | None:
    """Install a filter for all threads. Returns what is missing when the kernel takes none."""
    program_pointer = ctypes.byref(_Program(len(filter_) // 8, filter_))
    column, _ = _ARCHITECTURES[os.uname().machine]
    if system_call(calls.SECCOMP[column], _SECCOMP_SET_MODE_FILTER, _FOR_ALL_THREADS, program_pointer) == 0:
        return None
    if prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, program_pointer) == 0:
        return None
    return "a filter of system calls (seccomp, Linux 3.17)"
