"""Optimizers whose variables a file numbers, of classes that the tables of transformers say the order of."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import converter
from tests.oracle.environment import run
from tests.oracle.numbered_optimizers import CASES


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("numbered")
    run("tests.oracle.numbered_optimizers", str(folder), timeout_seconds=300)
    return folder


@pytest.mark.parametrize("name", CASES)
def test_each_slot_is_that_of_its_weight(name: str, folder: Path, tmp_path: Path) -> None:
    of_class = ["learning_rate=0.001", f"class_name={CASES[name][2]}"]
    told = [*of_class, "momentum=0.9"] if CASES[name][2] == "SGD" else of_class
    path = folder / f"{name}.weights.h5"
    report = converter.convert(path, tmp_path / "x.pth", config=folder / name, hyperparameter=tuple(told))
    assert (report.optimizer.status, report.optimizer.basis) == ("carried", "verified (order)")
    found = converter.read(tmp_path / "x.pth")
    assert found.optimizer is not None
    weights = {name: found.tensors[name].numpy() for name in found.tensors}
    with np.load(folder / f"{name}.npz") as arrays:
        count = sum("/" not in key for key in arrays)
        for index in range(count):
            (own,) = [each for each, held in weights.items() if _is_same(held, arrays[f"w{index}"])]
            for number, slot in enumerate(found.optimizer.slots.values()):
                assert _is_same(
                    slot[own].numpy(), arrays[f"w{index}/{number}"] * (-1000 if "momentum=0.9" in told else 1)
                )


def _is_same(ours: np.ndarray, theirs: np.ndarray) -> bool:
    """Whether one is the other, or what it is when turned over."""
    return any(
        ours.shape == each.shape and np.allclose(ours, each, rtol=1e-5, atol=1e-9) for each in (theirs, theirs.T)
    )
