"""What tests of child processes ask one: where it is, and what it has."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import time
from typing import Any


def about() -> dict[str, Any]:
    """Return what the process finds."""
    umask = os.umask(0)
    os.umask(umask)
    return {
        "process": os.getpid(),
        "parent": os.getppid(),
        "session": os.getsid(0),
        "folder": os.getcwd(),
        "home": os.environ["HOME"],
        "temporary": tempfile.gettempdir(),
        "cache": os.environ.get("ITS_CACHE"),
        "modules": sorted(sys.modules),
        "descriptors": sum(map(_is_open, range(64))),
        "umask": umask,
        "signals": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, ())),
    }


def _is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


def wait() -> None:
    """Take a minute."""
    time.sleep(60)
