"""What of a checkpoint goes where: names, element types, training state, and what is said of the rest. No framework."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import converter
from converter.errors import LossError, ReadError, UsageError
from converter.formats import registry
from converter.model.checkpoint import Checkpoint
from converter.model.dtype import DType
from converter.model.ledger import Status, dropped, unheld
from converter.model.optimizer import Convention, OptimizerState, ParameterGroup
from converter.model.tensor import ArrayTensor, Tensor
from converter.options import Options
from converter.planning.selection import selected
from converter.report import Report
from tests.conftest import ROOT


def tensor(*values: float, dtype: str = "float32") -> Tensor:
    return ArrayTensor.of(np.array(values, dtype))


def eight_bits(dtype: DType) -> Tensor:
    return ArrayTensor(dtype=dtype, shape=(3,), array=np.array([0x38, 0x39, 0x3A], np.uint8).view(dtype.numpy))


MOMENTS = {"exp_avg": tensor(5, 6), "exp_avg_sq": tensor(7, 8)}
HYPERPARAMETERS = {"lr": 0.1, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.01, "amsgrad": False}
STATE = OptimizerState(
    algorithm="adamw",
    step=3,
    groups=(
        ParameterGroup(
            parameters=("embed.weight", "head.bias"),
            hyperparameters={**HYPERPARAMETERS, "decoupled_weight_decay": True},
        ),
    ),
    slots={slot: {"embed.weight": moment, "head.bias": moment} for slot, moment in MOMENTS.items()},
)
NETWORK = Checkpoint(
    tensors={
        "embed.weight": tensor(1, 2),
        "norm.running_mean": tensor(3, 4),
        "head.bias": tensor(5, 6),
        "head.ids": tensor(7, 8, dtype="int64"),
    },
    aliases={"decoder.weight": "embed.weight", "other.weight": "embed.weight"},
    buffers=frozenset({"norm.running_mean"}),
)
TRAINED = replace(NETWORK, optimizer=STATE, extras={"epoch": 3, "scaler": {"scale": tensor(9)}})


def written(
    folder: Path, checkpoint: Checkpoint = NETWORK, to: str = "dcp", **options: Any
) -> tuple[Report, Checkpoint]:
    """The report, and what is read back of what was written."""
    report = converter.write(checkpoint, folder / f"out-{to}", to=to, durable=False, overwrite=True, **options)
    return report, converter.read(folder / f"out-{to}")


def values(checkpoint: Checkpoint) -> dict[str, list[float]]:
    return {name: checkpoint.tensor(name).numpy().tolist() for name in checkpoint.names}


def fates(report: Report, status: Status) -> dict[str | None, str]:
    return {line.name: line.reason for line in report.lines if line.status is status}


# names


@pytest.mark.parametrize(
    ("include", "exclude", "names"),
    [
        (("head.*",), (), {"head.bias", "head.ids"}),
        (("head.bias", "norm.*"), (), {"head.bias", "norm.running_mean"}),
        ((), ("*.weight", "norm.*"), {"head.bias", "head.ids"}),
        (("head.*", "norm.*"), ("*.bias", "*.ids"), {"norm.running_mean"}),
        (("*",), ("head.*",), {"embed.weight", "norm.running_mean", "decoder.weight", "other.weight"}),
        (("head.*",), ("*",), None),
        (("head.*",), ("head.?*",), None),
    ],
)
def test_which_names_are_asked_for(
    include: tuple[str, ...], exclude: tuple[str, ...], names: set[str] | None, tmp_path: Path
) -> None:
    if names is None:
        with pytest.raises(LossError, match="leave no tensor"):
            written(tmp_path, include=include, exclude=exclude)
        return
    report, found = written(tmp_path, include=include, exclude=exclude)
    assert set(found.names) == names
    left = set(NETWORK.names) - names
    assert fates(report, Status.DROPPED) == dict.fromkeys(left, "left out as asked")


def test_a_tie_survives_without_the_name_that_held_it(tmp_path: Path) -> None:
    _, found = written(tmp_path, include=("decoder.*", "other.*", "norm.*"))
    assert values(found) == {"decoder.weight": [1, 2], "norm.running_mean": [3, 4], "other.weight": [1, 2]}
    assert found.aliases == {"other.weight": "decoder.weight"}
    assert found.buffers == {"norm.running_mean"}
    _, alone = written(tmp_path, include=("other.*",))
    assert (values(alone), alone.aliases) == ({"other.weight": [1, 2]}, {})


def test_state_of_parameters_that_are_left_out_goes_with_them(tmp_path: Path) -> None:
    _, found = written(tmp_path, TRAINED, exclude=("head.*",))
    assert found.optimizer is not None
    assert [group.parameters for group in found.optimizer.groups] == [("embed.weight",)]
    assert {slot: set(held) for slot, held in found.optimizer.slots.items()} == {
        "exp_avg": {"embed.weight"},
        "exp_avg_sq": {"embed.weight"},
    }


def test_losses_on_the_way_stay_in_the_ledger(tmp_path: Path) -> None:
    source = replace(NETWORK, lines=(dropped("step", "counts steps"),), warnings=("mind the gap",))
    report, _ = written(tmp_path, source, include=("head.*",))
    assert fates(report, Status.DROPPED)["step"] == "counts steps"
    assert "mind the gap" in report.warnings


# names of a user's own


def mapping(folder: Path, *rules: Any) -> Path:
    path = folder / "rules.json"
    path.write_text(json.dumps({"rules": list(rules)}))
    return path


def test_names_are_chosen_after_they_were_mapped_and_the_ledger_has_the_source_s(tmp_path: Path) -> None:
    rules = mapping(tmp_path, {"from": "head.{x}", "to": "top.{x}"}, {"from": "gone.{x}", "to": "lost.{x}"})
    report, found = written(tmp_path, mapping=rules, exclude=("top.ids", "*.weight"))
    assert values(found) == {"norm.running_mean": [3, 4], "top.bias": [5, 6]}
    assert fates(report, Status.MAPPED).keys() == {"norm.running_mean", "head.bias"}
    assert fates(report, Status.DROPPED).keys() == {"head.ids", "embed.weight", "decoder.weight", "other.weight"}
    (said,) = [each for each in report.warnings if "no tensor is of the rule" in each]
    assert "'gone.{x}' -> 'lost.{x}'" in said


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        "{}",
        '{"rules": {}}',
        '{"rules": ["a"]}',
        '{"rules": [{"from": "head.{x}"}]}',
        '{"rules": [{"to": "head.{x}"}]}',
        '{"rules": [{"from": "head.{x}", "to": 1}]}',
        '{"rules": [{"from": "head.{x}", "to": "top.{x}", "layout": null}]}',
        '{"rules": [{"from": "head.{x}", "to": "top.{x}", "layout": "sideways"}]}',
        '{"rules": [{"from": "head.{x}", "to": "top.{x}", "why": "so"}]}',
        '{"rules": [{"from": "head.{x}", "to": "top.{y}"}]}',
        '{"rules": [{"from": "unknown", "to": "names"}]}',
    ],
)
def test_a_mapping_that_is_none_is_named(text: str, tmp_path: Path) -> None:
    written(tmp_path, mapping=mapping(tmp_path, {"from": "head.{x}", "to": "top.{x}", "layout": "as is"}))
    path = tmp_path / "rules.json"
    path.write_text(text)
    with pytest.raises(UsageError) as caught:
        written(tmp_path, mapping=path)
    assert caught.value.path == str(path)


def test_a_huge_mapping_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "rules.json"
    with path.open("wb") as file:
        file.truncate((64 << 20) + 1)
    with pytest.raises(UsageError, match="is a mapping of 67108865 bytes"):
        written(tmp_path, mapping=path)


# element types


def test_a_cast_is_of_weights_and_buffers_and_of_nothing_else(tmp_path: Path) -> None:
    config = tmp_path / "config.json"
    config.write_text('{"model_type": "none", "torch_dtype": "float32"}')
    converter.write(TRAINED, tmp_path / "in", to="dcp")
    report = converter.convert(tmp_path / "in", tmp_path / "out", to="dcp", dtype="float16", config=config)
    found = converter.read(tmp_path / "out")
    assert {name: each.dtype.value for name, each in found.tensors.items()} == {
        "embed.weight": "float16",
        "norm.running_mean": "float16",
        "head.bias": "float16",
        "head.ids": "int64",
    }
    assert values(found) == values(NETWORK)
    assert "3 tensors cast from float32 to float16" in report.warnings
    assert not any("int64" in each for each in report.warnings)
    assert found.optimizer is not None
    assert {moment.dtype for held in found.optimizer.slots.values() for moment in held.values()} == {DType.FLOAT32}
    assert found.config is not None
    assert {found.config.values.get(key, "float16") for key in ("dtype", "torch_dtype")} == {"float16"}
    same = converter.convert(tmp_path / "in", tmp_path / "same", to="dcp", dtype="float32")
    assert not any("cast" in each for each in same.warnings)


def test_without_a_cast_the_config_stays_as_it_is(tmp_path: Path) -> None:
    raw = '{ "torch_dtype":"float64", "model_type": "none"}'
    (tmp_path / "config.json").write_text(raw)
    converter.write(NETWORK, tmp_path / "in.safetensors")
    converter.convert(tmp_path / "in.safetensors", tmp_path / "out", to="dcp")
    assert (tmp_path / "out" / "config.json").read_text() == raw


def test_what_a_format_cannot_hold_is_held_exactly_or_refused(tmp_path: Path) -> None:
    """savedmodel has no float8_e5m2fnuz, and it and safetensors no complex128; float32 has every 8-bit value."""
    source = Checkpoint(tensors={"a": eight_bits(DType.FLOAT8_E5M2FNUZ), "b": tensor(1)})
    report, found = written(tmp_path, source, to="savedmodel", weights_only=True)
    assert {name: each.dtype for name, each in found.tensors.items()} == {"a": DType.FLOAT32, "b": DType.FLOAT32}
    assert values(found)["a"] == source.tensors["a"].numpy().astype(np.float32).tolist()
    assert "1 tensors cast from float8_e5m2fnuz to float32" in report.warnings
    report, found = written(tmp_path, source, to="savedmodel", weights_only=True, dtype="float16")
    assert {each.dtype for each in found.tensors.values()} == {DType.FLOAT16}
    wide = Checkpoint(tensors={"a": tensor(1), "wide": tensor(1, dtype="complex128")})
    with pytest.raises(LossError, match="is complex128, which safetensors cannot hold") as caught:
        written(tmp_path, wide, to="safetensors")
    assert caught.value.tensor == "wide"
    with pytest.raises(LossError, match="complex128"):
        written(tmp_path, wide, to="safetensors", dtype="float16")
    assert written(tmp_path, wide)[1].tensors["wide"].dtype is DType.COMPLEX128


def test_only_what_float32_has_exactly_is_held_in_it() -> None:
    """As a format of another package may have it, which knows neither 8-bit nor double precision."""
    narrow = replace(registry()["dcp"], dtypes=frozenset({DType.FLOAT32}))
    source = Checkpoint(tensors={"a": eight_bits(DType.FLOAT8_E4M3FN)})
    assert selected(source, narrow, Options()).tensors["a"].dtype is DType.FLOAT32
    for dtype in ("float64", "float16", "int8"):
        wide = Checkpoint(tensors={"a": tensor(1, dtype=dtype)})
        with pytest.raises(LossError, match=f"is {dtype}, which dcp cannot hold"):
            selected(wide, narrow, Options())
    none = replace(narrow, dtypes=frozenset({DType.INT8}))
    with pytest.raises(LossError, match="is float8_e4m3fn, which dcp cannot hold"):
        selected(source, none, Options())


def test_values_that_a_cast_loses_are_counted(tmp_path: Path) -> None:
    source = Checkpoint(tensors={"a": tensor(1e5, 1, -1e9, 1e-6), "b": tensor(7e4, float("inf"), 0, 1e-12)})
    report, _ = written(tmp_path, source, dtype="float16")
    said = [each for each in report.warnings if "values" in each]
    assert said == ["3 values overflowed to infinity", "2 values became zero or subnormal"]
    exact, _ = written(tmp_path, source, dtype="bfloat16")
    assert not any("values" in each for each in exact.warnings)


# training state


def test_training_state_stays_where_there_is_a_place_for_it(tmp_path: Path) -> None:
    report, found = written(tmp_path, TRAINED)
    assert found.extras["epoch"] == 3
    assert not fates(report, Status.DROPPED)
    report, found = written(tmp_path, TRAINED, to="tf-checkpoint")
    assert not found.extras
    assert fates(report, Status.DROPPED) == {"scaler.scale": "tf-checkpoint holds no training state"}
    assert "epoch, scaler not carried: tf-checkpoint holds no training state" in report.warnings


def test_an_optimizer_is_carried_kept_or_dropped(tmp_path: Path) -> None:
    for options in ({}, {"optimizer": "keep"}):
        report, found = written(tmp_path, TRAINED, **options)
        assert found.optimizer is not None
        assert (report.optimizer.status, report.optimizer.reason) == ("carried", None)
        assert (report.optimizer.algorithm, report.optimizer.step) == ("adamw", 3)
    report, found = written(tmp_path, TRAINED, optimizer="drop")
    assert found.optimizer is None
    assert (report.optimizer.status, report.optimizer.reason) == ("dropped", "as asked")
    for to in ("safetensors", "flax"):
        report, _ = written(tmp_path, TRAINED, to=to)
        assert (report.optimizer.status, report.optimizer.reason) == ("dropped", f"{to} does not hold it")
        with pytest.raises(LossError, match=f"{to} does not hold optimizer state"):
            written(tmp_path, TRAINED, to=to, optimizer="keep")
    assert written(tmp_path, NETWORK, optimizer="keep")[0].optimizer.status == "absent"


def test_an_optimizer_that_is_refused_stands_in_the_way_unless_it_is_dropped(tmp_path: Path) -> None:
    refused = replace(NETWORK, optimizer_refused="its groups are odd")
    with pytest.raises(LossError, match="optimizer state: its groups are odd") as caught:
        written(tmp_path, refused)
    assert caught.value.hint == "--optimizer drop converts the weights without it"
    numbered = replace(refused, optimizer_numbered={"state": {}, "param_groups": []})
    with pytest.raises(LossError) as caught:
        written(tmp_path, numbered)
    assert caught.value.hint is not None
    assert caught.value.hint.startswith("--param-order FILE or --trainable REGEX says which, by the names")
    report, _ = written(tmp_path, refused, optimizer="drop")
    assert (report.optimizer.status, report.optimizer.reason) == ("dropped", "as asked")
    report, _ = written(tmp_path, refused, to="safetensors")
    assert report.optimizer.reason == "safetensors does not hold it"


def test_names_that_rest_on_order_are_said(tmp_path: Path) -> None:
    inferred = replace(TRAINED, optimizer=replace(STATE, basis="in the order of the tensors"))
    report, _ = written(tmp_path, inferred)
    said = "the optimizer's parameters: in the order of the tensors; 2 parameters of the same shape rest on order"
    assert said in report.warnings
    assert report.optimizer.basis == "in the order of the tensors"
    distinct = replace(inferred, tensors={**NETWORK.tensors, "head.bias": tensor(1)})
    moments = {slot: {**held, "head.bias": tensor(1)} for slot, held in STATE.slots.items()}
    report, _ = written(tmp_path, replace(distinct, optimizer=replace(inferred.optimizer, slots=moments)))
    assert "the optimizer's parameters: in the order of the tensors" in report.warnings
    assert not any("parameters:" in each for each in written(tmp_path, TRAINED)[0].warnings)


@pytest.mark.parametrize("options", [{"param_order": Path("order")}, {"trainable": ".*"}], ids=list)
def test_an_order_is_for_parameters_that_are_numbered(options: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="are for optimizers whose parameters are numbered"):
        written(tmp_path, TRAINED, **options)
    for others, why in (({"optimizer": "drop"}, "as asked"), ({"to": "safetensors"}, "safetensors does not hold it")):
        with pytest.raises(UsageError, match=rf"decides nothing: optimizer state is not carried \({why}\)"):
            written(tmp_path, TRAINED, **{**options, **others})


def test_state_goes_by_either_name_of_a_tie(tmp_path: Path) -> None:
    """A file of Keras lists what stands first in it, which is not the name that the source has."""
    report = converter.write(TRAINED, tmp_path / "x.weights.h5", weights_only=True)
    assert report.optimizer.status == "carried"
    found = converter.read(tmp_path / "x.weights.h5").optimizer
    assert found is not None
    assert [group.parameters for group in found.groups] == [("decoder.weight", "head.bias")]


def carried(source: Path, folder: Path, *asked: str) -> OptimizerState:
    converter.convert(source, folder / "out", to="dcp", hyperparameter=asked, overwrite=True)
    state = converter.read(folder / "out").optimizer
    assert state is not None
    return state


def test_hyperparameters_of_keras_may_have_the_names_of_torch(tmp_path: Path) -> None:
    source = ROOT / "fixtures" / "keras" / "model.h5"
    read = converter.read(source).optimizer
    assert read is not None
    assert read.convention is Convention.KERAS
    held = carried(source, tmp_path, "lr=0.5", "eps=0", "betas=[0.8, 0.99]").groups[0].hyperparameters
    assert (held["lr"], held["eps"], list(held["betas"])) == (0.5, 0, [0.8, 0.99])
    assert carried(source, tmp_path, "learning_rate=0.25").groups[0].hyperparameters["lr"] == 0.25
    for betas in ("0.9", "[0.9]", "[0.9, 0.9, 0.9]", '"ab"'):
        with pytest.raises(UsageError, match="betas is a list of two numbers"):
            carried(source, tmp_path, f"betas={betas}")


def test_hyperparameters_of_torch_may_have_the_names_of_keras(tmp_path: Path) -> None:
    source = tmp_path / "x.pth"
    converter.write(TRAINED, source)
    before = carried(source, tmp_path).groups[0].hyperparameters
    held = carried(source, tmp_path, "learning_rate=0.5", "epsilon=0.25").groups[0].hyperparameters
    assert held == {**before, "lr": 0.5, "eps": 0.25}
    assert carried(source, tmp_path, "fused=true", "betas=[0.5, 0.75]").groups[0].hyperparameters["fused"] is True


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        (("lr=0.5", "learning_rate=0.25"), "gives lr by two names: lr, learning_rate"),
        (("epsilon=1", "lr=0.5", "eps=1"), "gives eps by two names"),
        (("beta_1=0.5",), "beta_1: neither the file nor PyTorch has it of adamw; the file has amsgrad, betas, "),
        (("lr=0.5", "learnin_rate=0.25"), "learnin_rate: neither the file nor PyTorch has it"),
    ],
)
def test_a_hyperparameter_that_would_be_lost_is_refused(asked: tuple[str, ...], why: str, tmp_path: Path) -> None:
    converter.write(TRAINED, tmp_path / "x.pth")
    with pytest.raises(UsageError) as caught:
        carried(tmp_path / "x.pth", tmp_path, *asked)
    assert why in str(caught.value)


def test_a_hyperparameter_of_keras_by_two_names_is_refused(tmp_path: Path) -> None:
    source = ROOT / "fixtures" / "keras" / "model.h5"
    for asked in (
        ("lr=0.5", "learning_rate=0.25"),
        ("betas=[0.5, 0.75]", "beta_2=0.5"),
        ("beta_1=0.5", "betas=[0, 0]"),
    ):
        with pytest.raises(UsageError, match="by two names"):
            carried(source, tmp_path, *asked)


def test_hyperparameters_of_no_optimizer_are_refused(tmp_path: Path) -> None:
    for options in ({}, {"to": "safetensors"}, {"optimizer": "drop"}):
        with pytest.raises(UsageError, match="--hyperparameter is for the state of an optimizer, and there is none"):
            written(tmp_path, NETWORK, hyperparameter=("lr=0.5",), **options)
        assert written(tmp_path, TRAINED, **options)[1].names
    for options, why in (({"to": "safetensors"}, "safetensors does not hold it"), ({"optimizer": "drop"}, "as asked")):
        with pytest.raises(UsageError, match=f"optimizer state is not carried .{why}"):
            written(tmp_path, TRAINED, hyperparameter=("lr=0.5",), **options)


def test_a_pattern_that_is_of_no_tensor_is_refused_with_the_names_most_like_it(tmp_path: Path) -> None:
    for options in ({"include": ("embed.*", "head.bia")}, {"exclude": ("head.bia?s",)}):
        (option,) = options
        with pytest.raises(UsageError, match=f"--{option} 'head.bia(.s)?' is of no tensor") as caught:
            written(tmp_path, **options)
        assert caught.value.hint is not None
        assert caught.value.hint.startswith("the names most like it are head.bias, ")
    odd = replace(NETWORK, lines=(unheld("module.odd", "is odd"),))
    assert written(tmp_path, odd, exclude=("odd", "module.odd"))[1].names


def test_a_checkpoint_of_tensorflow_1_lacks_one_number(tmp_path: Path) -> None:
    source = ROOT / "fixtures" / "tf1" / "bert" / "model.ckpt.index"
    report = converter.convert(source, tmp_path / "without", to="dcp")
    lost = set(fates(report, Status.DROPPED).values())
    assert (report.optimizer.status, report.optimizer.reason) == ("dropped", "the file does not say its learning rate")
    assert any("not carried: the file does not say its learning rate" in each for each in report.warnings)
    assert "a variable of the optimizer" in lost
    with pytest.raises(LossError, match="does not say its learning rate") as caught:
        converter.convert(source, tmp_path / "with", to="dcp", optimizer="keep")
    assert caught.value.hint is not None
    assert "--hyperparameter learning_rate=" in caught.value.hint
    report = converter.convert(source, tmp_path / "with", to="dcp", hyperparameter=("learning_rate=0.5",))
    assert report.optimizer.status == "carried"
    assert "a variable of the optimizer" not in fates(report, Status.DROPPED).values()
    found = converter.read(tmp_path / "with").optimizer
    assert found is not None
    assert {group.hyperparameters["lr"] for group in found.groups} == {0.5}


def test_a_source_of_no_tensor_is_none(tmp_path: Path) -> None:
    converter.write(Checkpoint(tensors={"a": tensor(1)}), tmp_path / "one.safetensors")
    assert converter.read(tmp_path / "one.safetensors").names == ("a",)
    (tmp_path / "none.safetensors").write_bytes(b"\2\0\0\0\0\0\0\0{}")
    with pytest.raises(ReadError, match="holds no tensor") as caught:
        converter.read(tmp_path / "none.safetensors")
    assert caught.value.path == str(tmp_path / "none.safetensors")
