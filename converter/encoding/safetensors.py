"""The safetensors layout: an 8-byte length, a JSON header, then the tensors without holes.

Spec: https://github.com/huggingface/safetensors#format. Stricter than the reference where that one lets a file say
two things at once: duplicate names are refused, whatever their ranges.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from converter.encoding import json as strict_json
from converter.encoding import shards
from converter.encoding.folder import open_inside
from converter.encoding.part_files import check_index
from converter.errors import LossError, ReadError
from converter.model.dtype import DType
from converter.model.file import Location, SourceFile
from converter.model.output import Late, OutputFile, Piece, Provenance
from converter.model.tensor import FileTensor, Tensor

CODES: Mapping[DType, str] = {
    DType.BOOL: "BOOL",
    DType.UINT8: "U8",
    DType.INT8: "I8",
    DType.UINT16: "U16",
    DType.INT16: "I16",
    DType.UINT32: "U32",
    DType.INT32: "I32",
    DType.UINT64: "U64",
    DType.INT64: "I64",
    DType.FLOAT16: "F16",
    DType.BFLOAT16: "BF16",
    DType.FLOAT32: "F32",
    DType.FLOAT64: "F64",
    DType.COMPLEX64: "C64",
    DType.FLOAT8_E4M3FN: "F8_E4M3",
    DType.FLOAT8_E5M2: "F8_E5M2",
    DType.FLOAT8_E4M3FNUZ: "F8_E4M3FNUZ",
    DType.FLOAT8_E5M2FNUZ: "F8_E5M2FNUZ",
    DType.FLOAT8_E8M0FNU: "F8_E8M0",
}
_DTYPES = {code: dtype for dtype, code in CODES.items()}
_HEADER_LIMIT_BYTES = 100_000_000  # the reference's own
_RANK_LIMIT = 64
FILE_NAME = "model.safetensors"
SUFFIX = ".safetensors"
INDEX_SUFFIX = ".safetensors.index.json"
METADATA_KEY = "__metadata__"
PROVENANCE_KEY = "ckconv"
_ENTRY_FIELDS = {"dtype", "shape", "data_offsets"}


def looks_like(head: bytes, size: int) -> bool:
    """Whether a file of `size` bytes that starts with `head` has the shape of a header."""
    return len(head) >= 9 and 2 <= int.from_bytes(head[:8], "little") <= size - 8 and head[8:9] == b"{"


def read(file: SourceFile) -> tuple[dict[str, FileTensor], dict[str, str]]:
    """Return the tensors of `file`, in the order of their data, and its metadata. Reads the header alone.

    Raises ReadError for whatever the spec does not allow, naming the tensor.
    """
    if file.size < 8:
        raise ReadError("is too short for a safetensors header", path=file.path)
    length = int.from_bytes(file.read(0, 8), "little")
    if not 2 <= length <= min(_HEADER_LIMIT_BYTES, file.size - 8):
        raise ReadError(f"declares a header of {length} bytes, which it cannot hold", path=file.path)
    header = strict_json.loads(file.read(8, length), path=file.path, what="header")
    if not isinstance(header, dict):
        raise ReadError("header is not a JSON object", path=file.path)
    metadata = header.pop(METADATA_KEY, {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise ReadError("__metadata__ does not map strings to strings", path=file.path)
    entries = sorted(((name, *_entry(file, name, entry)) for name, entry in header.items()), key=lambda e: (e[3], e[4]))
    tensors: dict[str, FileTensor] = {}
    position = 0
    for name, dtype, shape, start, stop in entries:
        if start != position:
            raise ReadError(
                f"its data overlaps others or leaves a hole at byte {position}", path=file.path, tensor=name
            )
        tensors[name] = FileTensor(dtype=dtype, shape=shape, file=file, offset=8 + length + start)
        position = stop
    if 8 + length + position != file.size:
        stored = file.size - 8 - length
        raise ReadError(f"holds {stored} bytes of data, its header describes {position}", path=file.path)
    return tensors, metadata


def _entry(file: SourceFile, name: str, entry: Any) -> tuple[DType, tuple[int, ...], int, int]:
    if not isinstance(entry, dict) or set(entry) != _ENTRY_FIELDS:
        raise ReadError("has a malformed header entry", path=file.path, tensor=name)
    code, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(code, str) or code not in _DTYPES:
        raise ReadError(f"has an unknown dtype {code!r}", path=file.path, tensor=name)
    if not _are_sizes(shape) or len(shape) > _RANK_LIMIT or not _are_sizes(offsets) or len(offsets) != 2:
        raise ReadError("has a malformed shape or range", path=file.path, tensor=name)
    dtype, nbytes = _DTYPES[code], _DTYPES[code].itemsize
    for extent in shape:
        nbytes *= extent
    start, stop = offsets
    if stop - start != nbytes:
        raise ReadError(f"has {stop - start} bytes, its shape needs {nbytes}", path=file.path, tensor=name)
    if stop > file.size:
        raise ReadError(f"ends at byte {stop}, past the end of the file", path=file.path, tensor=name)
    return dtype, tuple(shape), start, stop


def _are_sizes(value: Any) -> bool:
    return isinstance(value, list) and all(type(item) is int and 0 <= item < 1 << 63 for item in value)


def read_folder(folder: Location, names: Iterable[str]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return tensors and metadata of the one model that `folder` holds, in one file or in shards with an index.

    `names` are the folder's entries. Raises ReadError when there is no such model or more than one.
    """
    files = sorted(name for name in names if name.endswith(SUFFIX) and not name.startswith("."))
    indexes = sorted(name for name in names if name.endswith(INDEX_SUFFIX))
    if not indexes:
        check_index(folder, files)
    if len(indexes) > 1 or (not indexes and len(files) > 1):
        raise ReadError(f"holds several models: {', '.join(indexes or files)}", path=folder)
    if not indexes:
        if not files:
            raise ReadError("holds no safetensors file", path=folder)
        tensors, metadata = read(open_inside(folder, files[0]))
        return dict(tensors), metadata
    merged: dict[str, str] = {}
    shards_read: set[str] = set()

    def read_shard(file: SourceFile, name: str) -> Mapping[str, Tensor]:
        tensors, metadata = read(file)
        merged.update(metadata)
        shards_read.add(name)
        return tensors

    all_tensors = shards.read(folder, indexes[0], read_shard)
    stray = [name for name in files if name not in shards_read]
    if stray:
        raise ReadError(f"is another model than the one {indexes[0]} describes", path=folder / stray[0])
    return all_tensors, merged


