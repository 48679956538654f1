"""Checkpoints in several files: how tensors are dealt out, and the index that says where each is.

Follows huggingface_hub's convention (`model-00001-of-00003.safetensors`, `model.safetensors.index.json` with
`weight_map` and `metadata.total_size`), so that transformers opens the result.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from converter.declaring import option
from converter.encoding import json as strict_json
from converter.encoding.folder import open_inside
from converter.errors import ReadError, UsageError
from converter.model.file import Location, SourceFile
from converter.model.tensor import Tensor

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(i?)B?", re.IGNORECASE)
_INDEX_LIMIT_BYTES = 256 << 20


def parse_size(text: str) -> int:
    """Return the bytes that `text` ("5GB" decimal, "64MiB" binary, "0" for no limit) stands for.

    Raises UsageError for anything else.
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise UsageError(f"{text!r} is not a size", hint="write 5GB, 64MiB or a number of bytes")
    number, unit, binary = match.groups()
    return int(float(number) * (1024 if binary else 1000) ** " KMGT".index(unit.upper() or " "))


def shard_size_option(default: str | None) -> Any:
    """Return the option of every format whose weights may be several files."""
    return option(default, "Split weights into files of at most this: 5GB, 500MiB; 0 is one file.", metavar="SIZE")


def deal(tensors: Mapping[str, Tensor], max_bytes: int) -> list[list[str]]:
    """Deal names out in order, each shard at most `max_bytes` unless one tensor alone is larger; 0 is no limit."""
    shards: list[list[str]] = [[]]
    filled = 0
    for name, tensor in tensors.items():
        if max_bytes and shards[-1] and filled + tensor.nbytes > max_bytes:
            shards.append([])
            filled = 0
        shards[-1].append(name)
        filled += tensor.nbytes
    return shards


def shard_names(file_name: str, count: int) -> list[str]:
    """Return the names of `count` shards of what would be `file_name` in one piece."""
    stem, dot, suffix = file_name.partition(".")
    if count == 1:
        return [file_name]
    return [f"{stem}-{number:05d}-of-{count:05d}{dot}{suffix}" for number in range(1, count + 1)]


def index_json(tensors: Mapping[str, Tensor], shards: Sequence[Sequence[str]], names: Sequence[str]) -> bytes:
    """Return the index of shards called `names`."""
    total = sum(tensor.nbytes for tensor in tensors.values())
    weight_map = {name: file for shard, file in zip(shards, names, strict=True) for name in shard}
    document = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
    return (json.dumps(document, indent=2, ensure_ascii=False) + "\n").encode("utf-8")


def read(
    folder: Location, index: str, read_shard: Callable[[SourceFile, str], Mapping[str, Tensor]]
) -> dict[str, Tensor]:
    """Return the tensors of the shards that `index` in `folder` names, in the index's order.

    `read_shard` takes a shard and what the index calls it.

    Raises ReadError when the index is malformed, names itself, promises a tensor that its shard lacks, or says
    nothing of one that a shard holds; SafetyError when it leads out of the folder.
    """
    weight_map = read_index(folder, index)
    tensors: dict[str, Tensor] = {}
    for shard in dict.fromkeys(weight_map.values()):
        file = open_inside(folder, shard)
        for name, tensor in read_shard(file, shard).items():
            if weight_map.get(name) != shard:
                raise ReadError(f"is in this shard, but {index} does not say so", path=file.path, tensor=name)
            tensors[name] = tensor
    for name, shard in weight_map.items():
        if name not in tensors:
            raise ReadError(f"is not in this shard, as {index} says", path=folder / shard, tensor=name)
    return {name: tensors[name] for name in weight_map}


def read_index(folder: Location, name: str) -> dict[str, str]:
    """Return name -> file of the index `name` in `folder`. Raises ReadError when it is malformed or names itself."""
    file = open_inside(folder, name)
    if file.size > _INDEX_LIMIT_BYTES:
        raise ReadError(f"is an index of {file.size} bytes, and at most {_INDEX_LIMIT_BYTES} are read", path=file.path)
    document = strict_json.loads(file.read(0, file.size), path=file.path, what="index")
    weight_map = document.get("weight_map") if isinstance(document, dict) else None
    if not isinstance(weight_map, dict) or not weight_map:
        raise ReadError("has no weight_map", path=file.path)
    for tensor, shard in weight_map.items():
        if not isinstance(shard, str) or not shard:
            raise ReadError("is mapped to something that is not a file name", path=file.path, tensor=tensor)
        if shard == name:
            raise ReadError("is mapped to the index itself", path=file.path, tensor=tensor)
    return weight_map
