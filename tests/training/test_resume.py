"""A run that stopped in one framework goes on in another on the same losses, and not if its moments are forgotten.

CKCONV_ORACLE_FULL=1 measures every cell, otherwise a part chosen by CKCONV_ORACLE_SEED: one of each algorithm in each
direction. Directions with tf_keras need the second environment (tests/oracle/environment.py).
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.oracle.environment import PYTHON
from tests.slices import IS_FULL, SEED
from tests.training.measuring import ALGORITHMS, DIRECTIONS, TF_KERAS, Cell, cells_of, measured

pytest.importorskip("torch")
pytest.importorskip("keras")

LOSS = {"adamw": 2e-5, "sgd": 2e-6, "rmsprop": 2e-5}
WEIGHT = {"adamw": 1e-5, "sgd": 1e-5, "rmsprop": 1e-4}
WEIGHT_OF_BERT = {"stock": 5e-3, "exact": 1e-5}
RESET = 10
"""How many times the limit of its losses a run that forgets its moments is off at the least: limits can fail."""


def chosen(source: str, target: str) -> list[Cell]:
    cells = cells_of(source, target)
    if IS_FULL:
        return cells
    kinds = list(dict.fromkeys(cell.kind for cell in cells))
    random.Random(f"{SEED} {source} {target}").shuffle(kinds)
    of = dict(zip(ALGORITHMS, kinds, strict=True))
    return [cell for cell in cells if of[cell.algorithm] == cell.kind]


def limit_of_weights(cell: Cell) -> float:
    if cell.kind in ("bert", "encoder") and cell.algorithm != "sgd":
        return WEIGHT_OF_BERT[cell.epsilon]
    return WEIGHT[cell.algorithm]


@pytest.mark.one_in(2)
@pytest.mark.parametrize(("source", "target"), [pair for pair in DIRECTIONS if PYTHON or TF_KERAS not in pair])
def test_training_goes_on(source: str, target: str, tmp_path: Path, tell: Callable[[str], None]) -> None:
    wrong = []
    for cell, figures in measured(chosen(source, target), tmp_path).items():
        tell(f"{cell}: {figures}")
        if figures.loss > LOSS[cell.algorithm] or figures.weight > limit_of_weights(cell):
            wrong.append((str(cell), figures))
        if figures.reset_loss < RESET * LOSS[cell.algorithm]:
            wrong.append((str(cell), "forgetting the moments is not seen", figures))
    assert not wrong
