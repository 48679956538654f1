"""One node test as an nn.Module called with tensors; with CKCONV_NODE_SUITE_EXPORTED=1, as its torch.export program."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import onnx_ir
import torch

from converter.graphs.lower.torch.framework import to_array, to_tensor
from converter.graphs.lower.torch.module import lower

IS_EXPORTED = os.environ.get("CKCONV_NODE_SUITE_EXPORTED") == "1"


def run(model: Any, inputs: list[Any]) -> list[Any]:
    """Build the module and call it; integers and floats of few bits, held in wider types, are given back as such."""
    module = lower(onnx_ir.from_proto(model), {})
    given = dict(zip([value.name for value in model.graph.input], map(_tensors, inputs), strict=True))
    with torch.no_grad():
        found = _exported(module, given) if IS_EXPORTED else module(**given)
    return [_arrays(found[value.name], _dtype(value)) for value in model.graph.output]


def _exported(module: Any, given: dict[str, Any]) -> Any:
    from converter.graphs.description.input_names import torch_parameters
    from converter.graphs.lower.torch.program import exported

    called = torch_parameters(list(given))
    return exported(module, given, {}).module()(**{called[name]: value for name, value in given.items()})


def _tensors(value: Any) -> Any:
    if value is None:
        return None
    return [_tensors(each) for each in value] if isinstance(value, list) else to_tensor(value)


def _dtype(value: Any) -> Any:
    return onnx_ir.DataType(value.type.tensor_type.elem_type).numpy() if value.type.tensor_type.elem_type else None


def _arrays(value: Any, dtype: Any) -> Any:
    if value is None:
        return None
    if isinstance(value, (list, tuple)):
        return [_arrays(each, None) for each in value]
    array = to_array(value)
    is_few_bits = dtype is not None and dtype.name in ("int4", "uint4", "int2", "uint2", "float4_e2m1fn")
    return np.asarray(array.astype(dtype) if is_few_bits else array)
