"""Sigmoids and softmaxes of confident models: which outputs they are, and that they convert."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import converter
from converter.graphs.passes.activations import activations_of

onnx = pytest.importorskip("onnx")
ir = pytest.importorskip("onnx_ir")
_TEXT = """
<ir_version: 10, opset_import: ["" : 18]>
g (float[n, 3] x, bool b) => (float[n, 3] y)
<float[3, 3] w = {W}, float[3] c = {{-13.0, -12.0, -14.0}}, int64[1] last = {{1}}>
{{
   m = MatMul(x, w)
   a = Add(m, c)
   {BODY}
}}
"""


def made(body: str) -> Any:
    values = ", ".join(map(str, np.random.default_rng(4).normal(size=9).round(3)))
    return onnx.parser.parse_model(_TEXT.format(BODY=body, W="{" + values + "}"))


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ("y = Sigmoid(a)", "sigmoid"),
        ("s = Sigmoid(a) t = Transpose<perm=[1, 0]>(s) y = Transpose<perm=[1, 0]>(t)", "sigmoid"),
        ("s = Sigmoid(a) t = Sigmoid(m) y = Mul(s, t)", "sigmoid"),
        ("s = Sigmoid(a) y = Mul(s, a)", None),
        ("s = Sigmoid(a) y = MatMul(s, w)", None),
        ("y = Softmax(a)", "softmax"),
        ("s = Softmax(a) t = Sigmoid(m) y = Mul(s, t)", "sigmoid"),
        ("s = Softmax(a) y = MatMul(s, w)", None),
        ("e = Exp(a) s = ReduceSum(e, last) t = Identity(s) y = Div(e, t)", "softmax"),
        ("e = Exp(a) f = Exp(m) s = ReduceSum(f, last) y = Div(e, s)", None),
        ("s = ReduceSum(a, last) y = Div(a, s)", None),
        ("y = If(b) <then_branch = g1 () => (float[n, 3] p) { p = Sigmoid(a) }, "
         "else_branch = g2 () => (float[n, 3] q) { q = Identity(a) }>", "sigmoid"),
    ],
)  # fmt: skip
def test_which_outputs_they_are(body: str, kind: str | None) -> None:
    assert activations_of(ir.from_proto(made(body))) == ({"y": kind} if kind else {})


@pytest.mark.framework
@pytest.mark.parametrize("target", ["savedmodel", "pt2"])
def test_a_confident_sigmoid_converts(target: str, tmp_path: Path) -> None:
    """Its float32 is 1e-6 and wrong in the third place in onnxruntime, right in the others."""
    pytest.importorskip({"savedmodel": "tensorflow", "pt2": "torch"}[target])
    graph = made("y = Sigmoid(a)")
    del graph.graph.input[1]
    (tmp_path / "x.onnx").write_bytes(graph.SerializeToString())
    report = converter.convert(tmp_path / "x.onnx", tmp_path / "out", to=target)
    assert report.verification.outputs
