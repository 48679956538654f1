"""HDF5 as Keras writes it: weights or whole models of Keras 1 to 3, and `tf_model.h5`; files of other programs too.

keras/src/legacy/saving/legacy_h5_format.py (Keras 3.15): the attribute `layer_names` lists groups, `weight_names` in
each the datasets below it; a whole model has these below `model_weights`, its config in `model_config`. Files of other
programs are walked, and their names are the paths of datasets.

Arrays alone, of which nothing says what layers of Keras they are, have one layer per module of PyTorch, PyTorch's names
and layouts, and the root attribute `ckconv_dialect`, which says so. `ckconv` holds where the file comes from.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace

from converter.declaring import set_choices
from converter.dialects import keras as dialect
from converter.dialects.optimizer.flavors import KerasFlavor, flavor_of, stated_version
from converter.dialects.optimizer.keras_files import record_attributes, with_listed_state
from converter.dialects.optimizer.keras_layouts import variables
from converter.dialects.optimizer.stored import is_placed, with_placed_state
from converter.dialects.optimizer.stored import placed as placed_state
from converter.dialects.optimizer.writing import (
    Epsilon,
    epsilon_option,
    for_keras,
    kind_of,
    training_config,
    with_kept_state,
)
from converter.dialects.transformers import tensorflow_classes, tensorflow_writing
from converter.dialects.transformers.heads import is_head
from converter.dialects.transformers.listings import is_of_layers, relisted
from converter.encoding import hdf5
from converter.encoding import json as strict_json
from converter.encoding.hdf5 import layers
from converter.encoding.hdf5.names import escaped, set_apart, unescaped
from converter.encoding.provenance import in_hdf5
from converter.errors import LossError, ReadError
from converter.formats import Format, NoOptions, Probe
from converter.graphs.description.keras_source import graph_source, is_hostile
from converter.model.checkpoint import Checkpoint, Config, Dialect, Listing, Part
from converter.model.dtype import DType
from converter.model.file import Location, open_file
from converter.model.ledger import Kind, LedgerLine, without
from converter.model.optimizer import OptimizerState
from converter.model.output import Late, Output, OutputFile, Provenance
from converter.model.tensor import Tensor

_OPTIMIZER = "optimizer_weights"
_NOT_RESTORED = (
    "Keras 3 loads no moments of an optimizer from .h5 files, its own neither (3.15.1): a .keras file goes on"
)
_DIALECTS = tuple(Dialect)


def sniff(probe: Probe) -> bool:
    """An HDF5 file that is not laid out as `.weights.h5` is."""
    return probe.is_hdf5 and not probe.is_numbered_hdf5


def read(path: Location, options: NoOptions) -> Checkpoint:
    """Read what the structure of a file declares; tensors stay where they are.

    Variables of the optimizer, text, and datasets that no layer lists are ledger lines. Raises ReadError for damage,
    listed weights that are missing and types that are no numbers; SafetyError for whatever leads out of the file.
    """
    file = open_file(path)
    root = hdf5.read(file)
    own = root.attributes.get("ckconv_dialect")
    if own is not None:
        return _own(root, own, path)
    weights = root.group("model_weights") or root
    if layers.listed(weights, "layer_names") is None:
        return _plain(root)
    checkpoint = layers.layered(root, weights, path)
    checkpoint = replace(checkpoint, listing=_listing(weights, checkpoint, path))
    state = root.group(_OPTIMIZER)
    if state is not None and is_placed(state):
        kept = without(checkpoint.lines, Kind.OPTIMIZER)
        return with_placed_state(replace(checkpoint, lines=kept), state, path, is_of_these_names=False)
    document = _document(root, "training_config", path)
    warnings = ("training_config (loss, metrics) not carried",) if document else ()
    versions = _versions(root, weights)
    checkpoint = replace(checkpoint, keras_config=_config(root, path), metadata=versions, warnings=warnings)
    checkpoint = with_listed_state(checkpoint, root, None if document is None else document.values, path)
    if dialect.is_of_keras_1(checkpoint):
        return _of_keras_1(checkpoint, path, "" if weights is root else "model_weights/")
    return _with_graph(checkpoint, path)


def _of_keras_1(checkpoint: Checkpoint, path: Location, place: str) -> Checkpoint:
    """Return what Keras 1 stored below `place` as Keras 2 would have, by a config of its model where there is one."""

    def by_keras_config(config: Config) -> Checkpoint:
        return _of_keras_1(replace(checkpoint, keras_config=config), path, place)

    newer, recipes = dialect.renewed(checkpoint, place)
    newer = replace(newer, by_keras_config=by_keras_config)
    return _with_graph(newer, path, recipes)


def _with_graph(checkpoint: Checkpoint, path: Location, recipes: dialect.Recipes | None = None) -> Checkpoint:
    config, listing = checkpoint.keras_config, checkpoint.listing
    if config is None or listing is None or not (dialect.is_model(config.values) or is_hostile(config.values)):
        return checkpoint
    tensors = checkpoint.tensors.values()
    return replace(checkpoint, graph=graph_source(path, config.values, tensors, listing, recipes))


def _listing(weights: hdf5.Group, checkpoint: Checkpoint, path: Location) -> Listing:
    """Return each layer with its weights in the order listed: what the file calls them, and the checkpoint."""
    held: dict[str, list[tuple[str, str]]] = {name: [] for name in layers.listed(weights, "layer_names") or ()}
    for layer, name, dataset in layers.weights_of(weights, path):
        apart = f"{layer}/{name}"
        is_apart = apart in checkpoint.tensors and checkpoint.tensors[apart] is dataset.tensor
        held.setdefault(layer, []).append((name, apart if is_apart else name))
    return Listing(format=FORMAT.name, layers={layer: tuple(pairs) for layer, pairs in held.items()})


def _config(root: hdf5.Group, path: Location) -> Config | None:
    return _document(root, "model_config", path)


def _document(root: hdf5.Group, name: str, path: Location) -> Config | None:
    text = root.attributes.get(name)
    if not isinstance(text, str):
        return None
    raw = text.encode("utf-8")
    values = strict_json.loads(raw, path=path, what=name)
    if not isinstance(values, dict):
        raise ReadError(f"has a {name} that is not a JSON object", path=path)
    return Config(values=values, raw=raw)


def _versions(*groups: hdf5.Group) -> dict[str, str]:
    found = {}
    for group in groups:
        for name in ("keras_version", "backend"):
            value = group.attributes.get(name)
            if isinstance(value, str):
                found[name] = value
    return found


def _plain(root: hdf5.Group) -> Checkpoint:
    tensors: dict[str, Tensor] = {}
    aliases: dict[str, str] = {}
    lines: list[LedgerLine] = []
    first: dict[int, str] = {}
    for path, dataset in root.datasets():
        name = "/".join(path)
        if dataset.tensor is None:
            lines.append(layers.text_line(name))
        elif first.setdefault(id(dataset), name) != name:
            aliases[name] = first[id(dataset)]
        else:
            tensors[name] = dataset.tensor
    named = Dialect.KERAS if dialect.are_keras(tensors) else Dialect.GENERIC
    return Checkpoint(tensors=tensors, aliases=aliases, dialect=named, lines=tuple(lines))


def _own(root: hdf5.Group, own: object, path: Location) -> Checkpoint:
    """Read a file that was written here: modules as layers, names as they were."""
    if own not in _DIALECTS:
        raise ReadError(f"has names of the unknown dialect {own!r}", path=path)
    tensors: dict[str, Tensor] = {}
    aliases: dict[str, str] = {}
    first: dict[int, str] = {}
    for layer, weight, dataset in layers.weights_of(root, path):
        name = unescaped(weight) if layer == layers.TOP_LEVEL else f"{unescaped(layer)}.{unescaped(weight)}"
        if dataset.tensor is None or name in tensors or name in aliases:
            raise ReadError("is text, or is in the file twice", path=path, tensor=name)
        if id(dataset) in first:
            aliases[name] = first[id(dataset)]
        else:
            first[id(dataset)] = name
            tensors[name] = dataset.tensor
    lines = tuple(layers.unlisted(root, set(first)))
    checkpoint = Checkpoint(
        tensors=tensors, aliases=aliases, dialect=str(own), lines=lines, keras_config=_config(root, path)
    )
    state = root.group(_OPTIMIZER)
    if state is None or not is_placed(state):
        return checkpoint
    return with_placed_state(replace(checkpoint, lines=without(lines, Kind.OPTIMIZER)), state, path)


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteOptions:
    """What a file of Keras 2 may be asked for."""

    epsilon: Epsilon = epsilon_option()

    def __post_init__(self) -> None:
        set_choices(self)


def adapted(checkpoint: Checkpoint, options: WriteOptions) -> Checkpoint:
    """Return a checkpoint of PyTorch's names with those of its Keras config, or of the TensorFlow class it has.

    Raises LossError for a model of transformers with other layers around it, whose names no table has.
    """
    flavor = flavor_of(checkpoint)
    if checkpoint.listing is not None:
        if checkpoint.listing.format != FORMAT.name:
            checkpoint = relisted(checkpoint, FORMAT.name, is_older=flavor is not KerasFlavor.KERAS_3)
        return with_kept_state(checkpoint, flavor, says_kind=True)
    keras = for_keras(checkpoint, flavor, is_exact=options.epsilon is Epsilon.EXACT)
    is_alone = not any(is_head(name) for name in checkpoint.names)
    if keras.dialect == Dialect.PYTORCH and not is_alone:
        problem = "Keras opens a model with heads only as an .h5 of its own lists its layers, and the source is none"
        hint = (
            "of a file of Keras, --config FILE, what to_json() or get_config() of the whole model gave, lists them; "
            "--to pretrained writes the model of transformers, and the heads beside it"
        )
        raise LossError(problem, hint=hint)
    config = tensorflow_writing.naming_its_class(checkpoint)
    if keras.dialect == Dialect.PYTORCH and tensorflow_classes.knows(config):
        written = tensorflow_writing.from_canonical(replace(checkpoint, config=config, optimizer=None))
        return replace(written, optimizer=checkpoint.optimizer)  # beside the weights, as PyTorch has it
    return keras


def keeps_names(checkpoint: Checkpoint) -> bool:
    """Whether nothing but the lists of another file of Keras says how this one is laid out."""
    if is_of_layers(checkpoint, FORMAT.name):
        return True
    return dialect.is_only_listed(checkpoint, FORMAT.name) and not tensorflow_classes.knows(checkpoint.config)


def write(checkpoint: Checkpoint, options: WriteOptions, provenance: Provenance) -> Output:
    """Lay out a file that Keras opens: of an `adapted` checkpoint by its config or class, others by names.

    What kept the names of another such file has its layers and its config.
    """
    config = checkpoint.keras_config
    is_keras = checkpoint.dialect == Dialect.KERAS and config is not None and dialect.is_model(config.values)
    late = Late(nbytes=provenance.nbytes, render=provenance.render)
    alone = None
    if checkpoint.listing is not None:
        content, names, warnings = _listed_file(checkpoint, checkpoint.listing, late)
    elif is_keras:
        content, names, warnings = _keras_file(checkpoint, late)
    elif tensorflow_writing.is_laid_out(checkpoint):
        content, names, warnings = _tensorflow_file(checkpoint, late)
    else:
        content, names, warnings = _module_file(checkpoint, late)
        alone = dialect.arrays_alone(checkpoint, suffix=".h5")
    file = OutputFile(name=FORMAT.file_name or "", pieces=hdf5.pieces(content))
    has_config = "model_config" in content.attributes[""]
    return Output(files=(file,), names=names, warnings=warnings, has_config=has_config, arrays_alone=alone)


_Written = tuple[hdf5.FileContent, dict[str, str], tuple[str, ...]]


def _keras_file(checkpoint: Checkpoint, late: Late) -> _Written:
    """Lay out a whole model: its config, and its layers in the order of the config, below `model_weights`."""
    assert checkpoint.keras_config is not None
    config = checkpoint.keras_config
    model = dialect.parse(config.values)
    flavor = flavor_of(checkpoint)
    is_older = flavor is not KerasFlavor.KERAS_3
    suffix = ":0" if is_older else ""
    by_layer: dict[str, list[str]] = {layer.name: [] for layer in model.layers}
    for name in checkpoint.names:
        owners = [layer for layer in by_layer if name.startswith(f"{layer}/")]  # names of Keras 2 may have slashes
        by_layer[max(owners, key=len)].append(name)
    tensors, names = {}, {}
    backend = checkpoint.metadata.get("backend", "tensorflow")
    stated = {"backend": backend, "keras_version": _version(checkpoint)}
    document = dialect.with_registered_classes(config).raw.decode("utf-8")
    root = {**stated, "model_config": document, "ckconv": late}
    attributes: dict[str, dict[str, object]] = {"": root, "model_weights": {**stated, "layer_names": list(by_layer)}}
    for layer, held in by_layer.items():
        attributes[f"model_weights/{layer}"] = {
            "weight_names": [name + suffix for name in _by_trainability(held, checkpoint)]
        }
        for name in held:
            tensors[f"model_weights/{layer}/{name}{suffix}"] = checkpoint.tensor(name)
            names[name + suffix] = name
    attributes[f"model_weights/{layers.TOP_LEVEL}"] = {"weight_names": []}
    return _with_state(checkpoint.optimizer, flavor, suffix, tensors, attributes), names, _warnings(checkpoint, flavor)


def _warnings(checkpoint: Checkpoint, flavor: KerasFlavor) -> tuple[str, ...]:
    return (_NOT_RESTORED,) if checkpoint.optimizer is not None and flavor is KerasFlavor.KERAS_3 else ()


def _version(checkpoint: Checkpoint) -> str:
    return stated_version(checkpoint) or ("3.0.0" if flavor_of(checkpoint) is KerasFlavor.KERAS_3 else "2.15.0")


def _with_state(
    state: OptimizerState | None,
    flavor: KerasFlavor,
    suffix: str,
    tensors: dict[str, Tensor],
    attributes: dict[str, dict[str, object]],
) -> hdf5.FileContent:
    """Lay out the state of the optimizer, its variables called with `suffix`, beside the weights."""
    if state is not None:
        slots = {name + suffix: tensor for name, tensor in variables(state, kind_of(state, flavor)).items()}
        tensors |= {f"{_OPTIMIZER}/{name}": tensor for name, tensor in slots.items()}
        attributes[_OPTIMIZER] = {"weight_names": list(slots), **record_attributes(state)}
        attributes[""]["training_config"] = json.dumps(training_config(state))
    stored, links = hdf5.shared(tensors)
    return hdf5.FileContent(tensors=stored, links=links, attributes=attributes)


def _listed_file(checkpoint: Checkpoint, listing: Listing, late: Late) -> _Written:
    """Lay out the layers of another such file, its config above them where it has one."""
    config = checkpoint.keras_config
    top = "" if config is None else "model_weights/"
    listed = [layer for layer in listing.layers if layer != layers.TOP_LEVEL]
    stated = {"backend": "tensorflow", "keras_version": _version(checkpoint), **checkpoint.metadata}
    attributes: dict[str, dict[str, object]] = {top.rstrip("/"): {**stated, "layer_names": listed}}
    root = attributes.setdefault("", dict(stated))
    root["ckconv"] = late
    if config is not None:
        root["model_config"] = dialect.with_registered_classes(config).raw.decode("utf-8")
    tensors: dict[str, Tensor] = {}
    there = set(checkpoint.names)
    for layer, pairs in listing.layers.items():
        held = [(called, name) for called, name in pairs if name in there]
        attributes[f"{top}{layer}"] = {"weight_names": [called for called, _ in held]}
        tensors |= {f"{top}{layer}/{called}": checkpoint.tensor(name) for called, name in held}
    plain = {name: name.removesuffix(":0") for name in checkpoint.names}
    state = None if checkpoint.optimizer is None else checkpoint.optimizer.with_names(plain)
    flavor = flavor_of(checkpoint)
    content = _with_state(state, flavor, ":0", tensors, attributes)
    return content, {name: name for name in checkpoint.names}, () if config is None else _warnings(checkpoint, flavor)


def _tensorflow_file(checkpoint: Checkpoint, late: Late) -> _Written:
    """Lay out the weights of a class of transformers, by its layers."""
    content = layers.placed(checkpoint.tensors, tensorflow_writing.layers(checkpoint), late)
    if checkpoint.optimizer is not None:
        slots, attributes = placed_state(checkpoint.optimizer, _OPTIMIZER)
        content = replace(
            content, tensors={**content.tensors, **slots}, attributes={**content.attributes, **attributes}
        )
    return content, {name: name for name in checkpoint.tensors}, ()


def _by_trainability(names: list[str], checkpoint: Checkpoint) -> list[str]:
    """Return the variables of a layer as Keras lists them: those that are trained, then the others."""
    return sorted(names, key=lambda name: name in checkpoint.buffers or name in checkpoint.frozen)


def _module_file(checkpoint: Checkpoint, late: Late) -> _Written:
    """Lay out one layer per module, with names and layouts as they are; ties become hard links."""
    by_layer: dict[str, list[tuple[str, str]]] = {}
    reserved = {layers.TOP_LEVEL} if checkpoint.optimizer is None else {layers.TOP_LEVEL, _OPTIMIZER}
    escapes: list[str] = []
    for name in checkpoint.names:
        module, dot, leaf = name.rpartition(".")
        layer = layers.TOP_LEVEL if not dot else set_apart(module) if module in reserved else escaped(module)
        by_layer.setdefault(layer, []).append((name, escaped(leaf)))
        if escaped(leaf) != leaf or (dot and layer != module):
            escapes.append(name)
    places = {name: f"{layer}/{leaf}" for layer, held in by_layer.items() for name, leaf in held}
    listed = [layer for layer in by_layer if layer != layers.TOP_LEVEL]
    root: dict[str, object] = {
        "ckconv_dialect": str(checkpoint.dialect),
        "backend": "tensorflow",
        "layer_names": listed,
        "ckconv": late,
    }
    attributes: dict[str, dict[str, object]] = {"": root}
    for layer, held in by_layer.items():
        attributes[layer] = {"weight_names": [leaf for _, leaf in held]}
    slots: dict[str, Tensor] = {}
    if checkpoint.optimizer is not None:
        slots, more = placed_state(checkpoint.optimizer, _OPTIMIZER)
        attributes.update(more)
    placed = hdf5.FileContent(
        tensors={**{places[name]: tensor for name, tensor in checkpoint.tensors.items()}, **slots},
        links={places[name]: places[owner] for name, owner in checkpoint.aliases.items()},
        attributes=attributes,
    )
    warnings = (f"names that HDF5 cannot hold are escaped: {', '.join(escapes[:10])}",) if escapes else ()
    return placed, {name: name for name in checkpoint.names}, warnings


FORMAT = Format(
    name="h5",
    description="Keras HDF5: weights and whole models of Keras 1 and 2, tf_model.h5, legacy files of Keras 3",
    suffixes=(".hdf5", ".h5"),
    holds=frozenset({Part.WEIGHTS, Part.OPTIMIZER}),
    dtypes=frozenset(DType),
    sniff=sniff,
    read=read,
    write=write,
    provenance=in_hdf5,
    keeps_names=keeps_names,
    adapt=adapted,
    write_options=WriteOptions,
    file_name="tf_model.h5",
    entries=("*.h5", "*.hdf5"),
)
