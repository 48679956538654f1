"""A target: a format, the place of the output, and the options of its writer."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from converter import formats
from converter.encoding.folder import config_files
from converter.errors import UnknownFormatError, UsageError
from converter.execution.publish import Destination
from converter.formats import Format, unchanged
from converter.formats.probe import located
from converter.model.checkpoint import Checkpoint
from converter.model.file import is_dir
from converter.model.output import Output, OutputFile
from converter.options import Options
from converter.planning.source import detected
from converter.storage import location_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A format and the place to write it to, or, where `is_there`, the place at which it is found.

    `write_options` are those of the format; the name of the place decides some.
    """

    format: Format
    place: Destination
    is_folder: bool
    is_there: bool = False
    write_options: Any = field(default=None)

    @classmethod
    def of(cls, destination: str | os.PathLike[str], to: str | None, options: Options) -> Target:
        """Settle format and place. Raises UnknownFormatError, WriteError, DestinationExistsError."""
        place = Destination.of(destination)
        format_ = formats.of_suffix(place.path) if to is None else formats.by_name(to)
        hint = f"--to one of {', '.join(formats.written())}"
        if format_ is None:
            raise UnknownFormatError("the name does not say the format", path=destination, hint=hint)
        if format_.name not in formats.written():
            raise UnknownFormatError(f"{format_.name} is read, not written", path=destination, hint=hint)
        target = cls(format=format_, place=place, is_folder=place.as_folder or format_.file_name is None)
        target.check_replaceable(options)
        return target

    @classmethod
    def found(cls, destination: str | os.PathLike[str], to: str | None) -> Target:
        """Return what is at `destination` already. Raises UnknownFormatError, ReadError."""
        location = location_of(destination)
        place = Path(os.path.abspath(location)) if isinstance(location, Path) else location
        path, format_ = detected(located(place), to)
        if format_.name not in formats.written():
            raise UnknownFormatError(f"{format_.name} is read, not written", path=destination)
        is_folder = is_dir(path)
        there = Destination(path=path, as_folder=is_folder)
        return cls(format=format_, place=there, is_folder=is_folder, is_there=True)

    def with_options(self, values: Mapping[str, Any]) -> Target:
        """Return the target with the options of its writer. Raises UsageError for one that it does not take."""
        decided: Mapping[str, Any] = {}
        if not self.is_folder:
            name = self.place.path.name.lower()
            decided = next((its for suffix, its in self.format.by_suffix.items() if name.endswith(suffix)), {})
        options = formats.options_of(self.format, self.format.write_options, {**decided, **values})
        return replace(self, write_options=options)

    def check_replaceable(self, options: Options) -> None:
        """Raise DestinationExistsError when something is there that must stay."""
        self.place.check_replaceable(
            is_folder=self.is_folder, overwrite=options.overwrite, foreign=formats.foreign_entry
        )

    def has_graph(self, options: Options) -> bool:
        """Whether what is written there runs."""
        return self.format.runner is not None and not options.weights_only

    def is_of_one_class(self, checkpoint: Checkpoint, options: Options) -> bool:
        """Whether what is written there is the model of one class: it runs, or has the names of the class's files."""
        has_config = checkpoint.keras_config is not None or (
            checkpoint.config is not None and "model_type" in checkpoint.config.values
        )
        has_its_names = has_config and self.format.adapt is not unchanged
        return self.format.is_of_one_class or self.has_graph(options) or has_its_names

    def adapted(self, chosen: Checkpoint) -> Checkpoint:
        """Return what its format makes of what was chosen, in its names and layouts."""
        return self.format.adapt(chosen, self.write_options)

    def complete(self, output: Output, planned: Checkpoint) -> Output:
        """Add config and assets when a single-file format is written into a folder.

        Raises UsageError when several files would have to be one.
        """
        if self.is_there or self.format.file_name is None:
            return output
        beside: list[OutputFile] = []
        if not output.has_config:
            beside += config_files(planned)
        beside += [OutputFile(name=name, pieces=(file,)) for name, file in planned.assets.items()]
        if self.is_folder:
            return replace(output, files=(*beside, *output.files))
        if len(output.file_names) > 1:
            listed = ", ".join(output.file_names[:3]) + (", ..." if len(output.file_names) > 3 else "")
            raise UsageError(
                f"the output is several files ({listed})", path=self.place.path, hint="end DST with / for a folder"
            )
        if not beside:
            return output
        left = ", ".join(file.name for file in beside)
        warning = f"{left} not carried: the output is one file; end DST with / for a folder"
        return replace(output, warnings=(*output.warnings, warning))
