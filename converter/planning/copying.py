"""The structure of a file that is copied: what of it is left, and the states of optimizers in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from converter.dialects.optimizer.torch_layouts import as_state_dict, states_in
from converter.dialects.training import prefix_of
from converter.model.checkpoint import Checkpoint
from converter.model.optimizer import OptimizerState, ParameterGroup
from converter.model.structure import State, places, replaced


def pruned(planned: Checkpoint, state: Callable[[State], State | None]) -> Checkpoint:
    """Return a checkpoint whose structure has the tensors that are left, and what `state` makes of each optimizer."""
    held = frozenset(planned.names)
    structure = replaced(planned.structure, lambda slot: slot if slot.name in held else None, state)
    return replace(planned, structure=structure)


def changed_states(
    checkpoint: Checkpoint, optimizer: OptimizerState, left_out: frozenset[str], asked: frozenset[str]
) -> dict[int, State]:
    """Return by identity each place of the structure with what becomes of its optimizers' states there.

    Parameters that are left out are gone, and hyperparameters that are asked for are those of `optimizer`.
    """
    groups = iter(optimizer.groups)
    changed: dict[int, State] = {}
    for place in places(checkpoint.structure, State):
        own = [
            _without(each, [next(groups) for _ in each["param_groups"]], checkpoint, left_out, asked)
            for each in states_in(place.value)
        ]
        changed[id(place)] = State(_in_place(place.value, iter(own)))
    return changed


def _without(
    state: Mapping[str, Any],
    groups: list[ParameterGroup],
    checkpoint: Checkpoint,
    left_out: frozenset[str],
    asked: frozenset[str],
) -> dict[str, Any]:
    """Return one optimizer's state_dict() without parameters, whose names `groups` has, and with hyperparameters."""
    parameters = frozenset(name for group in groups for name in group.parameters)
    prefix = next((prefix_of(key, names) for key, names in checkpoint.models.items() if parameters <= {*names}), "")
    entries, kept_groups = dict(state["state"]), []
    for group, known in zip(state["param_groups"], groups, strict=True):
        pairs = list(zip(group["params"], known.parameters, strict=True))
        for number, name in pairs:
            if name in left_out:
                entries.pop(number, None)
        kept = [(number, name) for number, name in pairs if name not in left_out]
        names = [name.removeprefix(prefix) for _, name in kept]
        new = {key: value for key, value in known.hyperparameters.items() if key in asked}
        kept_groups.append({**group, **new, "params": [number for number, _ in kept], "param_names": names})
    return {**state, "state": entries, "param_groups": kept_groups}


def _in_place(value: Any, own: Iterator[dict[str, Any]]) -> Any:
    """Return a value that is a state, or lists some, with the next of `own` for each."""
    if as_state_dict(value) is not None:
        return next(own)
    if isinstance(value, Mapping):
        return {key: next(own) for key in value}
    return type(value)(next(own) for _ in value)
