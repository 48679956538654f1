"""What TensorFlow and Flax classes would make up, or find and not know, is refused before a folder is written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

import converter
from converter.errors import LossError
from converter.model.ledger import Status

FLAVORS = ("tf", "flax")
SIZES = {"vocab_size": 50, "hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
SECOND = "bert.encoder.layer.1.output.dense"


def converted(model: Any, state: dict[str, torch.Tensor], folder: Path, flavor: str, **options: Any) -> Any:
    folder.mkdir(exist_ok=True)
    model.config.architectures = [type(model).__name__]
    model.config.save_pretrained(folder)
    torch.save(state, folder / "x.pth")
    written = folder / flavor
    return converter.convert(folder / "x.pth", written, to="pretrained", flavor=flavor, overwrite=True, **options)


@pytest.fixture(scope="module")
def bert() -> Any:
    torch.manual_seed(0)
    return transformers.BertForMaskedLM(transformers.BertConfig(**SIZES))


@pytest.mark.parametrize("flavor", FLAVORS)
def test_a_tensor_of_one_layer_of_several(flavor: str, bert: Any, tmp_path: Path) -> None:
    state = dict(bert.state_dict())
    assert converted(bert, state, tmp_path, flavor).unchecked is None
    bias = state.pop(f"{SECOND}.bias")
    with pytest.raises(LossError, match=rf"tensor {SECOND}\.bias: is not in the source: BertForMaskedLM would make it"):
        converted(bert, state, tmp_path, flavor)
    report = converted(bert, state, tmp_path, flavor, allow_missing=(f"{SECOND}.bias",))
    assert (report.counts["defaulted"], len(report.losses()) > 0) == (1, True)
    state[f"{SECOND}.bias"] = torch.cat([bias, bias])
    with pytest.raises(LossError, match=rf"tensor {SECOND}\.bias: is \[16\], BertForMaskedLM has \[8\]"):
        converted(bert, state, tmp_path, flavor)


@pytest.mark.parametrize("flavor", FLAVORS)
def test_a_layer_that_the_config_does_not_count(flavor: str, bert: Any, tmp_path: Path) -> None:
    state = dict(bert.state_dict())
    state |= {name.replace("layer.1.", "layer.2."): each for name, each in state.items() if "layer.1." in name}
    with pytest.raises(LossError, match=r"layer\.2\.\S+: BertForMaskedLM has no tensor of that name"):
        converted(bert, state, tmp_path, flavor)


@pytest.mark.parametrize("flavor", FLAVORS)
def test_a_shape_of_another_rank(flavor: str, bert: Any, tmp_path: Path) -> None:
    state = {**bert.state_dict(), f"{SECOND}.weight": torch.zeros(8)}
    with pytest.raises(LossError, match=rf"tensor {SECOND}\.weight: is \[8\], BertForMaskedLM has \[8, 16\]"):
        converted(bert, state, tmp_path, flavor)


def test_what_a_class_of_flax_shares_is_there_once(bert: Any, tmp_path: Path) -> None:
    state = dict(bert.state_dict())
    owner, alias = "bert.embeddings.word_embeddings.weight", "cls.predictions.decoder.weight"
    report = converted(bert, state, tmp_path, "flax")
    assert [line.target for line in report.lines if line.name == alias and line.status is Status.TIED]
    leaves = converter.read(tmp_path / "flax").tensors
    assert not [leaf for leaf in leaves if "decoder/kernel" in leaf]
    with pytest.raises(LossError, match=r"decoder\.weight: the Flax class uses \S+embedding, and it differs"):
        converted(bert, {**state, alias: state[alias] + 1}, tmp_path, "flax")
    converted(bert, {name: each for name, each in state.items() if name != owner}, tmp_path, "flax")
    (leaf,) = (leaf for leaf in leaves if leaf.endswith("word_embeddings/embedding"))
    np.testing.assert_array_equal(
        converter.read(tmp_path / "flax").tensors[leaf].numpy(), state[alias].numpy(), strict=True
    )


@pytest.fixture(scope="module")
def esm() -> Any:
    torch.manual_seed(0)
    sizes = {**SIZES, "pad_token_id": 1, "mask_token_id": 49, "position_embedding_type": "rotary"}
    return transformers.EsmForMaskedLM(transformers.EsmConfig(**sizes, max_position_embeddings=40))


@pytest.mark.parametrize("is_saved", [False, True])
def test_rotary_frequencies_of_esm_are_in_each_layer(is_saved: bool, esm: Any, tmp_path: Path) -> None:
    if is_saved:
        esm.save_pretrained(tmp_path / "in")
        converter.convert(tmp_path / "in", tmp_path / "tf", to="pretrained", flavor="tf")
    else:
        converted(esm, dict(esm.state_dict()), tmp_path, "tf")
    found = {
        name: tensor for name, tensor in converter.read(tmp_path / "tf").tensors.items() if name.endswith("inv_freq:0")
    }
    assert len(found) == SIZES["num_hidden_layers"]
    for tensor in found.values():
        np.testing.assert_array_equal(tensor.numpy(), esm.esm.rotary_embeddings.inv_freq.numpy())


def test_a_head_that_differs_from_what_a_class_of_tensorflow_takes_for_it(esm: Any, tmp_path: Path) -> None:
    state = {**esm.state_dict(), "lm_head.decoder.weight": esm.state_dict()["lm_head.decoder.weight"] + 1}
    with pytest.raises(LossError, match=r"lm_head\.decoder\.weight: TFEsmForMaskedLM uses \S+ for it, which differs"):
        converted(esm, state, tmp_path, "tf")
