"""The generated table of TensorFlow's names: every model of it builds, and its rows read both ways."""

from __future__ import annotations

import pytest

from converter.dialects.tables import document, tensorflow_table
from converter.dialects.tables.rows import Row, Rows

MODEL_TYPES = sorted(document("tensorflow")["models"])


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_rows_invert(model_type: str) -> None:
    table = tensorflow_table(model_type)
    assert table is not None
    indices = {letter: str(10 + number) for number, letter in enumerate("nmklh")}
    for row in table.rows.all:
        theirs, name = row.theirs.filled(indices), row.canonical.filled(indices)
        found = table.to_canonical(theirs, row.rank("theirs"))
        assert found is not None
        assert found.name == name
        back = table.from_canonical(name, row.rank("canonical"))
        assert back is not None
        assert back.name == theirs


def test_the_table_has_the_types_and_classes_that_transformers_has() -> None:
    classes = {name for entry in document("tensorflow")["models"].values() for name in entry["classes"]}
    assert len(classes) == 257
    assert {"BertForMaskedLM", "T5EncoderModel", "TapasForQuestionAnswering", "Wav2Vec2ForCTC"} <= classes


def test_rows_that_contradict_each_other_are_refused() -> None:
    rows = [["a_{n}/kernel", "a.{n}.weight", "i o -> o i"], ["b/kernel", "b.weight", None]]
    assert len(Rows(map(Row.of, rows)).all) == 2
    for wrong in (
        ["a_1/kernel", "c.weight", "i o -> o i"],
        ["c/kernel", "a.3.weight", None],
        ["c/kernel", "c.{n}.weight", None],
        ["c_{n}/kernel", "c.weight", None],
        ["c/kernel", "c.weight", "i o -> o"],
    ):
        with pytest.raises(ValueError, match=r"row|placeholder|read both ways"):
            Rows(map(Row.of, [*rows, wrong]))


def test_one_name_may_be_of_tensors_of_two_ranks() -> None:
    rows = Rows(map(Row.of, [["d/kernel", "d.weight", "i o -> o i"], ["d/kernel", "d.weight", "x i o -> o i x"]]))
    two, three = rows.to_canonical("d/kernel", 2), rows.to_canonical("d/kernel", 3)
    assert two is not None
    assert three is not None
    assert two.row is not three.row
