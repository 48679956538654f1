"""Checkpoint -> a file of torch.save: a plain state dict, or one beside optimizer, scheduler and the rest."""

from __future__ import annotations

from typing import Any

from converter.dialects.optimizer.torch_state import state_dict
from converter.encoding.torch_file import StateDict, torch_file
from converter.model.checkpoint import Checkpoint
from converter.model.output import Output, OutputFile, Provenance

_TOP_LEVEL = ("scheduler_state_dict", "epoch", "global_step")


def write_checkpoint(checkpoint: Checkpoint, *, file_name: str, provenance: Provenance) -> Output:
    """Lay out the file that `torch.load(weights_only=True, mmap=True)` opens.

    Ties share one storage. Raises LossError for optimizer state about parameters that are in none of its groups.
    """
    pieces = torch_file(_root(checkpoint), provenance)
    return Output(files=(OutputFile(name=file_name, pieces=pieces),), names={name: name for name in checkpoint.names})


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
