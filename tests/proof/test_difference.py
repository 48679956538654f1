"""What `ckconv diff` calls a difference, what it only notes, and what it says: one row a condition."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from converter.model.checkpoint import Checkpoint, Config
from converter.model.optimizer import OptimizerState, ParameterGroup
from converter.model.tensor import ArrayTensor, Tensor
from converter.proof.difference import Difference, compare


def tensor(*values: float, dtype: str = "float32") -> Tensor:
    return ArrayTensor.of(np.array(values, dtype))


TENSORS = {"a": tensor(1, 2), "b": tensor(3, 4)}


def state(**changes: Any) -> OptimizerState:
    settings = {"lr": 0.1, "momentum": 0.9, "dampening": 0, "weight_decay": 0.0, "nesterov": False, "maximize": False}
    given = {
        "algorithm": "sgd",
        "step": 3,
        "groups": (ParameterGroup(parameters=("a", "b"), hyperparameters=settings),),
        "slots": {"momentum_buffer": {"a": tensor(1, 2), "b": tensor(3, 4)}},
    }
    return OptimizerState(**{**given, **changes})


def grouped(*groups: tuple[str, ...], **settings: Any) -> tuple[ParameterGroup, ...]:
    (whole,) = state().groups
    return tuple(
        replace(whole, parameters=names, hyperparameters={**whole.hyperparameters, **settings}) for names in groups
    )


def between(right: OptimizerState | None, left: OptimizerState | None = None) -> Difference:
    left = state() if left is None else left
    return compare(Checkpoint(tensors=TENSORS, optimizer=left), Checkpoint(tensors=TENSORS, optimizer=right))


def test_the_same_is_the_same() -> None:
    found = between(state())
    assert (found.is_same, found.same, found.notes, found.lines()) == (True, 2, (), [])
    assert found.verdict == "same: 2 same, 0 differ, 0 only in A, 0 only in B"
    assert (found.as_dict()["status"], found.as_dict()["exit_code"]) == ("same", 0)


def test_each_kind_of_difference_is_one() -> None:
    nothing: dict[str, Any] = {"same": 1, "changed": {}}
    assert Difference(**nothing, notes=("A alone",)).is_same
    for change in ({"only_left": ("x",)}, {"only_right": ("x",)}, {"changed": {"x": "y"}}, {"optimizer": "z"}):
        found = Difference(**{**nothing, **change})
        assert not found.is_same
        assert found.verdict.startswith("different: 1 same")
        assert (found.as_dict()["status"], found.as_dict()["exit_code"]) == ("different", 1)
        assert len(found.lines()) == 1
    found = Difference(same=1, changed={}, optimizer="\x1b[31mz", only_left=("a\nb",))
    assert found.lines() == ["only in A: a\\nb", "optimizer: \\x1b[31mz"]
    assert found.verdict == "different: 1 same, 0 differ, 1 only in A, 0 only in B; optimizer state differs"


@pytest.mark.parametrize(
    ("right", "what"),
    [
        (tensor(1, 2, dtype="float64"), "float32 and float64"),
        (ArrayTensor.of(np.array([[1, 2]], np.float32)), "[2] and [1, 2]"),
        (tensor(1, 3), "other values"),
        (tensor(1, float("nan")), "other values"),
        (tensor(1, 2), None),
    ],
)
def test_how_a_tensor_differs(right: Tensor, what: str | None) -> None:
    found = compare(Checkpoint(tensors=TENSORS), Checkpoint(tensors={**TENSORS, "a": right}))
    assert dict(found.changed) == ({} if what is None else {"a": what})
    assert found.same == (2 if what is None else 1)


def test_which_names_are_missing() -> None:
    left = Checkpoint(tensors=TENSORS, aliases={"t": "a", "u": "b"})
    right = Checkpoint(tensors={"t": TENSORS["a"], "c": tensor(9)})
    found = compare(left, right)
    assert (found.only_left, found.only_right, found.same) == (("b", "u"), ("c",), 1)
    assert compare(right, left).only_right == ("b", "u")


def test_wrappers_are_no_difference() -> None:
    assert compare(
        Checkpoint(tensors=TENSORS), Checkpoint(tensors={f"module.{name}": each for name, each in TENSORS.items()})
    ).is_same


def test_the_config_of_one_side_says_what_both_mean() -> None:
    """Names that transformers 5 has in memory, and those of its files, are told apart by a config alone."""
    config = Config(values={"model_type": "bert"}, raw=b"{}")
    old = {"bert.embeddings.LayerNorm.gamma": tensor(1, 2)}
    new = {"bert.embeddings.LayerNorm.weight": tensor(1, 2)}
    for left, right in (
        (Checkpoint(tensors=old, config=config), Checkpoint(tensors=new)),
        (Checkpoint(tensors=old), Checkpoint(tensors=new, config=config)),
    ):
        assert compare(left, right).is_same


def test_state_that_one_side_has_alone_is_noted() -> None:
    bare, trained = Checkpoint(tensors=TENSORS), Checkpoint(tensors=TENSORS, optimizer=state())
    assert compare(trained, bare).notes == ("A alone has optimizer state",)
    assert compare(bare, trained).notes == ("B alone has optimizer state",)
    assert compare(bare, trained).is_same
    assert compare(bare, trained).lines() == ["note: B alone has optimizer state"]


def test_state_that_is_there_and_not_understood_is_not_said_to_be_missing() -> None:
    bare, trained = Checkpoint(tensors=TENSORS), Checkpoint(tensors=TENSORS, optimizer=state())
    odd = Checkpoint(tensors=TENSORS, optimizer_refused="it is odd")
    said = "has optimizer state that is not compared: it is odd"
    for left, right, notes in (
        (odd, bare, (f"A {said}",)),
        (bare, odd, (f"B {said}",)),
        (odd, trained, (f"A {said}",)),
        (trained, odd, (f"B {said}",)),
        (odd, odd, (f"A {said}", f"B {said}")),
    ):
        assert compare(left, right).notes == notes


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"step": 4}, "optimizer is sgd at step 4, not sgd at 3"),
        ({"algorithm": "adagrad"}, "optimizer is adagrad at step 3"),
        ({"groups": grouped(("a", "b"), lr=0.2)}, "a: lr is 0.1 and 0.2"),
        ({"groups": (*grouped(("a",)), *grouped(("b",), nesterov=True))}, "b: nesterov is False and True"),
        ({"groups": grouped(("a",))}, "b: is in a group on one side only"),
        ({"slots": {"momentum_buffer": {"a": tensor(1, 2), "b": tensor(3, 5)}}}, "momentum_buffer/b: differs"),
        ({"slots": {"momentum_buffer": {"a": tensor(1, 2)}}}, "b: optimizer slot momentum_buffer is on one side only"),
    ],
)
def test_how_state_differs(changes: dict[str, Any], what: str) -> None:
    found = between(state(**changes))
    assert found.optimizer is not None
    assert what in found.optimizer
    assert not found.is_same


def test_what_one_side_has_alone_is_a_difference_on_either() -> None:
    assert between(state(), state(groups=grouped(("a",)))).optimizer == "b: is in a group on one side only"
    more = state(groups=grouped(("a", "b"), clip=1))
    assert between(more).optimizer == "a: clip is None and 1"
    assert between(state(), more).optimizer == "a: clip is 1 and None"


def test_what_changes_no_update_is_no_difference() -> None:
    assert between(state(groups=(*grouped(("b",)), *grouped(("a",))))).is_same  # how parameters are grouped
    assert between(state(groups=grouped(("b", "a")))).is_same
    assert between(state(groups=grouped(("a", "b"), foreach=True, fused=False))).notes == ()
    counted = between(state(step=None))
    assert counted.is_same
    assert counted.notes == ("one alone counts the steps of SGD, which change no update",)
    assert not between(state(step=None, algorithm="adagrad"), state(algorithm="adagrad")).is_same


@pytest.mark.parametrize(
    ("name", "ours", "theirs", "is_rounding"),
    [
        ("lr", 0.1, float(np.float32(0.1)), True),
        ("lr", 0.1, 0.1000001, False),
        ("eps", 1e-8, 1e-8 * (1 + 5e-7), True),
        ("eps", 1e-8, 1e-8 * (1 + 2e-6), False),
        ("momentum", 0.9, 0.9 * (1 + 5e-7), False),
        ("betas", (0.9, 0.999), [float(np.float32(0.9)), 0.999], True),
        ("betas", (0.9, 0.999), [0.9, 0.99], False),
        ("betas", (0.9, 0.999), [0.9], False),
        ("amsgrad", True, 1.0, True),
        ("amsgrad", True, 2, False),
        ("maximize", None, 0.0, False),
    ],
)
def test_settings_that_are_the_same_but_for_rounding(name: str, ours: Any, theirs: Any, is_rounding: bool) -> None:
    found = between(
        state(groups=grouped(("a", "b"), **{name: theirs})), state(groups=grouped(("a", "b"), **{name: ours}))
    )
    assert found.is_same is is_rounding
    if is_rounding and ours is not True:
        assert found.notes == (f"{name} is {ours!r} and {theirs!r}: the same but for rounding",)


def test_momentum_may_differ_in_the_last_bit_alone() -> None:
    def with_momentum(value: float, slot: str = "momentum_buffer") -> OptimizerState:
        return state(slots={slot: {"a": tensor(value, 2), "b": tensor(3, 4)}})

    above = float(np.nextafter(np.float32(1), np.float32(2)))
    further = float(np.nextafter(np.float32(above), np.float32(2)))
    near = between(with_momentum(above))
    assert near.is_same
    assert near.notes == ("momentum_buffer of 1 parameters is the same but for the last bit of some values",)
    assert not between(with_momentum(further)).is_same
    assert not between(with_momentum(above, "sum"), with_momentum(1, "sum")).is_same
    assert not between(with_momentum(float("nan"))).is_same
