"""A slice of the table of migrations has no wrong cell: what is written opens and computes what its source does.

Each run takes a slice by CKCONV_ORACLE_SEED, or with CKCONV_ORACLE_FULL=1 every cell whose target needs no graph.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.migrations.rules import rule_of
from tests.migrations.running import Cache, Cell, chosen, run
from tests.migrations.sources import SOURCES, WEIGHTS_ALONE
from tests.oracle.environment import PYTHON
from tests.slices import IS_FULL, SEED

pytestmark = [
    pytest.mark.framework,
    pytest.mark.skipif(not PYTHON, reason="needs the second environment (tests/oracle)"),
]
_MAKERS = ("tensorflow", "torch", "keras3")
_OF_ONE_MAKER = 4


def _said(cell: Cell) -> str:
    return f"{cell.source} -> {cell.target}: {cell}"


def _slice() -> list[tuple[str, str]]:
    """A group of each maker's, and cells of it by lot: making a group takes longer than converting it."""
    if IS_FULL:
        return chosen(SOURCES, WEIGHTS_ALONE)
    lot = random.Random(SEED)
    drawn = set()
    for maker in _MAKERS:
        group = lot.choice(sorted({source.group for source in SOURCES.values() if source.maker == maker}))
        of_group = [name for name, source in SOURCES.items() if (source.maker, source.group) == (maker, group)]
        cells = chosen(of_group, WEIGHTS_ALONE)
        drawn |= set(lot.sample(cells, min(_OF_ONE_MAKER, len(cells))))
    return [cell for cell in chosen(SOURCES, WEIGHTS_ALONE) if cell in drawn]


def test_no_cell_is_wrong(tmp_path: Path, tell: Callable[[str], None]) -> None:
    cells = _slice()
    tell(f"{len(cells)} of {len(chosen(SOURCES, WEIGHTS_ALONE))} cells of the table of migrations")
    done = run(Cache(tmp_path), cells, seconds=3000)
    for cell in done:
        tell(_said(cell))
    assert len(done) == len(cells)
    assert [_said(cell) for cell in done if cell.is_refused and rule_of(cell.tries[-1].said) is None] == []
    assert [_said(cell) for cell in done if cell.is_wrong] == []
