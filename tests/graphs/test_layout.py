"""SavedModels whose weights are TensorFlow's kernels: names, layouts, that they run and train, and the way back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import converter
from converter.errors import UsageError
from converter.model.kernels import kernel_axes, weight_axes
from converter.model.tensor import is_equal
from converter.proof.weights import verify_optimizer

pytest.importorskip("tensorflow")

pytestmark = pytest.mark.one_in(2)

CONVOLUTIONS = {"model": "tests.graphs.user_models:Convolutions", "inputs": "image:float32[batch,3,12,12]"}


@pytest.fixture(scope="module")
def kernels_of_bert(tmp_path_factory: pytest.TempPathFactory, squad_bert: Path) -> Path:
    path = tmp_path_factory.mktemp("layout") / "out"
    report = converter.convert(squad_bert, path, to="savedmodel", layout="tensorflow")
    assert report.verification.outputs
    assert report.optimizer.status == "carried"
    return path


def loaded(path: Path) -> tuple[Any, dict[str, Any]]:
    import tensorflow as tf

    model = tf.saved_model.load(str(path))
    return model, {variable.name.removesuffix(":0"): variable for variable in model.variables}


def test_axes_and_their_inverses() -> None:
    assert [kernel_axes(rank) for rank in (2, 3, 4)] == [(1, 0), (2, 1, 0), (2, 3, 1, 0)]
    for rank in range(2, 6):
        assert [kernel_axes(rank)[axis] for axis in weight_axes(rank)] == list(range(rank))


def test_linear_layers_have_kernels_and_embeddings_weights(kernels_of_bert: Path, squad_bert: Path) -> None:
    stored = {name: tensor.numpy() for name, tensor in converter.read(squad_bert).tensors.items()}
    _, found = loaded(kernels_of_bert)
    linear = {name for name, tensor in stored.items() if tensor.ndim == 2 and "_embeddings" not in name}
    assert set(found) == {name.replace(".weight", ".kernel") if name in linear else name for name in stored}
    for name, tensor in stored.items():
        variable = found[name.replace(".weight", ".kernel") if name in linear else name]
        np.testing.assert_array_equal(variable.numpy(), tensor.T if name in linear else tensor)


def test_kernels_train(kernels_of_bert: Path) -> None:
    import tensorflow as tf

    model, found = loaded(kernels_of_bert)
    ids = tf.constant(np.arange(2, 14).reshape(2, 6))
    with tf.GradientTape() as tape:
        outputs = model(input_ids=ids, attention_mask=tf.ones_like(ids), token_type_ids=tf.zeros_like(ids))
        loss = tf.reduce_sum(outputs["start_logits"] ** 2)
    assert [variable.name for variable in model.trainable_variables] == [f"{name}:0" for name in found]
    kernel = found["bert.encoder.layer.0.output.dense.kernel"]
    gradient = tape.gradient(loss, kernel)
    assert gradient.shape == kernel.shape
    assert float(tf.reduce_max(tf.abs(gradient))) > 0


def test_all_comes_back(kernels_of_bert: Path, squad_bert: Path, tmp_path: Path) -> None:
    ours, theirs = converter.read(kernels_of_bert), converter.read(squad_bert)
    assert set(ours.names) == set(theirs.names)
    assert all(is_equal(ours.tensor(name), theirs.tensor(name)) for name in theirs.names)
    verify_optimizer(theirs.optimizer, ours.optimizer, path=kernels_of_bert)
    converter.convert(kernels_of_bert, tmp_path / "back.pth")
    assert converter.diff(tmp_path / "back.pth", squad_bert).is_same
    assert converter.verify(squad_bert, kernels_of_bert, layout="tensorflow").verification.outputs


@pytest.mark.parametrize("target", ["onnx", "savedmodel", "pt2"])
def test_its_own_graph_computes_with_weights(
    target: str, kernels_of_bert: Path, squad_bert: Path, tmp_path: Path
) -> None:
    (kernels_of_bert / "assets.extra/config.json").rename(tmp_path / "config.json")
    try:
        report = converter.convert(kernels_of_bert, tmp_path / f"out.{target}", to=target)
    finally:
        (tmp_path / "config.json").rename(kernels_of_bert / "assets.extra/config.json")
    assert report.verification.outputs
    found, expected = converter.read(tmp_path / f"out.{target}"), converter.read(squad_bert)
    assert set(found.names) == set(expected.names)
    assert all(is_equal(found.tensor(name), expected.tensor(name)) for name in expected.names)


@pytest.fixture
def convolutions(tmp_path: Path) -> Path:
    import torch

    from tests.graphs.user_models import Convolutions

    torch.manual_seed(0)
    torch.save(Convolutions().state_dict(), tmp_path / "in.pth")
    return tmp_path / "in.pth"


def test_convolutions_have_kernels_where_tensorflow_uses_them(convolutions: Path, tmp_path: Path) -> None:
    import torch

    report = converter.convert(convolutions, tmp_path / "out", to="savedmodel", layout="tensorflow", **CONVOLUTIONS)
    assert report.verification.outputs
    stored = torch.load(convolutions, weights_only=True)
    _, found = loaded(tmp_path / "out")
    for name in ("plain", "groups", "flat"):
        weight = stored[f"{name}.weight"].numpy()
        np.testing.assert_array_equal(found[f"{name}.kernel"].numpy(), weight.transpose(kernel_axes(weight.ndim)))
    for name in ("depthwise", "transposed", "both"):
        np.testing.assert_array_equal(found[f"{name}.weight"].numpy(), stored[f"{name}.weight"].numpy())
    assert converter.diff(tmp_path / "out", convolutions).is_same


def test_kernels_are_not_transposed_when_they_are_used(convolutions: Path, tmp_path: Path) -> None:
    import tensorflow as tf
    from tensorflow.python.eager import context

    def transposed(layout: str) -> set[tuple[str, ...]]:
        path = tmp_path / layout
        converter.convert(convolutions, path, to="savedmodel", layout=layout, verify="weights", **CONVOLUTIONS)
        context.enable_run_metadata()
        tf.saved_model.load(str(path)).signatures["serving_default"](image=tf.zeros([2, 3, 12, 12]))
        graphs = context.export_run_metadata().partition_graphs
        context.disable_run_metadata()
        sources = {node.name: node for graph in graphs for node in graph.node}
        return {
            (node.name, source.op)
            for node in sources.values()
            if node.op.endswith("Transpose")
            for source in [sources.get(node.input[0].partition(":")[0].lstrip("^"))]
            if source is not None and source.op == "ReadVariableOp"
        }

    assert len(transposed("pytorch")) - len(transposed("tensorflow")) == 3


@pytest.mark.parametrize("layout", ["pytorch", "tensorflow"])
def test_what_tensorflow_saves_again_goes_back(layout: str, convolutions: Path, tmp_path: Path) -> None:
    import tensorflow as tf

    converter.convert(convolutions, tmp_path / "out", to="savedmodel", layout=layout, verify="weights", **CONVOLUTIONS)
    model, found = loaded(tmp_path / "out")
    for variable in found.values():
        variable.assign(variable * 2)
    tf.saved_model.save(model, str(tmp_path / "again"), signatures=model.signatures)
    report = converter.convert(tmp_path / "again", tmp_path / "back.pth")
    assert any("taken to be PyTorch's" in each for each in report.warnings)
    before, after = (converter.read(path).tensors for path in (convolutions, tmp_path / "back.pth"))
    assert set(before) == set(after)
    for name, tensor in before.items():
        np.testing.assert_array_equal(after[name].numpy(), tensor.numpy() * 2)
    assert converter.convert(tmp_path / "again", tmp_path / "out.onnx").verification.outputs


def test_a_name_that_is_taken_stays(convolutions: Path, tmp_path: Path) -> None:
    import torch

    stored = torch.load(convolutions, weights_only=True)
    torch.save({**stored, "plain.kernel": torch.ones(2)}, convolutions)
    options: dict[str, Any] = {**CONVOLUTIONS, "allow_dropped": ["plain.kernel"], "layout": "tensorflow"}
    converter.convert(convolutions, tmp_path / "out", to="savedmodel", **options)
    assert "plain.kernel" in loaded(tmp_path / "out")[1]


@pytest.mark.parametrize(("options", "what"), [({"layout": "nhwc"}, "is pytorch or tensorflow"), ({}, "needs a graph")])
def test_what_cannot_be_laid_out_so_is_refused(
    options: dict[str, str], what: str, convolutions: Path, tmp_path: Path
) -> None:
    options = {"layout": "tensorflow", **options}
    with pytest.raises(UsageError, match=what):
        converter.convert(convolutions, tmp_path / "out", to="savedmodel", weights_only=True, **options)
    assert not (tmp_path / "out").exists()
