"""Configs of transformers 5 as transformers 4, which has the TensorFlow and Flax classes, reads them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import converter
from converter.dialects.transformers.old_configs import with_old_keys
from converter.model.checkpoint import Checkpoint, Config
from converter.model.tensor import ArrayTensor


def config(**values: Any) -> Config:
    return Config(values=values, raw=json.dumps(values).encode())


def test_the_base_of_rotary_positions_is_where_transformers_4_looks_for_it() -> None:
    made, said = with_old_keys(config(rope_parameters={"rope_theta": 1e6, "rope_type": "default"}))
    assert made.values["rope_theta"] == json.loads(made.raw)["rope_theta"] == 1e6
    assert len(said) == 1


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"rope_parameters": {"rope_type": "default"}},
        {"rope_parameters": {"rope_theta": True}},
        {"rope_parameters": {"full_attention": {"rope_theta": 1e6}}},
        {"rope_parameters": 7},
        {"rope_theta": 5e5, "rope_parameters": {"rope_theta": 1e6}},
    ],
)
def test_other_configs_stay(values: dict[str, Any]) -> None:
    given = config(**values)
    assert with_old_keys(given) == (given, ())


@pytest.mark.parametrize("flavor", ["tf", "flax"])
def test_a_folder_of_transformers_5_says_it_to_transformers_4(flavor: str, tmp_path: Path) -> None:
    shapes = {"self_attn.q_proj": (4, 4), "self_attn.k_proj": (4, 4), "self_attn.v_proj": (4, 4)}
    shapes |= {"self_attn.o_proj": (4, 4), "mlp.gate_proj": (6, 4), "mlp.up_proj": (6, 4), "mlp.down_proj": (4, 6)}
    shapes |= {"input_layernorm": (4,), "post_attention_layernorm": (4,)}
    names = {f"layers.0.{path}.weight": shape for path, shape in shapes.items()}
    names |= {"embed_tokens.weight": (9, 4), "norm.weight": (4,)}
    tensors = {name: ArrayTensor.of(np.ones(shape, np.float32)) for name, shape in names.items()}
    sizes = {"hidden_size": 4, "num_hidden_layers": 1, "num_attention_heads": 1, "num_key_value_heads": 1}
    sizes |= {"intermediate_size": 6, "vocab_size": 9}
    rotary = {"rope_parameters": {"rope_theta": 1e6, "rope_type": "default"}}
    given = config(model_type="mistral", architectures=["MistralModel"], **sizes, **rotary)
    source = Checkpoint(tensors=tensors, config=given)
    converter.write(source, tmp_path / "same", to="pretrained")
    assert json.loads((tmp_path / "same" / "config.json").read_bytes()) == given.values
    converter.write(source, tmp_path / "out", to="pretrained", flavor=flavor)
    assert json.loads((tmp_path / "out" / "config.json").read_bytes()) == {**given.values, "rope_theta": 1e6}


def t5(**more: Any) -> Checkpoint:
    names = {"shared.weight": (9, 4), "encoder.final_layer_norm.weight": (4,), "decoder.final_layer_norm.weight": (4,)}
    relative = {"SelfAttention.relative_attention_bias": (32, 1)}
    attention = {f"Attention.{part}": (4, 4) for part in "qkvo"}
    for stack, extra in (("encoder", {}), ("decoder", {f"1.EncDec{path}": each for path, each in attention.items()})):
        own = {f"0.Self{path}": shape for path, shape in attention.items()}
        own |= {f"0.{path}": shape for path, shape in relative.items()} | extra
        last = 1 + bool(extra)
        own |= {f"{last}.DenseReluDense.wi": (6, 4), f"{last}.DenseReluDense.wo": (4, 6)}
        own |= {f"{layer}.layer_norm": (4,) for layer in range(last + 1)}
        names |= {f"{stack}.block.0.layer.{path}.weight": shape for path, shape in own.items()}
    tensors = {
        name: ArrayTensor.of(np.full(shape, index, np.float32)) for index, (name, shape) in enumerate(names.items())
    }
    sizes = {"num_layers": 1, "vocab_size": 9, "d_model": 4, "d_kv": 4, "d_ff": 6, "num_heads": 1}
    values = {"model_type": "t5", "architectures": ["T5ForConditionalGeneration"], **sizes, **more}
    return Checkpoint(tensors=tensors, config=config(**values))


@pytest.mark.parametrize("flavor", ["tf", "flax"])
@pytest.mark.parametrize("has_head", [False, True])
def test_a_head_that_transformers_5_does_not_scale_is_not_tied(flavor: str, has_head: bool, tmp_path: Path) -> None:
    source = t5(tie_word_embeddings=True, scale_decoder_outputs=False, num_decoder_layers=1)
    head = ArrayTensor.of(np.full((9, 4), 77, np.float32)) if has_head else source.tensors["shared.weight"]
    given = replace(source, tensors={**source.tensors, "lm_head.weight": head}) if has_head else source
    converter.write(given, tmp_path / "out", to="pretrained", flavor=flavor)
    assert json.loads((tmp_path / "out" / "config.json").read_bytes())["tie_word_embeddings"] is False
    converter.convert(tmp_path / "out", tmp_path / "back.safetensors")
    back = converter.read(tmp_path / "back.safetensors").tensors
    np.testing.assert_array_equal(back["lm_head.weight"].numpy(), head.numpy())


@pytest.mark.parametrize(
    ("values", "is_tied"),
    [
        ({"model_type": "t5", "tie_word_embeddings": True, "scale_decoder_outputs": True}, True),
        ({"model_type": "t5", "tie_word_embeddings": True}, True),
        ({"model_type": "longt5", "tie_word_embeddings": True, "scale_decoder_outputs": False}, False),
        ({"model_type": "mt5", "tie_word_embeddings": True, "transformers_version": "5.23.0"}, False),
        ({"model_type": "mt5", "tie_word_embeddings": True, "transformers_version": "4.57.6"}, True),
        ({"model_type": "bart", "tie_word_embeddings": True, "scale_decoder_outputs": False}, True),
    ],
)
def test_when_transformers_4_ties(values: dict[str, Any], is_tied: bool) -> None:
    made, said = with_old_keys(config(**values))
    assert made.values["tie_word_embeddings"] is is_tied
    assert bool(said) is not is_tied
