"""The targets' own loaders take whole what is converted: one class of `tests.oracle.loaders`, to what does not run.

`python -m tests.oracle.loaders` prints the table of all.
"""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.oracle import environment, loaders
from tests.slices import IS_FULL, SEED

pytestmark = [
    pytest.mark.one_in(3),
    pytest.mark.skipif(not environment.PYTHON, reason="CKCONV_ORACLE_PYTHON names no Python"),
]


def test_every_loader_takes_all_of_it(tmp_path: Path) -> None:
    names = loaders.CLASSES if IS_FULL else random.Random(SEED).sample(loaders.CLASSES, 1)
    targets = [each for each in loaders.FILES if IS_FULL or each not in loaders.RUN]
    assert loaders.problems(names, targets, tmp_path) == {}
