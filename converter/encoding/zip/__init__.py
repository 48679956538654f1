"""Zip archives (PKWARE APPNOTE 6.3): a strict reader by position, and a writer that lays out before it writes."""

from __future__ import annotations

from converter.encoding.zip.reading import (
    Member,
    checksum,
    member_tensor,
    read_bytes,
    read_members,
    read_names,
    read_start,
)
from converter.encoding.zip.writing import Crc32, Record, archive

__all__ = [
    "Crc32",
    "Member",
    "Record",
    "archive",
    "checksum",
    "member_tensor",
    "read_bytes",
    "read_members",
    "read_names",
    "read_start",
]
