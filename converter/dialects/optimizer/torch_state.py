"""Which parameter an optimizer's entry belongs to: torch.optim numbers parameters, and files rarely say their names.

Conventions are tried, and each must fit every group size and every slot shape; only a single fit is believed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from converter.dialects.names.wrappers import INSIDE, PARALLEL
from converter.dialects.optimizer.numbering_conventions import (
    Groups,
    ModuleOrder,
    candidates,
    cut,
    without_frozen_modules,
)
from converter.errors import LossError
from converter.model.checkpoint import Checkpoint
from converter.model.dtype import DType
from converter.model.optimizer import NAMED, OptimizerState, ParameterGroup
from converter.model.tensor import ArrayTensor, Tensor

Shape = tuple[int, ...]

_BUFFER_LEAVES = frozenset(
    (
        *("running_mean", "running_var", "num_batches_tracked"),
        *("position_ids", "token_type_ids", "inv_freq", "original_inv_freq", "masked_bias"),
        *("relative_position_index", "relative_coords_table", "attn_mask", "causal_mask"),
    )
)
_FACTORS: Mapping[str, Callable[[Shape], Shape]] = {
    "exp_avg_sq_row": lambda shape: shape[:-1],
    "exp_avg_sq_col": lambda shape: (*shape[:-2], *shape[-1:]),
    "row_var": lambda shape: (*shape[:-1], 1),
    "col_var": lambda shape: (*shape[:-2], 1, *shape[-1:]),
}
"""Slots of Adafactor, which keeps means over rows and columns: transformers' two, then torch's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entries:
    """An optimizer's state_dict, checked: groups of ids, their hyperparameters, tensors and numbers per id."""

    groups: tuple[tuple[Any, ...], ...]
    hyperparameters: tuple[Mapping[str, Any], ...]
    names: tuple[tuple[str, ...] | None, ...]
    slots: Mapping[Any, Mapping[str, Tensor]]
    steps: Mapping[Any, float]


def is_buffer(name: str, tensor: Tensor) -> bool:
    """Whether a tensor of a state dict cannot be a parameter: by its name, or as a type that takes no gradient."""
    return name.rpartition(".")[2] in _BUFFER_LEAVES or not (
        tensor.dtype.is_floating or tensor.dtype.value.startswith("complex")
    )


def named_state(
    state: Mapping[str, Any],
    checkpoint: Checkpoint,
    *,
    is_in_module_order: bool = True,
    order: ModuleOrder | None = None,
    user_order: Sequence[str] | None = None,
) -> OptimizerState:
    """Return the ``state_dict()`` of an optimizer, its entries under the names of `checkpoint`.

    Numbered entries get the names of `user_order`, in that order. Else they get names only when the order of the
    parameters is known: `order`, or that of the tensors where it `is_in_module_order`, which that of safetensors is
    not.

    Raises LossError, without a path, when the names cannot be known for certain or an entry is not understood.
    """
    entries = _parsed(state)
    if user_order is not None:
        sizes = [len(ids) for ids in entries.groups]
        if sum(sizes) != len(user_order):
            raise LossError(f"it has {sum(sizes)} parameters, the order given {len(user_order)}")
        names, basis = _resolved(cut(user_order, sizes), entries, checkpoint), "given"
    else:
        names, basis = _named(entries, checkpoint, order, is_in_module_order)
    by_id = {
        number: name
        for ids, group in zip(entries.groups, names, strict=True)
        for number, name in zip(ids, group, strict=True)
    }
    slots: dict[str, dict[str, Tensor]] = {}
    for number, tensors in entries.slots.items():
        for slot, tensor in tensors.items():
            slots.setdefault(slot, {})[by_id[number]] = tensor
    step, per_parameter = _common_step(entries)
    if per_parameter:
        slots["step"] = {by_id[number]: tensor for number, tensor in per_parameter.items()}
    algorithm = state.get("algorithm")
    if not isinstance(algorithm, str):
        algorithm = inferred_algorithm(entries.hyperparameters, slots)
    groups = tuple(
        ParameterGroup(parameters=group, hyperparameters=hyperparameters)
        for group, hyperparameters in zip(names, entries.hyperparameters, strict=True)
    )
    return OptimizerState(algorithm=algorithm, step=step, groups=groups, slots=slots, basis=basis)


def state_dict(optimizer: OptimizerState) -> dict[str, Any]:
    """Return what `Optimizer.load_state_dict` takes: numbered entries, and groups with `param_names`.

    Raises LossError when a slot belongs to a parameter of no group.
    """
    names = optimizer.parameters
    unknown = {name for tensors in optimizer.slots.values() for name in tensors}.difference(names)
    if unknown:
        raise LossError("has optimizer state and is in no parameter group", tensor=min(unknown))
    groups, start = [], 0
    for group in optimizer.groups:
        ids = list(range(start, start + len(group.parameters)))
        groups.append({**group.hyperparameters, "params": ids, "param_names": list(group.parameters)})
        start += len(ids)
    state = {number: entry for number, name in enumerate(names) if (entry := dict(_entry(optimizer, name)))}
    result = {"state": state, "param_groups": groups}
    hyperparameters = [group.hyperparameters for group in optimizer.groups]
    if inferred_algorithm(hyperparameters, optimizer.slots) != optimizer.algorithm:
        result["algorithm"] = optimizer.algorithm
    return result


