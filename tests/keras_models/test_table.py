"""A slice of the table of models that come with Keras has nothing refused and nothing wrong; each run takes another.

CKCONV_ORACLE_FULL=1 takes all that is recurrent and the small ones of keras.applications.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.keras_models.table import Cell, answers, cells, is_right
from tests.oracle.environment import PYTHON
from tests.slices import IS_FULL, SEED

pytestmark = [
    pytest.mark.framework,
    pytest.mark.skipif(not PYTHON, reason="needs the second environment (tests/oracle)"),
]
_SMALL = ("MobileNet", "MobileNetV2", "MobileNetV3Small")


def test_a_slice_is_right(tmp_path: Path, tell: Callable[[str], None]) -> None:
    everything = cells()
    short = [cell for cell in everything if "-" in cell.name or cell.name in _SMALL]
    names = sorted({(cell.framework, cell.name) for cell in short})
    assert len(names) >= 60
    drawn = names if IS_FULL else random.Random(SEED).sample(names, 1)
    wanted = [cell for cell in short if (cell.framework, cell.name) in drawn]
    tell(f"{len(wanted)} of {len(everything)} cells of the table of models that come with Keras")
    found: dict[Cell, str] = answers(wanted, tmp_path)
    assert {cell: said for cell, said in found.items() if not is_right(said)} == {}
