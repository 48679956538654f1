"""The layouts in which training code saves an optimizer of torch, each brought to that of ``state_dict()``.

Flattened: torch.distributed.checkpoint.state_dict with `flatten_optimizer_state_dict` (torch 2.13), where keys are
`state.<name>.<slot>` and `param_groups.<name>.<hyperparameter>`. Numbers that torch.distributed.checkpoint made text.
Several optimizers, as Lightning's `optimizer_states` lists them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from converter.dialects.optimizer.torch_state import inferred_algorithm, is_optimizer_state
from converter.errors import LossError

_STATE, _GROUPS = "state.", "param_groups."


def as_state_dict(value: Any) -> Mapping[str, Any] | None:
    """Return `value` as ``Optimizer.state_dict()`` has it, None when it is no optimizer's state in any layout."""
    if is_optimizer_state(value):
        return _with_numbers(value)
    if not isinstance(value, Mapping) or not value:
        return None
    if isinstance(value.get("param_groups"), list) and isinstance(value.get("state", {}), list | dict):
        # an optimizer without state has no item for it; keys that count from 0 read as those of a list
        state = value.get("state", {})
        entries = dict(enumerate(state)) if isinstance(state, list) else state
        return _with_numbers({**value, "state": entries})
    is_flat = all(isinstance(key, str) and key.startswith((_STATE, _GROUPS)) for key in value)
    return _unflattened(value) if is_flat else None


def states_in(value: Any) -> list[Mapping[str, Any]]:
    """Return the states of the optimizers that a value is, or lists, in whatever layout; none for anything else."""
    own = as_state_dict(value)
    if own is not None:
        return [own]
    listed = list(value) if isinstance(value, list | tuple) else list(value.values()) if isinstance(value, dict) else []
    states = [state for item in listed if isinstance(item, dict) and (state := as_state_dict(item)) is not None]
    return states if len(states) == len(listed) else []


def merged(states: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """Return several optimizers of one algorithm as one, whose groups are theirs, numbered one after the other.

    Raises LossError, without a path, for optimizers of different algorithms.
    """
    if len(states) == 1:
        return states[0]
    kinds = {_kind(state) for state in states}
    if len(kinds) > 1 or None in kinds:
        raise LossError(f"there are {len(states)} optimizers, one can be carried, or several of one algorithm")
    groups: list[Mapping[str, Any]] = []
    entries: dict[Any, Any] = {}
    start = 0
    for state in states:
        shift = _shift(state, start)
        for group in state["param_groups"]:
            groups.append({**group, "params": [shift(number) for number in group["params"]]})
            start += len(group["params"])
        entries |= {shift(number): entry for number, entry in state["state"].items()}
    return {"state": entries, "param_groups": groups}


def _shift(state: Mapping[str, Any], start: int) -> Any:
    is_numbered = all(isinstance(number, int) for group in state["param_groups"] for number in group["params"])
    return (lambda number: number + start) if is_numbered else (lambda name: name)


def _kind(state: Mapping[str, Any]) -> tuple[str, frozenset[str]] | None:
    """Return the algorithm of a state and its hyperparameters' names, None for groups that are none."""
    groups = state["param_groups"]
    if not all(isinstance(group, Mapping) and isinstance(group.get("params"), list | tuple) for group in groups):
        return None
    slots = {slot: None for entry in state["state"].values() if isinstance(entry, Mapping) for slot in entry}
    return inferred_algorithm(groups, slots), frozenset().union(*groups)


def _with_numbers(state: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a state whose parameters are numbers again where they became text."""
    groups = [group for group in state["param_groups"] if isinstance(group, Mapping)]
    listed = [number for group in groups for number in group.get("params") or ()]
    entries = state["state"]
    are_numbers = listed and all(type(number) is int for number in listed)
    if not are_numbers or not all(isinstance(key, str) and key.isdecimal() and len(key) < 12 for key in entries):
        return state
    return {**state, "state": {int(key): entry for key, entry in entries.items()}}


def _unflattened(flat: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the state whose every slot and hyperparameter is apart; parameters alike in all of these are a group."""
    entries: dict[str, dict[str, Any]] = {}
    per_parameter: dict[str, dict[str, Any]] = {}
    for key, value in flat.items():
        into, start = (entries, _STATE) if key.startswith(_STATE) else (per_parameter, _GROUPS)
        name, _, leaf = key.removeprefix(start).rpartition(".")
        into.setdefault(name, {})[leaf] = value
    groups: dict[str, dict[str, Any]] = {}
    for name, hyperparameters in per_parameter.items():
        group = groups.setdefault(repr(sorted(hyperparameters.items())), {**hyperparameters, "params": []})
        group["params"].append(name)
    return {"state": entries, "param_groups": list(groups.values())}
