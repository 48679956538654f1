"""Extents that a user gives axes of inputs which may vary (`--shape`), by the name of an axis or of an input."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from converter.errors import UsageError, escape
from converter.graphs.description.signature import Signature

Given = Mapping[str, Sequence[int | None]]
"""One extent for the axes of that name, or those of the input of that name, None for what stays as it is."""


def with_shapes(signature: Signature, given: Given) -> Signature:
    """Return the signature in which those axes have the extents that are given, and vary no more.

    Raises UsageError for a name that is neither an axis that varies nor an input, for another number of axes than the
    input has, and for another extent than an axis has, or may have.
    """
    fixed = _fixed(signature, given)
    for each in signature.dimensions:
        if each.name in fixed and not each.has(fixed[each.name]):
            raise UsageError(f"--shape {escape(each.name)}={fixed[each.name]}: the graph takes {each.high} at the most")
    inputs = tuple(
        replace(each, shape=tuple(_with(extent, fixed) for extent in each.shape)) for each in signature.inputs
    )
    return replace(
        signature,
        inputs=inputs,
        dimensions=tuple(each for each in signature.dimensions if each.name not in fixed),
        thresholds=tuple(each for each in signature.thresholds if each.dimension not in fixed),
    )


def _fixed(signature: Signature, given: Given) -> dict[str, int]:
    fixed: dict[str, int] = {}
    for name, extents in given.items():
        for axis, extent in _axes(signature, name, extents):
            if fixed.setdefault(axis, extent) != extent:
                raise UsageError(f"--shape gives {escape(axis)!r} the extents {fixed[axis]} and {extent}")
    return fixed


def _axes(signature: Signature, name: str, extents: Sequence[int | None]) -> list[tuple[str, int]]:
    free = {term for each in signature.inputs for extent in each.shape for term in _terms(extent)}
    shape = (name,) if name in free and len(extents) == 1 else _shape_of(signature, name)
    shown = f"--shape {escape(name)}={','.join(str(each or '?') for each in extents)}"
    if len(shape) != len(extents):
        raise UsageError(f"{shown}: the input has {len(shape)} axes: [{', '.join(map(str, shape))}]")
    found = []
    for axis, extent in zip(shape, extents, strict=True):
        if extent not in (None, axis) and axis not in free:
            raise UsageError(f"{shown}: the extent {axis} is the graph's own")
        if extent is not None:
            found.append((str(axis), extent))
    return found


def _shape_of(signature: Signature, name: str) -> tuple[int | str, ...]:
    shapes = {each.name: each.shape for each in signature.inputs}
    if name not in shapes:
        there = ", ".join(f"{escape(name)}[{', '.join(map(str, shape))}]" for name, shape in shapes.items())
        raise UsageError(f"--shape {escape(name)}: the graph has no such axis or input", hint=f"it takes {there}")
    return shapes[name]


def _terms(extent: int | str) -> list[str]:
    return [term for term in str(extent).split(" + ") if not term.isdigit()]


def _with(extent: int | str, fixed: Mapping[str, int]) -> int | str:
    terms = [str(fixed.get(term, term)) for term in str(extent).split(" + ")]
    return sum(map(int, terms)) if "".join(terms).isdigit() else " + ".join(terms)
