"""What the lookup tables of a SavedModel hold, read as data: integers, and the numbers that they stand for.

A loader runs a graph to fill a table. Of that graph nothing is run here: the constants that it hands to a table are
read, or, for tables that TensorFlow saves with the variables, the tensors in the bundle.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from converter.encoding.graph_def import Function, Node, node_of
from converter.encoding.protobuf import LENGTH_DELIMITED, Message
from converter.encoding.saved_function import shape_of
from converter.encoding.tensor_bundle import TYPE_NUMBERS, Bundle
from converter.encoding.tensor_proto import constant
from converter.errors import WITHOUT_GRAPH, GraphError, ReadError
from converter.graphs.trace.tensorflow.cutting import Cut
from converter.graphs.trace.tensorflow.inlining import CALLS
from converter.graphs.trace.tensorflow.operators import makes_table
from converter.model.dtype import DType

LIMIT_BYTES = 64 << 20
"""The most bytes of tables in a graph, which holds them as constants: 64 MiB take 4 GiB of memory to convert."""
_STATIC, _OF_ROWS, _DENSE = "HashTable", "MutableHashTableOfTensors", "MutableDenseHashTable"
_TEXT = 7
_KEY_TYPES = {TYPE_NUMBERS[each]: each for each in (DType.INT32, DType.INT64)}
_VALUE_TYPES = {
    TYPE_NUMBERS[each]: each for each in (DType.INT32, DType.INT64, DType.FLOAT32, DType.FLOAT64, DType.BOOL)
}
_FILLING = ("InitializeTable", "LookupTableImport")
_ASKING = ("LookupTableFind", "LookupTableSize", "LookupTableExport")
_SAME, _CONSTANT = "Identity", "Const"
_CHOOSES = "Switch"
_SHAPE, _TENSOR = 7, 8
_VISITS_LIMIT = 100_000


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Table:
    """A table: its keys in order, each once, and as many values, of numbers or of rows of numbers.

    `reserved` are the keys that it cannot be asked for.
    """

    keys: Any
    values: Any
    reserved: tuple[int, ...] = ()

    @classmethod
    def of(cls, keys: Any, values: Any, reserved: tuple[int, ...] = ()) -> Table:
        """Return the table with these keys, in any order, and of those that are alike the first."""
        keys, places = np.unique(keys, return_index=True)
        return cls(keys=keys, values=values[places], reserved=reserved)


def note_of(tables: Iterable[Table]) -> str:
    """Return the note on the tables of a graph, "" where there are none."""
    counts = [str(len(each.keys)) for each in tables]
    if len(counts) < 2:
        return f"a lookup table of {counts[0]} keys is a constant of the graph" if counts else ""
    shown = f"{', '.join(counts[:-1])} and {counts[-1]}"
    return f"{len(counts)} lookup tables ({shown} keys) are constants of the graph"


def tables(part: Cut, saved: Mapping[str, str], bundle: Bundle) -> dict[str, Table]:
    """Return the tables of a cut graph by the node that makes them.

    `saved` says for such a node under which key the bundle may have what is in its table, without `-keys` and
    `-values`. Raises GraphError for text, for what is filled with more than constants and for what is too large;
    ReadError for what is no table.
    """
    makers = {node.name: node for node in part.nodes.values() if makes_table(node.operator)}
    for node in makers.values():
        _check_types(node)
    fillings: dict[str, list[_Filling]] = {}
    for filling in _Walk(part).fillings() if makers else ():
        fillings.setdefault(filling.table, []).append(filling)
    found: dict[str, Table] = {}
    size = 0
    for name, node in makers.items():
        key, filled = saved.get(name, ""), fillings.get(name, [])
        is_saved = node.operator.removesuffix("V2") != _STATIC and f"{key}-keys" in bundle.entries
        if len(filled) + is_saved != 1:
            how = "in several ways" if filled else "by nothing in its file"
            raise GraphError(f"looks values up in a table (node {name!r}) that is filled {how}", hint=WITHOUT_GRAPH)
        keys, values = _saved(key, bundle, node) if is_saved else _constants(filled[0], node)
        size += keys.nbytes + values.nbytes
        _check_size(size, name)
        found[name] = _table(node, keys, values, _reserved(node, part))
    return found


def _check_types(node: Node) -> None:
    numbers = [_type_number(node, key) for key in ("key_dtype", "value_dtype")]
    if _TEXT in numbers:
        raise GraphError(
            f"looks values up in a table of text (node {node.name!r}), which no converted graph has", hint=WITHOUT_GRAPH
        )
    if numbers[0] not in _KEY_TYPES or numbers[1] not in _VALUE_TYPES:
        raise GraphError(
            f"looks values up in a table of a type that no converted graph has (node {node.name!r})", hint=WITHOUT_GRAPH
        )


def _type_number(node: Node, key: str) -> int:
    return node.attributes[key].type_number if key in node.attributes else 0


def _check_size(nbytes: int, name: str) -> None:
    if nbytes > LIMIT_BYTES:
        raise GraphError(
            f"looks values up in tables (one is node {name!r}) of {nbytes >> 20} MiB, of which a graph holds at most "
            f"{LIMIT_BYTES >> 20} as constants",
            hint=WITHOUT_GRAPH,
        )


def _saved(key: str, bundle: Bundle, node: Node) -> tuple[Any, Any]:
    arrays = []
    for name in (f"{key}-keys", f"{key}-values"):
        if name not in bundle.tensors:
            raise ReadError(f"is not there, though the table of node {node.name!r} was saved", tensor=name)
        _check_size(bundle.tensors[name].nbytes, node.name)
        arrays.append(bundle.tensors[name].numpy())
    return arrays[0], arrays[1]


def _constants(filling: _Filling, node: Node) -> tuple[Any, Any]:
    keys, values = (_array(each, node) for each in (filling.keys, filling.values))
    return keys, values


def _array(stored: Node | None, node: Node) -> Any:
    """Return the array of a Const; of one of another kind than tables here have, None."""
    attribute = stored.attributes.get("value") if stored is not None and stored.operator == _CONSTANT else None
    if attribute is None:
        raise GraphError(f"looks values up in a table (node {node.name!r}) that no constants fill", hint=WITHOUT_GRAPH)
    found = constant(_content(attribute.data, _TENSOR), None)
    if found is None:
        return np.zeros(0, object)
    _check_size(found.nbytes, node.name)
    return found.numpy()


def _content(data: memoryview, number: int) -> memoryview:
    return Message.parse(data, {number: LENGTH_DELIMITED}).content(number)


def _reserved(node: Node, part: Cut) -> tuple[int, ...]:
    """Return the keys of an empty and of a deleted place in a table that has such."""
    if node.operator.removesuffix("V2") != _DENSE:
        return ()
    arrays = [_array(part.nodes[each], node) for each in node.sources[:2]]
    if any(each.shape or each.dtype.kind != "i" for each in arrays):
        raise GraphError(f"looks rows of numbers up in a table (node {node.name!r})", hint=WITHOUT_GRAPH)
    return tuple(int(each) for each in arrays)


def _table(node: Node, keys: Any, values: Any, reserved: tuple[int, ...]) -> Table:
    """Return the table that a node is filled with. Raises ReadError when keys and values are not those of one."""
    which = f"has a table (node {node.name!r})"
    key_type, value_type = _KEY_TYPES[_type_number(node, "key_dtype")], _VALUE_TYPES[_type_number(node, "value_dtype")]
    if keys.dtype != key_type.numpy or values.dtype != value_type.numpy:
        raise ReadError(f"{which} from {key_type.value} to {value_type.value}, filled with another type")
    count = keys.shape[0] if keys.ndim else -1
    rows = _rows(node, values.shape[1:])
    if keys.size != count or values.size != count * math.prod(rows):
        raise ReadError(f"{which} filled with keys and values of shapes {list(keys.shape)} and {list(values.shape)}")
    try:
        keys, values = keys.reshape(count), values.reshape(count, *rows)
    except ValueError as error:
        raise ReadError(f"{which} whose values have a shape that no array has: {error}") from error
    if reserved:
        is_there = ~np.isin(keys, reserved)
        keys, values = keys[is_there], values[is_there]
    _check_keys(which, keys, values)
    return Table.of(keys, values, reserved)


def _rows(node: Node, stored: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape of one value: numbers, rows as they are stored, or what a dense table says."""
    kind = node.operator.removesuffix("V2")
    if kind == _OF_ROWS:
        return stored
    if kind != _DENSE or "value_shape" not in node.attributes:
        return ()
    shape = shape_of(_content(node.attributes["value_shape"].data, _SHAPE), None)
    if shape is None or None in shape:
        raise ReadError(f"has a table (node {node.name!r}) whose values have no shape")
    return tuple(each or 0 for each in shape)


