"""What an output says of where it comes from (`converter.model.output.Provenance`), read back from where it has that.

Each function returns the document, an empty one where there is none, and raises ReadError for one that is no JSON.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from converter.encoding import flax_file, hdf5, safetensors
from converter.encoding import json as strict_json
from converter.encoding import zip as zip_archive
from converter.encoding.description import FILE_NAME, LIMIT_BYTES, parse_document, read_document
from converter.encoding.folder import open_inside
from converter.errors import ReadError
from converter.model.file import Location, SourceFile, is_dir, is_there, names_in, open_file

Document = Mapping[str, Any]
_ZIP_MAGIC = b"PK"


def of_text(text: object, path: Location) -> Document:
    """Return the one that `text` is, where it is text."""
    data = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    return _mapping(strict_json.loads(data, path=path, what="provenance")) if isinstance(data, bytes) else {}


def of_description(text: str | bytes | None, path: Location) -> Document:
    """Return that of a whole document of `converter.encoding.description`."""
    data = text.encode("utf-8") if isinstance(text, str) else text
    return {} if data is None else _mapping(parse_document(data, path).get("provenance"))


def in_document(folder: Location, name: str = FILE_NAME) -> Document:
    """Return that of the document `name` in `folder`, or beside the file that is given for it."""
    folder = folder if is_dir(folder) else folder.parent
    return _mapping(read_document(open_inside(folder, name)).get("provenance")) if is_there(folder / name) else {}


def in_safetensors(path: Location) -> Document:
    """Return that of the metadata of a file, or of the first in a folder: all of one output say the same."""
    return _of_safetensors(_file_at(path, safetensors.SUFFIX))


def in_hdf5(path: Location) -> Document:
    """Return that of the attributes of a file."""
    return of_text(hdf5.read(open_file(path)).attributes.get("ckconv"), path)


def in_zip(path: Location) -> Document:
    """Return that of an archive, a member in a folder or in none."""
    file = open_file(path)
    if not _is_zip(file):
        return {}
    found = [member for name, member in zip_archive.read_members(file).items() if name.rpartition("/")[2] == FILE_NAME]
    if len(found) != 1:
        return {}
    return of_text(zip_archive.read_bytes(file, found[0], limit_bytes=LIMIT_BYTES), path)


def in_zip_or_hdf5(path: Location) -> Document:
    """Return that of an archive, or of a file that is none."""
    return (in_zip if _is_zip(open_file(path)) else in_hdf5)(path)


def in_flax(path: Location) -> Document:
    """Return that of the map that a file is: a key without an array, or a document in bytes."""
    file = open_file(path)
    value = flax_file.read_tree(file).get(flax_file.OWN_KEY)
    if isinstance(value, dict) and list(value.values()) == [{}]:
        return of_text(next(iter(value)), path)
    if value is None:
        return {}
    tensor = flax_file.named_tensor(file, flax_file.OWN_KEY, value)
    return of_description(tensor.numpy().tobytes() if tensor.nbytes <= LIMIT_BYTES else None, path)


def _of_safetensors(file: SourceFile) -> Document:
    return of_text(safetensors.read(file)[1].get(safetensors.PROVENANCE_KEY), file.path)


def _file_at(path: Location, suffix: str) -> SourceFile:
    if not is_dir(path):
        return open_file(path)
    names = sorted(name for name in names_in(path) if name.endswith(suffix) and not name.startswith("."))
    if not names:
        raise ReadError(f"holds no file that ends in {suffix}", path=path)
    return open_inside(path, names[0])


def _is_zip(file: SourceFile) -> bool:
    return file.read(0, min(len(_ZIP_MAGIC), file.size)) == _ZIP_MAGIC


def _mapping(value: object) -> Document:
    return value if isinstance(value, dict) else {}
