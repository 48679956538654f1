"""The account that every translation of names keeps."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from converter.dialects.names.operations import Split
from converter.dialects.names.rearrangement import Rearrangement
from converter.dialects.rewriting import Derivation, Rewriting, laid_out
from converter.errors import LossError, ReadError
from converter.model.checkpoint import Checkpoint, Dialect
from converter.model.ledger import LedgerLine, Status, dropped
from converter.model.optimizer import Convention, OptimizerState, ParameterGroup
from converter.model.tensor import ArrayTensor


def tensor(*values: float) -> ArrayTensor:
    return ArrayTensor.of(np.array(values, np.float32))


@pytest.fixture
def source() -> Checkpoint:
    return Checkpoint(
        tensors={name: tensor(number) for number, name in enumerate("abcd")},
        origins={"a": "file/a"},
        lines=(dropped("x", "was lost earlier"),),
        warnings=("earlier",),
        dialect=Dialect.KERAS,
    )


def test_what_was_put_is_in_the_checkpoint_with_where_it_is_from(source: Checkpoint) -> None:
    made = Rewriting(source=source)
    made.put("a", "one")
    made.put("b", "b")
    made.put("c", "three", tensor(9))
    done = made.done(Dialect.PYTORCH)
    assert {name: float(each.numpy()[0]) for name, each in done.tensors.items()} == {"one": 0, "b": 1, "three": 9}
    assert done.origins == {"one": "file/a", "three": "c"}
    assert done.dialect is Dialect.PYTORCH


@pytest.mark.parametrize("how", ["put", "default"])
def test_two_tensors_never_get_one_name(how: str, source: Checkpoint) -> None:
    made = Rewriting(source=source)
    made.put("a", "one")
    with pytest.raises(LossError, match="'file/a' would both be named 'one'") as caught:
        made.put("b", "one") if how == "put" else made.default("one", tensor(0), "zeros")
    assert caught.value.exit_code == 3


def test_every_fate_is_a_line_after_those_of_before(source: Checkpoint) -> None:
    made = Rewriting(source=source, warnings=["now"])
    made.put("a", "one")
    made.join("b", "one", "stored with a")
    made.tie("c", "one", "the same")
    made.drop("d", "no place", is_refused_by_default=True)
    made.default("made", tensor(0), "zeros")
    done = made.done(Dialect.PYTORCH)
    assert done.lines == (
        *source.lines,
        LedgerLine(status=Status.MAPPED, name="b", target="one", reason="stored with a"),
        LedgerLine(status=Status.TIED, name="c", target="one", reason="the same"),
        LedgerLine(status=Status.DROPPED, name="d", reason="no place", is_refused_by_default=True),
        LedgerLine(status=Status.DEFAULTED, target="made", reason="zeros"),
    )
    assert done.warnings == ("earlier", "now")


def test_what_is_merged_is_gone_and_has_a_line(source: Checkpoint) -> None:
    made = Rewriting(source=source)
    made.put("b", "two")
    made.put("a", "one")
    made.merge("one", "two")
    assert list(made.tensors) == list(made.origins) == ["two"]
    assert made.lines == [LedgerLine(status=Status.TIED, name="file/a", target="two", reason="the same as b")]


def test_what_moves_takes_the_place_of_what_was_there(source: Checkpoint) -> None:
    made = Rewriting(source=source)
    for name in "ab":
        made.put(name, name)
    made.move("b", "a")
    assert made.origins == {"a": "b"}
    assert made.tensors == {"a": source.tensor("b")}


def test_a_new_name_goes_wherever_the_old_one_stood(source: Checkpoint) -> None:
    made = Rewriting(source=source)
    made.put("a", "m.one")
    made.put("b", "m.two")
    made.aliases["m.tied"] = "m.one"
    made.buffers.add("m.two")
    made.frozen.add("m.one")
    made.tie("c", "m.one", "the same")
    made.drop("d", "no place")
    made.rename(lambda name: name.removeprefix("m."))
    done = made.done(Dialect.PYTORCH)
    assert list(done.tensors) == ["one", "two"]
    assert (done.aliases, done.buffers, done.frozen) == ({"tied": "one"}, {"two"}, {"one"})
    assert done.origin("one") == "file/a"
    assert [line.target for line in made.lines] == ["one", None]


def test_an_unfit_shape_names_its_tensor() -> None:
    layout = Rearrangement(pattern="i o -> o i")
    assert laid_out(tensor(1), None, "w", to_torch=True).shape == (1,)
    with pytest.raises(ReadError, match="has shape") as caught:
        laid_out(tensor(1), layout, "w", to_torch=True)
    assert caught.value.tensor == "w"


# the optimizer's state goes the way of the weights


def state(*groups: str, convention: Convention = Convention.KERAS, slots: str = "abcd") -> OptimizerState:
    """Return a state with a parameter for each letter of `groups`, whose moments are its number and one."""
    return OptimizerState(
        algorithm="Adam",
        step=3,
        groups=tuple(ParameterGroup(parameters=tuple(names), hyperparameters={"lr": 0.1}) for names in groups),
        slots={"exp_avg": {name: tensor("abcd".index(name), 1) for name in "".join(groups) if name in slots}},
        convention=convention,
    )


def carried(source: Checkpoint, optimizer: OptimizerState) -> Rewriting:
    """Return an account by which `a` is called one, `b` and `c` are joined, and `d` is dropped."""
    wide = {name: tensor("abcd".index(name), 1) for name in source.tensors}
    made = Rewriting(source=replace(source, tensors=wide, optimizer=optimizer))
    made.carry(Derivation(before=("a",), after=("one",)))
    made.carry(Derivation(before=("b", "c"), after=("joined",), operations=(Split(0, (1, 1)),), is_forward=False))
    return made


def test_moments_go_the_way_of_their_weights(source: Checkpoint) -> None:
    made = carried(source, state("bca"))
    np.testing.assert_array_equal(made.tensors["joined"].numpy(), [1, 1, 2, 1])
    found = made.state()["optimizer"]
    assert found.groups[0].parameters == ("joined", "one")
    assert {name: each.numpy().tolist() for name, each in found.slots["exp_avg"].items()} == {
        "joined": [1, 1, 2, 1],
        "one": [0, 1],
    }
    assert made.done(Dialect.PYTORCH, optimizer=found).optimizer is found


def test_names_that_are_made_anew_are_the_state_s_too(source: Checkpoint) -> None:
    made = carried(source, state("bca"))
    made.rename(str.upper)
    found = made.state()["optimizer"]
    assert found.groups[0].parameters == ("JOINED", "ONE")
    assert list(found.slots["exp_avg"]) == ["JOINED", "ONE"]


def test_state_of_what_moves_moves_and_of_what_it_displaces_is_gone(source: Checkpoint) -> None:
    made = Rewriting(source=replace(source, optimizer=state("ab")))
    for old, new in (("a", "one"), ("b", "two")):
        made.carry(Derivation(before=(old,), after=(new,)))
    made.move("one", "two")
    found = made.state_of_variables()["optimizer"]
    assert found.groups[0].parameters == ("two",)
    assert {name: each.numpy().tolist() for name, each in found.slots["exp_avg"].items()} == {"two": [0, 1]}


def test_state_of_variables_that_were_not_carried_is_dropped_only_where_asked(source: Checkpoint) -> None:
    made = carried(source, state("abcd"))
    assert made.state()["optimizer"].groups[0].parameters == ("one", "joined", "d")
    found = made.state_of_variables()["optimizer"]
    assert found.groups[0].parameters == ("one", "joined")
    assert "d" not in found.slots["exp_avg"]
    assert carried(source, state("abcd", convention=Convention.TORCH)).state_of_variables() == {}


@pytest.mark.parametrize(
    ("optimizer", "why"),
    [
        (state("ab", "c"), "'b', 'c' become one, and are not in one parameter group"),
        (state("abc", slots="ab"), "'b', 'c' become one, and 'c' has no exp_avg"),
        (state("abc", slots="ac"), "'b', 'c' become one, and 'b' has no exp_avg"),
    ],
)
def test_state_that_cannot_go_the_way_of_its_weights_is_refused_with_why(
    optimizer: OptimizerState, why: str, source: Checkpoint
) -> None:
    assert carried(source, optimizer).state() == {"optimizer": None, "optimizer_refused": why}


def test_moments_of_another_shape_are_refused_and_alike_scalars_go_along(source: Checkpoint) -> None:
    whole = state("abc")
    held = whole.slots["exp_avg"]
    factored = replace(whole, slots={"exp_avg": {**held, "c": tensor(1, 2, 3)}})
    found = carried(source, factored).state()
    assert found["optimizer"] is None
    assert found["optimizer_refused"] == "'c' gets another layout, and its exp_avg has another shape than it"
    beside = replace(whole, slots={"exp_avg": {**held, "a": tensor(1, 2, 3)}})
    assert carried(source, beside).state()["optimizer"].slots["exp_avg"]["one"].shape == (3,)
    steps = {name: ArrayTensor.of(np.array(7.0, np.float32)) for name in "bc"}
    counted = carried(source, replace(whole, slots={"step": steps})).state()["optimizer"]
    assert {name: float(each.numpy()) for name, each in counted.slots["step"].items()} == {"joined": 7}
    steps["c"] = ArrayTensor.of(np.array(8.0, np.float32))
    assert carried(source, replace(whole, slots={"step": steps})).state()["optimizer"] is None


def test_an_account_without_an_optimizer_says_nothing_of_it(source: Checkpoint) -> None:
    assert Rewriting(source=source).state() == Rewriting(source=source).state_of_variables() == {}
    refused = replace(source, optimizer_refused="was ambiguous")
    assert Rewriting(source=refused).done(Dialect.PYTORCH).optimizer_refused == "was ambiguous"


def test_a_note_is_made_once() -> None:
    rewriting = Rewriting(source=Checkpoint(tensors={}, warnings=("before",)))
    for note in ("one", "other", "one"):
        rewriting.note(note)
    assert rewriting.done(Dialect.PYTORCH).warnings == ("before", "one", "other")
