"""What the dimensions of a TensorFlow graph are called that may vary, and how long they may be. No framework."""

from __future__ import annotations

import pytest

from converter.errors import GraphError
from converter.graphs.trace.tensorflow.conversion import Port, Variable, _dimensions, _named_dimensions
from converter.model.dtype import DType

I64, F32 = DType.INT64, DType.FLOAT32


def port(name: str, *shape: int | None, dtype: DType = I64) -> Port:
    return Port(name=name, tensor=f"{name}:0", dtype=dtype, shape=shape)


def named(*ports: Port) -> dict[str, tuple[int | str, ...]]:
    return {each.name: each.shape for each in _named_dimensions(ports)}


def test_texts_that_are_one_have_one_length() -> None:
    assert named(port("input_ids", None, None), port("attention_mask", None, None)) == {
        "input_ids": ("batch", "sequence"),
        "attention_mask": ("batch", "sequence"),
    }
    assert named(port("input_ids", None, None), port("decoder_input_ids", None, None)) == {
        "input_ids": ("batch", "sequence"),
        "decoder_input_ids": ("batch", "decoder_sequence"),
    }
    assert named(port("words", None, None)) == {"words": ("batch", "sequence")}  # of one text there is one length


def test_what_is_not_known_to_be_one_text_has_lengths_of_its_own() -> None:
    assert named(port("question", None, None), port("answer", None, None)) == {
        "question": ("batch", "question_1"),
        "answer": ("batch", "answer_1"),
    }
    assert named(port("x.y/z", None, None, 3, dtype=F32), port("n", 2)) == {
        "x.y/z": ("batch", "x_y_z_1", 3),
        "n": (2,),
    }
    assert named(port("sound", None, None, dtype=F32)) == {"sound": ("batch", "sound_1")}
    with pytest.raises(GraphError, match="input 'x' has no number of dimensions"):
        named(Port(name="x", tensor="x:0", dtype=I64, shape=None))


@pytest.mark.parametrize(
    ("tables", "high"),
    [
        ({}, None),
        ({"model/position_embeddings": (10, 4)}, 8),  # RoBERTa counts from 2
        ({"gpt/wpe/weight": (12, 4), "model/position_embeddings": (10, 4)}, 8),
        ({"model/position_embeddings": (2, 4)}, 1),
        ({"model/position_embeddings": (18, 4)}, 16),
        ({"model/position_embeddings": (19, 4)}, None),
        ({"model/word_embeddings": (10, 4)}, None),
        ({"model/position_ids": (10,)}, None),
    ],
)
def test_a_table_of_few_positions_bounds_texts(tables: dict[str, tuple[int, ...]], high: int | None) -> None:
    inputs = _named_dimensions([port("input_ids", None, None)])
    variables = [Variable(name=name, dtype=F32, shape=shape, is_trainable=True) for name, shape in tables.items()]
    assert {each.name: each.high for each in _dimensions(inputs, variables)} == (
        {} if high is None else {"batch": None, "sequence": high}
    )
