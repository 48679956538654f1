"""TensorFlow classes of transformers that are made of two others: names, layers and ties, both ways."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import converter
from converter.dialects import canonical
from converter.dialects.transformers import composites, tensorflow_writing
from converter.errors import UsageError
from converter.model.checkpoint import Checkpoint, Config
from converter.model.tensor import ArrayTensor

EXTENTS = {"1": 1, "o": 2, "i": 3, "x": 4, "y": 5}
RNG = np.random.default_rng(11)
CROSS = {"is_decoder": True, "add_cross_attention": True}
BERT, ROBERTA = {"model_type": "bert"}, {"model_type": "roberta"}
VIT = {"model_type": "vit", "num_hidden_layers": 1, "hidden_size": 3}
ENCODER_DECODER = {"model_type": "encoder-decoder", "encoder": BERT, "decoder": {"model_type": "gpt2", **CROSS}}
VISION = {"model_type": "vision-encoder-decoder", "encoder": VIT, "decoder": {**ROBERTA, **CROSS}}
DUAL = {
    "model_type": "vision-text-dual-encoder",
    "vision_config": {"model_type": "clip_vision_model"},
    "text_config": BERT,
}
RAG = {"model_type": "rag", "question_encoder": {"model_type": "dpr"}, "generator": {"model_type": "bart"}}


def whole(values: dict[str, Any], architecture: str) -> Checkpoint:
    """Return a checkpoint that has what every model of a class has."""
    table = composites.table_of(values)
    assert table is not None
    known = table.classes[architecture]
    tensors = {}
    for row in table.rows.all:
        if known.needs(row.canonical.text):
            axes = ["i"] if row.layout is None else row.layout.pattern.partition("->")[2].split()
            name = row.canonical.filled(dict.fromkeys(row.canonical.placeholders, "0"))
            shape = [EXTENTS.get(axis, 6) for axis in axes]
            tensors[name.removeprefix("rag." if known.is_base else "")] = ArrayTensor.of(
                RNG.standard_normal(shape).astype(np.float32)
            )
    values = {**values, "architectures": [architecture]}
    return Checkpoint(tensors=tensors, config=Config(values=values, raw=json.dumps(values).encode()))


CASES = {
    "EncoderDecoderModel": (
        ENCODER_DECODER,
        ["encoder", "decoder", "top_level_model_weights"],
        {
            "encoder.embeddings.word_embeddings.weight": "tf_encoder_decoder_model/encoder/bert/embeddings/"
            "word_embeddings/weight:0",
            "decoder.transformer.h.0.attn.c_attn.bias": "tf_encoder_decoder_model/decoder/transformer/h_._0/attn/"
            "c_attn/bias:0",
        },
    ),
    "VisionEncoderDecoderModel": (
        VISION,
        ["encoder", "decoder", "top_level_model_weights"],
        {
            "encoder.embeddings.cls_token": "tf_vision_encoder_decoder_model/encoder/vit/embeddings/cls_token:0",
            "decoder.lm_head.bias": "tf_vision_encoder_decoder_model/decoder/lm_head/bias:0",
        },
    ),
    "VisionTextDualEncoderModel": (
        DUAL,
        ["vision_model", "text_model", "visual_projection", "text_projection", "top_level_model_weights"],
        {
            "logit_scale": "tf_vision_text_dual_encoder_model/logit_scale:0",
            "vision_model.vision_model.post_layernorm.weight": "tf_vision_text_dual_encoder_model/vision_model/clip/"
            "vision_model/post_layernorm/gamma:0",
            "text_model.pooler.dense.weight": "tf_vision_text_dual_encoder_model/text_model/bert/pooler/dense/kernel:0",
        },
    ),
    "RagModel": (
        RAG,
        ["question_encoder", "generator", "top_level_model_weights"],
        {
            "generator.model.shared.weight": "tf_rag_model/generator/model.shared/embeddings:0",
            "generator.final_logits_bias": "final_logits_bias:0",
        },
    ),
    "RagTokenForGeneration": (
        RAG,
        ["rag", "top_level_model_weights"],
        {
            "rag.generator.model.shared.weight": "tf_rag_token_for_generation/rag/generator/model.shared/embeddings:0",
            "rag.question_encoder.question_encoder.bert_model.embeddings.LayerNorm.bias": "tf_rag_token_for_generation"
            "/rag/question_encoder/question_encoder/bert_model/embeddings/LayerNorm/beta:0",
        },
    ),
}


@pytest.mark.parametrize("architecture", CASES)
def test_names_and_layers_of_a_composite(architecture: str, tmp_path: Path) -> None:
    values, layers, names = CASES[architecture]
    source = whole(values, architecture)
    made = tensorflow_writing.from_canonical(source)
    assert not [line for line in made.lines if line.is_refused_by_default]
    assert list(tensorflow_writing.layers(made)) == layers
    assert {made.origins[variable]: variable for variable in made.tensors if made.origins[variable] in names} == names
    converter.write(source, tmp_path / "out", to="pretrained", flavor="tf")
    back = canonical(converter.read(tmp_path / "out"))
    assert back.config is not None
    assert back.config.values["architectures"] == [architecture]
    assert back.tensors.keys() == source.tensors.keys()
    for name, tensor in source.tensors.items():
        assert back.tensors[name].numpy().tobytes() == tensor.numpy().tobytes(), name


def test_a_second_model_in_a_process_and_a_generator_without_a_config_of_its_class() -> None:
    made = tensorflow_writing.from_canonical(whole(RAG, "RagSequenceForGeneration"))
    second = {
        name.replace("generation/", "generation_1/") if "shared" in name else name: tensor
        for name, tensor in made.tensors.items()
    }
    config = Config(values=RAG, raw=json.dumps(RAG).encode())
    found = canonical(replace(made, tensors=second, config=config, origins={}))
    assert "rag.generator.model.shared.weight" in found.tensors
    assert found.config is not None
    assert found.config.values["architectures"] == ["RagSequenceForGeneration"]


def test_what_a_part_lacks_is_refused() -> None:
    source = whole(RAG, "RagModel")
    name = "generator.model.encoder.layers.0.fc1.weight"
    less = replace(source, tensors={key: tensor for key, tensor in source.tensors.items() if key != name})
    made = tensorflow_writing.from_canonical(less)
    assert [line.target for line in made.lines if line.is_refused_by_default] == [
        "generator/model/encoder/layers.{n}/fc1/kernel"
    ]


def test_embeddings_that_only_the_decoders_own_config_unties() -> None:
    untied = {**VISION, "decoder": {**VISION["decoder"], "tie_word_embeddings": False}, "tie_word_embeddings": True}
    source = whole(untied, "VisionEncoderDecoderModel")
    head = "decoder.lm_head.decoder.weight"
    embeddings = source.tensors["decoder.roberta.embeddings.word_embeddings.weight"]
    tied = replace(source, tensors={**source.tensors, head: embeddings})
    made = tensorflow_writing.from_canonical(tied)
    assert not [line for line in made.lines if line.is_refused_by_default]
    assert canonical(made).aliases[head] == "decoder.roberta.embeddings.word_embeddings.weight"
    other = ArrayTensor.of(embeddings.numpy() + 1)
    made = tensorflow_writing.from_canonical(replace(source, tensors={**source.tensors, head: other}))
    assert [line.name for line in made.lines if line.is_refused_by_default] == [head]


def test_biases_that_only_tensorflow_has_are_made_in_a_part() -> None:
    values = {**VISION, "encoder": {**VIT, "qkv_bias": False}}
    source = whole(values, "VisionEncoderDecoderModel")
    biases = [name for name in source.tensors if name.endswith(("query.bias", "key.bias", "value.bias"))]
    of_encoder = {name for name in biases if name.startswith("encoder.")}
    less = replace(source, tensors={key: each for key, each in source.tensors.items() if key not in of_encoder})
    made = tensorflow_writing.from_canonical(less)
    assert not [line for line in made.lines if line.is_refused_by_default]
    query = "tf_vision_encoder_decoder_model/encoder/vit/encoder/layer_._0/attention/attention/query/bias:0"
    np.testing.assert_array_equal(made.tensors[query].numpy(), np.zeros(3, np.float32))
    assert canonical(made).tensors.keys() == less.tensors.keys()
    used = {**made.tensors, query: ArrayTensor.of(np.ones(3, np.float32))}
    assert [line.name for line in canonical(replace(made, tensors=used)).lines if line.is_refused_by_default] == [query]


@pytest.mark.parametrize("generator", [{"model_type": "nobody"}, {"model_type": "bert"}, ENCODER_DECODER, "bart", None])
def test_a_part_that_no_table_knows(generator: Any) -> None:
    assert composites.table_of(RAG) is not None
    values = {**RAG, "generator": generator, "architectures": ["RagModel"]}
    assert composites.table_of(values) is None
    config = Config(values=values, raw=json.dumps(values).encode())
    with pytest.raises(UsageError, match="rag"):
        tensorflow_writing.from_canonical(replace(whole(RAG, "RagModel"), config=config))
    made = tensorflow_writing.from_canonical(whole(RAG, "RagModel"))
    found = canonical(replace(made, config=config))
    assert [line for line in found.lines if line.is_refused_by_default]


@pytest.mark.parametrize(
    ("values", "key", "other"),
    [(RAG, "generator", "t5"), (ENCODER_DECODER, "decoder", "roformer"), (VISION, "decoder", "xlnet")],
)
def test_parts_that_the_tensorflow_class_does_not_make_are_read_and_not_written(
    values: dict[str, Any], key: str, other: str
) -> None:
    name = next(name for name, (known, *_) in CASES.items() if known is values)
    assert tensorflow_writing.from_canonical(whole(values, name)).dialect == "keras"
    changed = {**values, key: {"model_type": other}}
    assert composites.table_of(changed) is not None
    with pytest.raises(UsageError, match="no TensorFlow class that is known here"):
        tensorflow_writing.from_canonical(whole(changed, name))
