"""Renaming a checkpoint renames everything that goes by those names."""

from __future__ import annotations

import numpy as np
import pytest

from converter.errors import ReadError
from converter.model.checkpoint import Checkpoint, Part
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
    with pytest.raises(ReadError, match="would both be called 'same'"):
        checkpoint.with_names(lambda name: "same")


def test_parts(checkpoint: Checkpoint) -> None:
    assert checkpoint.parts == {Part.WEIGHTS, Part.OPTIMIZER}