def _entry(optimizer: OptimizerState, name: str) -> Iterator[tuple[str, Tensor]]:
    slots: Mapping[str, Mapping[str, Tensor]] = optimizer.slots
    has_slots = any(name in tensors for tensors in slots.values())
    if optimizer.step is not None and (has_slots or not any(slots.values())):
        yield "step", ArrayTensor(dtype=DType.FLOAT32, shape=(), array=np.asarray(optimizer.step, np.float32))
    for slot, tensors in slots.items():
        if name in tensors:
            yield slot, tensors[name]


# reading what the optimizer wrote


def is_optimizer_state(value: Any) -> bool:
    """Whether a value looks like what ``Optimizer.state_dict()`` returns."""
    return (
        isinstance(value, Mapping)
        and isinstance(value.get("state"), Mapping)
        and isinstance(value.get("param_groups"), list)
    )


def is_numbered(state: Mapping[str, Any]) -> bool:
    """Whether a state's parameters are numbers, without names beside them."""
    groups = [group for group in state["param_groups"] if isinstance(group, Mapping)]
    has_names = groups and all("param_names" in group for group in groups)
    return not has_names and all(isinstance(number, int) for number in state["state"])


def _parsed(state: Mapping[str, Any]) -> _Entries:
    groups, hyperparameters, names = [], [], []
    for group in state["param_groups"]:
        ids = group.get("params") if isinstance(group, Mapping) else None
        if not isinstance(ids, list | tuple) or not all(isinstance(number, int | str) for number in ids):
            raise LossError("a parameter group does not list its parameters")
        groups.append(tuple(ids))
        names.append(_listed_names(group, len(ids)))
        kept = {
            key: _hyperparameter(key, value) for key, value in group.items() if key not in ("params", "param_names")
        }
        hyperparameters.append(kept)
    flat = [number for ids in groups for number in ids]
    if len(set(flat)) != len(flat) or not set(state["state"]) <= set(flat):
        raise LossError("its groups and its entries are about different parameters")
    slots: dict[Any, dict[str, Tensor]] = {}
    steps: dict[Any, float] = {}
    for number, values in state["state"].items():
        if not isinstance(values, Mapping):
            raise LossError(f"its entry for parameter {number} is no dict")
        slots[number] = {}
        for slot, value in values.items():
            if slot == "step":
                steps[number] = _number(value)
            elif value is not None:
                slots[number][str(slot)] = _slot_tensor(str(slot), value)
    return _Entries(
        groups=tuple(groups), hyperparameters=tuple(hyperparameters), names=tuple(names), slots=slots, steps=steps
    )


def _listed_names(group: Mapping[str, Any], count: int) -> tuple[str, ...] | None:
    names = group.get("param_names")
    if not isinstance(names, list | tuple) or len(names) != count or not all(isinstance(name, str) for name in names):
        return None
    return tuple(names)


def _hyperparameter(key: str, value: Any) -> Any:
    return _number(value) if isinstance(value, Tensor) else value


def _number(value: Any) -> Any:
    if isinstance(value, Tensor) and value.size == 1:
        value = value.numpy().reshape(-1)[0].item()
    if not isinstance(value, int | float):
        raise LossError("its state has a value that is not a number")
    return value


def _slot_tensor(slot: str, value: Any) -> Tensor:
    if isinstance(value, Tensor):
        return value
    if isinstance(value, bool | int | float):
        return ArrayTensor.of(np.asarray(value))
    raise LossError(f"it keeps {slot!r} per parameter, which is neither tensor nor number")


def _common_step(entries: _Entries) -> tuple[int | None, dict[Any, Tensor]]:
    """Return the step that all parameters are at, or the steps of each."""
    values = set(entries.steps.values())
    if not values:
        return None, {}
    is_common = len(values) == 1 and entries.steps.keys() == entries.slots.keys()
    (value,) = values if is_common else (0.5,)
    if is_common and 0 <= value < math.inf and value == int(value):
        return int(value), {}
    return None, {
        number: ArrayTensor(dtype=DType.FLOAT32, shape=(), array=np.asarray(step, np.float32))
        for number, step in entries.steps.items()
    }


# names


