"""`ckconv` from what transformers and torch save to SavedModels that run: one class of each kind.

One case a run, another with every seed; CKCONV_ORACLE_FULL=1 takes all of them.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Ckconv
from tests.graphs.zoo import ZOO, Model
from tests.slices import IS_FULL, SEED

TASKS = {
    "ViTForImageClassification": None,
    "GPT2LMHeadModel": None,
    "T5ForConditionalGeneration": "text2text-generation",
    "Wav2Vec2ForCTC": None,
    "CLIPModel": None,
    "MixtralForCausalLM": None,
}
"""Class -> the task that has to be given where a config names no class, because names alone do not tell it."""
CASES = [(model, source) for source in ("folder", "pth") for model in ZOO if model.architecture in TASKS]
CHOSEN = CASES if IS_FULL else [CASES[SEED % len(CASES)]]


def _save(model: Model, folder: Path) -> set[str]:
    """Write what save_pretrained writes, with random weights; return the names of the tensors."""
    import torch
    import transformers
    from safetensors import safe_open

    torch.manual_seed(5)
    class_ = getattr(transformers, model.architecture)
    source = class_(class_.config_class.from_dict(dict(model.config)))
    with torch.no_grad():
        for parameter in source.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    source.save_pretrained(folder)
    with safe_open(folder / "model.safetensors", "numpy") as stored:
        return set(stored.keys())


def _without_class(folder: Path) -> Path:
    """Make a state dict of the weights, and a config beside it that names no class; return the former."""
    import torch
    from safetensors.torch import load_file

    torch.save(load_file(folder / "model.safetensors"), folder / "weights.pth")
    (folder / "model.safetensors").unlink()
    config = json.loads((folder / "config.json").read_text())
    config.pop("architectures")
    (folder / "config.json").write_text(json.dumps(config))
    return folder / "weights.pth"


def _variables(folder: Path) -> set[str]:
    from converter.encoding.tensor_bundle import read_bundle_inside
    from converter.encoding.tensorflow_variables import variable_names

    return set(variable_names(read_bundle_inside(folder, "variables/variables")).values())


@pytest.mark.parametrize(
    ("model", "source"), [pytest.param(*case, id=f"{case[0].architecture}-{case[1]}") for case in CHOSEN]
)
def test_what_was_saved_becomes_a_saved_model(
    model: Model, source: str, ckconv: Ckconv, tmp_path: Path, tell: Callable[[str], None]
) -> None:
    folder = tmp_path / "source"
    names = _save(model, folder)
    given: list[str | Path] = [folder]
    if source == "pth":
        task = TASKS[model.architecture]
        given = [_without_class(folder), *(["--task", task] if task else [])]
    done = ckconv(given[0], tmp_path / "out", *given[1:], "--to", "savedmodel", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    verification = json.loads(done.stdout)["verification"]
    assert verification["outputs"]
    assert _variables(tmp_path / "out") >= names
    others = len(CASES) - len(CHOSEN)
    tell(f"{model.architecture} ({source}) to a SavedModel: max|d|={verification['max_abs']:.1e}; {others} left out")