def _check_keys(which: str, keys: Any, values: Any) -> None:
    """Raise ReadError when a key stands for two things."""
    order = np.argsort(keys, kind="stable")
    again = np.flatnonzero(keys[order][1:] == keys[order][:-1])
    first, second = order[again], order[again + 1]
    stored = np.ascontiguousarray(values).reshape(len(keys), math.prod(values.shape[1:])).view(np.uint8)
    differing = np.flatnonzero((stored[first] != stored[second]).any(axis=1))
    if len(differing):
        raise ReadError(f"{which} with two values for the key {keys[first[differing[0]]]}")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Filling:
    """What a loader would do to a table: give it constants, or, where they are None, something else."""

    table: str
    keys: Node | None = None
    values: Node | None = None


class _Walk:
    """The nodes that a loader would run first, followed into the functions that they call."""

    def __init__(self, part: Cut) -> None:
        self._part = part
        self._functions: dict[str, Function] = {}
        self._visited = 0

    def fillings(self) -> Iterator[_Filling]:
        """Yield what is done to tables of the cut graph. Raises GraphError for calls without end."""
        yield from self._of(self._part.first, {})

    def _of(self, nodes: Mapping[str, Node], known: dict[str, Node | None]) -> Iterator[_Filling]:
        """`known` has the nodes of the main graph that arguments are, and those that were looked for before."""
        filling = []
        for node in nodes.values():
            inputs = [_resolved(node_of(each), nodes, known) for each in node.inputs if not each.startswith("^")]
            self._visited += 1 + len(inputs)
            if self._visited > _VISITS_LIMIT:
                raise GraphError("fills its tables in too many steps", hint=WITHOUT_GRAPH)
            for each in self._by(node, inputs):
                filling.append(node.name)
                yield each
        _check_always(filling, nodes)

    def _by(self, node: Node, inputs: list[Node | None]) -> Iterator[_Filling]:
        """Yield what one node does to tables, of which it is handed those in `inputs`."""
        kind = node.operator.removesuffix("V2")
        handed = [
            each
            for each in inputs
            if each is not None and makes_table(each.operator) and self._part.nodes.get(each.name) is each
        ]
        if kind in _FILLING and handed == inputs[:1] and len(inputs) == 3:
            yield _Filling(table=handed[0].name, keys=inputs[1], values=inputs[2])
        elif node.operator in CALLS and "f" in node.attributes and node.attributes["f"].called:
            function = self._function(node.attributes["f"].called[0])
            arguments = dict(zip((each.name for each in function.arguments), inputs, strict=False))
            yield from self._of({each.name: each for each in function.nodes}, arguments)
        elif kind not in _ASKING and node.operator != _SAME:
            yield from (_Filling(table=each.name) for each in handed)

    def _function(self, name: str) -> Function:
        if name not in self._functions:
            self._functions[name] = self._part.meta.graph.function(name)
        return self._functions[name]


def _resolved(name: str, nodes: Mapping[str, Node], known: dict[str, Node | None]) -> Node | None:
    """Return the node that makes a tensor, beyond those that only hand it on; None for what is not in sight."""
    trail = []
    while name not in known:
        node = nodes.get(name)
        is_same = node is not None and node.operator == _SAME and len(node.inputs) > 0
        known[name] = None if is_same else node
        trail.append(name)
        if node is not None and is_same:
            name = node_of(node.inputs[0])
    known.update(dict.fromkeys(trail, known[name]))
    return known[name]


def _check_always(names: list[str], nodes: Mapping[str, Node]) -> None:
    """Raise GraphError unless a loader runs these nodes in any case: a Switch lets those behind one side of it rest."""
    seen: set[str] = set()
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name in nodes and name not in seen:
            seen.add(name)
            if nodes[name].operator == _CHOOSES:
                raise GraphError(f"fills its tables only where node {name!r} says so", hint=WITHOUT_GRAPH)
            waiting += nodes[name].sources
