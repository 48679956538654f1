"""ONNX: a graph, and the tensors it is made of, in the file or in files beside it.

https://github.com/onnx/onnx/blob/v1.19.0/docs/IR.md. A model that is written with a graph runs; one without has no
node, and every initializer is an output, so that runtimes open it all the same. What ONNX has no place for is a JSON
document (converter.encoding.description) among the metadata, under the key `ckconv`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from converter.declaring import option
from converter.encoding import protobuf
from converter.encoding.description import Description, described, parse_document
from converter.encoding.folder import open_inside
from converter.encoding.onnx_file import model_files, read_model, read_skeleton
from converter.encoding.onnx_tensors import TYPE_NUMBERS
from converter.encoding.protobuf import LENGTH_DELIMITED, VARINT
from converter.encoding.provenance import of_description
from converter.errors import GraphError, ReadError
from converter.formats import Format, NoOptions, Probe
from converter.graphs.calls import check_onnx, open_onnx, run_onnx, trace_onnx
from converter.graphs.description.signature import Signature
from converter.graphs.description.source import GraphSource
from converter.graphs.description.traced import TracedGraph
from converter.model.checkpoint import Checkpoint, Dialect, Part
from converter.model.file import Location, SourceFile, absolute, is_dir, names_in, open_file
from converter.model.ledger import dropped
from converter.model.output import Late, Output, Provenance, Workshop

_FILE_NAME = "model.onnx"
_SUFFIX = ".onnx"
_DESCRIPTION = "ckconv"
_INEXACT = ("DFT", "STFT")
_MARK = ".>"
_MODEL_FIELDS = {
    1: VARINT, 2: LENGTH_DELIMITED, 3: LENGTH_DELIMITED, 4: LENGTH_DELIMITED, 5: VARINT, 6: LENGTH_DELIMITED,
    7: LENGTH_DELIMITED, 8: LENGTH_DELIMITED, 14: LENGTH_DELIMITED, 20: LENGTH_DELIMITED, 25: LENGTH_DELIMITED,
    26: LENGTH_DELIMITED,
}  # fmt: skip
_IR_VERSIONS = range(3, 100)


def sniff(probe: Probe) -> bool:
    """A message whose first fields are those of a model, its IR version among them, or a folder with such files."""
    if probe.is_folder:
        return any(entry.endswith(_SUFFIX) for entry in probe.entries)
    return _starts_with_model(probe.head)


def _starts_with_model(head: bytes) -> bool:
    view, position, ir_version = memoryview(head), 0, None
    try:
        while position < len(view):
            key, position = protobuf.read_varint(view, position)
            number, wire_type = key >> 3, key & 7
            if _MODEL_FIELDS.get(number) != wire_type:
                return False
            value, position = protobuf.read_varint(view, position)
            if number == 1:
                ir_version = value
            if wire_type == LENGTH_DELIMITED:
                position += value
    except ReadError:
        return False
    return ir_version in _IR_VERSIONS


def read(path: Location, options: NoOptions) -> Checkpoint:
    """Read the tensors of a model, and say how to get its graph where it has nodes; no tensor is read.

    They are its initializers, and weights that stand in nodes, functions and inner graphs; all other numbers are
    constants of the graph. Strings and attributes of operators are ledger lines. Raises ReadError and SafetyError as
    converter.encoding.onnx_file does, ReadError for a folder of several models.
    """
    file = _model_at(path)
    model = read_model(file)
    metadata = dict(model.metadata)
    document = metadata.pop(_DESCRIPTION, None)
    # All that is a tensor this program has written as an initializer.
    has_weights_inside = document is None
    inside = {**model.constants, **model.attributes}
    tensors, constants = dict(model.tensors), {name: held.numbers for name, held in inside.items()}
    if has_weights_inside:
        constants |= {name: tensors.pop(name).size for name in sorted(model.operands)}
        tensors |= {name: held.tensor for name, held in model.weights.items() if held.tensor is not None}
    else:
        constants |= {name: held.numbers for name, held in model.weights.items()}
    lines = [dropped(name, "text, not numbers", is_refused_by_default=True) for name in model.texts]
    lines += [dropped(name, "of a graph that trains the model", is_refused_by_default=True) for name in model.training]
    lines += [
        dropped(name, f"an attribute of the operator {held.operator}", is_refused_by_default=True)
        for name, held in model.attributes.items()
    ]
    dialect = Dialect.PYTORCH if any("." in name for name in tensors) else Dialect.GENERIC
    warnings = ("training_info not carried: the graphs that train a model have no counterpart here",)
    checkpoint = Checkpoint(
        tensors=tensors,
        constants=constants,
        dialect=dialect,
        metadata=metadata,
        lines=tuple(lines),
        warnings=warnings if model.has_training else (),
    )
    names: Mapping[str, str] = {}
    if document is not None:
        parsed = parse_document(document.encode("utf-8"), file.path)
        checkpoint, names = described(checkpoint, parsed, file.path), parsed.get("names", {})
    graph = _graph(file.path, names, has_weights_inside=has_weights_inside)
    return replace(checkpoint, graph=graph) if model.has_nodes else checkpoint


def _graph(path: Location, names: Mapping[str, str], *, has_weights_inside: bool) -> GraphSource:
    return GraphSource(
        model=absolute(path),
        trace=trace_onnx.with_arguments(names=dict(names), has_weights_inside=has_weights_inside),
        reference=run_onnx.with_arguments(inexact=list(_INEXACT)),
        extra="onnx",
    )


def _provenance(path: Location) -> Mapping[str, Any]:
    file = _model_at(path)
    return of_description(read_model(file).metadata.get(_DESCRIPTION), file.path)


def _model_at(folder: Location) -> SourceFile:
    if not is_dir(folder):
        return open_file(folder)
    names = [name for name in names_in(folder) if name.endswith(_SUFFIX)]
    if len(names) != 1:
        what = f"several models: {', '.join(names)}" if names else "no ONNX model"
        raise ReadError(f"holds {what}", path=folder)
    return open_inside(folder, names[0])


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteOptions:
    """What an ONNX model may be asked for."""

    external_data: bool = option(
        False, "Keep the tensors of an ONNX model in a file of their own, also when they fit into it."
    )


def write(checkpoint: Checkpoint, options: WriteOptions, provenance: Provenance) -> Output:
    """Lay out a model; its tensors are in `model.onnx.data` when they are more than 2 GiB.

    With a graph in the checkpoint the model runs: it is held to onnx's checker and opened in onnxruntime when it is
    written. Raises GraphError when the graph uses a tensor under a name that ONNX cannot hold.
    """
    graph = TracedGraph.of(checkpoint)
    stored_as = {name: _stored_name(name) for name in checkpoint.tensors}
    if graph is not None:
        stored_as |= _names_beside(checkpoint, graph.signature, stored_as)
    description = Description(
        checkpoint=checkpoint,
        provenance=provenance,
        names={stored: name for name, stored in stored_as.items() if stored != name},
    )
    metadata: dict[str, bytes | Late] = {
        key: value.encode("utf-8") for key, value in checkpoint.metadata.items() if key != _DESCRIPTION
    }
    metadata[_DESCRIPTION] = Late(nbytes=description.nbytes, render=description.render)
    files = model_files(
        _FILE_NAME,
        {stored_as[name]: tensor for name, tensor in checkpoint.tensors.items()},
        metadata,
        producer=provenance.tool,
        skeleton=None if graph is None else read_skeleton(open_file(graph.file)),
        is_external=options.external_data,
    )
    names = {name: name for name in checkpoint.names}
    if graph is None:
        return Output(files=files, names=names, warnings=("weights only: the file holds no graph",))

    def build(workshop: Workshop) -> None:
        # In a process each: what the checker has freed, its process still holds.
        for function in (check_onnx, open_onnx):
            workshop.call(function, model=os.fspath(workshop.folder / _FILE_NAME))

    return Output(files=files, names=names, build=build)


def _names_beside(checkpoint: Checkpoint, signature: Signature, stored_as: Mapping[str, str]) -> dict[str, str]:
    """Return other names for tensors that the graph does not use, and that are called as one of its inputs or outputs.

    Raises GraphError when it does use a tensor that is stored under another name.
    """
    used = {**signature.parameters, **signature.buffers}
    renamed = next((name for name in used if stored_as[name] != name), None)
    if renamed is not None:
        raise GraphError("is a name that a graph in ONNX cannot use", tensor=renamed)
    reserved = {each.name for each in signature.inputs}.union(signature.outputs)
    return {name: _MARK + name for name in checkpoint.tensors if name in reserved and name not in used}


def _stored_name(name: str) -> str:
    """Return `name`, or, where ONNX cannot hold it, one with ``.>`` before it."""
    return _MARK + name if not name or name.startswith(_MARK) else name


FORMAT = Format(
    name="onnx",
    description="ONNX: a graph and its initializers, in the file or beside it",
    suffixes=(_SUFFIX,),
    holds=frozenset({Part.WEIGHTS, Part.GRAPH}),
    dtypes=frozenset(TYPE_NUMBERS),
    sniff=sniff,
    read=read,
    write=write,
    provenance=_provenance,
    write_options=WriteOptions,
    extra="onnx",
    runner=run_onnx,
    foreign_runner=run_onnx,
    inexact=_INEXACT,
    file_name=_FILE_NAME,
    entries=("*" + _SUFFIX, "*" + _SUFFIX + ".data", "*" + _SUFFIX + "_data"),
)
