"""Checkpoint folders of transformers.Trainer: parameters numbered in the order of the class, weights sorted by name."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import converter
from converter.errors import LossError, UsageError
from converter.execution.workshop import LocalWorkshop

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

MODELS: dict[str, Callable[[], Any]] = {
    "bert": lambda: transformers.BertForSequenceClassification(
        transformers.BertConfig(
            vocab_size=30, hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16
        )
    ),
    "gpt2": lambda: transformers.GPT2LMHeadModel(
        transformers.GPT2Config(vocab_size=30, n_positions=16, n_embd=8, n_layer=2, n_head=2)
    ),
    "vit": lambda: transformers.ViTForImageClassification(
        transformers.ViTConfig(
            image_size=8,
            patch_size=4,
            hidden_size=8,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=16,
        )
    ),
}

Groups = list[dict[str, Any]]


@pytest.fixture(autouse=True)
def no_child_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """The order of a class is the table's, whatever is installed."""

    def call(*_: Any, **__: Any) -> Any:
        raise AssertionError("a child process was started")

    monkeypatch.setattr(LocalWorkshop, "call", call)


def trainer_groups(model: Any) -> Groups:
    decayed = set(transformers.Trainer.get_decay_parameter_names(None, model))
    named = list(model.named_parameters())
    return [
        {"params": [parameter for name, parameter in named if name in decayed], "weight_decay": 0.1},
        {"params": [parameter for name, parameter in named if name not in decayed], "weight_decay": 0.0},
    ]


def plain(model: Any) -> Groups:
    return [{"params": list(model.parameters())}]


def by_name(model: Any) -> Groups:
    return [{"params": [parameter for _, parameter in sorted(model.named_parameters())]}]


def head_first(model: Any) -> Groups:
    named = list(model.named_parameters())
    head = [parameter for name, parameter in named if "classifier" in name]
    backbone = [parameter for name, parameter in named if "classifier" not in name]
    return [{"params": head}, {"params": backbone, "lr": 1e-4}]


def saved(model: Any, groups: Groups, folder: Path) -> Any:
    torch.manual_seed(0)
    optimizer = torch.optim.AdamW(groups, lr=1e-3)
    for parameter in (parameter for group in groups for parameter in group["params"]):
        parameter.grad = torch.randn_like(parameter)
    optimizer.step()
    model.save_pretrained(folder)
    torch.save(optimizer.state_dict(), folder / "optimizer.pt")
    return optimizer


def check(model: Any, optimizer: Any, path: Path) -> None:
    """Every moment is under the name of the parameter that has the same values in the file."""
    checkpoint = converter.read(path)
    assert checkpoint.optimizer is not None
    by_value = {parameter.detach().numpy().tobytes(): parameter for parameter in model.parameters()}
    slots = checkpoint.optimizer.slots["exp_avg"]
    assert len(slots) == sum(len(group["params"]) for group in optimizer.param_groups)
    for name, found in slots.items():
        values = checkpoint.tensors[name].numpy()
        parameter = by_value[values.tobytes()]
        assert np.array_equal(found.numpy(), optimizer.state[parameter]["exp_avg"].numpy()), name


def varied(kind: str) -> Any:
    """A model no two parameters of which have the same values."""
    model = MODELS[kind]()
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_()
    return model


@pytest.mark.parametrize("groups", [trainer_groups, plain])
@pytest.mark.parametrize("kind", MODELS)
def test_numbers_are_parameters_in_the_order_of_the_class(
    kind: str, groups: Callable[[Any], Groups], tmp_path: Path
) -> None:
    model = varied(kind)
    optimizer = saved(model, groups(model), tmp_path / "run")
    report = converter.convert(tmp_path / "run", tmp_path / "out.pth")
    assert report.optimizer.basis == ("verified (order)" if groups is plain else "verified (Trainer groups)")
    assert any("rest on order" in warning for warning in report.warnings)
    check(model, optimizer, tmp_path / "out.pth")


