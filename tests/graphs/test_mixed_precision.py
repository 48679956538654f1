"""Keras models of a mixed policy: their graphs compute what tf_keras or Keras did, as closely as float16 allows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import ml_dtypes
import numpy as np
import pytest

import converter
from converter.graphs.passes.rounding import rounded_outputs
from converter.graphs.run.canary import OWN_TYPE, nudged
from converter.graphs.trace.tensorflow.keras_2 import as_keras_3, mixed_policy

for framework in ("tensorflow", "torch", "transformers", "onnxruntime", "tf2onnx"):
    pytest.importorskip(framework)

import onnx_ir  # noqa: E402
from onnx import TensorProto, helper  # noqa: E402

FIXTURES = Path(__file__).resolve().parents[2] / "fixtures" / "keras-mixed"
CASES = [f"layers-{policy}{suffix}" for policy in ("mixed_float16", "mixed_bfloat16") for suffix in (".h5", ".keras")]
CASES += ["encoder.h5", "encoder.keras"]
CLOSE = {"float16": 1e-2, "bfloat16": 6e-2}
"""Of an element and of the median, as two computations in such a type differ."""
HALF = {"layers-mixed_float16": "float16", "layers-mixed_bfloat16": "bfloat16", "encoder": "float16"}


def stored(case: str) -> tuple[dict[str, Any], dict[str, Any], dict[str, str]]:
    """Inputs, outputs, and the types of the latter, that tf_keras gave."""
    with np.load(FIXTURES / f"{case.partition('.')[0]}.npz") as arrays:
        kinds = [
            {name.partition(":")[2]: arrays[name] for name in arrays.files if name.startswith(f"{kind}:")}
            for kind in ("in", "out")
        ]
        return kinds[0], kinds[1], dict(each.split(":") for each in arrays["types"])


def run_onnx(file: Path, inputs: dict[str, Any]) -> dict[str, Any]:
    from converter.graphs.run import onnxruntime
    from converter.graphs.run.arrays import read_arrays, write_sets

    write_sets(str(file.parent / "in.npz"), {"0": inputs})
    found = onnxruntime.run(model=str(file), inputs=str(file.parent / "in.npz"), outputs=str(file.parent / "out.npz"))
    assert found["failed"] == {}
    return {key.partition("/")[2]: array for key, array in read_arrays(str(file.parent / "out.npz")).items()}


def assert_close(found: Any, wanted: Any, half: str) -> None:
    close = CLOSE[half]
    np.testing.assert_allclose(found.astype(np.float32), wanted, rtol=close, atol=close * np.median(np.abs(wanted)))


def check(case: str, found: dict[str, Any]) -> None:
    _, wanted, types = stored(case)
    assert {name: array.dtype.name for name, array in found.items()} == types
    for name, each in wanted.items():
        assert_close(found[name], each, HALF[case.partition(".")[0]])


@pytest.mark.parametrize("case", CASES)
def test_a_file_of_keras_2_becomes_a_graph_with_its_types(case: str, tmp_path: Path) -> None:
    report = converter.convert(FIXTURES / case, tmp_path / "out.onnx", optimizer="drop")
    assert report.verification.outputs
    check(case, run_onnx(tmp_path / "out.onnx", stored(case)[0]))
    half = HALF[case.partition(".")[0]]
    computed = {each.name: each.computed_in for each in report.verification.per_output}
    assert set(computed.values()) == {half}
    assert any(f"float32 computed in {half}, max|d|" in each for each in report.verification.details)


@pytest.mark.parametrize("case", ["layers-mixed_float16.keras", "layers-mixed_bfloat16.h5"])
def test_the_optimizer_inside_one_that_scales_the_loss_goes_along(case: str, tmp_path: Path) -> None:
    import tensorflow as tf

    report = converter.convert(FIXTURES / case, tmp_path / "out", to="savedmodel", optimizer="keep")
    assert report.verification.outputs
    loaded = tf.saved_model.load(str(tmp_path / "out"))
    assert any("exp_avg" in each.name for each in loaded.optimizer.variables)
    found = loaded.signatures["serving_default"](**{k: tf.constant(v) for k, v in stored(case)[0].items()})
    check(case, {name: each.numpy() for name, each in found.items()})


@pytest.mark.parametrize("case", ["layers-mixed_bfloat16.keras", "encoder.h5"])
def test_a_program_of_torch_has_its_types(case: str, tmp_path: Path) -> None:
    import torch

    assert converter.convert(FIXTURES / case, tmp_path / "out.pt2", optimizer="drop").verification.outputs
    module = torch.export.load(tmp_path / "out.pt2").module()
    found = module(**{name: torch.from_numpy(each) for name, each in stored(case)[0].items()})
    arrays = {name: each.detach().float().numpy() for name, each in found.items()}
    types = {name: str(each.dtype).removeprefix("torch.") for name, each in found.items()}
    assert types == stored(case)[2]
    check(case, {name: array.astype(types[name]) for name, array in arrays.items()})


def test_a_note_says_what_of_a_policy_the_model_of_transformers_has(tmp_path: Path) -> None:
    report = converter.convert(FIXTURES / "encoder.h5", tmp_path / "out.onnx")
    (said,) = (each for each in report.warnings if "is computed as PyTorch's" in each)
    assert said.endswith("it computes in float32, and gives what mixed_float16 has layers give")


def test_policies_of_keras_2_in_the_words_of_keras_3() -> None:
    for class_name in ("Policy", "PolicyV1"):
        policy = {"class_name": class_name, "config": {"name": "mixed_bfloat16", "loss_scale": None}}
        given = {"class_name": "Dense", "config": {"name": "dense", "units": 3, "dtype": policy}}
        assert as_keras_3(given)["config"]["dtype"] == "mixed_bfloat16"
        other = {"class_name": "Dense", "config": {"dtype": {**policy, "config": {"name": "mixed_float16"}}}}
        assert mixed_policy([given, {"dtype": "float32"}]) == "mixed_bfloat16"
        assert mixed_policy([given, other]) is None
    assert mixed_policy({"dtype": "float32"}) is None


@pytest.mark.parametrize("policy", ["mixed_float16", "bfloat16"])
def test_a_model_of_keras_3_and_its_saved_model(policy: str, tmp_path: Path) -> None:
    keras = pytest.importorskip("keras")
    half = policy.removeprefix("mixed_")
    dtype = keras.DTypePolicy(policy)
    inputs = keras.Input((5, 4), name="x", dtype=half)
    hidden = keras.layers.GRU(6, recurrent_initializer="glorot_uniform", dtype=dtype)(inputs)
    single = keras.layers.Dense(3, activation="gelu", name="single", dtype="float32")(hidden)
    model = keras.Model(inputs, [keras.layers.Dense(2, name="half", dtype=dtype)(hidden), single])
    model.save(tmp_path / "model.keras")
    model.export(tmp_path / "saved", verbose=False)
    given = np.random.default_rng(3).random((4, 5, 4), np.float32).astype(half)
    wanted = [np.asarray(each).astype(np.float32) for each in model(given)]
    for source, names in (("model.keras", ("half", "single")), ("saved", ("output_0", "output_1"))):
        report = converter.convert(tmp_path / source, tmp_path / "out.onnx", overwrite=True)
        assert report.verification.outputs
        assert [each.computed_in for each in report.verification.per_output] == [half, half]
        graph = onnx_ir.load(tmp_path / "out.onnx").graph
        assert graph.inputs[0].dtype.name == half.upper()
        found = run_onnx(tmp_path / "out.onnx", {graph.inputs[0].name: given})
        assert [found[name].dtype.name for name in names] == [half, "float32"]
        for name, each in zip(names, wanted, strict=True):
            assert_close(found[name], each, half)


def test_layers_inside_one_of_the_users_own_have_the_policy(tmp_path: Path) -> None:
    keras = pytest.importorskip("keras")
    from tests.graphs.own_layers import Tower

    keras.mixed_precision.set_global_policy("mixed_float16")
    try:
        inputs = keras.Input((3,), name="x")
        model = keras.Model(inputs, keras.layers.Dense(2, name="y", dtype="float32")(Tower()(inputs)))
    finally:
        keras.mixed_precision.set_global_policy("float32")
    random = np.random.default_rng(3)
    for each in model.weights:
        each.assign(0.5 + random.random(each.shape, np.float32))
    model.save(tmp_path / "model.keras")
    given = random.random((4, 3), np.float32)
    own = ("tests.graphs.own_layers:Tower",)
    report = converter.convert(tmp_path / "model.keras", tmp_path / "out.onnx", custom_objects=own)
    assert [each.computed_in for each in report.verification.per_output] == ["float16"]
    assert_close(run_onnx(tmp_path / "out.onnx", {"x": given})["y"], np.asarray(model(given)), "float16")


def test_what_reads_the_bits_of_a_bfloat16_is_refused() -> None:
    import tensorflow as tf

    from converter.errors import GraphError
    from converter.graphs.trace.tensorflow.bfloat16 import computed_in_float32

    @tf.function(input_signature=[tf.TensorSpec([None], tf.bfloat16)])
    def bits(x: Any) -> Any:
        return tf.bitcast(x + x, tf.uint16)

    with pytest.raises(GraphError, match="reads the bits of a bfloat16"):
        computed_in_float32(bits.get_concrete_function().graph.as_graph_def())
    other = tf.function(lambda x: x + x, input_signature=[tf.TensorSpec([None], tf.float32)])
    graph = other.get_concrete_function().graph.as_graph_def()
    before = graph.SerializeToString(deterministic=True)
    computed_in_float32(graph)
    assert graph.SerializeToString(deterministic=True) == before


# which outputs are rounded

FLOAT, SHORT = TensorProto.FLOAT, TensorProto.FLOAT16


def rounded(nodes: list[Any], outputs: dict[str, int], *, constants: tuple[Any, ...] = (), **more: Any) -> Any:
    """What is found of a graph of `x`, float32; nothing is known of the types of what is inside."""
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", FLOAT, ["n"])],
        [helper.make_tensor_value_info(name, dtype, None) for name, dtype in outputs.items()],
        list(constants),
    )
    imports = [helper.make_opsetid("", 20), helper.make_opsetid("own", 1)]
    made = helper.make_model(graph, opset_imports=imports, ir_version=10, **more)
    return rounded_outputs(onnx_ir.from_proto(made))


def cast(before: str, after: str, dtype: int) -> Any:
    return helper.make_node("Cast", [before], [after], to=dtype)


def test_only_what_comes_of_rounded_values_is_rounded() -> None:
    weight = helper.make_tensor("w", SHORT, [1], [0.1])
    nodes = [
        cast("x", "short", SHORT),
        helper.make_node("Tanh", ["short"], ["inside"]),
        cast("inside", "rounded", FLOAT),
        cast("x", "shorter", TensorProto.BFLOAT16),
        cast("shorter", "back", FLOAT),
        helper.make_node("Add", ["rounded", "back"], ["both"]),
        cast("w", "wide", FLOAT),  # a weight of float16 is what it is
        helper.make_node("Add", ["x", "wide"], ["exact"]),
        helper.make_node("Shape", ["inside"], ["extents"]),
        helper.make_node("Expand", ["x", "extents"], ["expanded"]),
        helper.make_node("ArgMax", ["inside"], ["index"], axis=0),
    ]
    outputs = dict.fromkeys(("rounded", "both", "exact", "expanded"), FLOAT) | {"index": TensorProto.INT64}
    found = rounded(nodes, outputs, constants=(weight,))
    assert found == {"rounded": "float16", "both": "bfloat16", "index": "float16"}


def test_what_is_rounded_in_a_branch_or_a_function() -> None:
    def branch(name: str, nodes: list[Any], output: str) -> Any:
        return helper.make_graph(nodes, name, [], [helper.make_tensor_value_info(output, FLOAT, None)])

    rounds = [cast("x", "s", SHORT), helper.make_node("Exp", ["s"], ["e"]), cast("e", "r", FLOAT)]
    keeps = [helper.make_node("Identity", ["x"], ["k"])]
    for first, of_first in ((rounds, "r"), (keeps, "k")):
        node = helper.make_node(
            "If",
            ["c"],
            ["y"],
            then_branch=branch("then", first, of_first),
            else_branch=branch("else", [helper.make_node("Neg", ["x"], ["n"])], "n"),
        )
        condition = helper.make_node("ReduceMax", ["b"], ["m"], keepdims=0)
        nodes = [cast("x", "b", TensorProto.INT32), condition, cast("m", "c", TensorProto.BOOL), node]
        assert rounded(nodes, {"y": FLOAT}) == ({"y": "float16"} if first is rounds else {})
    own = helper.make_function(
        "own", "Own", ["v"], ["o"], [helper.make_node("Exp", ["v"], ["o"])], [helper.make_opsetid("", 20)]
    )
    for dtype, found in ((SHORT, {"y": "float16"}), (FLOAT, {})):
        nodes = [cast("x", "s", dtype), helper.make_node("Own", ["s"], ["o"], domain="own"), cast("o", "y", FLOAT)]
        assert rounded(nodes, {"y": FLOAT}, functions=[own]) == found


def test_a_weight_is_rounded_elsewhere_in_the_type_that_is_computed_in() -> None:
    values = np.linspace(1, 2, 1000, dtype=np.float32)
    for dtype, most in ((OWN_TYPE, 2.4e-7), ("float16", 2e-3), ("bfloat16", 1.6e-2)):
        moved = np.abs(nudged(values, "a", dtype) - values) / values
        assert most / 4 < moved.max() <= most
    half = values.astype(ml_dtypes.bfloat16)
    np.testing.assert_array_equal(nudged(half, "a", "float16"), nudged(half, "a"))


def test_the_policy_stays_in_a_config_that_is_copied(tmp_path: Path) -> None:
    converter.convert(FIXTURES / "layers-mixed_float16.h5", tmp_path / "out.h5", optimizer="drop")
    with h5py.File(tmp_path / "out.h5") as file:
        layers = json.loads(file.attrs["model_config"])["config"]["layers"]
    assert layers[1]["config"]["dtype"]["config"] == {"name": "mixed_float16"}
