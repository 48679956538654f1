"""TensorFlow checkpoints: `<prefix>.index`, `<prefix>.data-*`, and a file `checkpoint` that names the prefix.

https://www.tensorflow.org/guide/checkpoint. Object-based (TensorFlow 2) and name-based (TensorFlow 1); both are
tensor bundles, read and written without TensorFlow. What this program writes is object-based for a Keras model, else
name-based, with `ckconv.json` beside it (converter.encoding.description).
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from converter.dialects import keras as dialect
from converter.dialects.keras.objects import add_model, listing_of
from converter.dialects.optimizer import tensorflow1
from converter.dialects.optimizer.flavors import KerasFlavor, flavor_of
from converter.dialects.optimizer.keras_files import recorded, with_bundle_state
from converter.dialects.optimizer.objects import add_optimizer
from converter.dialects.optimizer.semantics import to_keras
from converter.dialects.optimizer.stored import document_of, stored_tensors, with_stored_state
from converter.dialects.optimizer.writing import call_of, for_keras
from converter.dialects.transformers import tensorflow_classes, tensorflow_writing
from converter.dialects.transformers.heads import is_head
from converter.dialects.transformers.object_paths import Objects, objects_of
from converter.encoding import checkpoint_v1, protobuf
from converter.encoding.bundle_structure import laid_of, structure_of
from converter.encoding.description import FILE_NAME as DOCUMENT_NAME
from converter.encoding.description import Description, described, read_document
from converter.encoding.folder import (
    ASSET_NAMES,
    CONFIG_NAME,
    CONFIG_NAMES,
    asset_files,
    config_files,
    open_inside,
    read_config,
)
from converter.encoding.object_graph import ObjectTree, object_graph
from converter.encoding.provenance import in_document
from converter.encoding.tensor_bundle import OBJECT_GRAPH_KEY, Bundle, StoredEntry, bundle_files, read_bundle
from converter.encoding.tensorflow_variables import kinds_besides_weights, object_path, variable_names, weights
from converter.errors import ReadError, SafetyError
from converter.formats import Format, NoOptions, Probe
from converter.model.checkpoint import Checkpoint, Config, Dialect, Part
from converter.model.dtype import DType
from converter.model.file import Location, is_dir, is_there, names_in, open_file
from converter.model.ledger import Kind, without
from converter.model.output import ArraysAlone, Late, Output, OutputFile, Provenance
from converter.model.tensor import ArrayTensor, Tensor

_STATE_NAME = "checkpoint"
_STATE_LIMIT_BYTES = 1 << 20
_INDEX_SUFFIX, _GRAPH_SUFFIX = ".index", ".meta"
_PREFIX = "ckpt"
_DATA = re.compile(r"(.+)\.data-\d{5,}-of-\d{5,}")
_STATE_LINE = re.compile(r'\s*(\w+)\s*:\s*(?:"((?:[^"\\\n]|\\["\'\\])*)"|[-+.\w]+)\s*')
_ESCAPED = re.compile(r"\\(.)")
_MARK = ".>"
_OPTIMIZER_ALONE = f"optimizer{_INDEX_SUFFIX}"
"""An optimizer beside a model of transformers, which the format `pretrained` reads."""
_OPTIMIZER = "optimizer/"
_MODEL = "model"
_COPIED = "copied"
"""What the document of a copy has instead of a prefix of its own: such a bundle is read as the one it was made of."""
_RELEASED_CONFIGS = ("bert_config.json", "albert_config.json", "electra_config.json")
"""What Google calls the configs beside its checkpoints."""


def sniff(probe: Probe) -> bool:
    """An index, a data file beside its index, or a folder with either an index or nothing but the file that names one.

    Data files are numbers and nothing else: only their names tell what they are.
    """
    if probe.is_folder:
        beside = {*CONFIG_NAMES, DOCUMENT_NAME, *ASSET_NAMES}
        if any(entry.endswith(_INDEX_SUFFIX) for entry in probe.entries - {_OPTIMIZER_ALONE}):
            return True
        has_graphs = any(entry.removesuffix(_GRAPH_SUFFIX) in probe.entries - {entry} for entry in probe.entries)
        return _STATE_NAME in probe.entries and (has_graphs or probe.entries - beside == {_STATE_NAME})
    data = _DATA.fullmatch(probe.path.name)
    if data is not None and is_there(probe.path.parent / (data[1] + _INDEX_SUFFIX)):
        return True
    return _starts_with_header(probe.head) or checkpoint_v1.looks_like(probe.head, probe.tail)


def _starts_with_header(head: bytes) -> bool:
    """Whether the first entry of the first block has the empty key, and the header of a bundle for a value."""
    if head[:2] != b"\0\0" or len(head) < 3 or not 0 < head[2] < 64:
        return False
    try:
        header = list(protobuf.fields(head[3 : 3 + head[2]]))
    except ReadError:
        return False
    kinds = [(number, wire_type) for number, wire_type, _ in header]
    return (1, protobuf.VARINT) in kinds and (3, protobuf.LENGTH_DELIMITED) in kinds


def read(path: Location, options: NoOptions) -> Checkpoint:
    """Read the index of a checkpoint, given its prefix, one of its files, or its folder; no tensor is read.

    Weights have the full names of their variables, or where those are no names of one variable alone, the paths to
    them. State of optimizers and metrics, counters and text are ledger lines. Raises ReadError for a damaged bundle
    and for folders that do not say which checkpoint they hold, SafetyError for a `checkpoint` file that names one
    elsewhere.
    """
    prefix, warnings = _prefix_of(path)
    if is_there(prefix) and not is_there(prefix.parent / f"{prefix.name}{_INDEX_SUFFIX}"):
        return _of_version_1(prefix, warnings)
    bundle = read_bundle(prefix)
    document_file = prefix.parent / DOCUMENT_NAME
    if is_there(document_file):
        document = read_document(open_inside(prefix.parent, DOCUMENT_NAME))
        if document.get("prefix") == prefix.name:
            of_objects = OBJECT_GRAPH_KEY in bundle.entries
            return (_own_objects if of_objects else _own)(bundle, document, document_file, warnings)
        names = _copied_names(document, prefix.name)
    else:
        names = {}
    kinds = kinds_besides_weights(bundle)
    names = {**_unambiguous_names(bundle, kinds), **{key: name for key, name in names.items() if key in bundle.entries}}
    tensors, lines = weights(bundle, names, kinds)
    weights_alone = {key: name for key, name in names.items() if key not in kinds}
    checkpoint = Checkpoint(
        tensors=tensors,
        dialect=Dialect.TENSORFLOW,
        config=_released_config(prefix.parent),
        lines=lines,
        warnings=warnings,
        structure=structure_of(bundle, weights_alone, kinds),
    )
    if OBJECT_GRAPH_KEY not in bundle.entries:
        return tensorflow1.with_state(checkpoint, bundle.tensors)
    checkpoint = replace(checkpoint, listing=listing_of(object_graph(bundle), weights_alone, FORMAT.name))
    return with_bundle_state(checkpoint, bundle, weights_alone)


def _copied_names(document: Mapping[str, Any], prefix: str) -> dict[str, str]:
    """Return key -> name of the copy with this prefix, where the names would not be those of what was copied."""
    copied = document.get(_COPIED)
    if not isinstance(copied, Mapping) or copied.get("prefix") != prefix:
        return {}
    names = copied.get("names")
    return {key: name for key, name in names.items() if isinstance(name, str)} if isinstance(names, Mapping) else {}


def _own(bundle: Bundle, document: Mapping[str, Any], path: Location, warnings: tuple[str, ...]) -> Checkpoint:
    """Read a bundle that was written here, by the names of its tensors."""
    _check_all_read(bundle)
    slots = {key: tensor for key, tensor in bundle.tensors.items() if key.startswith(_OPTIMIZER)}
    state = document.get("optimizer")
    weights = {key: tensor for key, tensor in bundle.tensors.items() if state is None or key not in slots}
    checkpoint = described(Checkpoint(tensors=weights, warnings=warnings), document, path)
    if state is None:
        return checkpoint
    return with_stored_state(checkpoint, state, {key.removeprefix(_OPTIMIZER): tensor for key, tensor in slots.items()})


def _own_objects(bundle: Bundle, document: Mapping[str, Any], path: Location, warnings: tuple[str, ...]) -> Checkpoint:
    """Read a bundle that was written here for the objects of a Keras model."""
    names, kinds = variable_names(bundle), kinds_besides_weights(bundle)
    names.update({key: name.removesuffix(":0") for key, name in names.items()})
    tensors, lines = weights(bundle, names, kinds)
    held = {key: name for key, name in names.items() if key not in kinds}
    checkpoint = described(Checkpoint(tensors=tensors, warnings=warnings), document, path)
    return with_bundle_state(
        replace(checkpoint, lines=without(lines, Kind.SAVES)), bundle, held, document=document.get("optimizer")
    )


def _released_config(folder: Location) -> Config | None:
    """Return the config that a folder has under one of Google's names, where it has no config.json."""
    if is_there(folder / CONFIG_NAME):
        return None
    found = [config for name in _RELEASED_CONFIGS if (config := read_config(folder, name)) is not None]
    return found[0] if len(found) == 1 else None


