"""Variables of a TensorFlow graph made inputs of it: a graph of values alone, in which none can be folded.

TensorFlow hands a variable's handle through calls and loops down to the operator that reads it, and freezing puts its
values there, under a name of the reader's. Here what has the handle is given the value itself, under the variable's
name, the same way down: handles become tensors in main graph and functions, reads become Identity, gathers Gather.
The handle of a lookup table becomes a number that nobody reads, and what looks values up in it a search (`searching`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from converter.errors import GraphError
from converter.graphs.trace.tensorflow.inlining import CALLS, inline_calls
from converter.graphs.trace.tensorflow.searching import Search, set_constant
from converter.graphs.trace.tensorflow.tables import LIMIT_BYTES, Table

_BRANCHES = ("If", "StatelessIf", "Case", "StatelessCase")
_LOOPS = ("While", "StatelessWhile")
_PASSING = ("Identity", "Enter", "Exit", "NextIteration", "Switch", "Merge")
_COMPILED = ("_XlaMustCompile", "_noinline")
_OF_OTHER_PLACES = (
    "api_implements",
    "api_preferred_device",
    "forward_function_name",
    "backward_function_name",
    *_COMPILED,
)
"""Attributes that keep a function for compilers, devices and gradients that are not here: it would not be inlined."""
_PURE = {
    "StatefulPartitionedCall": "PartitionedCall",
    "While": "StatelessWhile",
    "If": "StatelessIf",
    "Case": "StatelessCase",
}
_FIND, _SIZE = ("LookupTableFind", "LookupTableFindV2"), ("LookupTableSize", "LookupTableSizeV2")
_INT32, _INT64 = 3, 9


@dataclass(frozen=True, slots=True)
class Replacement:
    """What replaces a handle: a value, whose element type is `dtype` (protobuf's number), or a table."""

    dtype: int
    table: Table | None = None


Reference = tuple[str, int]
Known = dict[Reference, Replacement]
"""What replaces each of the references that were handles."""


def lift(
    graph: Any, variables: Mapping[str, tuple[int, Any]], tables: Mapping[str, Table], outputs: Iterable[str]
) -> Any:
    """Return the part of a GraphDef that computes the nodes `outputs`, with placeholders for its variables.

    `variables` gives element type and shape, as protobuf has them, for a node that makes a handle, or is a variable of
    TensorFlow 1; `tables` those that nodes make. Raises GraphError for an operator that does more with a variable than
    read it, with a table than look values up, and for tables that are too large or not known.
    """
    library = _Library(graph.library)
    lifted = type(graph)(versions=graph.versions)
    nodes = {node.name: node for node in graph.node}
    known: Known = {}
    for name in _needed(nodes, outputs):
        node = lifted.node.add()
        node.CopyFrom(nodes[name])
        if name in variables:
            dtype, shape = variables[name]
            if node.op not in ("Variable", "VariableV2"):  # their readers take values already
                known[name, 0] = Replacement(dtype)
            _become(node, "Placeholder", [])
            node.attr["dtype"].type = dtype
            node.attr["shape"].shape.CopyFrom(shape)
        elif name in tables:
            known[name, 0] = Replacement(_INT32, tables[name])
            _become(node, "Const", [])
            set_constant(node, np.array(0, np.int32))
    _Body(library, lifted.node, known, is_function=False).rewrite()
    for function in library.used(lifted.node):
        lifted.library.function.add().CopyFrom(function)
    return lifted


def _needed(nodes: Mapping[str, Any], outputs: Iterable[str]) -> list[str]:
    """Return the nodes that `outputs` take from, in the graph's order."""
    found: set[str] = set()
    waiting = list(outputs)
    while waiting:
        name = waiting.pop()
        if name not in nodes:
            raise GraphError(f"the graph has no node {name!r}")
        if name not in found:
            found.add(name)
            waiting += [_reference(each)[0] for each in nodes[name].input]
    return [name for name in nodes if name in found]


def _reference(text: str) -> Reference:
    """Return (node or argument, number of its output) of `^node`, `node`, `node:1` and `node:output:0`."""
    name, _, rest = text.removeprefix("^").partition(":")
    number = rest.rpartition(":")[2]
    return name, int(number) if number.isdecimal() else 0


def _become(node: Any, operator: str, inputs: Iterable[str]) -> None:
    name = node.name
    node.Clear()
    node.name, node.op = name, operator
    node.input.extend(inputs)


class _Library:
    """The functions of a graph; each is made anew for every choice of arguments that are variables."""

    def __init__(self, library: Any) -> None:
        self._functions = {function.signature.name: function for function in library.function}
        self._specialised: dict[
            tuple[str, tuple[tuple[int, Replacement], ...]], tuple[str, dict[int, Replacement]]
        ] = {}
        self._under_way: set[str] = set()
        self._tables_bytes = 0

    def count(self, table: Table) -> None:
        """Take note of a search in a table. Raises GraphError when the constants of all are too large."""
        self._tables_bytes += table.keys.size * np.dtype(np.int64).itemsize + table.values.nbytes
        if self._tables_bytes > LIMIT_BYTES:
            raise GraphError(f"looks values up in tables of more than {LIMIT_BYTES >> 20} MiB, counted at each use")

    def specialised(self, name: str, arguments: Mapping[int, Replacement]) -> tuple[str, dict[int, Replacement]]:
        """Return the function that takes values at these arguments, and which of its outputs are such values.

        Raises GraphError for a function that is not there, or calls itself.
        """
        key = (name, tuple(sorted(arguments.items())))
        if key not in self._specialised:
            if name not in self._functions or name in self._under_way:
                raise GraphError(f"function {name!r} calls itself, or is not there")
            self._under_way.add(name)
            function, outputs = self._with_values(self._functions[name], arguments)
            self._under_way.discard(name)
            function.signature.name = f"{name}_of_values_{len(self._specialised)}"
            while function.signature.name in self._functions:
                function.signature.name += "_"
            self._functions[function.signature.name] = function
            self._specialised[key] = (function.signature.name, outputs)
        return self._specialised[key]

    def _with_values(self, original: Any, arguments: Mapping[int, Replacement]) -> tuple[Any, dict[int, Replacement]]:
        function = type(original)()
        function.CopyFrom(original)
        function.attr.pop("_input_shapes", None)
        known: Known = {}
        for position, replacement in arguments.items():
            argument = function.signature.input_arg[position]
            argument.type = replacement.dtype
            argument.ClearField("handle_data")
            function.arg_attr.pop(position, None)
            known[argument.name, 0] = replacement
        body = _Body(self, function.node_def, known, is_function=True)
        body.rewrite()
        outputs: dict[int, Replacement] = {}
        for position, output in enumerate(function.signature.output_arg):
            returned = body.renamed(function.ret[output.name])
            function.ret[output.name] = returned
            if _reference(returned) in known:
                outputs[position] = known[_reference(returned)]
                output.type = outputs[position].dtype
                output.ClearField("handle_data")
        return function, outputs

    def used(self, nodes: Any) -> list[Any]:
        """Return the functions that `nodes` call, and those that they call, fit to be inlined."""
        found: dict[str, Any] = {}
        waiting = [name for node in nodes for name in _called(node)]
        while waiting:
            name = waiting.pop()
            if name in found or name not in self._functions:
                continue
            function = found[name] = self._functions[name]
            inline_calls(function, self._functions)
            function.control_ret.clear()
            del function.signature.control_output[:]
            function.signature.is_stateful = False
            for attribute in _OF_OTHER_PLACES:
                function.attr.pop(attribute, None)
            for node in function.node_def:
                _prepare(node)
            waiting += [callee for node in function.node_def for callee in _called(node)]
        return list(found.values())


def _called(node: Any) -> Iterator[str]:
    yield node.op  # functions of TensorFlow 1 are called by an operator of their name
    for value in node.attr.values():
        if value.HasField("func"):
            yield value.func.name
        yield from (each.name for each in value.list.func)


class _Body:
    """The nodes of a graph or function, some of whose references are variables' values instead of their handles."""

    def __init__(self, library: _Library, nodes: Any, known: Known, *, is_function: bool) -> None:
        self._library = library
        self._nodes = nodes
        self._known = known
        self._is_function = is_function
        self._renamed: dict[str, str] = {}
        self._search: Search | None = None

    def rewrite(self) -> None:
        """Change the nodes; what else is a variable's value is added to what is known."""
        size = -1
        while size != len(self._known):  # nodes of loops are in no order
            size = len(self._known)
            for node in self._nodes:
                handles = self._handles(node)
                for number, replacement in (self._handed_on(node, handles) if handles else {}).items():
                    self._known[node.name, number] = replacement
        for node in list(self._nodes):
            handles = self._handles(node)
            if any(replacement.table for replacement in handles.values()) or node.op in (*_FIND, *_SIZE):
                self._rewrite_of_table(node, handles)
            elif handles:
                self._rewrite(node, handles)
            _prepare(node)
        for node in self._nodes:
            node.input[:] = [self.renamed(each) for each in node.input]

    def renamed(self, reference: str) -> str:
        """Return what a reference is called now: a read has its output `value`, an Identity `output`."""
        return self._renamed.get(reference, reference)

    def _handles(self, node: Any) -> dict[int, Replacement]:
        """Return, by position, what of the inputs was a handle."""
        references = [_reference(each) for each in node.input if not each.startswith("^")]
        return {position: self._known[each] for position, each in enumerate(references) if each in self._known}

    def _handed_on(self, node: Any, handles: dict[int, Replacement]) -> dict[int, Replacement]:
        """Return, by number, what of the outputs was a handle."""
        if node.op in _PASSING:
            replacement = next(iter(handles.values()))
            return {0: replacement, 1: replacement} if node.op == "Switch" else {0: replacement}
        if node.op in _LOOPS:
            return handles
        if node.op in CALLS:
            return self._library.specialised(node.attr["f"].func.name, handles)[1]
        if node.op in _BRANCHES:
            return self._library.specialised(_branches(node)[0].name, _after_selector(handles))[1]
        return {}

    def _rewrite_of_table(self, node: Any, handles: dict[int, Replacement]) -> None:
        table = handles[0].table if handles.keys() == {0} else None
        if node.op in (*_FIND, *_SIZE) and table is None:
            raise GraphError(f"looks values up in a table that is not known (node {node.name!r})")
        data, controls = _split(node.input)
        if node.op in _FIND and table is not None and len(data) == 3:
            self._library.count(table)
            self._search = self._search or Search(self._nodes, is_function=self._is_function)
            key_type, value_type = node.attr["Tin"].type, node.attr["Tout"].type
            found = self._search.found(table, data[1], data[2], key_type=key_type, value_type=value_type)
            _become(node, "Identity", [found, *controls])
            node.attr["T"].type = value_type
            self._renamed[f"{node.name}:values:0"] = f"{node.name}:output:0"
        elif node.op in _SIZE and table is not None:
            _become(node, "Const", controls)
            set_constant(node, np.array(len(table.keys), np.int64))
            self._renamed[f"{node.name}:size:0"] = f"{node.name}:output:0"
        elif node.op in (*_PASSING, *CALLS, *_LOOPS, *_BRANCHES):
            if node.op in _PASSING and len(set(handles.values())) > 1:
                raise GraphError(f"chooses between tables (node {node.name!r})")
            self._rewrite(node, handles)
        else:
            raise GraphError(
                f"operator {node.op} (node {node.name!r}) does more with a table than look values up in it"
            )

    def _rewrite(self, node: Any, handles: dict[int, Replacement]) -> None:
        attributes = {key: _copied(value) for key, value in node.attr.items()}
        match node.op:
            case "ReadVariableOp":
                _become(node, "Identity", list(node.input))
                node.attr["T"].type = handles[0].dtype
                self._renamed[f"{node.name}:value:0"] = f"{node.name}:output:0"
            case "ResourceGather":
                data, controls = _split(node.input)
                batch_dims = node.attr["batch_dims"].i
                axis = self._constant(f"{node.name}/axis_of_value", batch_dims)
                _become(node, "GatherV2", [*data, axis, *controls])
                node.attr["Tparams"].type = handles[0].dtype
                node.attr["Tindices"].CopyFrom(attributes["Tindices"])
                node.attr["Taxis"].type = _INT32
                node.attr["batch_dims"].i = batch_dims
            case "ResourceGatherNd":
                _become(node, "GatherNd", list(node.input))
                node.attr["Tparams"].type = handles[0].dtype
                node.attr["Tindices"].CopyFrom(attributes["Tindices"])
            case "VariableShape":
                _become(node, "Shape", list(node.input))
                node.attr["T"].type = handles[0].dtype
                node.attr["out_type"].type = attributes["out_type"].type if "out_type" in attributes else _INT32
            case operator if operator in _PASSING:
                node.attr["T"].type = next(iter(handles.values())).dtype
                node.attr.pop("_output_shapes", None)
            case operator if operator in (*CALLS, *_LOOPS, *_BRANCHES):
                self._rewrite_call(node, handles)
            case operator:
                raise GraphError(f"operator {operator} (node {node.name!r}) does more with a variable than read it")

    def _rewrite_call(self, node: Any, handles: dict[int, Replacement]) -> None:
        outputs: dict[int, Replacement] = {}
        if node.op in _LOOPS:
            for part in ("cond", "body"):
                called = node.attr[part].func
                called.name, outputs = self._library.specialised(called.name, handles)
            _check_alike(node, _tables(handles), _tables(outputs))
            _set_types(node.attr["T"], handles)
        elif node.op in _BRANCHES:
            inner = _after_selector(handles)
            first = self._library.specialised(_branches(node)[0].name, inner)[1]
            for called in _branches(node):
                called.name, outputs = self._library.specialised(called.name, inner)
                _check_alike(node, _tables(first), _tables(outputs))
            _set_types(node.attr["Tin"], inner)
            _set_types(node.attr["Tout"], outputs)
        else:
            called = node.attr["f"].func
            called.name, outputs = self._library.specialised(called.name, handles)
            _set_types(node.attr["Tin"], handles)
            _set_types(node.attr["Tout"], outputs)
        node.attr.pop("_output_shapes", None)
        node.attr.pop("output_shapes", None)

    def _constant(self, name: str, value: int) -> str:
        """Add an int32 constant and return a reference to it."""
        node = self._nodes.add()
        node.name = name
        _become(node, "Const", [])
        node.attr["dtype"].type = _INT32
        tensor = node.attr["value"].tensor
        tensor.dtype = _INT32
        tensor.tensor_shape.SetInParent()
        tensor.int_val.append(value)
        return f"{name}:output:0" if self._is_function else name


def _prepare(node: Any) -> None:
    """Make calls such as are inlined for their outputs alone, and keep loops and branches whole when they are.

    What is left of effects is assertions, which ONNX does not have.
    """
    for noted in ("_class", "_output_shapes", *_COMPILED):
        node.attr.pop(noted, None)
    node.op = _PURE.get(node.op, node.op)
    if node.op == "Assert":
        _become(node, "NoOp", [])
    if node.op in (*_LOOPS, *_BRANCHES):
        node.attr["_lower_using_switch_merge"].b = False


def _copied(value: Any) -> Any:
    copy = type(value)()
    copy.CopyFrom(value)
    return copy


def _split(inputs: Iterable[str]) -> tuple[list[str], list[str]]:
    """Return data inputs and control inputs."""
    every = list(inputs)
    return [each for each in every if each[0] != "^"], [each for each in every if each[0] == "^"]


def _branches(node: Any) -> list[Any]:
    if "branches" in node.attr:
        return list(node.attr["branches"].list.func)
    return [node.attr["then_branch"].func, node.attr["else_branch"].func]


def _after_selector(handles: Mapping[int, Replacement]) -> dict[int, Replacement]:
    """Return the arguments of a branch by position: the first input only chooses it."""
    return {position - 1: replacement for position, replacement in handles.items()}


def _tables(handles: Mapping[int, Replacement]) -> dict[int, Table]:
    return {position: replacement.table for position, replacement in handles.items() if replacement.table is not None}


def _check_alike(node: Any, ours: Mapping[int, Table], theirs: Mapping[int, Table]) -> None:
    if ours != theirs:
        raise GraphError(f"chooses between tables (node {node.name!r})")


def _set_types(attribute: Any, types: Mapping[int, Replacement]) -> None:
    for position, replacement in types.items():
        attribute.list.type[position] = replacement.dtype
