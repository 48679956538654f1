"""torch.distributed.checkpoint: a folder with `.metadata` and data files, read and written without torch.

https://docs.pytorch.org/docs/2.13/distributed.checkpoint.html. Tensors are read lazily by byte range, in as many
chunks as ranks wrote. Tied tensors share one range. Dialect, buffers and frozen parameters are in `ckconv.json`
(converter.encoding.description), which torch passes over.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from converter.dialects.optimizer.torch_state import state_dict
from converter.dialects.training import WEIGHTS_KEYS, checkpoint_of, select_option
from converter.encoding.dcp import (
    METADATA_NAME,
    SUFFIX,
    DataFiles,
    FileRange,
    Item,
    Key,
    TensorItem,
    ValueItem,
    metadata_pickle,
    places_of,
    read_metadata,
    whole_tensor,
)
from converter.encoding.description import FILE_NAME as DOCUMENT_NAME
from converter.encoding.description import Description, described, read_document
from converter.encoding.folder import asset_files, config_files, open_inside
from converter.encoding.provenance import in_document
from converter.encoding.torch_file import Walk, torch_file
from converter.errors import ReadError, of_tensor
from converter.formats import Format, NoOptions, Probe, keeps_pytorch
from converter.model.checkpoint import Checkpoint, Part
from converter.model.dtype import DType
from converter.model.file import Location, is_there
from converter.model.optimizer import OptimizerState
from converter.model.output import Late, Output, OutputFile, Piece, Provenance, piece_bytes
from converter.model.tensor import Tensor, tensor_names

_DATA_NAME = f"__0_0{SUFFIX}"
_WEIGHTS, _OPTIMIZER = "model", "optimizer"
_EXTRAS = "extras"
_BYTES_FOR_AN_ITEM, _OPERATIONS_OF_AN_ITEM = 1 << 14, 16
"""What an item counts for where the work that values may make is bounded by the file that has them."""


def sniff(probe: Probe) -> bool:
    """A folder with `.metadata`."""
    return probe.is_folder and METADATA_NAME in probe.entries


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadOptions:
    """What may be asked of a distributed checkpoint."""

    select: str | None = select_option()


def read(path: Location, options: ReadOptions) -> Checkpoint:
    """Read what a folder declares: no tensor but the optimizer's step counts.

    Raises ReadError for malformed or missing parts, SafetyError for pickles that would run code and for files outside
    the folder, UsageError where there are no weights at the key that was asked for.
    """
    items = read_metadata(open_inside(path, METADATA_NAME))
    walk = Walk(stored_bytes=len(items) * _BYTES_FOR_AN_ITEM, operations=len(items) * _OPERATIONS_OF_AN_ITEM)
    loaded = _Loaded(files=DataFiles(path), walk=walk)
    loaded.files.check(items)
    for name, item in items.items():
        loaded.add(name, item)
    checkpoint = _checkpoint(loaded, options.select)
    if is_there(path / DOCUMENT_NAME):
        file = open_inside(path, DOCUMENT_NAME)
        return described(checkpoint, {**read_document(file), "ties": dict(checkpoint.aliases)}, file.path)
    return checkpoint


class _Node(dict[Key, Any]):
    """A dict that paths made, unlike those that are values."""


@dataclass(slots=True, kw_only=True)
class _Loaded:
    """The nested state dict as far as it was put together."""

    files: DataFiles
    root: _Node = field(default_factory=_Node)
    walk: Walk
    tensors: dict[Any, Tensor] = field(default_factory=dict)

    def add(self, name: str, item: Item) -> None:
        """Put an item into its place. Raises ReadError when there is something there, or it is not what it says."""
        with of_tensor(name):
            value = self._tensor(item) if isinstance(item, TensorItem) else self._value(name, item)
        *above, last = item.path
        node = self.root
        for key in above:
            node = node.setdefault(key, _Node())
            if not isinstance(node, _Node):
                raise ReadError("is inside something that is no dict", path=self.files.folder, tensor=name)
        if last in node:
            raise ReadError("is in the file twice", path=self.files.folder, tensor=name)
        node[last] = value

    def _tensor(self, item: TensorItem) -> Tensor:
        """Return a tensor: the same object for the same places."""
        identity = (item.dtype, item.shape, tuple(places_of(item)))
        if identity not in self.tensors:
            self.tensors[identity] = self.files.tensor(item)
        return self.tensors[identity]

    def _value(self, name: str, item: ValueItem) -> Any:
        return self.walk.plain(self.files.value(item.place), name)


def _checkpoint(loaded: _Loaded, select: str | None) -> Checkpoint:
    found = checkpoint_of(_plain(loaded.root), loaded.walk, select=select, is_normalised=False)
    extras = {key: value for key, value in found.extras.items() if not key.startswith("optim")}
    is_unknown = len(extras) < len(found.extras)
    own = extras.pop(_EXTRAS, {})
    extras |= own if isinstance(own, dict) else {_EXTRAS: own}
    checkpoint = replace(found, extras=extras, structure=None)
    if not is_unknown:
        return checkpoint
    return replace(checkpoint, optimizer=None, optimizer_refused="it is of a kind that is not known")


def _plain(value: Any) -> Any:
    """Return nested nodes as dicts, and as lists where the keys count from 0."""
    if not isinstance(value, _Node):
        return value
    items = {key: _plain(item) for key, item in value.items()}
    is_list = bool(items) and all(type(key) is int for key in items) and sorted(items) == list(range(len(items)))
    return [items[position] for position in range(len(items))] if is_list else items


def write(checkpoint: Checkpoint, options: NoOptions, provenance: Provenance) -> Output:
    """Lay out a folder that torch.distributed.checkpoint.load opens.

    The root is the state dict itself when there is nothing but weights, else it has `model`, `optimizer` (with the
    names of parameters for keys) and the extras.
    """
    is_plain = checkpoint.optimizer is None and not checkpoint.extras
    above: tuple[Key, ...] = () if is_plain else (_WEIGHTS,)
    entries: list[tuple[tuple[Key, ...], Any]] = [
        ((*above, name), checkpoint.tensor(name)) for name in checkpoint.names
    ]
    if checkpoint.optimizer is not None:
        entries += _optimizer_entries(checkpoint.optimizer)
    entries += _extra_entries(checkpoint.extras)
    description = Description(checkpoint=checkpoint, provenance=provenance)
    document = Late(nbytes=description.nbytes, render=description.render)
    items, pieces = _laid_out(entries)
    files = [
        OutputFile(name=_DATA_NAME, pieces=pieces),
        OutputFile(name=DOCUMENT_NAME, pieces=(document, b"\n")),
    ]
    files += config_files(checkpoint)
    files += asset_files(checkpoint.assets)
    files.append(OutputFile(name=METADATA_NAME, pieces=(metadata_pickle(items),)))
    return Output(files=tuple(files), names={name: name for name in checkpoint.names})


def _optimizer_entries(optimizer: OptimizerState) -> Iterator[tuple[tuple[Key, ...], Any]]:
    """Yield the optimizer's state as torch.distributed.checkpoint.state_dict.get_state_dict has it."""
    state = state_dict(optimizer)
    names: dict[int, str] = {}
    for group in state["param_groups"]:
        names |= dict(zip(group["params"], group["param_names"], strict=True))
    for number, slots in state["state"].items():
        for slot, value in slots.items():
            yield (_OPTIMIZER, "state", names[number], slot), value
    for position, group in enumerate(state["param_groups"]):
        values = {**group, "params": group["param_names"]}
        for key, value in values.items():
            if key != "param_names":
                yield (_OPTIMIZER, "param_groups", position, key), value


