"""Formats: bytes <-> Checkpoint, one module each, found by scanning this folder, and those of other packages.

A module that ends in a constant ``FORMAT`` is a format; nothing else has to know about it. A package that is installed
beside this one adds its own by an entry point of the group ``ckconv.formats``, which names such a constant.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, fields
from enum import Enum
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any

from converter.declaring import flag_of
from converter.encoding.folder import ASSET_NAMES, CONFIG_NAMES
from converter.entry_points import FORMATS, added
from converter.errors import UnknownFormatError, UsageError
from converter.formats.probe import Probe
from converter.graphs.run.answers import Answer
from converter.model.checkpoint import Checkpoint, Dialect, Part
from converter.model.child_function import ChildFunction
from converter.model.dtype import DType
from converter.model.file import Location
from converter.model.output import Output, Provenance

__all__ = ["Format", "NoOptions", "Probe", "by_name", "detect", "is_claimed", "of_suffix", "registry", "written"]


@dataclass(frozen=True, slots=True, kw_only=True)
class NoOptions:
    """The options of a format that has none."""


def unchanged(checkpoint: Checkpoint, options: Any) -> Checkpoint:
    """Return `checkpoint`: what formats that hold PyTorch's names and layouts do to it."""
    return checkpoint


def not_written(checkpoint: Checkpoint, options: Any, provenance: Provenance) -> Output:
    """Refuse to write, as formats do that are read alone. Raises UsageError."""
    raise UsageError("the format is read, not written")


def no_provenance(path: Location) -> Mapping[str, Any]:
    """Say that nothing is known of where an output comes from: what formats do that have no place for it."""
    return {}


def keeps_none(checkpoint: Checkpoint) -> bool:
    """Say that no names stay as they are: those of PyTorch become those of a class's files."""
    return False


def keeps_pytorch(checkpoint: Checkpoint) -> bool:
    """Say that PyTorch's names stay as they are, those that a model has in memory, too."""
    return checkpoint.dialect == Dialect.PYTORCH


class ParameterOrder(Enum):
    """How an optimizer that loads a target's files finds its parameters."""

    NAMED = "by name"
    MODEL = "by number, in the order of the model"
    TRAINER = "by number, in the two groups of transformers.Trainer, each in the order of the model"


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """All that the program knows about a format.

    `suffixes`       what its files are called, longest first; empty for folders
    `holds`          the parts it can hold; the rest ends as ledger lines
    `dtypes`         the element types it can hold
    `extra`          the pip extra that writing runnable files needs, None when reading and writing need none
    `file_name`      what its file is called inside a folder; None when the format *is* a folder
    `other_names`    what it is called in folders of others
    `entries`        shell patterns of what its folders hold, besides config, tokenizer and other assets
    `sniff`          whether the content is of this format, from a Probe alone
    `read`           (path, options) -> Checkpoint; reads declarations, not tensors
    `write`          (checkpoint, options, provenance) -> Output; plans, writes nothing; `not_written` where it cannot
    `provenance`     what `write` was given, read back from an output; empty where files have no place for it
    `keeps_names`    whether a checkpoint's names stay as they are: files of torch.save hold those that a PyTorch model
                     has in memory, too, files of Keras those of one like them whose layers no table knows
    `keeps_structure`  whether a copy of one of its own files is nested as that is
    `spells_ties`    whether its loader looks for a tied tensor under each of its names
    `is_of_one_class`  whether what it holds is the model of one class, with graph or without
    `is_traced`      whether its graph is made by running it, so that the source has to run at the same extents
    `parameters`     how an optimizer that loads its files finds its parameters
    `adapt`          (checkpoint, write options) -> the checkpoint with the names and layouts that its files have
    `read_options`, `write_options`   frozen dataclasses whose fields are command-line options
    `by_suffix`      write options that the name of a destination which is one file decides; the suffix "" is any
    `runner`         runs files which this program just wrote on given inputs, None for formats without a graph:
                     ``run(model=, inputs=, outputs=)`` as in converter.graphs.calls; with parameters `canary` and
                     `since`, it changes weights too
    `foreign_runner` one that runs such files wherever they come from, and so without their framework's loader; None
                     where there is none
    `inexact`        the ONNX operators that its runtime computes less exactly than single precision allows; graphs
                     for it have them in double precision (converter.graphs.passes.precision)
    `is_same_program`  whether a file of unknown origin holds the program of one just written, so that running the
                     latter says what the former computes; weights are compared elsewhere
    """

    name: str
    description: str
    suffixes: tuple[str, ...]
    holds: frozenset[Part]
    dtypes: frozenset[DType]
    sniff: Callable[[Probe], bool]
    read: Callable[[Location, Any], Checkpoint]
    write: Callable[[Checkpoint, Any, Provenance], Output]
    provenance: Callable[[Location], Mapping[str, Any]] = no_provenance
    extra: str | None = None
    file_name: str | None = None
    other_names: tuple[str, ...] = ()
    entries: tuple[str, ...] = ()
    keeps_names: Callable[[Checkpoint], bool] = keeps_none
    keeps_structure: bool = False
    spells_ties: bool = False
    is_of_one_class: bool = False
    is_traced: bool = False
    parameters: ParameterOrder = ParameterOrder.NAMED
    adapt: Callable[[Checkpoint, Any], Checkpoint] = unchanged
    read_options: type = NoOptions
    write_options: type = NoOptions
    by_suffix: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    runner: ChildFunction[..., Answer] | None = None
    foreign_runner: ChildFunction[..., Answer] | None = None
    inexact: tuple[str, ...] = ()
    is_same_program: Callable[[Path, Path], bool] | None = None

    def file_in(self, entries: Collection[str]) -> str | None:
        """Return which entry of a folder is its file, None where none is called so."""
        names = (self.file_name, *self.other_names)
        return next((name for name in names if name is not None and name in entries), None)


