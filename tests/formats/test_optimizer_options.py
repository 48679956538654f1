"""What a user says of an optimizer that its file does not: order, what is trained, and hyperparameters."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import converter
from converter.errors import UsageError


def entry(value: float) -> dict[str, Any]:
    return {"step": torch.tensor(3.0), "exp_avg": torch.full((2,), value), "exp_avg_sq": torch.full((2,), value)}


def saved(path: Path, count: int = 2, frozen: str = "", **group: Any) -> Path:
    """Three vectors of one shape, and an optimizer of some of them, numbered."""
    model = {name: torch.nn.Parameter(torch.zeros(2), requires_grad=name != frozen) for name in "abc"}
    settings = {"lr": 0.1, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0, "amsgrad": False, **group}
    state = {
        "state": {number: entry(number + 1) for number in range(count)},
        "param_groups": [{**settings, "params": list(range(count))}],
    }
    torch.save({"model_state_dict": model, "optimizer_state_dict": state}, path)
    return path


def converted(source: Path, **options: Any) -> dict[str, float]:
    """Parameter -> the value of its moment in the output."""
    out = source.with_name("out.pth")
    assert converter.convert(source, out, overwrite=True, **options).optimizer.status == "carried"
    state = torch.load(out, weights_only=True)["optimizer_state_dict"]
    names = [name for group in state["param_groups"] for name in group["param_names"]]
    return {name: state["state"][number]["exp_avg"][0].item() for number, name in enumerate(names)}


@pytest.mark.parametrize(
    "text",
    ["c\na", "\n c \n\na\n", '["c", "a"]', ' \n["c",\n"a"]', "c\r\na\r\n"],
    ids=["lines", "blank", "json", "nl", "cr"],
)
def test_an_order_in_a_file(text: str, tmp_path: Path) -> None:
    (tmp_path / "order").write_bytes(text.encode())
    assert converted(saved(tmp_path / "x.pth"), param_order=tmp_path / "order") == {"c": 1, "a": 2}


@pytest.mark.parametrize("text", [b'["c", 1]', b'["c", "a"', b"c\n\xff\na"])
def test_a_file_that_is_no_order(text: bytes, tmp_path: Path) -> None:
    (tmp_path / "order").write_bytes(text)
    with pytest.raises(UsageError, match="is no list of names"):
        converted(saved(tmp_path / "x.pth"), param_order=tmp_path / "order")


def test_what_is_trained_decides_the_order_and_nothing_else(tmp_path: Path) -> None:
    """What the source says is frozen stays so."""
    source = saved(tmp_path / "x.pth", frozen="c")
    assert converter.read(source).frozen == {"c"}
    for pattern, expected in (("[bc]", {"b": 1, "c": 2}), ("[ab]$", {"a": 1, "b": 2})):
        assert converted(source, trainable=pattern) == expected
        converter.convert(source, tmp_path / "out", to="dcp", trainable=pattern, overwrite=True)
        assert converter.read(tmp_path / "out").frozen == {"c"}


def test_a_pattern_is_found_anywhere_in_a_name(tmp_path: Path) -> None:
    source = saved(tmp_path / "x.pth")
    whole = torch.load(source, weights_only=True)
    names = {"a": "body.0.a", "b": "body.1.a", "c": "head.a"}
    whole["model_state_dict"] = {names[name]: tensor for name, tensor in whole["model_state_dict"].items()}
    torch.save(whole, source)
    assert converted(source, trainable=r"\.[01]\.") == {"body.0.a": 1, "body.1.a": 2}


@pytest.mark.parametrize(("pattern", "why"), [("[", "is no regular expression"), ("^x", "matches no tensor")])
def test_a_pattern_that_says_nothing(pattern: str, why: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=why):
        converted(saved(tmp_path / "x.pth"), trainable=pattern)


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "NaN", "Infinity", "-Infinity"])
def test_a_hyperparameter_is_finite(value: str, tmp_path: Path) -> None:
    source = saved(tmp_path / "x.pth", count=3)
    assert converted(source, hyperparameter=("lr=0.2",))
    with pytest.raises(UsageError, match="--hyperparameter"):
        converted(source, hyperparameter=(f"lr={value}",))


def test_hyperparameters_are_those_of_every_group(tmp_path: Path) -> None:
    source = saved(tmp_path / "x.pth", count=3)
    checkpoint = torch.load(source, weights_only=True)
    (group,) = checkpoint["optimizer_state_dict"]["param_groups"]
    parts = [{**group, "params": [0], "lr": 1.0}, {**group, "params": [1, 2], "lr": 2.0}]
    checkpoint["optimizer_state_dict"]["param_groups"] = parts
    torch.save(checkpoint, source)
    converted(source, hyperparameter=("lr=0.5", "eps=1e-6"))
    groups = torch.load(tmp_path / "out.pth", weights_only=True)["optimizer_state_dict"]["param_groups"]
    assert [(group["lr"], group["eps"], group["params"]) for group in groups] == [(0.5, 1e-6, [0]), (0.5, 1e-6, [1, 2])]


def test_a_hyperparameter_tells_one_algorithm_from_another(tmp_path: Path) -> None:
    """Adam and AdamW of torch before 2.7 differ in nothing else that is stored."""
    source = saved(tmp_path / "x.pth", count=3, weight_decay=0.1)
    state = converter.read(source).optimizer
    assert state is not None
    assert state.algorithm == "unknown"
    for value, algorithm in (("true", "adamw"), ("false", "adam")):
        converted(source, hyperparameter=(f"decoupled_weight_decay={value}",))
        made = converter.read(tmp_path / "out.pth").optimizer
        assert made is not None
        assert made.algorithm == algorithm
