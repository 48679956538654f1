"""Frozen graphs of TensorFlow 1: constants are weights, and the graph computes what it did."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import converter
from converter.errors import ArchitectureError, CkconvError, ReadError, SafetyError, UsageError

tf = pytest.importorskip("tensorflow")
onnxruntime = pytest.importorskip("onnxruntime")
v1 = tf.compat.v1

KERNEL = np.linspace(-1, 1, 54, dtype=np.float32).reshape(3, 3, 2, 3)
MATRIX = np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 4)
IMAGES = np.random.default_rng(0).normal(size=(2, 6, 6, 2)).astype(np.float32)


def frozen(path: Path, build: Callable[[], None]) -> Path:
    with tf.Graph().as_default() as graph:
        build()
    path.write_bytes(graph.as_graph_def().SerializeToString())
    return path


def run(path: Path, names: list[str], inputs: dict[str, Any]) -> list[Any]:
    definition = v1.GraphDef.FromString(path.read_bytes())
    with tf.Graph().as_default() as graph, v1.Session(graph=graph) as session:
        tf.import_graph_def(definition, name="")
        found: list[Any] = session.run(
            [f"{name}:0" for name in names], {f"{key}:0": each for key, each in inputs.items()}
        )
        return found


def classifier() -> None:
    images = v1.placeholder(tf.float32, (None, 6, 6, 2), name="images")
    keep = v1.placeholder_with_default(np.float32(0.5), (), name="keep")
    mapped = tf.nn.relu(tf.nn.conv2d(images, tf.constant(KERNEL, name="net/conv/kernel"), 1, "SAME"))
    pooled = tf.reduce_mean(mapped, (1, 2)) * keep
    logits = tf.add(tf.matmul(pooled, tf.constant(MATRIX, name="net/fc/w")), 1.0, name="net/logits")
    tf.argmax(logits, 1, name="label", output_type=tf.int32)
    tf.nn.softmax(logits, name="net/scores")


def test_weights_are_the_constants_of_numbers(tmp_path: Path) -> None:
    checkpoint = converter.read(frozen(tmp_path / "graph.pb", classifier))
    assert {name: tensor.shape for name, tensor in checkpoint.tensors.items()} == {
        "net/conv/kernel": KERNEL.shape,
        "net/fc/w": MATRIX.shape,
    }
    assert np.array_equal(checkpoint.tensors["net/conv/kernel"].numpy(), KERNEL)


def test_the_graph_computes_what_it_did(tmp_path: Path) -> None:
    path = frozen(tmp_path / "graph.pb", classifier)
    report = converter.convert(path, tmp_path / "graph.onnx")
    assert any("what nothing in the graph takes: label, net/scores" in note for note in report.warnings)
    session = onnxruntime.InferenceSession(str(tmp_path / "graph.onnx"))
    assert [each.name for each in session.get_outputs()] == ["label", "net/scores"]
    label, scores = run(path, ["label", "net/scores"], {"images": IMAGES})
    ours = session.run(None, {"images": IMAGES})
    assert np.array_equal(ours[0], label)
    np.testing.assert_allclose(ours[1], scores, atol=1e-6)


def test_the_graph_becomes_a_saved_model(tmp_path: Path) -> None:
    path = frozen(tmp_path / "graph.pb", classifier)
    converter.convert(path, tmp_path / "served", to="savedmodel")
    function = tf.saved_model.load(str(tmp_path / "served")).signatures["serving_default"]
    scores = run(path, ["net/scores"], {"images": IMAGES})[0]
    found = [each.numpy() for each in function(images=tf.constant(IMAGES)).values()]
    (ours,) = [each for each in found if each.shape == scores.shape]
    np.testing.assert_allclose(ours, scores, atol=1e-6)


def armed() -> None:
    text = tf.io.read_file("/etc/hostname")
    tf.add(tf.strings.to_number(text), tf.constant(MATRIX, name="w"), name="y")


def without_inputs() -> None:
    tf.add(tf.constant(MATRIX, name="w"), tf.constant(MATRIX, name="v"), name="y")


@pytest.mark.parametrize(
    ("build", "kind", "what"), [(armed, SafetyError, "ReadFile"), (without_inputs, ArchitectureError, "without inputs")]
)
def test_what_computes_nothing_of_inputs_alone_has_weights_and_no_graph(
    build: Callable[[], None], kind: type[CkconvError], what: str, tmp_path: Path
) -> None:
    path = frozen(tmp_path / "graph.pb", build)
    with pytest.raises(kind, match=what):
        converter.convert(path, tmp_path / "graph.onnx")
    converter.convert(path, tmp_path / "graph.safetensors")
    assert np.array_equal(converter.read(tmp_path / "graph.safetensors").tensors["w"].numpy(), MATRIX)


def test_a_graph_without_weights_says_where_they_are(tmp_path: Path) -> None:
    path = frozen(tmp_path / "graph.pb", lambda: v1.placeholder(tf.float32, (None, 6), name="images"))
    with pytest.raises(ReadError, match="without weights: they are in a checkpoint"):
        converter.read(path)
    with pytest.raises(UsageError, match="a frozen graph has none"):
        converter.convert(frozen(path, classifier), tmp_path / "x.onnx", signature="a")


@pytest.mark.parametrize("step", range(1, 20))
def test_a_graph_that_is_cut_short_is_refused(step: int, tmp_path: Path) -> None:
    whole = frozen(tmp_path / "graph.pb", classifier).read_bytes()
    (tmp_path / "graph.pb").write_bytes(whole[: len(whole) * step // 20])
    with pytest.raises(ReadError):
        converter.read(tmp_path / "graph.pb")


def test_a_constant_of_one_number_takes_as_much_memory_as_small_ones_do(tmp_path: Path) -> None:
    def repeated(count: int) -> Callable[[], None]:
        def build() -> None:
            node = tf.constant(0.5, shape=(2, 2), name="w").op.node_def
            node.attr["value"].tensor.tensor_shape.dim[0].size = count
            definitions.append(node)

        return build

    for count, is_read in ((1000, True), (1 << 40, False)):
        definitions: list[Any] = []
        frozen(tmp_path / "unused.pb", repeated(count))
        (tmp_path / "graph.pb").write_bytes(v1.GraphDef(node=definitions).SerializeToString())
        if is_read:
            assert (converter.read(tmp_path / "graph.pb").tensors["w"].numpy() == 0.5).all()
        else:
            with pytest.raises(ReadError, match="is larger than what is stored of it"):
                converter.read(tmp_path / "graph.pb")
