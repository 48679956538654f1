"""Optimizer state between Keras's conventions and torch.optim's: slots, signs, hyperparameters, where epsilon stands.

Moments are the same numbers on both sides (`algorithms` has the optimizers one by one); what differs is

- Adam, RMSprop and Adagrad: where epsilon is added (`epsilon`).
- SGD and RMSprop: Keras's momentum has the learning rate in it, SGD's the opposite sign besides.
- Decay: Keras's is decoupled from the gradient in every optimizer, which in PyTorch only AdamW has. An optimizer of
  Keras has one decay and weights that it is not for: a state in its conventions has two groups then.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from converter.dialects.optimizer import tensorflow1
from converter.dialects.optimizer.algorithms import ALGORITHMS
from converter.dialects.optimizer.besides import with_besides
from converter.dialects.optimizer.conversion import OWN_PACKAGE, FromKeras, FromTorch, decay_of
from converter.dialects.optimizer.flavors import CLASSES, TITLES, KerasFlavor
from converter.dialects.optimizer.keras_settings import beside, notes_on
from converter.errors import LossError
from converter.model.checkpoint import Checkpoint
from converter.model.ledger import defaulted
from converter.model.optimizer import Convention, OptimizerState, ParameterGroup

_DROP = "--optimizer drop converts the weights without it"
_SHOWN = 5
_COMMON = {
    "weight_decay": None,
    "clipnorm": None,
    "global_clipnorm": None,
    "clipvalue": None,
    "use_ema": False,
    "ema_momentum": 0.99,
    "ema_overwrite_frequency": None,
}
_CONFIGS: Mapping[KerasFlavor, Mapping[str, Any]] = {
    KerasFlavor.KERAS_3: _COMMON,
    KerasFlavor.TF_KERAS: {**_COMMON, "jit_compile": False, "is_legacy_optimizer": False},
    KerasFlavor.LEGACY: {"decay": 0.0},
}
"""What every optimizer of a kind says in its config, the first version of the kind too."""


def to_torch(checkpoint: Checkpoint) -> Checkpoint:
    """Return the checkpoint with its optimizer state, already in PyTorch's layouts, in torch.optim's conventions.

    Hyperparameters that the source lacks get Keras's defaults, as ledger lines. State that PyTorch has no equivalent
    for is refused: `optimizer_refused` says why.
    """
    state = checkpoint.optimizer
    if state is None:
        return checkpoint
    if state.convention is Convention.TORCH:
        why = _disagreement(state, checkpoint)
        if why is not None:
            return replace(checkpoint, optimizer=None, optimizer_refused=why)
        return replace(checkpoint, optimizer=state.with_names(checkpoint.aliases))
    conversion = FromKeras(state=_with_parameters(state, checkpoint))
    try:
        converted = _to_torch(conversion)
    except LossError as error:
        return replace(checkpoint, optimizer=None, optimizer_refused=error.message_and_hint)
    warnings = (*checkpoint.warnings, *conversion.warnings)
    return replace(checkpoint, optimizer=converted, lines=(*checkpoint.lines, *conversion.lines), warnings=warnings)


def _disagreement(state: OptimizerState, checkpoint: Checkpoint) -> str | None:
    """Return how a state that came with names of PyTorch is not that of the weights, None when it is."""
    known = frozenset(checkpoint.names)
    for group in state.groups:
        for name in group.parameters:
            if name not in known:
                return f"it names the parameter {name!r}, which is not among the weights"
    for slot, tensors in state.slots.items():
        for name, tensor in tensors.items():
            is_whole = slot in ("exp_avg", "exp_avg_sq", "momentum_buffer", "square_avg", "sum")
            if is_whole and tensor.shape != checkpoint.tensor(name).shape:
                return f"its {slot} for {name!r} has shape {list(tensor.shape)}, the weight another"
    return None


def _to_torch(conversion: FromKeras) -> OptimizerState:
    state = conversion.state
    besides = beside(conversion.hyperparameters, state.algorithm, is_legacy=conversion.is_legacy)
    if state.convention is Convention.TENSORFLOW_1:
        return replace(tensorflow1.to_torch(conversion), beside=besides)
    if state.algorithm not in ALGORITHMS:
        raise LossError(f"Keras's {state.algorithm} has no equivalent in PyTorch")
    algorithm, hyperparameters, slots = ALGORITHMS[state.algorithm].to_torch(conversion)
    groups = tuple(
        ParameterGroup(parameters=group.parameters, hyperparameters={**hyperparameters, **_own_decay(group, state)})
        for group in state.groups
    )
    return replace(state, algorithm=algorithm, groups=groups, slots=slots, convention=Convention.TORCH, beside=besides)


def notes_on_state(state: OptimizerState) -> list[str]:
    """Return the lines that a user should read of what a state's optimizer did besides, and this one does not."""
    is_in_torch = state.convention is Convention.TORCH
    hyperparameters = state.groups[0].hyperparameters if state.groups else {}
    rate = hyperparameters.get("lr" if is_in_torch else "learning_rate")
    return notes_on(state.beside, rate, state.step or 0, is_in_torch=is_in_torch)


def _own_decay(group: ParameterGroup, state: OptimizerState) -> dict[str, float]:
    """Return `{"weight_decay": 0.0}` for the undecayed one of two groups, else nothing."""
    return {"weight_decay": 0.0} if len(state.groups) > 1 and not group.hyperparameters.get("weight_decay") else {}


