"""The box holds by itself: hostile files are converted with the lists of what they may name switched off.

strace tells what happened. A part of each table, another with every seed; CKCONV_ORACLE_FULL=1 takes all.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import random
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from converter.box import landlock
from tests.conftest import ROOT
from tests.faults.traced import Account, trace
from tests.graphs.hostile_saved_models import KINDS
from tests.graphs.test_keras_config import HOSTILE, written
from tests.oracle.environment import IS_FULL, SEED

pytestmark = [
    pytest.mark.skipif(landlock.version() < 3, reason="this kernel has no Landlock 3: there is less of a box"),
    pytest.mark.usefixtures("without_lists"),
]
SHARE = 1
DEVICES = {Path("/dev/null")}


def part(names: Sequence[str]) -> list[str]:
    """Return those whose turn it is."""
    order = sorted(names)
    random.Random(20180611).shuffle(order)
    first = SEED * SHARE % len(order)
    return order if IS_FULL else (order * 2)[first : first + SHARE]


def more_keras_configs() -> dict[str, Any]:
    """Return the table of a module that may not be there."""
    if importlib.util.find_spec("tests.graphs.hostile_keras_configs") is None:
        return {}
    return dict(importlib.import_module("tests.graphs.hostile_keras_configs").HOSTILE)


MORE = more_keras_configs()


@pytest.fixture
def without_lists(monkeypatch: pytest.MonkeyPatch) -> None:
    """Switch off the lists in this program's children, and theirs."""
    from tests.faults import conversions

    path = os.pathsep.join(map(os.fspath, (ROOT / "tests" / "faults" / "without_lists", ROOT)))
    monkeypatch.setitem(conversions.OFFLINE_AND_QUIET, "PYTHONPATH", path)


@pytest.fixture(scope="module")
def saved_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("tensorflow")
    folder = tmp_path_factory.mktemp("hostile")
    command = [sys.executable, "-m", "tests.graphs.hostile_saved_models", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return folder


def converted(source: Path, folder: Path, to: str, *options: str) -> Account:
    """Convert under strace; hold what was done to what may be."""
    home = folder / "home"
    home.mkdir()
    target = folder / "out" / "target"
    target.parent.mkdir()
    command = [sys.executable, "-m", "converter", f"{source}", f"{target}", "--to", to, "--quiet", "--timeout", "100"]
    account = trace([*command, *options], folder / "log")
    assert account.closed >= 1, account.errors
    assert outside(account, target.parent) == []
    assert [line for line in account.sockets if "AF_UNIX" not in line] == []
    assert account.programs_after_closing == ()
    assert "Traceback" not in account.errors
    assert len(account.errors.splitlines()) <= 1, account.errors
    if account.code:
        assert os.listdir(target.parent) == []
    return account


def outside(account: Account, folder: Path) -> list[Path]:
    """Return what was opened for writing that is not staged in `folder`."""
    return [path for path in sorted(account.written - DEVICES) if not path.is_relative_to(folder)]


@pytest.mark.parametrize("kind", ["harmless", *part(list(KINDS))])
def test_saved_models(kind: str, saved_models: Path, tmp_path: Path) -> None:
    account = converted(saved_models / kind / "model", tmp_path, "savedmodel")
    if kind == "harmless":
        assert account.code == 0, account.errors
    assert not (saved_models / kind / "mark").exists()


@pytest.mark.parametrize("kind", [*part(list(HOSTILE)), *(part(list(MORE)) if MORE else [])])
def test_keras_configs(kind: str, tmp_path: Path) -> None:
    pytest.importorskip("tensorflow")
    if kind in HOSTILE:
        source = written(tmp_path, HOSTILE[kind])
    else:
        module = importlib.import_module("tests.graphs.hostile_keras_configs")
        values = module.config_of(module.FIXTURE)
        MORE[kind].change(values)
        source = module.write(tmp_path / "model.keras", values)
    assert converted(source, tmp_path, "savedmodel").code in (0, 2, 5, 7)


def _onnx() -> dict[str, Callable[[], Any]]:
    if importlib.util.find_spec("onnx") is None:
        return {}
    from tests.graphs import onnx_models

    return {"endless": onnx_models.endless, "growing": onnx_models.growing, "foreign": onnx_models.foreign}


ONNX = _onnx()


@pytest.mark.parametrize("kind", sorted(ONNX))
def test_onnx(kind: str, tmp_path: Path) -> None:
    from tests.graphs import onnx_models

    onnx_models.save(ONNX[kind](), tmp_path / "model.onnx")
    limit = ["--timeout", "20"] if kind == "endless" else []
    account = converted(tmp_path / "model.onnx", tmp_path, "onnx", *limit)
    assert account.code == 7
    if kind != "foreign":
        assert "reached its limit of " + {"endless": "time, 20 s", "growing": "memory"}[kind] in account.errors


def test_what_was_left_out(tell: Callable[[str], None]) -> None:
    tables = {"SavedModels": KINDS, "Keras configs": HOSTILE, "more Keras configs": MORE}
    counts = [
        f"{0 if IS_FULL else max(0, len(table) - SHARE)} of {len(table)} {name}" for name, table in tables.items()
    ]
    tell(f"the box alone: left out {', '.join(counts)} (CKCONV_ORACLE_FULL=1 takes all)")
