"""The structure of a file that is copied: what of it is left, and the states of optimizers in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from converter.dialects.optimizer.torch_layouts import as_state_dict, states_in
from converter.dialects.training import prefix_of
from converter.errors import LossError, UsageError
from converter.model.checkpoint import Checkpoint
from converter.model.ledger import Kind
from converter.model.optimizer import OptimizerState, ParameterGroup
from converter.model.structure import State, places, replaced
from converter.options import OptimizerMode, Options
from converter.report import OptimizerReport, OptimizerStatus

_CARRIED = frozenset({Kind.METRIC, Kind.RANDOM, Kind.SAVES, Kind.STEPS, Kind.VALUE})
"""What a copy holds besides weights and state."""


def pruned(planned: Checkpoint, state: Callable[[State], State | None]) -> Checkpoint:
    """Return a checkpoint whose structure has the tensors that are left, and what `state` makes of each optimizer."""
    held = frozenset(planned.names)
    structure = replaced(planned.structure, lambda slot: slot if slot.name in held else None, state)
    return replace(planned, structure=structure)


def with_bundle_in_place(
    checkpoint: Checkpoint, options: Options, *, selected: Callable[[Checkpoint], Checkpoint]
) -> tuple[Checkpoint, OptimizerReport]:
    """Return what `selected` leaves of a TensorFlow checkpoint that is copied, and what became of its optimizer.

    Its objects stay, and all that they hold besides weights; state goes with parameters that are left out. Raises
    UsageError for what would change the state, LossError where parameters are left out and the state may be theirs.
    """
    for flag, value in (
        ("--hyperparameter", options.hyperparameter),
        ("--param-order", options.param_order),
        ("--trainable", options.trainable),
    ):
        if value:
            raise UsageError(f"{flag} changes nothing of a copy, whose optimizer stays as it is", hint="leave it out")
    has_state = next(places(checkpoint.structure, State), None) is not None
    is_dropped = has_state and options.optimizer is OptimizerMode.DROP
    carried = _CARRIED if is_dropped else _CARRIED | {Kind.OPTIMIZER}
    kept = replace(checkpoint, lines=tuple(line for line in checkpoint.lines if line.kind not in carried))
    planned = selected(replace(kept, optimizer=None, optimizer_refused=None, optimizer_stored=None))
    if not has_state or is_dropped:
        report = OptimizerReport(status=OptimizerStatus.DROPPED, reason="as asked") if has_state else OptimizerReport()
        return pruned(planned, lambda state: None), report
    left_out = frozenset(checkpoint.names).difference(planned.names)
    state = checkpoint.optimizer
    if state is None:
        if left_out:
            why = checkpoint.optimizer_unusable or "nothing tells which parameters it is of"
            raise LossError(f"optimizer state: {why}", hint="--optimizer drop copies the weights without it")
        report = OptimizerReport(status=OptimizerStatus.CARRIED, basis="copied as it is")
        return pruned(planned, lambda state: state), report
    gone = {id(held[name]) for held in state.slots.values() for name in left_out if name in held}
    report = OptimizerReport(
        status=OptimizerStatus.CARRIED, algorithm=state.algorithm, step=state.step, basis=state.basis
    )
    return pruned(planned, lambda place: None if id(place.value) in gone else place), report


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
