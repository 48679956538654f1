"""A strict reader of tar archives by position: ustar with the extended headers of POSIX and long names of GNU.

https://pubs.opengroup.org/onlinepubs/9799919799/utilities/pax.html. Files alone are told, and where their bytes are;
links, devices and sparse files are refused, and so is what two readers could understand differently.
"""

from __future__ import annotations

from dataclasses import dataclass

from converter.errors import ReadError, SafetyError
from converter.model.file import PartFile, SourceFile

_BLOCK = 512
_MAGIC, _MAGIC_OFFSET = b"ustar", 257
_MEMBER_LIMIT = 1 << 16
_EXTENDED_LIMIT_BYTES = 1 << 20
_PADDING_LIMIT_BYTES = 1 << 20
_FILE, _FOLDER, _LONG_NAME, _EXTENDED, _GLOBAL = b"0\0", b"5", b"L", b"x", b"g"


@dataclass(slots=True, kw_only=True)
class _Extended:
    """What headers before one say of it."""

    name: str | None = None
    size: int | None = None


def looks_like(head: bytes) -> bool:
    """Whether a file that starts with `head` is an archive."""
    return head[_MAGIC_OFFSET : _MAGIC_OFFSET + len(_MAGIC)] == _MAGIC


def read_members(file: SourceFile) -> dict[str, PartFile]:
    """Return the files in an archive by name, without `./` before it.

    Raises ReadError for damage, ambiguity and kinds of members that no checkpoint has, SafetyError for links and for
    names that point outside the archive.
    """
    members: dict[str, PartFile] = {}
    seen: set[str] = set()
    position, extended = 0, _Extended()
    while any(header := _block(file, position)):
        kind = _checked(header, file)
        start, size = position + _BLOCK, extended.size
        size = _number(header[124:136], file) if size is None else size
        if start + size > file.size:
            raise ReadError("tar archive is cut short", path=file.path)
        position = start + -(-size // _BLOCK) * _BLOCK
        if kind in (_LONG_NAME, _EXTENDED, _GLOBAL):
            _extend(extended, kind, _content(file, start, size), file)
            continue
        name = _name(header, extended, file)
        if kind not in _FILE and kind != _FOLDER:
            raise SafetyError(f"tar member {name!r} is a link, or something else that is no file", path=file.path)
        if name.casefold() in seen or len(seen) >= _MEMBER_LIMIT:
            raise ReadError(f"tar archive has {name!r} twice, or too many members", path=file.path)
        if kind != _FOLDER:
            seen.add(name.casefold())
            members[name] = PartFile(file, start, size)
        extended = _Extended()
    rest = file.size - position
    if rest > _PADDING_LIMIT_BYTES or any(file.read(position, rest)):
        raise ReadError("tar archive has bytes behind its end", path=file.path)
    return members


def _block(file: SourceFile, position: int) -> bytes:
    if position + _BLOCK > file.size:
        raise ReadError("tar archive is cut short: its end is missing", path=file.path)
    return file.read(position, _BLOCK)


def _checked(header: bytes, file: SourceFile) -> bytes:
    """Return the kind of a member. Raises ReadError unless its header is whole."""
    if not looks_like(header):
        raise ReadError("tar archive is damaged: a member has no header", path=file.path)
    blank = header[:148] + b" " * 8 + header[156:]
    if _number(header[148:156], file) != sum(blank):
        raise ReadError("tar archive is damaged: a header has another checksum", path=file.path)
    return header[156:157]


def _number(data: bytes, file: SourceFile) -> int:
    if data[0] == 0x80:
        return int.from_bytes(data[1:], "big")
    text = data.rstrip(b"\0 ").lstrip(b" ")
    if not text or text.strip(b"01234567"):
        raise ReadError("tar archive is damaged: a header has no number where one should be", path=file.path)
    return int(text, 8)


def _content(file: SourceFile, start: int, size: int) -> bytes:
    if size > _EXTENDED_LIMIT_BYTES:
        raise ReadError(f"tar archive has a header of {size} bytes", path=file.path)
    return file.read(start, size)


def _extend(extended: _Extended, kind: bytes, content: bytes, file: SourceFile) -> None:
    """Take what a header says of the next one; of those for all members nothing may concern names or sizes."""
    if kind == _LONG_NAME:
        extended.name = _text(content.rstrip(b"\0"), file)
        return
    values = _records(content, file)
    if kind == _GLOBAL:
        if values.keys() & {"path", "size"}:
            raise ReadError("tar archive has one name or size for all members", path=file.path)
        return
    if any(key.startswith("GNU.sparse") for key in values):
        raise ReadError("tar archive has a sparse file", path=file.path)
    if "path" in values:
        extended.name = values["path"]
    if "size" in values:
        if not (values["size"].isascii() and values["size"].isdigit() and len(values["size"]) < 20):
            raise ReadError("tar archive is damaged: a size is no number", path=file.path)
        extended.size = int(values["size"])


def _records(content: bytes, file: SourceFile) -> dict[str, str]:
    """Return the values of an extended header: lines of ``<length> <key>=<value>``."""
    found: dict[str, str] = {}
    while content:
        digits, space, _ = content[:20].partition(b" ")
        length = int(digits) if space and digits.isdigit() else 0
        key, is_pair, value = content[len(digits) + 1 : length].partition(b"=")
        if not len(digits) + 1 < length <= len(content) or not is_pair or value[-1:] != b"\n":
            raise ReadError("tar archive is damaged: an extended header is malformed", path=file.path)
        found[_text(key, file)] = _text(value[:-1], file)
        content = content[length:]
    return found


def _name(header: bytes, extended: _Extended, file: SourceFile) -> str:
    """Return the name of a member. Raises SafetyError for one that points outside the archive."""
    name = extended.name
    if name is None:
        prefix = header[345:500].partition(b"\0")[0] if header[257:263] == b"ustar\0" else b""
        short = _text(header[:100].partition(b"\0")[0], file)
        name = f"{_text(prefix, file)}/{short}" if prefix else short
    parts = [part for part in name.rstrip("/").split("/") if part != "."]
    if name.startswith("/") or "\\" in name or "\0" in name or {"", ".."} & set(parts):
        raise SafetyError(f"tar member {name!r} has a name that points elsewhere", path=file.path)
    return "/".join(parts)


def _text(data: bytes, file: SourceFile) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ReadError("tar archive has a name that is not UTF-8", path=file.path) from error
