"""What a process gives up at once: rights that programs could give it, capabilities, the machine's networks."""

from __future__ import annotations

import ctypes
import os
import signal
import struct
import sys
from functools import cache

from converter.box import system_calls as calls
from converter.box.libc import prctl, system_call, unshare

_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS, _PR_CAPBSET_DROP, _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL = 1, 38, 24, 47, 4
_CAPABILITY_VERSION_3 = 0x20080522
_CAP_DAC_OVERRIDE, _CAP_DAC_READ_SEARCH = 1, 2
_CAPABILITIES = 64
_CLONE_NEWIPC, _CLONE_NEWUSER, _CLONE_NEWNET = 0x08000000, 0x10000000, 0x40000000


def die_with(parent: int) -> None:
    """Be killed when the parent is, or the thread of it that started this process: nobody cleans up after that."""
    prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def outlive_parent() -> None:
    """Take back what `die_with` asked for."""
    prctl(_PR_SET_PDEATHSIG, 0)


def give_up_new_ones() -> str | None:
    """No program that this process runs has more rights than it. Returns what is missing."""
    return None if prctl(_PR_SET_NO_NEW_PRIVS, 1) == 0 else "no_new_privs (Linux 3.5)"


@cache
def leave_networks() -> bool:
    """Enter a network of this process and its forks alone, with no interface that is up, and say whether that went.

    Who is not root needs a user namespace for that. Nobody has a number there, so numbers read 65534; nothing is lost
    by that, and to say otherwise a file of the kernel's would have to be written.
    """
    if unshare(_CLONE_NEWNET | _CLONE_NEWIPC):
        return True
    return unshare(_CLONE_NEWUSER | _CLONE_NEWNET | _CLONE_NEWIPC)


def give_up_capabilities() -> None:
    """Keep no right of root but to read and write files of others: which ones, Landlock decides."""
    for capability in range(_CAPABILITIES):
        prctl(_PR_CAPBSET_DROP, capability)
    prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)
    column = {"x86_64": 0, "aarch64": 1}.get(os.uname().machine)
    if column is None or sys.platform != "linux":
        return
    # Those that this process does not have may not be asked for: only root asks for any.
    kept = (1 << _CAP_DAC_OVERRIDE | 1 << _CAP_DAC_READ_SEARCH) & _permitted()
    header = ctypes.create_string_buffer(struct.pack("=Ii", _CAPABILITY_VERSION_3, 0))
    data = ctypes.create_string_buffer(struct.pack("=6I", kept, kept, 0, 0, 0, 0))
    system_call(calls.CAPSET[column], header, data)


def _permitted() -> int:
    try:
        with open("/proc/self/status", encoding="ascii", errors="replace") as file:
            return next(int(line.split()[1], 16) for line in file if line.startswith("CapPrm:"))
    except (OSError, StopIteration):
        return 0