def _check_all_read(bundle: Bundle) -> None:
    for key, entry in bundle.entries.items():
        if key not in bundle.tensors:
            raise ReadError(f"is of type {entry.type_name}, which is not read", path=bundle.path, tensor=key)


def _unambiguous_names(bundle: Bundle, kinds: dict[str, Kind]) -> dict[str, str]:
    names = variable_names(bundle)
    bearers = Counter(name for key, name in names.items() if key not in kinds)
    return {key: object_path(key) if key not in kinds and bearers[name] > 1 else name for key, name in names.items()}


def _of_version_1(path: Location, warnings: tuple[str, ...]) -> Checkpoint:
    bundle = checkpoint_v1.read_bundle(open_file(path))
    names = {key: key for key in bundle.entries}
    tensors, lines = weights(bundle, names, kinds_besides_weights(bundle))
    config = _released_config(path.parent)
    checkpoint = Checkpoint(tensors=tensors, dialect=Dialect.TENSORFLOW, config=config, lines=lines, warnings=warnings)
    return tensorflow1.with_state(checkpoint, bundle.tensors)


def _prefix_of(path: Location) -> tuple[Location, tuple[str, ...]]:
    """Return the prefix that `path` stands for, and what to say about the choice."""
    if is_dir(path):
        name, warnings = _prefix_in(path)
        return path / name, warnings
    if path.name.endswith(_INDEX_SUFFIX):
        return path.parent / path.name.removesuffix(_INDEX_SUFFIX), ()
    data = _DATA.fullmatch(path.name)
    return (path if data is None else path.parent / data[1]), ()


