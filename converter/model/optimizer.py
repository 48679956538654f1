"""Optimizer state: moments per parameter, hyperparameters per group, and whose conventions these are."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from converter.model.tensor import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class ParameterGroup:
    """Parameters, by name, that share hyperparameters (`lr`, `betas`, `eps`, `weight_decay` ...)."""

    parameters: tuple[str, ...]
    hyperparameters: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimizerState:
    """What an optimizer remembers between steps.

    `slots` maps slot (`exp_avg`) -> parameter -> tensor, shaped and laid out as the parameter. `step` counts
    completed updates when all parameters agree on it, and None when they do not (then slot `step` holds theirs)
    or the algorithm keeps none. `basis` says what the names of the parameters rest on.

    `convention` is "torch" (slots, signs and hyperparameters of torch.optim), "keras" (those of Keras 3 and of the
    optimizers of tf_keras that came with 2.11), "keras-legacy" (those before) or "tensorflow-1" (tf.compat.v1.train).
    Slots of Keras have Keras 3's names, those of TensorFlow 1 torch's.

    `beside` has what an optimizer of Keras did besides, as its config says it (`clipnorm`, a schedule as
    `learning_rate`), and what one of PyTorch was given that no table knows: not in the groups, and said if it stays so.
    """

    algorithm: str
    step: int | None
    groups: tuple[ParameterGroup, ...]
    slots: Mapping[str, Mapping[str, Tensor]] = field(default_factory=dict)
    basis: str = "named"
    convention: str = "torch"
    beside: Mapping[str, Any] = field(default_factory=dict)

    def without(self, names: Collection[str]) -> OptimizerState:
        """Return the state of all other parameters."""
        return replace(
            self,
            groups=tuple(
                replace(group, parameters=tuple(name for name in group.parameters if name not in names))
                for group in self.groups
            ),
            slots={
                slot: {name: tensor for name, tensor in tensors.items() if name not in names}
                for slot, tensors in self.slots.items()
            },
        )

    def with_names(self, names: Mapping[str, str]) -> OptimizerState:
        """Return the state with its parameters renamed; those that `names` does not have stay."""
        return replace(
            self,
            groups=tuple(
                replace(group, parameters=tuple(names.get(name, name) for name in group.parameters))
                for group in self.groups
            ),
            slots={
                slot: {names.get(name, name): tensor for name, tensor in tensors.items()}
                for slot, tensors in self.slots.items()
            },
        )