@pytest.mark.parametrize("groups", [by_name, head_first])
def test_other_orders_are_refused_and_can_be_given(groups: Callable[[Any], Groups], tmp_path: Path) -> None:
    model = varied("bert")
    saved(model, plain(model), tmp_path / "known")
    assert converter.convert(tmp_path / "known", tmp_path / "known.pth").optimizer.status == "carried"
    made = groups(model)
    optimizer = saved(model, made, tmp_path / "run")
    with pytest.raises(LossError, match="--param-order"):
        converter.convert(tmp_path / "run", tmp_path / "out.pth")
    assert not (tmp_path / "out.pth").exists()
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    order = [names[id(parameter)] for group in made for parameter in group["params"]]
    given = tmp_path / "order.txt"
    given.write_text("\n".join(order))
    report = converter.convert(tmp_path / "run", tmp_path / "out.pth", param_order=given)
    assert report.optimizer.basis == "given"
    check(model, optimizer, tmp_path / "out.pth")
    given.write_text("\n".join(order[1:]))
    with pytest.raises(LossError, match="the order given"):
        converter.convert(tmp_path / "run", tmp_path / "short.pth", param_order=given)


def frozen_state(model: Any, trained: Sequence[Any]) -> dict[str, Any]:
    optimizer = torch.optim.Adam(trained)
    for parameter in trained:
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    return {"model_state_dict": model.state_dict(), "optimizer_state_dict": optimizer.state_dict()}


def test_which_parameters_were_trained_can_be_given(tmp_path: Path) -> None:
    model = torch.nn.Sequential(*(torch.nn.Linear(3, 3) for _ in range(3)))
    torch.save(frozen_state(model, list(model[1].parameters())), tmp_path / "x.pth")
    with pytest.raises(LossError, match="--trainable"):
        converter.convert(tmp_path / "x.pth", tmp_path / "out", to="dcp")
    report = converter.convert(tmp_path / "x.pth", tmp_path / "out.pth", trainable=r"^1\.")
    assert report.optimizer.status == "carried"
    state = torch.load(tmp_path / "out.pth", weights_only=True)["optimizer_state_dict"]
    assert state["param_groups"][0]["param_names"] == ["1.weight", "1.bias"]
    with pytest.raises(UsageError, match="matches no tensor"):
        converter.convert(tmp_path / "x.pth", tmp_path / "none.pth", trainable="^7")


def test_an_order_is_no_use_where_the_parameters_have_names(tmp_path: Path) -> None:
    model = torch.nn.Linear(2, 2)
    optimizer = torch.optim.Adam(model.named_parameters())
    state = {"model_state_dict": model.state_dict(), "optimizer_state_dict": optimizer.state_dict()}
    torch.save(state, tmp_path / "x.pth")
    converter.convert(tmp_path / "x.pth", tmp_path / "out.pth")
    with pytest.raises(UsageError, match="numbered"):
        converter.convert(tmp_path / "x.pth", tmp_path / "again.pth", trainable="weight")


