"""Names of old releases in PyTorch files become those of today, where a config says that it is a model of theirs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import converter
from converter.dialects import canonical
from converter.errors import LossError
from converter.model.checkpoint import Checkpoint, Config
from converter.model.tensor import ArrayTensor

FIXTURE = Path(__file__).parents[2] / "fixtures" / "squad-bert"
BERT = Config(values={"model_type": "bert"}, raw=b"")


def checkpoint(config: Config | None, *names: str) -> Checkpoint:
    return Checkpoint(tensors={name: ArrayTensor.of(np.zeros(2, np.float32)) for name in names}, config=config)


def test_old_names_become_those_of_today() -> None:
    old = ("LayerNorm.gamma", "encoder.LayerNorm.beta", "conv.weight_g", "conv.weight_v", "gamma", "x.my_weight_g")
    renewed = canonical(checkpoint(BERT, *old))
    assert list(renewed.tensors) == [
        "LayerNorm.weight",
        "encoder.LayerNorm.bias",
        "conv.parametrizations.weight.original0",
        "conv.parametrizations.weight.original1",
        "gamma",
        "x.my_weight_g",
    ]
    assert "old release" in renewed.warnings[0]
    assert renewed.origin("LayerNorm.weight") == "LayerNorm.gamma"


def test_names_stay_where_nothing_says_whose_they_are() -> None:
    assert list(canonical(checkpoint(None, "LayerNorm.gamma")).tensors) == ["LayerNorm.gamma"]


def test_a_tensor_under_both_names_is_refused() -> None:
    with pytest.raises(LossError, match="would both be named"):
        canonical(checkpoint(BERT, "LayerNorm.gamma", "LayerNorm.weight"))


def test_a_file_of_an_old_release_is_what_save_pretrained_writes_today(tmp_path: Path) -> None:
    fixture = converter.read(FIXTURE / "checkpoint.pth")
    new = {name: fixture.tensor(name) for name in fixture.names}
    old = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): tensor
        for name, tensor in new.items()
    }
    assert old.keys() != new.keys()
    converter.write(Checkpoint(tensors=old), tmp_path / "pytorch_model.bin")
    values = json.loads((FIXTURE / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(values))
    converter.convert(tmp_path / "pytorch_model.bin", tmp_path / "out", to="pretrained")
    assert converter.read(tmp_path / "out").tensors.keys() == new.keys()
