"""Which function lowers which operator: by domain and op type, in variants by the opset that introduced them.

A lowering's positional parameters are the ONNX inputs, in order; its keyword-only parameters are the attributes, with
ONNX's defaults. Two keyword-only parameters are not attributes: `output_count`, the number of outputs the node has, and
`output_type`, the TensorProto.DataType number of the first one where the graph declares it, else None.
What the values are, each framework's package says.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from converter.errors import GraphError

Lowering = Callable[..., Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Operator:
    """One operator as of one opset, and the function that lowers it."""

    op_type: str
    domain: str
    since: int
    function: Lowering
    signature: inspect.Signature

    @property
    def takes_output_count(self) -> bool:
        """Whether the lowering asks how many outputs the node has."""
        return "output_count" in self.signature.parameters

    @property
    def takes_output_type(self) -> bool:
        """Whether the lowering asks for the declared type of the node's first output."""
        return "output_type" in self.signature.parameters

    @property
    def takes_padding_row(self) -> bool:
        """Whether the lowering asks which row of its table gets no gradient."""
        return "padding_row" in self.signature.parameters

    def mismatch(self, input_count: int, attributes: Iterable[str]) -> str | None:
        """Return why these inputs and attributes cannot be passed to the lowering, None when they can."""
        asked = {name: None for name in ("output_count", "output_type") if name in self.signature.parameters}
        try:
            self.signature.bind(*(None,) * input_count, **dict.fromkeys(attributes), **asked)
        except TypeError as error:
            return str(error)
        return None


class Registry:
    """Operators by (domain, op type), each in variants by opset version."""

    def __init__(self) -> None:
        self._operators: dict[tuple[str, str], list[Operator]] = {}

    def add(self, op_type: str, function: Lowering, *, since: int = 1, domain: str = "") -> None:
        """Register a lowering. Raises ValueError when the operator has one since that version already."""
        variants = self._operators.setdefault((domain, op_type), [])
        if any(variant.since == since for variant in variants):
            raise ValueError(f"{op_type} (domain {domain!r}) has two lowerings since opset {since}")
        operator = Operator(
            op_type=op_type, domain=domain, since=since, function=function, signature=inspect.signature(function)
        )
        variants.append(operator)
        variants.sort(key=lambda variant: variant.since)

    def lowers(self, *op_types: str, since: int = 1, domain: str = "") -> Callable[[Lowering], Lowering]:
        """Return a decorator that registers a function for these operators."""

        def register(function: Lowering) -> Lowering:
            for op_type in op_types:
                self.add(op_type, function, since=since, domain=domain)
            return function

        return register

    def add_named(self, rows: Iterable[tuple[str, Lowering]]) -> None:
        """Register operators that are one function each."""
        for op_type, function in rows:
            self.add(op_type, function)

    def find(self, domain: str, op_type: str, version: int) -> Operator | None:
        """Return the newest variant that the opset `version` has, None when there is none."""
        domain = "" if domain == "ai.onnx" else domain
        variants = [each for each in self._operators.get((domain, op_type), ()) if each.since <= version]
        return variants[-1] if variants else None

    def __iter__(self) -> Iterator[Operator]:
        return (operator for variants in self._operators.values() for operator in variants)


def refuse(condition: bool, what: str) -> None:
    """Raise GraphError when a lowering meets a case it does not cover; the node is named by the caller."""
    if condition:
        raise GraphError(what)