def _prefix_in(folder: Location) -> tuple[str, tuple[str, ...]]:
    if is_there(folder / _STATE_NAME):
        return _named_prefix(folder)
    indexes = [name for name in names_in(folder) if name.endswith(_INDEX_SUFFIX)]
    if len(indexes) != 1:
        what = f"several checkpoints: {', '.join(indexes)}" if indexes else "no checkpoint"
        raise ReadError(f"holds {what}", path=folder, hint="name one by its .index file" if indexes else None)
    return indexes[0].removesuffix(_INDEX_SUFFIX), ()


def _named_prefix(folder: Location) -> tuple[str, tuple[str, ...]]:
    """Return the prefix that the file `checkpoint` names.

    https://github.com/tensorflow/tensorflow/blob/v2.21.0/tensorflow/python/training/checkpoint_state.proto, as text.
    """
    file = open_inside(folder, _STATE_NAME)
    if file.size > _STATE_LIMIT_BYTES:
        raise ReadError(
            f"is a list of checkpoints of {file.size} bytes, and at most {_STATE_LIMIT_BYTES} are read", path=file.path
        )
    latest: list[str] = []
    others: list[str] = []
    for line in protobuf.as_text(file.read(0, file.size), file.path).split("\n"):
        match = _STATE_LINE.fullmatch(line)
        if match is None and line.strip():
            raise ReadError(
                f"holds the line {line[:100]!r}, which is no field of a list of checkpoints", path=file.path
            )
        if match is not None and match[1] in ("model_checkpoint_path", "all_model_checkpoint_paths"):
            if match[2] is None:
                raise ReadError(f"{match[1]} is no text", path=file.path)
            (latest if match[1] == "model_checkpoint_path" else others).append(_ESCAPED.sub(r"\1", match[2]))
    if len(latest) != 1:
        raise ReadError(f"names {len(latest)} latest checkpoints", path=file.path)
    name = _inside(folder, latest[0], file.path)
    older = len(set(others) - set(latest))
    return name, (f"of {older + 1} checkpoints, {name} is read, the latest",) if older else ()


def _inside(folder: Location, name: str, path: Location) -> str:
    """Return the plain file name that `name` is; TensorFlow 1 writes whole paths."""
    base = os.path.basename(name)
    is_whole_path = isinstance(folder, Path) and os.path.isabs(name) and Path(name).parent.resolve() == folder.resolve()
    if base in ("", ".", "..") or not (is_whole_path or name == base):
        hint = "if it is in this folder, name it by its .index file"
        raise SafetyError(f"names a checkpoint outside its folder: {name!r}", path=path, hint=hint)
    return base


