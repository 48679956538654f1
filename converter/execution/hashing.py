"""The hash of a source, taken in a thread of its own while the output is written."""

from __future__ import annotations

import hashlib
import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from threading import Event, current_thread, main_thread
from typing import Any

from blake3 import blake3

from converter.model.file import SourceFile
from converter.model.tensor import Tensor

BLAKE3, SHA256 = "blake3", "sha256"
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def hashed(files: Sequence[SourceFile], algorithm: str) -> Iterator[Callable[[], str]]:
    """Start hashing `files` by BLAKE3 or SHA256 and yield a function that waits for the hash, in hex.

    Of one file it is the hash of its bytes; of several, that of their lines ``<hash>  <name>`` by name, as sha256sum
    and b3sum print them; of none it is "". Errors of reading appear where the hash is asked for. A hash that nobody
    waits for any more is given up.
    """
    executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="hash")
    cancelled = Event()
    try:
        with signals_held_back():
            future = executor.submit(_hash_of_all, files, algorithm, cancelled)
        yield future.result
    finally:
        cancelled.set()
        executor.shutdown(wait=False, cancel_futures=True)


@contextmanager
def signals_held_back() -> Iterator[None]:
    """An exception from a signal handler while a thread or a process starts would leave it without its bookkeeping.

    The mask is for the thread that starts, which inherits it. It does not hold back all: the system gives a signal to
    any thread that has it unblocked, as those of numpy's have, and Python runs the handler in this one.
    """
    came: list[int] = []
    with ExitStack() as restoring:
        restoring.callback(_raise_all, came)
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        restoring.callback(signal.pthread_sigmask, signal.SIG_SETMASK, before)
        for number in _SIGNALS if current_thread() is main_thread() else ():
            handler = signal.getsignal(number)
            if callable(handler):
                restoring.callback(signal.signal, number, handler)
                signal.signal(number, lambda number, _: came.append(number))
        yield


def _raise_all(numbers: Iterable[int]) -> None:
    for number in numbers:
        signal.raise_signal(number)


def tensor_sha256(tensor: Tensor) -> str:
    """Return the SHA-256 of a tensor's bytes (C order, little-endian), in hex. Raises ReadError."""
    value = hashlib.sha256()
    for chunk in tensor.chunks():
        value.update(chunk)
    return str(value.hexdigest())


def sha256_of(files: Sequence[SourceFile]) -> str:
    """Return the SHA-256 of `files`, in hex, as `hashed` makes it. Raises ReadError."""
    return _hash_of_all(files, SHA256, Event())


def _hash_of_all(files: Sequence[SourceFile], algorithm: str, cancelled: Event) -> str:
    if not files:
        return ""
    if len(files) == 1:
        return _hash(files[0], algorithm, cancelled)
    value = _new(algorithm)
    for line in sorted(f"{_hash(file, algorithm, cancelled)}  {file.path.name}\n" for file in files):
        value.update(line.encode("utf-8", "surrogateescape"))
    return str(value.hexdigest())


def _new(algorithm: str) -> Any:
    return hashlib.sha256() if algorithm == SHA256 else blake3()


def _hash(file: SourceFile, algorithm: str, cancelled: Event) -> str:
    value = _new(algorithm)
    for chunk in file.chunks(0, file.size):
        value.update(chunk)
        if cancelled.is_set():
            return ""
    return str(value.hexdigest())
