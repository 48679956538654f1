"""Three further steps after a conversion, beside three without one: `python -m tests.migrations.training`.

A cell is how far the outputs are off in the framework that goes on; `forgetful` how far they are when the optimizer's
state is forgotten.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np

from tests.migrations.running import Cache, Cell, run
from tests.migrations.sources import SOURCES
from tests.oracle import environment

COLUMNS = ("pytorch", "h5", "keras", "tf")


def cells_of(sources: Iterable[str]) -> list[tuple[str, str]]:
    return [(source, target) for target in COLUMNS for source in sources if target in SOURCES[source].trains_in]


def forgetful(folder: Path) -> float:
    """How far the outputs of a source are off that forgets its optimizer's state."""
    with np.load(folder / "after.npz") as arrays:
        names = [name.removeprefix("forgetful:") for name in arrays if name.startswith("forgetful:")]
        return max(float(np.abs(arrays[f"out:{name}"] - arrays[f"forgetful:{name}"]).max()) for name in names)


def table(cells: Mapping[tuple[str, str], Cell], sources: Iterable[str], cache: Cache) -> str:
    """Every cell in Markdown."""
    lines = [f"| source | {' | '.join(COLUMNS)} | forgetful |", "|---" * (len(COLUMNS) + 2) + "|"]
    notes = []
    for source in sources:
        row = []
        for target in COLUMNS:
            cell = cells.get((source, target))
            text = "" if target not in SOURCES[source].trains_in else "." if cell is None else str(cell)
            if cell is not None and (cell.is_refused or cell.wrong is not None):
                notes.append(text)
                text = f"{text.partition(':')[0]} [{len(notes)}]"
            row.append(text)
        lines.append(f"| {source} | {' | '.join(row)} | {forgetful(cache.sources / source):.1e} |")
    return "\n".join([*lines, "", *(f"[{number}] {note}" for number, note in enumerate(notes, 1))])


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.migrations.training", description=__doc__)
    parser.add_argument("--cache", type=Path, default=Path("migrations-cache"))
    parser.add_argument("--sources", nargs="*", default=["*"], help="names or patterns")
    parser.add_argument("--again", action="store_true")
    given = parser.parse_args()
    if not environment.PYTHON:
        parser.error("CKCONV_ORACLE_PYTHON names no second environment (tests/oracle/environment.py)")
    cache = Cache(given.cache, is_training=True)
    sources = [name for name, source in SOURCES.items() if source.trains_in]
    sources = [name for name in sources if any(fnmatchcase(name, each) for each in given.sources)]
    known = {} if given.again else cache.cells()
    for cell in run(cache, [each for each in cells_of(sources) if each not in known], 1e9):
        known[cell.source, cell.target] = cell
    print(table(known, sources, cache))


if __name__ == "__main__":
    main()