def adapted(checkpoint: Checkpoint, options: NoOptions) -> Checkpoint:
    """Return a checkpoint with the names, layouts and optimizer of its Keras config, or of its TensorFlow class."""
    config = tensorflow_writing.naming_its_class(checkpoint)
    is_alone = checkpoint.keras_config is None and not any(is_head(name) for name in checkpoint.names)
    if checkpoint.dialect == Dialect.PYTORCH and is_alone and tensorflow_classes.knows(config):
        in_keras = to_keras(replace(checkpoint, config=config), KerasFlavor.TF_KERAS)
        made = tensorflow_writing.from_canonical(in_keras).with_names(lambda name: name.removesuffix(":0"))
        if _class_objects(made) is not None and not any(line.is_refused_by_default for line in made.lines):
            return made
    made = for_keras(checkpoint, flavor_of(checkpoint), is_exact=False)
    return replace(made, keras_config=checkpoint.keras_config)


def _class_objects(checkpoint: Checkpoint) -> Objects | None:
    """Return the objects of a checkpoint that is laid out as a TensorFlow class, None for any other."""
    if checkpoint.config is None or not tensorflow_writing.is_laid_out(checkpoint):
        return None
    return objects_of(f"TF{tensorflow_classes.named_class(checkpoint.config.values)}", checkpoint.names)


_NAMES_OF_PYTORCH = (
    "names and layouts are PyTorch's, for tf.train.load_checkpoint: this is no whole model of a class of TensorFlow "
    "whose objects are known, which tf.train.Checkpoint and load_weights would restore"
)
_ALONE = ArraysAlone(
    problem="tf.train.Checkpoint restores a Keras model by its objects, and this one has layers that no table knows",
    hint="--to keras and --to h5 hold it; so does a TensorFlow checkpoint that is made of another",
)


def write(checkpoint: Checkpoint, options: NoOptions, provenance: Provenance) -> Output:
    """Lay out a folder that tf.train.load_checkpoint opens.

    A copy of another has its keys, its objects and all that hangs there. An `adapted` checkpoint of a Keras model or of
    a TensorFlow class has its objects, which tf.train.Checkpoint restores; any other has the names of the tensors for
    keys.
    """
    config = checkpoint.keras_config
    is_model = config is not None and dialect.is_model(config.values)
    is_keras = checkpoint.dialect == Dialect.KERAS and is_model
    is_copy = checkpoint.structure is not None
    objects = None if is_copy or is_keras else _class_objects(checkpoint)
    if objects is not None:
        laid = _objects_of_class(checkpoint, objects)
    else:
        laid = (_copy if is_copy else _objects if is_keras else _names)(checkpoint)
    description = Description(checkpoint=checkpoint, provenance=provenance, names=laid.names, more=laid.more)
    data, index = bundle_files(_PREFIX, laid.tensors, laid.graph, laid.entries)
    document = Late(nbytes=description.nbytes, render=description.render)
    state = f'model_checkpoint_path: "{_PREFIX}"\nall_model_checkpoint_paths: "{_PREFIX}"\n'.encode()
    files = [
        data,
        OutputFile(name=DOCUMENT_NAME, pieces=(document, b"\n")),
    ]
    files += config_files(checkpoint)
    files += asset_files(checkpoint.assets)
    files += [index, OutputFile(name=_STATE_NAME, pieces=(state,))]
    has_objects = is_keras or objects is not None
    warnings = () if checkpoint.optimizer is None or not has_objects else (call_of(checkpoint.optimizer),)
    if laid.graph is None and not is_copy and checkpoint.dialect == Dialect.PYTORCH:
        warnings = (*warnings, _NAMES_OF_PYTORCH)
    names = {name: name for name in checkpoint.names}
    alone = _ALONE if is_model and not is_keras and not is_copy else None
    return Output(files=tuple(files), names=names, warnings=warnings, arrays_alone=alone)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Laid:
    """What a bundle gets by key: tensors and other entries; and its graph of objects.

    `names` and `more` are of the document: key -> name where they differ, and what it says besides.
    """

    tensors: Mapping[str, Tensor]
    graph: bytes | None = None
    entries: Mapping[str, StoredEntry] = field(default_factory=dict)
    names: Mapping[str, str] = field(default_factory=dict)
    more: Mapping[str, Any] = field(default_factory=lambda: {"prefix": _PREFIX})


