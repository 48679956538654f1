"""What training code saves with torch.distributed.checkpoint: models and optimizers at any depth, told as in files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.distributed import checkpoint as dcp
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_state_dict
from torch.distributed.checkpoint.stateful import Stateful

import converter
from converter.errors import LossError
from converter.report import OptimizerStatus

pytestmark = pytest.mark.filterwarnings("ignore")


def trained() -> tuple[torch.nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.BatchNorm1d(3), torch.nn.Linear(3, 2))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    model(torch.randn(5, 4)).sum().backward()
    optimizer.step()
    return model, optimizer


class App(Stateful):
    """As the tutorial of torch.distributed.checkpoint has it."""

    def __init__(self, model: torch.nn.Module, optimizer: torch.optim.Optimizer, options: StateDictOptions) -> None:
        self.model, self.optimizer, self.options = model, optimizer, options

    def state_dict(self) -> dict[str, Any]:
        model, optimizer = get_state_dict(self.model, self.optimizer, options=self.options)
        return {"model": model, "optim": optimizer}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        raise NotImplementedError


@pytest.mark.parametrize("is_flat", [False, True])
def test_the_layout_of_the_tutorial(is_flat: bool, tmp_path: Path) -> None:
    model, optimizer = trained()
    app = App(model, optimizer, StateDictOptions(flatten_optimizer_state_dict=is_flat))
    dcp.save({"app": app, "step": 3}, checkpoint_id=tmp_path / "app", no_dist=True)
    found = converter.read(tmp_path / "app")
    assert set(found.names) == set(model.state_dict())
    assert found.extras == {"step": 3}
    assert found.optimizer is not None
    report = converter.convert(tmp_path / "app", tmp_path / "x.pth")
    assert (report.optimizer.status, report.counts["dropped"]) == (OptimizerStatus.CARRIED, 0)
    written = torch.load(tmp_path / "x.pth", weights_only=True)
    another, fresh = trained()
    another.load_state_dict(written["model_state_dict"], strict=True)
    fresh.load_state_dict(written["optimizer_state_dict"])
    for (_, left), (_, right) in zip(model.named_parameters(), another.named_parameters(), strict=True):
        assert torch.equal(left, right)
        assert torch.equal(optimizer.state[left]["exp_avg"], fresh.state[right]["exp_avg"])
    report = converter.convert(tmp_path / "app", tmp_path / "x.safetensors")
    assert set(converter.read(tmp_path / "x.safetensors").names) == set(model.state_dict())


def test_two_models(tmp_path: Path) -> None:
    model, optimizer = trained()
    weights, state = get_state_dict(model, optimizer)
    average = {name: torch.zeros_like(value) for name, value in weights.items()}
    dcp.save(
        {"train": {"model": weights, "ema": average, "optimizer": state}, "step": 3},
        checkpoint_id=tmp_path / "x",
        no_dist=True,
    )
    found = converter.read(tmp_path / "x")
    assert set(found.names) == {f"train.{key}.{name}" for key in ("model", "ema") for name in weights}
    assert found.optimizer is not None
    assert set(found.optimizer.parameters) == {f"train.model.{name}" for name, _ in model.named_parameters()}
    one = converter.read(tmp_path / "x", select="train.ema")
    assert set(one.names) == set(weights)
    assert one.optimizer is None
    (tmp_path / "x" / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(LossError, match=r"has 2 models \(train.model, train.ema\)"):
        converter.convert(tmp_path / "x", tmp_path / "out", to="pretrained")


def test_what_stands_beside_the_weights_comes_back(tmp_path: Path) -> None:
    """Also what would be a model where it stood: it goes where extras are."""
    torch.save({"model": {"w": torch.ones(2, 2)}, "rng": torch.get_rng_state(), "epoch": 3}, tmp_path / "x.pt")
    converter.convert(tmp_path / "x.pt", tmp_path / "x", to="dcp")
    found = converter.read(tmp_path / "x")
    assert (set(found.names), found.extras["epoch"]) == ({"w"}, 3)
    assert np.array_equal(found.extras["rng"].numpy(), torch.get_rng_state().numpy())
