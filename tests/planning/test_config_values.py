"""A config.json without a model type: what says so, and the option that adds it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import converter
from converter.errors import ArchitectureError, CkconvError, UsageError

HEADS = "num_attention_heads=2"


@pytest.fixture
def nameless(squad_bert: Path, tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text(json.dumps({"model_name": "bert-base-uncased", "epochs": 3}))
    (tmp_path / "x.pth").symlink_to(squad_bert.absolute())
    return tmp_path / "x.pth"


@pytest.mark.parametrize(
    ("dst", "options"),
    [
        ("out", {"to": "pretrained"}),
        ("out", {"to": "pretrained", "flavor": "tf"}),
        ("out.h5", {}),
        ("out", {"to": "pretrained", "config_value": [HEADS]}),
    ],
)
def test_a_missing_model_type_is_said_with_the_option_that_adds_it(
    nameless: Path, dst: str, options: dict[str, Any]
) -> None:
    with pytest.raises(CkconvError, match=r"config\.json has no model_type.*--config-value model_type=bert"):
        converter.convert(nameless, nameless.parent / dst, **options)


@pytest.mark.parametrize("flavor", ["safetensors", "tf"])
def test_the_option_adds_it(nameless: Path, flavor: str) -> None:
    out = nameless.parent / "out"
    with pytest.raises(ArchitectureError, match="num_attention_heads, which no tensor tells"):
        converter.convert(nameless, out, to="pretrained", flavor=flavor, config_value=["model_type=bert"])
    converter.convert(nameless, out, to="pretrained", flavor=flavor, config_value=["model_type=bert", HEADS])
    config = json.loads((out / "config.json").read_text())
    assert config["model_type"] == "bert"
    assert config["epochs"] == 3


def test_names_of_a_file_follow_the_type(nameless: Path) -> None:
    """An .h5 has no config, and needs none of what no tensor tells."""
    converter.convert(nameless, nameless.parent / "out.h5", config_value=["model_type=bert"])
    names = converter.read(nameless.parent / "out.h5").tensors
    assert all(name.startswith("tf_bert_for_question_answering/") for name in names)


@pytest.mark.parametrize(
    ("said", "told"),
    [("electra", "cannot change model_type"), (None, "no table knows the model type 'bertt'")],
)
def test_a_type_is_added_and_not_changed(nameless: Path, said: str | None, told: str) -> None:
    values = {} if said is None else {"model_type": said}
    (nameless.parent / "config.json").write_text(json.dumps(values))
    with pytest.raises(UsageError, match=told):
        converter.convert(nameless, nameless.parent / "out", to="pretrained", config_value=["model_type=bertt"])
