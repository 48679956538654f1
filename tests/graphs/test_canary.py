"""Weights changed on purpose: what is changed and put back, what the comparison notices, what is said of the rest."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import converter
from converter.errors import UnprovenError, VerificationError
from converter.graphs.run import onnxruntime
from converter.graphs.run.arrays import read_arrays, write_sets
from converter.graphs.run.canary import groups_of, nudged, perturbed, try_groups
from converter.proof.comparing import compare_outputs
from tests.graphs.canaries import Arrays, with_canary
from tests.graphs.wrong_graphs import SETS, WEIGHTS, Graph, changed

_HOUR = 3600.0


def test_layers_are_folded() -> None:
    names = ["encoder.layer.0.query.weight", "encoder.layer.11.query.weight", "h.0.fc1.weight", "h.0.fc2.weight"]
    names += ["block_1/conv/kernel", "block_2/conv/kernel"]
    assert groups_of(names) == {
        "encoder.layer.*.query.weight": names[:2],
        "h.*.fc1.weight": names[2:3],
        "h.*.fc2.weight": names[3:4],
        "block_*/conv/kernel": names[4:],
    }
    assert list(groups_of(names)) == list(groups_of(names[::-1]))


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", ml_dtypes.bfloat16])
@pytest.mark.parametrize(
    "values", [np.zeros((3, 4)), np.ones((3, 4)), np.linspace(-1, 1, 12), np.full(5, 60000.0), np.array(2.5)]
)
def test_a_weight_changes_and_keeps_its_kind(values: Any, dtype: Any) -> None:
    before = values.astype(dtype)
    after = perturbed(before, "a")
    assert (after.dtype, after.shape) == (before.dtype, before.shape)
    assert np.isfinite(after.astype(np.float64)).all()
    assert np.mean(after != before) > 0.9
    if (before >= 0).all():
        assert (after >= 0).all()
    np.testing.assert_array_equal(after, perturbed(before, "a"))
    moved = np.abs(nudged(before, "a").astype(np.float64) - before.astype(np.float64))
    assert (moved <= 2.0 * np.abs(before.astype(np.float64)) * float(ml_dtypes.finfo(before.dtype).eps) + 1e-30).all()


def test_masks_and_infinities_stay() -> None:
    before = np.array([1, -np.inf, np.nan, -1e9, np.finfo(np.float32).min, 2], np.float32)
    after = perturbed(before, "a")
    np.testing.assert_array_equal(after[1:5], before[1:5])
    assert (after[[0, 5]] != before[[0, 5]]).all()


def test_weights_are_put_back_and_time_is_kept(tmp_path: Path) -> None:
    arrays = {f"part{letter}": np.arange(4, dtype=np.float32) for letter in "abcdef"}
    weights = Arrays(dict(arrays))
    runs: list[float] = []

    def run(given: Any) -> dict[str, Any]:
        runs.append(time.monotonic())
        time.sleep(0.02)
        return {"y": sum(weights.arrays.values())}

    file = tmp_path / "canary.npz"
    inputs = {"0": {"x": np.zeros(9)}, "1": {"x": np.zeros(2)}}
    told = try_groups(weights, run, inputs, path=str(file), since=time.monotonic())
    assert (told["case"], len(told["tried"]), told["not_tried"]) == ("1", 1, 5)
    told = try_groups(weights, run, inputs, path=str(file), since=time.monotonic() - _HOUR)
    assert (sorted(told["tried"]), told["not_tried"]) == (sorted(arrays), 0)
    for name, array in arrays.items():
        np.testing.assert_array_equal(weights.arrays[name], array)
    outputs = read_arrays(str(file))
    assert len({array.tobytes() for array in outputs.values()}) == 6


def test_every_weight_of_an_encoder_is_noticed_but_the_bias_that_a_softmax_does_not_see(tmp_path: Path) -> None:
    noticed, unnoticed = _noticed(Graph().model(), tmp_path)
    assert unnoticed == ["layer.*.key.bias"]
    assert len(noticed) == 19


def test_a_graph_that_ignores_a_weight_is_told(tmp_path: Path) -> None:
    graph = replace(Graph(), weights={**WEIGHTS, "spare.weight": WEIGHTS["out.weight"]})
    assert _noticed(graph.model(), tmp_path)[1] == ["layer.*.key.bias", "spare.weight"]


def test_weights_beside_the_model_and_of_other_types(tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    of_types = {"a": np.float16, "b": ml_dtypes.bfloat16, "c": np.float64}
    nodes, initializers, total = [], [], "x"
    for name, dtype in of_types.items():
        initializers.append(numpy_helper.from_array(random.standard_normal(600).astype(dtype), f"{name}.weight"))
        nodes.append(helper.make_node("Cast", [f"{name}.weight"], [name], to=TensorProto.FLOAT))
        nodes.append(helper.make_node("Add", [total, name], [f"sum{name}"]))
        total = f"sum{name}"
    nodes[-1].output[0] = "y"
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 600])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 600])],
        initializers,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    write_sets(str(tmp_path / "inputs.npz"), {"0": {"x": random.standard_normal((2, 600)).astype(np.float32)}})
    file = tmp_path / "model.onnx"
    onnx.save(model, file, save_as_external_data=True, location="model.onnx.data", size_threshold=100)
    assert (tmp_path / "model.onnx.data").stat().st_size == 600 * (2 + 2 + 8)
    assert _tried(file, tmp_path) == (["a.weight", "b.weight", "c.weight"], [])


def _noticed(model: Any, folder: Path) -> tuple[list[str], list[str]]:
    write_sets(str(folder / "inputs.npz"), SETS)
    onnx.save(model, folder / "model.onnx")
    return _tried(folder / "model.onnx", folder)


def _tried(file: Path, folder: Path) -> tuple[list[str], list[str]]:
    """Run a model with its canary; return the groups that the comparison notices, and the others."""
    answer, noticed, unnoticed = with_canary(onnxruntime.run, file, folder)
    assert (answer["not_tried"], answer["failed"], answer["reason"]) == (0, [], None)
    return sorted(noticed), sorted(unnoticed)


def _line(x: Any, y: Any, weights: dict[str, Any], *nodes: Any) -> Any:
    graph = helper.make_graph(
        list(nodes),
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, x)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in y.items()],
        [numpy_helper.from_array(np.asarray(array, np.float32), name) for name, array in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def test_a_model_whose_output_is_constant_is_not_proven(tmp_path: Path) -> None:
    nodes = [helper.make_node("Mul", ["x", "w"], ["p"]), helper.make_node("Mul", ["p", "zero"], ["y"])]
    weights = {"w": [1, 2, 3, 4], "zero": 0.0}
    onnx.save(_line(["n", 4], {"y": ["n", 4]}, weights, *nodes), tmp_path / "in.onnx")
    report = converter.convert(tmp_path / "in.onnx", tmp_path / "out.onnx")
    assert report.verdict.endswith("verified weights, outputs not proven: 'y' (constant)")
    assert not report.verification.outputs
    assert report.as_dict()["verification"]["per_output"][0]["reason"] == "constant"
    with pytest.raises(UnprovenError, match="outputs not proven") as caught:
        converter.convert(tmp_path / "in.onnx", tmp_path / "other.onnx", verify="outputs")
    assert caught.value.exit_code == 4
    assert not (tmp_path / "other.onnx").exists()


def test_a_model_whose_output_is_next_to_all_nan_is_not_proven(tmp_path: Path) -> None:
    """A logarithm of what is above 3 alone: one in seven hundred normal numbers."""
    nodes = [
        helper.make_node("Sub", ["x", "w"], ["above"]),
        helper.make_node("Log", ["above"], ["y"]),
    ]
    onnx.save(_line(["n", 500], {"y": ["n", 500]}, {"w": np.full(500, 3)}, *nodes), tmp_path / "in.onnx")
    report = converter.convert(tmp_path / "in.onnx", tmp_path / "out.onnx")
    assert report.verdict.endswith("of it is NaN or infinite)")
    assert not report.verification.outputs
    with pytest.raises(UnprovenError, match=r"'y' .99.*% of it is NaN or infinite") as caught:
        converter.convert(tmp_path / "in.onnx", tmp_path / "other.onnx", verify="outputs")
    assert caught.value.exit_code == 4


def test_outputs_of_which_some_prove_something(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Mul", ["x", "w"], ["y"]),
        helper.make_node("Mul", ["y", "zero"], ["z"]),
    ]
    weights = {"w": [1, 2, 3, 4], "zero": 0.0}
    onnx.save(_line(["n", 4], {"y": ["n", 4], "z": ["n", 4]}, weights, *nodes), tmp_path / "in.onnx")
    report = converter.convert(tmp_path / "in.onnx", tmp_path / "out.onnx")
    assert report.verdict.endswith("verified outputs max|d|=0.00e+00; not proven: 'z' (constant)")
    canary = report.verification.canary
    assert canary is not None
    assert (canary.tried, canary.noticed, canary.not_tried, canary.unnoticed) == (2, 2, 0, ())
    assert json.loads(json.dumps(report.as_dict()))["verification"]["canary"]["noticed"] == 2


def test_noise_beside_a_masked_value_is_refused(tmp_path: Path) -> None:
    """One masked value made the tolerance larger than anything that the output could be."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node("RandomNormalLike", ["h"], ["r"], scale=100.0),
        helper.make_node("Add", ["h", "r"], ["s"]),
        helper.make_node("Cast", ["mask"], ["m"], to=TensorProto.BOOL),
        helper.make_node("Where", ["m", "low", "s"], ["y"]),
    ]
    weights = {"w": np.eye(4), "mask": [1, 0, 0, 0], "low": np.finfo(np.float32).min}
    onnx.save(_line(["n", 4], {"y": ["n", 4]}, weights, *nodes), tmp_path / "in.onnx")
    with pytest.raises(VerificationError, match="output 'y' differs"):
        converter.convert(tmp_path / "in.onnx", tmp_path / "out.onnx")
    assert not (tmp_path / "out.onnx").exists()