def _with_parameters(state: OptimizerState, checkpoint: Checkpoint) -> OptimizerState:
    """Return the state of an optimizer without slots as one of all trained weights."""
    if state.slots or any(group.parameters for group in state.groups):
        return state
    trained = _trained(checkpoint, checkpoint.tensors)
    return replace(state, groups=tuple(replace(group, parameters=trained) for group in state.groups))


def _trained(checkpoint: Checkpoint, names: Iterable[str]) -> tuple[str, ...]:
    return tuple(
        name
        for name in names
        if checkpoint.tensor(name).dtype.is_floating
        and name not in checkpoint.buffers
        and name not in checkpoint.frozen
    )


def to_keras(checkpoint: Checkpoint, flavor: KerasFlavor, *, is_exact: bool = False) -> Checkpoint:
    """Return the checkpoint with its optimizer state, still in PyTorch's layouts, in the conventions of Keras.

    `is_exact` asks for optimizers that add epsilon where PyTorch does: those of converter.keras_optimizers in Keras 3.
    Raises LossError, without a path, for state that Keras has no equivalent for.
    """
    state = checkpoint.optimizer
    if state is None or state.convention is not Convention.TORCH:
        return checkpoint
    try:
        conversion = FromTorch(
            state=state,
            flavor=flavor,
            is_exact=is_exact,
            trained=_with_state(state, checkpoint),
            like=checkpoint.by_name,
        )
        converted = _to_keras(conversion)
    except LossError as error:
        hint = _DROP if error.hint is None else f"{error.hint}; {_DROP}"
        raise LossError(f"optimizer state: {error.message}", tensor=error.tensor, hint=hint) from error
    warnings = (*checkpoint.warnings, *conversion.warnings)
    return replace(checkpoint, optimizer=converted, lines=(*checkpoint.lines, *conversion.lines), warnings=warnings)


def _with_state(state: OptimizerState, checkpoint: Checkpoint) -> tuple[str, ...]:
    """Return the parameters that an optimizer trains: those with state, or before the first step those it could."""
    known = state.parameters
    if not state.slots:
        return _trained(checkpoint, known)
    return tuple(name for name in known if any(name in tensors for tensors in state.slots.values()))


def _to_keras(conversion: FromTorch) -> OptimizerState:
    state, flavor = conversion.state, conversion.flavor
    if state.algorithm not in ALGORITHMS:
        raise LossError(f"its algorithm is {state.algorithm}, which Keras does not have, or computes otherwise")
    if not state.groups:
        raise LossError("it has no groups, which say its hyperparameters")
    if "step" in state.slots:
        raise LossError("its parameters have taken different numbers of steps, which Keras counts once for all")
    if any(group.get("maximize") for group in conversion.groups):
        raise LossError("it maximizes, which no optimizer of Keras does")
    if state.step is None:
        conversion.lines.append(defaulted("optimizer.iterations", "0: the file does not say how many steps were taken"))
    algorithm, hyperparameters, slots = ALGORITHMS[state.algorithm].to_keras(conversion)
    if flavor is KerasFlavor.LEGACY:
        hyperparameters.pop("weight_decay", None)
    class_name = CLASSES[algorithm]
    title = TITLES[class_name] if flavor is KerasFlavor.KERAS_3 else class_name
    is_own = conversion.is_exact and flavor is KerasFlavor.KERAS_3 and "epsilon" in hyperparameters
    common = {"name": title, **_CONFIGS[flavor], **hyperparameters}
    common["class_name"] = OWN_PACKAGE + class_name if is_own else class_name
    common, left = with_besides(common, state, conversion.groups, flavor)
    groups = [ParameterGroup(parameters=conversion.trained, hyperparameters=common)]
    apart = _without_decay(conversion)
    if apart and common.get("weight_decay"):
        if not is_own:
            conversion.warnings.append(_not_saved(apart, flavor))
        decayed = tuple(name for name in conversion.trained if name not in apart)
        groups = [
            ParameterGroup(parameters=decayed, hyperparameters=common),
            ParameterGroup(parameters=apart, hyperparameters={**common, "weight_decay": 0.0}),
        ]
    return OptimizerState(
        algorithm=algorithm,
        step=conversion.step,
        groups=tuple(groups),
        slots=slots,
        basis=state.basis,
        convention=Convention.KERAS_LEGACY if flavor is KerasFlavor.LEGACY else Convention.KERAS,
        beside=left,
    )


def _not_saved(names: tuple[str, ...], flavor: KerasFlavor) -> str:
    shown = ", ".join(names[:_SHOWN])
    listed = shown if len(names) <= _SHOWN else f"{shown} and {len(names) - _SHOWN} more"
    exact = "; --epsilon exact writes one that does" if flavor is KerasFlavor.KERAS_3 else ""
    return (
        f"no weight decay for {listed}: an optimizer of Keras does not save that, call its exclude_from_weight_decay "
        f"as the README says, or they decay too{exact}"
    )


def _without_decay(conversion: FromTorch) -> tuple[str, ...]:
    """Return the trained parameters that do not decay. Raises LossError when others do not decay alike."""
    by_name = {
        name: decay_of(group.hyperparameters)
        for group in conversion.state.groups
        for name in group.parameters
        if name in conversion.trained
    }
    if len(set(by_name.values()) - {0}) > 1:
        raise LossError(f"its groups decay by {sorted(set(by_name.values()))}, those of Keras by one value or none")
    return tuple(name for name in conversion.trained if not by_name[name])
