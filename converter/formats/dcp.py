"""torch.distributed.checkpoint: a folder with `.metadata` and data files, read and written without torch.

https://docs.pytorch.org/docs/2.13/distributed.checkpoint.html. Tensors are read lazily by byte range, in as many
chunks as ranks wrote. Tied tensors share one range. Dialect, buffers and frozen parameters are in `ckconv.json`
(converter.encoding.description), which torch passes over.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from converter.dialects.optimizer.torch_layouts import as_state_dict, merged
from converter.dialects.optimizer.torch_state import is_buffer, is_numbered, named_state, state_dict
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
from converter.encoding.folder import config_files, open_inside
from converter.encoding.torch_file import Walk, torch_file
from converter.errors import LossError, ReadError, of_tensor
from converter.formats import Format, NoOptions, Probe, keeps_pytorch
from converter.model.checkpoint import Checkpoint, Part
from converter.model.dtype import DType
from converter.model.file import Location, is_there
from converter.model.ledger import LedgerLine, dropped
from converter.model.optimizer import OptimizerState
from converter.model.output import Late, Output, OutputFile, Piece, Provenance, piece_bytes
from converter.model.tensor import Tensor

_DATA_NAME = f"__0_0{SUFFIX}"
_WEIGHTS_KEYS = ("model", "model_state_dict", "state_dict", "module")
_WEIGHTS, _OPTIMIZER = "model", "optimizer"
_EXTRAS = "extras"


def sniff(probe: Probe) -> bool:
    """A folder with `.metadata`."""
    return probe.is_folder and METADATA_NAME in probe.entries


def read(path: Location, options: NoOptions) -> Checkpoint:
    """Read what a folder declares: no tensor but the optimizer's step counts.

    Raises ReadError for malformed or missing parts, SafetyError for pickles that would run code and for files outside
    the folder.
    """
    items = read_metadata(open_inside(path, METADATA_NAME))
    loaded = _Loaded(files=DataFiles(path))
    loaded.files.check(items)
    for name, item in items.items():
        loaded.add(name, item)
    checkpoint = _checkpoint(loaded)
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
    walk: Walk = field(default_factory=Walk)
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


def _checkpoint(loaded: _Loaded) -> Checkpoint:
    weights, beside = _split(loaded.root)
    tensors: dict[str, Tensor] = {}
    aliases: dict[str, str] = {}
    lines: list[LedgerLine] = []
    owners: dict[int, str] = {}
    for name, value in _leaves(weights, ""):
        if name in tensors or name in aliases:
            raise ReadError("is the name of two tensors", path=loaded.files.folder, tensor=name)
        if not isinstance(value, Tensor):
            lines.append(dropped(name, f"is no tensor but {type(value).__name__}"))
        elif owners.setdefault(id(value), name) == name or value.size == 0:
            tensors[name] = value
        else:
            aliases[name] = owners[id(value)]
    values = {key: _plain(value) for key, value in beside.items()}
    checkpoint = Checkpoint(
        tensors=tensors,
        aliases=aliases,
        buffers=frozenset(name for name, tensor in tensors.items() if is_buffer(name, tensor)),
        lines=(*loaded.walk.lines, *lines),
    )
    return _with_training(checkpoint, values)


def _split(root: _Node) -> tuple[_Node, _Node]:
    """Return the part of a state dict that is weights, and what stands beside it; all may be under one key."""
    inner = next(iter(root.values()), None)
    if len(root) == 1 and isinstance(inner, _Node) and any(isinstance(inner.get(key), _Node) for key in _WEIGHTS_KEYS):
        root = inner
    for key in _WEIGHTS_KEYS:
        if isinstance(root.get(key), _Node):
            return root[key], _Node({name: value for name, value in root.items() if name != key})
    beside = _Node({key: value for key, value in root.items() if key == _OPTIMIZER and isinstance(value, _Node)})
    return _Node({key: value for key, value in root.items() if key not in beside}), beside


def _leaves(value: Any, name: str) -> Iterator[tuple[str, Any]]:
    """Yield dotted names and what they lead to."""
    if not isinstance(value, _Node):
        yield name, value
        return
    for key, item in value.items():
        yield from _leaves(item, f"{name}.{key}" if name else str(key))


def _plain(value: Any) -> Any:
    """Return nested nodes as dicts, and as lists where the keys count from 0."""
    if not isinstance(value, _Node):
        return value
    items = {key: _plain(item) for key, item in value.items()}
    is_list = bool(items) and all(type(key) is int for key in items) and sorted(items) == list(range(len(items)))
    return [items[position] for position in range(len(items))] if is_list else items


def _with_training(checkpoint: Checkpoint, values: Mapping[Key, Any]) -> Checkpoint:
    """Add the state of the optimizer, and everything else as extras."""
    states: list[Mapping[str, Any]] = []
    refused = None
    extras: dict[str, Any] = {}
    for key, value in values.items():
        state = as_state_dict(value)
        if state is not None:
            states.append(state)
        elif str(key).startswith("optim"):
            refused = "it is of a kind that is not known"
        else:
            extras[str(key)] = value
    own = extras.pop(_EXTRAS, {})
    extras |= own if isinstance(own, dict) else {_EXTRAS: own}
    checkpoint = replace(checkpoint, extras=extras)
    if refused is not None or not states:
        return replace(checkpoint, optimizer_refused=refused)
    try:
        state = merged(states)
        checkpoint = replace(checkpoint, optimizer_numbered=state if is_numbered(state) else None)
        return replace(checkpoint, optimizer=named_state(state, checkpoint))
    except LossError as error:
        return replace(checkpoint, optimizer_refused=error.message)


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
    files += [OutputFile(name=name, pieces=(file,)) for name, file in checkpoint.assets.items()]
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
    """Yield training state under its own keys, and together where a key means something else at the root."""
    apart = {key: value for key, value in extras.items() if key in (*_WEIGHTS_KEYS, _EXTRAS) or key.startswith("optim")}
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
    write=write,
    keeps_names=keeps_pytorch,
    spells_ties=True,
    entries=(METADATA_NAME, "*" + SUFFIX, DOCUMENT_NAME),
)
