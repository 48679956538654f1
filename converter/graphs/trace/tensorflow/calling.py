"""A SavedModel without signatures as one that has one: what its root computes when it is called, `__call__`.

The objects say what that was traced with, and what each function of the graph captures; all of it is read as data
(converter.encoding.saved_function). A main graph is made here that feeds the one that is taken, and calls it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from converter.encoding.graph_def import Attribute, Function, Node, node_of
from converter.encoding.meta_graph import MetaGraph, SavedObject, Signature, TensorInfo
from converter.encoding.saved_function import Leaf, Leaves, Place, SavedFunction, Shape, Traced, traced
from converter.errors import WITHOUT_GRAPH, ArchitectureError, GraphError, ReadError
from converter.graphs.trace.tensorflow.operators import makes_table

_CALL = "__call__"
_TRAINING = "training"
_CREATE = "_create_resource"
_CALLING, _INPUT, _VARIABLE = "StatefulPartitionedCall", "Placeholder", "VarHandleOp"
_SHOWN = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class CalledFunction:
    """A function that is called as a signature is, the nodes of a main graph that do it, and why it is this one.

    `kept` are the nodes that the main graph has already: constants and tables.
    """

    name: str
    signature: Signature
    nodes: tuple[Node, ...]
    kept: tuple[str, ...]
    note: str


def called(meta: MetaGraph, path: str | None) -> CalledFunction | None:
    """Return how the root's `__call__` is called, None when it has none that was traced.

    Raises ArchitectureError when it was traced in several ways, of which none takes all that the others take;
    GraphError for one that takes, returns or captures more than tensors, variables, constants and lookup tables;
    ReadError where objects and graph do not agree.
    """
    objects = meta.objects or ()
    place = objects[0].children.get(_CALL, -1) if objects else -1
    function = objects[place].function if 0 <= place < len(objects) else None
    names = [] if function is None else [name for name in dict.fromkeys(function.traced) if name in meta.traced]
    if function is None or not names:
        return None
    ways = [_way(name, meta, function, path) for name in names]
    chosen = _chosen(ways, path)
    body = meta.graph.function(chosen.name)
    captured = meta.captures[chosen.name]
    inputs = _inputs(chosen, body, len(captured), path)
    maker = _Maker(meta=meta, body=body, prefix=_prefix(meta), path=path)
    outputs = _outputs(chosen, body, path)
    return CalledFunction(
        name=_CALL,
        signature=Signature(
            inputs={
                name: _info(maker.input_name(number), 0, leaf) for number, (name, leaf) in enumerate(inputs.items())
            },
            outputs={name: _info(maker.call_name, number, leaf) for number, (name, leaf) in enumerate(outputs.items())},
        ),
        nodes=tuple(maker.nodes(list(inputs.values()), captured)),
        kept=tuple(maker.captured(index) for index in captured if objects[index].variable is None),
        note=_note(chosen, ways),
    )


def _way(name: str, meta: MetaGraph, function: SavedFunction, path: str | None) -> Traced:
    if name not in meta.graph.functions:
        raise ReadError(f"has an object that calls the function {name!r}, which is not there", path=path)
    return traced(name, meta.traced[name], function, path)


def _chosen(ways: Sequence[Traced], path: str | None) -> Traced:
    """Return the way that serves: not that of training, and the one that takes what all others take."""
    serving = [way for way in ways if not _is_training(way)] or list(ways)
    chosen = serving[0]
    for way in serving:  # once found, what takes all that the others take is kept
        chosen = chosen if _covers(chosen, way) else way
    if not all(_covers(chosen, way) for way in serving):
        shown = "; ".join(_shown(way.inputs) for way in serving[:_SHOWN])
        raise ArchitectureError(
            f"is a SavedModel without a signature whose {_CALL} was traced in {len(serving)} ways, none of which takes "
            f"what the others do: {shown}",
            path=path,
            hint=WITHOUT_GRAPH,
        )
    return chosen


def _is_training(way: Traced) -> bool:
    return any(place[0] == _TRAINING and leaf.is_true for place, leaf in way.inputs)


def _covers(way: Traced, other: Traced) -> bool:
    """Whether one trace takes all inputs of the other; arguments that are text or numbers must be equal."""
    ours, theirs = ([(place, leaf) for place, leaf in each.inputs if place[0] != _TRAINING] for each in (way, other))
    if [place for place, _ in ours] != [place for place, _ in theirs]:
        return False
    pairs = [(leaf, there) for (_, leaf), (_, there) in zip(ours, theirs, strict=True)]
    return all(
        (leaf.type_number, leaf.value, leaf.is_other) == (there.type_number, there.value, there.is_other)
        and _takes(leaf.shape, there.shape)
        for leaf, there in pairs
    )


def _takes(shape: Shape, other: Shape) -> bool:
    if shape is None or other is None:
        return shape is None
    return len(shape) == len(other) and all(
        extent is None or extent == there for extent, there in zip(shape, other, strict=True)
    )


def _note(chosen: Traced, ways: Sequence[Traced]) -> str:
    of_several = f", one of the {len(ways)} ways in which it was traced" if len(ways) > 1 else ""
    return f"no signature: the graph is that of {_CALL}{_shown(chosen.inputs)}{of_several}"


def _shown(leaves: Leaves) -> str:
    shown = []
    for place, leaf in leaves:
        if leaf.type_number:
            extents = (
                "?" if leaf.shape is None else ", ".join("?" if each is None else str(each) for each in leaf.shape)
            )
            shown.append(f"{'/'.join(place)} [{extents}]")
        elif leaf.is_true or leaf.text is not None:
            shown.append(f"{'/'.join(place)}={leaf.text or True}")
    return f"({', '.join(shown)})"


def _inputs(way: Traced, body: Function, captured: int, path: str | None) -> dict[str, Leaf]:
    """Return the tensors that are taken, by the names they were traced with, or else those of the arguments.

    Raises ReadError when these and what is captured are not what the function takes.
    """
    leaves = []
    for place, leaf in way.inputs:
        if leaf.is_other:
            raise GraphError(f"{'/'.join(place)!r} of {_CALL} is not one tensor")
        if leaf.type_number:
            leaves.append(leaf)
    types, arguments = [leaf.type_number for leaf in leaves], [each.type_number for each in body.arguments]
    if arguments[: len(types)] != types or len(arguments) != len(types) + captured:
        raise ReadError(f"has a function ({way.name!r}) that takes something else than its object says", path=path)
    names = [leaf.name for leaf in leaves]
    if "" in names or len(set(names)) < len(names):
        names = [argument.name for argument in body.arguments[: len(leaves)]]
    return _unique(names, leaves)


def _outputs(way: Traced, body: Function, path: str | None) -> dict[str, Leaf]:
    """Return the tensors that are returned: by the keys of a dictionary, else as signatures are, `output_0` and on."""
    if any(leaf.is_other for _, leaf in way.outputs):
        raise GraphError(f"what {_CALL} returns is more than tensors")
    returned = [(place, leaf) for place, leaf in way.outputs if leaf.type_number]
    if not way.outputs:
        returned = [((str(number),), Leaf(type_number=each.type_number)) for number, each in enumerate(body.results)]
    if [leaf.type_number for _, leaf in returned] != [each.type_number for each in body.results]:
        raise ReadError(f"has a function ({way.name!r}) that returns something else than its object says", path=path)
    names = [_output_name(place, number) for number, (place, _) in enumerate(returned)]
    return _unique(names, [leaf for _, leaf in returned])


def _output_name(place: Place, number: int) -> str:
    return "_".join(place) if place and not place[0].isdecimal() else f"output_{number}"


def _unique(names: Sequence[str], leaves: Sequence[Leaf]) -> dict[str, Leaf]:
    if len(set(names)) < len(names):
        raise GraphError(f"{_CALL} takes or returns two tensors of one name")
    return dict(zip(names, leaves, strict=True))


def _info(node: str, number: int, leaf: Leaf) -> TensorInfo:
    return TensorInfo(tensor=f"{node}:{number}", type_number=leaf.type_number, shape=leaf.shape)


def _prefix(meta: MetaGraph) -> str:
    """Return what no node of the graph starts with."""
    prefix = "called"
    while any(name.startswith(prefix) for name in meta.graph.nodes):
        prefix += "_"
    return prefix


@dataclass(frozen=True, slots=True, kw_only=True)
class _Maker:
    """The nodes of a main graph around one call, whose names start with `prefix`."""

    meta: MetaGraph
    body: Function
    prefix: str
    path: str | None

    @property
    def call_name(self) -> str:
        return f"{self.prefix}/call"

    def input_name(self, number: int) -> str:
        return f"{self.prefix}/input_{number}"

    def nodes(self, inputs: Sequence[Leaf], captured: Sequence[int]) -> Iterator[Node]:
        """Yield a placeholder an input, a handle a variable, and the call of the function with these and constants."""
        placeholders = []
        for number, leaf in enumerate(inputs):
            placeholders.append(self.input_name(number))
            yield _node(placeholders[-1], _INPUT, dtype=leaf.type_number, shape=leaf.shape)
        for index in dict.fromkeys(captured):
            variable = self.meta.objects[index].variable if self.meta.objects else None
            if variable is not None:
                yield _node(self._handle(index), _VARIABLE, dtype=variable.type_number, shape=variable.shape)
        captures = list(map(self.captured, captured))
        yield Node(
            name=self.call_name,
            operator=_CALLING,
            inputs=(*placeholders, *captures),
            attributes={
                "Tin": Attribute.of_types([each.type_number for each in self.body.arguments]),
                "Tout": Attribute.of_types([each.type_number for each in self.body.results]),
                "f": Attribute.of_function(self.body.name),
            },
        )

    def _handle(self, index: int) -> str:
        return f"{self.prefix}/variable_{index}"

    def captured(self, index: int) -> str:
        """Return the node that makes what is captured. Raises GraphError for what no node makes, ReadError."""
        captured = (self.meta.objects or ())[index]
        if captured.variable is not None:
            return self._handle(index)
        if captured.constant is None:
            return self._table(captured)
        if captured.constant != node_of(captured.constant):
            raise ReadError(f"has a constant whose node is called {captured.constant!r}", path=self.path)
        return captured.constant

    def _table(self, captured: SavedObject) -> str:
        """Return the node of the main graph that makes a table as the function does that makes the object's."""
        graph, objects = self.meta.graph, self.meta.objects or ()
        place = captured.children.get(_CREATE, -1)
        function = objects[place].function if 0 <= place < len(objects) else None
        creators = [name for name in (function.traced if function is not None else ()) if name in graph.functions]
        wanted = {_shared(node) for name in creators for node in graph.function(name).nodes} - {None}
        found = [name for name in graph.nodes if _shared(graph.node(name)) in wanted]
        if len(found) != 1:
            raise GraphError(f"{_CALL} uses a resource that is no variable, constant or lookup table of the graph")
        return found[0]


def _shared(node: Node) -> tuple[str, str] | None:
    """Return the operator and the name of a table that has one."""
    if not makes_table(node.operator) or "shared_name" not in node.attributes:
        return None
    return node.operator, node.attributes["shared_name"].text


def _node(name: str, operator: str, *, dtype: int, shape: Shape) -> Node:
    return Node(
        name=name,
        operator=operator,
        inputs=(),
        attributes={"dtype": Attribute.of_types(dtype), "shape": Attribute.of_shape(shape)},
    )
