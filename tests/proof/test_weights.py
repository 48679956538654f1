"""What must differ to be noticed in an output that was read back: each guard by itself, on two tensors."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converter.errors import LossError, VerificationError
from converter.model.checkpoint import Checkpoint
from converter.model.ledger import Kind, defaulted, dropped
from converter.model.optimizer import Convention, OptimizerState, ParameterGroup
from converter.model.output import Output
from converter.model.tensor import ArrayTensor, Tensor
from converter.proof.weights import names_of_parameters, verify_optimizer, verify_weights
from converter.report.ledger import account, check_allowed

PATH = Path("out")


def tensor(*values: float, dtype: str = "float32") -> Tensor:
    return ArrayTensor.of(np.array(values, dtype))


def checkpoint(**tensors: Tensor) -> Checkpoint:
    return Checkpoint(tensors=tensors)


TWO = {"a": tensor(1, 2), "b": tensor(3, 4)}
SLOTS = {"slot.a": "a", "slot.b": "b"}


def read_back(**changes: Tensor | None) -> Checkpoint:
    """What is read from the output: copies of the two tensors, but for the changes."""
    found: dict[str, Tensor | None] = {"slot.a": tensor(1, 2), "slot.b": tensor(3, 4)}
    found.update({name.replace("_", "."): value for name, value in changes.items()})
    return Checkpoint(tensors={name: value for name, value in found.items() if value is not None})


def test_the_same_is_the_same() -> None:
    verify_weights(checkpoint(**TWO), read_back(), SLOTS, path=PATH)


@pytest.mark.parametrize(
    ("changes", "slot", "said"),
    [
        ({"slot_b": None}, "slot.b", "is missing in the output"),
        ({"slot_c": tensor(1)}, "slot.c", "was not planned"),
        ({"slot_a": tensor(1, 2, 3)}, "slot.a", r"is float32\[3\], not float32\[2\]"),
        ({"slot_a": ArrayTensor.of(np.array([[1, 2]], "f4"))}, "slot.a", r"is float32\[1, 2\]"),
        ({"slot_b": tensor(3, 4, dtype="float64")}, "slot.b", "is float64"),
        ({"slot_b": tensor(3, 5)}, "slot.b", "differs from the source"),
        ({"slot_a": tensor(1, float("nan"))}, "slot.a", "differs from the source"),
        ({"slot_a": tensor(3, 4), "slot_b": tensor(1, 2)}, "slot.a", "differs from the source"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_difference_names_its_slot(changes: dict[str, Any], slot: str, said: str) -> None:
    with pytest.raises(VerificationError, match=said) as caught:
        verify_weights(checkpoint(**TWO), read_back(**changes), SLOTS, path=PATH)
    assert (caught.value.tensor, caught.value.path) == (slot, "out")


def test_minus_zero_and_the_bits_of_nan_are_bits() -> None:
    for ours, theirs in ((0.0, -0.0), (float("nan"), -float("nan"))):
        with pytest.raises(VerificationError, match="differs"):
            verify_weights(checkpoint(a=tensor(ours)), checkpoint(a=tensor(theirs)), {"a": "a"}, path=PATH)
    nan = checkpoint(a=tensor(float("nan")))
    verify_weights(nan, checkpoint(a=tensor(float("nan"))), {"a": "a"}, path=PATH)


def test_every_copy_of_a_tie_is_compared() -> None:
    """One tensor of ours fills two slots; the second copy of it is another."""
    shared = tensor(1, 2)
    expected = Checkpoint(tensors={"a": shared}, aliases={"b": "a"})
    slots = {"a": "a", "b": "b"}
    verify_weights(expected, checkpoint(a=tensor(1, 2), b=tensor(1, 2)), slots, path=PATH)
    with pytest.raises(VerificationError, match="differs") as caught:
        verify_weights(expected, checkpoint(a=tensor(1, 2), b=tensor(1, 9)), slots, path=PATH)
    assert caught.value.tensor == "b"


def test_a_tie_of_the_output_stands_for_what_it_shares() -> None:
    expected = checkpoint(a=tensor(1, 2), b=tensor(3, 4))
    tied = Checkpoint(tensors={"a": tensor(1, 2)}, aliases={"b": "a"})
    with pytest.raises(VerificationError, match="differs") as caught:
        verify_weights(expected, tied, {"a": "a", "b": "b"}, path=PATH)
    assert caught.value.tensor == "b"
    with pytest.raises(VerificationError, match="was not planned"):
        verify_weights(expected, replace(tied, aliases={"c": "a"}), {"a": "a"}, path=PATH)


def state(**changes: Any) -> OptimizerState:
    groups = (ParameterGroup(parameters=("a", "b"), hyperparameters={"lr": 0.1, "betas": [0.9, 0.99]}),)
    slots = {"m": {"a": tensor(1), "b": tensor(2)}, "v": {"a": tensor(3)}}
    return replace(OptimizerState(algorithm="adam", step=7, groups=groups, slots=slots), **changes)


def test_the_same_optimizer_state_is_the_same() -> None:
    verify_optimizer(state(), state(), path=PATH)
    tuples = ParameterGroup(parameters=("a", "b"), hyperparameters={"lr": 0.1, "betas": (0.9, 0.99)})
    verify_optimizer(state(), state(groups=(tuples,)), path=PATH)
    renamed = state().with_names({"a": "x.a", "b": "x.b"})
    verify_optimizer(state(), renamed, path=PATH, names={"x.a": "a", "x.b": "b"})


def test_a_parameter_of_a_tie_is_the_same_by_either_name() -> None:
    """And the names of others stay theirs: the second name of a tie is not put for anything else."""
    planned = Checkpoint(tensors=TWO, aliases={"c": "a", "d": "b"})
    names = {"x.a": "a", "x.b": "b", "x.c": "c", "x.d": "d"}
    found = state().with_names({"a": "x.c", "b": "x.b"})
    verify_optimizer(state(), found, path=PATH, names=names_of_parameters(state(), planned, names))
    of_second = state().with_names({"a": "c"})
    assert names_of_parameters(of_second, planned, names) == {"x.a": "c", "x.b": "b", "x.c": "c", "x.d": "b"}
    wrong = state().with_names({"a": "x.d", "b": "x.a"})
    with pytest.raises(VerificationError, match="groups differ"):
        verify_optimizer(state(), wrong, path=PATH, names=names_of_parameters(state(), planned, names))


def group(parameters: tuple[str, ...] = ("a", "b"), **hyperparameters: Any) -> ParameterGroup:
    return ParameterGroup(parameters=parameters, hyperparameters={"lr": 0.1, "betas": [0.9, 0.99], **hyperparameters})


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (None, "has no optimizer state"),
        (state(step=8), "adam at step 8, not adam at 7"),
        (state(algorithm="sgd"), "sgd at step 7"),
        (state(groups=(group(lr=0.2),)), "groups differ"),
        (state(groups=(group(betas=[0.9, 0.98]),)), "groups differ"),
        (state(groups=(group(amsgrad=True),)), "groups differ"),
        (state(groups=(group(("b", "a")),)), "groups differ"),
        (state(groups=(group(("a",)), group(("b",)))), "groups differ"),
        (state(groups=()), "groups differ"),
        (state(slots={"m": {"a": tensor(1), "b": tensor(2)}}), "slot v is on one side only"),
        (state(slots={"m": {"a": tensor(1)}, "v": {"a": tensor(3)}}), "slot m is on one side only"),
        (state(slots={**state().slots, "n": {"a": tensor(3)}}), "slot n is on one side only"),
        (state(slots={"m": {"a": tensor(1), "b": tensor(2)}, "v": {"a": tensor(4)}}), "differs from the source"),
        (state(slots={"m": {"a": tensor(2), "b": tensor(1)}, "v": {"a": tensor(3)}}), "differs from the source"),
    ],
)
def test_a_difference_in_the_optimizer(found: OptimizerState | None, said: str) -> None:
    with pytest.raises(VerificationError, match=said):
        verify_optimizer(state(), found, path=PATH)


def test_order_in_a_group_of_keras_means_nothing() -> None:
    keras = state(convention=Convention.KERAS)
    verify_optimizer(keras, replace(keras, groups=(group(("b", "a")),)), path=PATH)
    with pytest.raises(VerificationError, match="groups differ"):
        verify_optimizer(keras, replace(keras, groups=(group(("a",)),)), path=PATH)


def planned(names: dict[str, str], **more: Any) -> Output:
    return Output(files=(), names=names, **more)


def test_a_tensor_without_a_line_fails_the_run() -> None:
    source = checkpoint(**TWO)
    assert [line.name for line in account(source, source, planned(SLOTS))] == ["a", "b"]
    with pytest.raises(LossError, match="1 tensors are unaccounted for: b") as caught:
        account(source, source, planned({"slot.a": "a"}))
    assert caught.value.tensor == "b"
    told = planned({"slot.a": "a"}, lines=(dropped("b", "no place"),))
    assert [line.status.value for line in account(source, source, told)] == ["mapped", "dropped"]


def test_slots_that_share_are_tied_and_names_without_a_slot_are_said() -> None:
    source = Checkpoint(tensors={"a": tensor(1)}, aliases={"b": "a"})
    both = account(source, source, planned({"a": "a", "b": "b"}))
    assert [(line.status.value, line.reason) for line in both] == [("mapped", ""), ("tied", "shares a")]
    once = account(source, source, planned({"a": "a"}, ties={"b": "a"}))
    assert [(line.status.value, line.reason) for line in once] == [("mapped", ""), ("tied", "stored once, as a")]


def test_a_default_is_not_a_tensor_of_the_source() -> None:
    source = checkpoint(a=tensor(1))
    written = checkpoint(a=tensor(1), new=tensor(0))
    output = planned({"a": "a", "new": "new"}, lines=(defaulted("new", "starts at zero"),))
    assert [line.status.value for line in account(source, written, output)] == ["mapped", "defaulted"]


LOST = dropped("weight", "no place", is_refused_by_default=True)
MISSING = defaulted("weight", "no tensor fills it", is_refused_by_default=True)


@pytest.mark.parametrize(
    ("line", "dropped_patterns", "missing_patterns", "is_accepted"),
    [
        (LOST, (), (), False),
        (LOST, ("wei*",), (), True),
        (LOST, ("bias",), (), False),
        (LOST, (), ("wei*",), False),
        (MISSING, (), ("wei*",), True),
        (MISSING, ("wei*",), (), False),
        (MISSING, (), ("other", "weight"), True),
        (LOST, ("WEIGHT",), (), False),
        (replace(LOST, is_refused_by_default=False), (), (), True),
    ],
)
def test_one_allowance_never_stands_in_for_the_other(
    line: Any, dropped_patterns: tuple[str, ...], missing_patterns: tuple[str, ...], is_accepted: bool
) -> None:
    def check() -> None:
        check_allowed([line], allow_dropped=dropped_patterns, allow_missing=missing_patterns)

    if is_accepted:
        check()
        return
    with pytest.raises(LossError) as caught:
        check()
    assert caught.value.tensor == "weight"
    assert caught.value.hint is not None
    assert caught.value.hint.startswith("--allow-missing" if line is MISSING else "--allow-dropped")


def test_the_second_of_two_losses_is_refused_too() -> None:
    other = replace(LOST, name="other")
    with pytest.raises(LossError) as caught:
        check_allowed([LOST, other], allow_dropped=["weight"], allow_missing=[])
    assert caught.value.tensor == "other"


@pytest.mark.parametrize(
    ("names", "hint"),
    [
        (["a.b"], "--allow-dropped 'a.b' accepts it"),
        (["a.b", "c"], "--allow-dropped 'a.b' --allow-dropped 'c' accept them"),
        ([f"a.b.x{n}" for n in range(5)], "--allow-dropped 'a.b.*' accepts all 5 of them"),
        (
            list("abcdefg"),
            " ".join(f"--allow-dropped {name!r}" for name in "abcd") + " ... and 3 more accept them",
        ),
    ],
)
def test_one_hint_names_all_that_is_refused(names: list[str], hint: str) -> None:
    lines = [*(replace(LOST, name=name) for name in names), replace(MISSING, target="other")]
    with pytest.raises(LossError) as caught:
        check_allowed(lines, allow_dropped=[], allow_missing=[])
    assert (caught.value.tensor, caught.value.hint) == (names[0], hint)


def test_what_no_target_holds_is_left_out_together() -> None:
    lines = [replace(LOST, name=name, kind=Kind.UNHELD) for name in "ab"]
    with pytest.raises(LossError) as caught:
        check_allowed(lines, allow_dropped=[], allow_missing=[])
    assert caught.value.hint == "--exclude 'a' --exclude 'b' leave them out"
