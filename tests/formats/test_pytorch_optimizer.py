"""Optimizer state as torch.optim writes it: whose entry is whose, which algorithm, and when it must be refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_optimizer_state_dict

from converter.dialects.names.wrappers import unwrapped
from converter.formats.pytorch import FORMAT
from converter.model.checkpoint import Checkpoint


def network() -> torch.nn.Module:
    """Its tensors differ in shape enough for their order to be known."""
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Linear(4, 5),
        torch.nn.LayerNorm(5),
        torch.nn.Linear(5, 6),
        torch.nn.BatchNorm1d(6),
        torch.nn.Linear(6, 2),
    )


def trained(model: torch.nn.Module, optimizer: torch.optim.Optimizer, steps: int = 3) -> None:
    for _ in range(steps):
        optimizer.zero_grad()
        model(torch.randn(8, 4)).square().sum().backward()
        optimizer.step()


def read(path: Path, value: Any) -> Checkpoint:
    torch.save(value, path)
    assert FORMAT.read is not None
    return FORMAT.read(path, FORMAT.read_options())


def saved(tmp_path: Path, model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> Checkpoint:
    value = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 1}
    return read(tmp_path / "x.pth", value)


def check_slots(checkpoint: Checkpoint, model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Every tensor the optimizer keeps is under the name of its parameter."""
    state = checkpoint.optimizer
    assert state is not None, checkpoint.optimizer_refused
    compared = 0
    for name, parameter in model.named_parameters():
        for slot, value in optimizer.state[parameter].items():
            if slot == "step" or value is None:
                continue
            assert np.array_equal(state.slots[slot][name].numpy(), np.asarray(value)), (slot, name)
            compared += 1
    assert compared == sum(map(len, state.slots.values())) - len(state.slots.get("step", ()))
    for group, expected in zip(state.groups, optimizer.param_groups, strict=True):
        parameters = dict(model.named_parameters())
        assert [id(parameters[name]) for name in group.parameters] == list(map(id, expected["params"]))
        kept = {key: value for key, value in expected.items() if key not in ("params", "param_names")}
        assert group.hyperparameters == kept


ALGORITHMS: dict[str, tuple[str, Callable[[Any], torch.optim.Optimizer]]] = {
    "adamw": ("adamw", lambda parameters: torch.optim.AdamW(parameters)),
    "adam": ("adam", lambda parameters: torch.optim.Adam(parameters, amsgrad=True, weight_decay=0.1)),
    "sgd": ("sgd", lambda parameters: torch.optim.SGD(parameters, momentum=0.9)),
    "plain sgd": ("sgd", lambda parameters: torch.optim.SGD(parameters)),
    "adagrad": ("adagrad", lambda parameters: torch.optim.Adagrad(parameters)),
    "rmsprop": ("rmsprop", lambda parameters: torch.optim.RMSprop(parameters, centered=True, momentum=0.9)),
    "adamax": ("adamax", lambda parameters: torch.optim.Adamax(parameters)),
    "nadam": ("nadam", lambda parameters: torch.optim.NAdam(parameters)),
    "adadelta": ("adadelta", lambda parameters: torch.optim.Adadelta(parameters)),
    "adafactor": ("adafactor", lambda parameters: torch.optim.Adafactor(parameters)),
    "radam": ("unknown", lambda parameters: torch.optim.RAdam(parameters)),
    "asgd": ("unknown", lambda parameters: torch.optim.ASGD(parameters)),
}


@pytest.mark.parametrize("kind", ALGORITHMS)
@pytest.mark.parametrize("is_named", [False, True])
def test_algorithms(tmp_path: Path, kind: str, is_named: bool) -> None:
    algorithm, make = ALGORITHMS[kind]
    model = network()
    optimizer = make(model.named_parameters() if is_named else model.parameters())
    trained(model, optimizer)
    checkpoint = saved(tmp_path, model, optimizer)
    check_slots(checkpoint, model, optimizer)
    assert checkpoint.optimizer is not None
    assert checkpoint.optimizer.algorithm == algorithm
    assert checkpoint.optimizer.basis == ("named" if is_named else "verified (order)")
    assert checkpoint.optimizer.step == (None if algorithm == "sgd" else 3)


