"""What a folder calls its configs: config.json is of transformers, as who opens a folder by it thinks, not of Keras."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

import converter
from converter.errors import ArchitectureError, CkconvError, LossError
from converter.formats import written
from tests.conftest import ROOT

FIXTURES = ROOT / "fixtures"
KERAS = FIXTURES / "keras" / "model.keras"
WRAPPED = FIXTURES / "keras-encoders" / "numbers.keras"
KERAS_CONFIG = "keras_config.json"


def configs(folder: Path) -> dict[str, dict[str, object]]:
    return {path.name: json.loads(path.read_bytes()) for path in folder.rglob("*config.json")}


@pytest.mark.parametrize("source", [KERAS, WRAPPED], ids=["keras", "wrapped"])
@pytest.mark.parametrize("target", sorted(written()))
def test_a_config_of_keras_has_a_name_of_its_own(source: Path, target: str, tmp_path: Path) -> None:
    beside = converter.read(source)
    assert beside.keras_config is not None
    try:
        report = converter.convert(source, f"{tmp_path / 'out'}/", to=target, weights_only=True, allow_dropped=("*",))
    except (ArchitectureError, LossError):
        assert (source, target) in ((KERAS, "pretrained"), (WRAPPED, "h5"))
        return
    found = configs(tmp_path / "out")
    assert found.pop("config.json", {"model_type": "bert"})["model_type"] == "bert"
    if target not in ("h5", "keras", "pretrained"):  # which have it in their file, or have no use for it
        assert found.pop(KERAS_CONFIG) == beside.keras_config.values
        assert not any("keras_config" in warning for warning in report.warnings)
    assert found == {}


@pytest.mark.parametrize("target", ["dcp", "tf-checkpoint", "savedmodel", "pytorch", "safetensors"])
def test_it_is_read_back_from_where_it_is(target: str, tmp_path: Path) -> None:
    converter.convert(KERAS, f"{tmp_path / 'out'}/", to=target, weights_only=True)
    read = converter.read(tmp_path / "out")
    expected = converter.read(KERAS).keras_config
    assert expected is not None
    assert (read.config, read.keras_config) == (None, expected)
    converter.convert(tmp_path / "out", tmp_path / "again", to="dcp")
    assert configs(tmp_path / "again") == {KERAS_CONFIG: expected.values}
    converter.convert(tmp_path / "out", tmp_path / "again", to="dcp", overwrite=True)


def test_one_file_has_no_place_for_it_and_says_so(tmp_path: Path) -> None:
    report = converter.convert(KERAS, tmp_path / "out.pth")
    assert any(warning.startswith(f"{KERAS_CONFIG} not carried") for warning in report.warnings)


def test_a_config_of_keras_that_is_called_config_is_still_one(tmp_path: Path) -> None:
    converter.convert(KERAS, f"{tmp_path / 'out'}/", to="dcp")
    shutil.move(tmp_path / "out" / KERAS_CONFIG, tmp_path / "out" / "config.json")
    assert converter.read(tmp_path / "out").keras_config == converter.read(KERAS).keras_config


def test_one_that_is_no_json_is_an_error(tmp_path: Path) -> None:
    converter.convert(KERAS, f"{tmp_path / 'out'}/", to="dcp")
    converter.read(tmp_path / "out")
    (tmp_path / "out" / KERAS_CONFIG).write_text("{")
    with pytest.raises(CkconvError, match=r"keras_config.json"):
        converter.read(tmp_path / "out")
