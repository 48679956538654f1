"""Which tensors of an ONNX model operators take as parameters, such as the scales of a Resize, and not as numbers.

https://onnx.ai/onnx/operators/. A tensor is one where every way from it ends there, be it through what computes shapes.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from converter.encoding.onnx_graphs import FUNCTION_NODE, NODE, Function, Node, nodes
from converter.encoding.protobuf_file import Range, contents, read_text
from converter.model.file import SourceFile

_ALL_BUT_FIRST = range(1, 1 << 31)
_TAKEN: Mapping[str, Container[int]] = {
    "Resize": _ALL_BUT_FIRST,
    "Upsample": _ALL_BUT_FIRST,
    "OneHot": (1, 2),
    "Pad": _ALL_BUT_FIRST,
    "Slice": _ALL_BUT_FIRST,
    "CenterCropPad": (1,),
    "ConstantOfShape": (0,),
    "Expand": (1,),
    "NonMaxSuppression": (2, 3, 4),
    "Range": (0, 1, 2),
    "Reshape": (1,),
    "Tile": (1, 2),
    "TopK": (1,),
}
"""Operator -> the inputs that say how it computes."""
_OF_SHAPES = frozenset((
    "Abs", "Add", "Cast", "Ceil", "Clip", "Concat", "Div", "Expand", "Flatten", "Floor", "Gather", "Identity",
    "Max", "Min", "Mod", "Mul", "Neg", "ReduceMax", "ReduceMin", "ReduceProd", "Reshape", "Round", "Slice",
    "Split", "Sqrt", "Squeeze", "Sub", "Transpose", "Unsqueeze", "Where",
))  # fmt: skip
"""What shapes and scales are computed with, on the way to such an input."""
_DEPTH_LIMIT, _ROOTS_LIMIT = 32, 64
_GRAPH_OUTPUT, _FUNCTION_INPUT, _FUNCTION_OUTPUT = 12, 4, 5

Key = tuple[int, str]
"""Where in the file the graph of a value is, and what the value is called."""


@dataclass(slots=True, kw_only=True)
class _Scope:
    """Values of one graph -> the tensors that they come from; None for one that hides a value outside of it."""

    start: int
    outer: _Scope | None = None
    roots: dict[str, frozenset[Key] | None] = field(default_factory=dict)

    def find(self, name: str) -> frozenset[Key]:
        scope: _Scope | None = self
        while scope is not None:
            if name in scope.roots:
                return scope.roots[name] or frozenset()
            scope = scope.outer
        return frozenset()


@dataclass(slots=True, kw_only=True)
class Operands:
    """The tensors that are parameters of operators. `taken` are those met so, `used` those met in another way."""

    file: SourceFile
    functions: Mapping[tuple[str, str, str], Function]
    asked: Mapping[int, Sequence[str]]
    taken: set[Key] = field(default_factory=set)
    used: set[Key] = field(default_factory=set)
    known: dict[tuple[str, str, str], Container[int]] = field(default_factory=dict)

    @classmethod
    def of(
        cls, file: SourceFile, graph: Range, functions: Sequence[Function], asked: Iterable[Key], operators: set[str]
    ) -> frozenset[Key]:
        """Return which of the tensors `asked` for are. `operators` are all there are in the model."""
        by_scope: dict[int, list[str]] = {}
        for start, name in asked:
            by_scope.setdefault(start, []).append(name)
        if not by_scope or operators.isdisjoint(_TAKEN):
            return frozenset()
        found = cls(file=file, functions={each.identifier: each for each in functions}, asked=by_scope)
        found._graph(graph, None, 0)
        for function in functions:
            found._inputs_taken(function, 0)
        return frozenset(found.taken - found.used)

    def _graph(self, graph: Range, outer: _Scope | None, depth: int) -> None:
        scope = _Scope(start=graph.start, outer=outer)
        self._walk(scope, graph, NODE, depth)
        for _, value in contents(self.file, graph, (_GRAPH_OUTPUT,)):
            for _, name in contents(self.file, value, (1,)):
                self.used |= scope.find(read_text(self.file, name))

    def _inputs_taken(self, function: Function, depth: int) -> Container[int]:
        """Return which inputs of a function are parameters of operators in it."""
        known = self.known.get(function.identifier)
        if known is not None or depth > _DEPTH_LIMIT:
            return known or ()
        self.known[function.identifier] = ()
        scope = _Scope(start=function.content.start)
        inputs = [read_text(self.file, name) for _, name in contents(self.file, function.content, (_FUNCTION_INPUT,))]
        scope.roots.update({name: frozenset({(scope.start, name)}) for name in inputs})
        self._walk(scope, function.content, FUNCTION_NODE, depth)
        for _, name in contents(self.file, function.content, (_FUNCTION_OUTPUT,)):
            self.used |= scope.find(read_text(self.file, name))
        taken = self.taken - self.used
        found = frozenset(number for number, name in enumerate(inputs) if (scope.start, name) in taken)
        self.known[function.identifier] = found
        return found

    def _walk(self, scope: _Scope, within: Range, node_field: int, depth: int) -> None:
        for name in self.asked.get(scope.start, ()):
            scope.roots[name] = frozenset({(scope.start, name)})
        for node in nodes(self.file, within, node_field):
            taken = self._taken(node, depth)
            passed: frozenset[Key] = frozenset()
            for number, name in enumerate(node.inputs):
                roots = scope.find(name)
                if number in taken:
                    self.taken |= roots
                elif node.operator in _OF_SHAPES and not node.domain:
                    passed |= roots
                else:
                    self.used |= roots
            passed -= self.used
            if len(passed) > _ROOTS_LIMIT:
                self.used |= passed
                passed = frozenset()
            for name in node.outputs:
                if passed or (name not in scope.roots and scope.find(name)):
                    scope.roots[name] = passed or None
            if depth < _DEPTH_LIMIT:
                for _, _, graph in node.graphs():
                    self._graph(graph, scope, depth + 1)

    def _taken(self, node: Node, depth: int) -> Container[int]:
        function = self.functions.get((node.domain, node.operator, node.overload))
        if function is not None:
            return self._inputs_taken(function, depth + 1)
        return () if node.domain else _TAKEN.get(node.operator, ())
