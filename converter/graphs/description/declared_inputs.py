"""What a user says that a model takes: ``input_ids:int64[batch,seq],pixel_values:float32[batch,3,224,224]``."""

from __future__ import annotations

import re

from converter.errors import UsageError
from converter.graphs.description.signature import GraphInput
from converter.model.dtype import DType

_FORM = 'such as "input_ids:int64[batch,seq],pixel_values:float32[batch,3,224,224]"'
_INPUT = re.compile(r"\s*([A-Za-z_][A-Za-z0-9_]*)\s*:\s*([a-z0-9_]+)\s*\[([^\[\]]*)\]\s*(,|$)")
_DIMENSION = re.compile(r"[A-Za-z_][A-Za-z0-9_]*|[0-9]{1,9}")


def parse_inputs(text: str) -> tuple[GraphInput, ...]:
    """Return the inputs that `text` lists; a dimension that is a word may vary. Raises UsageError for another form."""
    found: list[GraphInput] = []
    position = 0
    while position < len(text):
        match = _INPUT.match(text, position)
        if match is None:
            raise UsageError(f"--inputs is a list {_FORM}, not {text[position:]!r}")
        name, dtype, dimensions, comma = match.groups()
        position = match.end()
        if name in (each.name for each in found):
            raise UsageError(f"--inputs has {name!r} twice")
        found.append(GraphInput(name=name, dtype=_dtype(dtype), shape=_shape(dimensions, name)))
        if comma and position == len(text):
            raise UsageError(f"--inputs ends with a comma; it is a list {_FORM}")
    if not found:
        raise UsageError(f"--inputs is empty; it is a list {_FORM}")
    return tuple(found)


def _dtype(name: str) -> DType:
    try:
        return DType(name)
    except ValueError as error:
        known = ", ".join(dtype.value for dtype in DType)
        raise UsageError(f"--inputs has the unknown type {name!r}", hint=f"known: {known}") from error


def _shape(text: str, name: str) -> tuple[int | str, ...]:
    if not text.strip():
        return ()
    words = [word.strip() for word in text.split(",")]
    wrong = next((word for word in words if not _DIMENSION.fullmatch(word)), None)
    if wrong is not None:
        raise UsageError(
            f"--inputs: {wrong!r} is no dimension of {name}; a dimension is a number, or a name where it may vary"
        )
    return tuple(int(word) if word.isdecimal() else word for word in words)
