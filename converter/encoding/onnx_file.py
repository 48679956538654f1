"""The initializers of an ONNX model, read and written by the protocol buffer wire format alone.

https://github.com/onnx/onnx/blob/v1.19.0/onnx/onnx.proto. Only what leads to initializers is looked at; the rest of a
graph is copied as it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import compress
from operator import not_

from converter.encoding import protobuf
from converter.encoding.onnx_graphs import (
    INITIALIZER,
    NODE,
    At,
    Function,
    Held,
    Walk,
    check_texts,
    check_values,
    named,
)
from converter.encoding.onnx_operands import Operands
from converter.encoding.onnx_tensors import TYPE_NUMBERS, FilesBeside, read_tensor, tensor_name
from converter.encoding.protobuf_file import Range, contents, fields, read_entry
from converter.errors import ReadError, SafetyError
from converter.model.dtype import DType
from converter.model.file import SourceFile
from converter.model.output import Late, OutputFile, Piece, piece_bytes
from converter.model.tensor import FileTensor, Tensor

LIMIT_BYTES = (1 << 31) - 1
"""What a protocol buffer can hold: the tensors of larger models are in files of their own."""

_GRAPH, _OPSET_IMPORT, _METADATA, _TRAINING, _FUNCTION = 7, 8, 14, 20, 25
_TRAINING_GRAPHS = (1, 2)
_OPSET_FIELDS = {1: protobuf.LENGTH_DELIMITED, 2: protobuf.VARINT}
_ALIGNMENT_BYTES = 64
_EXTERNAL_FROM_BYTES = 1024
_IR_VERSION, _OPSET = 10, 21
_IR_VERSION_OF = {DType.FLOAT8_E8M0FNU: (12, 24)}
"""IR version and operator set in which a type came, where that is later than others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """The tensors of a model: the initializers of its graph by name, and what there is of weights and numbers beside.

    `tensors`     initializers of the graph
    `operands`    those of them that operators take as parameters, such as the scales of a Resize
    `weights`     weights that stand elsewhere, by names of their own
    `constants`   all other numbers of nodes and of graphs inside nodes
    `attributes`  lists of numbers, and weights, that are attributes of operators
    `texts`       initializers that hold strings
    `training`    initializers of graphs that train the model, which are not carried
    `has_nodes`   whether the graph computes anything, `has_training` whether there are graphs that train it
    """

    tensors: Mapping[str, Tensor]
    operands: frozenset[str]
    weights: Mapping[str, Held]
    constants: Mapping[str, Held]
    attributes: Mapping[str, Held]
    texts: tuple[str, ...]
    training: tuple[str, ...]
    metadata: Mapping[str, str]
    has_nodes: bool
    has_training: bool = False


def read_model(file: SourceFile) -> Model:
    """Read the declarations of a model's tensors; no weight is read.

    Raises ReadError for models that are malformed, above 2 GiB, or have 4-bit initializers or names that are not
    UTF-8; SafetyError for external data, of nodes too, that is not a file of its own in the model's folder.
    """
    if file.size > LIMIT_BYTES:
        raise ReadError(f"has {file.size} bytes, an ONNX model ends at 2 GiB", path=file.path)
    parts, beside = _Parts.of(file), FilesBeside(model=file.path)
    graph, main = parts.graph, At(scope=parts.graph.start)
    tensors, texts = _initializers(file, graph, beside)
    reserved = check_values(file, graph)
    walk = Walk(file=file, beside=beside)
    walk.sparse(graph, main)
    walk.nodes(graph, NODE, main)
    for function in parts.functions:
        walk.function(function)
    asked = [(each.scope, each.value) for each in walk.held if each.is_weight]
    asked += [(graph.start, name) for name, tensor in tensors.items() if tensor.shape and tensor.dtype.is_floating]
    operands = Operands.of(file, graph, parts.functions, asked, walk.operators)
    are_weights = [each.is_weight and (each.scope, each.value) not in operands for each in walk.held]
    weights = named(compress(walk.held, are_weights), (*tensors, *texts), reserved)
    others = named(compress(walk.held, map(not_, are_weights)), (*tensors, *texts, *weights), ())
    training = Walk(file=file, beside=beside)
    for each in parts.training:
        training.graph(each, At(scope=each.start))
    return Model(
        tensors=tensors,
        operands=frozenset(name for name in tensors if (graph.start, name) in operands),
        weights=weights,
        constants=others,
        attributes=named(walk.attributes, (*tensors, *texts, *weights, *others), ()),
        texts=(*texts, *walk.texts),
        training=(*(each.value for each in (*training.held, *training.attributes)), *training.texts),
        metadata=parts.metadata,
        has_nodes=any(True for _ in contents(file, graph, (NODE,))),
        has_training=parts.has_training,
    )


def opset_of(file: SourceFile) -> int:
    """Return the version of ONNX's own operators that a model is in: 1 where it does not say."""
    for _, value in contents(file, Range(start=0, stop=file.size), (_OPSET_IMPORT,)):
        message = protobuf.Message.parse(file.read(value.start, value.nbytes), _OPSET_FIELDS, file.path)
        if message.text(1) in ("", "ai.onnx"):
            return message.signed(2)
    return 1


@dataclass(frozen=True, slots=True, kw_only=True)
class _Parts:
    """Where the parts of a model are."""

    graph: Range
    functions: tuple[Function, ...]
    training: tuple[Range, ...]
    metadata: Mapping[str, str]
    has_training: bool

    @classmethod
    def of(cls, file: SourceFile) -> _Parts:
        """Find them. Raises ReadError for a model with several graphs or none, and for metadata there twice."""
        graphs, functions, training = list[Range](), list[Function](), list[Range]()
        metadata: dict[str, str] = {}
        has_training = False
        whole = Range(start=0, stop=file.size)
        for number, value in contents(file, whole, (_GRAPH, _OPSET_IMPORT, _METADATA, _TRAINING, _FUNCTION)):
            if number == _GRAPH:
                graphs.append(value)
            elif number == _OPSET_IMPORT:
                check_texts(file, value, (1,))
            elif number == _METADATA:
                key, text = read_entry(file, value)
                if key in metadata:
                    raise ReadError(f"has the metadata {key!r} twice", path=file.path)
                metadata[key] = text
            elif number == _TRAINING:
                has_training = True
                training += [graph for _, graph in contents(file, value, _TRAINING_GRAPHS)]
            else:
                functions.append(Function.of(file, value))
        if len(graphs) != 1:
            raise ReadError(f"is an ONNX model with {len(graphs)} graphs", path=file.path)
        return cls(
            graph=graphs[0],
            functions=tuple(functions),
            training=tuple(training),
            metadata=metadata,
            has_training=has_training,
        )


def _initializers(file: SourceFile, graph: Range, beside: FilesBeside) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    found: dict[str, Tensor | None] = {}
    for _, value in contents(file, graph, (INITIALIZER,)):
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
        if number != INITIALIZER:
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
        return _enclosed(INITIALIZER, [head, *_enclosed(9, [tensor])])
    entries = {"location": outside.location, "offset": str(outside.offsets[name]), "length": str(tensor.nbytes)}
    encoded = [protobuf.content_field(1, key) + protobuf.content_field(2, value) for key, value in entries.items()]
    return _enclosed(INITIALIZER, [head + protobuf.content_fields(13, encoded) + protobuf.number_field(14, 1)])


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