def _named(
    entries: _Entries, checkpoint: Checkpoint, order: ModuleOrder | None, is_in_module_order: bool
) -> tuple[Groups, str]:
    listed = tuple(names for names in entries.names if names is not None)
    if len(listed) == len(entries.groups):
        return _resolved(listed, entries, checkpoint), NAMED
    if all(isinstance(number, str) for ids in entries.groups for number in ids):
        return _resolved(entries.groups, entries, checkpoint), NAMED
    if order is None and not is_in_module_order:
        raise LossError("its parameters are numbered in an order that the file of the weights does not keep")
    sizes = [len(ids) for ids in entries.groups]
    fits: dict[Groups, str] = {}
    for groups, convention in candidates(sizes, checkpoint, order):
        if _mismatch(groups, entries, checkpoint) is None:
            fits.setdefault(groups, convention)
    if len(fits) == 1:
        ((groups, convention),) = fits.items()
        return groups, f"verified ({convention})"
    if not fits:
        fits = dict(without_frozen_modules(sizes, checkpoint, order, _fit(entries, checkpoint)))
        if len(fits) == 1:
            ((groups, convention),) = fits.items()
            return groups, f"inferred ({convention})"
    count = sum(sizes)
    if fits:
        raise LossError(f"the order of its {count} parameters is ambiguous: {', '.join(fits.values())} all fit")
    raise LossError(f"its {count} parameters, which have no names, fit no known order of the model's")


def _resolved(listed: Groups, entries: _Entries, checkpoint: Checkpoint) -> Groups:
    """Bring names that the optimizer gives to those of the weights, which may be wrapped where the others are not."""
    bare = {_bare(name): name for name in reversed(checkpoint.names)}
    groups = []
    for names in listed:
        known = [
            name if name in checkpoint.tensors or name in checkpoint.aliases else bare.get(_bare(name))
            for name in names
        ]
        for name, found in zip(names, known, strict=True):
            if found is None:
                raise LossError(f"it names the parameter {name!r}, which is not among the weights")
        groups.append(tuple(checkpoint.aliases.get(name, name) for name in known if name is not None))
    resolved = tuple(groups)
    flat = [name for names in resolved for name in names]
    if len(set(flat)) != len(flat):
        raise LossError("it names one parameter twice")
    mismatch = _mismatch(resolved, entries, checkpoint)
    if mismatch is not None:
        raise LossError(mismatch)
    return resolved


def _bare(name: str) -> str:
    return ".".join(part for part in name.split(".") if part not in (PARALLEL, *INSIDE))


def _mismatch(groups: Groups, entries: _Entries, checkpoint: Checkpoint) -> str | None:
    """Return how `groups` contradict the sizes of groups or the shapes of slots, None when they do not."""
    if [len(group) for group in groups] != [len(ids) for ids in entries.groups]:
        return "its groups have other sizes than the model's"
    for ids, names in zip(entries.groups, groups, strict=True):
        for number, name in zip(ids, names, strict=True):
            wrong = _wrong_shape(entries.slots.get(number, {}), name, checkpoint)
            if wrong is not None:
                return wrong
    return None


def _fit(entries: _Entries, checkpoint: Checkpoint) -> Callable[[int, int, str], bool]:
    """Return whether the entry at a place in a group can be that of a parameter, by the shapes of its slots."""

    def fits(group: int, place: int, name: str) -> bool:
        return _wrong_shape(entries.slots.get(entries.groups[group][place], {}), name, checkpoint) is None

    return fits


def _wrong_shape(slots: Mapping[str, Tensor], name: str, checkpoint: Checkpoint) -> str | None:
    shape = checkpoint.tensors[name].shape
    for slot, tensor in slots.items():
        expected = _FACTORS[slot](shape) if slot in _FACTORS else shape
        if tensor.shape not in ((), expected):
            return f"its {slot} for {name!r} has shape {list(tensor.shape)}, the weight {list(shape)}"
    return None


# algorithms


def inferred_algorithm(groups: Sequence[Mapping[str, Any]], slots: Mapping[str, Any]) -> str:
    """Return which algorithm of torch.optim keeps these hyperparameters and slots, "unknown" where that is not certain.

    The class of the optimizer is not in its state_dict (torch 2.13 and before).
    """
    keys = frozenset().union(*groups)
    for algorithm, needed in _HYPERPARAMETERS:
        if needed <= keys:
            return algorithm
    if "exp_inf" in slots:
        return "adamax"
    if not {"betas", "amsgrad"} <= keys:
        return "unknown"
    if "decoupled_weight_decay" in keys:
        return "adamw" if all(group.get("decoupled_weight_decay") is True for group in groups) else "adam"
    return "adam" if all(group.get("weight_decay", 0) == 0 for group in groups) else "unknown"


_HYPERPARAMETERS = tuple(
    (algorithm, frozenset(keys.split()))
    for algorithm, keys in (
        ("nadam", "betas momentum_decay"),
        ("sgd", "momentum dampening nesterov"),
        ("adagrad", "lr_decay initial_accumulator_value"),
        ("rmsprop", "alpha centered"),
        ("adadelta", "rho eps"),
        ("adafactor", "clip_threshold decay_rate"),
        ("adafactor", "beta2_decay"),
        ("adamw", "betas correct_bias"),
    )
)
"""Hyperparameters that only one algorithm has."""
