"""Files that are one part of a model: shards, and what several processes wrote, each a part of every tensor."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

from converter.errors import ReadError
from converter.model.file import Location, is_there

_SHARD = re.compile(r"-(\d+)-of-(\d+)\.(?:safetensors|bin|pth?|h5|msgpack)$")
"""huggingface_hub numbers shards from 1."""
_PARTS = re.compile(r"^(consolidated\.|(?:zero_pp_rank_\d+_)?mp_rank_)(\d+)((?:_model_states)?\.(?:pth?|safetensors))$")
"""Llama's and DeepSpeed's parts of a model that several processes hold, numbered from 0."""
_OF_PROCESSES = re.compile(r"^(.*-(?:shard|model_part-))(\d+)((?:-shard0)?\.pth?)$")
"""fairseq's and metaseq's, numbered from 0."""
_MEGATRON = re.compile(r"^(mp_rank_)(\d+)(_?)(\d*)$")
"""Folders of Megatron's processes: one for each part of every tensor, and of each for every stage."""
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
    if path.name.endswith(_ZERO):
        raise ReadError("has the part of an optimizer that one process of DeepSpeed had", path=path, hint=ZERO_HINT)
    part = _PARTS.match(path.name) or _OF_PROCESSES.match(path.name)
    if part is not None:
        _check_alone(path, path.parent, part)
    of_megatron = _MEGATRON.match(path.parent.name)
    if of_megatron is not None:
        _check_alone(path, path.parent.parent, of_megatron)


def _check_alone(path: Location, folder: Location, part: re.Match[str]) -> None:
    """Raise ReadError for a part with another in `folder`, and for one that is not the first: there are others."""
    groups = part.groups()
    numbers = {place: int(each) for place, each in enumerate(groups) if each.isdecimal()}
    others = (
        "".join((*groups[:place], f"{other:0{len(groups[place])}}", *groups[place + 1 :]))
        for place, number in numbers.items()
        for other in (number - 1, number + 1)
        if other >= 0
    )
    beside = next((name for name in others if is_there(folder / name)), None)
    if beside is not None or any(numbers.values()):
        what = "not the first" if beside is None else f"of which {beside} is another"
        raise ReadError(f"is one part of a model, {what}", path=path, hint=_JOIN)


def check_index(folder: Location, names: Collection[str]) -> None:
    """Raise ReadError for a folder with these weight files and no index, if they are shards."""
    shards = [shard for name in names if (shard := _SHARD.search(name)) is not None and int(shard[2]) > 1]
    if shards:
        what, hint = _without_index(shards)
        raise ReadError(what, path=folder, hint=hint)


def _without_index(shards: Sequence[re.Match[str]]) -> tuple[str, str]:
    what = f"holds {len(shards)} of {int(shards[0][2])} shards, and no index"
    return what, f"the index (*{_INDEX}), which lists all tensors, is where the shards are from"


def parts_in(entries: Collection[str]) -> tuple[str, str] | None:
    """Return what a folder of parts holds, and what helps; None for other folders."""
    if any(name.endswith(_ZERO) for name in entries) or any(map(_STEP.match, entries)):
        return "holds the parts that DeepSpeed's processes wrote", ZERO_HINT
    shards = [shard for name in entries if (shard := _SHARD.search(name)) is not None]
    if shards:
        return _without_index(shards)
    parts = sorted(name for name in entries if _PARTS.match(name) or _MEGATRON.match(name))
    if len(parts) > 1:
        return f"holds parts of a model, {parts[0]} and {len(parts) - 1} more", _JOIN
    if parts:
        return f"holds {parts[0]}, which is no file that a folder of ours has", "give that file"
    return None
