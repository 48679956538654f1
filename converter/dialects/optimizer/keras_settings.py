"""Every setting that Keras's optimizers have in their configs, and what becomes of it in torch.optim.

keras/src/optimizers (Keras 3.15), tf_keras/src/optimizers and its legacy folder (tf_keras 2.21), AdamWeightDecay of
transformers 4.57. What PyTorch does outside its optimizers stays beside a state, with a note, for Keras.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Any

from converter.dialects.optimizer.schedules import shown_schedule
from converter.errors import LossError


class Fate(Enum):
    """What becomes of a setting."""

    CARRIED = "torch.optim has it"
    INERT = "it changes no update"
    BESIDE = "PyTorch does it outside its optimizers"
    REFUSED = "no state of torch.optim goes on as it would"


def _each(fate: Fate, names: str) -> dict[str, Fate]:
    return dict.fromkeys(names.split(), fate)


COMMON: Mapping[str, Fate] = {
    **_each(Fate.CARRIED, "learning_rate lr decay weight_decay"),
    **_each(Fate.INERT, "name class_name jit_compile is_legacy_optimizer ema_momentum ema_overwrite_frequency"),
    **_each(Fate.BESIDE, "clipnorm global_clipnorm clipvalue loss_scale_factor dynamic_scale"),
    **_each(Fate.REFUSED, "use_ema gradient_accumulation_steps"),
    **_each(Fate.CARRIED, "without_weight_decay epsilon_of_torch"),  # of this program's own files
}
"""What every optimizer may have. The two of an average mean nothing without `use_ema`."""

_ADAM = _each(Fate.CARRIED, "beta_1 beta_2 epsilon amsgrad adaptive_epsilon weight_decay_rate")
_TENSORFLOW_1 = _each(Fate.CARRIED, "beta1_power beta2_power momentum nesterov rho")
OPTIMIZERS: Mapping[str, Mapping[str, Fate]] = {
    "adam": _ADAM | _TENSORFLOW_1,
    "adamw": _ADAM | _TENSORFLOW_1,
    "sgd": _each(Fate.CARRIED, "momentum nesterov"),
    "rmsprop": _each(Fate.CARRIED, "rho momentum epsilon centered"),
    "adagrad": _each(Fate.CARRIED, "initial_accumulator_value epsilon"),
}
"""Algorithm -> settings of its own. Algorithms that torch.optim computes otherwise are refused whole."""

_TORCH = """
lr betas eps weight_decay amsgrad maximize foreach capturable differentiable fused decoupled_weight_decay momentum
dampening nesterov alpha centered lr_decay initial_accumulator_value correct_bias
"""
TORCH = frozenset(_TORCH.split())
"""What the groups of torch.optim's Adam, AdamW, SGD, RMSprop and Adagrad have, all of them looked at (torch 2.13)."""


def beside(config: Mapping[str, Any], algorithm: str, *, is_legacy: bool = False) -> dict[str, Any]:
    """Return the settings of a config that torch.optim has no place for, and those that no table knows.

    Of `decay` only optimizers before TensorFlow 2.11, `is_legacy`, know.

    Raises LossError for a setting whose optimizer nothing in PyTorch goes on as.
    """
    fates = {**COMMON, **OPTIMIZERS.get(algorithm, {})}
    found: dict[str, Any] = {}
    for name, value in config.items():
        fate = fates.get(name, Fate.BESIDE)
        if fate is Fate.REFUSED and value:
            raise LossError(f"it uses {name}, which torch.optim does not have")
        if fate is Fate.BESIDE and value is not None and value is not False:
            found[name] = value
        if name in ("learning_rate", "lr") and isinstance(value, Mapping):
            found["learning_rate"] = value
        if name == "decay" and value:
            found[name if is_legacy else "unread decay"] = value
    return found


def notes_on(settings: Mapping[str, Any], rate: Any, step: int, *, is_in_torch: bool) -> list[str]:
    """Return the lines that a user should read of settings that a target's optimizer has not."""
    lines = []
    where = "torch.optim.lr_scheduler" if is_in_torch else "a schedule of Keras"
    shown_rate = f"{rate:.6g}" if isinstance(rate, int | float) else rate
    for name, value in settings.items():
        if name in ("learning_rate", "decay"):
            what = shown_schedule(value) if name == "learning_rate" else f"decay {value:g}"
            lines.append(
                f"the learning rate is {shown_rate}, what {what} gives at step {step}, and constant from here on: "
                f"{where} has to go on with it"
            )
    clipping = {name: settings[name] for name in ("clipnorm", "global_clipnorm", "clipvalue") if name in settings}
    if clipping:
        shown = ", ".join(f"{name} {value}" for name, value in clipping.items())
        lines.append(f"{shown} not carried: in PyTorch the training loop clips gradients")
    if "loss_scale_factor" in settings:
        scale = settings["loss_scale_factor"]
        lines.append(f"loss_scale_factor {scale} not carried: torch.amp.GradScaler is what PyTorch has")
    if "dynamic_scale" in settings:
        scale = settings["dynamic_scale"]
        shown = f"{scale:g}" if isinstance(scale, int | float) else repr(scale)
        lines.append(f"the loss was scaled by {shown}, not carried: torch.amp.GradScaler is what PyTorch has")
    lines += [
        f"{name} {value!r} of the optimizer is not known here, and not carried"
        for name, value in settings.items()
        if name not in ("learning_rate", "decay") and name not in COMMON
    ]
    return lines
