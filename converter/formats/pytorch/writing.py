"""Checkpoint -> a file of torch.save: a plain state dict, or one beside optimizer, scheduler and the rest."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from converter.dialects.optimizer_order import inferred_algorithm
from converter.encoding.torch_file import StateDict, torch_file
from converter.errors import LossError
from converter.model.checkpoint import Checkpoint
from converter.model.dtype import DType
from converter.model.optimizer import OptimizerState
from converter.model.output import Output, OutputFile, Provenance
from converter.model.tensor import ArrayTensor, Tensor

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
        root["optimizer_state_dict"] = optimizer_state_dict(checkpoint.optimizer)
    root |= {key: checkpoint.extras[key] for key in _TOP_LEVEL if key in checkpoint.extras}
    others = {key: value for key, value in checkpoint.extras.items() if key not in _TOP_LEVEL}
    return {**root, "extras": others} if others else root


def optimizer_state_dict(optimizer: OptimizerState) -> dict[str, Any]:
    """Return what `Optimizer.load_state_dict` takes: numbered entries, and groups with `param_names`.

    Raises LossError when a slot belongs to a parameter of no group.
    """
    names = [name for group in optimizer.groups for name in group.parameters]
    unknown = {name for tensors in optimizer.slots.values() for name in tensors}.difference(names)
    if unknown:
        raise LossError("has optimizer state and is in no parameter group", tensor=min(unknown))
    groups, start = [], 0
    for group in optimizer.groups:
        ids = list(range(start, start + len(group.parameters)))
        groups.append({**group.hyperparameters, "params": ids, "param_names": list(group.parameters)})
        start += len(ids)
    state = {number: entry for number, name in enumerate(names) if (entry := dict(_entry(optimizer, name)))}
    made = {"state": state, "param_groups": groups}
    hyperparameters = [group.hyperparameters for group in optimizer.groups]
    if inferred_algorithm(hyperparameters, optimizer.slots) != optimizer.algorithm:
        made["algorithm"] = optimizer.algorithm
    return made


def _entry(optimizer: OptimizerState, name: str) -> Iterator[tuple[str, Tensor]]:
    slots: Mapping[str, Mapping[str, Tensor]] = optimizer.slots
    has_slots = any(name in tensors for tensors in slots.values())
    if optimizer.step is not None and (has_slots or not any(slots.values())):
        yield "step", ArrayTensor(dtype=DType.FLOAT32, shape=(), array=np.asarray(optimizer.step, np.float32))
    for slot, tensors in slots.items():
        if name in tensors:
            yield slot, tensors[name]
