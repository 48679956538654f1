"""The part of a SavedModel that its signature reaches: all that TensorFlow is ever given of a graph from elsewhere.

A loader would run more: the saver, initialisers of tables and resources, what any other function or signature does. Of
those nothing is left. What is left was found in the list of operators that compute (`operators`), node by node and in
every function, and is written anew (converter.encoding.graph_def); TensorFlow can run nothing that is not in it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from converter.encoding.graph_def import Function, Graph, Node, node_of
from converter.encoding.meta_graph import MetaGraph, Signature, meta_graph
from converter.errors import WITHOUT_GRAPH, ArchitectureError, GraphError, ReadError, SafetyError, UsageError
from converter.graphs.trace.tensorflow.calling import called
from converter.graphs.trace.tensorflow.inlining import CALLS
from converter.graphs.trace.tensorflow.operators import COMPUTE, makes_table, name_of_table

_SERVE, _SERVING = "serve", "serving_default"
_PLACE = re.compile("[^^:][^:]*:([0-9]{1,5})")
_OF_ONE = ("Placeholder", "Const", "Identity", "VarHandleOp")
_DEEPEST = 64
_NOT_CALLED = ("__saved_model_init_op", "__saved_model_train_op")


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """A graph that computes one signature and nothing else.

    `graph`      the GraphDef
    `nodes`      the nodes of its main graph, as they were stored
    `meta`       what the file says of the graph, to be read as data
    `first`      nodes of the main graph that a loader would run before, where the signature reaches a table: checked,
                 to be read as data
    `note`       how it was chosen, where no signature says what is served
    """

    name: str
    signature: Signature
    graph: bytes
    nodes: Mapping[str, Node]
    meta: MetaGraph
    first: Mapping[str, Node] = field(default_factory=dict)
    note: str = ""


def cut(data: bytes | memoryview, path: str | None = None, asked: str | None = None) -> Cut:
    """Cut a `saved_model.pb` to the signature that is converted: that `asked` for, `serving_default`, or the only one.

    Where there is none, to what the root computes when it is called (`calling`).

    Raises SafetyError for an operator in what is reached that is not known to compute alone, and for one that a table
    it looks up is filled by; ArchitectureError without a signature that is the one to take, GraphError for one of more
    than plain tensors and for functions in functions without end, ReadError for a malformed file.
    """
    meta = meta_graph(data, _SERVE, path)
    if meta is None:
        raise ArchitectureError("is a SavedModel without a graph for serving", path=path)
    found = [name for name, each in meta.signatures.items() if name not in _NOT_CALLED and each.outputs]
    call = None if found or asked is not None else called(meta, path)
    if call is not None:
        nodes, functions = _reached_with_tables(meta.graph, call.kept, path, call.nodes)
        return Cut(
            name=call.name,
            signature=call.signature,
            graph=_encoded(meta.graph, nodes, functions),
            nodes=nodes,
            meta=meta,
            first=_first(meta, nodes, functions, path),
            note=call.note,
        )
    name = _chosen(found, path, asked)
    signature = meta.signatures[name]
    ports = {**signature.inputs, **signature.outputs}
    for port, info in ports.items():
        if not info.tensor:
            raise GraphError(f"{port!r} of the signature is not one tensor", path=path)
    roots = [node_of(info.tensor) for each in (signature.inputs, signature.outputs) for info in each.values()]
    nodes, functions = _reached_with_tables(meta.graph, roots, path)
    for port, info in ports.items():
        _check_place(port, info.tensor, nodes, functions, path)
    graph = _encoded(meta.graph, nodes, functions)
    first = _first(meta, nodes, functions, path)
    return Cut(name=name, signature=signature, graph=graph, nodes=nodes, meta=meta, first=first)


def _first(
    meta: MetaGraph, nodes: Mapping[str, Node], functions: Mapping[str, Function], path: str | None
) -> dict[str, Node]:
    """Return the nodes that would fill tables, where there are any among `nodes`.

    Raises GraphError for a table that several nodes make: what fills one would fill the other.
    """
    tables = [node for node in nodes.values() if makes_table(node.operator)]
    if not tables:
        return {}
    roots = [each for each in meta.initialisers if each in meta.graph.nodes]
    first, called = reached(meta.graph, roots, path, tables)
    inner = [node for function in {**called, **functions}.values() for node in function.nodes]
    makers: dict[str, Node] = {}
    for node in (*{**first, **nodes}.values(), *inner):
        name = name_of_table(node)
        if name and makers.setdefault(name, node) is not node:
            raise GraphError(
                f"has two nodes, {makers[name].name!r} and {node.name!r}, that make the table {name!r}",
                path=path,
                hint=WITHOUT_GRAPH,
            )
    return first


def _check_place(
    port: str, tensor: str, nodes: Mapping[str, Node], functions: Mapping[str, Function], path: str | None
) -> None:
    """Raise ReadError unless `tensor` is an output of a node, and one that it can have as far as that is known here."""
    place = _PLACE.fullmatch(tensor)
    node = nodes[node_of(tensor)]
    called = node.attributes["f"].called if node.operator in CALLS and "f" in node.attributes else ()
    count = 1 if node.operator in _OF_ONE else len(functions[called[0]].results) if called else None
    if place is None or (count is not None and int(place[1]) >= count):
        raise ReadError(f"has a signature whose {port!r} is {tensor!r}, which no node has for an output", path=path)


def _check_depth(functions: Mapping[str, Function], path: str | None) -> None:
    """Raise GraphError for functions that call one another deeper than what handles them could follow."""
    calls = {
        name: {each for node in function.nodes for each in _called(node) if each in functions}
        for name, function in functions.items()
    }
    reached = set(calls)
    for _ in range(_DEEPEST):
        reached = {each for name in reached for each in calls[name]}
    if reached:
        raise GraphError(f"has functions that call one another more than {_DEEPEST} deep, or without end", path=path)


def _called(node: Node) -> Iterator[str]:
    """Yield the functions that a node calls, not those that annotations name."""
    yield node.operator
    for key, value in node.attributes.items():
        if not key.startswith("_"):
            yield from value.called


def _encoded(graph: Graph, nodes: Mapping[str, Node], functions: Mapping[str, Function]) -> bytes:
    added = [node for name, node in nodes.items() if name not in graph.nodes]
    kept = [nodes[each] for each in graph.nodes if each in nodes]
    return graph.encoded([*kept, *added], [functions[each] for each in graph.functions if each in functions])


def _chosen(found: Sequence[str], path: str | None, asked: str | None) -> str:
    if asked is not None and asked not in found:
        there = f"has {', '.join(sorted(found))}" if found else "names none"
        raise UsageError(f"--signature {asked}: the SavedModel {there}", path=path)
    if asked is not None or len(found) == 1:
        return found[0] if asked is None else asked
    if _SERVING in found:
        return _SERVING
    which = f"several signatures, none of them {_SERVING}: {', '.join(sorted(found))}" if found else "no signature"
    hint = "--signature NAME says which" if found else WITHOUT_GRAPH
    raise ArchitectureError(f"is a SavedModel with {which}", path=path, hint=hint)


def reached(
    graph: Graph, roots: Iterable[str], path: str | None, added: Sequence[Node] = ()
) -> tuple[dict[str, Node], dict[str, Function]]:
    """Return the nodes and functions that running `roots`, and what is `added` beside, could run, all checked."""
    nodes: dict[str, Node] = {node.name: node for node in added}
    functions: dict[str, Function] = {}
    waiting_calls: list[str] = [name for node in added for name in _callees(node, graph, None, path)]
    waiting = list(roots)
    while waiting:
        name = waiting.pop()
        if name not in nodes:
            node = nodes[name] = graph.node(name)
            waiting_calls += _callees(node, graph, None, path)
            waiting += node.sources
    while waiting_calls:
        name = waiting_calls.pop()
        if name not in functions:
            if name in COMPUTE:
                raise ReadError(
                    f"has a function called {name!r}, which is the name of an operator of TensorFlow", path=path
                )
            function = functions[name] = graph.function(name)
            waiting_calls += [each for node in function.nodes for each in _callees(node, graph, name, path)]
            waiting_calls += graph.gradients(name)
    _check_depth(functions, path)
    return nodes, functions


def _reached_with_tables(
    graph: Graph, roots: Sequence[str], path: str | None, added: Sequence[Node] = ()
) -> tuple[dict[str, Node], dict[str, Function]]:
    """Return what is reached, with tables for calls that make them, as what was loaded and saved again has."""
    nodes, functions = reached(graph, roots, path, added)
    makers: dict[str, list[Node]] = {}
    tables: list[Node] = []
    used: set[str] = set(graph.nodes)
    for node in nodes.values():
        for name in _called_alone(node):
            if name not in makers:
                makers[name] = _table_returned(functions, name)
            table = list(_under_name(node.name, makers[name]))
            clash = used.intersection(each.name for each in table[1:])
            if clash:
                raise ReadError(f"has a node called {min(clash)!r}, which is the name of a table's own node", path=path)
            used.update(each.name for each in table)
            tables += table
    return reached(graph, roots, path, (*added, *tables)) if tables else (nodes, functions)


def _table_returned(functions: Mapping[str, Function], name: str) -> list[Node]:
    """Return the node that makes the table which a function returns, and those it takes from; nothing for another."""
    for _ in range(_DEEPEST):
        function = functions[name]
        inner = {each.name: each for each in function.nodes}
        node = _returned(function, inner) if len(function.results) == 1 else None
        if node is not None and makes_table(node.operator):
            return [node, *(inner[each] for each in node.sources if each in inner)]
        following = _called_alone(node) if node is not None else ()
        if not following:
            break
        name = following[0]
    return []


def _called_alone(node: Node) -> tuple[str, ...]:
    """Return the function that a node calls without arguments, if it does."""
    is_call = node.operator in CALLS and not node.inputs and "f" in node.attributes
    return node.attributes["f"].called[:1] if is_call else ()


def _under_name(name: str, added: Sequence[Node]) -> Iterator[Node]:
    """Yield the first node under this name, and the others, which it takes from, under names that start with it."""
    for table in added[:1]:
        yield replace(table, name=name, inputs=tuple(f"{name}/{each.name}" for each in added[1:]))
    yield from (replace(each, name=f"{name}/{each.name}") for each in added[1:])


def _returned(function: Function, inner: Mapping[str, Node]) -> Node | None:
    """Return the node whose output a function of one result returns."""
    reference = function.returned.get(function.results[0].name, "")
    for _ in range(_DEEPEST):
        node = inner.get(node_of(reference))
        if node is None or node.operator != "Identity" or not node.inputs:
            return node
        reference = node.inputs[0]
    return None


def _callees(node: Node, graph: Graph, where: str | None, path: str | None) -> list[str]:
    """Return the functions that a node names. Raises SafetyError unless it computes and they are there.

    An operator may itself be the name of a function; no operator of TensorFlow's own is called as such are, and a
    function that is called as an operator hides none.
    """
    place = f"node {node.name!r}" if where is None else f"node {node.name!r} of function {where!r}"
    is_call = node.operator in graph.functions
    if node.operator not in COMPUTE and not (is_call and "_" in node.operator[1:]):
        raise SafetyError(f"has the operator {node.operator} ({place}), which may do more than compute", path=path)
    for name in node.functions:
        if name not in graph.functions:
            raise SafetyError(f"has a call of {name!r} ({place}), which is not a function in this file", path=path)
    return [*node.functions, *([node.operator] if is_call else [])]
