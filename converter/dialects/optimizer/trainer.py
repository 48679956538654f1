"""The groups from which transformers.Trainer resumes: parameters that decay, then those that do not.

`Optimizer.load_state_dict` goes by position, so groups need Trainer's sizes and the order of the model's class
(transformers.Trainer.create_optimizer, 4.57 and 5.23). Trainer reads optimizer.pt only where there is a scheduler.pt.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from converter.dialects.optimizer.numbering_conventions import ModuleOrder, Rule, trainer_exempts
from converter.errors import LossError
from converter.model.checkpoint import Checkpoint
from converter.model.optimizer import OptimizerState, ParameterGroup

_PER_GROUP = ("base_lrs", "_last_lr", "lr_lambdas", "min_lrs", "max_lrs")
"""What schedulers of torch keep for each group."""


def in_order(state: OptimizerState, order: ModuleOrder) -> OptimizerState:
    """Return the state with the parameters of each group in the order of the model's class.

    Raises LossError for a parameter that the class has not.
    """
    places = _places(order, state)
    groups = (
        replace(group, parameters=tuple(sorted(group.parameters, key=places.__getitem__))) for group in state.groups
    )
    return replace(state, groups=tuple(groups))


def in_trainer_groups(checkpoint: Checkpoint, order: ModuleOrder | None) -> OptimizerState:
    """Return the optimizer's state in Trainer's two groups, which all hyperparameters of the parameters allow.

    Without `order` that of the groups is kept, as far as it says which parameter comes first. Raises LossError where
    it does not, and for parameters of one group that have different hyperparameters.
    """
    state = checkpoint.optimizer
    assert state is not None
    exempts = trainer_exempts(checkpoint, order)
    settings = {name: group.hyperparameters for group in state.groups for name in group.parameters}
    groups = []
    for names in _parted(_ordered(state, checkpoint, order, exempts), exempts):
        first = settings[names[0]] if names else {**state.groups[0].hyperparameters, "weight_decay": 0.0}
        other = next((name for name in names if settings[name] != first), None)
        if other is not None:
            raise LossError(
                f"{names[0]!r} and {other!r}, which Trainer has in one group, have different hyperparameters"
            )
        groups.append(ParameterGroup(parameters=tuple(names), hyperparameters=first))
    return replace(state, groups=tuple(groups))


def _parted(names: Sequence[str], exempts: Rule) -> tuple[list[str], list[str]]:
    return [name for name in names if not exempts(name)], [name for name in names if exempts(name)]


def _ordered(state: OptimizerState, checkpoint: Checkpoint, order: ModuleOrder | None, exempts: Rule) -> Sequence[str]:
    flat = state.parameters
    if order is not None:
        return sorted(flat, key=_places(order, state).__getitem__)
    sources = [{exempts(name) for name in group.parameters} for group in state.groups]
    if sum(len(kinds) for kinds in sources) == len(set().union(*sources)):
        return flat  # no group of Trainer's is of more than one of these
    places = {name: place for place, name in enumerate(checkpoint.tensors)}
    for group in state.groups:
        own = [places[name] for name in group.parameters]
        if own != sorted(own):
            raise LossError("its groups do not say in which order the model has their parameters")
    return sorted(flat, key=places.__getitem__)


def _places(order: ModuleOrder, state: OptimizerState) -> dict[str, int]:
    places = {name: place for place, name in enumerate(order.names)}
    unknown = next((name for name in state.parameters if name not in places), None)
    if unknown is not None:
        raise LossError(f"the model's class has no parameter {unknown!r}")
    return places


def constant_schedule(state: OptimizerState) -> dict[str, Any]:
    """Return what a LambdaLR of a constant rate remembers, whose schedule goes on with the rate of each group."""
    rates = [group.hyperparameters.get("lr") for group in state.groups]
    step = state.step or 0
    return {
        "base_lrs": rates,
        "last_epoch": step,
        "_step_count": step + 1,
        "_is_initial": False,
        "_get_lr_called_within_step": False,
        "_last_lr": rates,
        "lr_lambdas": [None for _ in rates],
    }


def for_groups(scheduler: Mapping[str, Any], count: int) -> dict[str, Any] | None:
    """Return a scheduler's state for `count` groups where it was for one, None when it is for another number."""
    adapted = dict(scheduler)
    for key in _PER_GROUP:
        values = adapted.get(key)
        if isinstance(values, list) and len(values) != count:
            if len(values) != 1:
                return None
            adapted[key] = values * count
    return adapted
