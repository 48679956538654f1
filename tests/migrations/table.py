"""The table of migrations: `python -m tests.migrations.table [--cache DIR] [--sources S ...] [--targets T ...]`.

Cells that the cache has are not run again, unless --again asks for it. `--seed N --count M` draws M of the cells, and
says how many were left out.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from pathlib import Path

from tests.migrations.rules import rule_of
from tests.migrations.running import Cache, Cell, chosen, run
from tests.migrations.sources import SOURCES, TARGETS
from tests.oracle import environment


def table(cells: Mapping[tuple[str, str], Cell], sources: Iterable[str] = SOURCES) -> str:
    """Every cell in Markdown: the largest difference, or the number of the line that says what is wrong or refused."""
    lines = [f"| source | {' | '.join(TARGETS)} |", "|---" * (len(TARGETS) + 1) + "|"]
    notes: dict[str, int] = {}
    for source in sources:
        row = []
        for target in TARGETS:
            cell = cells.get((source, target))
            text = "." if cell is None else str(cell)
            kind, _, rest = text.partition(": ")
            if rest and not rest[0].isdigit():
                text = f"{kind} [{notes.setdefault(rest, len(notes) + 1)}]"
            row.append(text)
        lines.append(f"| {source} | {' | '.join(row)} |")
    return "\n".join([*lines, "", *(f"[{number}]{_rule(note)} {note}" for note, number in notes.items())])


def _rule(note: str) -> str:
    rule = rule_of(note)
    return "" if rule is None else f" ({rule})"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.migrations.table", description=__doc__)
    parser.add_argument("--cache", type=Path, default=Path("migrations-cache"))
    parser.add_argument("--sources", nargs="*", default=["*"], help="names or patterns")
    parser.add_argument("--targets", nargs="*", default=list(TARGETS), choices=TARGETS)
    parser.add_argument("--seconds", type=float, default=1e9)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--count", type=int, default=12)
    parser.add_argument("--again", action="store_true")
    given = parser.parse_args()
    if not environment.PYTHON:
        parser.error("CKCONV_ORACLE_PYTHON names no second environment (tests/oracle/environment.py)")
    cache = Cache(given.cache)
    sources = [name for name in SOURCES if any(fnmatchcase(name, each) for each in given.sources)]
    cells = chosen(sources, given.targets)
    if given.seed is not None:
        drawn = set(random.Random(given.seed).sample(cells, min(given.count, len(cells))))
        print(f"{len(drawn)} of {len(cells)} cells, left out: {len(cells) - len(drawn)}")
        cells = [cell for cell in cells if cell in drawn]
    known = {} if given.again else cache.cells()
    run(cache, [cell for cell in cells if cell not in known], given.seconds)
    found = cache.cells()
    print(table(found, sources))
    wrong = sum(cell.is_wrong for cell in found.values())
    refused = sum(cell.is_refused for cell in found.values())
    print(f"\n{len(found)} cells: {len(found) - wrong - refused} right, {refused} refused, {wrong} wrong")


if __name__ == "__main__":
    main()
