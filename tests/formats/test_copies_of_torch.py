"""From a file of torch.save to another: keys, nesting, names and what stands beside the weights stay as they are."""

from __future__ import annotations

import argparse
import collections
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import converter
from converter.errors import LossError, UsageError, VerificationError
from converter.report import OptimizerStatus


def network() -> torch.nn.Sequential:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 2))


def trained(parameters: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
    optimizer = torch.optim.AdamW(parameters, lr=0.1)
    for parameter in parameters:
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    return optimizer


def state() -> dict[str, torch.Tensor]:
    return dict(network().state_dict())


def backwards(model: torch.nn.Module) -> torch.optim.Optimizer:
    """An optimizer whose parameters are in no order that a file could tell, all of them of one shape or not."""
    return trained(list(model.parameters())[::-1])


def saved(folder: Path, value: Any, name: str = "x.pt") -> Path:
    torch.save(value, folder / name)
    return folder / name


def check(found: Any, expected: Any, at: str = "") -> None:
    """Compare two values, tensors by their bits."""
    if isinstance(expected, torch.Tensor):
        assert isinstance(found, torch.Tensor), at
        assert (found.dtype, found.shape) == (expected.dtype, expected.shape), at
        assert torch.equal(found, expected.detach()), at
    elif isinstance(expected, dict):
        assert list(found) == list(expected), at
        assert isinstance(found, collections.OrderedDict) == isinstance(expected, collections.OrderedDict), at
        assert getattr(found, "_metadata", None) == getattr(expected, "_metadata", None), at
        for key in expected:
            check(found[key], expected[key], f"{at}.{key}")
    elif isinstance(expected, list | tuple):
        assert (type(found), len(found)) == (type(expected), len(expected)), at
        for position, (ours, theirs) in enumerate(zip(found, expected, strict=True)):
            check(ours, theirs, f"{at}.{position}")
    else:
        assert (type(found), found) == (type(expected), expected), at


def training() -> dict[str, Any]:
    model = network()
    optimizer = trained(list(model.parameters()))
    return {
        "epoch": 3,
        "arch": "resnet",
        "state_dict": {f"module.{name}": tensor for name, tensor in model.state_dict().items()},
        "best_acc1": torch.tensor(0.5),
        "optimizer": optimizer.state_dict(),
        "rng_state": torch.get_rng_state(),
    }


LAYOUTS: dict[str, Callable[[], Any]] = {
    "whisper": lambda: {"dims": {"n_mels": 80, "n_vocab": 51865}, "model_state_dict": state()},
    "training": training,
    "Lightning": lambda: {
        "epoch": 1,
        "global_step": 7,
        "pytorch-lightning_version": "2.5",
        "state_dict": collections.OrderedDict(state()),
        "loops": {"fit_loop": {"state_dict": {}}},
        "callbacks": {"Checkpoint{'monitor': None}": {"best": torch.tensor(0.5), "path": ""}},
        "optimizer_states": [backwards(network()).state_dict()],
        "lr_schedulers": [{"last_epoch": 1, "_last_lr": [0.1]}],
        "hyper_parameters": {"lr": 0.1, "sizes": (1, 2), "name": None},
    },
    "an average beside it": lambda: {"model": state(), "ema": state(), "updates": 7},
    "deep": lambda: {"model": {"model_args": {"a": [1, {"b": (2.5, "x")}]}, "state_dict": state()}, "n": 1},
    "a plain state dict": lambda: collections.OrderedDict(state()),
    "no tensor in a state dict": lambda: {"model": {**state(), "fc._extra_state": {"scale": 2}, "none": None}},
    "keys that are numbers": lambda: {0: {"w": torch.ones(2)}, 1: {"w": torch.ones(3)}, "rest": {2: "x", (1, 2): 3}},
    "lists": lambda: [state(), {"lr": 0.1}, [1, 2], (torch.ones(2, 2), "x")],
    "scalars": lambda: {"net": {"scale": torch.tensor(2.0), **state()}, "acc": float("nan"), "set": {1, 2}, "c": 1j},
    "wrapped": lambda: {"checkpoint": {"model": state(), "epoch": 3}},
    "versions of modules": lambda: {"net": network().state_dict(), "epoch": 1},
    "what torch calls its own": lambda: {
        "model": state(),
        "config": collections.OrderedDict(
            dtype=torch.bfloat16, device=torch.device("cuda", 1), shape=torch.Size((1, 2))
        ),
        "devices": [torch.device("cpu"), {torch.Size((3,)): torch.int8}],
    },
    "random states": lambda: {"model": state(), "rng": {"cpu": torch.get_rng_state(), "python": (3, (1, 2), None)}},
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_everything_stays(tmp_path: Path, layout: str) -> None:
    source = saved(tmp_path, LAYOUTS[layout](), "x.ckpt")
    expected = torch.load(source, weights_only=True)
    report = converter.convert(source, tmp_path / "out.bin")
    found = torch.load(tmp_path / "out.bin", weights_only=True)
    if layout == "scalars":
        assert np.isnan(found["acc"])
        found["acc"] = expected["acc"] = 0
    check(found, expected)
    assert report.counts["dropped"] == 0
    assert converter.verify(source, tmp_path / "out.bin").verification.weights
    assert report.optimizer.status is not OptimizerStatus.DROPPED


def cast(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.to(torch.bfloat16) if value.is_floating_point() else value
    return {key: cast(item) for key, item in value.items()}


def test_everything_stays_in_another_element_type(tmp_path: Path) -> None:
    value = {**training(), "ema": state(), "centers": torch.ones(3, 2)}
    converter.convert(saved(tmp_path, value), tmp_path / "out.pt", dtype="bfloat16")
    weights = {key: cast(value[key]) for key in ("state_dict", "ema", "centers")}
    check(torch.load(tmp_path / "out.pt", weights_only=True), {**value, **weights})


def test_what_is_left_out_is_gone_and_nothing_else(tmp_path: Path) -> None:
    value = {"model": state(), "ema": state(), "epoch": 3, "list": [torch.ones(2, 2), torch.ones(3, 2)]}
    path = saved(tmp_path, value)
    converter.convert(path, tmp_path / "out.pt", exclude=("ema.*", "model.2.*", "list.0"))
    kept = {name: tensor for name, tensor in value["model"].items() if not name.startswith("2.")}
    expected = {"model": kept, "epoch": 3, "list": [None, value["list"][1]]}
    check(torch.load(tmp_path / "out.pt", weights_only=True), expected)
    converter.convert(path, tmp_path / "one.pt", include=("model.2.bias",))
    check(
        torch.load(tmp_path / "one.pt", weights_only=True), {"model": {"2.bias": value["model"]["2.bias"]}, "epoch": 3}
    )
    with pytest.raises(UsageError, match="--include 'epoch' is of no tensor"):
        converter.convert(path, tmp_path / "none.pt", include=("epoch",))


def test_ties_share_one_storage(tmp_path: Path) -> None:
    shared = torch.randn(4, 3)
    path = saved(tmp_path, {"model": {"in.weight": shared, "out.weight": shared, "b": torch.ones(4)}, "epoch": 1})
    report = converter.convert(path, tmp_path / "out.pt", dtype="float16")
    found = torch.load(tmp_path / "out.pt", weights_only=True)["model"]
    assert found["in.weight"].data_ptr() == found["out.weight"].data_ptr()
    assert report.counts["tied"] == 1


def test_a_whole_module_is_its_state_dict(tmp_path: Path) -> None:
    model = network()
    path = saved(tmp_path, {"model": model, "epoch": 3})
    converter.convert(path, tmp_path / "out.pt")
    expected = model.state_dict()
    del expected._metadata  # their classes say the versions, which are not in the file
    check(torch.load(tmp_path / "out.pt", weights_only=True), {"model": expected, "epoch": 3})


def test_what_only_code_could_open_is_left_out_and_said(tmp_path: Path) -> None:
    value = {"args": argparse.Namespace(lr=0.1), "model": state(), "cfg": {"path": Path("x"), "f": len, "n": 1}}
    report = converter.convert(saved(tmp_path, value), tmp_path / "out.pt")
    found = torch.load(tmp_path / "out.pt", weights_only=True)
    check(found, {"model": value["model"], "cfg": {"path": "x", "n": 1}})
    said = {line.name: line.reason for line in report.lines if line.target is None}
    assert said == {"args": "argparse.Namespace is not carried", "cfg.f": "builtins.len is not carried"}


# optimizers


def numbered() -> dict[str, Any]:
    """The optimizer trains one parameter of the last layer, then one of the first: no file tells that order."""
    model = network()
    chosen = [model[2].bias, model[0].weight]
    return {"model_state_dict": model.state_dict(), "optimizer_state_dict": trained(chosen).state_dict(), "config": {}}


def test_an_optimizer_whose_order_nobody_knows_is_copied_as_it_is(tmp_path: Path) -> None:
    value = numbered()
    path = saved(tmp_path, value)
    report = converter.convert(path, tmp_path / "out.pt", dtype="float16", exclude=("1.running_*",))
    found = torch.load(tmp_path / "out.pt", weights_only=True)
    check(found["optimizer_state_dict"], value["optimizer_state_dict"])
    assert report.optimizer.status is OptimizerStatus.CARRIED
    assert (report.optimizer.basis or "").startswith("copied as it is: ")
    for options in ({"exclude": ("0.weight",)}, {"hyperparameter": ("lr=1",)}):
        with pytest.raises(LossError, match="--param-order FILE"):
            converter.convert(path, tmp_path / "not.pt", **options)
    order = tmp_path / "order"
    order.write_text("2.bias\n0.weight\n")
    converter.convert(path, tmp_path / "known.pt", param_order=order, exclude=("0.weight",))
    left = torch.load(tmp_path / "known.pt", weights_only=True)["optimizer_state_dict"]
    assert left["param_groups"][0]["param_names"] == ["2.bias"]
    check(left["state"], {0: value["optimizer_state_dict"]["state"][0]})


def test_an_optimizer_that_is_dropped_has_no_key(tmp_path: Path) -> None:
    value = training()
    report = converter.convert(saved(tmp_path, value), tmp_path / "out.pt", optimizer="drop")
    del value["optimizer"]
    check(torch.load(tmp_path / "out.pt", weights_only=True), value)
    assert (report.optimizer.status, report.optimizer.reason) == (OptimizerStatus.DROPPED, "as asked")


def test_the_state_of_what_is_left_out_goes_too(tmp_path: Path) -> None:
    value = training()
    path = saved(tmp_path, value)
    converter.convert(path, tmp_path / "out.pt", exclude=("module.0.*",), hyperparameter=("lr=0.5",))
    found = torch.load(tmp_path / "out.pt", weights_only=True)
    assert list(found) == list(value)
    model = network()[1:]
    optimizer = torch.optim.AdamW(model.parameters())
    optimizer.load_state_dict(found["optimizer"])
    assert optimizer.param_groups[0]["lr"] == 0.5
    for parameter, number in zip(model.parameters(), range(2, 6), strict=True):
        check(optimizer.state[parameter]["exp_avg"], value["optimizer"]["state"][number]["exp_avg"])
    assert converter.verify(path, tmp_path / "out.pt", exclude=("module.0.*",), hyperparameter=("lr=0.5",))


def test_of_several_optimizers_each_keeps_its_place(tmp_path: Path) -> None:
    models = {"g": network(), "d": torch.nn.Linear(5, 2)}
    states = {f"optimizer_{key}": trained(list(model.parameters())).state_dict() for key, model in models.items()}
    value = {**{key: model.state_dict() for key, model in models.items()}, **states}
    path = saved(tmp_path, value)
    converter.convert(path, tmp_path / "out.pt", hyperparameter=("weight_decay=0.5",), exclude=("d.bias",))
    found = torch.load(tmp_path / "out.pt", weights_only=True)
    assert list(found) == list(value)
    assert [found[key]["param_groups"][0]["weight_decay"] for key in states] == [0.5, 0.5]
    assert found["optimizer_d"]["param_groups"][0]["param_names"] == ["weight"]
    check(found["optimizer_g"]["state"], value["optimizer_g"]["state"])
    converter.convert(path, tmp_path / "one.pt", exclude=("g.*",))
    assert list(torch.load(tmp_path / "one.pt", weights_only=True)["optimizer_g"]["state"]) == []


# what restructures


def test_rules_of_one_s_own_give_the_form_of_other_sources(tmp_path: Path) -> None:
    path = saved(tmp_path, {"dims": {"n": 1}, "state_dict": state()})
    (tmp_path / "rules.json").write_text(json.dumps({"rules": [{"from": "2.{leaf}", "to": "out.{leaf}"}]}))
    converter.convert(path, tmp_path / "out.pt", mapping=tmp_path / "rules.json")
    found = torch.load(tmp_path / "out.pt", weights_only=True)
    assert list(found) == ["model_state_dict", "extras"]
    assert "out.weight" in found["model_state_dict"]


def test_another_source_gives_the_form_of_this_program(tmp_path: Path) -> None:
    converter.convert(saved(tmp_path, training()), tmp_path / "x", to="dcp")
    converter.convert(tmp_path / "x", tmp_path / "out.pt")
    assert next(iter(torch.load(tmp_path / "out.pt", weights_only=True))) == "model_state_dict"


# proof


@pytest.mark.parametrize("what", ["epoch", "a key more", "the optimizer", "a type", "a version"])
def test_what_stands_beside_the_weights_is_proven(tmp_path: Path, what: str) -> None:
    value = {**training(), "ema": network().state_dict()}
    path = saved(tmp_path, value)
    converter.convert(path, tmp_path / "out.pt")
    assert converter.verify(path, tmp_path / "out.pt").verification.weights
    changed = torch.load(tmp_path / "out.pt", weights_only=True)
    match what:
        case "epoch":
            changed["epoch"] = 4
        case "a key more":
            changed["more"] = 4
        case "the optimizer":
            changed["optimizer"]["param_groups"][0]["foreach"] = True
        case "a type":
            changed["epoch"] = 3.0
        case "a version":
            changed["ema"]._metadata["1"]["version"] = 3
    with pytest.raises(VerificationError, match=r"is not what the source has there|groups differ"):
        converter.verify(path, saved(tmp_path, changed, "changed.pt"))


def test_select_is_of_files_with_models(tmp_path: Path) -> None:
    converter.convert(saved(tmp_path, state()), tmp_path / "x.safetensors")
    with pytest.raises(UsageError, match="takes no --select"):
        converter.convert(tmp_path / "x.safetensors", tmp_path / "y.pt", select="model")
