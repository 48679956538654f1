"""Renaming a checkpoint renames everything that goes by those names."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from converter.errors import LossError
from converter.model.checkpoint import Checkpoint, Config, Part
from converter.model.optimizer import OptimizerState, ParameterGroup
from converter.model.tensor import ArrayTensor


@pytest.fixture
def checkpoint() -> Checkpoint:
    tensor = ArrayTensor.of(np.zeros(2, np.float32))
    state = OptimizerState(
        algorithm="sgd",
        step=None,
        groups=(ParameterGroup(parameters=("module.a",), hyperparameters={"lr": 0.1}),),
        slots={"momentum_buffer": {"module.a": tensor}},
    )
    return Checkpoint(
        tensors={"module.a": tensor},
        aliases={"module.b": "module.a"},
        buffers=frozenset({"module.a"}),
        frozen=frozenset({"module.b"}),
        optimizer=state,
    )


def test_with_names_renames_all(checkpoint: Checkpoint) -> None:
    renamed = checkpoint.with_names(lambda name: name.removeprefix("module."))
    assert renamed.names == ("a", "b")
    assert renamed.aliases == {"b": "a"}
    assert renamed.origin("a") == "module.a"
    assert (renamed.buffers, renamed.frozen) == ({"a"}, {"b"})
    assert renamed.optimizer is not None
    assert renamed.optimizer.groups[0].parameters == ("a",)
    assert list(renamed.optimizer.slots["momentum_buffer"]) == ["a"]


def test_origins_survive_a_second_renaming(checkpoint: Checkpoint) -> None:
    twice = checkpoint.with_names(lambda name: name.removeprefix("module.")).with_names(lambda name: "x." + name)
    assert twice.origin("x.a") == "module.a"
    back = twice.with_names(lambda name: name.replace("x.", "module."))
    assert back.origins == {}


def test_two_names_never_become_one(checkpoint: Checkpoint) -> None:
    with pytest.raises(LossError, match="would both be named 'same'"):
        checkpoint.with_names(lambda name: "same")


def test_the_state_of_some_weights_is_asked_for_and_left_out(checkpoint: Checkpoint) -> None:
    weight = checkpoint.tensors["module.a"]
    assert [tensor is weight for tensor in checkpoint.all_tensors] == [True, True]
    assert checkpoint.has_state_of({"module.a", "x"})
    assert not checkpoint.has_state_of({"module.b"})
    left = checkpoint.without_state_of({"module.a"}).optimizer
    assert left is not None
    assert (left.parameters, left.slots) == ((), {"momentum_buffer": {}})
    assert checkpoint.without_state_of({"module.b"}).optimizer == checkpoint.optimizer


def test_the_state_of_a_tie_goes_under_the_name_of_its_owner(checkpoint: Checkpoint) -> None:
    tied = checkpoint.with_state_of({"owner"}, ties={"module.a": "owner"}).optimizer
    assert tied is not None
    assert (tied.parameters, list(tied.slots["momentum_buffer"])) == (("owner",), ["owner"])
    untied = checkpoint.with_state_of({"owner"}, ties={}).optimizer
    assert untied is not None
    assert untied.parameters == ()


def test_a_state_that_is_left_out_is_warned_of_once(checkpoint: Checkpoint) -> None:
    without = checkpoint.without_state("nothing holds it")
    assert (without.optimizer, without.warnings) == (None, ("optimizer state not carried: nothing holds it",))
    assert without.without_state("nothing holds it") is without
    assert without.all_tensors == tuple(checkpoint.tensors.values())
    assert not without.has_state_of({"module.a"})


def test_parts(checkpoint: Checkpoint) -> None:
    assert checkpoint.parts == {Part.WEIGHTS, Part.OPTIMIZER}


def test_what_came_with_the_tensors_is_a_part_of_its_own(checkpoint: Checkpoint) -> None:
    bare = Checkpoint(tensors=checkpoint.tensors)
    config = Config(values={"model_type": "bert"}, raw=b"{}")
    assert bare.parts == {Part.WEIGHTS}
    assert replace(bare, extras={"epoch": 3}).parts == {Part.WEIGHTS, Part.EXTRAS}
    assert replace(bare, config=config).parts == {Part.WEIGHTS, Part.CONFIG}
    assert replace(bare, keras_config=config).parts == {Part.WEIGHTS, Part.CONFIG}
    assert replace(bare, graph=object()).parts == {Part.WEIGHTS, Part.GRAPH}


def test_a_tied_name_has_the_tensor_of_its_owner(checkpoint: Checkpoint) -> None:
    assert checkpoint.tensor("module.b") is checkpoint.tensor("module.a") is checkpoint.tensors["module.a"]
    assert checkpoint.nbytes == checkpoint.tensors["module.a"].nbytes
    with pytest.raises(KeyError):
        checkpoint.tensor("module.c")


def test_state_without_some_parameters_says_nothing_of_them() -> None:
    tensor = ArrayTensor.of(np.zeros(2, np.float32))
    state = OptimizerState(
        algorithm="adam",
        step=3,
        groups=(
            ParameterGroup(parameters=("a", "b"), hyperparameters={"lr": 0.1}),
            ParameterGroup(parameters=("c",), hyperparameters={"lr": 0.2}),
        ),
        slots={"exp_avg": {"a": tensor, "b": tensor, "c": tensor}, "exp_avg_sq": {"b": tensor}},
    )
    left = state.without(["b", "c"])
    assert [group.parameters for group in left.groups] == [("a",), ()]
    assert [group.hyperparameters for group in left.groups] == [{"lr": 0.1}, {"lr": 0.2}]
    assert left.slots == {"exp_avg": {"a": tensor}, "exp_avg_sq": {}}
    assert (left.step, left.algorithm) == (3, "adam")