@pytest.mark.parametrize("epsilon", ["stock", "exact"])
def test_an_optimizer_beside_a_tensorflow_model_comes_back(squad_bert: Path, epsilon: str, tmp_path: Path) -> None:
    """As one of tf_keras: variables in a checkpoint, config in optimizer.json; back in the order of the class."""
    converter.convert(squad_bert, tmp_path / "tf", to="pretrained", flavor="tf", epsilon=epsilon)
    config = json.loads((tmp_path / "tf" / "optimizer.json").read_text())
    assert config["class_name"] == {"stock": "AdamW", "exact": "Adam"}[epsilon]
    assert bool(config["config"].get("adaptive_epsilon")) == (epsilon == "exact")
    converter.convert(tmp_path / "tf", tmp_path / "back.pth")
    expected, found = converter.read(squad_bert).optimizer, converter.read(tmp_path / "back.pth").optimizer
    assert expected is not None
    assert found is not None
    assert (found.step, found.algorithm) == (expected.step, expected.algorithm)
    assert [group.parameters for group in found.groups] == [group.parameters for group in expected.groups]
    assert found.groups[0].hyperparameters.keys() == expected.groups[0].hyperparameters.keys()
    for key, value in expected.groups[0].hyperparameters.items():
        told = found.groups[0].hyperparameters[key]
        assert told == (value if value is None else pytest.approx(value, rel=1e-6)), key
    for slot, tensors in expected.slots.items():
        assert tensors.keys() == found.slots[slot].keys()
        for name, tensor in tensors.items():
            assert np.array_equal(tensor.numpy(), found.slots[slot][name].numpy()), (slot, name)


def test_groups_with_and_without_decay_come_back_from_a_tensorflow_model(tmp_path: Path) -> None:
    """Variables of TensorFlow are called `beta:0`, in the record of those that do not decay, too."""
    model = varied("bert")
    saved(model, trainer_groups(model), tmp_path / "run")
    converter.convert(tmp_path / "run", tmp_path / "tf", to="pretrained", flavor="tf")
    converter.convert(tmp_path / "tf", tmp_path / "back.pth")
    converter.convert(tmp_path / "run", tmp_path / "here.pth")
    expected, found = (converter.read(tmp_path / name).optimizer for name in ("here.pth", "back.pth"))
    assert expected is not None
    assert found is not None
    for ours, theirs in zip(expected.groups, found.groups, strict=True):
        assert set(ours.parameters) == set(theirs.parameters)
        assert ours.hyperparameters["weight_decay"] == theirs.hyperparameters["weight_decay"]


def test_random_state_goes_along(tmp_path: Path) -> None:
    model = varied("bert")
    saved(model, trainer_groups(model), tmp_path / "run")
    states = {"python": random.getstate(), "numpy": np.random.get_state(), "cpu": torch.random.get_rng_state()}
    torch.save(states, tmp_path / "run" / "rng_state.pth")
    expected = (random.random(), np.random.rand(), torch.rand(()))
    converter.convert(tmp_path / "run", tmp_path / "on", to="pretrained")
    found = torch.load(tmp_path / "on" / "rng_state.pth", weights_only=True)
    random.setstate(found["python"])
    np.random.set_state(found["numpy"])
    torch.random.set_rng_state(found["cpu"])
    assert (random.random(), np.random.rand(), torch.rand(())) == expected
    checkpoint = converter.convert(tmp_path / "run", tmp_path / "x.pth")
    assert checkpoint.optimizer.status == "carried"
    assert "rng_state" in torch.load(tmp_path / "x.pth", weights_only=True)["extras"]


def test_variables_that_tensorflow_alone_trains_have_state(tmp_path: Path) -> None:
    """TensorFlow's MPNet has a pooler where PyTorch's has none: an optimizer that is built for it counts it."""
    sizes = {"vocab_size": 32, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.MPNetConfig(**sizes, intermediate_size=16, max_position_embeddings=20)
    model = transformers.MPNetForSequenceClassification(config)
    saved(model, [{"params": list(model.parameters())}], tmp_path / "run")
    converter.convert(tmp_path / "run", tmp_path / "tf", to="pretrained", flavor="tf")
    state = converter.read(tmp_path / "tf").optimizer
    assert state is not None
    pooler = {name for name in state.parameters if "/mpnet/pooler/" in name}
    assert len(pooler) == 2
    assert all(not held[name].numpy().any() for held in state.slots.values() for name in pooler)
    converter.convert(tmp_path / "tf", tmp_path / "back.pth")
    back = converter.read(tmp_path / "back.pth").optimizer
    assert back is not None
    assert set(back.parameters) == {name for name, _ in model.named_parameters()}
