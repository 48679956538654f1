"""A run of a script in torch goes on in transformers.Trainer: README's command, then `resume_from_checkpoint`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import converter
from tests.training import torch_side
from tests.training.batches import batches
from tests.training.measuring import differences
from tests.training.trainer_side import trainer_of

torch = pytest.importorskip("torch")


def resumed(folder: Path, out: Path) -> dict[str, Any]:
    """What Trainer has after it went on from `folder` for as many steps again."""
    trainer = trainer_of(out, rate=0.001)
    trainer.train(resume_from_checkpoint=str(folder))
    return torch_side.ended(trainer.model, trainer.losses())


def one_group(model: Any) -> Any:
    return list(model.parameters())


def decayed_last(model: Any) -> Any:
    """The usual script's groups, the other way round than Trainer has them."""
    named = list(model.named_parameters())
    exempt = [parameter for name, parameter in named if "bias" in name or "LayerNorm" in name]
    decayed = [parameter for name, parameter in named if not ("bias" in name or "LayerNorm" in name)]
    return [{"params": exempt, "weight_decay": 0.0}, {"params": decayed}]


@pytest.mark.parametrize("groups", [one_group, decayed_last])
def test_trainer_goes_on_where_a_script_stopped(groups: Any, tmp_path: Path) -> None:
    expected = torch_side.train("bert", "adamw", tmp_path, groups=groups)
    converter.convert(tmp_path / "checkpoint.pth", tmp_path / "checkpoint-20", to="pretrained", train_batch_size=16)
    found = resumed(tmp_path / "checkpoint-20", tmp_path / "out")
    loss, weight = differences(found, expected)
    assert loss < 1e-6
    assert weight < 1e-7
    (tmp_path / "checkpoint-20" / "optimizer.pt").unlink()
    loss, weight = differences(resumed(tmp_path / "checkpoint-20", tmp_path / "again"), expected)
    assert loss > 5e-4
    assert weight > 1e-3


def test_a_scheduler_goes_on_with_every_group(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = torch_side.MODELS["bert"]()
    optimizer = torch_side.OPTIMIZERS["adamw"](model.parameters())
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / 100)
    for _ in range(3):
        torch_side.steps(model, optimizer, batches("bert", is_resumed=False)[:1])
        scheduler.step()
    state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "scheduler": scheduler.state_dict()}
    torch.save(state, tmp_path / "x.pth")
    model.config.save_pretrained(tmp_path)
    converter.convert(tmp_path / "x.pth", tmp_path / "y", to="pretrained")
    written = torch.load(tmp_path / "y" / "scheduler.pt", weights_only=True)
    assert written["last_epoch"] == 3
    assert written["base_lrs"] == [0.001, 0.001]
    np.testing.assert_allclose(written["_last_lr"], [0.001 * 0.97] * 2)
    groups = torch.load(tmp_path / "y" / "optimizer.pt", weights_only=True)["param_groups"]
    assert [len(group["params"]) for group in groups] == [17, 24]


def test_groups_that_trainer_has_not_are_said(tmp_path: Path) -> None:
    model = torch_side.MODELS["bert"]()
    parameters = list(model.parameters())
    optimizer = torch.optim.AdamW([{"params": parameters[:20]}, {"params": parameters[20:], "lr": 1e-4}])
    torch_side.steps(model, optimizer, batches("bert", is_resumed=False)[:1])
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, tmp_path / "x.pth")
    model.config.save_pretrained(tmp_path)
    report = converter.convert(tmp_path / "x.pth", tmp_path / "y", to="pretrained")
    assert any("Trainer has in one group, have different hyperparameters" in warning for warning in report.warnings)
