"""Configs of transformers 5 as transformers 4, which has the TensorFlow and Flax classes, reads them."""

from __future__ import annotations

import json
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
    rotary = {"rope_parameters": {"rope_theta": 1e6, "rope_type": "default"}}
    given = config(model_type="mistral", architectures=["MistralModel"], **sizes, **rotary)
    source = Checkpoint(tensors=tensors, config=given)
    converter.write(source, tmp_path / "same", to="pretrained")
    assert json.loads((tmp_path / "same" / "config.json").read_bytes()) == given.values
    converter.write(source, tmp_path / "out", to="pretrained", flavor=flavor)
    assert json.loads((tmp_path / "out" / "config.json").read_bytes()) == {**given.values, "rope_theta": 1e6}
