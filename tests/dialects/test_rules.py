"""Name rules read both ways, and a table that could be read two ways is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import converter
from converter.dialects.rules import Rule, RuleTable
from converter.errors import LossError, UsageError
from converter.model.checkpoint import Checkpoint
from converter.model.tensor import ArrayTensor

LAYER = Rule(left="enc.{n}.w", right="model.layers.{n}.attention.weight", layout="transpose")
REST = Rule(left="rest.{path*}", right="other.{path*}")


def test_a_rule_inverts() -> None:
    assert LAYER.forward("enc.12.w") == "model.layers.12.attention.weight"
    assert LAYER.backward("model.layers.12.attention.weight") == "enc.12.w"
    assert REST.forward("rest.a.b.c") == "other.a.b.c"
    for name in ("enc.1.2.w", "xenc.1.w", "enc.1.w.x", "encX1.w"):
        assert LAYER.forward(name) is None


@pytest.mark.parametrize(
    ("left", "right"), [("a.{n}", "b"), ("a.{n}", "b.{m}"), ("a.{n}.{n}", "b.{n}.{n}"), ("a.{n}", "b.{n*}")]
)
def test_sides_need_the_same_placeholders(left: str, right: str) -> None:
    with pytest.raises(UsageError, match="same placeholders"):
        Rule(left=left, right=right)


def checkpoint(*names: str) -> Checkpoint:
    tensors = {name: ArrayTensor.of(np.arange(6, dtype=np.float32).reshape(2, 3)) for name in names}
    return Checkpoint(tensors=tensors)


def test_a_table_goes_there_and_back() -> None:
    table = RuleTable(rules=(LAYER, REST))
    source = checkpoint("enc.0.w", "rest.x", "untouched")
    direction = table.direction_of(source.names)
    there = table.apply(source, direction)
    assert list(there.tensors) == ["model.layers.0.attention.weight", "other.x", "untouched"]
    assert there.tensors["model.layers.0.attention.weight"].shape == (3, 2)
    assert there.origin("other.x") == "rest.x"
    back = table.apply(there, table.direction_of(there.names))
    assert list(back.tensors) == list(source.tensors)
    assert back.tensors["enc.0.w"] is source.tensors["enc.0.w"]


def test_what_could_be_read_two_ways_is_refused() -> None:
    overlapping = RuleTable(rules=(Rule(left="a.{n}", right="b.{n}"), Rule(left="a.x", right="c")))
    assert overlapping.apply(checkpoint("a.y"), "forward").names == ("b.y",)
    with pytest.raises(LossError, match="several rules"):
        overlapping.apply(checkpoint("a.x"), "forward")
    with pytest.raises(LossError, match="would both be named"):
        RuleTable(rules=(Rule(left="a", right="b"),)).apply(checkpoint("a", "b"), "forward")
    with pytest.raises(UsageError, match="neither side"):
        RuleTable(rules=(LAYER,)).direction_of(["x"])
    with pytest.raises(UsageError, match="both sides"):
        RuleTable(rules=(Rule(left="{x*}", right="{x*}"),)).direction_of(["x"])


def test_a_users_mapping_file(tmp_path: Path) -> None:
    rules = {"rules": [{"from": LAYER.left, "to": LAYER.right, "layout": "transpose"}, {"from": "gone", "to": "none"}]}
    (tmp_path / "mapping.json").write_text(json.dumps(rules))
    converter.write(checkpoint("enc.0.w", "untouched"), tmp_path / "x.safetensors")
    report = converter.convert(
        tmp_path / "x.safetensors", tmp_path / "y.safetensors", mapping=tmp_path / "mapping.json"
    )
    assert {line.name: line.target for line in report.lines} == {
        "enc.0.w": "model.layers.0.attention.weight",
        "untouched": "untouched",
    }
    assert any("gone" in warning for warning in report.warnings)
    converter.convert(tmp_path / "y.safetensors", tmp_path / "z.safetensors", mapping=tmp_path / "mapping.json")
    back = converter.read(tmp_path / "z.safetensors")
    np.testing.assert_array_equal(back.tensors["enc.0.w"].numpy(), np.arange(6).reshape(2, 3))
    (tmp_path / "mapping.json").write_text('{"rules": [{"from": "a"}]}')
    with pytest.raises(UsageError, match=r"mapping\.json"):
        converter.convert(tmp_path / "x.safetensors", tmp_path / "w.safetensors", mapping=tmp_path / "mapping.json")
