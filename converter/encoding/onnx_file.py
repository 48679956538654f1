"""The initializers of an ONNX model, read and written by the protocol buffer wire format alone.

https://github.com/onnx/onnx/blob/v1.19.0/onnx/onnx.proto. Only what leads to initializers is looked at; the rest of a
graph is copied as it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from converter.encoding import protobuf
from converter.encoding.onnx_tensors import (
    TYPE_NUMBERS,
    FilesBeside,
    Range,
    check_location,
    contents,
    fields,
    read_entry,
    read_tensor,
    read_text,
    tensor_name,
)
from converter.errors import ReadError, SafetyError
from converter.model.dtype import DType
from converter.model.file import SourceFile
from converter.model.output import Late, OutputFile, Piece, piece_bytes
from converter.model.tensor import FileTensor, Tensor

LIMIT_BYTES = (1 << 31) - 1
"""What a protocol buffer can hold: the tensors of larger models are in files of their own."""

_GRAPH, _OPSET_IMPORT, _METADATA, _TRAINING, _FUNCTION = 7, 8, 14, 20, 25
_NODE, _INITIALIZER, _SPARSE = 1, 5, 15
_GRAPH_NAME, _GRAPH_VALUES = 2, (11, 12, 13)
_VALUE_DIMENSION = (2, 1, 2, 1, 2)
"""The way from a value to a dimension's name: type, tensor_type, shape, dim, dim_param."""
_FUNCTION_NODE, _FUNCTION_TEXTS = 7, (1, 4, 5, 6, 10)
_NODE_ATTRIBUTE, _NODE_TEXTS = 5, (1, 2, 3, 4, 7)
_ATTRIBUTE_GRAPHS, _ATTRIBUTE_TENSORS, _ATTRIBUTE_SPARSE, _ATTRIBUTE_TEXTS = (6, 11), (5, 10), (22, 23), (1, 21)
_ATTRIBUTE = (*_ATTRIBUTE_GRAPHS, *_ATTRIBUTE_TENSORS, *_ATTRIBUTE_SPARSE, *_ATTRIBUTE_TEXTS)
_SPARSE_TENSORS = (1, 2)
_TRAINING_GRAPHS = (1, 2)
_DEPTH_LIMIT = 32
_SHORT_BYTES = 4096
_ALIGNMENT_BYTES = 64
_EXTERNAL_FROM_BYTES = 1024
_IR_VERSION, _OPSET = 10, 21
_IR_VERSION_OF = {DType.FLOAT8_E8M0FNU: (12, 24)}
"""IR version and operator set in which a type came, where that is later than others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """The initializers of a model's graph by name, and what else there is of weights.

    `texts` are initializers that hold strings; `nested` those of graphs inside nodes, functions and training.
    `has_nodes` says whether the graph computes anything, `has_constants` whether nodes have tensors of their own,
    `has_training` whether there are graphs that train it.
    """

    tensors: Mapping[str, Tensor]
    texts: tuple[str, ...]
    nested: tuple[str, ...]
    metadata: Mapping[str, str]
    has_nodes: bool
    has_constants: bool = False
    has_training: bool = False


def read_model(file: SourceFile) -> Model:
    """Read the declarations of a model's initializers; no tensor is read.

    Raises ReadError for models that are malformed, above 2 GiB, or have sparse or 4-bit initializers or names that are
    not UTF-8; SafetyError for external data, of nodes too, that is not a file of its own in the model's folder.
    """
    if file.size > LIMIT_BYTES:
        raise ReadError(f"has {file.size} bytes, an ONNX model ends at 2 GiB", path=file.path)
    graphs: list[Range] = []
    nested: list[str] = []
    metadata: dict[str, str] = {}
    has_training = False
    inner = _Inner(file=file, beside=FilesBeside(model=file.path))
    whole = Range(start=0, stop=file.size)
    for number, value in contents(file, whole, (_GRAPH, _OPSET_IMPORT, _METADATA, _TRAINING, _FUNCTION)):
        if number == _GRAPH:
            graphs.append(value)
        elif number == _OPSET_IMPORT:
            inner.check_texts(value, (1,))
        elif number == _METADATA:
            key, text = read_entry(file, value)
            if key in metadata:
                raise ReadError(f"has the metadata {key!r} twice", path=file.path)
            metadata[key] = text
        elif number == _TRAINING:
            has_training = True
            for _, graph in contents(file, value, _TRAINING_GRAPHS):
                nested += inner.names_in_graph(graph)
        else:
            inner.check_texts(value, _FUNCTION_TEXTS)
            nested += inner.names_in_nodes(value, _FUNCTION_NODE)
    if len(graphs) != 1:
        raise ReadError(f"is an ONNX model with {len(graphs)} graphs", path=file.path)
    tensors, texts = _initializers(file, graphs[0], inner.beside)
    inner.check_values(graphs[0])
    nested += inner.names_in_nodes(graphs[0], _NODE)
    has_nodes = any(True for _ in contents(file, graphs[0], (_NODE,)))
    return Model(
        tensors=tensors,
        texts=texts,
        nested=tuple(nested),
        metadata=metadata,
        has_nodes=has_nodes,
        has_constants=bool(inner.constants),
        has_training=has_training,
    )


def _initializers(file: SourceFile, graph: Range, beside: FilesBeside) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    found: dict[str, Tensor | None] = {}
    for number, value in contents(file, graph, (_INITIALIZER, _SPARSE)):
        if number == _SPARSE:
            raise ReadError("has sparse initializers, which are not read", path=file.path)
        name = tensor_name(file, value)
        if name in found:
            raise ReadError("is the name of two initializers", path=file.path, tensor=name)
        try:
            found[name] = read_tensor(file, value, beside)
        except (ReadError, SafetyError) as error:
            error.tensor = name
            error.path = error.path or str(file.path)
            raise
    tensors = {name: tensor for name, tensor in found.items() if tensor is not None}
    return tensors, tuple(name for name, tensor in found.items() if tensor is None)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Inner:
    """What is in nodes: initializers of graphs inside them, and what must hold of all that is not read here.

    `constants` are where tensors are that nodes have for attributes, as far as they were looked at.

    Raises ReadError for a name that is not UTF-8, SafetyError for a tensor in a file that is not in the folder.
    """

    file: SourceFile
    beside: FilesBeside
    constants: list[Range] = field(default_factory=list)

    def names_in_nodes(self, within: Range, node_field: int, depth: int = 0) -> list[str]:
        """Return the names of initializers in graphs that nodes have for attributes."""
        names: list[str] = []
        for _, node in contents(self.file, within, (node_field,)):
            texts = () if self._is_plain(node) else _NODE_TEXTS
            for number, value in contents(self.file, node, (*texts, _NODE_ATTRIBUTE)):
                if number == _NODE_ATTRIBUTE:
                    names += self._names_in_attribute(value, depth)
                else:
                    read_text(self.file, value)
        return names

    def _names_in_attribute(self, attribute: Range, depth: int) -> list[str]:
        names: list[str] = []
        for number, value in contents(self.file, attribute, _ATTRIBUTE):
            if number in _ATTRIBUTE_GRAPHS:
                names += self.names_in_graph(value, depth + 1)
            elif number in _ATTRIBUTE_TENSORS:
                check_location(self.file, value, self.beside)
                self.constants.append(value)
            elif number in _ATTRIBUTE_SPARSE:
                for _, part in contents(self.file, value, _SPARSE_TENSORS):
                    check_location(self.file, part, self.beside)
            else:
                read_text(self.file, value)
        return names

    def names_in_graph(self, graph: Range, depth: int = 0) -> list[str]:
        """Return the names of a graph's initializers, and of those in the graphs inside it.

        Raises ReadError where graphs lie too deep in one another.
        """
        if depth > _DEPTH_LIMIT:
            raise ReadError(f"has graphs inside graphs, more than {_DEPTH_LIMIT} deep", path=self.file.path)
        names: list[str] = []
        for _, tensor in contents(self.file, graph, (_INITIALIZER,)):
            names.append(tensor_name(self.file, tensor))
            check_location(self.file, tensor, self.beside)
        self.check_values(graph)
        return names + self.names_in_nodes(graph, _NODE, depth)

    def check_values(self, graph: Range) -> None:
        """Check what a graph, its inputs, its outputs and the values between are called."""
        for number, value in contents(self.file, graph, (_GRAPH_NAME, *_GRAPH_VALUES)):
            if number == _GRAPH_NAME:
                read_text(self.file, value)
                continue
            if self._is_plain(value):
                continue
            self.check_texts(value, (1,))
            parts = [value]
            for step in _VALUE_DIMENSION[:-1]:
                parts = [inner for part in parts for _, inner in contents(self.file, part, (step,))]
            for part in parts:
                self.check_texts(part, _VALUE_DIMENSION[-1:])

    def check_texts(self, within: Range, numbers: Sequence[int]) -> None:
        """Check the names that are fields of a message."""
        for _, value in contents(self.file, within, numbers):
            read_text(self.file, value)

    def _is_plain(self, within: Range) -> bool:
        """Whether a message is short and all of it ASCII: so is then every name in it, which is faster to say."""
        return within.nbytes <= _SHORT_BYTES and self.file.read(within.start, within.nbytes).isascii()


@dataclass(frozen=True, slots=True, kw_only=True)
class Skeleton:
    """A model without its initializers: what is copied as it is from the file of a graph.

    `ir_version` and `opsets` (OperatorSetIdProto) are the model's; `graph` is its GraphProto, in pieces.
    """

    ir_version: int
    opsets: tuple[bytes, ...]
    graph: tuple[Piece, ...]


def read_skeleton(file: SourceFile) -> Skeleton:
    """Return what `file`, a model that a tracer of this program wrote, has besides initializers. Raises ReadError."""
    whole = Range(start=0, stop=file.size)
    ir_version = next((value for number, _, value in fields(file, whole) if number == 1), None)
    opsets = tuple(file.read(value.start, value.nbytes) for _, value in contents(file, whole, (_OPSET_IMPORT,)))
    graphs = [value for _, value in contents(file, whole, (_GRAPH,))]
    if len(graphs) != 1 or not isinstance(ir_version, int):
        raise ReadError("is no model with one graph", path=file.path)
    spans: list[list[int]] = []
    position = graphs[0].start
    for number, _, value in fields(file, graphs[0]):
        if not isinstance(value, Range):
            raise ReadError("has a number where a graph has none", path=file.path)
        if number != _INITIALIZER:
            if spans and spans[-1][1] == position:
                spans[-1][1] = value.stop
            else:
                spans.append([position, value.stop])
        position = value.stop
    pieces = (FileTensor(dtype=DType.UINT8, shape=(stop - start,), file=file, offset=start) for start, stop in spans)
    return Skeleton(ir_version=ir_version, opsets=opsets, graph=tuple(pieces))


def weights_alone(tensors: Mapping[str, Tensor]) -> Skeleton:
    """Return a graph without nodes that has every tensor for an output, so that runtimes open it."""
    ir_version, opset = max(
        [(_IR_VERSION, _OPSET), *(_IR_VERSION_OF.get(tensor.dtype, (0, 0)) for tensor in tensors.values())]
    )
    opset_import = protobuf.content_field(1, "") + protobuf.number_field(2, opset)
    outputs = b"".join(_output(name, tensor) for name, tensor in tensors.items())
    name = protobuf.content_field(2, "weights")
    return Skeleton(ir_version=ir_version, opsets=(opset_import,), graph=(name + outputs,))


def model_files(
    name: str,
    tensors: Mapping[str, Tensor],
    metadata: Mapping[str, bytes | Late],
    *,
    producer: str,
    skeleton: Skeleton | None = None,
    is_external: bool = False,
) -> tuple[OutputFile, ...]:
    """Lay out a model that has the tensors for initializers, and is otherwise the `skeleton`.

    The tensors are in `<name>.data` past 2 GiB, or when that is asked for, but for small ones: shapes and axes must be
    in the model for runtimes to infer other shapes from. `metadata` values are UTF-8.
    """
    skeleton = weights_alone(tensors) if skeleton is None else skeleton
    pieces = _model(tensors, metadata, producer, skeleton, None)
    if not is_external and sum(map(piece_bytes, pieces)) <= LIMIT_BYTES:
        return (OutputFile(name=name, pieces=pieces),)
    data_name = f"{name}.data"
    data: list[Piece] = []
    offsets: dict[str, int] = {}
    position = 0
    for key, tensor in tensors.items():
        if tensor.nbytes < _EXTERNAL_FROM_BYTES:
            continue
        padding = -position % _ALIGNMENT_BYTES
        offsets[key] = position + padding
        data += [bytes(padding), tensor]
        position += padding + tensor.nbytes
    outside = _Outside(location=data_name, offsets=offsets)
    return (
        OutputFile(name=data_name, pieces=tuple(data)),
        OutputFile(name=name, pieces=_model(tensors, metadata, producer, skeleton, outside)),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Outside:
    """Where the tensors are that are not in the model."""

    location: str
    offsets: Mapping[str, int]


def _model(
    tensors: Mapping[str, Tensor],
    metadata: Mapping[str, bytes | Late],
    producer: str,
    skeleton: Skeleton,
    outside: _Outside | None,
) -> tuple[Piece, ...]:
    graph: list[Piece] = list(skeleton.graph)
    for name, tensor in tensors.items():
        graph += _initializer(name, tensor, outside)
    ir_version = max(
        [skeleton.ir_version, *(_IR_VERSION_OF.get(tensor.dtype, (0, 0))[0] for tensor in tensors.values())]
    )
    start = protobuf.number_field(1, ir_version) + protobuf.content_field(2, producer)
    pieces: list[Piece] = [start, *(protobuf.content_field(_OPSET_IMPORT, opset) for opset in skeleton.opsets)]
    for key, value in metadata.items():
        pieces += _enclosed(_METADATA, [protobuf.content_field(1, key), *_enclosed(2, [value])])
    # The graph is last: a file that was cut off has none, or one that is too short.
    return tuple(_joined([*pieces, *_enclosed(_GRAPH, graph)]))


def _initializer(name: str, tensor: Tensor, outside: _Outside | None) -> list[Piece]:
    dims = b"".join(protobuf.tag(1, protobuf.VARINT) + protobuf.varint(extent) for extent in tensor.shape)
    head = dims + protobuf.number_field(2, TYPE_NUMBERS[tensor.dtype]) + protobuf.content_field(8, name)
    if outside is None or name not in outside.offsets:
        return _enclosed(_INITIALIZER, [head, *_enclosed(9, [tensor])])
    entries = {"location": outside.location, "offset": str(outside.offsets[name]), "length": str(tensor.nbytes)}
    encoded = [protobuf.content_field(1, key) + protobuf.content_field(2, value) for key, value in entries.items()]
    return _enclosed(_INITIALIZER, [head + protobuf.content_fields(13, encoded) + protobuf.number_field(14, 1)])


def _output(name: str, tensor: Tensor) -> bytes:
    dimensions = (
        protobuf.content_field(1, protobuf.tag(1, protobuf.VARINT) + protobuf.varint(extent)) for extent in tensor.shape
    )
    shape = b"".join(dimensions)
    type_ = protobuf.number_field(1, TYPE_NUMBERS[tensor.dtype]) + protobuf.content_field(2, shape)
    return protobuf.content_field(
        12, protobuf.content_field(1, name) + protobuf.content_field(2, protobuf.content_field(1, type_))
    )


def _enclosed(number: int, pieces: Sequence[Piece]) -> list[Piece]:
    """Return a length-delimited field around pieces."""
    length = sum(map(piece_bytes, pieces))
    return [protobuf.tag(number, protobuf.LENGTH_DELIMITED) + protobuf.varint(length), *pieces]


def _joined(pieces: Sequence[Piece]) -> list[Piece]:
    """Return the pieces with adjacent bytes made one."""
    joined: list[Piece] = []
    pending: list[bytes] = []
    for piece in pieces:
        if isinstance(piece, bytes):
            pending.append(piece)
            continue
        joined += [b"".join(pending), piece]
        pending = []
    return [*joined, b"".join(pending)]