def _extra_entries(extras: Mapping[str, Any]) -> Iterator[tuple[tuple[Key, ...], Any]]:
    """Yield training state under its own keys, and together where it would be something else at the root."""
    apart = {
        key: value
        for key, value in extras.items()
        if key in (*WEIGHTS_KEYS, _EXTRAS) or key.startswith("optim") or any(tensor_names(key, value))
    }
    yield from (((key,), value) for key, value in extras.items() if key not in apart)
    if apart:
        yield (_EXTRAS,), apart


def _laid_out(entries: list[tuple[tuple[Key, ...], Any]]) -> tuple[dict[str, Item], list[Piece]]:
    """Return items by dotted name, and the pieces of the data file that has them one after the other."""
    items: dict[str, Item] = {}
    places: dict[int, FileRange] = {}
    pieces: list[Piece] = []
    position = 0
    for path, value in entries:
        place = places.get(id(value)) if isinstance(value, Tensor) else None
        if place is None:
            stored = torch_file(value)
            place = FileRange(file_name=_DATA_NAME, offset=position, length=sum(map(piece_bytes, stored)))
            pieces += stored
            position += place.length
        name = ".".join(map(str, path))
        if isinstance(value, Tensor):
            places[id(value)] = place
            items[name] = whole_tensor(path, value, place)
        else:
            items[name] = ValueItem(path=path, place=place)
    return items, pieces


FORMAT = Format(
    name="dcp",
    description="torch.distributed.checkpoint: a folder with .metadata and .distcp files",
    suffixes=(),
    holds=frozenset({Part.WEIGHTS, Part.CONFIG, Part.ASSETS, Part.OPTIMIZER, Part.EXTRAS}),
    dtypes=frozenset(DType),
    sniff=sniff,
    read=read,
    read_options=ReadOptions,
    write=write,
    provenance=in_document,
    keeps_names=keeps_pytorch,
    spells_ties=True,
    entries=(METADATA_NAME, "*" + SUFFIX, DOCUMENT_NAME),
)
