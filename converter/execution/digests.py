"""What bytes were, in 128 bits: what is written and read back is compared with it, without the source being read again.

XXH3 (https://github.com/Cyan4973/xxHash, 0.8): no two buffers that differ by accident are alike, and nobody but this
program has written the file.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import xxhash


@dataclass(frozen=True, slots=True)
class Digests:
    """The digests of what was written of objects, which are kept: another would have the identity of one that went."""

    known: dict[int, tuple[object, bytes]] = field(default_factory=dict)

    def of(self, written: object) -> bytes | None:
        """Return the digest of what was written of an object, None where nothing was."""
        return self.known.get(id(written), (None, None))[1]

    def watched(self, written: object, chunks: Iterable[memoryview | bytes]) -> Iterator[memoryview | bytes]:
        """Yield the chunks of an object, and know their digest once all were taken."""
        value = xxhash.xxh3_128()
        for chunk in chunks:
            value.update(chunk)
            yield chunk
        self.known[id(written)] = (written, value.digest())


NONE = Digests()
"""Of nothing that was written here."""


def digest_of(chunks: Iterable[memoryview | bytes]) -> bytes:
    """Return the digest of bytes."""
    value = xxhash.xxh3_128()
    for chunk in chunks:
        value.update(chunk)
    return value.digest()
