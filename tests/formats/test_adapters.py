"""Adapters of PEFT: weights of their own, and a config that says of which model and where they go."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import safetensors.torch
import torch

import converter
from converter.errors import ArchitectureError, LossError

WEIGHTS = {
    f"base_model.model.bert.encoder.layer.0.attention.self.query.lora_{half}.weight": torch.randn(*shape)
    for half, shape in (("A", (2, 8)), ("B", (8, 2)))
}
CONFIG = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["query"], "base_model_name_or_path": "x"}


@pytest.fixture(params=["safetensors", "bin"])
def adapter(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    folder = tmp_path / "lora"
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps(CONFIG))
    if request.param == "bin":
        torch.save(WEIGHTS, folder / "adapter_model.bin")
    else:
        safetensors.torch.save_file(WEIGHTS, folder / "adapter_model.safetensors", {"format": "pt"})
    return folder


def check(path: Path) -> None:
    found = safetensors.torch.load_file(path)
    assert set(found) == set(WEIGHTS)
    assert all(torch.equal(found[name], value) for name, value in WEIGHTS.items())


def test_a_folder_of_an_adapter(adapter: Path, tmp_path: Path) -> None:
    """The names that PeftModel.from_pretrained looks for."""
    report = converter.convert(adapter, tmp_path / "out", to="pretrained")
    assert {entry.name for entry in (tmp_path / "out").iterdir()} == {
        "adapter_config.json",
        "adapter_model.safetensors",
    }
    check(tmp_path / "out" / "adapter_model.safetensors")
    assert json.loads((tmp_path / "out" / "adapter_config.json").read_text()) == CONFIG
    assert (report.counts["mapped"], report.counts["dropped"], report.warnings) == (2, 0, ())
    assert converter.verify(adapter, tmp_path / "out", to="pretrained").verification.weights
    assert converter.diff(adapter, tmp_path / "out").is_same
    with pytest.raises(ArchitectureError, match="an adapter is written as safetensors alone"):
        converter.convert(adapter, tmp_path / "other", to="pretrained", flavor="tf")


def test_the_config_of_the_model_beside_an_adapter_goes_along(adapter: Path, tmp_path: Path) -> None:
    config = '{"model_type": "bert", "architectures": ["BertForMaskedLM"]}'
    (adapter / "config.json").write_text(config)
    converter.convert(adapter, tmp_path / "out", to="pretrained")
    check(tmp_path / "out" / "adapter_model.safetensors")
    assert (tmp_path / "out" / "config.json").read_text() == config
    assert converter.verify(adapter, tmp_path / "out").verification.weights
    whole = {name.replace("lora_A", "base_layer"): tensor for name, tensor in WEIGHTS.items()}
    for weights in adapter.glob("adapter_model.*"):
        weights.unlink()
    torch.save(whole, adapter / "adapter_model.bin")
    with pytest.raises(LossError, match="is of a model of PEFT, with adapters beside its weights"):
        converter.convert(adapter, tmp_path / "whole", to="pretrained")


def test_a_file_of_an_adapter_leaves_its_config_behind_and_says_so(adapter: Path, tmp_path: Path) -> None:
    (weights,) = adapter.glob("adapter_model.*")
    for source in (adapter, weights):
        report = converter.convert(source, tmp_path / "x.safetensors", overwrite=True)
        check(tmp_path / "x.safetensors")
        assert report.warnings == (
            "adapter_config.json not carried: the output is one file; end DST with / for a folder",
        )
    converter.convert(adapter, f"{tmp_path}/folder/", to="safetensors")
    assert (tmp_path / "folder" / "adapter_config.json").exists()
