"""Prefixes that wrappers add to names are stripped where they are wrappers', and only there."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from converter.dialects.names.wrappers import unwrapped
from converter.model.checkpoint import Checkpoint
from converter.model.optimizer import OptimizerState, ParameterGroup
from converter.model.tensor import ArrayTensor


def checkpoint(*names: str, **options: object) -> Checkpoint:
    return Checkpoint(tensors={name: ArrayTensor.of(np.ones(1)) for name in names}, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["module.a.w", "module.b"], ["a.w", "b"]),
        (["module.module.a", "module.module.b"], ["a", "b"]),
        (["_orig_mod.a", "_orig_mod.b"], ["a", "b"]),
        (["module._orig_mod.a", "module._orig_mod.b"], ["a", "b"]),
        (["_orig_mod.module.a", "_orig_mod.module.b"], ["a", "b"]),
        (["layers.0._orig_mod.w", "head.w"], ["layers.0.w", "head.w"]),
        (["layers.0._checkpoint_wrapped_module.w", "head.w"], ["layers.0.w", "head.w"]),
        (["_fsdp_wrapped_module.a._fsdp_wrapped_module._checkpoint_wrapped_module.w"], ["a.w"]),
    ],
)
def test_stripped(names: list[str], expected: list[str]) -> None:
    found = unwrapped(checkpoint(*names))
    assert list(found.tensors) == expected
    changed = sum(old != new for old, new in zip(names, expected, strict=True))
    assert [f"from {changed} names" in line for line in found.warnings] == [True]
    assert found.origin(expected[0]) == names[0]


@pytest.mark.parametrize(
    "names",
    [
        ["module.a", "n_averaged"],
        ["model.a", "model.b"],
        ["module", "other"],
        ["modules.a", "module_list.b"],
        ["encoder.module.a", "encoder.module.b"],
        ["net.a", "net._orig_mod.a"],
    ],
)
def test_kept(names: list[str]) -> None:
    source = checkpoint(*names)
    assert unwrapped(source) is source


def test_what_goes_with_the_names() -> None:
    tensor = ArrayTensor.of(np.ones(1))
    state = OptimizerState(
        algorithm="sgd",
        step=None,
        groups=(ParameterGroup(parameters=("module.a",), hyperparameters={}),),
        slots={"momentum_buffer": {"module.a": tensor}},
    )
    found = unwrapped(checkpoint("module.a", aliases={"module.b": "module.a"}, optimizer=state))
    assert found.aliases == {"b": "a"}
    assert found.optimizer is not None
    assert found.optimizer.groups[0].parameters == ("a",)
    assert list(found.optimizer.slots["momentum_buffer"]) == ["a"]


def test_names_that_torch_gives() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2))
    expected = list(model.state_dict())
    compiled = torch.nn.DataParallel(torch.compile(model))
    assert list(unwrapped(checkpoint(*compiled.state_dict())).tensors) == expected
    inside = torch.nn.Sequential(torch.compile(model[0]), model[1])
    assert list(unwrapped(checkpoint(*inside.state_dict())).tensors) == expected
