"""The options that decided an output, as its provenance records them, and taken from there again by `ckconv verify`.

What names a file is recorded by the digest of that; so is what is long. Code and files are never taken from a record:
they come from whoever verifies, and so do regular expressions that could take long.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import MISSING, Field, dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from converter import formats
from converter.declaring import Declaration, Use, flag_of, options_of, types_of
from converter.encoding.folder import TOKENIZER_NAMES, read_assets
from converter.errors import UsageError, VerificationError
from converter.execution.hashing import sha256_of
from converter.model.file import LocalFile, SourceFile
from converter.model.output import Provenance
from converter.options import Options
from converter.planning.source import Source, config_file
from converter.planning.target import Target
from converter.version import __version__

_OPTIONS, _TO, _DIGEST = "options", "to", "sha256"
_LONG_CHARACTERS = 1000
_INPUTS, _REGEX = "inputs", "REGEX"
_QUICK = re.compile(r"(?:[^*+{]*(?<!\))[*+{]){0,3}[^*+{]*")
"""Regular expressions with three repetitions at most, none of a group: they take no more than polynomial time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Declared:
    kind: type
    item: Field[Any]
    declared: Declaration

    @property
    def types(self) -> tuple[Any, ...]:
        return types_of(self.kind, self.item)

    @property
    def is_file(self) -> bool:
        return Path in self.types and self.item.name != _INPUTS

    def is_value(self, value: object) -> bool:
        """Whether `value`, from a record, is as long as they are, and of a type that the option has."""
        if len(json.dumps(value)) > _LONG_CHARACTERS:
            return False
        if isinstance(value, list):
            return any(getattr(each, "__origin__", None) is tuple for each in self.types) and all(
                isinstance(each, str) for each in value
            )
        if isinstance(value, str):
            return any(each is str or (isinstance(each, type) and issubclass(each, Enum)) for each in self.types)
        return type(value) in self.types or (type(value) is int and float in self.types)

    def not_taken(self, value: object) -> str | None:
        """Say what a recorded `value` is that is used by nobody who did not give it, None for any other."""
        if self.is_file:
            return "files are"
        if self.declared.is_code:
            return "code is"
        if _is_digest(value):
            return "what is so long is"
        is_quick = self.declared.metavar != _REGEX or _QUICK.fullmatch(str(value)) is not None
        return None if is_quick else "an expression that may take long is"


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """What to hold `target` against its source with: `options` as given, and those that it says it was made with.

    `notes` say which were taken from it, and which files that were given are others than recorded; `doubts` are those,
    and what else explains that a target is not what its source converts to.
    """

    target: Target
    options: Mapping[str, Any]
    notes: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()

    @contextmanager
    def known_to_errors(self) -> Iterator[None]:
        """Let a verification that fails say the doubts."""
        try:
            yield
        except VerificationError as error:
            error.hint = "; ".join(filter(None, (error.hint, *self.doubts))) or None
            raise


def provenance_of(
    source: Source, target: Target, options: Options, specific: Mapping[str, Any], source_hash: Callable[[], str]
) -> Provenance:
    """Return what `target` is to say of itself, made of `source`, whose hash comes later, as counts do."""
    return Provenance(
        tool=f"ckconv {__version__}",
        source_name="" if source.path is None else source.path.name,
        source_hash=source_hash,
        algorithm=options.source_hash.value,
        options={_TO: target.format.name, **recorded(options, specific)},
    )


