"""Which tests need a framework is told from what they, their fixtures and helpers import."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.tiers import ROOT, file_needs_one, function_needs_one

_FILE = """
from converter.model.tensor import ArrayTensor
from tests.{helper} import something

def plain(): return ArrayTensor
def direct(): import torch
def skipping(): pytest.importorskip("onnx")
def through(): return direct()
def elsewhere(): return something()
class Held:
    def method(self): import keras
def of_a_class(): return Held()
"""
_HELPER = "def something():\n    import tensorflow\ndef harmless(): pass\n"


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("tests.tiers.ROOT", tmp_path)
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "helper.py").write_text(_HELPER)
    path = tmp_path / "tests" / "test_x.py"
    path.write_text(_FILE.format(helper="helper"))
    return path


@pytest.mark.parametrize(
    ("name", "is_marked"),
    [
        ("plain", False),
        ("direct", True),
        ("skipping", True),
        ("through", True),
        ("elsewhere", True),
        ("of_a_class", True),
        ("unknown", False),
    ],
)
def test_a_function_is_marked_for_what_it_reaches(name: str, is_marked: bool, file: Path) -> None:
    assert function_needs_one(file, name) is is_marked


def test_a_file_is_left_out_where_it_could_not_be_imported(file: Path) -> None:
    assert not file_needs_one(file)
    heavy = file.with_name("test_heavy.py")
    heavy.write_text("from typing import TYPE_CHECKING\nimport torch.nn\n")
    typed = file.with_name("test_typed.py")
    typed.write_text("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import torch\n")
    through = file.with_name("test_through.py")
    through.write_text("from tests.test_heavy import x\n")
    assert [file_needs_one(each) for each in (heavy, typed, through)] == [True, False, True]


def test_what_runs_for_minutes_is_left_out() -> None:
    assert file_needs_one(ROOT / "tests" / "oracle" / "test_tables.py")
    assert file_needs_one(ROOT / "tests" / "faults" / "test_kill.py")
    assert not file_needs_one(ROOT / "tests" / "model" / "test_tensor.py")
