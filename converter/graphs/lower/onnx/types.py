"""Element types by number: https://github.com/onnx/onnx/blob/main/onnx/onnx.proto, TensorProto.DataType."""

from __future__ import annotations

from collections.abc import Mapping

from converter.encoding.onnx_tensors import TYPE_NUMBERS

STRING = 8
NAMES: Mapping[int, str] = {
    **{number: dtype.value for dtype, number in TYPE_NUMBERS.items()},
    STRING: "string",
    21: "uint4",
    22: "int4",
    23: "float4_e2m1fn",
    25: "uint2",
    26: "int2",
}
"""The number of each type of ONNX, and what numpy, TensorFlow and PyTorch call it."""
