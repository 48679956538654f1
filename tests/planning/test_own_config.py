"""The config of transformers that training code saved in the file itself."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import converter
from converter.errors import ArchitectureError

torch = pytest.importorskip("torch")


@pytest.fixture
def inside(squad_bert: Path, tmp_path: Path) -> Path:
    held = torch.load(squad_bert, weights_only=True)
    config = json.loads((squad_bert.parent / "config.json").read_text())
    torch.save({**held, "config": config, "args": {"lr": 1e-3}}, tmp_path / "x.pth")
    return tmp_path / "x.pth"


@pytest.mark.parametrize("flavor", ["safetensors", "tf"])
def test_a_config_in_the_file_is_the_folders(inside: Path, squad_bert: Path, flavor: str, tmp_path: Path) -> None:
    report = converter.convert(inside, tmp_path / "out", to="pretrained", flavor=flavor)
    assert "config.json is what the file has under 'config'" in report.warnings
    assert not any(warning.startswith("config") and "not carried" in warning for warning in report.warnings)
    found = json.loads((tmp_path / "out" / "config.json").read_text())
    expected = json.loads((squad_bert.parent / "config.json").read_text())
    assert {key: found[key] for key in expected} == expected


def test_a_copy_has_it_where_it_was(inside: Path, tmp_path: Path) -> None:
    report = converter.convert(inside, tmp_path / "out.pth")
    assert torch.load(tmp_path / "out.pth", weights_only=True).keys() == torch.load(inside, weights_only=True).keys()
    assert not any("not carried" in warning for warning in report.warnings)


def test_one_beside_the_file_is_preferred_and_two_inside_are_none(inside: Path, tmp_path: Path) -> None:
    held = torch.load(inside, weights_only=True)
    torch.save({**held, "model_config": held["config"]}, tmp_path / "two.pth")
    with pytest.raises(ArchitectureError, match=r"needs a config\.json"):
        converter.convert(tmp_path / "two.pth", tmp_path / "two", to="pretrained")
    (tmp_path / "config.json").write_text(json.dumps({**held["config"], "own": 7}))
    converter.convert(inside, tmp_path / "out", to="pretrained")
    assert json.loads((tmp_path / "out" / "config.json").read_text())["own"] == 7
