"""The box holds by itself: hostile files are converted and run with the lists of what they may name switched off.

strace tells what happened. A part of each table, another with every seed; CKCONV_ORACLE_FULL=1 takes all.

What is demanded: nothing but staging and /dev/null is opened for writing, no socket but of AF_UNIX, no program run once
a box is closed. What the box *refuses* is counted apart and is no fault here: without the lists, that hostile files try
is what they are for, and each test says how many things were tried that a harmless model does not bring about. With the
lists on, nothing of the kind may be: tests.graphs.test_hostile_keras_configs holds mutants to what valid models try.
"""

from __future__ import annotations

import importlib.util
import os
import random
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from converter.box import landlock
from tests.conftest import ROOT
from tests.faults.several import RUN, Ended, treated
from tests.faults.traced import Account, trace
from tests.graphs import hostile_keras_configs, test_keras_config
from tests.graphs.armed_graph_defs import arm
from tests.graphs.hostile_graph_defs import CASES, Case, plant
from tests.graphs.hostile_saved_models import KINDS
from tests.slices import IS_FULL, SEED

pytestmark = [
    pytest.mark.one_in(2),
    pytest.mark.skipif(landlock.version() < 3, reason="this kernel has no Landlock 3: there is less of a box"),
    pytest.mark.usefixtures("without_lists"),
]
PLANTED = {f"{case.operator}-{way}": replace(case, way=way) for case in CASES for way in (case.way, "control")}
CONFIGS = [*test_keras_config.HOSTILE, *hostile_keras_configs.HOSTILE]


def part(names: Sequence[str], share: int = 1) -> list[str]:
    """Return those whose turn it is."""
    order = sorted(names)
    random.Random(20180611).shuffle(order)
    first = SEED * share % len(order)
    return order if IS_FULL else (order * 2)[first : first + share]


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
    target = folder / "out" / "target"
    target.parent.mkdir(parents=True)
    command = [sys.executable, "-m", "converter", f"{source}", f"{target}", "--to", to, "--quiet", "--timeout", "100"]
    account = trace([*command, *options], folder / "log", is_refused_asked=False)
    account.assert_nothing_outside(target.parent)
    assert "Traceback" not in account.errors
    assert len(account.errors.splitlines()) <= 1, account.errors
    if account.code:
        assert os.listdir(target.parent) == []
    return account


def test_saved_models_are_converted(saved_models: Path, tmp_path: Path) -> None:
    assert converted(saved_models / "harmless" / "model", tmp_path / "harmless", "savedmodel").code == 0
    for kind in part(list(KINDS)):
        converted(saved_models / kind / "model", tmp_path / kind, "savedmodel")
        assert not (saved_models / kind / "mark").exists()


def test_saved_models_are_run(saved_models: Path, tmp_path: Path, tell: Callable[[str], None]) -> None:
    """In the child that compares outputs: TensorFlow gets them whole, and does what they say as far as it can."""
    harmless = [saved_models / kind / "model" for kind in ("harmless", "tensorflow-1")]
    usual, ended = treated(RUN, harmless, tmp_path / "usual")
    assert [(each.code, each.said) for each in ended] == [(0, ""), (0, "")]
    kinds = [saved_models / kind / "model" for kind in part(list(KINDS))]
    marks = tmp_path / "marks"
    marks.mkdir()
    planted = [
        planted_into(harmless[1], PLANTED[name], tmp_path / name, marks / PLANTED[name].operator)
        for name in part(list(PLANTED), 2)
    ]
    account, ended = treated(RUN, [*kinds, *planted], tmp_path / "run")
    assert list(marks.iterdir()) == []
    assert list(saved_models.glob("*/mark*")) == []
    tell(said("hostile SavedModels run in the box alone", ended, account, usual))


def planted_into(model: Path, case: Case, folder: Path, mark: Path) -> Path:
    """Write a SavedModel with a planted operator that TensorFlow can run; what it would write is a mark."""
    from tensorflow.core.protobuf import saved_model_pb2

    shutil.copytree(model, folder)
    saved = saved_model_pb2.SavedModel.FromString((model / "saved_model.pb").read_bytes())
    plant(saved.meta_graphs[0], case, is_reached=True)
    arm(saved.meta_graphs[0], case, os.fspath(mark))
    (folder / "saved_model.pb").write_bytes(saved.SerializeToString())
    return folder


def said(what: str, ended: list[Ended], account: Account, usual: Account) -> str:
    codes = Counter(each.code for each in ended)
    tried = sorted(account.refused - usual.refused)
    return (
        f"{what}: {len(ended)}, exit codes {dict(codes)}, {account.closed} boxes closed; refused by the box, and tried "
        f"by no harmless one: {len(tried)} {tried}"
    )


def test_keras_configs(tmp_path: Path, tell: Callable[[str], None]) -> None:
    pytest.importorskip("tensorflow")
    usual, ended = treated("onnx", [hostile_keras_configs.FIXTURE], tmp_path / "usual", verify="weights")
    assert ended[0].code == 0
    sources = []
    for number, kind in enumerate(part([f"{number} {kind}" for number, kind in enumerate(CONFIGS)], 3)):
        place, name = kind.split(maxsplit=1)
        is_first = int(place) < len(test_keras_config.HOSTILE)
        values = hostile_keras_configs.config_of(hostile_keras_configs.FIXTURE)
        (test_keras_config.HOSTILE[name] if is_first else hostile_keras_configs.HOSTILE[name].change)(values)
        sources.append(hostile_keras_configs.write(tmp_path / f"{number}-{name}.keras", values))
    account, ended = treated("onnx", sources, tmp_path / "run", verify="weights")
    assert [each for each in ended if each.code not in (0, 2, 5, 7)] == []
    tell(said("hostile Keras configs built in the box alone", ended, account, usual))


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
    shares = {"SavedModels": (KINDS, 1), "planted operators": (PLANTED, 2), "Keras configs": (CONFIGS, 3)}
    counts = [
        f"{0 if IS_FULL else len(table) - share} of {len(table)} {name}" for name, (table, share) in shares.items()
    ]
    tell(f"the box alone: left out {', '.join(counts)} (CKCONV_ORACLE_FULL=1 takes all)")
