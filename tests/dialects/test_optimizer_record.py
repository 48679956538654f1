"""What is kept beside an optimizer of Keras: the record counts where it agrees with its file, and nothing else does."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from converter.dialects.optimizer.flavors import KerasFlavor
from converter.dialects.optimizer.record import Record, parsed, record_of
from converter.dialects.optimizer.semantics import to_keras
from converter.dialects.optimizer.settings import Settings
from converter.model.optimizer import OptimizerState, ParameterGroup
from tests.dialects.test_optimizer_semantics import checkpoint_of, state_of

ADAM = Settings(class_name="Adam", config={"beta_1": 0.8})


def state(decay: float = 0.1) -> OptimizerState:
    group = ParameterGroup(parameters=("a", "b", "c:0"), hyperparameters={"weight_decay": decay})
    return OptimizerState(algorithm="adamw", step=1, groups=(group,))


@pytest.mark.parametrize("epsilons", [[0.1, 0.2], [0, 1]])
def test_a_pair_of_epsilons(epsilons: list[Any]) -> None:
    assert parsed({"epsilon": epsilons}).epsilon_of_torch == tuple(epsilons)


@pytest.mark.parametrize(
    "epsilons",
    [None, 0.1, "ab", [], [0.1], [0.1, 0.2, 0.3], [0.1, "x"], [0.1, True], [-0.1, 0.2], [0.1, -0.2]]
    + [[0.1, value] for value in (math.nan, math.inf)],
)
def test_what_is_no_pair_of_epsilons(epsilons: Any) -> None:
    assert parsed({"epsilon": epsilons}).epsilon_of_torch is None


@pytest.mark.parametrize("value", [None, 7, "x", [], {}, {"class_name": 7, "config": {}}, {"class_name": "Adam"}])
def test_what_is_no_record(value: Any) -> None:
    assert parsed(value).settings == Settings()


def test_the_file_goes_before_the_record_where_it_says_anything() -> None:
    record = Record(settings=ADAM)
    assert record.completing(Settings(class_name="adam")) == ADAM
    told = Settings(class_name="SGD", config={"momentum": 0.9})
    assert record.completing(told) == told
    assert Record().completing(Settings(class_name="adam")) == Settings(class_name="adam")
    forged = Settings(class_name="SGD", config={"momentum": 0.9, "epsilon_of_torch": [1, 2]})
    assert record.completing(forged) == told
    assert Record(epsilon_of_torch=(1.0, 2.0)).completing(told).config["epsilon_of_torch"] == [1.0, 2.0]


@pytest.mark.parametrize(
    ("record", "positions", "apart"),
    [
        (Record(), None, ()),
        (Record(), [1, 2], ("b", "c:0")),
        (Record(), "b", ()),
        (Record(without_decay=frozenset("b"), parameters=("a", "b", "c")), None, ("b",)),
        (Record(without_decay=frozenset("c"), parameters=("a", "b", "c")), None, ("c:0",)),
        (Record(without_decay=frozenset({"c:0"}), parameters=("a", "b", "c:0")), None, ("c:0",)),
        (Record(without_decay=frozenset("b"), parameters=("a", "b", "c")), [0], ("b",)),
        (Record(without_decay=frozenset("b")), [0], ("a",)),
    ],
)
def test_what_does_not_decay_is_a_group_of_its_own(record: Record, positions: Any, apart: tuple[str, ...]) -> None:
    made = record.applied(state(), positions)
    expected = [(tuple(name for name in ("a", "b", "c:0") if name not in apart), 0.1), (apart, 0.0)]
    assert [(group.parameters, group.hyperparameters["weight_decay"]) for group in made.groups] == [
        each for each in expected if each[0]
    ]
    assert record.applied(state(decay=0.0), positions) == state(decay=0.0)


@pytest.mark.parametrize("kind", ["adam", "sgd", "centered"])
def test_a_record_is_read_as_it_is_written(kind: str) -> None:
    there = state_of(to_keras(checkpoint_of(kind), KerasFlavor.KERAS_3))
    record = parsed(json.loads(json.dumps(record_of(there))))
    held = there.groups[0].hyperparameters
    told = record.completing(Settings())
    assert told.class_name == held["class_name"]
    assert {key: held[key] for key in told.config} == dict(told.config)
    assert (record.epsilon_of_torch is None) == (kind == "sgd")
