"""ONNX as a container of weights: the initializers of a model, in the file or in files beside it.

https://github.com/onnx/onnx/blob/v1.19.0/docs/IR.md. Written models have no node: every initializer is an output, so
that runtimes open them. What ONNX has no place for is a JSON document (converter.encoding.description) among the
metadata, under the key `ckconv`.
"""

from __future__ import annotations

from pathlib import Path

from converter.encoding import protobuf
from converter.encoding.description import Description, described, parse_document
from converter.encoding.folder import open_inside
from converter.encoding.onnx_file import model_files, read_model
from converter.encoding.onnx_tensors import TYPE_NUMBERS
from converter.encoding.protobuf import LENGTH_DELIMITED, VARINT
from converter.errors import ReadError
from converter.formats import Format, NoOptions, Probe
from converter.model.checkpoint import Checkpoint, Part
from converter.model.file import SourceFile
from converter.model.ledger import dropped
from converter.model.output import Late, Output, Provenance

_FILE_NAME = "model.onnx"
_SUFFIX = ".onnx"
_DESCRIPTION = "ckconv"
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


def read(path: Path, options: NoOptions) -> Checkpoint:
    """Read the initializers of a model; no tensor is read.

    Strings and initializers of graphs inside the graph are ledger lines. Raises ReadError and SafetyError as
    converter.encoding.onnx_file does, ReadError for a folder of several models.
    """
    file = _model_in(path) if path.is_dir() else SourceFile(path)
    model = read_model(file)
    metadata = dict(model.metadata)
    document = metadata.pop(_DESCRIPTION, None)
    lines = [dropped(name, "text, not numbers", is_refused_by_default=True) for name in model.texts]
    lines += [dropped(name, "of a graph inside the graph", is_refused_by_default=True) for name in model.nested]
    dialect = "pytorch" if any("." in name for name in model.tensors) else "generic"
    checkpoint = Checkpoint(tensors=model.tensors, dialect=dialect, metadata=metadata, lines=tuple(lines))
    if document is None:
        return checkpoint
    return described(checkpoint, parse_document(document.encode("utf-8"), file.path), file.path)


def _model_in(folder: Path) -> SourceFile:
    names = sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(_SUFFIX))
    if len(names) != 1:
        what = f"several models: {', '.join(names)}" if names else "no ONNX model"
        raise ReadError(f"holds {what}", path=folder)
    return open_inside(folder, names[0])


def write(checkpoint: Checkpoint, options: NoOptions, provenance: Provenance) -> Output:
    """Lay out a model without nodes; its tensors are in `model.onnx.data` when they are more than 2 GiB."""
    stored_as = {name: _stored_name(name) for name in checkpoint.tensors}
    description = Description(
        checkpoint=checkpoint,
        provenance=provenance,
        names={stored: name for name, stored in stored_as.items() if stored != name},
    )
    metadata: dict[str, bytes | Late] = {
        key: value.encode("utf-8") for key, value in checkpoint.metadata.items() if key != _DESCRIPTION
    }
    metadata[_DESCRIPTION] = Late(nbytes=description.nbytes, render=description.render)
    tensors = {stored_as[name]: tensor for name, tensor in checkpoint.tensors.items()}
    return Output(
        files=model_files(_FILE_NAME, tensors, metadata, producer=provenance.tool),
        names={name: name for name in checkpoint.names},
        warnings=("weights only: the file holds no graph",),
    )


def _stored_name(name: str) -> str:
    """Return `name`, or, where ONNX cannot hold it, one with ``.>`` before it."""
    return _MARK + name if not name or name.startswith(_MARK) else name


FORMAT = Format(
    name="onnx",
    description="ONNX: the initializers of a model, in the file or beside it",
    suffixes=(_SUFFIX,),
    holds=frozenset({Part.WEIGHTS}),
    dtypes=frozenset(TYPE_NUMBERS),
    sniff=sniff,
    read=read,
    write=write,
    file_name=_FILE_NAME,
    entries=("*" + _SUFFIX, "*" + _SUFFIX + ".data", "*" + _SUFFIX + "_data"),
)
