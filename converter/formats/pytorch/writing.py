"""Checkpoint -> a file of torch.save: a plain state dict, or one beside optimizer, scheduler and the rest."""

from __future__ import annotations

from typing import Any

from converter.dialects.optimizer.torch_state import state_dict
from converter.dialects.training import names_in
from converter.encoding.torch_file import StateDict, torch_file
from converter.model.checkpoint import Checkpoint
from converter.model.output import Output, OutputFile, Provenance
from converter.model.structure import Slot, replaced

_TOP_LEVEL = ("scheduler_state_dict", "epoch", "global_step")


def write_checkpoint(checkpoint: Checkpoint, *, file_name: str, provenance: Provenance) -> Output:
    """Lay out the file that `torch.load(weights_only=True, mmap=True)` opens, nested as the source where that was one.

    Ties share one storage. Raises LossError for optimizer state about parameters that are in none of its groups.
    """
    is_bare = False
    root, names = _root(checkpoint), {name: name for name in checkpoint.names}
    if checkpoint.structure is not None:
        nested = replaced(checkpoint.structure, lambda slot: slot, lambda state: state.value)
        is_bare = isinstance(nested, Slot)
        names = {nested.name: nested.name} if is_bare else dict(names_in(nested))
        root = replaced(nested, lambda slot: checkpoint.tensor(slot.name), lambda state: state.value)
    pieces = torch_file(root, provenance)
    file = OutputFile(name=file_name, pieces=pieces)
    return Output(files=(file,), names=names, read_with={"name": next(iter(names))} if is_bare else {})


def _root(checkpoint: Checkpoint) -> Any:
    weights = StateDict(tensors=checkpoint.tensors, aliases=checkpoint.aliases)
    if checkpoint.optimizer is None and not checkpoint.extras:
        return weights
    root: dict[str, Any] = {"model_state_dict": weights}
    if checkpoint.optimizer is not None:
        root["optimizer_state_dict"] = state_dict(checkpoint.optimizer)
    root |= {key: checkpoint.extras[key] for key in _TOP_LEVEL if key in checkpoint.extras}
    others = {key: value for key, value in checkpoint.extras.items() if key not in _TOP_LEVEL}
    return {**root, "extras": others} if others else root
