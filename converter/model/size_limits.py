"""How much a source may declare: a small file must not become an output that fills a disk."""

from __future__ import annotations

from converter.errors import ReadError
from converter.model.checkpoint import Checkpoint
from converter.model.file import Location, is_file, open_file
from converter.model.tensor import files_of

FREE_BYTES = 64 << 20
RATIO_LIMIT = 64


def check_growth(checkpoint: Checkpoint, source: Location) -> None:
    """Raise ReadError when tensors together declare much more than is stored in the files that they come from.

    Compressed zeros, expanded views and fill values grow; FREE_BYTES may, and RATIO_LIMIT times what is stored.
    """
    tensors = checkpoint.all_tensors
    files = {file.path: file.size for tensor in tensors for file in files_of(tensor)}
    if source not in files and is_file(source):
        files[source] = open_file(source).size
    declared, stored = sum(tensor.nbytes for tensor in tensors), sum(files.values())
    if declared > max(FREE_BYTES, RATIO_LIMIT * stored):
        raise ReadError(f"declares {declared} bytes in all, of which {stored} are stored", path=source)
