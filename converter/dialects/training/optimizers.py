"""Which model an optimizer trains: the one whose parameters its state fits. And what is left of it with one model."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from converter.dialects.optimizer.torch_layouts import merged
from converter.dialects.optimizer.torch_state import is_numbered, named_state
from converter.dialects.training.parts import WEIGHTS_KEYS
from converter.errors import LossError
from converter.model.checkpoint import Checkpoint
from converter.model.optimizer import NAMED, OptimizerState

_AVERAGED = re.compile(r"(^|[_.])(ema|swa|avg|averaged?|shadow|teacher|target|best)([_.\d]|$)")
"""Words in the keys of models that no optimizer trains: averages and copies of others."""
_OPTIMIZER = re.compile(r"optimizers?|optim|opt|state_?dict|states?|[^a-z]")
_MODEL = re.compile(r"state_?dict|model|net|[^a-z]")


def with_optimizers(checkpoint: Checkpoint, states: Mapping[str, Mapping[str, Any]]) -> Checkpoint:
    """Return the checkpoint with the optimizers whose states stand under these keys, of several one with all groups.

    What cannot be told of them is in `optimizer_refused`.
    """
    if not states:
        return checkpoint
    try:
        whole = merged(list(states.values()))
        checkpoint = replace(checkpoint, optimizer_numbered=whole if is_numbered(whole) else None)
        optimizer = _of_models(checkpoint, states) or named_state(whole, checkpoint)
    except LossError as error:
        return replace(checkpoint, optimizer_refused=error.message)
    warnings = (f"{len(states)} optimizers of one algorithm became one, with the groups of all",)
    warnings = (*checkpoint.warnings, *(warnings if len(states) > 1 else ()))
    return replace(checkpoint, optimizer=optimizer, warnings=warnings)


def _of_models(checkpoint: Checkpoint, states: Mapping[str, Mapping[str, Any]]) -> OptimizerState | None:
    """Return the optimizers, each of one model; None where one fits no model by itself.

    Raises LossError for one that fits several of which nothing says which it trains.
    """
    if sum(map(len, checkpoint.models.values())) == len(checkpoint.names) and len(checkpoint.models) == 1:
        return None
    named, bases = [], []
    for key, state in states.items():
        fits: dict[str, OptimizerState] = {}
        for model, names in checkpoint.models.items():
            try:
                fits[model] = named_state(state, _alone(checkpoint, model, names))
            except LossError:
                continue
        if not fits:
            return None
        model = _trained(key, fits)
        prefix = prefix_of(model, checkpoint.models[model])
        found = fits[model].with_names({name: prefix + name for name in fits[model].parameters})
        named.append(_with_names(state, found))
        bases.append(found.basis)
    basis = "; ".join(dict.fromkeys(bases))
    return replace(named_state(merged(named), checkpoint), basis=basis or NAMED)


def prefix_of(model: str, names: Iterable[str]) -> str:
    """Return what the names of a model begin with besides their own."""
    prefix = f"{model}." if model else ""
    return prefix if all(name.startswith(prefix) for name in names) else ""


def _alone(checkpoint: Checkpoint, model: str, names: tuple[str, ...]) -> Checkpoint:
    """Return one model under its own names."""
    start = len(prefix_of(model, names))
    owners: dict[str, str] = {}
    aliases: dict[str, str] = {}
    for name in names:
        owner = owners.setdefault(checkpoint.aliases.get(name, name), name)
        if owner != name:
            aliases[name[start:]] = owner[start:]
    return Checkpoint(
        tensors={name[start:]: checkpoint.tensor(name) for name in owners.values()},
        aliases=aliases,
        buffers=frozenset(name[start:] for name in names if name in checkpoint.buffers),
        frozen=frozenset(name[start:] for name in names if name in checkpoint.frozen),
    )


def _trained(key: str, fits: Iterable[str]) -> str:
    """Return which of the models that fit the optimizer under `key` trains. Raises LossError where nothing says it."""
    found = list(fits)
    own = _OPTIMIZER.sub("", key.lower())
    narrower = (
        lambda model: _AVERAGED.search(model.lower()) is None,
        lambda model: _is_alike(own, _MODEL.sub("", model.rpartition(".")[2].lower())),
        lambda model: model.rpartition(".")[2] in WEIGHTS_KEYS,
    )
    for is_likely in narrower:
        found = list(filter(is_likely, found)) or found
        if len(found) == 1:
            return found[0]
    raise LossError(f"{key} fits the parameters of {' and of '.join(found)}, and nothing says which it trains")


def with_state_of(checkpoint: Checkpoint, names: frozenset[str]) -> Checkpoint:
    """Return the checkpoint with the optimizer's state of these parameters, and a warning where there is none."""
    state = checkpoint.optimizer
    if state is None:
        return checkpoint
    kept = state.without(set(state.parameters) - names)
    groups = tuple(group for group in kept.groups if group.parameters)
    if groups:
        return replace(checkpoint, optimizer=replace(kept, groups=groups))
    reduced = checkpoint.without_state("it is of another model than the one selected")
    return replace(reduced, optimizer_numbered=None)


def _is_alike(left: str, right: str) -> bool:
    return bool(left and right) and (left.startswith(right) or right.startswith(left))


def _with_names(state: Mapping[str, Any], found: OptimizerState) -> Mapping[str, Any]:
    """Return an optimizer's state about the parameters that `found` names."""
    names: dict[Any, str] = {}
    groups = []
    for group, known in zip(state["param_groups"], found.groups, strict=True):
        names |= dict(zip(group["params"], known.parameters, strict=True))
        groups.append({**group, "params": list(known.parameters), "param_names": list(known.parameters)})
    entries = {names[number]: entry for number, entry in state["state"].items()}
    return {**state, "state": entries, "param_groups": groups}
