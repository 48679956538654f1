"""Constructors for the inert classes of the standard library whose values plain data can hold."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from functools import partial
from types import MappingProxyType
from typing import Any

from converter.encoding.pickle.globals import Global
from converter.encoding.pickle.machine import Constructor, is_key
from converter.encoding.pickle.values import FileBytes, OrderedItems, Placeholder
from converter.errors import ReadError


def _refused(what: str) -> ReadError:
    return ReadError(f"the pickle makes {what} from values that cannot be one")


def _dict(arguments: tuple[Any, ...], *, is_ordered: bool = False) -> OrderedItems:
    ordered = OrderedItems(is_ordered=is_ordered)
    match arguments:
        case ():
            return ordered
        case (dict() as items,):
            ordered.update(items)
            return ordered
        case (list() | tuple() as pairs,):
            for pair in pairs:
                if not (
                    isinstance(pair, list | tuple) and len(pair) == 2 and is_key(pair[0]) and pair[0] not in ordered
                ):
                    raise _refused("a dict")
                ordered[pair[0]] = pair[1]
            return ordered
    raise _refused("a dict")


def _defaulting(arguments: tuple[Any, ...]) -> OrderedItems:
    return _dict(arguments[1:])


def _list(arguments: tuple[Any, ...]) -> list[Any]:
    match arguments:
        case ():
            return []
        case (list() | tuple() as values,):
            return list(values)
    raise _refused("a list")


def _deque(arguments: tuple[Any, ...]) -> list[Any]:
    return _list(arguments[:1])


def _elements(arguments: tuple[Any, ...]) -> list[Any]:
    values = _list(arguments)
    if not all(map(is_key, values)):
        raise _refused("a set")
    return values


def _bytes(arguments: tuple[Any, ...]) -> bytes | FileBytes:
    match arguments:
        case ():
            return b""
        case (bytes() | FileBytes() as data,):
            return data
        case (str() as text, str() as codec) if codec.replace("-", "").lower() == "latin1":
            try:
                return text.encode("latin-1")
            except UnicodeEncodeError:
                pass
        case (str() as text,):
            return text.encode("utf-8", "surrogatepass")
    raise _refused("bytes")


def _complex(arguments: tuple[Any, ...]) -> complex:
    match arguments:
        case (int() | float() as real, int() | float() as imaginary):
            return complex(real, imaginary)
    raise _refused("a complex number")


def _path(arguments: tuple[Any, ...]) -> str:
    if not all(isinstance(part, str) for part in arguments):
        raise _refused("a path")
    return str(pathlib.PurePosixPath(*arguments))


def _reconstructed(arguments: tuple[Any, ...]) -> Any:
    match arguments:
        case (Global() as of, Global() as base, state):
            instance = Placeholder(of)
            match str(base), state:
                case "builtins.object", None:
                    return instance
                case "builtins.dict", dict():
                    instance.settable().update(state)
                    return instance
                case "builtins.list", list():
                    instance.extend(state)
                    return instance
            return Placeholder(of, (state,))
    raise _refused("an object")


_PATHS = ("Path", "PosixPath", "PurePath", "PurePosixPath", "PureWindowsPath", "WindowsPath")

PLAIN: Mapping[tuple[str, str], Constructor] = MappingProxyType(
    {
        ("collections", "OrderedDict"): partial(_dict, is_ordered=True),
        ("collections", "Counter"): _dict,
        ("collections", "defaultdict"): _defaulting,
        ("collections", "deque"): _deque,
        ("builtins", "dict"): _dict,
        ("builtins", "list"): _list,
        ("builtins", "tuple"): lambda arguments: tuple(_list(arguments)),
        ("builtins", "set"): lambda arguments: set(_elements(arguments)),
        ("builtins", "frozenset"): lambda arguments: frozenset(_elements(arguments)),
        ("builtins", "bytes"): _bytes,
        ("builtins", "bytearray"): _bytes,
        ("_codecs", "encode"): _bytes,
        ("builtins", "complex"): _complex,
        ("copyreg", "_reconstructor"): _reconstructed,
        **{(module, name): _path for module in ("pathlib", "pathlib._local") for name in _PATHS},
    }
)
