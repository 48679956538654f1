"""The account that every translation of names keeps."""

from __future__ import annotations

import numpy as np
import pytest

from converter.dialects.names.rearrangement import Rearrangement
from converter.dialects.rewriting import Rewriting, laid_out
from converter.errors import LossError, ReadError
from converter.model.checkpoint import Checkpoint, Dialect
from converter.model.ledger import LedgerLine, Status, dropped
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
