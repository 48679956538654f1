"""What a plan puts together of its parts: warnings of all of them, and which graph its settings go by. No framework."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converter.errors import UsageError
from converter.execution.resume import Earlier
from converter.execution.workshop import LocalWorkshop
from converter.model.checkpoint import Checkpoint, Config, Dialect
from converter.model.output import Provenance
from converter.model.tensor import ArrayTensor
from converter.options import Options
from converter.planning import Plan, Source, Target, plan

LAYERS = [{"class_name": "Dense", "config": {"name": "d", "units": 3, "activation": "relu"}}]
KERAS = Checkpoint(
    tensors={"d/kernel": ArrayTensor.of(np.ones((2, 3), np.float32)), "d/bias": ArrayTensor.of(np.ones(3, np.float32))},
    keras_config=Config(values={"class_name": "Sequential", "config": {"name": "m", "layers": LAYERS}}, raw=b"{}"),
    dialect=Dialect.KERAS,
    warnings=("of the source",),
)


def planned(folder: Path, to: str, source: Checkpoint = KERAS, *, notes: tuple[str, ...] = (), **options: Any) -> Plan:
    given = Options(**options)
    target = Target.of(folder / "out", to, given).with_options({})
    workshop = LocalWorkshop(folder=folder, scratch=folder, earlier=Earlier(notes=notes))
    provenance = Provenance(tool="ckconv", source_name="x", source_hash=lambda: "")
    return plan(Source(checkpoint=source, path=None, format="keras"), target, given, workshop, provenance)


def test_a_report_has_what_every_part_says(tmp_path: Path) -> None:
    config = Config(values={"model_type": "none"}, raw=b"{}")
    made = planned(
        tmp_path, "safetensors", replace(KERAS, config=config), notes=("of an earlier attempt",), dry_run=True
    )
    assert made.report.warnings[0] == "of the source"
    said = "config.json, keras_config.json not carried: the output is one file; end DST with / for a folder"
    assert said in made.report.warnings
    assert made.report.warnings[-1] == "of an earlier attempt"
    assert (made.report.is_dry_run, made.report.source_format, made.report.target_format) == (
        True,
        "keras",
        "safetensors",
    )
    assert made.report.nbytes == made.output.nbytes
    assert made.report.counts == {"mapped": 2, "tied": 0, "dropped": 0, "defaulted": 0}
    assert [each.layer for each in made.report.settings] == ["d"]


def test_the_settings_of_a_config_are_said_where_the_graph_is_not_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = sys.modules[plan.__module__]
    monkeypatch.setattr(module, "require", lambda *_: None)
    monkeypatch.setattr(module, "with_graph", lambda given, *_: given)
    own = {"model": "package:factory", "inputs": "x:float32[n]"}
    for options, is_said in (({}, False), (own, True), ({"weights_only": True}, True)):
        made = planned(tmp_path, "savedmodel", **options)
        assert (made.report.settings != ()) == is_said
        assert any("ReLU" in each for each in made.report.warnings) == is_said


def test_inputs_are_a_file_that_is_there_and_for_a_target_that_runs(tmp_path: Path) -> None:
    data = tmp_path / "x.npz"
    with pytest.raises(UsageError, match="--inputs: no such file") as caught:
        planned(tmp_path, "safetensors", inputs=str(data))
    assert caught.value.path == str(data)
    data.touch()
    for to, options in (("safetensors", {}), ("savedmodel", {"weights_only": True})):
        with pytest.raises(UsageError, match="needs a target that runs"):
            planned(tmp_path, to, inputs=str(data), **options)


def test_a_plan_says_which_of_several_files_is_its_main_one(tmp_path: Path) -> None:
    one, folder = planned(tmp_path, "safetensors"), planned(tmp_path, "dcp")
    assert (one.main_file, folder.main_file) == ("model.safetensors", None)
    assert (one.staged(tmp_path), folder.staged(tmp_path)) == (tmp_path / "model.safetensors", tmp_path)
