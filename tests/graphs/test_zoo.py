"""A twelfth of the zoo, another with every seed; CKCONV_ORACLE_FULL=1 takes all of it."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.graphs import zoo_report
from tests.graphs.zoo import ZOO
from tests.graphs.zoo_report import SHARE, examine, part
from tests.slices import IS_FULL, SEED

pytestmark = pytest.mark.framework


def test_the_zoo_is_large_and_of_all_kinds() -> None:
    assert len(ZOO) >= 80
    assert len({model.model_type for model in ZOO}) >= 70
    assert len({model.architecture for model in ZOO}) == len(ZOO)
    assert all(model.why_not is None for model in ZOO)


def test_every_model_has_its_turn() -> None:
    found = [model.architecture for seed in range(SHARE) for model in part(seed)]
    assert sorted(found) == sorted(model.architecture for model in ZOO)


def test_a_process_that_dies_costs_one_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = """
import os, sys
from pathlib import Path
for name in sys.argv[2:]:
    if name == "bad":
        os.abort()
    (Path(sys.argv[1]) / name).mkdir()
    (Path(sys.argv[1]) / name / "half.json").write_text("{}")
"""
    package = tmp_path / "tests" / "graphs"
    package.mkdir(parents=True)
    (tmp_path / "tests" / "__init__.py").touch()
    (package / "zoo_half.py").write_text(program)
    monkeypatch.setattr(zoo_report, "ROOT", tmp_path)
    results = tmp_path / "results"
    results.mkdir()
    zoo_report.run_half("zoo_half", ["first", "bad", "last"], results)
    answers = {each.parent.name: json.loads(each.read_text()) for each in results.glob("*/half.json")}
    assert answers == {"first": {}, "bad": {"error": f"the process died ({-signal.SIGABRT})"}, "last": {}}


@pytest.mark.parametrize("models", [pytest.param(list(ZOO) if IS_FULL else part(SEED), id="zoo")])
def test_graphs_compute_what_torch_does(models: list, tmp_path: Path, tell: Callable[[str], None]) -> None:  # type: ignore[type-arg]
    results = examine(models, tmp_path)
    good = [each for each in results if each.is_good]
    left_out = "" if IS_FULL else f"; {len(ZOO) - len(models)} of {len(ZOO)} left out (CKCONV_ORACLE_FULL=1 takes all)"
    tell(f"zoo: {len(good)} of {len(models)} run in onnxruntime and as a SavedModel as in torch{left_out}")
    assert not {each.model.architecture: (each.onnx, each.saved_model) for each in results if not each.is_good}
