"""A checkpoint with an optimizer, made ready for a file of Keras; and how the file says which one to compile with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from enum import Enum
from typing import Any

from converter.declaring import Need, option
from converter.dialects import keras
from converter.dialects.optimizer.conversion import NO_MOMENTUM, OWN_PACKAGE, SWITCHES
from converter.dialects.optimizer.flavors import CLASSES, TITLES, KerasFlavor
from converter.dialects.optimizer.keras_layouts import config_of
from converter.dialects.optimizer.schedules import shown_schedule
from converter.dialects.optimizer.semantics import to_keras
from converter.dialects.optimizer.settings import NO_RATE
from converter.errors import LossError
from converter.model.checkpoint import Checkpoint, Dialect
from converter.model.optimizer import Convention, OptimizerState

_OWN_MODULE = "converter.keras_optimizers"
_REGISTERED = "Custom>"
_NOT_SHOWN = frozenset(
    ("name", "use_ema", "ema_momentum", "ema_overwrite_frequency", "jit_compile", "is_legacy_optimizer")
)
_OF_KERAS = (Convention.KERAS, Convention.KERAS_LEGACY)
_NOT_COMPILED = {"loss": None, "loss_weights": None, "metrics": None, "weighted_metrics": None}


class Epsilon(str, Enum):
    """Where Keras's optimizers are to add epsilon."""

    STOCK = "stock"
    """where Keras's own do"""
    EXACT = "exact"
    """where PyTorch's do"""


def epsilon_option() -> Any:
    """Return the option of every format that holds Keras's optimizers."""
    return option(
        Epsilon.STOCK,
        "Keras's own optimizers, or those of converter.keras_optimizers, which add epsilon where PyTorch does.",
        choices=Epsilon,
        needs=Need.EPSILON,
    )


def why_not_exact(source: Checkpoint, planned: Checkpoint) -> str | None:
    """Return why asking for an optimizer that adds epsilon where PyTorch does gives none, or None.

    One without an epsilon, as SGD, has none in the wrong place.
    """
    if source.optimizer_stored is not None or (source.optimizer and source.optimizer.convention in _OF_KERAS):
        return "from Keras to Keras epsilon stays what it is, and where"
    state = planned.optimizer
    if state is None or state.convention is Convention.TORCH:
        return "the state stays as PyTorch has it"
    settings = state.groups[0].hyperparameters if state.groups else {}
    class_name = str(settings.get("class_name", CLASSES[state.algorithm]))
    if "epsilon" not in settings or class_name.startswith(OWN_PACKAGE) or settings.get("adaptive_epsilon"):
        return None
    return f"{class_name} of tf_keras has one way alone"


def for_keras(checkpoint: Checkpoint, flavor: KerasFlavor, *, is_exact: bool) -> Checkpoint:
    """Return a checkpoint of PyTorch's names with Keras's names and optimizer, where its config is of a Keras model.

    A Keras model around one of transformers stays as it is, with a warning, and without its Keras config. Raises
    as `keras.to_keras` does, and LossError for an optimizer that Keras does not have.
    """
    config = None if checkpoint.keras_config is None else checkpoint.keras_config.values
    if checkpoint.dialect != Dialect.PYTORCH or config is None or not keras.is_model(config):
        return checkpoint
    if checkpoint.config is not None and keras.config_modules(keras.parse(config))[1]:
        warning = "names and layouts are PyTorch's: the Keras config has layers that no table knows"
        return replace(checkpoint, keras_config=None, warnings=(*checkpoint.warnings, warning))
    return keras.to_keras(to_keras(checkpoint, flavor, is_exact=is_exact), config)


