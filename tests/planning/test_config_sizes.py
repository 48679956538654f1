"""Sizes that a config leaves out are told by the shapes of the tensors, and the number of heads is asked for."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import converter
from converter.dialects.identity.settings import is_setting
from converter.errors import ArchitectureError
from converter.model.checkpoint import Checkpoint, Config, Dialect
from converter.model.tensor import ArrayTensor
from converter.planning.config_sizes import _FAMILIES, with_sizes, with_told_sizes

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
    "albert": (
        {
            "albert.embeddings.word_embeddings.weight": (9, 2),
            "albert.embeddings.position_embeddings.weight": (7, 2),
            "albert.embeddings.token_type_embeddings.weight": (2, 2),
            "albert.encoder.embedding_hidden_mapping_in.weight": (4, 2),
            "albert.encoder.albert_layer_groups.0.albert_layers.0.ffn.weight": (6, 4),
            "albert.encoder.albert_layer_groups.0.albert_layers.1.ffn.weight": (6, 4),
            "albert.encoder.albert_layer_groups.2.albert_layers.0.ffn.weight": (6, 4),
        },
        {
            **{name: size for name, size in TOLD.items() if name != "num_hidden_layers"},
            **{"embedding_size": 2, "num_hidden_groups": 3, "inner_group_num": 2},
        },
        "num_attention_heads",
    ),
}
UNTOLD = {"albert": {"num_hidden_layers": 5}}


@pytest.mark.parametrize("model_type", OTHERS)
def test_types_that_are_laid_out_otherwise_are_told_by_theirs(model_type: str) -> None:
    shapes, told, heads = OTHERS[model_type]
    tensors = {name: ArrayTensor.of(np.zeros(shape, np.float32)) for name, shape in shapes.items()}
    more = UNTOLD.get(model_type, {})
    asked = " and ".join((heads, *more))
    with pytest.raises(ArchitectureError, match=f"does not say {asked}, "):
        with_sizes(replace(checkpoint(model_type=model_type), tensors=tensors))
    told_alone = with_told_sizes(replace(checkpoint(model_type=model_type), tensors=tensors))
    assert told_alone.config is not None
    assert (told_alone.config.values, told_alone.warnings) == ({"model_type": model_type, **told}, ())
    for key in {heads, "num_attention_heads"}:
        found = with_sizes(replace(checkpoint(model_type=model_type, **{key: 2}, **more), tensors=tensors)).config
        assert found is not None
        assert {name: found.values[name] for name in told} == told


@pytest.mark.parametrize(
    "other",
    [
        replace(checkpoint(), dialect=Dialect.KERAS),
        replace(checkpoint(), config=None),
        checkpoint(model_type="gpt2"),
        checkpoint(model_type="none of these"),
        checkpoint(model_type=None),
        replace(checkpoint(), tensors={"x": ArrayTensor.of(np.zeros((2, 2), np.float32))}),
    ],
)
def test_others_are_left_as_they_are(other: Checkpoint) -> None:
    assert with_sizes(other) is other


def test_how_often_an_albert_computes_its_layer_is_asked_for() -> None:
    shapes, _, _ = OTHERS["albert"]
    tensors = {name: ArrayTensor.of(np.zeros(shape, np.float32)) for name, shape in shapes.items()}
    with pytest.raises(ArchitectureError, match="does not say num_hidden_layers, which no tensor tells") as caught:
        with_sizes(replace(checkpoint(model_type="albert", hidden_size=4, **HEADS), tensors=tensors))
    assert caught.value.hint == "--config-value num_hidden_layers=N"


def asked_for(error: ArchitectureError, model_type: str) -> list[str]:
    """Return the settings that an error asks for, which the option takes."""
    asked = re.findall(r"--config-value (\S+)=(?:N|VALUE)(?: |$)", error.hint or "")
    assert asked, error
    assert [name for name in asked if not is_setting({"model_type": model_type}, name)] == []
    return asked


def settled(tensors: Mapping[str, tuple[int, ...]], model_type: str, answers: Mapping[str, Any]) -> dict[str, Any]:
    """Return the config that a config of the model type alone becomes, with one answer to what is asked for."""
    given: dict[str, Any] = {"model_type": model_type}
    held = {name: ArrayTensor.of(np.zeros(shape, np.float32)) for name, shape in tensors.items()}
    try:
        found = with_sizes(replace(checkpoint(**given), tensors=held))
    except ArchitectureError as error:
        given |= {name: answers[name] for name in asked_for(error, model_type)}
        config = Config(values={**checkpoint().config.values, **given}, raw=b"{}")
        found = with_sizes(replace(checkpoint(), config=config, tensors=held))
    assert found.config is not None
    return dict(found.config.values)


SMALL = {
    **{"vocab_size": 101, "hidden_size": 48, "intermediate_size": 76, "max_position_embeddings": 67},
    **{"num_hidden_layers": 3, "num_attention_heads": 4},
}
DISTANCES = {"relative_attention": True, "pos_att_type": ["c2p", "p2c"], "position_biased_input": False}
BY_TABLE = [
    ("deberta", {**SMALL, "type_vocab_size": 2}),
    ("deberta", {**SMALL, **DISTANCES}),
    ("deberta", {**SMALL, **DISTANCES, "pos_att_type": ["p2c"], "max_relative_positions": 20}),
    ("deberta", {**SMALL, **DISTANCES, "talking_head": True, "embedding_size": 24}),
    ("deberta-v2", {**SMALL, "type_vocab_size": 2, "conv_kernel_size": 3, "conv_act": "gelu"}),
    ("deberta-v2", {**SMALL, **DISTANCES, "max_relative_positions": 20, "position_buckets": -1}),
    (
        "deberta-v2",
        {**SMALL, **DISTANCES, "position_buckets": 16, "share_att_key": True, "norm_rel_ebd": "layer_norm"},
    ),
    ("xlnet", {"vocab_size": 101, "d_model": 48, "n_layer": 3, "n_head": 4, "d_inner": 76}),
    ("gpt2", {"vocab_size": 101, "n_embd": 48, "n_layer": 3, "n_head": 4, "n_positions": 67, "n_inner": 76}),
    ("gpt2", {"vocab_size": 101, "n_embd": 48, "n_layer": 3, "n_head": 4, "n_positions": 67}),
    ("llama", {**SMALL, "num_key_value_heads": 2}),
    ("mobilebert", {**SMALL, "intra_bottleneck_size": 24, "embedding_size": 20, "true_hidden_size": 24}),
    ("vit", {"hidden_size": 48, "intermediate_size": 76, "num_hidden_layers": 3, "num_attention_heads": 4}),
    ("swin", {"embed_dim": 24, "depths": [1, 1, 2, 1], "num_heads": [2, 4, 6, 8]}),
    (
        "bart",
        {
            **{"vocab_size": 101, "d_model": 48, "encoder_layers": 3, "decoder_layers": 2, "encoder_ffn_dim": 76},
            **{"encoder_attention_heads": 4, "decoder_attention_heads": 2, "max_position_embeddings": 67},
        },
    ),
]


def shapes_of_class(values: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    import torch
    from transformers import AutoConfig, AutoModel

    with torch.device("meta"):
        model = AutoModel.from_config(AutoConfig.for_model(**values))
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


@pytest.mark.parametrize(("model_type", "values"), BY_TABLE, ids=lambda each: each if isinstance(each, str) else "")
def test_what_the_table_of_shapes_knows_is_told_and_the_rest_asked_for(
    model_type: str, values: Mapping[str, Any]
) -> None:
    wanted = shapes_of_class({"model_type": model_type, **values})
    found = settled(wanted, model_type, values)
    assert shapes_of_class(found) == wanted
    assert shapes_of_class({"model_type": model_type}) != wanted
    told = {name: value for name, value in found.items() if name in values}
    assert told == {name: values[name] for name in told}
    heads = {name for name in values if name.endswith(("heads", "n_head"))}
    assert heads <= {*found, "num_key_value_heads"}


def test_what_no_formula_tells_alone_is_asked_for_too() -> None:
    wanted = shapes_of_class({"model_type": "vit", "image_size": 64})
    with pytest.raises(ArchitectureError, match="does not say image_size, ") as caught:
        settled(wanted, "vit", {"num_attention_heads": 12})
    assert caught.value.hint == "--config-value image_size=VALUE"


def test_heads_that_do_not_divide_are_refused_of_other_types_too() -> None:
    wanted = shapes_of_class({"model_type": "deberta", **SMALL})
    with pytest.raises(ArchitectureError, match="num_attention_heads 5, of which hidden_size 48 is no multiple"):
        settled(wanted, "deberta", {"num_attention_heads": 5})


SIZES = {
    **{"vocab_size": 101, "hidden_size": 52, "intermediate_size": 76, "max_position_embeddings": 67},
    **{"type_vocab_size": 3, "num_hidden_layers": 3, "num_attention_heads": 4, "embedding_size": 20},
    **{"input_embedding_size": 20, "num_hidden_groups": 1, "inner_group_num": 2},
}
"""All different, so that none is taken for another."""


@pytest.mark.parametrize("model_type", sorted(each for family in _FAMILIES for each in family.types))
def test_a_class_of_the_sizes_that_are_told_is_the_one_that_the_tensors_are_of(model_type: str) -> None:
    """Of every type that the rule is for, by transformers itself: a config of three or four keys is enough."""
    from transformers import AutoConfig

    known = AutoConfig.for_model(model_type)
    asked = {name: size for name, size in SIZES.items() if hasattr(known, name)}
    given = {"model_type": model_type, "num_attention_heads": 4}
    given |= {"num_hidden_layers": 3} if model_type in UNTOLD else {}
    wanted = shapes_of_class({**asked, "model_type": model_type})
    tensors = {name: ArrayTensor.of(np.zeros(shape, np.float32)) for name, shape in wanted.items()}
    found = with_sizes(replace(checkpoint(**given), config=Config(values=given, raw=b"{}"), tensors=tensors)).config
    assert found is not None
    assert shapes_of_class(found.values) == wanted
    assert shapes_of_class(given) != wanted
