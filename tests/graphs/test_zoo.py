"""An eighth of the zoo, another with every seed; CKCONV_ORACLE_FULL=1 takes all of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.graphs.zoo import ZOO
from tests.graphs.zoo_report import SHARE, examine, part
from tests.oracle.environment import IS_FULL, SEED


def test_the_zoo_is_large_and_of_all_kinds() -> None:
    assert len(ZOO) >= 80
    assert len({model.model_type for model in ZOO}) >= 70
    assert len({model.architecture for model in ZOO}) == len(ZOO)
    assert sum(model.why_not is not None for model in ZOO) <= 2


def test_every_model_has_its_turn() -> None:
    found = [model.architecture for seed in range(SHARE) for model in part(seed)]
    assert sorted(found) == sorted(model.architecture for model in ZOO)


@pytest.mark.parametrize("models", [pytest.param(list(ZOO) if IS_FULL else part(SEED), id="zoo")])
def test_graphs_compute_what_torch_does(models: list, tmp_path: Path, tell: Callable[[str], None]) -> None:  # type: ignore[type-arg]
    results = examine(models, tmp_path)
    good = [each for each in results if each.is_good]
    left_out = "" if IS_FULL else f"; {len(ZOO) - len(models)} of {len(ZOO)} left out (CKCONV_ORACLE_FULL=1 takes all)"
    tell(f"zoo: {len(good)} of {len(models)} run in onnxruntime and as a SavedModel as in torch{left_out}")
    wrong = {
        each.model.architecture: (each.onnx, each.saved_model)
        for each in results
        if not each.is_good and each.model.why_not is None
    }
    assert not wrong
    surprising = [each.model.architecture for each in good if each.model.why_not is not None]
    assert not surprising, "the zoo says that these fail"
