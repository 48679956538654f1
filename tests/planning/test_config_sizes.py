"""Sizes that a config leaves out are told by the shapes of the tensors, and the number of heads is asked for."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import converter
from converter.errors import ArchitectureError
from converter.model.checkpoint import Checkpoint, Config, Dialect
from converter.model.tensor import ArrayTensor
from converter.planning.config_sizes import with_sizes

SHAPES = {
    "bert.embeddings.word_embeddings.weight": (9, 4),
    "bert.embeddings.position_embeddings.weight": (7, 4),
    "bert.embeddings.token_type_embeddings.weight": (2, 4),
    "bert.encoder.layer.0.intermediate.dense.weight": (6, 4),
    "bert.encoder.layer.11.intermediate.dense.weight": (6, 4),
    "classifier.weight": (3, 4),
}
TOLD = {
    "vocab_size": 9,
    "hidden_size": 4,
    "max_position_embeddings": 7,
    "type_vocab_size": 2,
    "intermediate_size": 6,
    "num_hidden_layers": 12,
}
HEADS = {"num_attention_heads": 2}


def checkpoint(**values: Any) -> Checkpoint:
    tensors = {name: ArrayTensor.of(np.zeros(shape, np.float32)) for name, shape in SHAPES.items()}
    values = {"model_type": "bert", **values}
    return Checkpoint(tensors=tensors, config=Config(values=values, raw=json.dumps(values).encode()))


def sized(**values: Any) -> dict[str, Any]:
    config = with_sizes(checkpoint(**values)).config
    assert config is not None
    assert json.loads(config.raw) == config.values
    return dict(config.values)


def test_what_is_left_out_is_told_by_shapes_and_said() -> None:
    found = sized(**HEADS)
    assert {name: found[name] for name in TOLD} == TOLD
    assert found["id2label"] == {"0": "LABEL_0", "1": "LABEL_1", "2": "LABEL_2"}
    assert found["label2id"] == {"LABEL_0": 0, "LABEL_1": 1, "LABEL_2": 2}
    (said,) = with_sizes(checkpoint(**HEADS)).warnings
    assert "vocab_size 9, hidden_size 4" in said
    assert "3 labels" in said


def test_what_the_config_says_stays() -> None:
    assert sized(**HEADS, vocab_size=8)["vocab_size"] == 8
    assert "label2id" not in sized(**HEADS, id2label={"0": "no"})
    whole = checkpoint(**TOLD)
    assert with_sizes(whole) is whole, "a config that lacks the heads alone is an old one"


def test_the_number_of_heads_is_asked_for_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises(ArchitectureError, match="does not say num_attention_heads") as caught:
        with_sizes(checkpoint())
    assert caught.value.exit_code == 2
    assert caught.value.hint == "--config-value num_attention_heads=N"
    for name, options in (("out", {"to": "pretrained"}), ("x.onnx", {})):
        with pytest.raises(ArchitectureError, match="does not say num_attention_heads"):
            converter.write(checkpoint(), tmp_path / name, **options)
    assert converter.write(checkpoint(), tmp_path / "x.safetensors").counts["mapped"] == len(SHAPES)


@pytest.mark.parametrize(
    "other",
    [
        replace(checkpoint(), dialect=Dialect.KERAS),
        replace(checkpoint(), config=None),
        checkpoint(model_type="gpt2"),
        replace(checkpoint(), tensors={"x": ArrayTensor.of(np.zeros((2, 2), np.float32))}),
    ],
)
def test_others_are_left_as_they_are(other: Checkpoint) -> None:
    assert with_sizes(other) is other
