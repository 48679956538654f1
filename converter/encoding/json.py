"""Strict JSON (RFC 8259): where lenient parsers would each read something else, the document is refused."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Callable
from typing import Any, NoReturn

from converter.errors import ReadError

_DEPTH_LIMIT = 64
_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*(?:"|\\?\Z)', re.DOTALL)
_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_SURROGATE_ESCAPE = re.compile(rb"\\u[dD][89a-fA-F]")


def loads(data: bytes, *, path: object, what: str) -> Any:
    """Return the value of a JSON document; `what` names the document in messages.

    Raises ReadError for anything but UTF-8 without a byte order mark, for duplicate keys, NaN and Infinity, numbers
    beyond a double, lone surrogates, and more than about a hundred nested containers.
    """

    def refuse(problem: str) -> NoReturn:
        raise ReadError(f"{what} {problem}", path=path)

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        values = dict(pairs)
        if len(values) != len(pairs):
            (twice, _), *_ = Counter(key for key, _ in pairs).most_common(1)
            refuse(f"has the key {twice!r} twice")
        return values

    def finite(text: str) -> float:
        value = float(text)
        return value if math.isfinite(value) else refuse(f"holds the number {text[:40]}, beyond a double")

    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ReadError(f"{what} is not UTF-8 at byte {error.start}", path=path) from error
    if text.startswith("\ufeff"):
        refuse("starts with a byte order mark")
    _check_depth(data, refuse)
    try:
        value = json.loads(
            text,
            object_pairs_hook=unique,
            parse_float=finite,
            parse_constant=lambda constant: refuse(f"holds {constant}, which is not JSON"),
        )
        if _SURROGATE_ESCAPE.search(data):
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError as error:
        raise ReadError(f"{what} holds half of a surrogate pair", path=path) from error
    except ValueError as error:
        raise ReadError(f"{what} is not JSON: {error}", path=path) from error
    return value


def _check_depth(data: bytes, refuse: Callable[[str], NoReturn]) -> None:
    """Cancel innermost pairs of brackets level by level: a parser that recurses must not see what is left over."""
    brackets = _STRING.sub(b"", data).translate(None, _NOT_BRACKETS)
    for _ in range(_DEPTH_LIMIT):
        if not brackets:
            return
        brackets = brackets.replace(b"[]", b"").replace(b"{}", b"")
    if brackets:
        refuse("is nested too deeply, or its brackets do not match")
