"""Name rules read both ways, and a table that could be read two ways is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import converter
from converter.dialects.names.operations import Reverse, Split, TwoWay, Unstack, applied, parse
from converter.dialects.names.rules import Names, Rule, RuleTable
from converter.errors import LossError, ReadError, UsageError
from converter.model.checkpoint import Checkpoint
from converter.model.optimizer import OptimizerState, ParameterGroup
from converter.model.tensor import ArrayTensor
from converter.testing import assert_same

LAYER = Rule(("enc.{n}.w",), ("model.layers.{n}.attention.weight",), (Reverse(),))
REST = Rule(("rest.{path*}",), ("other.{path*}",))
FUSED = Rule(("h.{n}.qkv",), ("h.{n}.q", "h.{n}.k", "h.{n}.v"), (Reverse(), Split(0, (2, 1, 1))))


def test_a_rule_inverts() -> None:
    both = Names(before=("enc.12.w",), after=("model.layers.12.attention.weight",))
    assert LAYER.names("enc.12.w", is_forward=True) == both
    assert LAYER.names("model.layers.12.attention.weight", is_forward=False) == Names(
        before=both.after, after=both.before
    )
    rest = REST.names("rest.a.b.c", is_forward=True)
    assert rest is not None
    assert rest.after == ("other.a.b.c",)
    for name in ("enc.1.2.w", "xenc.1.w", "enc.1.w.x", "encX1.w"):
        assert LAYER.names(name, is_forward=True) is None
    assert FUSED.names("h.3.k", is_forward=False) == Names(before=("h.3.q", "h.3.k", "h.3.v"), after=("h.3.qkv",))


@pytest.mark.parametrize(
    ("left", "right"), [("a.{n}", "b"), ("a.{n}", "b.{m}"), ("a.{n}.{n}", "b.{n}.{n}"), ("a.{n}", "b.{n*}")]
)
def test_sides_need_the_same_placeholders(left: str, right: str) -> None:
    with pytest.raises(UsageError, match="same placeholders"):
        Rule((left,), (right,))
    with pytest.raises(UsageError, match="same placeholders"):
        Rule((left,), (left, right), (Unstack(0, 2),))


@pytest.mark.parametrize(
    ("left", "right", "operations", "why"),
    [
        (("a", "b"), ("c", "d"), (), "one side has one name"),
        (("a",), (), (), "one side has one name"),
        (("a",), ("b", "c"), (), "makes 1 tensors, and there are names for 2"),
        (("a",), ("b", "c"), (Split(0, (1, 1, 1)),), "makes 3 tensors, and there are names for 2"),
        (("a", "b"), ("c",), (Split(0, (1, 1)),), "takes 1 tensors, and there are 2"),
        (("a",), ("b", "c"), (Unstack(0, 2), Split(0, (1, 1))), "takes 1 tensors, and there are 2"),
    ],
)
def test_operations_make_as_many_tensors_as_there_are_names(
    left: tuple[str, ...], right: tuple[str, ...], operations: tuple[TwoWay, ...], why: str
) -> None:
    with pytest.raises(UsageError, match=why):
        Rule(left, right, operations)


def checkpoint(*names: str) -> Checkpoint:
    tensors = {name: ArrayTensor.of(np.arange(6, dtype=np.float32).reshape(2, 3)) for name in names}
    return Checkpoint(tensors=tensors)


def test_a_table_goes_there_and_back() -> None:
    table = RuleTable(rules=(LAYER, REST))
    source = checkpoint("enc.0.w", "rest.x", "untouched")
    there = table.apply(source, is_forward=table.is_forward(source.names))
    assert list(there.tensors) == ["model.layers.0.attention.weight", "other.x", "untouched"]
    assert there.tensors["model.layers.0.attention.weight"].shape == (3, 2)
    assert there.origin("other.x") == "rest.x"
    back = table.apply(there, is_forward=table.is_forward(there.names))
    assert list(back.tensors) == list(source.tensors)
    assert back.tensors["enc.0.w"] is source.tensors["enc.0.w"]


def test_what_could_be_read_two_ways_is_refused() -> None:
    overlapping = RuleTable(rules=(Rule(("a.{n}",), ("b.{n}",)), Rule(("a.x",), ("c",))))
    assert overlapping.apply(checkpoint("a.y"), is_forward=True).names == ("b.y",)
    with pytest.raises(LossError, match="several rules"):
        overlapping.apply(checkpoint("a.x"), is_forward=True)
    with pytest.raises(LossError, match="would both be named"):
        RuleTable(rules=(Rule(("a",), ("b",)),)).apply(checkpoint("a", "b"), is_forward=True)
    with pytest.raises(UsageError, match="neither side"):
        RuleTable(rules=(LAYER,)).is_forward(["x"])
    with pytest.raises(UsageError, match="both sides"):
        RuleTable(rules=(Rule(("{x*}",), ("{x*}",)),)).is_forward(["x"])


def fused(**changes: Any) -> Checkpoint:
    """A layer whose kernel is queries, keys and values side by side, with the moments of its optimizer."""
    weight = ArrayTensor.of(np.arange(24, dtype=np.float32).reshape(3, 8))
    moments = {"exp_avg": {"h.0.qkv": ArrayTensor.of(100 + weight.array)}, "rate": {"h.0.qkv": scalar(5)}}
    group = ParameterGroup(parameters=("h.0.qkv",), hyperparameters={})
    state = OptimizerState(algorithm="x", step=1, groups=(group,), slots=moments)
    made = Checkpoint(tensors={"h.0.qkv": weight}, optimizer=state, frozen=frozenset({"h.0.qkv"}))
    return replace(made, **changes)


def scalar(value: float) -> ArrayTensor:
    return ArrayTensor.of(np.array(value, np.float32))


def test_one_tensor_becomes_several_and_one_again_with_its_optimizer() -> None:
    table = RuleTable(rules=(FUSED,))
    there = table.apply(fused(), is_forward=True)
    whole = np.arange(24, dtype=np.float32).reshape(3, 8).T
    for name, rows in {"q": slice(0, 4), "k": slice(4, 6), "v": slice(6, 8)}.items():
        np.testing.assert_array_equal(there.tensors[f"h.0.{name}"].numpy(), whole[rows])
        assert there.origin(f"h.0.{name}") == "h.0.qkv"
        assert there.optimizer is not None
        np.testing.assert_array_equal(there.optimizer.slots["exp_avg"][f"h.0.{name}"].numpy(), 100 + whole[rows])
        assert there.optimizer.slots["rate"][f"h.0.{name}"].numpy() == 5
    assert there.optimizer.groups[0].parameters == ("h.0.q", "h.0.k", "h.0.v")
    assert there.frozen == {"h.0.q", "h.0.k", "h.0.v"}
    back = table.apply(there, is_forward=False)
    assert_same(back, fused())
    assert back.optimizer is not None
    np.testing.assert_array_equal(back.optimizer.slots["exp_avg"]["h.0.qkv"].numpy(), 100 + whole.T)
    assert back.optimizer.groups[0].parameters == ("h.0.qkv",)
    assert [(line.name, line.target) for line in back.lines] == [("h.0.qkv", "h.0.qkv")] * 2


def apart(**changes: Any) -> Checkpoint:
    return replace(RuleTable(rules=(FUSED,)).apply(fused(), is_forward=True), **changes)


def test_what_is_joined_must_be_there_and_fit() -> None:
    table = RuleTable(rules=(FUSED,))
    held = apart(optimizer=None, frozen=frozenset()).tensors
    for lacking in held:
        without = {name: each for name, each in held.items() if name != lacking}
        with pytest.raises(LossError, match="is not in the checkpoint, and the mapping joins it with") as caught:
            table.apply(Checkpoint(tensors=without), is_forward=False)
        assert caught.value.tensor == lacking
    swapped = {**held, "h.0.q": held["h.0.k"]}
    with pytest.raises(ReadError, match=r"shapes \[\[2, 3\], \[2, 3\], \[2, 3\]\] are not parts of 2:1:1"):
        table.apply(Checkpoint(tensors=swapped), is_forward=False)
    uneven = {name: ArrayTensor.of(np.ones((rows, 3), np.float32)) for name, rows in zip(held, (4, 3, 1), strict=True)}
    with pytest.raises(ReadError, match="are not parts of 2:1:1"):
        table.apply(Checkpoint(tensors=uneven), is_forward=False)
    with pytest.raises(ReadError, match="which is not parts of 2:1:1 on axis 0") as unfit:
        table.apply(Checkpoint(tensors={"h.0.qkv": held["h.0.q"].reshape((2, 6))}), is_forward=True)
    assert unfit.value.tensor == "h.0.qkv"


def test_state_that_does_not_follow_its_weights_is_refused_and_why() -> None:
    table = RuleTable(rules=(FUSED,))
    state = apart().optimizer
    assert state is not None
    groups = tuple(ParameterGroup(parameters=(name,), hyperparameters={}) for name in state.groups[0].parameters)
    other = replace(state, groups=groups)
    assert "not in one parameter group" in str(table.apply(apart(optimizer=other), is_forward=False).optimizer_refused)
    slots = {"exp_avg": {name: each for name, each in state.slots["exp_avg"].items() if name != "h.0.k"}}
    made = table.apply(apart(optimizer=replace(state, slots=slots)), is_forward=False)
    assert "'h.0.k' has no exp_avg" in str(made.optimizer_refused)
    rows = {"row": {"h.0.qkv": ArrayTensor.of(np.ones(3, np.float32))}}
    whole = fused().optimizer
    assert whole is not None
    made = table.apply(fused(optimizer=replace(whole, slots=rows)), is_forward=True)
    assert made.optimizer is None
    assert "its row has another shape than it" in str(made.optimizer_refused)


def test_tied_tensors_are_split_together() -> None:
    table = RuleTable(rules=(FUSED,))
    there = table.apply(fused(aliases={"h.1.qkv": "h.0.qkv"}, frozen=frozenset()), is_forward=True)
    assert there.aliases == {"h.1.q": "h.0.q", "h.1.k": "h.0.k", "h.1.v": "h.0.v"}
    with pytest.raises(LossError, match="rearranges one of them"):
        table.apply(fused(aliases={"lm_head": "h.0.qkv"}), is_forward=True)


@pytest.mark.parametrize(
    ("text", "shape", "parts"),
    [
        ("split 1", (2, 4), [(2, 2), (2, 2)]),
        ("split 1 3:1", (2, 4), [(2, 3), (2, 1)]),
        ("unstack 0", (2, 4), [(4,), (4,)]),
        ("unstack 1", (3, 2), [(3,), (3,)]),
    ],
)
def test_a_layout_is_written_as_text(text: str, shape: tuple[int, ...], parts: list[tuple[int, ...]]) -> None:
    whole = ArrayTensor.of(np.arange(np.prod(shape), dtype=np.float32).reshape(shape))
    apart = applied(parse(text, 2), [whole], is_forward=True)
    assert [each.shape for each in apart] == parts
    inverse = text.replace("unstack", "stack").replace("split", "join")
    for operations, is_forward in ((parse(text, 2), False), (parse(inverse, 2), True)):
        (back,) = applied(operations, apart, is_forward=is_forward)
        np.testing.assert_array_equal(back.numpy(), whole.numpy())


def test_a_pattern_takes_sizes() -> None:
    """Queries, keys and values of each head side by side, as GPT-NeoX and BLOOM have them."""
    whole = ArrayTensor.of(np.arange(12, dtype=np.float32).reshape(12, 1))
    operations = (*parse("(h t d) i -> (t h d) i, h=2, t=3", 3), *parse("split 0", 3))
    q, k, v = applied(operations, [whole], is_forward=True)
    assert q.numpy().ravel().tolist() == [0, 1, 6, 7]
    assert v.numpy().ravel().tolist() == [4, 5, 10, 11]
    (back,) = applied(operations, [q, k, v], is_forward=False)
    np.testing.assert_array_equal(back.numpy(), whole.numpy())


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("transposed", "layout is of"),
        ("split", "layout is of"),
        ("split x", "layout is of"),
        ("stack 0 1:1", "layout is of"),
        ("split 0 1:0", "a part has no extent"),
        ("i o -> o", "does not read both ways"),
        ("i o -> o i, h", "sizes are written as"),
    ],
)
def test_what_is_no_layout(text: str, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        parse(text, 2)


def test_a_users_mapping_file(tmp_path: Path) -> None:
    rules = {
        "rules": [{"from": LAYER.left[0], "to": LAYER.right[0], "layout": "transpose"}, {"from": "gone", "to": "none"}]
    }
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


def test_a_users_mapping_splits_and_joins(tmp_path: Path) -> None:
    rule = {"from": "h.{n}.qkv", "to": ["h.{n}.q", "h.{n}.k", "h.{n}.v"], "layout": ["transpose", "split 0 2:1:1"]}
    (tmp_path / "mapping.json").write_text(json.dumps({"rules": [rule]}))
    names = [tmp_path / name for name in ("whole.safetensors", "apart.safetensors", "back.safetensors")]
    converter.write(fused(optimizer=None, frozen=frozenset()), names[0])
    report = converter.convert(names[0], names[1], mapping=tmp_path / "mapping.json")
    assert {line.target: line.name for line in report.lines} == dict.fromkeys(["h.0.q", "h.0.k", "h.0.v"], "h.0.qkv")
    report = converter.convert(names[1], names[2], mapping=tmp_path / "mapping.json")
    assert {line.name: line.target for line in report.lines} == dict.fromkeys(["h.0.q", "h.0.k", "h.0.v"], "h.0.qkv")
    assert_same(converter.read(names[0]), converter.read(names[2]))
    for wrong in ({**rule, "to": []}, {**rule, "to": ["a", 1]}, {**rule, "layout": {}}, {**rule, "more": "x"}):
        (tmp_path / "mapping.json").write_text(json.dumps({"rules": [wrong]}))
        with pytest.raises(UsageError, match="is no rule"):
            converter.convert(names[0], tmp_path / "x.safetensors", mapping=tmp_path / "mapping.json")
