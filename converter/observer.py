"""How long work tells whoever waits for it. The library is silent; a caller may listen."""

from __future__ import annotations


class Observer:
    """Hears what goes on; does nothing about it. Subclass it to show progress."""

    def stage(self, name: str, total_bytes: int | None = None) -> None:
        """A stage began: `total_bytes` to go through, or None when nobody knows how long it takes."""

    def advance(self, nbytes: int) -> None:
        """`nbytes` more of the stage are done."""

    def committing(self) -> None:
        """All is verified and the output is about to appear: from here on, interrupting comes too late."""


SILENT = Observer()
