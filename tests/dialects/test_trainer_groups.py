"""The groups that transformers.Trainer resumes from, one row a condition; no framework.

tests/formats/test_trainer_optimizer.py resumes with Trainer itself.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from converter.dialects.optimizer.numbering_conventions import ModuleOrder
from converter.dialects.optimizer.trainer import constant_schedule, for_groups, in_order, in_trainer_groups
from converter.errors import LossError
from converter.model.checkpoint import Checkpoint
from converter.model.optimizer import OptimizerState, ParameterGroup
from converter.model.tensor import ArrayTensor

SHAPES = {"a.weight": (2, 2), "a.bias": (2,), "LayerNorm.weight": (2,), "LayerNorm.bias": (2,), "b.weight": (2, 2)}
DECAYED, EXEMPT = ("a.weight", "b.weight"), ("a.bias", "LayerNorm.weight", "LayerNorm.bias")
ORDER = ModuleOrder(
    names=("b.weight", "a.bias", "a.weight", "LayerNorm.weight", "LayerNorm.bias"),
    layer_norms=frozenset({"LayerNorm.weight"}),
)


def group(*names: str, **values: Any) -> ParameterGroup:
    return ParameterGroup(parameters=names, hyperparameters={"lr": 0.1, "weight_decay": 0.01, **values})


def trained(*groups: ParameterGroup, step: int | None = 7) -> Checkpoint:
    state = OptimizerState(algorithm="adamw", step=step, groups=groups)
    tensors = {name: ArrayTensor.of(np.zeros(shape, np.float32)) for name, shape in SHAPES.items()}
    return Checkpoint(tensors=tensors, optimizer=state)


def parted(checkpoint: Checkpoint, order: ModuleOrder | None = None) -> list[tuple[tuple[str, ...], float]]:
    made = in_trainer_groups(checkpoint, order)
    return [(each.parameters, each.hyperparameters["weight_decay"]) for each in made.groups]


def test_one_group_becomes_two_that_go_on_alike() -> None:
    assert parted(trained(group(*SHAPES))) == [(DECAYED, 0.01), (EXEMPT, 0.01)]
    assert parted(trained(group(*SHAPES, weight_decay=0.0))) == [(DECAYED, 0.0), (EXEMPT, 0.0)]


def test_groups_of_trainers_stay_in_their_order() -> None:
    for groups in (
        (group(*DECAYED), group(*EXEMPT, weight_decay=0.0)),
        (group(*EXEMPT, weight_decay=0.0), group(*DECAYED)),
    ):
        assert parted(trained(*groups)) == [(DECAYED, 0.01), (EXEMPT, 0.0)]
    turned = (group(*reversed(DECAYED)), group(*reversed(EXEMPT), weight_decay=0.0))
    assert parted(trained(*turned)) == [(DECAYED[::-1], 0.01), (EXEMPT[::-1], 0.0)]


def test_a_group_that_trains_nothing_does_not_decay_where_it_is_the_second() -> None:
    """Trainer makes both groups always, and what is in none has the settings of the first."""
    assert parted(trained(group(*DECAYED))) == [(DECAYED, 0.01), ((), 0.0)]
    assert parted(trained(group(*EXEMPT, weight_decay=0.0))) == [((), 0.0), (EXEMPT, 0.0)]
    made = in_trainer_groups(trained(group(*DECAYED)), None)
    assert made.groups[1].hyperparameters == {"lr": 0.1, "weight_decay": 0.0}


def test_groups_that_are_mixed_are_in_the_order_of_the_weights() -> None:
    mixed = (group("LayerNorm.bias", "b.weight"), group("a.weight", "a.bias", "LayerNorm.weight"))
    assert parted(trained(*mixed)) == [(DECAYED, 0.01), (EXEMPT, 0.01)]


def test_groups_that_are_mixed_and_in_another_order_than_the_weights_say_none() -> None:
    for wrong in (
        (group("b.weight", "LayerNorm.bias"), group("a.weight", "a.bias", "LayerNorm.weight")),
        (group("LayerNorm.bias", "b.weight"), group("a.bias", "a.weight", "LayerNorm.weight")),
    ):
        with pytest.raises(LossError, match="do not say in which order"):
            in_trainer_groups(trained(*wrong), None)
        assert parted(trained(*wrong), ORDER) == [(("b.weight", "a.weight"), 0.01), (EXEMPT, 0.01)]


def test_the_order_of_the_class_goes_before_that_of_the_groups() -> None:
    groups = (group(*DECAYED), group(*EXEMPT, weight_decay=0.0))
    assert parted(trained(*groups), ORDER) == [(("b.weight", "a.weight"), 0.01), (EXEMPT, 0.0)]
    state = trained(group(*reversed(SHAPES)), group()).optimizer
    assert state is not None
    assert [each.parameters for each in in_order(state, ORDER).groups] == [ORDER.names, ()]


@pytest.mark.parametrize("name", ["lr", "weight_decay", "betas"])
def test_what_trainer_has_in_one_group_has_the_same_hyperparameters(name: str) -> None:
    for groups in (
        (group("a.weight"), group("b.weight", **{name: 0.5}), group(*EXEMPT)),
        (group(*DECAYED), group("a.bias"), group("LayerNorm.weight", "LayerNorm.bias", **{name: 0.5})),
    ):
        with pytest.raises(LossError, match="which Trainer has in one group, have different hyperparameters"):
            in_trainer_groups(trained(*groups), None)


def test_a_parameter_that_the_class_has_not_is_refused() -> None:
    strange = trained(group(*SHAPES, "c.weight"))
    assert strange.optimizer is not None
    for made in (lambda: in_trainer_groups(strange, ORDER), lambda: in_order(strange.optimizer, ORDER)):  # type: ignore[arg-type]
        with pytest.raises(LossError, match=r"the model's class has no parameter 'c.weight'"):
            made()


def test_a_constant_schedule_goes_on_with_the_rate_of_each_group() -> None:
    """As LambdaLR.state_dict() has it: `last_epoch` counts its steps, `_step_count` the call of its start, too."""
    for step, count in ((7, 7), (0, 0), (None, 0)):
        state = trained(group("a.weight"), group("b.weight", lr=0.5), step=step).optimizer
        assert state is not None
        made = constant_schedule(state)
        assert (made["last_epoch"], made["_step_count"]) == (count, count + 1)
        assert made["base_lrs"] == made["_last_lr"] == [0.1, 0.5]
        assert made["lr_lambdas"] == [None, None]
        assert not made["_is_initial"]
        assert not made["_get_lr_called_within_step"]


@pytest.mark.parametrize("key", ["base_lrs", "_last_lr", "lr_lambdas", "min_lrs", "max_lrs"])
def test_a_scheduler_of_one_group_is_one_of_several(key: str) -> None:
    scheduler = {key: [0.5], "last_epoch": 3, "others": [1], "T_max": 7}
    assert for_groups(scheduler, 2) == {**scheduler, key: [0.5, 0.5]}
    assert for_groups(scheduler, 1) == scheduler
    assert for_groups({key: [0.5, 0.25]}, 2) == {key: [0.5, 0.25]}
    assert for_groups({key: [0.5, 0.25]}, 3) is None
    assert for_groups({key: [0.5, 0.25]}, 1) is None
    assert for_groups({key: []}, 2) is None
    assert for_groups({key: 0.5}, 2) == {key: 0.5}


def test_a_scheduler_that_is_given_stays_as_it_is() -> None:
    scheduler = {"base_lrs": [0.5]}
    for_groups(scheduler, 3)
    assert scheduler == {"base_lrs": [0.5]}
