"""Limits of a child process, in proportion to the model: no real one meets them, and what grows without end does."""

from __future__ import annotations

import math
import os
import re
import resource
import signal
from dataclasses import asdict, dataclass

_GIBIBYTE = 1 << 30
_MEMORY_BYTES, _MEMORY_PER_BYTE = 4 * _GIBIBYTE, 12
_STACKS_BYTES = 128 << 20
"""Of each processor: frameworks start several threads for it, and their stacks count."""
_FILE_BYTES, _FILE_PER_BYTE = 2 * _GIBIBYTE, 8
_NO_MEMORY = re.compile(
    r"bad_alloc|MemoryError|OOM when allocating|out of memory|can't allocate memory|[Cc]annot allocate memory"
    r"|[Ff]ailed to allocate memory|[Uu]nable to allocate|not enough memory"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a child process may use; None is no limit.

    `memory_bytes` is what it allocates (RLIMIT_DATA), `file_bytes` the longest file it may write (RLIMIT_FSIZE),
    `processor_seconds` the time of all processors together (RLIMIT_CPU).
    """

    memory_bytes: int | None = None
    file_bytes: int | None = None
    processor_seconds: int | None = None

    @classmethod
    def of(cls, *, model_bytes: int, timeout_seconds: float) -> Limits:
        """Return the limits for a model whose tensors have so many bytes.

        Small models take 0.5 GiB, whatever the framework, on two processors. All processors together
        have as long as each may take by the clock.
        """
        processors = os.cpu_count() or 1
        return cls(
            memory_bytes=_MEMORY_BYTES + _MEMORY_PER_BYTE * model_bytes + _STACKS_BYTES * processors,
            file_bytes=_FILE_BYTES + _FILE_PER_BYTE * model_bytes,
            processor_seconds=math.ceil(timeout_seconds * processors) if math.isfinite(timeout_seconds) else None,
        )

    def to_json(self) -> dict[str, int | None]:
        """Return it as JSON values."""
        return asdict(self)

    def apply(self) -> None:
        """Set them for this process, and dump no core. A limit that is stricter already stays."""
        _set(resource.RLIMIT_DATA, self.memory_bytes)
        _set(resource.RLIMIT_FSIZE, self.file_bytes)
        _set(resource.RLIMIT_CPU, self.processor_seconds, grace=1)  # SIGXCPU tells, at the hard limit SIGKILL would not
        _set(resource.RLIMIT_CORE, 0)
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)  # Python goes on after it, as after a disk that is full


def is_out_of_memory(stderr: str) -> bool:
    """Whether what a child process wrote to stderr says that a framework, or the C++ library, ran out of memory."""
    return bool(_NO_MEMORY.search(stderr))


def _set(which: int, most: int | None, grace: int = 0) -> None:
    if most is None:
        return
    _, hard = resource.getrlimit(which)
    end = most + grace if hard == resource.RLIM_INFINITY else min(most + grace, hard)
    resource.setrlimit(which, (end - grace, end))
