"""`--shape`: axes that may vary get one extent, in every target, and what only one of their extents decides goes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import converter
from converter.errors import UsageError
from converter.graphs.description.given_shapes import with_shapes
from converter.graphs.description.signature import Dimension, GraphInput, Signature, Threshold
from converter.model.dtype import DType
from converter.options import Options
from tests.conftest import Ckconv

SIGNATURE = Signature(
    title="",
    parameters={},
    inputs=(
        GraphInput(name="ids", dtype=DType.INT64, shape=("batch", "sequence")),
        GraphInput(name="mask", dtype=DType.INT64, shape=("batch", "past + sequence")),
        GraphInput(name="picture", dtype=DType.FLOAT32, shape=("batch", 3, "height", "height + 1")),
    ),
    dimensions=(Dimension(name="sequence", high=512), Dimension(name="past")),
    thresholds=(Threshold(name="window 4", dimension="sequence", count=4),),
)


def given(*texts: str) -> dict[str, tuple[int | None, ...]]:
    return Options(shape=texts).shapes


def test_what_is_given_varies_no_more() -> None:
    found = with_shapes(SIGNATURE, given("sequence=8", "picture=?,3,224,?"))
    assert [each.shape for each in found.inputs] == [("batch", 8), ("batch", "past + 8"), ("batch", 3, 224, 225)]
    assert [each.name for each in found.dimensions] == ["past"]
    assert found.thresholds == ()
    found = with_shapes(SIGNATURE, given("sequence=8", "past=2", "batch=1"))
    assert [each.shape for each in found.inputs] == [(1, 8), (1, 10), (1, 3, "height", "height + 1")]


@pytest.mark.parametrize(
    ("texts", "why"),
    [
        (["length=8"], "no such axis or input; it takes ids[batch, sequence], mask"),
        (["ids=8"], "--shape ids=8: the input has 2 axes: [batch, sequence]"),
        (["picture=1,4,?,?"], "--shape picture=1,4,?,?: the extent 3 is the graph's own"),
        (["mask=1,4"], "the extent past + sequence is the graph's own"),
        (["ids=1,8", "sequence=9"], "gives 'sequence' the extents 8 and 9"),
        (["sequence=513"], "--shape sequence=513: the graph takes 512 at the most"),
        (["sequence"], "--shape is NAME=N"),
        (["sequence=0"], "--shape is NAME=N"),
        (["=3"], "--shape is NAME=N"),
        (["a=1", "a=1"], "each name once"),
    ],
)
def test_what_cannot_be_given(texts: list[str], why: str) -> None:
    with pytest.raises(UsageError) as caught:
        with_shapes(SIGNATURE, given(*texts))
    assert why in str(caught.value)


_IF = """
<ir_version: 10, opset_import: ["" : 18]>
g (float[n, m] x) => (float[n, 1, 3] y) <float[4, 3] w = {{1, -2, 3, 4, 5, -6, 7, 8, 9, 1, 2, 3}},
   int64[1] last = {{-1}}, int64 one = {{1}}, int64[1] second = {{1}}, int64 four = {{4}}>
{{
   s = Shape(x)
   e = Gather(s, one)
   is = Equal(e, four)
   z = If(is) <then_branch = a () => (float[p, 3] t) {{ t = MatMul(x, w) }},
               else_branch = b () => (float[q, r, 1] u) {{ u = Unsqueeze(x, last) }}>
   y = Unsqueeze(z, second)
}}
"""


@pytest.mark.framework
@pytest.mark.parametrize("target", ["savedmodel", "pt2"])
def test_what_decides_a_number_of_axes_is_decided(target: str, tmp_path: Path, ckconv: Ckconv) -> None:
    """torch.jit exports squeeze() as an If: silero-vad's files are such graphs."""
    onnx = pytest.importorskip("onnx")
    pytest.importorskip({"savedmodel": "tensorflow", "pt2": "torch"}[target])
    (tmp_path / "x.onnx").write_bytes(onnx.parser.parse_model(_IF.format()).SerializeToString())
    if target == "savedmodel":
        ended = ckconv("x.onnx", "free", "--to", target, cwd=tmp_path)
        assert ended.returncode == 7, ended.stderr
        assert "--shape NAME=EXTENT gives an axis of an input one extent" in ended.stderr
    ended = ckconv("x.onnx", "out", "--to", target, "--shape", "x=?,4", cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    shape: Any
    if target == "pt2":
        import torch

        program = torch.export.load(tmp_path / "out")
        taken = [node for node in program.graph.nodes if node.name in program.graph_signature.user_inputs]
        shape = taken[0].meta["val"].shape
        assert program.module()(x=torch.ones(3, 4))["y"].shape == (3, 1, 3)
    else:
        import tensorflow as tf

        shape = tf.saved_model.load(tmp_path / "out").signatures["serving_default"].structured_input_signature[1]["x"]
        shape = shape.shape
    assert shape[1] == 4
    assert not isinstance(shape[0], int)
    assert ckconv("verify", "x.onnx", "out", "--to", target, cwd=tmp_path).returncode == 0


@pytest.mark.framework
def test_a_class_of_transformers_gets_it(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(
        vocab_size=50, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=24
    )
    transformers.BertForSequenceClassification(config).save_pretrained(tmp_path / "in")
    converter.convert(tmp_path / "in", tmp_path / "x.onnx", shape=("sequence=12", "batch=1"))
    inputs = onnx.load(tmp_path / "x.onnx").graph.input
    assert {tuple(each.dim_value for each in one.type.tensor_type.shape.dim) for one in inputs} == {(1, 12)}