def with_kept_state(
    checkpoint: Checkpoint, flavor: KerasFlavor, *, says_kind: bool, has_config: bool = True
) -> Checkpoint:
    """Return a checkpoint that keeps Keras's names, its optimizer with what every config of one says.

    Of one that a file has by its name alone that is its class, what it is called, its rate, and what it keeps slots
    for; in an .h5 its kind, too (`says_kind`): tf_keras takes one that does not say it for a legacy optimizer. Raises
    LossError where the file does not say the rate or, for a file with a config (`has_config`), the momentum.
    """
    state = checkpoint.optimizer
    if state is None or state.convention is Convention.TORCH:
        return checkpoint
    if not says_kind and state.convention is Convention.KERAS_LEGACY:
        if state.groups[0].hyperparameters.get("decay"):
            return checkpoint.without_state("no archive holds that of a legacy optimizer whose rate decays")
        state = _renewed(state)
    (first, *others) = state.groups
    if "learning_rate" not in first.hyperparameters:
        raise LossError(
            f"optimizer state: {NO_RATE}",
            hint="--hyperparameter learning_rate=VALUE; --optimizer drop converts the weights without it",
        )
    is_unsaid = state.algorithm in ("sgd", "rmsprop") and "momentum" not in first.hyperparameters
    if has_config and is_unsaid and state.slots.get("momentum"):
        hint = "--optimizer drop converts the weights without it"
        raise LossError(f"optimizer state: {NO_MOMENTUM}", hint=hint)
    own = CLASSES[state.algorithm]
    title = TITLES[own] if flavor is KerasFlavor.KERAS_3 else own
    stated = str(first.hyperparameters["class_name"])
    class_name = own if stated == stated.lower() else stated
    is_new = says_kind and flavor is KerasFlavor.TF_KERAS and state.convention is Convention.KERAS
    kind = {"is_legacy_optimizer": False} if is_new else {}
    switches = SWITCHES.get(state.algorithm, {}).items()
    told = {switch: True for switch, slot in switches if switch != slot and state.slots.get(slot)}
    settings = {"name": title, **kind, **told, **first.hyperparameters, "class_name": class_name}
    group = replace(first, hyperparameters=settings)
    return replace(checkpoint, optimizer=replace(state, groups=(group, *others)))


def _renewed(state: OptimizerState) -> OptimizerState:
    """Return the state of a legacy optimizer as that of today's class, which computes the same."""
    groups = (
        replace(group, hyperparameters={key: value for key, value in group.hyperparameters.items() if key != "decay"})
        for group in state.groups
    )
    return replace(state, groups=tuple(groups), convention=Convention.KERAS)


def kind_of(state: OptimizerState, flavor: KerasFlavor) -> KerasFlavor:
    """Return the kind of optimizer that a state is of, in a file of one flavor: tf_keras has legacy ones, too."""
    is_legacy = flavor is KerasFlavor.TF_KERAS and state.convention is Convention.KERAS_LEGACY
    return KerasFlavor.LEGACY if is_legacy else flavor


def with_plain_class(state: OptimizerState) -> OptimizerState:
    """Return the state with the class that Keras 2 registers as `Custom>Adam` called as every kind of file calls it."""
    (first, *others) = state.groups
    bare = str(first.hyperparameters["class_name"]).removeprefix(_REGISTERED)
    if bare not in CLASSES.values():
        return state
    group = replace(first, hyperparameters={**first.hyperparameters, "class_name": bare})
    return replace(state, groups=(group, *others))


def compile_config(state: OptimizerState, known: object) -> dict[str, Any]:
    """Return how an archive says that a model was compiled: with this optimizer, else as is `known` or with nothing."""
    others = known if isinstance(known, Mapping) else _NOT_COMPILED
    class_name, config = config_of(state)
    is_own = class_name.startswith(OWN_PACKAGE)
    bare = class_name.rpartition(">")[2]
    optimizer = {
        "module": _OWN_MODULE if is_own else "keras.optimizers",
        "class_name": bare,
        "config": config,
        "registered_name": None if bare == class_name else class_name,
    }
    return {"optimizer": optimizer, **{key: value for key, value in others.items() if key != "optimizer"}}


def call_of(state: OptimizerState) -> str:
    """Say how to make the optimizer of a file that holds its variables alone."""
    class_name, config = config_of(state)
    values = {name: value for name, value in config.items() if name not in _NOT_SHOWN and value is not None}
    if not values.get("decay"):
        values.pop("decay", None)
    module = _OWN_MODULE if class_name.startswith(OWN_PACKAGE) else "keras.optimizers"
    arguments = ", ".join(f"{name}={_called(value)}" for name, value in values.items())
    return (
        f"the optimizer is {module}.{class_name.removeprefix(OWN_PACKAGE)}({arguments}); the file holds its variables"
    )


def _called(value: object) -> str:
    return f"keras.optimizers.schedules.{shown_schedule(value)}" if isinstance(value, Mapping) else repr(value)


def training_config(state: OptimizerState) -> dict[str, Any]:
    """Return how an HDF5 file says that a model was compiled: with this optimizer, and nothing else is known."""
    class_name, config = config_of(state)
    is_own = class_name.startswith(OWN_PACKAGE)
    optimizer: dict[str, Any] = {"class_name": class_name, "config": config}
    if is_own:
        optimizer |= {"module": _OWN_MODULE, "class_name": class_name.removeprefix(OWN_PACKAGE)}
        optimizer["registered_name"] = class_name
    return {**_NOT_COMPILED, "optimizer_config": optimizer}