def test_a_weight_that_is_nearly_right_is_not_right(tmp_path: Path) -> None:
    """The pair that the comparison is there for: the same arrays once as they are, once with one weight wrong."""
    right, wrong = tmp_path / "right.onnx", tmp_path / "wrong.onnx"
    onnx.save(Graph().model(), right)
    onnx.save(changed("layer.1.value.weight", lambda array: array * np.float32(1.001)).model(), wrong)
    arguments = {"inputs": str(tmp_path / "inputs.npz")}
    write_sets(arguments["inputs"], SETS)
    for file in (right, wrong):
        onnxruntime.run(model=str(file), outputs=str(file.with_suffix(".npz")), **arguments)
    onnxruntime.run(model=str(right), outputs=str(tmp_path / "nudged.npz"), nudge="float64", **arguments)
    expected, found, moved = (read_arrays(str(tmp_path / name)) for name in ("right.npz", "wrong.npz", "nudged.npz"))
    compare_outputs(expected, moved, path=right, atol=None, rtol=1e-4)
    assert any(not np.array_equal(expected[key], moved[key]) for key in expected)
    with pytest.raises(VerificationError, match="differs"):
        compare_outputs(expected, found, path=right, atol=None, rtol=None)


def test_a_model_that_rounding_moves_is_compared_by_that(tmp_path: Path) -> None:
    """A T5 with weights x 4: torch and onnxruntime differ by 1e-3 of a logit, and torch from itself as well."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    sizes = {"d_model": 64, "d_kv": 16, "d_ff": 128, "num_layers": 2, "num_heads": 4}
    model = transformers.T5ForConditionalGeneration(
        transformers.T5Config(vocab_size=200, decoder_start_token_id=0, **sizes)
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4)
    model.save_pretrained(tmp_path / "t5")
    report = converter.convert(tmp_path / "t5", tmp_path / "out.onnx")
    told = {each.name: each for each in report.verification.per_output}
    assert max(each.max_rel for each in told.values()) > 1e-4
    assert all(each.reason is None or "rounding alone" in each.reason for each in told.values())
    with pytest.raises(VerificationError, match="differs"):
        converter.convert(tmp_path / "t5", tmp_path / "other.onnx", rtol=2e-5)


@pytest.mark.parametrize("second", ["y.npy", "y\0b", "y.bfloat16"])
def test_an_output_that_is_called_as_another_is_no_other(second: str, tmp_path: Path) -> None:
    """Names that an archive of arrays would take for one: what is negated in the second is not hidden by the first."""
    first = "y\0a" if "\0" in second else "y"
    for name, operator in (("right", "Identity"), ("wrong", "Neg")):
        nodes = [
            helper.make_node("Mul", ["x", "w"], [first]),
            helper.make_node("Mul", ["x", "w"], ["before"]),
            helper.make_node(operator, ["before"], [second]),
        ]
        value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 4])
        outputs = [helper.make_tensor_value_info(each, TensorProto.FLOAT, [None, 4]) for each in (first, second)]
        weight = numpy_helper.from_array(np.arange(1, 5, dtype=np.float32), "w")
        graph = helper.make_graph(nodes, "g", [value], outputs, [weight])
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
        onnx.save(model, tmp_path / f"{name}.onnx")
    assert converter.verify(tmp_path / "right.onnx", tmp_path / "right.onnx").verification.outputs
    with pytest.raises(VerificationError, match="differs"):
        converter.verify(tmp_path / "right.onnx", tmp_path / "wrong.onnx")


def test_a_number_stays_an_array_when_it_is_nudged() -> None:
    """numpy makes a scalar of it, which onnxruntime does not take."""
    found = nudged(np.array(2, np.float32), "scale")
    assert (type(found), found.shape, found.dtype) == (np.ndarray, (), np.dtype(np.float32))
