"""Where an output is made: files streamed into the staged folder, frameworks called in child processes."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from converter.errors import WriteError
from converter.execution import child, processes, streaming
from converter.execution.child import NO_TERMS, Terms
from converter.execution.digests import Digests
from converter.execution.parallel import SERIAL, Workers
from converter.execution.resume import NOTHING, Earlier
from converter.model.checkpoint import Checkpoint
from converter.model.child_function import Call, ChildFunction, P, R
from converter.model.output import Output, OutputFile
from converter.observer import SILENT, Observer


@contextmanager
def temporary_scratch() -> Iterator[Path]:
    """Make a folder among temporary files that a workshop may fill; it is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="ckconv-") as folder:
        try:
            yield Path(folder)
        finally:
            processes.leave(Path(folder))


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalWorkshop:
    """A `converter.model.output.Workshop` on this machine."""

    folder: Path
    scratch: Path
    observer: Observer = SILENT
    workers: Workers = SERIAL
    earlier: Earlier = NOTHING
    terms: Terms = NO_TERMS
    digests: Digests = field(default_factory=Digests)

    def make(self, output: Output, checkpoint: Checkpoint) -> tuple[OutputFile, ...]:
        """Write the files of `output` in their order, then build the rest. Errors name tensors as `checkpoint` does.

        Returns the files that were whole from an earlier attempt, and so not written.
        """
        names = {id(tensor): name for name, tensor in checkpoint.tensors.items()}
        self.observer.stage("writing", sum(file.nbytes for file in output.files))
        kept = []
        for file in output.files:
            if self._keep(file, names):
                kept.append(file)
            else:
                self._stream(file, self.folder, names)
        if output.build is not None:
            self.observer.stage("building")
            terms = replace(self.terms, writes=(*self.terms.writes, self.folder))
            output.build(replace(self, terms=terms))
        return tuple(kept)

    def _keep(self, file: OutputFile, names: Mapping[int, str]) -> bool:
        try:
            return self.earlier.keep(file, self.folder, names=names, observer=self.observer)
        except OSError as error:
            raise WriteError(os.strerror(error.errno or 0), path=self.folder / file.name) from error

    def stream(self, file: OutputFile, folder: Path) -> None:
        """Write `file` into `folder`, in bounded memory."""
        self._stream(file, folder, {})

    def _stream(self, file: OutputFile, folder: Path, names: Mapping[int, str]) -> None:
        streaming.stream(file, folder, names=names, digests=self.digests, observer=self.observer, workers=self.workers)

    def start_ahead(self, function: ChildFunction[..., Any]) -> None:
        """Begin to import what `function` needs, while something else is done."""
        child.start_ahead(function, self.scratch, terms=self.terms)

    def call(self, function: ChildFunction[P, R], *args: P.args, **arguments: P.kwargs) -> R:
        """Run `function` in a child process, offline, with arguments and result as JSON."""
        return self.call_all([function.call(*args, **arguments)])[0]

    def call_all(self, calls: Sequence[Call[R]], *, at_once: int = 1) -> list[R]:
        """Run each of `calls` as `call` does, `at_once` at a time, and return what they return.

        When one fails, none of the others is waited for.
        """
        terms = replace(self.terms, reads=(*self.terms.reads, self.folder))
        return child.call_all(calls, self.scratch, terms=terms, at_once=at_once)
