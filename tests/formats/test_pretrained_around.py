"""Modules of the user's own around a model of transformers: the folder holds the model, and what is around it apart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import converter
from converter.errors import ArchitectureError

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
safetensors = pytest.importorskip("safetensors.torch")

SIZES = {
    **{"vocab_size": 32, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24},
    "max_position_embeddings": 20,
}


def config_of(kind: str) -> Any:
    if kind == "distilbert":
        return transformers.DistilBertConfig(vocab_size=32, dim=16, n_layers=1, n_heads=2, hidden_dim=24)
    return transformers.AutoConfig.for_model(kind, **SIZES)


def saved(folder: Path, config: Any, **modules: Any) -> Path:
    module = torch.nn.Module()
    for name, each in modules.items():
        setattr(module, name, each)
    folder.mkdir()
    config.save_pretrained(folder)
    optimizer = torch.optim.AdamW(module.parameters())
    for parameter in module.parameters():
        parameter.grad = torch.randn_like(parameter)
    optimizer.step()
    torch.save({"model": module.state_dict(), "optimizer": optimizer.state_dict()}, folder / "x.pth")
    return folder / "x.pth"


@pytest.mark.parametrize("kind", ["bert", "distilbert", "roberta", "deberta-v2", "gpt2"])
@pytest.mark.parametrize("name", ["encoder", "own"])
def test_the_model_inside_a_module_is_the_folders(kind: str, name: str, tmp_path: Path) -> None:
    config = config_of(kind)
    model = transformers.AutoModel.from_config(config).eval()
    head = torch.nn.Sequential(torch.nn.Linear(16, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
    report = converter.convert(
        saved(tmp_path / "in", config, **{name: model, "head": head}), tmp_path / "out", to="pretrained"
    )
    assert report.optimizer.status.value == "carried"
    loaded, told = transformers.AutoModel.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(told[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert type(loaded) is type(model)
    ids = torch.arange(2, 12)[None]
    assert torch.equal(loaded(ids)[0], model(ids)[0])
    found = safetensors.load_file(tmp_path / "out" / "heads.safetensors")
    assert found.keys() == {f"head.{key}" for key in head.state_dict()}
    assert all(torch.equal(found[f"head.{key}"], value) for key, value in head.state_dict().items())
    assert any(f"{kind} family has head" in warning for warning in report.warnings)


def test_a_class_that_a_config_names_is_not_made_up(tmp_path: Path) -> None:
    """The config of a released model names the class with its own head, which the user's model does not have."""
    config = config_of("bert")
    config.architectures = ["BertForMaskedLM"]
    source = saved(tmp_path / "in", config, bert=transformers.BertModel(config), fc=torch.nn.Linear(16, 3))
    converter.convert(source, tmp_path / "out", to="pretrained", flavor="tf")
    written = converter.read(tmp_path / "out")
    assert written.config is not None
    assert written.config.architecture == "BertModel"
    assert {"heads.fc.weight", "heads.fc.bias"} < set(written.names)


def test_two_models_are_no_folder(tmp_path: Path) -> None:
    config = config_of("bert")
    source = saved(tmp_path / "in", config, a=transformers.BertModel(config), b=transformers.BertModel(config))
    with pytest.raises(ArchitectureError, match=r"exactly one tensor.*--to pytorch and --to safetensors hold all"):
        converter.convert(source, tmp_path / "out", to="pretrained")
    converter.convert(source, tmp_path / "out.safetensors")
