"""A slice of the tables of migrations has no wrong cell: what is written computes what its source does, and trains on.

Each run takes a slice by CKCONV_ORACLE_SEED, or with CKCONV_ORACLE_FULL=1 every cell whose target needs no graph.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.migrations import training
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
_TIMES = 10
"""How many times the limit a run that forgets its optimizer's state is off at the least: the limit can fail."""

Cells = list[tuple[str, str]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where sources are made once for both tables."""
    return tmp_path_factory.mktemp("migrations")


def _said(cell: Cell) -> str:
    return f"{cell.source} -> {cell.target}: {cell}"


def _slice(cells_of: Callable[[list[str]], Cells]) -> Cells:
    """A group of each maker's, and cells of it by lot: making a group takes longer than converting it."""
    everything = cells_of(list(SOURCES))
    if IS_FULL:
        return everything
    drawn = set()
    for maker in _MAKERS:
        lot = random.Random(f"{SEED} {maker}")
        group = lot.choice(sorted({source.group for source in SOURCES.values() if source.maker == maker}))
        of_group = [name for name, source in SOURCES.items() if (source.maker, source.group) == (maker, group)]
        cells = cells_of(of_group)
        drawn |= set(lot.sample(cells, min(_OF_ONE_MAKER, len(cells))))
    return [cell for cell in everything if cell in drawn]


def _done(cache: Cache, cells: Cells, of: int, what: str, tell: Callable[[str], None]) -> list[Cell]:
    tell(f"{len(cells)} of {of} cells of the table of {what}")
    done = run(cache, cells, seconds=3000)
    for cell in done:
        tell(_said(cell))
    assert len(done) == len(cells)
    assert [_said(cell) for cell in done if cell.is_wrong] == []
    return done


def test_no_cell_is_wrong(folder: Path, tell: Callable[[str], None]) -> None:
    cells = _slice(lambda names: chosen(names, WEIGHTS_ALONE))
    done = _done(Cache(folder), cells, len(chosen(SOURCES, WEIGHTS_ALONE)), "migrations", tell)
    assert [_said(cell) for cell in done if cell.is_refused and rule_of(cell.tries[-1].said) is None] == []


def test_training_goes_on(folder: Path, tell: Callable[[str], None]) -> None:
    cache = Cache(folder, is_training=True)
    done = _done(cache, _slice(training.cells_of), len(training.cells_of(SOURCES)), "training", tell)
    assert [_said(cell) for cell in done if cell.is_refused] == []
    sources = {cell.source for cell in done}
    assert all(training.forgetful(cache.sources / source) > _TIMES * SOURCES[source].right for source in sources)
