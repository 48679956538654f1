"""SavedModels without TensorFlow: whether the graph is all there, and writing one of variables alone.

Messages: tensorflow/core/protobuf/{saved_model,meta_graph,saved_object_graph,trackable_object_graph}.proto, TF 2.21.
The root holds the lists `variables` and `trainable_variables`; there is no graph and no signature.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

from converter.encoding.protobuf import LENGTH_DELIMITED, VARINT, content_field, number_field, read_varint
from converter.encoding.tensor_bundle import TYPE_NUMBERS, bundle_files
from converter.errors import ReadError, WriteError
from converter.model.file import SourceFile
from converter.model.output import OutputFile
from converter.model.tensor import Tensor

_PREFIX = "variables/variables"
_KEY = "variables/{index}/.ATTRIBUTES/VARIABLE_VALUE"
_SLOT_KEY = "optimizer/variables/{index}/.ATTRIBUTES/VARIABLE_VALUE"
_IDENTIFIERS = ("_generic_user_object", "trackable_list_wrapper", "trackable_list_wrapper", "signature_map")
_FIRST_VARIABLE = len(_IDENTIFIERS)  # after the root, the two lists and the empty map of signatures
_HEAD_BYTES = 32  # of a field: its tag and its length
_SIGNATURES, _OBJECTS = 5, 7  # fields of a MetaGraphDef
_CALL = b"\x12\x08__call__"  # the local name of a child
_FIELDS_LIMIT = 10_000  # looked at for one
_INNER = b"__saved_model"  # what the names of signatures that are not to be called start with
_VERSION = number_field(1, 1) + number_field(2, 1)  # producer, min_consumer


def check_whole(file: SourceFile) -> None:
    """Raise ReadError when a `saved_model.pb` is cut or padded. Its messages are stepped over, not read."""
    if not file.size:
        raise ReadError("is cut short", path=file.path)
    for _ in _steps(file, 0, file.size):
        pass


def has_graph(file: SourceFile) -> bool:
    """Whether a `saved_model.pb` that is whole has a signature or a root to call, as far as stepping over it tells."""
    return any(_is_called(file, start, length) for number, start, length in _steps(file, 0, file.size) if number == 2)


def _is_called(file: SourceFile, start: int, length: int) -> bool:
    try:
        for count, (number, begin, extent) in enumerate(_steps(file, start, length)):
            if count > _FIELDS_LIMIT:
                return True
            if number == _SIGNATURES and _INNER not in file.read(begin, min(extent, _HEAD_BYTES)):
                return True
            if number == _OBJECTS and _has_called_root(file, begin, extent):
                return True
    except ReadError:  # whoever wants the graph will say so; its variables are not in here
        return True
    return False


def _has_called_root(file: SourceFile, start: int, length: int) -> bool:
    """Whether the first object has a child `__call__`."""
    root = next(((begin, extent) for number, begin, extent in _steps(file, start, length) if number == 1), (0, 0))
    for count, (number, begin, extent) in enumerate(_steps(file, *root)):
        if count > _FIELDS_LIMIT:
            return True
        if number == 1 and file.read(begin, min(extent, _HEAD_BYTES)).endswith(_CALL):
            return True
    return False


def _steps(file: SourceFile, start: int, length: int) -> Iterator[tuple[int, int, int]]:
    """Yield the number, start and length of the fields of a message. Raises ReadError when it is malformed."""
    position, end = start, start + length
    while position < end:
        head = memoryview(file.read(position, min(_HEAD_BYTES, end - position)))
        key, consumed = read_varint(head, 0, file.path)
        if key & 7 not in (VARINT, LENGTH_DELIMITED):
            raise ReadError("is no SavedModel message", path=file.path)
        value, consumed = read_varint(head, consumed, file.path)
        extent = value if key & 7 == LENGTH_DELIMITED else 0
        if extent > end - position - consumed:
            raise ReadError("is cut short", path=file.path)
        yield key >> 3, position + consumed, extent
        position += consumed + extent


def variable_files(
    variables: Mapping[str, Tensor], trainable: Collection[str], slots: Mapping[str, Tensor]
) -> tuple[OutputFile, ...]:
    """Lay out `saved_model.pb` and the bundle of a SavedModel that holds `variables`.

    `tf.saved_model.load` gives it `variables` and `trainable_variables`, the latter those named in `trainable`; and,
    where there are `slots`, `optimizer.variables`, which are those. Names are ones that TensorFlow takes.
    """
    every = {**variables, **slots}
    if len(every) < len(variables) + len(slots):
        raise WriteError(f"a variable of the optimizer is called as a weight: {min(variables.keys() & slots.keys())}")
    trained = [index for index, name in enumerate(variables) if name in trainable]
    last = _FIRST_VARIABLE + len(every)  # the optimizer and its list come after the variables
    root = {"variables": 1, "trainable_variables": 2, "signatures": 3, **({"optimizer": last} if slots else {})}
    nodes = [
        _children(root),
        _children(_listed(range(len(variables)))),
        _children(_listed(trained)),
        _children({}),
    ]
    beside = [
        _children({"variables": last + 1}),
        _children(_listed(range(len(variables), len(every)))),
    ]
    graph = b"".join(content_field(1, node) for node in _saved_nodes(nodes, every, trainable, beside if slots else []))
    keys = [_KEY.format(index=index) for index in range(len(variables))]
    keys += [_SLOT_KEY.format(index=index) for index in range(len(slots))]
    stored = dict(zip(keys, every.values(), strict=True))
    return (
        *bundle_files(_PREFIX, stored, _checkpoint_graph(nodes, list(every), keys, beside if slots else [])),
        OutputFile(name="saved_model.pb", pieces=(_saved_model(graph),)),
    )


def _listed(indexes: Sequence[int]) -> dict[str, int]:
    return {str(position): _FIRST_VARIABLE + index for position, index in enumerate(indexes)}


def _children(nodes: Mapping[str, int]) -> bytes:
    """ObjectReference messages of a node, the same field in both object graphs."""
    return b"".join(
        content_field(1, number_field(1, node) + content_field(2, local_name)) for local_name, node in nodes.items()
    )


def _saved_nodes(
    nodes: Sequence[bytes], variables: Mapping[str, Tensor], trainable: Collection[str], beside: Sequence[bytes]
) -> list[bytes]:
    saved = [node + _user_object(identifier) for node, identifier in zip(nodes, _IDENTIFIERS, strict=True)]
    for name, tensor in variables.items():
        extents = b"".join(content_field(2, number_field(1, extent)) for extent in tensor.shape)
        variable = number_field(1, TYPE_NUMBERS[tensor.dtype]) + content_field(2, extents)
        variable += number_field(3, int(name in trainable)) + content_field(6, name)
        saved.append(content_field(7, variable))
    saved += [node + _user_object(identifier) for node, identifier in zip(beside, _IDENTIFIERS, strict=False)]
    return saved


def _user_object(identifier: str) -> bytes:
    return content_field(4, content_field(1, identifier) + content_field(2, _VERSION))


def _saved_model(object_graph: bytes) -> bytes:
    info = content_field(4, "serve")
    empty_graph = content_field(4, number_field(1, 1))
    meta_graph = content_field(1, info) + content_field(2, empty_graph) + content_field(7, object_graph)
    return number_field(1, 1) + content_field(2, meta_graph)


def _checkpoint_graph(
    nodes: Sequence[bytes], names: Sequence[str], keys: Sequence[str], beside: Sequence[bytes]
) -> bytes:
    has_values = content_field(5, number_field(1, 1))
    tracked = [node + has_values for node in nodes]
    for name, key in zip(names, keys, strict=True):
        attribute = content_field(1, "VARIABLE_VALUE") + content_field(2, name) + content_field(3, key)
        tracked.append(content_field(2, attribute) + has_values)
    tracked += [node + has_values for node in beside]
    return b"".join(content_field(1, node) for node in tracked)