def _copy(checkpoint: Checkpoint) -> _Laid:
    laid = laid_of(checkpoint.structure, checkpoint.tensors)
    by_path = {key: name for key, name in laid.names.items() if laid.graph is not None and name == object_path(key)}
    more = {_COPIED: {"prefix": _PREFIX, "names": by_path}}
    return _Laid(tensors=laid.tensors, graph=laid.graph, entries=laid.entries, more=more)


def _names(checkpoint: Checkpoint) -> _Laid:
    keys = {name: _key(name) for name in checkpoint.tensors}
    tensors = {keys[name]: tensor for name, tensor in checkpoint.tensors.items()}
    names = {key: name for name, key in keys.items() if key != name}
    if checkpoint.optimizer is None:
        return _Laid(tensors=tensors, names=names)
    slots = {_OPTIMIZER + name: tensor for name, tensor in stored_tensors(checkpoint.optimizer).items()}
    more = {"prefix": _PREFIX, "optimizer": document_of(checkpoint.optimizer)}
    return _Laid(tensors={**tensors, **slots}, names=names, more=more)


def _objects(checkpoint: Checkpoint) -> _Laid:
    assert checkpoint.keras_config is not None
    flavor, tree = flavor_of(checkpoint), ObjectTree()
    model = tree.child(0, _MODEL)
    nodes, keys = add_model(
        tree, model, dialect.parse(checkpoint.keras_config.values), is_older=flavor is not KerasFlavor.KERAS_3
    )
    return _laid(checkpoint, tree, model, flavor, nodes, keys)


def _objects_of_class(checkpoint: Checkpoint, objects: Objects) -> _Laid:
    """Lay out a model of transformers as the root, as `save_weights` does, and as `model` below that.

    Those that have a `model` of their own are the root alone.
    """
    tree = ObjectTree()
    nodes: dict[str, int] = {}
    keys: dict[str, str] = {}
    for path in (*objects.variables, *objects.others):
        node = 0
        for part in path.split("/"):
            node = tree.child(node, part)
        name = objects.variables.get(path)
        if name is not None:
            nodes[name] = node
            keys[tree.set_variable(node, path, name)] = name
    own = dict(tree.children(0))
    model = 0 if _MODEL in own else tree.child(0, _MODEL)
    for local_name, node in own.items():
        tree.link(model, local_name, node)
    return _laid(checkpoint, tree, model, KerasFlavor.TF_KERAS, nodes, keys)


def _laid(
    checkpoint: Checkpoint,
    tree: ObjectTree,
    model: int,
    flavor: KerasFlavor,
    nodes: Mapping[str, int],
    keys: Mapping[str, str],
) -> _Laid:
    """Lay out what hangs in a tree, and the optimizer of the object `model`.

    `nodes` are those of the variables, by name; `keys` has key -> name.
    """
    tensors = {key: checkpoint.tensor(name) for key, name in keys.items()}
    counter = tree.set_variable(tree.child(0, "save_counter"), "save_counter", "save_counter")
    tensors[counter] = ArrayTensor.of(np.asarray(1, np.int64))
    if checkpoint.optimizer is None:
        return _Laid(tensors=tensors, graph=tree.serialized())
    node = tree.child(0, "optimizer")
    tree.link(model, "optimizer", node)
    tensors |= add_optimizer(tree, node, checkpoint.optimizer, flavor, nodes)
    more = {"prefix": _PREFIX, "optimizer": recorded(checkpoint.optimizer)}
    return _Laid(tensors=tensors, graph=tree.serialized(), more=more)


def _key(name: str) -> str:
    """Return `name`, or, where a bundle cannot hold it or means something else by it, one with ``.>`` before it."""
    is_refused = not name or name.startswith(("\0", _MARK, _OPTIMIZER)) or name == OBJECT_GRAPH_KEY
    return _MARK + name if is_refused else name


FORMAT = Format(
    name="tf-checkpoint",
    description="TensorFlow checkpoint: an index, data files, and the file that names them",
    suffixes=(),
    holds=frozenset({Part.WEIGHTS, Part.CONFIG, Part.ASSETS, Part.OPTIMIZER}),
    dtypes=frozenset(DType) - {DType.FLOAT8_E8M0FNU},
    sniff=sniff,
    read=read,
    write=write,
    provenance=in_document,
    adapt=adapted,
    keeps_structure=True,
    entries=(_STATE_NAME, "*" + _INDEX_SUFFIX, "*.data-?????-of-?????", DOCUMENT_NAME, *_RELEASED_CONFIGS),
)
