"""A checkpoint that is damaged is refused as ONNX, or the graph holds and computes what the class of PyTorch does.

The class is loaded from what `--to pretrained` takes of the same checkpoint: all of it, and nothing made up. Its
weights are in the graph bit for bit, and where all inputs are integers, onnxruntime computes what it does. A slice of
the damages, seeded by CKCONV_ORACLE_SEED; all of them with CKCONV_ORACLE_FULL=1.
"""

from __future__ import annotations

import copy
import random
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import transformers

import converter
from converter.errors import LossError, ReadError, UsageError
from tests.formats.damages import DAMAGES, Damage, models, saved
from tests.graphs.zoo import Model
from tests.slices import IS_FULL, SEED

_OF_A_PART = 3
_TOLERANCE = 1e-4
_TIMES_NOISE = 4


def _cases() -> list[tuple[Model, Damage | None]]:
    every = [(model, damage) for model in models() for damage in (None, *DAMAGES)]
    return every if IS_FULL else random.Random(SEED).sample(every, _OF_A_PART)


def _loaded(architecture: str, folder: Path) -> Any:
    """Return the class with the weights of a folder, which it takes without a complaint."""
    model, told = getattr(transformers, architecture).from_pretrained(folder, output_loading_info=True)
    assert {kind: found for kind, found in told.items() if found} == {}
    return model.eval()


def _arrays(session: Any) -> dict[str, np.ndarray[Any, Any]]:
    """Return what a model of texts takes."""
    random_ = np.random.default_rng(SEED)
    found = {}
    for each in session.get_inputs():
        shape = [7 if isinstance(extent, str) and "batch" not in extent else extent for extent in each.shape]
        shape = [2 if isinstance(extent, str) else extent for extent in shape]
        is_mask = "mask" in each.name
        found[each.name] = np.ones(shape, np.int64) if is_mask else random_.integers(3, 20, shape)
        if "token_type" in each.name:
            found[each.name] = np.zeros(shape, np.int64)
    return found


@pytest.mark.parametrize(
    ("model", "damage"), _cases(), ids=lambda each: getattr(each, "architecture", getattr(each, "__name__", "whole"))
)
def test_ok_is_said_of_a_graph_that_is_the_class(model: Model, damage: Damage | None, tmp_path: Path) -> None:
    source = saved(model.architecture, tmp_path / "in", damage)
    try:
        converter.convert(source, tmp_path / "x.onnx", durable=False)
    except (ReadError, UsageError, LossError):
        if damage is None:
            raise
        return
    converter.convert(source, tmp_path / "out", to="pretrained", durable=False)
    taken = _loaded(model.architecture, tmp_path / "out")
    session = onnxruntime.InferenceSession(tmp_path / "x.onnx", providers=["CPUExecutionProvider"])
    weights = converter.read(tmp_path / "out").tensors
    held = {each.name: onnx.numpy_helper.to_array(each) for each in onnx.load(tmp_path / "x.onnx").graph.initializer}
    lost = [name for name, tensor in weights.items() if name not in held]
    assert lost == []
    for name, tensor in weights.items():
        np.testing.assert_array_equal(held[name], tensor.numpy(), strict=True)
    if any("int64" not in each.type for each in session.get_inputs()):
        return
    arrays = _arrays(session)
    inputs = {name: torch.from_numpy(array) for name, array in arrays.items()}
    with torch.no_grad():
        expected = taken(**inputs)
    for output, array in zip(session.get_outputs(), session.run(None, arrays), strict=True):
        if output.name in expected and torch.is_tensor(expected[output.name]):
            difference = np.abs(array - expected[output.name].numpy()).max()
            assert difference <= _TOLERANCE or difference <= _TIMES_NOISE * _noise(taken, inputs, output.name)


def _noise(model: Any, inputs: dict[str, torch.Tensor], output: str) -> float:
    """Return how far single precision is off: of damaged weights a model may make large numbers."""
    with torch.no_grad():
        single = model(**inputs)[output]
        exact_model = copy.deepcopy(model).double()
        exact_model.config._experts_implementation = "eager"  # torch groups products of single precision alone
        exact = exact_model(**inputs)[output]
    return float((single - exact).abs().max())