def trainer_groups(model: torch.nn.Module) -> tuple[list[Any], list[Any]]:
    norms = {name for name, module in model.named_modules() if isinstance(module, torch.nn.LayerNorm)}
    decayed, others = [], []
    for name, parameter in model.named_parameters():
        is_exempt = "bias" in name or name.rpartition(".")[0] in norms
        (others if is_exempt else decayed).append(parameter)
    return decayed, others


@pytest.mark.parametrize("is_swapped", [False, True])
def test_trainer_groups(tmp_path: Path, is_swapped: bool) -> None:
    model = network()
    decayed, others = trainer_groups(model)
    groups = [{"params": decayed, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups[::-1] if is_swapped else groups)
    trained(model, optimizer)
    checkpoint = saved(tmp_path, model, optimizer)
    check_slots(checkpoint, model, optimizer)
    assert checkpoint.optimizer is not None
    assert checkpoint.optimizer.basis == f"verified (Trainer groups{', swapped' if is_swapped else ''})"


def test_ties_count_once(tmp_path: Path) -> None:
    class Tied(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = torch.nn.Linear(4, 4, bias=False)
            self.norm = torch.nn.LayerNorm(4)
            self.last = torch.nn.Linear(4, 4)
            self.last.weight = self.first.weight

        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            return self.last(self.norm(self.first(inputs)))

    model = Tied()
    optimizer = torch.optim.AdamW(model.parameters())
    trained(model, optimizer)
    checkpoint = saved(tmp_path, model, optimizer)
    assert checkpoint.aliases == {"last.weight": "first.weight"}
    check_slots(checkpoint, model, optimizer)


def test_frozen_parameters_have_no_state(tmp_path: Path) -> None:
    model = network()
    model[0].weight.requires_grad = False
    optimizer = torch.optim.AdamW(model.parameters())
    trained(model, optimizer)
    checkpoint = saved(tmp_path, model, optimizer)
    assert checkpoint.optimizer is not None
    assert "0.weight" not in checkpoint.optimizer.slots["exp_avg"]
    assert checkpoint.optimizer.groups[0].parameters[0] == "0.weight"
    assert checkpoint.optimizer.step == 3


def test_whole_modules_say_what_was_trained(tmp_path: Path) -> None:
    model = network()
    model[0].weight.requires_grad = False
    optimizer = torch.optim.AdamW([parameter for parameter in model.parameters() if parameter.requires_grad])
    trained(model, optimizer)
    checkpoint = read(tmp_path / "x.pth", {"model": model, "optimizer": optimizer.state_dict()})
    check_slots(checkpoint, model, optimizer)


def test_steps_that_differ_are_a_slot(tmp_path: Path) -> None:
    model = network()
    optimizer = torch.optim.AdamW(model.parameters())
    trained(model, optimizer)
    optimizer.state[model[0].weight]["step"] += 2
    checkpoint = saved(tmp_path, model, optimizer)
    assert checkpoint.optimizer is not None
    assert checkpoint.optimizer.step is None
    steps = checkpoint.optimizer.slots["step"]
    assert (steps["0.weight"].numpy(), steps["0.bias"].numpy()) == (5, 3)


def test_old_steps_are_python_numbers(tmp_path: Path) -> None:
    model = network()
    optimizer = torch.optim.Adam(model.parameters())
    trained(model, optimizer)
    state = optimizer.state_dict()
    for entry in state["state"].values():
        entry["step"] = int(entry["step"])
    for group in state["param_groups"]:
        del group["decoupled_weight_decay"]
    checkpoint = read(tmp_path / "x.pth", {"model": model.state_dict(), "optimizer": state})
    assert checkpoint.optimizer is not None
    assert (checkpoint.optimizer.step, checkpoint.optimizer.algorithm) == (3, "adam")


def test_entries_under_names(tmp_path: Path) -> None:
    """As torch.distributed's full optimizer state dicts have them, with or without a wrapper's prefix."""
    model = network()
    optimizer = torch.optim.AdamW(model.parameters())
    trained(model, optimizer)
    names = [name for name, _ in model.named_parameters()]
    numbered = optimizer.state_dict()
    for prefix in ("", "module."):
        state = {prefix + name: numbered["state"][number] for number, name in enumerate(names)}
        group = {**numbered["param_groups"][0], "params": [prefix + name for name in names]}
        value = {"model": model.state_dict(), "optimizer": {"state": state, "param_groups": [group]}}
        checkpoint = read(tmp_path / "x.pth", value)
        check_slots(checkpoint, model, optimizer)
        assert checkpoint.optimizer is not None
        assert checkpoint.optimizer.basis == "named"


def test_lightning(tmp_path: Path) -> None:
    model = network()
    optimizer = torch.optim.AdamW(model.parameters())
    trained(model, optimizer)
    value = {"state_dict": model.state_dict(), "optimizer_states": [optimizer.state_dict()], "lr_schedulers": []}
    check_slots(read(tmp_path / "x.ckpt", value), model, optimizer)


def test_several_optimizers(tmp_path: Path) -> None:
    """Of one algorithm they are one with all groups, of several they are refused."""
    model = network()
    parameters = list(model.parameters())
    halves = [torch.optim.AdamW(parameters[:4], 0.1), torch.optim.AdamW(parameters[4:], 0.2)]
    for half in halves:
        trained(model, half)
    states = [half.state_dict() for half in halves]
    value = {"state_dict": model.state_dict(), "optimizer_states": states}
    checkpoint = read(tmp_path / "x.ckpt", value)
    assert checkpoint.optimizer is not None, checkpoint.optimizer_refused
    names = [name for name, _ in model.named_parameters()]
    assert [list(group.parameters) for group in checkpoint.optimizer.groups] == [names[:4], names[4:]]
    for name, parameter in model.named_parameters():
        half = halves[parameter not in set(parameters[:4])]
        found = checkpoint.optimizer.slots["exp_avg"][name].numpy()
        assert np.array_equal(found, half.state[parameter]["exp_avg"].numpy())
    other = torch.optim.SGD(parameters[4:], momentum=0.9)
    trained(model, other)
    refused = read(tmp_path / "y.ckpt", {**value, "optimizer_states": [states[0], other.state_dict()]})
    assert refused.optimizer is None
    assert "there are 2 optimizers" in (refused.optimizer_refused or "")


CONTAINERS: dict[str, Callable[[Any, Any], Any]] = {
    "model_state_dict": lambda model, optimizer: {"model_state_dict": model, "optimizer_state_dict": optimizer},
    "state_dict": lambda model, optimizer: {"epoch": 1, "arch": "x", "state_dict": model, "optimizer": optimizer},
    "a key of one's own": lambda model, optimizer: {"net": model, "opt": optimizer, "best": 1.0},
    "nested": lambda model, optimizer: {"checkpoint": {"model": model, "optim": optimizer}},
    "list": lambda model, optimizer: {"model": model, "optimizers": [optimizer]},
    "dict": lambda model, optimizer: {"model": model, "optimizers": {"main": optimizer}},
    "beside the weights": lambda model, optimizer: {**model, "optimizer": optimizer},
    "fairseq": lambda model, optimizer: {"model": model, "last_optimizer_state": optimizer, "args": None},
    "compiled": lambda model, optimizer: {
        "model": {f"_orig_mod.{name}": tensor for name, tensor in model.items()},
        "optimizer": optimizer,
    },
}


@pytest.mark.parametrize("container", CONTAINERS)
def test_containers(tmp_path: Path, container: str) -> None:
    model = network()
    optimizer = torch.optim.AdamW(model.parameters())
    trained(model, optimizer)
    value = CONTAINERS[container](model.state_dict(), optimizer.state_dict())
    checkpoint = unwrapped(read(tmp_path / "x.pth", value))
    assert list(checkpoint.tensors) == list(model.state_dict())
    check_slots(checkpoint, model, optimizer)


def test_flattened(tmp_path: Path) -> None:
    """As get_optimizer_state_dict has it with flatten_optimizer_state_dict: every slot and hyperparameter apart."""
    options = StateDictOptions(flatten_optimizer_state_dict=True)
    model = network()
    decayed, others = trainer_groups(model)
    groups = [{"params": decayed, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups)
    trained(model, optimizer)
    flat = get_optimizer_state_dict(model, optimizer, options=options)
    assert "state.0.weight.exp_avg" in flat
    checkpoint = read(tmp_path / "x.pth", {"model": model.state_dict(), "optimizer": flat})
    check_slots(checkpoint, model, optimizer)
    assert checkpoint.optimizer is not None
    assert checkpoint.optimizer.basis == "named"


LEFT_OUT: dict[str, Callable[[Any], list[Any]]] = {
    "the first": lambda model: list(model[1:].parameters()),
    "all but the last": lambda model: list(model[4].parameters()),
    "one between": lambda model: [*model[:2].parameters(), *model[3:].parameters()],
}


@pytest.mark.parametrize("what", LEFT_OUT)
@pytest.mark.parametrize("is_split", [False, True])
def test_frozen_modules_that_the_optimizer_was_not_given(tmp_path: Path, what: str, is_split: bool) -> None:
    """They are inferred where only one way to leave whole modules out fits, and that is said."""
    model = network()
    kept = LEFT_OUT[what](model)
    split = [[one for one in kept if one.ndim > 1], [one for one in kept if one.ndim < 2]]
    optimizer = torch.optim.AdamW([{"params": some} for some in (split if is_split else [kept])])
    trained(model, optimizer)
    checkpoint = saved(tmp_path, model, optimizer)
    check_slots(checkpoint, model, optimizer)
    assert checkpoint.optimizer is not None
    assert checkpoint.optimizer.basis.startswith("inferred (")


def test_frozen_modules_that_could_be_others_are_refused(tmp_path: Path) -> None:
    model = torch.nn.Sequential(*(torch.nn.Linear(4, 4) for _ in range(3)))
    optimizer = torch.optim.AdamW(model[1:].parameters())
    trained(model, optimizer)
    checkpoint = saved(tmp_path, model, optimizer)
    assert checkpoint.optimizer is None
    assert "ambiguous" in (checkpoint.optimizer_refused or "")


def state_of(parameters: Any, model: torch.nn.Module) -> dict[str, Any]:
    optimizer = torch.optim.AdamW(parameters)
    trained(model, optimizer, steps=1)
    return optimizer.state_dict()


def with_entry(model: torch.nn.Module, number: int, **values: Any) -> dict[str, Any]:
    state = state_of(model.named_parameters(), model)
    state["state"][number] = {**state["state"][0], **values}
    return state


def names_of_another_model(model: torch.nn.Module) -> Any:
    return [(f"x{number}", parameter) for number, parameter in enumerate(model.parameters())]


REFUSED: dict[str, tuple[str, Callable[[Any], dict[str, Any]]]] = {
    "reversed": ("fit no known order", lambda model: state_of(list(model.parameters())[::-1], model)),
    "half a module left out": ("fit no known order", lambda model: state_of(list(model.parameters())[1:], model)),
    "names of another model": ("'x0', which is not", lambda model: state_of(names_of_another_model(model), model)),
    "a slot of another shape": (
        "has shape [9], the weight [5, 4]",
        lambda model: with_entry(model, 0, exp_avg=torch.ones(9)),
    ),
    "no tensor": ("'history' per parameter", lambda model: with_entry(model, 0, history=[1, 2])),
    "an entry of no group": ("different parameters", lambda model: with_entry(model, 99)),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_known_is_refused(tmp_path: Path, what: str) -> None:
    model = network()
    optimizer = torch.optim.AdamW(model.parameters())
    trained(model, optimizer)
    assert saved(tmp_path, model, optimizer).optimizer is not None
    reason, make = REFUSED[what]
    checkpoint = read(tmp_path / "x.pth", {"model": model.state_dict(), "optimizer": make(model)})
    assert checkpoint.optimizer is None
    assert checkpoint.tensors
    assert reason in (checkpoint.optimizer_refused or "")


def test_one_name_for_two_entries_is_refused(tmp_path: Path) -> None:
    model = network()
    state = state_of(model.named_parameters(), model)
    value = {"model": model.state_dict(), "optimizer": state}
    assert read(tmp_path / "x.pth", value).optimizer is not None
    state["param_groups"][0]["param_names"][1] = "0.weight"
    refused = read(tmp_path / "x.pth", value).optimizer_refused
    assert refused == "it names one parameter twice"


def test_several_orders_that_fit_are_refused(tmp_path: Path) -> None:
    """Two groups of two vectors each: biases apart, or just as they come."""
    model = torch.nn.Sequential(torch.nn.LayerNorm(4), torch.nn.LayerNorm(4))
    weights, biases = [model[0].weight, model[1].weight], [model[0].bias, model[1].bias]
    optimizer = torch.optim.AdamW([{"params": weights}, {"params": biases, "weight_decay": 0.0}])
    trained(model, optimizer)
    checkpoint = saved(tmp_path, model, optimizer)
    assert checkpoint.optimizer is None
    assert "ambiguous" in (checkpoint.optimizer_refused or "")
