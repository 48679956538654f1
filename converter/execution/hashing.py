"""The hash of a source, taken in a thread of its own while the output is written."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from converter.model.file import SourceFile


@contextmanager
def hashed(files: Sequence[SourceFile]) -> Iterator[Callable[[], str]]:
    """Start hashing `files` and yield a function that waits for the SHA-256, in hex.

    Of one file it is the hash of its bytes; of several, that of their lines ``<sha256>  <name>`` by name, as
    sha256sum prints them; of none it is "". Errors of reading appear where the hash is asked for.
    """
    executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="sha256")
    future = executor.submit(_sha256_of_all, files)
    try:
        yield future.result
    finally:
        executor.shutdown(wait=False, cancel_futures=True)


def _sha256_of_all(files: Sequence[SourceFile]) -> str:
    if not files:
        return ""
    if len(files) == 1:
        return _sha256(files[0])
    lines = sorted(f"{_sha256(file)}  {file.path.name}\n" for file in files)
    return hashlib.sha256("".join(lines).encode("utf-8", "surrogateescape")).hexdigest()


def _sha256(file: SourceFile) -> str:
    value = hashlib.sha256()
    for chunk in file.chunks(0, file.size):
        value.update(chunk)
    return value.hexdigest()
