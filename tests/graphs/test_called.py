"""SavedModels without a signature: what their root computes when it is called is the graph, and nothing is loaded.

With CKCONV_ORACLE_PYTHON a model of Keras 2 is one of them.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import converter
from converter.errors import ArchitectureError, CkconvError, GraphError, ReadError, SafetyError, UsageError
from converter.graphs.trace.tensorflow.cutting import Cut, cut

ROOT = Path(__file__).parents[2]

tf = pytest.importorskip("tensorflow")
onnxruntime = pytest.importorskip("onnxruntime")

ORACLE = os.environ.get("CKCONV_ORACLE_PYTHON", "")
KEYS = ("abc", "\u00b2", "\u0663", "", "9" * 5000, "-1", "-5", " 0", "0_0")
"""Names of arguments where positions are to be."""
FREE, FIXED = tf.TensorSpec([None, 4], tf.float32), tf.TensorSpec([2, 4], tf.float32)
SHIFT = {"zeta": tf.TensorSpec([], tf.float32, name="last"), "alpha": tf.TensorSpec([], tf.float32)}
KERAS_2 = """
import sys, tensorflow as tf, tf_keras as keras
start = keras.Input((4,), name="first")
here = keras.layers.Dropout(0.5)(keras.layers.BatchNormalization()(keras.layers.Dense(3)(start)))
tf.saved_model.save(keras.Model(start, here), sys.argv[1], signatures={})
"""


class Scaled(tf.Module):  # type: ignore[misc]
    """y = relu(x w + b) c, c a constant."""

    def __init__(self) -> None:
        super().__init__()
        self.w = tf.Variable(np.arange(12, dtype=np.float32).reshape(4, 3) / 7 - 0.5, name="w")
        self.b = tf.Variable([0.5, -1.0, 2.0], name="b")
        self.c = tf.constant([2.0, 3.0, 4.0])

    @tf.function(input_signature=[FREE])  # type: ignore[untyped-decorator]
    def __call__(self, x: Any) -> Any:
        return tf.nn.relu(x @ self.w + self.b) * self.c


class Several(tf.Module):  # type: ignore[misc]
    """What is traced in the ways that a test says."""

    def __init__(self) -> None:
        super().__init__()
        self.w = tf.Variable(np.eye(4, 3, dtype=np.float32), name="w")

    @tf.function  # type: ignore[untyped-decorator]
    def __call__(
        self, x: Any, training: bool = False, *, zeta: Any = None, alpha: Any = None, kind: str = "plain"
    ) -> dict[str, Any]:
        y = tf.nn.dropout(x @ self.w, 0.5) if training else x @ self.w
        if zeta is not None:
            y = y + zeta - 2 * alpha
        return {"b": -y if kind == "turned" else y, "a": (y * 2, y * 3)}


def saved(root: Any, folder: Path) -> Path:
    tf.saved_model.save(root, str(folder), signatures={})
    return folder


def several(folder: Path, *ways: tuple[Any, dict[str, Any]]) -> Path:
    root = Several()
    for spec, arguments in ways:
        root.__call__.get_concrete_function(spec, **arguments)
    return saved(root, folder)


def cut_of(model: Path) -> Cut:
    return cut((model / "saved_model.pb").read_bytes())


@pytest.fixture(scope="module")
def scaled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(Scaled(), tmp_path_factory.mktemp("scaled") / "model")


def changed(model: Path, change: Callable[[Any], object]) -> bytes:
    """The SavedModel with its MetaGraphDef changed."""
    from tensorflow.core.protobuf import saved_model_pb2

    found = saved_model_pb2.SavedModel.FromString((model / "saved_model.pb").read_bytes())
    change(found.meta_graphs[0])
    data: bytes = found.SerializeToString()
    return data


def called(meta_graph: Any) -> tuple[str, Any]:
    """The name and the description of what `__call__` was traced as."""
    objects = meta_graph.object_graph_def
    (name,) = next(each.function.concrete_functions for each in objects.nodes if each.HasField("function"))
    return name, objects.concrete_functions[name]


@pytest.mark.parametrize("target", ["onnx", "savedmodel", "pt2"])
def test_a_module_that_is_called_is_converted(scaled: Path, target: str, tmp_path: Path) -> None:
    report = converter.convert(scaled, tmp_path / "out", to=target)
    assert report.verification.outputs
    assert "no signature: the graph is that of __call__(x [?, 4])" in report.warnings
    assert report.counts["mapped"] == 2
    if target == "onnx":
        x = np.linspace(-2, 2, 20, dtype=np.float32).reshape(5, 4)
        session = onnxruntime.InferenceSession(os.fspath(tmp_path / "out"), providers=["CPUExecutionProvider"])
        (y,) = session.run(["output_0"], {"x": x})
        np.testing.assert_allclose(y, Scaled()(x).numpy(), rtol=1e-5)


def test_the_one_that_serves_and_takes_most_is_taken(tmp_path: Path) -> None:
    model = several(
        tmp_path / "model",
        (FREE, {"training": True, **SHIFT}),
        (FIXED, {"training": False, **SHIFT}),
        (FREE, {"training": False, **SHIFT}),
    )
    found = cut_of(model)
    assert found.note == (
        "no signature: the graph is that of __call__(x [?, 4], alpha [], kind=plain, zeta []), one of the 3 ways in "
        "which it was traced"
    )
    assert list(found.signature.inputs) == ["x", "alpha", "last"]
    assert list(found.signature.outputs) == ["a_0", "a_1", "b"]
    assert b"RandomUniform" in (model / "saved_model.pb").read_bytes()
    assert b"RandomUniform" not in found.graph
    assert converter.convert(model, tmp_path / "out.onnx").verification.outputs
    session = onnxruntime.InferenceSession(os.fspath(tmp_path / "out.onnx"), providers=["CPUExecutionProvider"])
    given = {"x": np.eye(4, dtype=np.float32), "alpha": np.array(3, np.float32), "last": np.array(5, np.float32)}
    expected = Several()(given["x"], zeta=given["last"], alpha=given["alpha"])
    np.testing.assert_allclose(session.run(["b"], given)[0], expected["b"].numpy())


def test_only_training_is_better_than_nothing(tmp_path: Path) -> None:
    model = several(tmp_path / "model", (FREE, {"training": True}))
    assert "__call__(x [?, 4], training=True, kind=plain)" in cut_of(model).note


@pytest.mark.parametrize(
    ("ways", "shown"),
    [
        (
            [(FREE, {}), (FREE, SHIFT)],
            r"\(x \[\?, 4\], kind=plain\); \(x \[\?, 4\], alpha \[\], kind=plain, zeta \[\]\)",
        ),
        ([(FREE, {"kind": "plain"}), (FREE, {"kind": "turned"})], "kind=plain.*kind=turned"),
        ([(FIXED, {}), (tf.TensorSpec([3, 4], tf.float32), {})], r"\[2, 4\].*\[3, 4\]"),
    ],
)
def test_ways_that_differ_are_named(ways: list[tuple[Any, dict[str, Any]]], shown: str, tmp_path: Path) -> None:
    model = several(tmp_path / "model", *ways)
    with pytest.raises(ArchitectureError, match=f"traced in 2 ways.*{shown}") as caught:
        converter.convert(model, tmp_path / "out.onnx")
    assert "\n" not in str(caught.value)
    assert converter.convert(model, tmp_path / "out", to="savedmodel", weights_only=True).counts["mapped"] == 1


def test_what_was_never_traced_has_no_graph(tmp_path: Path) -> None:
    model = saved(Several(), tmp_path / "model")
    with pytest.raises(ArchitectureError, match="no signature"):
        cut_of(model)


def write(mark: Path) -> Any:
    class Writing(Scaled):
        @tf.function(input_signature=[FREE])  # type: ignore[untyped-decorator]
        def __call__(self, x: Any) -> Any:
            tf.io.write_file(str(mark), "written")
            return x @ self.w

    return Writing()


def test_an_operator_that_it_reaches_is_refused(scaled: Path, tmp_path: Path) -> None:
    cut_of(scaled)
    mark = tmp_path / "mark"
    model = saved(write(mark), tmp_path / "model")
    mark.unlink(missing_ok=True)
    with pytest.raises(SafetyError, match="operator WriteFile") as caught:
        converter.convert(model, tmp_path / "out.onnx")
    assert caught.value.exit_code == 5
    assert not mark.exists()


def test_an_operator_out_of_its_reach_is_gone(tmp_path: Path) -> None:
    root, mark = Scaled(), tmp_path / "mark"

    @tf.function(input_signature=[FREE])  # type: ignore[untyped-decorator]
    def other(x: Any) -> Any:
        tf.io.write_file(str(mark), "written")
        return x @ root.w

    root.other = other
    model = saved(root, tmp_path / "model")
    mark.unlink(missing_ok=True)
    assert b"WriteFile" in (model / "saved_model.pb").read_bytes()
    assert b"WriteFile" not in cut_of(model).graph
    assert converter.convert(model, tmp_path / "out.onnx").verification.outputs
    assert not mark.exists()


def _captures_less(graph: Any) -> None:
    del called(graph)[1].bound_inputs[-1]


def _takes_another_type(graph: Any) -> None:
    arguments = called(graph)[1].canonicalized_input_signature.tuple_value.values[0].tuple_value
    arguments.values[0].tensor_spec_value.dtype = tf.int32.as_datatype_enum


def _returns_another_type(graph: Any) -> None:
    called(graph)[1].output_signature.tensor_spec_value.dtype = tf.int32.as_datatype_enum


def _is_not_there(graph: Any) -> None:
    functions = graph.graph_def.library.function
    del functions[[each.signature.name for each in functions].index(called(graph)[0])]


def _captures_a_place(graph: Any) -> None:
    next(each for each in graph.object_graph_def.nodes if each.HasField("constant")).constant.operation += ":0"


def _nests_arguments(graph: Any) -> None:
    value = called(graph)[1].canonicalized_input_signature.tuple_value.values[0]
    for _ in range(60):
        value = value.tuple_value.values.add()


def _says_an_argument_without_a_name(graph: Any) -> None:
    arguments = called(graph)[1].canonicalized_input_signature.tuple_value.values[0].tuple_value
    arguments.values[0].tensor_spec_value.name = ""
    for _ in range(5):
        arguments.values.add().CopyFrom(arguments.values[0])


def _calls_an_argument(key: str, *, is_position_known: bool = True) -> Callable[[Any], None]:
    """Its arguments are those of a dictionary, not of a list."""

    def change(graph: Any) -> None:
        name, said = called(graph)
        signature = said.canonicalized_input_signature
        spec = type(signature).FromString(signature.tuple_value.values[0].tuple_value.values[0].SerializeToString())
        signature.Clear()
        signature.dict_value.fields["0"].dict_value.fields[key].CopyFrom(spec)
        if not is_position_known:
            function = next(each.function for each in graph.object_graph_def.nodes if each.HasField("function"))
            assert name in function.concrete_functions
            function.ClearField("function_spec")

    return change


def _captures_no_variable(graph: Any) -> None:
    _, said = called(graph)
    said.bound_inputs[0] = 0


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        (_captures_less, ReadError, "takes something else"),
        (_takes_another_type, ReadError, "takes something else"),
        (_returns_another_type, ReadError, "returns something else"),
        (_is_not_there, ReadError, "is not there"),
        (_captures_a_place, ReadError, "node is called"),
        (_nests_arguments, ReadError, "nested"),
        (_says_an_argument_without_a_name, ReadError, "takes something else"),
        *((_calls_an_argument(key), ReadError, "arguments are not declared") for key in KEYS),
        *((_calls_an_argument(key, is_position_known=False), ReadError, "arguments are not declared") for key in KEYS),
        (_captures_no_variable, GraphError, "a resource that is no variable"),
    ],
)
def test_objects_and_graph_that_do_not_agree(
    change: Callable[[Any], object], error: type[CkconvError], match: str, scaled: Path
) -> None:
    cut(changed(scaled, lambda graph: None))
    with pytest.raises(error, match=match):
        cut(changed(scaled, change))


def test_what_is_no_tensor_is_refused(tmp_path: Path) -> None:
    class Ragged(Scaled):
        @tf.function(input_signature=[tf.RaggedTensorSpec([None, None], tf.float32)])  # type: ignore[untyped-decorator]
        def __call__(self, x: Any) -> Any:
            return tf.reduce_sum(x) * self.c

    with pytest.raises(GraphError, match="'x' of __call__ is not one tensor"):
        cut_of(saved(Ragged(), tmp_path / "model"))


def _traced_again(count: int) -> Callable[[Any], None]:
    """The last of all these ways takes most."""

    def change(graph: Any) -> None:
        name, said = called(graph)
        objects, library = graph.object_graph_def, graph.graph_def.library.function
        body = next(each for each in library if each.signature.name == name)
        function = next(each.function for each in objects.nodes if each.HasField("function"))
        names = [name, *(f"again_{number}" for number in range(1, count))]
        for again in names[1:]:
            copy = library.add()
            copy.CopyFrom(body)
            copy.signature.name = again
            objects.concrete_functions[again].CopyFrom(said)
        for way in names[:-1]:
            arguments = objects.concrete_functions[way].canonicalized_input_signature.tuple_value.values[0].tuple_value
            arguments.values[0].tensor_spec_value.shape.dim[0].size = 3
        function.concrete_functions[:] = names

    return change


def test_thousands_of_ways_take_no_time(scaled: Path) -> None:
    data = changed(scaled, _traced_again(3000))
    started = time.process_time()
    assert "__call__(x [?, 4]), one of the 3000 ways" in cut(data).note
    assert time.process_time() - started < 10


class Nested(Scaled):
    """What calls a function that is given no variable."""

    @tf.function(input_signature=[FREE])  # type: ignore[untyped-decorator]
    def __call__(self, x: Any) -> Any:
        return tf.function(lambda y: tf.nn.relu(y) * 3)(x @ self.w)


def test_names_that_are_given_here_are_free(tmp_path: Path) -> None:
    model = saved(Nested(), tmp_path / "model")

    def renamed(graph: Any) -> None:
        name, _ = called(graph)
        body, inner = (
            next(each for each in graph.graph_def.library.function if each.signature.name.startswith(start))
            for start in (name, "__inference_<lambda>")
        )
        (call,) = (node for node in body.node_def if "f" in node.attr)
        inner.signature.name = call.attr["f"].func.name = f"{name}_of_values_0"

    (model / "saved_model.pb").write_bytes(changed(model, renamed))
    assert converter.convert(model, tmp_path / "out.onnx").verification.outputs


def test_a_node_called_as_one_that_is_added_is_refused(scaled: Path) -> None:
    from converter.graphs.trace.tensorflow.conversion import Source, convert
    from converter.graphs.trace.tensorflow.serving import serve

    served = serve(scaled)
    graph = served.graph_def()
    graph.node.add(name="output_of_signature_0", op="NoOp")
    with pytest.raises(GraphError, match="has a node called 'output_of_signature_0'"):
        convert(Source(title="it", graph=graph, inputs=served.inputs, outputs=served.outputs, variables={}))


@pytest.mark.skipif(not ORACLE, reason="CKCONV_ORACLE_PYTHON is not set")
def test_a_model_of_keras_2(tmp_path: Path) -> None:
    done = subprocess.run([ORACLE, "-c", KERAS_2, tmp_path / "model"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    report = converter.convert(tmp_path / "model", tmp_path / "out.onnx")
    assert report.verification.outputs
    assert any(each.startswith("no signature: the graph is that of __call__(") for each in report.warnings)
    assert (
        b"Dropout" not in cut_of(tmp_path / "model").graph or b"RandomUniform" not in cut_of(tmp_path / "model").graph
    )


class TwoWays(tf.Module):  # type: ignore[misc]
    """Two functions of one variable."""

    def __init__(self) -> None:
        super().__init__()
        self.w = tf.Variable(np.arange(12, dtype=np.float32).reshape(4, 3) / 7 - 0.5, name="w")

    @tf.function(input_signature=[FREE])  # type: ignore[untyped-decorator]
    def embed(self, x: Any) -> dict[str, Any]:
        return {"embedded": x @ self.w}

    @tf.function(input_signature=[FREE])  # type: ignore[untyped-decorator]
    def raw(self, x: Any) -> dict[str, Any]:
        return {"summed": tf.reduce_sum(x @ self.w, axis=1)}


def test_a_signature_is_chosen_by_name(tmp_path: Path) -> None:
    module = TwoWays()
    tf.saved_model.save(module, str(tmp_path / "m"), signatures={"embed": module.embed, "raw": module.raw})
    with pytest.raises(ArchitectureError, match=r"none of them serving_default: embed, raw") as raised:
        converter.convert(tmp_path / "m", tmp_path / "m.onnx")
    assert raised.value.hint == "--signature NAME says which"
    x = np.linspace(-1, 1, 8, dtype=np.float32).reshape(2, 4)
    for name, output in {"embed": "embedded", "raw": "summed"}.items():
        converter.convert(tmp_path / "m", tmp_path / f"{name}.onnx", signature=name, verify="outputs")
        session = onnxruntime.InferenceSession(str(tmp_path / f"{name}.onnx"))
        assert [each.name for each in session.get_outputs()] == [output]
        expected = getattr(module, name)(x)[output].numpy()
        np.testing.assert_allclose(session.run(None, {"x": x})[0], expected, atol=1e-6)
    with pytest.raises(UsageError, match="--signature other: the SavedModel has embed, raw"):
        converter.convert(tmp_path / "m", tmp_path / "other.onnx", signature="other")
    with pytest.raises(UsageError, match="--signature decides nothing of a target that has no graph"):
        converter.convert(tmp_path / "m", tmp_path / "m.pth", signature="raw")


def test_a_signature_is_for_saved_models(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="made of a SavedModel's, and none is"):
        converter.convert(ROOT / "fixtures" / "graphs" / "cnn.keras", tmp_path / "m.onnx", signature="raw")
