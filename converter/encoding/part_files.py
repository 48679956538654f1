"""Files that are one part of a model: shards, and what several processes wrote, each a part of every tensor."""

from __future__ import annotations

import re
from collections.abc import Collection

from converter.errors import ReadError
from converter.model.file import Location, is_there

_SHARD = re.compile(r"-(\d+)-of-(\d+)\.(?:safetensors|bin|pth?|h5|msgpack)$")
"""huggingface_hub numbers shards from 1."""
_PARTS = re.compile(r"^(consolidated\.|(?:zero_pp_rank_\d+_)?mp_rank_)(\d+)((?:_model_states)?\.(?:pth?|safetensors))$")
"""Llama's and DeepSpeed's parts of a model that several processes hold, numbered from 0."""
_STEP = re.compile(r"^global_step\d+$")
_ZERO = "_optim_states.pt"
_INDEX = ".index.json"
_JOIN = "they are not joined here: save the whole model from the code that loads it"
ZERO_HINT = "zero_to_fp32.py, which DeepSpeed puts beside them, makes one file of them"


def folder_of_index(path: Location) -> Location:
    """Return the folder of shards whose index `path` is, any other path as it is."""
    return path.parent if path.name.endswith(_INDEX) and is_there(path) else path


def check_whole(path: Location) -> None:
    """Raise ReadError where the file at `path` is, by its name and those beside it, one part of a model."""
    shard = _SHARD.search(path.name)
    if shard is not None and int(shard[2]) > 1:
        hint = "give the folder, or its index"
        raise ReadError(f"is shard {int(shard[1])} of {int(shard[2])}", path=path, hint=hint)
    part = _PARTS.match(path.name)
    if part is None:
        return
    before, number, after = part.groups()
    others = (f"{before}{each:0{len(number)}}{after}" for each in (int(number) - 1, int(number) + 1) if each >= 0)
    beside = next((name for name in others if is_there(path.parent / name)), None)
    if beside is not None:
        raise ReadError(f"is one part of a model, of which {beside} is another", path=path, hint=_JOIN)


def parts_in(entries: Collection[str]) -> tuple[str, str] | None:
    """Return what a folder of parts holds, and what helps; None for other folders."""
    if any(name.endswith(_ZERO) for name in entries) or any(map(_STEP.match, entries)):
        return "holds the parts that DeepSpeed's processes wrote", ZERO_HINT
    parts = sorted(name for name in entries if _PARTS.match(name))
    if len(parts) > 1:
        return f"holds parts of a model, {parts[0]} and {len(parts) - 1} more", _JOIN
    if parts:
        return f"holds {parts[0]}, which is no file that a folder of ours has", "give that file"
    return None