def files(
    tensors: Mapping[str, Tensor],
    metadata: Mapping[str, str],
    provenance: Provenance | None,
    *,
    max_shard_bytes: int = 0,
) -> tuple[OutputFile, ...]:
    """Lay `tensors` out as `model.safetensors` or, past `max_shard_bytes`, as shards and an index.

    `__metadata__` holds `metadata`, `format: pt` and the provenance, where there is one. Tensors are ordered by
    name, those with wide elements first so that all are aligned: the same tensors give the same bytes, wherever
    they came from. Raises LossError for a name that the header has for itself.
    """
    if METADATA_KEY in tensors:
        hint = f"--exclude {METADATA_KEY} leaves it out, --mapping FILE renames it"
        raise LossError("is a name that safetensors has for itself", tensor=METADATA_KEY, hint=hint)
    ordered = dict(sorted(tensors.items(), key=lambda item: (-item[1].dtype.itemsize, item[0])))
    parts = shards.deal(ordered, max_shard_bytes)
    names = shards.shard_names(FILE_NAME, len(parts))

    outputs = [
        OutputFile(name=name, pieces=_pieces({key: ordered[key] for key in part}, metadata, provenance))
        for name, part in zip(names, parts, strict=True)
    ]
    if len(parts) > 1:
        outputs.append(OutputFile(name=FILE_NAME + ".index.json", pieces=(shards.index_json(ordered, parts, names),)))
    return tuple(outputs)


def _pieces(
    tensors: Mapping[str, Tensor], metadata: Mapping[str, str], provenance: Provenance | None
) -> tuple[Piece, ...]:
    entries: dict[str, Any] = {}
    position = 0
    for name, tensor in tensors.items():
        stop = position + tensor.nbytes
        entries[name] = {"dtype": CODES[tensor.dtype], "shape": tensor.shape, "data_offsets": [position, stop]}
        position = stop

    def header(document: bytes | None) -> bytes:
        origin = {} if document is None else {PROVENANCE_KEY: document.decode("ascii")}
        fields = {METADATA_KEY: {**metadata, "format": "pt", **origin}, **entries}
        return json.dumps(fields, separators=(",", ":"), ensure_ascii=False).encode("utf-8")

    length = -(-len(header(None if provenance is None else provenance.widest())) // 8) * 8
    prefix = length.to_bytes(8, "little")
    if provenance is None:
        return (prefix + header(None).ljust(length), *tensors.values())
    return (
        Late(nbytes=8 + length, render=lambda: prefix + header(provenance.render()).ljust(length)),
        *tensors.values(),
    )
