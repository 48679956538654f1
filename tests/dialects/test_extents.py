"""Variables that only the TensorFlow classes have, by what a config says of their shapes."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

import converter
from converter.dialects.transformers.extents import computed_variables
from converter.errors import LossError, ReadError, UsageError
from converter.model.checkpoint import Checkpoint
from converter.model.tensor import ArrayTensor

VIT = Path(__file__).parents[2] / "fixtures" / "keras-transformers" / "vit.json"

RELATIVE = ("layers_._{n}/attn/rel_pos_h", "relative positions", "vision_config")
VISION = {
    "use_rel_pos": False,
    "num_hidden_layers": 2,
    "image_size": 32,
    "patch_size": 8,
    "window_size": 2,
    "hidden_size": 12,
    "num_attention_heads": 3,
    "global_attn_indexes": [1],
}


def test_relative_positions_that_are_turned_off_are_zeros_of_the_shape_that_is_built() -> None:
    made = list(computed_variables(RELATIVE, {"vision_config": VISION}))
    assert [(name, values.shape) for name, _, values in made] == [
        ("layers_._0/attn/rel_pos_h", (3, 4)),
        ("layers_._1/attn/rel_pos_h", (7, 4)),
    ]
    assert not any(np.any(values) for _, _, values in made)
    assert list(computed_variables(RELATIVE, {"vision_config": {**VISION, "use_rel_pos": True}})) == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"patch_size": 0},
        {"num_hidden_layers": 1 << 20},
        {"hidden_size": "12"},
        {"hidden_size": 1 << 24},
        {"num_attention_heads": True},
        {"image_size": -8},
    ],
)
def test_sizes_that_are_none_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(UsageError, match="no usable"):
        list(computed_variables(RELATIVE, {"vision_config": {**VISION, **wrong}}))


def test_sinusoids_are_those_of_marian() -> None:
    ((_, _, table),) = computed_variables(("p", "sinusoids", "rows", "width"), {"rows": 3, "width": 4})
    np.testing.assert_allclose(table[1], [np.sin(1), np.sin(0.01), np.cos(1), np.cos(0.01)], rtol=1e-6)


def test_sinusoids_of_any_width_are_computed_and_huge_ones_refused() -> None:
    entry = ("p", "sinusoids", "rows", "width")
    ((_, _, table),) = computed_variables(entry, {"rows": 2, "width": 3})
    np.testing.assert_allclose(table[1], [np.sin(1), np.sin(10000 ** (-2 / 3)), np.cos(1)], rtol=1e-6)
    with pytest.raises(ReadError, match="a position table of 1048576 x 65536 values"):
        list(computed_variables(entry, {"rows": 1 << 20, "width": 1 << 16}))


def vit(folder: Path, *, has_biases: bool, qkv_bias: bool) -> Path:
    """Write a ViT as PyTorch's class saves it, with or without biases of queries, keys and values."""
    folder.mkdir()
    source = converter.read(VIT.with_suffix(".safetensors"))
    is_bias = re.compile(r".*\.attention\.attention\.(query|key|value)\.bias").fullmatch
    held = {
        name: ArrayTensor.of(np.ones(source.tensor(name).shape, np.float32)) if is_bias(name) else source.tensor(name)
        for name in source.names
        if has_biases or not is_bias(name)
    }
    assert has_biases == (len(held) == len(source.names))
    config = {**json.loads(VIT.with_suffix(".json").read_text()), "architectures": ["ViTModel"], "qkv_bias": qkv_bias}
    (folder / "config.json").write_text(json.dumps(config))
    converter.write(Checkpoint(tensors=held), folder / "model.safetensors")
    return folder


def test_biases_that_only_tensorflow_has_are_zeros_and_come_back_as_nothing(tmp_path: Path) -> None:
    source = vit(tmp_path / "in", has_biases=False, qkv_bias=False)
    report = converter.convert(source, tmp_path / "tf", to="pretrained", flavor="tf")
    assert report.counts["defaulted"] > 0
    converter.convert(tmp_path / "tf", tmp_path / "back", to="pretrained")
    assert converter.read(tmp_path / "back").tensors.keys() == converter.read(source).tensors.keys()


def test_biases_that_tensorflow_uses_and_pytorch_lacks_are_a_loss(tmp_path: Path) -> None:
    source = vit(tmp_path / "in", has_biases=True, qkv_bias=True)
    converter.convert(source, tmp_path / "tf", to="pretrained", flavor="tf")
    converter.convert(tmp_path / "tf", tmp_path / "back", to="pretrained")
    config = json.loads((tmp_path / "tf" / "config.json").read_text())
    (tmp_path / "tf" / "config.json").write_text(json.dumps({**config, "qkv_bias": False}))
    with pytest.raises(LossError, match=r"qkv_bias"):
        converter.convert(tmp_path / "tf", tmp_path / "lost", to="pretrained")
