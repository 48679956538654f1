"""TensorFlow's SavedModel: a folder with a graph, and variables in a bundle beside it.

https://www.tensorflow.org/guide/saved_model. The graph is a program and is not opened: the variables, and what they
are called, are all in the bundle. In `assets.extra/`, which TensorFlow leaves to others, the SavedModels of this
program carry config.json, tokenizer files and `ckconv.json` (converter.encoding.description).
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from functools import partial
from typing import Any

from converter.declaring import Need, option, set_choices
from converter.dialects.keras.objects import listing_of
from converter.dialects.optimizer.keras_files import with_bundle_state
from converter.dialects.optimizer.stored import document_of, stored_tensors, with_stored_state
from converter.dialects.transformers.heads import config_around
from converter.encoding import keras_metadata, safetensors
from converter.encoding.description import Description, described, known_names, read_document
from converter.encoding.folder import ASSET_NAMES, config_files, open_inside, read_assets, read_configs
from converter.encoding.object_graph import object_graph
from converter.encoding.provenance import in_document
from converter.encoding.saved_model import check_whole, has_graph, variable_files
from converter.encoding.tensor_bundle import Bundle, read_bundle_inside
from converter.encoding.tensorflow_variables import kinds_besides_weights, variable_names, weights
from converter.errors import ReadError, UsageError
from converter.formats import Format, NoOptions, Probe
from converter.graphs.calls import (
    build_saved_model,
    run_foreign_saved_model,
    run_saved_model,
    trace_saved_model,
)
from converter.graphs.description.input_names import not_taken_by_tensorflow, notes
from converter.graphs.description.source import GraphSource
from converter.graphs.description.traced import TracedGraph
from converter.model.checkpoint import Checkpoint, Dialect, Part
from converter.model.dtype import DType
from converter.model.file import Location, absolute, is_there, names_in
from converter.model.kernels import LEAST_RANK, kernel_name, to_kernel, to_weight
from converter.model.ledger import Kind, without
from converter.model.output import Late, Output, OutputFile, Provenance, Workshop
from converter.model.tensor import Tensor

_GRAPH_NAME = "saved_model.pb"
_TEXT_GRAPH_NAME = "saved_model.pbtxt"
_VARIABLES = "variables/variables"
_EXTRA = "assets.extra"
_DOCUMENT_NAME = f"{_EXTRA}/ckconv.json"
_STAGED_SLOTS, _STAGED_KERNELS = "optimizer.safetensors", "kernels.safetensors"
_KERNELS = "kernels"
_VERSION = re.compile("[0-9]{1,18}")
_ALLOWED = re.compile(r"[A-Za-z0-9.][A-Za-z0-9_./-]*")
_REFUSED = re.compile(r"[^A-Za-z0-9_./-]")
_NOT_VARIABLES = {DType.FLOAT8_E4M3FNUZ, DType.FLOAT8_E5M2FNUZ, DType.FLOAT8_E8M0FNU}
"""What tf.Variable refuses; measured with TensorFlow 2.21."""


def sniff(probe: Probe) -> bool:
    """A folder with a graph in it, or one of versions; whether it has variables is for the reader to say."""
    has_graph = not probe.entries.isdisjoint({_GRAPH_NAME, _TEXT_GRAPH_NAME})
    return probe.is_folder and (has_graph or bool(_versions(probe.path, probe.entries)))


def _versions(folder: Location, entries: Collection[str]) -> list[str]:
    """Return the versions of a SavedModel in a folder that has nothing else, as TensorFlow Serving has them."""
    names = [name for name in entries if not name.startswith(".")]
    if not all(map(_VERSION.fullmatch, names)):
        return []
    return sorted((name for name in names if is_there(folder / name / _GRAPH_NAME)), key=int)


def read(path: Location, options: NoOptions) -> Checkpoint:
    """Read the variables of a SavedModel, by the names that its object graph gives them; no tensor is read.

    Variables of the optimizer, metrics and text are ledger lines. Raises ReadError for a model without variables or
    in text form, a damaged bundle, variables that share a name, and a folder of several versions; SafetyError for links
    that leave the folder.
    """
    versions = [] if is_there(path / _GRAPH_NAME) else _versions(path, names_in(path))
    if len(versions) > 1:
        what, newest = f"holds versions {', '.join(versions)} of a SavedModel", path / versions[-1]
        raise ReadError(what, path=path, hint=f"give one: {newest} is the newest")
    path = path / versions[0] if versions else path
    if not is_there(path / _GRAPH_NAME):
        form = f"in text form ({_TEXT_GRAPH_NAME})" if is_there(path / _TEXT_GRAPH_NAME) else "without a graph"
        raise ReadError(f"is a SavedModel {form}, which is not read", path=path)
    graph = open_inside(path, _GRAPH_NAME)
    check_whole(graph)
    if not is_there(path / f"{_VARIABLES}.index"):
        raise ReadError("is a SavedModel without variables", path=path)
    bundle = read_bundle_inside(path, _VARIABLES)
    names, kinds = variable_names(bundle), kinds_besides_weights(bundle)
    tensors, lines = weights(bundle, names, kinds)
    checkpoint = Checkpoint(
        tensors=tensors,
        dialect=Dialect.TENSORFLOW,
        config=read_configs(path, f"{_EXTRA}/"),
        assets={
            name.removeprefix(f"{_EXTRA}/"): file
            for name, file in read_assets(path, [f"{_EXTRA}/{name}" for name in ASSET_NAMES]).items()
        },
        graph=_graph(path, {}) if has_graph(graph) else None,
        lines=lines,
    )
    if not is_there(path / _DOCUMENT_NAME):
        keras = keras_metadata.KerasMetadata()
        if is_there(path / keras_metadata.FILE_NAME):
            keras = keras_metadata.read(open_inside(path, keras_metadata.FILE_NAME))
            stated = {} if keras.version is None else {"keras_version": keras.version}
            checkpoint = replace(checkpoint, keras_config=config_around(keras.model, keras.layers), metadata=stated)
        weights_alone = {key: name for key, name in names.items() if key not in kinds}
        listing = listing_of(object_graph(bundle), weights_alone, FORMAT.name)
        checkpoint = replace(checkpoint, listing=listing)
        return with_bundle_state(checkpoint, bundle, weights_alone, keras.training_config)
    file = open_inside(path, _DOCUMENT_NAME)
    document = read_document(file)
    state = document.get("optimizer")
    if state is not None:  # what this program wrote is one
        checkpoint = replace(checkpoint, lines=without(lines, Kind.OPTIMIZER))
    named, kernels = _with_weights(described(checkpoint, document, file.path), document, file.path)
    if state is not None:
        named = with_stored_state(named, state, _slots(bundle, names, kinds, state))
    return named if named.graph is None else replace(named, graph=_graph(path, document.get("names", {}), kernels))


def _with_weights(
    checkpoint: Checkpoint, document: Mapping[str, Any], path: Location
) -> tuple[Checkpoint, tuple[str, ...]]:
    """Return the checkpoint with its kernels as the weights that they are, and their names."""
    kernels = known_names(document.get(_KERNELS, []), checkpoint, path)
    tensors = dict(checkpoint.tensors)
    for name in kernels:
        rank = len(tensors[name].shape)
        if rank < LEAST_RANK:
            raise ReadError(
                f"is listed as a kernel of a layer, and has {rank} axes instead of {LEAST_RANK} or more",
                path=path,
                tensor=name,
            )
        tensors[name] = to_weight(tensors[name])
    return replace(checkpoint, tensors=tensors), tuple(sorted(kernels))


def _slots(bundle: Bundle, names: Mapping[str, str], kinds: Mapping[str, Kind], state: object) -> dict[str, Tensor]:
    """Return the variables of an optimizer that this program wrote, by the names that `state` says they stand for."""
    originals = state.get("names") if isinstance(state, dict) else None
    called = originals if isinstance(originals, dict) else {}
    return {
        str(called.get(names[key], names[key])): bundle.tensors[key]
        for key, kind in kinds.items()
        if kind is Kind.OPTIMIZER and key in bundle.tensors
    }


def _graph(path: Location, names: Mapping[str, str], kernels: tuple[str, ...] = ()) -> GraphSource:
    return GraphSource(
        model=absolute(path),
        trace=trace_saved_model.with_arguments(names=dict(names), kernels=list(kernels)),
        reference=run_foreign_saved_model,
        extra="tensorflow",
    )


class WeightLayout(str, Enum):
    """Whose layouts the weights of linear layers and convolutions have."""

    PYTORCH = "pytorch"
    TENSORFLOW = "tensorflow"


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteOptions:
    """What a SavedModel may be asked for."""

    input_dtype: str = option(
        "auto",
        "Element type of a SavedModel's integer inputs; by default those that the graph of the source has.",
        choices=("auto", "int64", "int32"),
        needs=Need.GRAPH,
    )
    layout: WeightLayout = option(
        WeightLayout.PYTORCH,
        "Weights of a SavedModel's linear layers and convolutions as PyTorch has them, or as TensorFlow's kernels, "
        "which are faster on a CPU.",
        choices=WeightLayout,
    )

    def __post_init__(self) -> None:
        set_choices(self)


def write(checkpoint: Checkpoint, options: WriteOptions, provenance: Provenance) -> Output:
    """Lay out what goes into `assets.extra/`, and the rest.

    With a graph in the checkpoint the SavedModel runs and trains, and TensorFlow builds it in a child process. Without
    one it holds variables alone, and needs no TensorFlow.
    """
    kernels = _kernels(checkpoint) if options.layout is WeightLayout.TENSORFLOW else {}
    variables = _Variables.of(checkpoint, kernels)
    traced = TracedGraph.of(checkpoint)
    names = {name: name for name in checkpoint.names}
    called = {} if traced is None else not_taken_by_tensorflow([each.name for each in traced.signature.inputs])
    extra_files = _extra_files(checkpoint, variables, called, provenance)
    if traced is None:
        return Output(files=(*extra_files, *variables.bundle_files()), names=names)
    staged = safetensors.files(variables.tensors, {}, None)[0]
    if kernels:  # a reference is run with the weights in a file of that name
        staged = replace(staged, name=_STAGED_KERNELS)
    slots = replace(safetensors.files(variables.stored_slots, {}, None)[0], name=_STAGED_SLOTS)

    def build(workshop: Workshop) -> None:
        workshop.stream(staged, workshop.scratch)
        workshop.stream(slots, workshop.scratch)
        workshop.call(
            build_saved_model,
            graph=os.fspath(traced.file),
            weights=os.fspath(workshop.scratch / staged.name),
            folder=os.fspath(workshop.folder),
            trainable=variables.trainable,
            input_dtype=options.input_dtype,
            names=variables.stored_as,
            kernels=list(kernels),
            optimizer=os.fspath(workshop.scratch / slots.name) if variables.slots else None,
        )

    nbytes = staged.nbytes + slots.nbytes
    return Output(
        files=extra_files,
        names=names,
        build=build,
        build_bytes=nbytes,
        built_by="TensorFlow",
        scratch_bytes=nbytes,
        warnings=notes(called),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Variables:
    """The variables of a SavedModel: weights in the layout they are stored in, and slots of the optimizer.

    `stored_as`   what the variable of each weight is called
    `trainable`   the names of the weights that are trained
    `kernels`     the names of the weights that are stored as kernels
    """

    tensors: Mapping[str, Tensor]
    stored_as: dict[str, str]
    trainable: list[str]
    kernels: list[str]
    slots: Mapping[str, Tensor]

    @classmethod
    def of(cls, checkpoint: Checkpoint, kernels: Mapping[str, str]) -> _Variables:
        tensors = checkpoint.tensors.items()
        return cls(
            tensors={name: to_kernel(tensor) if name in kernels else tensor for name, tensor in tensors},
            stored_as={name: variable_name(kernels.get(name, name)) for name in checkpoint.tensors},
            trainable=[
                name
                for name, tensor in tensors
                if tensor.dtype.is_floating and name not in checkpoint.buffers and name not in checkpoint.frozen
            ],
            kernels=sorted(kernels),
            slots={} if checkpoint.optimizer is None else stored_tensors(checkpoint.optimizer),
        )

    @property
    def stored_slots(self) -> dict[str, Tensor]:
        return {variable_name(name): tensor for name, tensor in self.slots.items()}

    @property
    def renamed_slots(self) -> dict[str, str]:
        """What the slots that are stored under another name are called."""
        return {stored: name for name in self.slots if (stored := variable_name(name)) != name}

    def bundle_files(self) -> Sequence[OutputFile]:
        variables = {self.stored_as[name]: tensor for name, tensor in self.tensors.items()}
        return variable_files(variables, frozenset(self.stored_as[name] for name in self.trainable), self.stored_slots)


def _extra_files(
    checkpoint: Checkpoint, variables: _Variables, called: Mapping[str, str], provenance: Provenance
) -> tuple[OutputFile, ...]:
    """Return the files of `assets.extra/`: what ckconv says of the checkpoint, its config and its assets.

    `called` are inputs of the graph that TensorFlow calls otherwise.
    """
    more: dict[str, Any] = {_KERNELS: variables.kernels} if variables.kernels else {}
    if called:
        more["inputs"] = dict(called)
    if checkpoint.optimizer is not None:
        more["optimizer"] = {**document_of(checkpoint.optimizer), "names": variables.renamed_slots}
    renamed = {stored: name for name, stored in variables.stored_as.items() if stored != name}
    description = Description(checkpoint=checkpoint, provenance=provenance, names=renamed, more=more)
    document = Late(nbytes=description.nbytes, render=description.render)
    files = [OutputFile(name=_DOCUMENT_NAME, pieces=(document, b"\n"))]
    files += config_files(checkpoint, f"{_EXTRA}/")
    files += [OutputFile(name=f"{_EXTRA}/{name}", pieces=(file,)) for name, file in checkpoint.assets.items()]
    return tuple(files)


def _kernels(checkpoint: Checkpoint) -> dict[str, str]:
    """Return the names of kernels by those of the weights that they are. Raises UsageError without a graph."""
    traced = TracedGraph.of(checkpoint)
    if traced is None:
        raise UsageError("--layout tensorflow needs a graph, which says how weights are used")
    names = {name: kernel_name(name) for name in checkpoint.tensors if name in traced.kernels}
    return {name: kernel for name, kernel in names.items() if kernel is not None and kernel not in checkpoint}


def variable_name(name: str) -> str:
    """Return `name`, or, where TensorFlow refuses it, ``.>`` and the name with refused characters as ``>hex>``."""
    if _ALLOWED.fullmatch(name):
        return name
    return ".>" + _REFUSED.sub(lambda match: f">{ord(match[0]):x}>", name)


FORMAT = Format(
    name="savedmodel",
    description="TensorFlow SavedModel: variables, and the graph that uses them",
    suffixes=(),
    holds=frozenset({Part.WEIGHTS, Part.CONFIG, Part.ASSETS, Part.GRAPH, Part.OPTIMIZER}),
    dtypes=frozenset(safetensors.CODES) - _NOT_VARIABLES,
    sniff=sniff,
    read=read,
    write=write,
    provenance=partial(in_document, name=_DOCUMENT_NAME),
    write_options=WriteOptions,
    extra="tensorflow",
    runner=run_saved_model,
    foreign_runner=run_foreign_saved_model,
    entries=("saved_model.pb", "variables", "assets", _EXTRA, "fingerprint.pb", "keras_metadata.pb"),
)