@cache
def registry() -> Mapping[str, Format]:
    """Return all formats by name: those of this folder, then those of other packages.

    Raises UsageError when an entry point cannot be loaded, and when two formats claim one name.
    """
    modules = sorted(module_info.name for module_info in pkgutil.iter_modules(__path__))
    constants = [getattr(importlib.import_module(f"{__name__}.{name}"), "FORMAT", None) for name in modules]
    found: dict[str, Format] = {}
    for format_ in (*constants, *(each for _, each in added(FORMATS, Format))):
        if not isinstance(format_, Format):
            continue
        if format_.name in found:
            raise UsageError(f"two formats are called {format_.name!r}", hint="uninstall the package with the other")
        found[format_.name] = format_
    return found


def written() -> Mapping[str, Format]:
    """Return those formats by name that are written, too."""
    return {name: format_ for name, format_ in registry().items() if format_.write is not not_written}


def by_name(name: str) -> Format:
    """Return the format called `name`. Raises UnknownFormatError."""
    try:
        return registry()[name]
    except KeyError:
        raise UnknownFormatError(f"unknown format {name!r}", hint=f"known: {', '.join(registry())}") from None


def of_suffix(path: Location) -> Format | None:
    """Return the format that files called like `path` are written in, None when the name does not say."""
    lowered = path.name.lower()
    matches = [
        (len(suffix), format_)
        for format_ in registry().values()
        for suffix in format_.suffixes
        if lowered.endswith(suffix)
    ]
    return max(matches, key=lambda match: match[0])[1] if matches else None


def detect(probe: Probe) -> Format:
    """Return the one format that claims the content of `probe`.

    A folder that none claims is of the format whose standard file is in it.

    Raises UnknownFormatError naming the candidates when there are several, ReadError when the file is nothing.
    """
    claims = [format_ for format_ in registry().values() if format_.sniff(probe)]
    claims = claims or [format_ for format_ in registry().values() if format_.file_in(probe.entries)]
    if len(claims) > 1:
        by_suffix = [format_ for format_ in claims if probe.path.name.lower().endswith(format_.suffixes or ("\0",))]
        claims = by_suffix if len(by_suffix) == 1 else claims
    if len(claims) == 1:
        return claims[0]
    if claims:
        names = ", ".join(format_.name for format_ in claims)
        raise UnknownFormatError(f"could be {names}", path=probe.path, hint="say which with --from")
    raise probe.nothing_known()


def options_of(format_: Format, options_type: type, values: Mapping[str, Any]) -> Any:
    """Build the options of a format from those the user gave. Raises UsageError for one it does not take."""
    known = {item.name: flag_of(item) for item in fields(options_type)}
    for name in values:
        if name not in known:
            hint = f"it takes {', '.join(sorted(known.values()))}" if known else None
            raise UsageError(f"format {format_.name} takes no --{name.replace('_', '-')}", hint=hint)
    return options_type(**values)


def foreign_entry(entries: tuple[str, ...]) -> str | None:
    """Return an entry that keeps a folder from being a checkpoint of any one format, None when there is none."""
    strangers = [
        [entry for entry in entries if not _belongs(entry, format_.entries)]
        for format_ in registry().values()
        if format_.entries
    ]
    fewest = min(strangers, key=len, default=list(entries))
    return fewest[0] if fewest else None


def is_claimed(entry: str) -> bool:
    """Whether a reader takes what is called so in a checkpoint's folder for a part of the checkpoint."""
    return any(_belongs(entry, format_.entries) for format_ in registry().values())


def _belongs(entry: str, patterns: tuple[str, ...]) -> bool:
    if entry in CONFIG_NAMES or any(entry == name.partition("/")[0] for name in ASSET_NAMES):
        return True
    return any(fnmatchcase(entry, pattern) for pattern in patterns)