def recorded(options: Options, specific: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a provenance says of the options that decide an output: those that have not their default.

    `specific` are the options of formats. Raises ReadError for files that cannot be read.
    """
    named: dict[str, Any] = {}
    for item, declared in options_of(Options):
        value = options.declared_inputs if item.name == _INPUTS else getattr(options, item.name)
        if declared.use is Use.DECIDES and value != item.default:
            named[item.name] = value
    for name, value in specific.items():
        found = _declared(name)
        if found is None or found.item.default is MISSING or value != found.item.default:
            named[name] = value
    return {name: _recorded(name, value) for name, value in named.items()}


def taken(given: Mapping[str, Any], destination: str | os.PathLike[str], to: str | None) -> Taken:
    """Return what is at `destination`, and `given` with the options that it was made with; what is given goes before.

    Raises UsageError for code and files that it was made with and that are not given, and for what is no option.
    """
    target = Target.found(destination, to)
    place = target.place.path
    record = target.format.provenance(place).get(_OPTIONS)
    if record is None:
        doubt = f"{place.name} does not say with which options it was made: give them again"
        return Taken(target=target, options=given, doubts=(doubt,))
    if not isinstance(record, dict):
        raise UsageError("says nothing that could be options it was made with", path=place)
    made_as = record.get(_TO)
    if to is None and isinstance(made_as, str) and made_as != target.format.name:
        target = Target.found(destination, made_as)
    return _with_record(given, {name: value for name, value in record.items() if name != _TO}, target)


def _with_record(given: Mapping[str, Any], record: Mapping[str, Any], target: Target) -> Taken:
    place = target.place.path
    values, notes, others = dict(given), [], []
    for name, value in record.items():
        found = _declared(name, target.format)
        if found is None or found.declared.use is not Use.DECIDES or not (_is_digest(value) or found.is_value(value)):
            hint = "another version of ckconv made it"
            raise UsageError(f"says that it was made with an option that there is not: {name}", path=place, hint=hint)
        flag, why = flag_of(found.item), found.not_taken(value)
        if name == _INPUTS and name in given and Options(**{name: given[name]}, model="x").declared_inputs is None:
            values[name] = (value, *(given[name] if isinstance(given[name], tuple) else (given[name],)))
        elif name in given:
            if _is_digest(value) and _recorded(name, given[name]) != value:
                others.append(f"{flag} is another than {place.name} was made with, by its SHA-256")
            continue
        elif why is not None:
            made_with = flag if _is_digest(value) else _given_as(flag, value)
            problem = f"was made with {made_with}, and {why} taken from the command line alone"
            raise UsageError(problem, path=place, hint=f"give {flag} again")
        else:
            values[name] = tuple(value) if isinstance(value, list) else value
        notes.append(_given_as(flag, value))
    said = (f"{place.name} says that it was made with {' '.join(notes)}",) if notes else ()
    return Taken(target=target, options=values, notes=(*said, *others), doubts=tuple(others))


def _declared(name: str, target: formats.Format | None = None) -> _Declared | None:
    registry = formats.registry().values()
    kinds = [Options, *(() if target is None else (target.write_options,))]
    kinds += [each.read_options for each in registry]
    kinds += [each.write_options for each in registry] if target is None else []
    for kind in kinds:
        for item, declared in options_of(kind):
            if item.name == name:
                return _Declared(kind=kind, item=item, declared=declared)
    return None


def _recorded(name: str, value: Any) -> Any:
    found = _declared(name)
    if found is not None and found.is_file:
        return {_DIGEST: sha256_of(_files_of(name, value))}
    plain = _plain(value)
    text = json.dumps(plain)
    return plain if len(text) <= _LONG_CHARACTERS else {_DIGEST: hashlib.sha256(text.encode("ascii")).hexdigest()}


def _plain(value: Any) -> Any:
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return value if isinstance(value, bool | int | float | str) or value is None else str(value)


def _files_of(name: str, place: Any) -> list[SourceFile]:
    """Return the files that an option names: of folders those that are read. What is missing says who needs it."""
    if name == "tokenizer":
        return list(read_assets(Path(place), TOKENIZER_NAMES).values())
    file = config_file(place) if name == "config" else Path(place)
    return [LocalFile(file)] if file.is_file() else []


def _is_digest(value: object) -> bool:
    return isinstance(value, dict) and list(value) == [_DIGEST]


def _given_as(flag: str, value: Any) -> str:
    """Return how an option is given on the command line."""
    if isinstance(value, bool):
        return flag
    return " ".join(f"{flag} {shlex.quote(str(each))}" for each in (value if isinstance(value, list) else [value]))
