"""Names of tensors as names of HDF5 links: what a link cannot be called is escaped, and comes back."""

from __future__ import annotations

import re

from converter.errors import ReadError

_REFUSED = re.compile("[%/\0\ud800-\udfff]")
_ESCAPED = re.compile(r"%(?:u([0-9A-F]{4})|([0-9A-F]{2}))")
_EMPTY = "%"


def escaped(name: str) -> str:
    """Return `name` as one link: slashes, NULs, percent signs and lone surrogates as ``%2F`` or ``%uD800``."""
    if not name:
        return _EMPTY
    if name == ".":
        return "%2E"
    return _REFUSED.sub(lambda match: _escape(ord(match[0])), name)


def _escape(code: int) -> str:
    return f"%{code:02X}" if code < 0x100 else f"%u{code:04X}"


def set_apart(name: str) -> str:
    """Return `name` as a link when `escaped(name)` means something else where it is to be: its first letter escaped."""
    return _escape(ord(name[0])) + escaped(name)[1:] if name else _EMPTY


def unescaped(link: str) -> str:
    """Return what `escaped` or `set_apart` was given. Raises ReadError for what it never returns."""
    if link == _EMPTY:
        return ""
    name = _ESCAPED.sub(lambda match: chr(int(match[1] or match[2], 16)), link)
    if link not in (escaped(name), set_apart(name)):
        raise ReadError(f"has a link {link!r} that stands for no name")
    return name
