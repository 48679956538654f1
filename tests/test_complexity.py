"""Functions that can be read at once, and files that can be found one's way in: bars that no change may cross.

Ruff's C901 counts branches alone; radon, after McCabe (1976), conditions of several parts too.
"""

from __future__ import annotations

from statistics import mean

import pytest

from tests.conftest import ROOT

_OF_A_FUNCTION, _ON_AVERAGE, _LINES = 20, 4.2, 500
_LONGER = {"encoding/pickle/machine.py", "model/tensor.py"}
"""Files that are one thing each, which parts would make harder to read."""

FILES = {path.relative_to(ROOT / "converter").as_posix(): path for path in sorted((ROOT / "converter").rglob("*.py"))}


def test_no_function_is_too_complex() -> None:
    visitors = pytest.importorskip("radon.complexity")
    found = {
        f"{name}: {block.fullname}": block.complexity
        for name, path in FILES.items()
        for block in visitors.cc_visit(path.read_text())
    }
    assert [name for name, complexity in found.items() if complexity > _OF_A_FUNCTION] == []
    assert mean(found.values()) <= _ON_AVERAGE


def test_no_file_is_too_long() -> None:
    lines = {name: path.read_text().count("\n") for name, path in FILES.items()}
    assert {name for name, count in lines.items() if count > _LINES} == _LONGER
