"""Which parts of a training checkpoint are models: one alone is unwrapped, several are named after their keys."""

from __future__ import annotations

import argparse
import itertools
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import converter
from converter.errors import LossError, UsageError
from converter.model.ledger import Status
from converter.report import OptimizerStatus


def state(seed: int = 0, *sizes: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    widths = sizes or (3, 4, 2)
    found = {}
    for number, (width, out) in enumerate(itertools.pairwise(widths)):
        found[f"{number}.weight"] = torch.randn(out, width, generator=generator)
        found[f"{number}.bias"] = torch.randn(out, generator=generator)
    return found


def prefixed(prefix: str, names: Any) -> set[str]:
    return {prefix + name for name in names}


def saved(folder: Path, value: Any, name: str = "x.pt") -> Path:
    torch.save(value, folder / name)
    return folder / name


OWN = set(state())
ONE: dict[str, Callable[[], Any]] = {
    "any key": lambda: {"net": state(), "epoch": 3, "acc": 0.5},
    "params_ema": lambda: {"params_ema": state()},
    "generator": lambda: {"generator": state(), "iteration": torch.tensor([4])},
    "at a depth": lambda: {"model": {"state_dict": state(), "arch": "x"}, "epoch": 3},
    "four deep": lambda: {"a": {"b": {"c": {"d": state(), "n": 1}, "m": 2}, "k": 3}, "j": 4},
    "in a list": lambda: {"models": [state()], "epoch": 1},
    "in a tuple": lambda: (state(), {"lr": 0.1}, 7),
    "none beside": lambda: {"model": None, "ema": state(), "updates": 3},
    "empty beside": lambda: {"model": state(), "ema": {}},
    "random states": lambda: {
        "weights": state(),
        "rng_state": torch.get_rng_state(),
        "cpu_generator": torch.get_rng_state(),
        "cuda_rng_state_all": [torch.zeros(16, dtype=torch.uint8)],
        "random": {"torch": torch.get_rng_state(), "numpy": np.random.RandomState(0).get_state()},
    },
    "counters": lambda: {
        "model": state(),
        "step": torch.tensor(3),
        "seen": torch.tensor([7]),
        "best": torch.tensor(0.5),
    },
    "numbers": lambda: {"model": state(), "history": {"loss": [0.5, 0.25], "lr": 0.1, "curve": np.arange(3.0)}},
    "settings": lambda: {"model": state(), "args": argparse.Namespace(weights=torch.ones(3), lr=0.1, wd=0.0)},
    "a scheduler": lambda: {"model": state(), "lr_scheduler": {"last_epoch": 3, "base_lrs": [0.1]}},
}


@pytest.mark.parametrize("case", ONE)
def test_a_single_model_has_its_own_names(tmp_path: Path, case: str) -> None:
    found = converter.read(saved(tmp_path, ONE[case]()))
    assert set(found.names) == OWN


TWO: dict[str, tuple[Callable[[], Any], set[str]]] = {
    "ema": (lambda: {"model": state(), "ema": state(1)}, prefixed("model.", OWN) | prefixed("ema.", OWN)),
    "a discriminator": (
        lambda: {"model": state(), "discriminator": state(1, 5, 6), "epoch": 3},
        prefixed("model.", OWN) | {"discriminator.0.weight", "discriminator.0.bias"},
    ),
    "known keys both": (
        lambda: {"state_dict": state(), "model": state(1)},
        prefixed("state_dict.", OWN) | prefixed("model.", OWN),
    ),
    "none of the known keys": (
        lambda: {"params": state(), "params_ema": state(1)},
        prefixed("params.", OWN) | prefixed("params_ema.", OWN),
    ),
    "inside an object of settings": (
        lambda: {"model": state(), "ema": {"decay": 0.99, "shadow": state(1), "updates": 3}},
        prefixed("model.", OWN) | prefixed("ema.shadow.", OWN),
    ),
    "in a list": (
        lambda: {"models": [state(), state(1)]},
        prefixed("models.0.", OWN) | prefixed("models.1.", OWN),
    ),
    "averages in a list": (
        lambda: {"model": state(), "ema": {"decay": 0.9, "shadow_params": list(state(1).values())}},
        prefixed("model.", OWN) | prefixed("ema.shadow_params.", "0123"),
    ),
    "centres": (
        lambda: {"model": state(), "center_loss": {"centers": torch.ones(3, 2)}},
        prefixed("model.", OWN) | {"center_loss.centers"},
    ),
    "of Lightning": (
        lambda: {"state_dict": state(), "callbacks": {"EMA": {"ema_weights": state(1), "step": 3}}, "loops": {}},
        prefixed("state_dict.", OWN) | prefixed("callbacks.EMA.ema_weights.", OWN),
    ),
    "modules": (
        lambda: {"model": torch.nn.Linear(2, 3), "ema": torch.nn.Linear(2, 3)},
        {"model.weight", "model.bias", "ema.weight", "ema.bias"},
    ),
}


@pytest.mark.parametrize("case", TWO)
def test_several_are_each_under_their_key(tmp_path: Path, case: str) -> None:
    make, expected = TWO[case]
    report = converter.convert(saved(tmp_path, make()), tmp_path / "x.safetensors")
    assert set(converter.read(tmp_path / "x.safetensors").names) == expected
    assert report.counts["dropped"] == 0


BESIDE: dict[str, tuple[Callable[[], Any], set[str]]] = {
    "centres": (lambda: {"model": state(), "centers": torch.ones(10, 2)}, {*OWN, "centers"}),
    "in front": (lambda: {"latent_avg": torch.ones(5), "g_ema": state()}, {*OWN, "latent_avg"}),
    "statistics": (
        lambda: {"net": state(), "normalizer": {"mean": torch.ones(3), "std": torch.ones(3)}},
        {*OWN, "normalizer.mean", "normalizer.std"},
    ),
    "of a name that the model has": (
        lambda: {"net": {"centers": torch.ones(1, 2), **state()}, "centers": torch.ones(10, 2)},
        {*prefixed("net.", OWN), "net.centers", "centers"},
    ),
    "several models": (
        lambda: {"g": state(), "d": state(1), "latent_avg": torch.ones(5)},
        {*prefixed("g.", OWN), *prefixed("d.", OWN), "latent_avg"},
    ),
}


@pytest.mark.parametrize("case", BESIDE)
def test_a_tensor_beside_models_keeps_its_key(tmp_path: Path, case: str) -> None:
    make, expected = BESIDE[case]
    report = converter.convert(saved(tmp_path, make()), tmp_path / "x.safetensors")
    assert set(converter.read(tmp_path / "x.safetensors").names) == expected
    assert report.counts["dropped"] == 0


@pytest.fixture
def averaging() -> Iterator[Any]:
    """A class that keeps an average, as timm's and torch_ema's do, which is gone when the file is read."""
    module = types.ModuleType("averaging")

    class Average:
        def __init__(self, of: Any) -> None:
            self.module, self.decay = of, 0.99

    Average.__module__, Average.__qualname__ = "averaging", "Average"
    module.Average = Average  # type: ignore[attr-defined]
    sys.modules["averaging"] = module
    yield Average
    del sys.modules["averaging"]


def test_a_pickled_average_is_a_model(tmp_path: Path, averaging: Any) -> None:
    path = saved(tmp_path, {"model": state(0, 2, 3), "ema": averaging(torch.nn.Sequential(torch.nn.Linear(2, 3)))})
    found = converter.read(path)
    assert set(found.names) == {"model.0.weight", "model.0.bias", "ema.module.0.weight", "ema.module.0.bias"}
    assert found.extras == {"ema": {"decay": 0.99}}
    alone = converter.read(saved(tmp_path, {"ema": averaging(torch.nn.Linear(2, 3)), "epoch": 1}, "alone.pt"))
    assert set(alone.names) == {"weight", "bias"}


def in_the_root() -> Any:
    root: dict[str, Any] = {"model": state(), "epoch": 1}
    root["trainer"] = {"checkpoint": root}
    return root


def in_a_list() -> Any:
    root: dict[str, Any] = {"model": state(), "history": []}
    root["history"].append(root)
    return root


def in_the_state_dict() -> Any:
    root: dict[str, Any] = {"model": dict(state())}
    root["model"]["owner"] = root
    return root


def in_a_plain_state_dict() -> Any:
    root: dict[str, Any] = dict(state())
    root["owner"] = [root]
    return root


@pytest.mark.parametrize("make", [in_the_root, in_a_list, in_the_state_dict, in_a_plain_state_dict])
def test_a_model_that_knows_its_owner_is_one(make: Any, tmp_path: Path) -> None:
    path = saved(tmp_path, make())
    report = converter.convert(path, tmp_path / "x.safetensors")
    assert converter.read(tmp_path / "x.safetensors").tensors.keys() == state().keys()
    assert [line.reason for line in report.lines if line.status is Status.DROPPED] == ["is what it stands inside of"]
    converter.convert(path, tmp_path / "y.pt")
    assert torch.load(tmp_path / "y.pt", weights_only=True).keys() <= make().keys()
    assert converter.verify(path, tmp_path / "y.pt").counts == report.counts


def test_wrappers_are_stripped_from_each_model(tmp_path: Path) -> None:
    wrapped = {f"module.{name}": tensor for name, tensor in state().items()}
    value = {"model": wrapped, "ema": state(1), "centers": torch.ones(2, 2)}
    converter.convert(saved(tmp_path, value), tmp_path / "x.safetensors")
    names = {*prefixed("model.", OWN), *prefixed("ema.", OWN), "centers"}
    assert set(converter.read(tmp_path / "x.safetensors").names) == names
    converter.convert(saved(tmp_path, {"net": wrapped, "centers": torch.ones(2, 2)}), tmp_path / "y.safetensors")
    assert set(converter.read(tmp_path / "y.safetensors").names) == {*OWN, "centers"}


def test_one_is_selected(tmp_path: Path) -> None:
    model, ema = state(), state(1)
    path = saved(tmp_path, {"model": model, "ema": ema, "epoch": 3})
    report = converter.convert(path, tmp_path / "x.safetensors", select="ema")
    found = converter.read(tmp_path / "x.safetensors")
    assert set(found.names) == OWN
    for name, tensor in ema.items():
        assert np.array_equal(found.tensors[name].numpy(), tensor.numpy())
    assert report.counts == {"mapped": 4, "tied": 0, "dropped": 4, "defaulted": 0}
    assert {line.name for line in report.lines if line.target is None} == prefixed("model.", OWN)
    assert {line.name for line in report.lines if line.target is not None} == prefixed("ema.", OWN)
    assert "epoch not carried: --select ema takes the weights there" in report.warnings
    again = converter.verify(path, tmp_path / "x.safetensors", select="ema")
    assert again.verification.weights


def test_what_is_selected_may_be_deep_or_several(tmp_path: Path) -> None:
    value = {"net": {"g": state(), "d": state(1)}, "ema": {"g": state(2)}, "centers": torch.ones(2, 2)}
    path = saved(tmp_path, value)
    assert set(converter.read(path, select="net.g").names) == OWN
    assert set(converter.read(path, select="ema").names) == OWN
    assert set(converter.read(path, select="net").names) == prefixed("g.", OWN) | prefixed("d.", OWN)
    assert set(converter.read(path, select="centers").names) == {"centers"}
    with pytest.raises(UsageError, match=r"--select 'nett': no weights are there; there are net.g, net.d, ema.g"):
        converter.read(path, select="nett")


def test_a_selected_model_is_a_file_of_its_own(tmp_path: Path) -> None:
    """Of whisper, Lightning and others: the state dict alone, not the keys that stood beside it."""
    path = saved(tmp_path, {"dims": {"n_mels": 80}, "model_state_dict": state()})
    converter.convert(path, tmp_path / "out.pt", select="model_state_dict")
    found = torch.load(tmp_path / "out.pt", weights_only=True)
    assert set(found) == OWN


BERT = '{"model_type": "bert", "architectures": ["BertModel"], "num_attention_heads": 1}'


@pytest.mark.parametrize("to", ["pretrained", "savedmodel", "onnx", "flax"])
def test_a_target_of_one_class_lists_the_keys(tmp_path: Path, to: str) -> None:
    path = saved(tmp_path, {"model": state(), "ema": state(1), "epoch": 3})
    (tmp_path / "config.json").write_text(BERT)
    with pytest.raises(LossError, match=rf"has 2 models \(model, ema\), and {to} holds one; --select model takes"):
        converter.convert(path, tmp_path / "out", to=to)
    assert LossError.exit_code == 3


def test_a_target_of_arrays_takes_both(tmp_path: Path) -> None:
    path = saved(tmp_path, {"model": state(), "ema": state(1), "epoch": 3})
    for to, name in (("flax", "x.msgpack"), ("dcp", "x"), ("h5", "x.h5")):
        report = converter.convert(path, tmp_path / name, to=to, weights_only=True)
        assert report.counts["mapped"] == 8


# optimizers


def network(seed: int, *sizes: int) -> torch.nn.Module:
    torch.manual_seed(seed)
    widths = sizes or (3, 4, 2)
    return torch.nn.Sequential(*(torch.nn.Linear(*pair) for pair in itertools.pairwise(widths)))


def trained(model: torch.nn.Module, lr: float = 0.1) -> torch.optim.Optimizer:
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr)
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    optimizer.step()
    return optimizer


