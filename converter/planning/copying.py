"""A copy in the source's own format: nested as it is, under its own names, with its own optimizer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from converter.dialects.optimizer.torch_layouts import as_state_dict, states_in
from converter.dialects.training import prefix_of
from converter.model.checkpoint import Checkpoint
from converter.model.ledger import Kind, without
from converter.model.optimizer import OptimizerState, ParameterGroup
from converter.model.structure import State, replaced, states
from converter.options import OptimizerMode, Options
from converter.planning.optimizer import settled, spelt, usable
from converter.report import OptimizerReport, OptimizerStatus


def copied(
    checkpoint: Checkpoint, options: Options, *, selected: Callable[[Checkpoint], Checkpoint]
) -> tuple[Checkpoint, OptimizerReport]:
    """Return what `selected` leaves of the checkpoint, nested as it was, and what became of its optimizer.

    An optimizer is copied as it is, its parameters in whatever order; but for hyperparameters that are asked for,
    parameters that are left out, and their names where the user says them. Raises LossError where the parameters would
    have to be known and are not.
    """
    checkpoint = replace(checkpoint, lines=without(checkpoint.lines, Kind.VALUE))
    has_state = next(states(checkpoint.structure), None) is not None
    if not has_state or options.optimizer is OptimizerMode.DROP:
        settled(checkpoint, options)
        planned = selected(replace(checkpoint, optimizer=None))
        report = OptimizerReport(status=OptimizerStatus.DROPPED, reason="as asked") if has_state else OptimizerReport()
        return _pruned(planned, lambda state: None), report
    known = settled(checkpoint, options)
    planned = selected(known)
    left_out = frozenset(checkpoint.names).difference(planned.names)
    if known.optimizer is None:
        if options.hyperparameter or left_out - checkpoint.buffers:
            usable(known, options)
        basis = f"copied as it is: {known.optimizer_refused}"
        planned = replace(planned, optimizer_refused=None)
        return _pruned(planned, lambda state: state), OptimizerReport(status=OptimizerStatus.CARRIED, basis=basis)
    state = known.optimizer
    report = OptimizerReport(
        status=OptimizerStatus.CARRIED, algorithm=state.algorithm, step=state.step, basis=state.basis
    )
    if not (left_out or options.hyperparameter or options.param_order or options.trainable):
        return _pruned(planned, lambda state: state), report
    asked = frozenset(spelt(options.hyperparameters, state)) if options.hyperparameter else frozenset[str]()
    changed = _changed(known, state, left_out, asked)
    return _pruned(planned, lambda state: changed[id(state)]), report


def _pruned(planned: Checkpoint, state: Callable[[State], State | None]) -> Checkpoint:
    held = frozenset(planned.names)
    structure = replaced(planned.structure, lambda slot: slot if slot.name in held else None, state)
    return replace(planned, structure=structure)


def _changed(
    checkpoint: Checkpoint, optimizer: OptimizerState, left_out: frozenset[str], asked: frozenset[str]
) -> dict[int, State]:
    """Return each place of the structure with its state changed, by identity."""
    groups = iter(optimizer.groups)
    changed: dict[int, State] = {}
    for place in states(checkpoint.structure):
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
