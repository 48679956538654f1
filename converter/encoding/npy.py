"""NumPy's array files: ``.npy`` versions 1.0 to 3.0 (https://numpy.org/doc/2.4/reference/generated/numpy.lib.format.html).

A header is a line of Python's notation, which is parsed here and never evaluated; arrays of Python objects, which are
pickles, are never read.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from converter.errors import ReadError
from converter.model.dtype import DType
from converter.model.file import Location

MAGIC = b"\x93NUMPY"
START_BYTES = len(MAGIC) + 2 + 4
"""What says how long a header is, at most."""

_HEADER_LIMIT_BYTES = 64 << 10
_ALIGNMENT_BYTES = 64
_AXES_LIMIT = 64
_DESCR = r"'descr'\s*:\s*(?:'(?P<descr>[^'\\]*)'|(?P<fields>\[[^{}]*\]))"
_ORDER = r"'fortran_order'\s*:\s*(?P<order>True|False)"
_SHAPE = r"'shape'\s*:\s*\((?P<shape>[\d,\sL]*)\)"
_ENTRY = re.compile(rf"\s*(?:{_DESCR}|{_ORDER}|{_SHAPE})\s*(?:,|$)")
_EXTENT = re.compile(r"\s*(\d{1,19})L?\s*")
_NUMBERS = re.compile(r"([<>|=])([bui?fc])(\d{1,2})")
_WHAT = {"O": "Python objects, which are a pickle", "U": "text", "S": "text", "a": "text", "M": "dates", "m": "times"}
_WHAT["V"] = "raw bytes, whose type numpy does not say"


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """What stands before the elements of an array: how many bytes it takes, and what they are.

    `dtype` is None where they are no numbers; `what` says what they are then. With `is_fortran` the first axis is the
    fastest. `is_swapped` says that the bytes of an element are in big-endian order.
    """

    nbytes: int
    dtype: DType | None
    what: str
    shape: tuple[int, ...]
    is_fortran: bool
    is_swapped: bool


def header(read: Callable[[int], bytes], path: Location, name: str) -> Header:
    """Parse what a file begins with. `read` returns its first bytes, fewer where there are no more.

    Raises ReadError when it is no header of numpy's.
    """
    start = read(START_BYTES)
    major = start[len(MAGIC)] if start.startswith(MAGIC) and len(start) == START_BYTES else 0
    if major not in (1, 2, 3):
        raise ReadError("does not begin as an array of numpy does", path=path, tensor=name)
    size = 2 if major == 1 else 4
    before = len(MAGIC) + 2 + size
    (length,) = struct.unpack("<H" if major == 1 else "<I", start[before - size : before])
    if length > _HEADER_LIMIT_BYTES:
        raise ReadError(
            f"has a header of {length} bytes, at most {_HEADER_LIMIT_BYTES} are read", path=path, tensor=name
        )
    raw = read(before + length)[before:]
    try:
        found = _parsed(raw.decode("utf-8" if major == 3 else "latin-1")) if len(raw) == length else None
    except UnicodeDecodeError:
        found = None
    if found is None:
        raise ReadError("has a header that is not one of numpy's", path=path, tensor=name)
    descr, is_fortran, shape = found
    dtype, what, is_swapped = _element(descr)
    return Header(
        nbytes=before + length, dtype=dtype, what=what, shape=shape, is_fortran=is_fortran, is_swapped=is_swapped
    )


def _parsed(text: str) -> tuple[str, bool, tuple[int, ...]] | None:
    """Return type, order and shape of a header; None for anything that numpy does not write."""
    inner = text.strip()
    if not (inner.startswith("{") and inner.endswith("}")):
        return None
    found: dict[str, str] = {}
    inner, position = inner[1:-1].rstrip(), 0
    while position < len(inner):
        entry = _ENTRY.match(inner, position)
        if entry is None or entry.end() == position:
            return None
        for key, value in entry.groupdict().items():
            if value is not None and found.setdefault("descr" if key == "fields" else key, value) is not value:
                return None
        position = entry.end()
    extents = [each for each in found.get("shape", "").split(",") if each.strip()]
    matches = [_EXTENT.fullmatch(each) for each in extents]
    if found.keys() != {"descr", "order", "shape"} or len(extents) > _AXES_LIMIT:
        return None
    shape = tuple(int(match[1]) for match in matches if match is not None)
    return (found["descr"], found["order"] == "True", shape) if len(shape) == len(extents) else None


def _element(descr: str) -> tuple[DType | None, str, bool]:
    """Return the element type of a `descr`, or what it is instead, and whether its bytes are swapped."""
    if descr.startswith("["):
        return None, "records", False
    number = _NUMBERS.fullmatch(descr)
    if number is not None:
        try:
            return DType.of(np.dtype(f"{number[2]}{number[3]}")), "", number[1] == ">" and number[3] != "1"
        except (KeyError, TypeError, ValueError):
            return None, f"numbers of a type that no format has ({descr})", False
    kind = descr.lstrip("<>|=")[:1]
    return None, _WHAT.get(kind, f"of the type {descr[:40]!r}, which is not known"), False


def written_header(dtype: DType, shape: tuple[int, ...]) -> bytes:
    """Return what numpy writes before the elements of a contiguous array, so that these start at a multiple of 64."""
    extents = ", ".join(map(str, shape)) + ("," if len(shape) == 1 else "")
    text = f"{{'descr': '{dtype.numpy.str}', 'fortran_order': False, 'shape': ({extents}), }}"
    before = len(MAGIC) + 4
    padding = -(before + len(text) + 1) % _ALIGNMENT_BYTES
    line = text.encode("ascii") + b" " * padding + b"\n"
    return MAGIC + b"\x01\x00" + struct.pack("<H", len(line)) + line
