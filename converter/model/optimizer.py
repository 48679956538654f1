"""Optimizer state: moments per parameter, hyperparameters per group, and whose conventions these are."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any

from converter.model.tensor import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class ParameterGroup:
    """Parameters, by name, that share hyperparameters (`lr`, `betas`, `eps`, `weight_decay` ...)."""

    parameters: tuple[str, ...]
    hyperparameters: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class StoredOptimizer:
    """State whose variables its file only numbers, as it is there, for a copy; and what it is once more is known.

    `tensors`, `attributes`   the variables and what the groups say, by path in the file
    `named`   gives the state, or raises LossError where it is of something else. It takes `class_name`, what Keras
              calls the class, such as ``AdamW``; `order`, the names of the trained weights; `frozen`, those of
              weights that are not trained; and `inside`, which gives the places inside a layer of the user's own in
              the order in which its code has them
    `untold`  why not even the class is known, if it is not
    """

    tensors: Mapping[str, Tensor]
    attributes: Mapping[str, Mapping[str, object]]
    named: Callable[..., OptimizerState]
    untold: str | None = None


NAMED = "named"
"""What the names of an optimizer's parameters rest on where the source has them."""


class Convention(Enum):
    """Whose slots, signs and hyperparameters an optimizer state has."""

    TORCH = "those of torch.optim"
    KERAS = "those of Keras 3, and of the optimizers of tf_keras that came with 2.11"
    KERAS_LEGACY = "those of the optimizers of Keras before 2.11"
    TENSORFLOW_1 = "those of tf.compat.v1.train, under the names and in the signs of torch.optim's slots"


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimizerState:
    """What an optimizer remembers between steps.

    `slots` maps slot (`exp_avg`) -> parameter -> tensor, shaped and laid out as the parameter. `step` counts
    completed updates when all parameters agree on it, and None when they do not (then slot `step` holds theirs)
    or the algorithm keeps none. `basis` says what the names of the parameters rest on.

    Slots have Keras 3's names where the `convention` is one of Keras's, else torch's.

    `beside` has what an optimizer of Keras did besides, as its config says it (`clipnorm`, a schedule as
    `learning_rate`), and what one of PyTorch was given that no table knows: not in the groups; a note, if it stays so.
    """

    algorithm: str
    step: int | None
    groups: tuple[ParameterGroup, ...]
    slots: Mapping[str, Mapping[str, Tensor]] = field(default_factory=dict)
    basis: str = NAMED
    convention: Convention = Convention.TORCH
    beside: Mapping[str, Any] = field(default_factory=dict)

    @property
    def parameters(self) -> tuple[str, ...]:
        """The parameters of all groups, in their order."""
        return tuple(name for group in self.groups for name in group.parameters)

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
