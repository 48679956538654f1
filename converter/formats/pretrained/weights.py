"""The weight files of a save_pretrained folder: each flavour in one file or in shards with an index."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any

from converter.dialects.transformers import flax, tensorflow_writing
from converter.encoding import flax_file, hdf5, safetensors, shards
from converter.encoding.folder import open_inside
from converter.encoding.hdf5 import layers
from converter.encoding.provenance import in_flax, in_hdf5, in_safetensors, in_zip
from converter.encoding.torch_file import StateDict, Walk, archive_of, torch_file
from converter.errors import ReadError
from converter.model.checkpoint import Checkpoint, Config, Dialect
from converter.model.file import Location, SourceFile, names_in
from converter.model.ledger import LedgerLine
from converter.model.output import Late, OutputFile, Provenance
from converter.model.tensor import Tensor

_BIN_NAME = "pytorch_model.bin"
_TF_NAME = "tf_model.h5"
_INDEX = ".index.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Flavor:
    """One way to store the weights. `file_name` is what they are called in one piece; shards have an index beside.

    `adapt` brings PyTorch's names and layouts to those of the files, None when they are the same; it settles the class
    of the model itself when it `identifies`. `called` says what that class has for a tensor of PyTorch's, None where it
    has none. `is_of_keras` says whether an optimizer beside the weights is Keras's.
    """

    name: str
    file_name: str
    read: Callable[[Location, frozenset[str]], Checkpoint]
    write: Callable[[Checkpoint, Provenance, int], tuple[OutputFile, ...]]
    provenance: Callable[[Location], Mapping[str, Any]]
    adapt: Callable[[Checkpoint], Checkpoint] | None = None
    called: Callable[[Config, str], str | None] | None = None
    identifies: bool = False
    is_of_keras: bool = False

    def is_in(self, entries: Iterable[str]) -> bool:
        """Whether a folder with these entries has weights of this flavour."""
        return not {self.file_name, self.file_name + _INDEX}.isdisjoint(entries)

    @property
    def entries(self) -> tuple[str, ...]:
        """Shell patterns of what it leaves in a folder."""
        stem, _, suffix = self.file_name.partition(".")
        return (self.file_name, f"{stem}-*.{suffix}", self.file_name + _INDEX)


def _read_safetensors(folder: Location, entries: frozenset[str]) -> Checkpoint:
    standard = entries & {safetensors.FILE_NAME, safetensors.FILE_NAME + _INDEX}
    tensors, metadata = safetensors.read_folder(folder, standard or entries)
    ours = ("format", safetensors.PROVENANCE_KEY)
    return Checkpoint(tensors=tensors, metadata={key: value for key, value in metadata.items() if key not in ours})


def _write_safetensors(model: Checkpoint, provenance: Provenance, max_shard_bytes: int) -> tuple[OutputFile, ...]:
    return safetensors.files(model.tensors, model.metadata, provenance, max_shard_bytes=max_shard_bytes)


def _read_bin(folder: Location, entries: frozenset[str]) -> Checkpoint:
    lines: list[LedgerLine] = []
    aliases: dict[str, str] = {}

    def read_file(file: SourceFile, name: str) -> Mapping[str, Tensor]:
        walk = Walk(stored_bytes=file.size)
        walk.flatten(walk.unlooped(archive_of(file).load()))
        lines.extend(walk.lines)
        aliases.update(walk.weights.aliases)
        tensors = walk.weights.tensors
        return {**tensors, **{alias: tensors[owner] for alias, owner in walk.weights.aliases.items()}}

    if _BIN_NAME + _INDEX not in entries:
        tensors = read_file(open_inside(folder, _BIN_NAME), _BIN_NAME)
    elif _BIN_NAME in entries:
        raise ReadError(f"is another model than the one {_BIN_NAME}{_INDEX} describes", path=folder / _BIN_NAME)
    else:
        tensors = shards.read(folder, _BIN_NAME + _INDEX, read_file)
    owned = {name: tensor for name, tensor in tensors.items() if name not in aliases}
    return Checkpoint(tensors=owned, aliases=aliases, lines=tuple(lines))


def _write_bin(model: Checkpoint, provenance: Provenance, max_shard_bytes: int) -> tuple[OutputFile, ...]:
    tensors = model.tensors
    parts = shards.deal(tensors, max_shard_bytes)
    names = shards.shard_names(_BIN_NAME, len(parts))
    outputs = [
        OutputFile(name=name, pieces=torch_file(StateDict(tensors={key: tensors[key] for key in part}), provenance))
        for name, part in zip(names, parts, strict=True)
    ]
    if len(parts) > 1:
        outputs.append(OutputFile(name=_BIN_NAME + _INDEX, pieces=(shards.index_json(tensors, parts, names),)))
    return tuple(outputs)


def _read_tf(folder: Location, entries: frozenset[str]) -> Checkpoint:
    if _TF_NAME not in entries:
        tensors = shards.read(folder, _TF_NAME + _INDEX, _shard_reader(folder))
        return Checkpoint(tensors=tensors, dialect=Dialect.KERAS)
    file = open_inside(folder, _TF_NAME)
    root = hdf5.read(file)
    return layers.layered(root, root.group("model_weights") or root, file.path)


def _shard_reader(folder: Location) -> Callable[[SourceFile, str], Mapping[str, Tensor]]:
    """Return what reads a shard by the names of the index: a shard's lack the name of the model, the index's do not."""
    by_file: dict[str, dict[str, str]] = {}
    for name, file in shards.read_index(folder, _TF_NAME + _INDEX).items():
        by_file.setdefault(file, {})[layers.shard_name(name)] = name

    def read_shard(file: SourceFile, shard: str) -> Mapping[str, Tensor]:
        names = by_file[shard]
        return {names.get(name, name): tensor for name, tensor in layers.shard(file).items()}

    return read_shard


def _write_tf(model: Checkpoint, provenance: Provenance, max_shard_bytes: int) -> tuple[OutputFile, ...]:
    late = Late(nbytes=provenance.nbytes, render=provenance.render)
    parts = shards.deal(model.tensors, max_shard_bytes)
    if len(parts) == 1:
        content = layers.placed(model.tensors, tensorflow_writing.layers(model), late)
        return (OutputFile(name=_TF_NAME, pieces=hdf5.pieces(content)),)
    names = shards.shard_names(_TF_NAME, len(parts))
    outputs = [
        OutputFile(name=name, pieces=hdf5.pieces(layers.placed_shard({key: model.tensors[key] for key in part}, late)))
        for name, part in zip(names, parts, strict=True)
    ]
    return (*outputs, OutputFile(name=_TF_NAME + _INDEX, pieces=(shards.index_json(model.tensors, parts, names),)))


def _read_flax(folder: Location, entries: frozenset[str]) -> Checkpoint:
    lines: list[LedgerLine] = []

    def read_file(file: SourceFile, name: str) -> Mapping[str, Tensor]:
        tree = flax_file.read_tree(file)
        tree.pop(flax_file.OWN_KEY, None)
        tensors, more = flax_file.tensors_of(file, tree)
        lines.extend(more)
        return tensors

    if flax_file.FILE_NAME in entries:
        tensors = read_file(open_inside(folder, flax_file.FILE_NAME), flax_file.FILE_NAME)
    else:
        tensors = shards.read(folder, flax_file.FILE_NAME + _INDEX, read_file)
    return Checkpoint(tensors=tensors, dialect=Dialect.FLAX, lines=tuple(lines))


def _write_flax(model: Checkpoint, provenance: Provenance, max_shard_bytes: int) -> tuple[OutputFile, ...]:
    tensors = model.tensors
    parts = shards.deal(tensors, max_shard_bytes)
    names = shards.shard_names(flax_file.FILE_NAME, len(parts))
    outputs = [
        OutputFile(name=name, pieces=flax_file.loadable_pieces({key: tensors[key] for key in part}, provenance))
        for name, part in zip(names, parts, strict=True)
    ]
    if len(parts) > 1:
        index = shards.index_json(tensors, parts, names)
        outputs.append(OutputFile(name=flax_file.FILE_NAME + _INDEX, pieces=(index,)))
    return tuple(outputs)


FLAVORS: Mapping[str, Flavor] = {
    flavor.name: flavor
    for flavor in (
        Flavor(
            name="safetensors",
            file_name=safetensors.FILE_NAME,
            read=_read_safetensors,
            write=_write_safetensors,
            provenance=in_safetensors,
        ),
        Flavor(name="bin", file_name=_BIN_NAME, read=_read_bin, write=_write_bin, provenance=in_zip),
        Flavor(
            name="tf",
            file_name=_TF_NAME,
            read=_read_tf,
            write=_write_tf,
            provenance=in_hdf5,
            adapt=tensorflow_writing.from_canonical,
            called=tensorflow_writing.variable_of,
            identifies=True,
            is_of_keras=True,
        ),
        Flavor(
            name="flax",
            file_name=flax_file.FILE_NAME,
            read=_read_flax,
            write=_write_flax,
            provenance=in_flax,
            adapt=flax.from_canonical,
            called=flax.leaf_of,
        ),
    )
}
"""In the order in which transformers looks for them."""


def provenance(folder: Location) -> Mapping[str, Any]:
    """Return what the weights that are read say of where they come from; of shards, the first."""
    entries = frozenset(names_in(folder))
    flavor = next((flavor for flavor in FLAVORS.values() if flavor.is_in(entries)), FLAVORS["safetensors"])
    names = sorted(name for name in entries if any(fnmatchcase(name, pattern) for pattern in flavor.entries[:2]))
    return flavor.provenance(open_inside(folder, names[0]).path if names else folder)


def read(folder: Location, entries: frozenset[str]) -> Checkpoint:
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
    warning = f"{present[0].file_name} is read, not {others}; --from chooses"
    return replace(checkpoint, warnings=(*checkpoint.warnings, warning))
