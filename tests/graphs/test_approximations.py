"""What onnxruntime computes to a number of places behind the point is held to those: sigmoids of confident models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import converter
from converter.graphs.passes.approximations import approximated_outputs

onnx = pytest.importorskip("onnx")
ir = pytest.importorskip("onnx_ir")
_TEXT = """
<ir_version: 10, opset_import: ["" : 18]>
g (float[n, 3] x, bool b) => (float[n, 3] y) <float[3, 3] w = {W}, float[3] c = {{-13.0, -12.0, -14.0}}>
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
    ("body", "is_one"),
    [
        ("y = Sigmoid(a)", True),
        ("s = Sigmoid(a) t = Transpose<perm=[1, 0]>(s) y = Transpose<perm=[1, 0]>(t)", True),
        ("s = Sigmoid(a) t = Sigmoid(m) y = Mul(s, t)", True),
        ("s = Sigmoid(a) y = Mul(s, a)", False),
        ("s = Sigmoid(a) y = MatMul(s, w)", False),
        ("y = Softmax(a)", False),
        ("y = If(b) <then_branch = g1 () => (float[n, 3] p) { p = Sigmoid(a) }, "
         "else_branch = g2 () => (float[n, 3] q) { q = Identity(a) }>", True),
    ],
)  # fmt: skip
def test_which_outputs_they_are(body: str, is_one: bool) -> None:
    assert approximated_outputs(ir.from_proto(made(body))) == (["y"] if is_one else [])


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
