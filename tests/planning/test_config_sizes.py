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


@pytest.mark.parametrize("heads", [3, 0, 5])
def test_heads_that_do_not_divide_are_refused_as_from_pretrained_would(heads: int) -> None:
    assert with_sizes(checkpoint(**HEADS, **TOLD)).config is not None
    for more in ({}, TOLD):
        with pytest.raises(
            ArchitectureError, match=f"num_attention_heads {heads}, of which hidden_size 4 is no multiple"
        ):
            with_sizes(checkpoint(num_attention_heads=heads, **more))


OTHERS = {
    "electra": (
        {f"electra.{name[5:]}": shape for name, shape in SHAPES.items() if name.startswith("bert.")},
        {**TOLD, "embedding_size": 4},
        "num_attention_heads",
    ),
    "distilbert": (
        {
            "distilbert.embeddings.word_embeddings.weight": (9, 4),
            "distilbert.embeddings.position_embeddings.weight": (7, 4),
            "distilbert.transformer.layer.0.ffn.lin1.weight": (6, 4),
            "distilbert.transformer.layer.2.ffn.lin1.weight": (6, 4),
        },
        {"vocab_size": 9, "dim": 4, "max_position_embeddings": 7, "hidden_dim": 6, "n_layers": 3},
        "n_heads",
    ),
}


@pytest.mark.parametrize("model_type", OTHERS)
def test_types_that_are_laid_out_otherwise_are_told_by_theirs(model_type: str) -> None:
    shapes, told, heads = OTHERS[model_type]
    tensors = {name: ArrayTensor.of(np.zeros(shape, np.float32)) for name, shape in shapes.items()}
    with pytest.raises(ArchitectureError, match=f"does not say {heads}, "):
        with_sizes(replace(checkpoint(model_type=model_type), tensors=tensors))
    for key in {heads, "num_attention_heads"}:
        found = with_sizes(replace(checkpoint(model_type=model_type, **{key: 2}), tensors=tensors)).config
        assert found is not None
        assert {name: found.values[name] for name in told} == told


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
