"""What a target has no place of its own for, as a JSON document in or beside it.

``{"dialect": "pytorch", "names": {stored: original}, "ties": {name: owner}, "buffers": [name], "frozen": [name],
"provenance": {...}}``: whose names and layouts the tensors have, which of them had to be stored under another name,
and which names share a tensor. Reading a document undoes what writing the target did.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from converter.encoding import json as strict_json
from converter.errors import LossError, ReadError, WriteError
from converter.model.checkpoint import Checkpoint, Dialect
from converter.model.file import Location, SourceFile
from converter.model.output import Provenance

FILE_NAME = "ckconv.json"
LIMIT_BYTES = 64 << 20

_DIALECTS = tuple(Dialect)


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """The document of one output. `more` are keys that only one format has.

    Raises WriteError for names that are not Unicode text, which no document can hold.
    """

    checkpoint: Checkpoint
    provenance: Provenance
    names: Mapping[str, str] = field(default_factory=dict)
    more: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in self.checkpoint.names:
            if any("\ud800" <= character <= "\udfff" for character in name):
                raise WriteError("has a name that is not Unicode text", tensor=name)

    @property
    def nbytes(self) -> int:
        """Bytes that `render` returns."""
        return len(self._known) + self.provenance.nbytes + 1

    def render(self) -> bytes:
        """Return the document as one line of ASCII. Call it late: it holds the provenance."""
        return self._known + self.provenance.render() + b"}"

    @property
    def _known(self) -> bytes:
        values = {
            **self.more,
            "dialect": str(self.checkpoint.dialect),
            "names": dict(self.names),
            "ties": dict(self.checkpoint.aliases),
            "buffers": sorted(self.checkpoint.buffers),
            "frozen": sorted(self.checkpoint.frozen),
        }
        return json.dumps(values).encode("ascii")[:-1] + b', "provenance": '


def read_document(file: SourceFile) -> dict[str, Any]:
    """Return the document in `file`. Raises ReadError when there is no such document in it."""
    if file.size > LIMIT_BYTES:
        raise ReadError(f"is a document of {file.size} bytes, and at most {LIMIT_BYTES} are read", path=file.path)
    return parse_document(file.read(0, file.size), file.path)


def parse_document(data: bytes, path: Location) -> dict[str, Any]:
    """Return the document that `data` is. Raises ReadError when it is none."""
    document = strict_json.loads(data, path=path, what="document")
    if not isinstance(document, dict) or document.get("dialect") not in _DIALECTS:
        raise ReadError("does not say in which dialect the names are", path=path)
    return document


def described(checkpoint: Checkpoint, document: Mapping[str, Any], path: Location) -> Checkpoint:
    """Return the checkpoint with the dialect, names and ties that the document at `path` gives it.

    Raises ReadError when the document speaks of tensors that are not there.
    """
    originals, ties = (_names_by_name(document.get(key, {}), path) for key in ("names", "ties"))
    for name in originals:
        if name not in checkpoint.tensors:
            raise ReadError("is in the table of names, but not in the file", path=path, tensor=name)
    try:
        renamed = checkpoint.with_names(lambda name: originals.get(name, name))
    except LossError as error:
        raise ReadError(error.message, path=path, tensor=error.tensor) from error
    for name, owner in ties.items():
        if name in renamed.tensors or owner not in renamed.tensors:
            raise ReadError(f"cannot be tied to {owner!r}", path=path, tensor=name)
    return replace(
        renamed,
        dialect=Dialect(document["dialect"]),
        aliases=ties,
        buffers=known_names(document.get("buffers", []), renamed, path),
        frozen=known_names(document.get("frozen", []), renamed, path),
    )


def _names_by_name(value: Any, path: Location) -> dict[str, str]:
    if not isinstance(value, dict) or not all(isinstance(name, str) for name in value.values()):
        raise ReadError("does not map names to names where it should", path=path)
    return value


def known_names(value: Any, checkpoint: Checkpoint, path: Location) -> frozenset[str]:
    """Return `value` as names of the checkpoint's tensors. Raises ReadError when it is anything else."""
    if not isinstance(value, list) or not all(isinstance(name, str) and name in checkpoint.tensors for name in value):
        raise ReadError("lists names that are not there", path=path)
    return frozenset(value)
