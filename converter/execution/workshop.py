"""Where an output is made: files streamed into the staged folder, frameworks called in child processes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from converter.execution import child, local
from converter.model.checkpoint import Checkpoint
from converter.model.output import Output, OutputFile
from converter.observer import SILENT, Observer


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalWorkshop:
    """A `converter.model.output.Workshop` on this machine."""

    folder: Path
    scratch: Path
    observer: Observer = SILENT

    def make(self, output: Output, checkpoint: Checkpoint) -> None:
        """Write the files of `output` in their order, then build the rest. Errors name tensors as `checkpoint` does."""
        names = {id(tensor): name for name, tensor in checkpoint.tensors.items()}
        self.observer.stage("writing", sum(file.nbytes for file in output.files))
        for file in output.files:
            local.stream(file, self.folder, names=names, observer=self.observer)
        if output.build is not None:
            self.observer.stage("building")
            output.build(self)

    def stream(self, file: OutputFile, folder: Path) -> None:
        """Write `file` into `folder`, in bounded memory."""
        local.stream(file, folder, observer=self.observer)

    def call(self, function: str, **arguments: Any) -> Any:
        """Run ``package.module:function`` in a child process, offline, with arguments and result as JSON."""
        return child.call(function, self.scratch, **arguments)