def check(found: Any, prefix: str, model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
    assert found is not None
    for name, parameter in model.named_parameters():
        slot = found.slots["exp_avg"][prefix + name].numpy()
        assert np.array_equal(slot, optimizer.state[parameter]["exp_avg"].numpy())


def test_an_optimizer_goes_with_the_model_that_it_fits(tmp_path: Path) -> None:
    model, other = network(0), network(1, 3, 5, 2)
    optimizer = trained(other)
    value = {"model": model.state_dict(), "head": other.state_dict(), "optimizer": optimizer.state_dict()}
    path = saved(tmp_path, value)
    check(converter.read(path).optimizer, "head.", other, optimizer)
    check(converter.read(path, select="head").optimizer, "", other, optimizer)
    without = converter.read(path, select="model")
    assert without.optimizer is without.optimizer_refused is None
    assert "optimizer state not carried: it is of another model than the one selected" in without.warnings


@pytest.mark.parametrize("average", ["ema", "model_ema", "ema_state_dict", "swa", "teacher", "params_avg"])
def test_an_average_is_not_what_an_optimizer_trains(tmp_path: Path, average: str) -> None:
    model = network(0)
    optimizer = trained(model)
    value = {average: network(1).state_dict(), "net": model.state_dict(), "opt": optimizer.state_dict()}
    found = converter.read(saved(tmp_path, value))
    check(found.optimizer, "net.", model, optimizer)


def test_optimizers_of_two_models_of_one_shape_are_told_by_their_keys(tmp_path: Path) -> None:
    models = {"netG": network(0), "netD": network(1)}
    optimizers = {"optimizer_D": trained(models["netD"]), "optimizer_G": trained(models["netG"])}
    value = {key: each.state_dict() for key, each in {**models, **optimizers}.items()}
    found = converter.read(saved(tmp_path, value))
    for key, model in models.items():
        check(found.optimizer, f"{key}.", model, optimizers[f"optimizer_{key[-1]}"])
    report = converter.convert(tmp_path / "x.pt", tmp_path / "x", to="dcp")
    assert report.optimizer.status is OptimizerStatus.CARRIED
    one = converter.read(tmp_path / "x.pt", select="netD")
    check(one.optimizer, "", models["netD"], optimizers["optimizer_D"])


def test_an_optimizer_of_no_one_model_is_refused(tmp_path: Path) -> None:
    model = network(0)
    value = {"one": model.state_dict(), "two": network(1).state_dict(), "optimizer": trained(model).state_dict()}
    path = saved(tmp_path, value)
    assert "fits the parameters of one and of two" in (converter.read(path).optimizer_refused or "")
    with pytest.raises(LossError, match="nothing says which it trains"):
        converter.convert(path, tmp_path / "x", to="dcp")
    assert converter.convert(path, tmp_path / "x.safetensors").counts["mapped"] == 8


def test_an_optimizer_of_all_models(tmp_path: Path) -> None:
    encoder, decoder = network(0), network(1, 2, 5)
    optimizer = trained(torch.nn.ModuleList([encoder, decoder]))
    value = {"encoder": encoder.state_dict(), "decoder": decoder.state_dict(), "optimizer": optimizer.state_dict()}
    found = converter.read(saved(tmp_path, value))
    check(found.optimizer, "encoder.", encoder, optimizer)
    check(found.optimizer, "decoder.", decoder, optimizer)


def test_what_stands_beside_a_model_under_its_key_is_said_so(tmp_path: Path) -> None:
    average = {"decay": 0.99, "shadow_params": [torch.ones(2, 2), torch.ones(2)]}
    path = saved(tmp_path, {"model": state(), "ema": average, "epoch": 1})
    report = converter.convert(path, tmp_path / "x.safetensors")
    assert report.warnings == ("ema but for its weights, epoch not carried: safetensors holds no training state",)


def test_what_is_not_carried_may_be_left_out(tmp_path: Path) -> None:
    """It is dropped with a line: to ask for that is no slip of the pen."""
    path = saved(tmp_path, {"model": state(), "classes": np.array(["cat", "dog"])})
    report = converter.convert(path, tmp_path / "x.safetensors", exclude=("classes",))
    assert [line.name for line in report.lines if line.status is Status.DROPPED] == ["classes"]
    with pytest.raises(UsageError, match=r"--exclude 'class' is of no tensor"):
        converter.convert(path, tmp_path / "y.safetensors", exclude=("class",))
