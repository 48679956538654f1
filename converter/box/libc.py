"""The two functions of the C library that ask the kernel for a box."""

from __future__ import annotations

import ctypes
import sys
from typing import Any

_LIBRARY = ctypes.CDLL(None, use_errno=True)


def _widened(arguments: tuple[Any, ...]) -> list[Any]:
    """Return numbers as C longs: ctypes passes ints of 32 bits to a variadic function, and the kernel reads 64."""
    return [ctypes.c_ulong(each) if isinstance(each, int) else each for each in arguments]


def prctl(option: int, *arguments: Any) -> int:
    """Call prctl(2). Returns -1 where there is none."""
    if sys.platform != "linux":
        return -1
    widened = [*_widened(arguments), *map(ctypes.c_ulong, [0] * (4 - len(arguments)))]
    return int(_LIBRARY.prctl(ctypes.c_int(option), *widened))


def system_call(number: int, *arguments: Any) -> int:
    """Call syscall(2). Returns -1 for any error, and where there is none."""
    if sys.platform != "linux":
        return -1
    _LIBRARY.syscall.restype = ctypes.c_long
    return int(_LIBRARY.syscall(ctypes.c_long(number), *_widened(arguments)))


def unshare(flags: int) -> bool:
    """Call unshare(2); whether it worked."""
    return sys.platform == "linux" and int(_LIBRARY.unshare(ctypes.c_int(flags))) == 0
