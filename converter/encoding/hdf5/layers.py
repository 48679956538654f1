"""Weights as Keras lists them in an HDF5 file: `layer_names` of a group, and `weight_names` of each layer's group.

keras/src/legacy/saving/legacy_h5_format.py (Keras 3.15). The shards of a tf_model.h5 list datasets as layers
(transformers 4.57.6, modeling_tf_utils.load_tf_shard).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from converter.encoding.hdf5.reading import Dataset, Group, read
from converter.encoding.hdf5.writing import FileContent
from converter.errors import ReadError
from converter.model.checkpoint import Checkpoint, Dialect
from converter.model.file import Location, SourceFile
from converter.model.ledger import Kind, LedgerLine, Status, dropped, no_weight
from converter.model.output import Late
from converter.model.tensor import Tensor, is_equal

TOP_LEVEL = "top_level_model_weights"
"""The group of variables that no layer holds: it is there without being listed."""


def listed(group: Group, name: str) -> tuple[str, ...] | None:
    """Return an attribute that lists names, put together where Keras split it (`name0`, `name1` ...)."""
    whole = group.attributes.get(name)
    if isinstance(whole, tuple):
        return whole
    parts: list[str] = []
    for number in range(len(group.attributes)):
        part = group.attributes.get(f"{name}{number}")
        if not isinstance(part, tuple):
            break
        parts += part
    return tuple(parts) if parts else None


def text_line(name: str) -> LedgerLine:
    """A dataset that no tensor can be."""
    return dropped(name, "text, not numbers", is_refused_by_default=True)


def layered(root: Group, weights: Group, path: Location) -> Checkpoint:
    """Return the weights that the layers in `weights` list; what is stored once per layer is tied, and read for that.

    Raises ReadError for listed weights that are missing or twice there with different values.
    """
    every = list(weights_of(weights, path))
    bearers = Counter(name for _, name, _ in every)
    tensors: dict[str, Tensor] = {}
    aliases: dict[str, str] = {}
    lines: list[LedgerLine] = []
    first: dict[int, str] = {}
    for layer, name, dataset in every:
        owner = first.setdefault(id(dataset), name)
        if dataset.tensor is None:
            lines.append(text_line(f"{layer}/{name}"))
        elif name not in tensors and name not in aliases and tensors.get(owner) is dataset.tensor:
            aliases[name] = owner
        elif name not in tensors and name not in aliases:
            tensors[name] = dataset.tensor
        elif is_equal(tensors[aliases.get(name, name)], dataset.tensor):
            reason = "stored once per layer that uses it"
            lines.append(LedgerLine(status=Status.TIED, name=f"{layer}/{name}", target=name, reason=reason))
        elif f"{layer}/{name}" in tensors or bearers[f"{layer}/{name}"]:
            raise ReadError("is listed twice", path=path, tensor=f"{layer}/{name}")
        else:
            tensors[f"{layer}/{name}"] = dataset.tensor
    lines += unlisted(root, set(first))
    return Checkpoint(tensors=tensors, aliases=aliases, dialect=Dialect.KERAS, lines=tuple(lines))


def weights_of(weights: Group, path: Location) -> Iterator[tuple[str, str, Dataset]]:
    """Yield layer, name and dataset of every weight that is listed, in the order of the lists.

    Raises ReadError for a layer that is listed twice, and for what is listed and is not there.
    """
    layers = listed(weights, "layer_names") or ()
    top = weights.group(TOP_LEVEL)
    if len(set(layers)) != len(layers):
        raise ReadError("lists a layer twice", path=path)
    for layer in (*layers, *((TOP_LEVEL,) if top is not None and TOP_LEVEL not in layers else ())):
        group = weights.group(*layer.split("/"))
        if group is None:
            raise ReadError("is listed as a layer, but is not in the file", path=path, tensor=layer)
        for name in listed(group, "weight_names") or ():
            *place, last = name.split("/")
            holder = group.group(*place)
            dataset = None if holder is None else holder.members.get(last)
            if not isinstance(dataset, Dataset):
                raise ReadError(f"is listed in layer {layer!r}, but is not in the file", path=path, tensor=name)
            yield layer, name, dataset


def unlisted(root: Group, seen: set[int]) -> Iterator[LedgerLine]:
    """Yield a line for every dataset below `root` whose id is not in `seen`."""
    for place, dataset in root.datasets():
        if id(dataset) in seen:
            continue
        if place[0] == "optimizer_weights":
            yield no_weight("/".join(place), Kind.OPTIMIZER)
        else:
            yield dropped("/".join(place), "no layer lists it", is_refused_by_default=True)


def shard(file: SourceFile) -> dict[str, Tensor]:
    """Return the tensors of one shard of a tf_model.h5, by the names in it. Raises ReadError for what is no shard."""
    root = read(file)
    tensors: dict[str, Tensor] = {}
    for name in listed(root, "layer_names") or ():
        *place, last = name.split("/")
        holder = root.group(*place)
        dataset = None if holder is None else holder.members.get(last)
        if not isinstance(dataset, Dataset) or dataset.tensor is None:
            raise ReadError("is listed, but is not in the file", path=file.path, tensor=name)
        tensors[name] = dataset.tensor
    return tensors


def shard_name(variable: str) -> str:
    """Return what a variable is called in a shard: without the name of its model, where it starts with that.

    The rule is transformers': TFPreTrainedModel.save_pretrained.
    """
    _, slash, rest = variable.partition("/")
    return rest if slash and "model." not in variable else variable


def placed(tensors: Mapping[str, Tensor], by_layer: Mapping[str, Sequence[str]], late: Late) -> FileContent:
    """Lay out the weights of a model: layer -> the tensors in it, which may be in several; TOP_LEVEL is not listed."""
    listed = [layer for layer in by_layer if layer != TOP_LEVEL]
    root = {"backend": "tensorflow", "keras_version": "2.15.0", "layer_names": listed, "ckconv": late}
    return FileContent(
        tensors={f"{layer}/{name}": tensors[name] for layer, held in by_layer.items() for name in held},
        attributes={"": root, **{layer: {"weight_names": held} for layer, held in by_layer.items()}},
    )


def placed_shard(tensors: Mapping[str, Tensor], late: Late) -> FileContent:
    """Lay out one shard of a tf_model.h5: the datasets are what its layers are called."""
    held = {shard_name(name): tensor for name, tensor in tensors.items()}
    return FileContent(tensors=held, attributes={"": {"layer_names": sorted(held), "ckconv": late}})
