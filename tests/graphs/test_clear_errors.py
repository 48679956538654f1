"""What goes wrong with a runnable graph is said plainly: its inputs, by name, and operators that have no lowering."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnx_ir
import pytest
from onnx import TensorProto, helper
from safetensors.numpy import save_file

from converter.errors import GraphError
from converter.graphs.description.traced import MODULE_KEY
from converter.graphs.lower.tensorflow.core import lower as lower_to_tensorflow
from converter.graphs.lower.tensorflow.saved_model import build
from converter.graphs.lower.torch.module import lower as lower_to_torch

IDS = np.ones((2, 3), np.int64)
RIGHT = {"input_ids": IDS, "attention_mask": IDS}


def _declared(*names: str) -> list[Any]:
    return [helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "sequence"]) for name in names]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A SavedModel of embeddings that a mask is multiplied with."""
    import tensorflow as tf

    folder = tmp_path_factory.mktemp("saved")
    nodes = [
        helper.make_node("Gather", ["words", "input_ids"], ["embedded"]),
        helper.make_node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["mask", "last"], ["column"]),
        helper.make_node("Mul", ["embedded", "column"], ["y"]),
    ]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", "sequence", 4])]
    constants = [helper.make_tensor("last", TensorProto.INT64, [1], [2])]
    graph = helper.make_graph(nodes, "graph", _declared("input_ids", "attention_mask"), outputs, constants)
    model = onnx_ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10))
    words = next(value for node in model.graph for value in node.inputs if value.name == "words")
    words.const_value = onnx_ir.ExternalTensor(
        "weights", None, None, onnx_ir.DataType.FLOAT, shape=onnx_ir.Shape((5, 4)), name="words"
    )
    words.shape, words.type = onnx_ir.Shape((5, 4)), onnx_ir.TensorType(onnx_ir.DataType.FLOAT)
    model.graph.register_initializer(words)
    onnx_ir.save(model, folder / "graph.onnx")
    save_file({"words": np.arange(20, dtype=np.float32).reshape(5, 4)}, folder / "weights.safetensors")
    build(
        graph=str(folder / "graph.onnx"),
        weights=str(folder / "weights.safetensors"),
        folder=str(folder / "saved"),
        trainable=[],
    )
    return tf.saved_model.load(str(folder / "saved"))


@pytest.fixture(params=["call", "signature"])
def function(request: pytest.FixtureRequest, saved: Any) -> Callable[..., Any]:
    """The two ways to run a SavedModel."""
    return saved if request.param == "call" else saved.signatures["serving_default"]  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"attention_mask": None}, "attention_mask"),
        ({"token_type_ids": IDS}, "token_type_ids"),
        ({"input_ids": IDS.astype(np.float32)}, "float.*int64|int64.*float"),
        ({"input_ids": IDS.astype(np.int32)}, "int32.*int64|int64.*int32"),
        ({"input_ids": IDS[0]}, r"input_ids.*\(None, None\)|input_ids.*\[3\].*\[\?,\?\]"),
        ({"attention_mask": np.ones((2, 4), np.int64)}, "3.*4"),
        ({"input_ids": IDS + 9}, r"10 is not in \[0, 5\)"),
    ],
)
def test_inputs_that_a_saved_model_does_not_take(
    function: Callable[..., Any], changes: dict[str, Any], said: str
) -> None:
    import tensorflow as tf

    assert function(**{name: tf.constant(value) for name, value in RIGHT.items()})["y"].shape == (2, 3, 4)
    given = {name: tf.constant(value) for name, value in {**RIGHT, **changes}.items() if value is not None}
    with pytest.raises((TypeError, ValueError, tf.errors.InvalidArgumentError)) as caught:
        function(**given)
    assert re.search(said, str(caught.value), re.DOTALL)


@pytest.mark.parametrize(
    ("framework", "lower"), [("TensorFlow", lower_to_tensorflow), ("PyTorch", lower_to_torch)], ids=["tf", "torch"]
)
def test_operators_without_a_lowering_are_named(framework: str, lower: Callable[..., Any]) -> None:
    known = helper.make_node("Identity", ["ids"], ["same"], name="before")
    nodes = [
        helper.make_node("Unheard", ["same"], ["y"], name="one"),
        helper.make_node("OfOthers", ["same"], ["z"], name="other", domain="elsewhere"),
    ]
    for node, path in zip(nodes, ("encoder.layer.3", "head"), strict=True):
        node.metadata_props.append(onnx.StringStringEntryProto(key=MODULE_KEY, value=path))
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("y", "z")]
    graph = helper.make_graph([known, *nodes], "graph", _declared("ids"), outputs)
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("elsewhere", 1)]
    model = onnx_ir.from_proto(helper.make_model(graph, opset_imports=opsets, ir_version=10))
    with pytest.raises(GraphError) as caught:
        lower(model, {})
    assert caught.value.message == (
        f"no {framework} lowering for 2 node(s): "
        "Unheard (domain 'ai.onnx', opset 20, node one of encoder.layer.3), "
        "OfOthers (domain 'elsewhere', opset 1, node other of head)"
    )
