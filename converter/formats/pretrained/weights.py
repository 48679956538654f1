"""The weight files of a save_pretrained folder: each flavour in one file or in shards with an index."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from converter.encoding import safetensors, shards
from converter.encoding.folder import open_inside
from converter.encoding.torch_file import StateDict, Walk, archive_of, torch_file
from converter.errors import ReadError, UsageError
from converter.model.checkpoint import Checkpoint
from converter.model.file import SourceFile
from converter.model.ledger import LedgerLine
from converter.model.output import OutputFile, Provenance
from converter.model.tensor import Tensor

_BIN_NAME = "pytorch_model.bin"
_INDEX = ".index.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Flavor:
    """One way to store the weights. `file_name` is what they are called in one piece; shards have an index beside."""

    name: str
    file_name: str
    read: Callable[[Path, frozenset[str]], Checkpoint]
    write: Callable[[Mapping[str, Tensor], Mapping[str, str], Provenance, int], tuple[OutputFile, ...]]

    def is_in(self, entries: Iterable[str]) -> bool:
        """Whether a folder with these entries has weights of this flavour."""
        return not {self.file_name, self.file_name + _INDEX}.isdisjoint(entries)

    @property
    def entries(self) -> tuple[str, ...]:
        """Shell patterns of what it leaves in a folder."""
        stem, _, suffix = self.file_name.partition(".")
        return (self.file_name, f"{stem}-*.{suffix}", self.file_name + _INDEX)


def _read_safetensors(folder: Path, entries: frozenset[str]) -> Checkpoint:
    standard = entries & {safetensors.FILE_NAME, safetensors.FILE_NAME + _INDEX}
    tensors, metadata = safetensors.read_folder(folder, standard or entries)
    ours = ("format", safetensors.PROVENANCE_KEY)
    return Checkpoint(tensors=tensors, metadata={key: value for key, value in metadata.items() if key not in ours})


def _write_safetensors(
    tensors: Mapping[str, Tensor], metadata: Mapping[str, str], provenance: Provenance, max_shard_bytes: int
) -> tuple[OutputFile, ...]:
    return safetensors.files(tensors, metadata, provenance, max_shard_bytes=max_shard_bytes)


def _read_bin(folder: Path, entries: frozenset[str]) -> Checkpoint:
    lines: list[LedgerLine] = []
    aliases: dict[str, str] = {}

    def read_file(file: SourceFile) -> Mapping[str, Tensor]:
        walk = Walk(stored_bytes=file.size)
        walk.flatten(archive_of(file).load())
        lines.extend(walk.lines)
        aliases.update(walk.weights.aliases)
        tensors = walk.weights.tensors
        return {**tensors, **{alias: tensors[owner] for alias, owner in walk.weights.aliases.items()}}

    if _BIN_NAME + _INDEX not in entries:
        tensors = read_file(open_inside(folder, _BIN_NAME))
    elif _BIN_NAME in entries:
        raise ReadError(f"is another model than the one {_BIN_NAME}{_INDEX} describes", path=folder / _BIN_NAME)
    else:
        tensors = shards.read(folder, _BIN_NAME + _INDEX, read_file)
    owned = {name: tensor for name, tensor in tensors.items() if name not in aliases}
    return Checkpoint(tensors=owned, aliases=aliases, lines=tuple(lines))


def _write_bin(
    tensors: Mapping[str, Tensor], metadata: Mapping[str, str], provenance: Provenance, max_shard_bytes: int
) -> tuple[OutputFile, ...]:
    parts = shards.deal(tensors, max_shard_bytes)
    names = shards.shard_names(_BIN_NAME, len(parts))
    outputs = [
        OutputFile(name=name, pieces=torch_file(StateDict(tensors={key: tensors[key] for key in part}), provenance))
        for name, part in zip(names, parts, strict=True)
    ]
    if len(parts) > 1:
        outputs.append(OutputFile(name=_BIN_NAME + _INDEX, pieces=(shards.index_json(tensors, parts, names),)))
    return tuple(outputs)


FLAVORS: Mapping[str, Flavor] = {
    flavor.name: flavor
    for flavor in (
        Flavor(
            name="safetensors",
            file_name=safetensors.FILE_NAME,
            read=_read_safetensors,
            write=_write_safetensors,
        ),
        Flavor(name="bin", file_name=_BIN_NAME, read=_read_bin, write=_write_bin),
    )
}
"""In the order in which transformers looks for them."""


def flavor_of(name: str) -> Flavor:
    """Return the flavour called `name`. Raises UsageError."""
    if name not in FLAVORS:
        raise UsageError(f"--flavor is one of {', '.join(FLAVORS)}, not {name!r}")
    return FLAVORS[name]


def read(folder: Path, entries: frozenset[str]) -> Checkpoint:
    """Read the weights of `folder`, in the first flavour that transformers would find; others are a warning.

    Raises ReadError when there is none, or one flavour holds two models.
    """
    present = [flavor for flavor in FLAVORS.values() if flavor.is_in(entries)]
    if not present:
        return _read_safetensors(folder, entries)
    checkpoint = present[0].read(folder, entries)
    if len(present) == 1:
        return checkpoint
    others = ", ".join(flavor.file_name for flavor in present[1:])
    said = f"{present[0].file_name} is read, not {others}; --from chooses"
    return replace(checkpoint, warnings=(*checkpoint.warnings, said))
