"""`ckconv` from what transformers and torch save to SavedModels that run: one class of each kind."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Ckconv
from tests.graphs.zoo import ZOO, Model
from tests.oracle.environment import IS_FULL, SEED

CLASSES = (
    "ViTForImageClassification",
    "GPT2LMHeadModel",
    "T5ForConditionalGeneration",
    "Wav2Vec2ForCTC",
    "CLIPModel",
    "MixtralForCausalLM",
)
MODELS = [model for model in ZOO if model.architecture in CLASSES]
CHOSEN = MODELS if IS_FULL else MODELS[SEED % len(MODELS) :][:1]


def _saved(model: Model, folder: Path) -> None:
    import torch
    import transformers

    torch.manual_seed(5)
    class_ = getattr(transformers, model.architecture)
    source = class_(class_.config_class.from_dict(dict(model.config)))
    with torch.no_grad():
        for parameter in source.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    source.save_pretrained(folder)


def _variables(folder: Path) -> set[str]:
    from converter.encoding.tensor_bundle import read_bundle
    from converter.encoding.tensorflow_variables import variable_names

    return set(variable_names(read_bundle(folder / "variables" / "variables", root=folder)).values())


@pytest.mark.parametrize("model", [pytest.param(model, id=model.architecture) for model in CHOSEN])
def test_a_folder_and_a_state_dict_become_a_saved_model(
    model: Model, ckconv: Ckconv, tmp_path: Path, tell: Callable[[str], None]
) -> None:
    from safetensors import safe_open
    from safetensors.torch import load_file, save_file  # noqa: F401
    from torch import save

    source = tmp_path / "source"
    _saved(model, source)
    with safe_open(source / "model.safetensors", "numpy") as stored:
        names = set(stored.keys())
    done = ckconv(source, tmp_path / "out", "--to", "savedmodel", "--verify", "outputs", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["verification"]["outputs"]
    assert _variables(tmp_path / "out") >= names
    left_out = len(MODELS) - len(CHOSEN)
    tell(f"{model.architecture}: ckconv to a SavedModel, max|d|={told['verification']['max_abs']:.1e}; {left_out} left out")

    alone = tmp_path / "alone"
    alone.mkdir()
    save(load_file(source / "model.safetensors"), alone / "weights.pth")
    config = json.loads((source / "config.json").read_text())
    config.pop("architectures")
    (alone / "config.json").write_text(json.dumps(config))
    planned = ckconv(alone / "weights.pth", tmp_path / "planned", "--to", "savedmodel", "--dry-run", "--json")
    if planned.returncode:
        assert "nothing says which" in planned.stdout + planned.stderr
