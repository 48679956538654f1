"""Which outputs of a graph are computed in a floating-point type of less precision than theirs: what rounds them.

A model of a mixed policy computes in float16 and may return float32: its outputs are as far from those of another
framework as float16 is, whatever they are stored in.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

_COARSE = {"FLOAT16": "float16", "BFLOAT16": "bfloat16"}
"""The types that are looked for, as onnx_ir calls them, each less precise than the one before."""
_PRECISE_FIRST = tuple(_COARSE.values())
_NAMES_OF_MOVES = """
Cast CastLike Concat Constant Expand Flatten Gather Identity Reshape Slice Split Squeeze Tile Transpose Unsqueeze
"""
_MOVES = frozenset(_NAMES_OF_MOVES.split())
"""Operators that give every framework the same, of values that are the same."""
_OF_EXTENTS = ("Shape", "Size")
_LIMIT_DEPTH = 64


def rounded_outputs(model: Any) -> dict[str, str]:
    """Return the least precise of these types that each output of a graph is computed in, for those that have one."""
    rounded = _Rounding(model).of_graph(model.graph, {}, 0)
    return {value.name: rounded[value] for value in model.graph.outputs if value in rounded}


class _Rounding:
    """The values of a graph that rounding reaches, from its inputs and what is computed in a coarse type on."""

    def __init__(self, model: Any) -> None:
        self._functions = model.functions
        self._types: dict[Any, str | None] = {}
        self._varying: set[Any] = set()

    def of_graph(self, graph: Any, outer: Mapping[Any, str], depth: int) -> dict[Any, str]:
        """Return the type by the values that are rounded to it; `outer` has those around a graph inside a node."""
        found = dict(outer)
        self._varying.update(graph.inputs)
        for node in graph:
            inner = [self._inside(body, found, depth) for body in self._bodies(node)] if depth < _LIMIT_DEPTH else []
            used = [value for value in node.inputs if value is not None]
            if inner or not self._varying.isdisjoint(used):
                self._varying.update(node.outputs)
            is_same = node.op_type in _MOVES and self._varying.isdisjoint(used)
            before = [found[value] for value in used if value in found]
            for value in node.outputs:
                own = self._types[value] = self._type_of(node, value)
                reasons = [*before, *(each for each in inner if each), *([own] if own and not is_same else [])]
                if reasons and node.op_type not in _OF_EXTENTS:
                    found[value] = _least_precise(reasons)
        return found

    def _bodies(self, node: Any) -> Iterator[Any]:
        for attribute in node.attributes.values():
            if not attribute.is_ref() and attribute.type.name == "GRAPH":
                yield attribute.value
        function = self._functions.get(node.op_identifier())
        if function is not None:
            for given, own in zip(node.inputs, function.inputs, strict=False):
                self._types[own] = None if given is None else self._known(given)
            yield function.graph

    def _inside(self, body: Any, outer: Mapping[Any, str], depth: int) -> str | None:
        """Return the least precise type in a graph inside a node, in a loop of whichever turn."""
        found = self.of_graph(body, outer, depth + 1)
        own = (kind for value, kind in found.items() if value not in outer)
        return _least_precise((*own, *(found.get(value) for value in body.outputs)))

    def _type_of(self, node: Any, output: Any) -> str | None:
        """Return the coarse type of what a node gives; where the graph does not say, that of its inputs."""
        if output.dtype is not None:
            return _COARSE.get(output.dtype.name)
        if node.op_type == "Cast" and "to" in node.attributes and not node.attributes["to"].is_ref():
            import onnx_ir

            return _COARSE.get(onnx_ir.DataType(node.attributes["to"].as_int()).name)
        return _least_precise(self._known(value) for value in node.inputs if value is not None)

    def _known(self, value: Any) -> str | None:
        return self._types.get(value) if value.dtype is None else _COARSE.get(value.dtype.name)


def _least_precise(kinds: Iterable[str | None]) -> str | None:
    return max((kind for kind in kinds if kind is not None), key=_PRECISE_FIRST.index, default=None)
