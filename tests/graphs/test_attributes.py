"""String attributes: what ONNX does not have is refused by both lowerings, never computed as something else."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
import onnx_ir
import onnxruntime
import pytest
from onnx import TensorProto, defs, helper

from converter.errors import GraphError
from converter.graphs.lower.onnx import attributes
from converter.graphs.lower.steps import steps_of
from converter.graphs.lower.tensorflow.registry import registry as tensorflow_operators
from converter.graphs.lower.torch.registry import registry as torch_operators
from tests.graphs import node_suite_tensorflow, node_suite_torch

_SIDES = {"TensorFlow": tensorflow_operators, "PyTorch": torch_operators}
_RUNS = (node_suite_tensorflow.run, node_suite_torch.run)
_TEXTS = {  # attributes that say something of their own
    ("Cast", "to"),  # of opset 1: the name of a type
    ("Constant", "value_string"),
    ("Constant", "value_strings"),
    ("Einsum", "equation"),
    ("RegexFullMatch", "pattern"),
    ("StringNormalizer", "locale"),
    ("StringNormalizer", "stopwords"),
    ("StringSplit", "delimiter"),
    ("TfIdfVectorizer", "pool_strings"),
    ("Gradient", "xs"),
    ("Gradient", "y"),
    ("Gradient", "zs"),
}
_KINDS = (defs.OpSchema.AttrType.STRING, defs.OpSchema.AttrType.STRINGS)


def string_attributes() -> Iterator[tuple[str, str, str, int, bool]]:
    """Yield domain, operator, attribute, its newest version, and whether it is a list: those that have set values."""
    newest: dict[tuple[str, str, str], tuple[int, bool]] = {}
    for schema in defs.get_all_schemas_with_history():
        for name, attribute in schema.attributes.items():
            is_known = schema.domain in ("", "ai.onnx.preview.training") and attribute.type in _KINDS
            if is_known and (schema.name, name) not in _TEXTS:
                key = (schema.domain, schema.name, name)
                here = (schema.since_version, attribute.type == defs.OpSchema.AttrType.STRINGS)
                newest[key] = max(newest.get(key, here), here)
    for (domain, operator, name), (version, is_list) in sorted(newest.items()):
        yield domain, operator, name, version, is_list


def allowed(operator: str, name: str) -> frozenset[str]:
    """Return what an attribute may say, which is not nothing."""
    found = attributes._OF_ONE.get((operator, name)) or attributes._OF_ANY.get(name) or attributes._OF_LISTS.get(name)
    assert found, f"{operator} has an attribute {name} that nobody checks"
    return found


def node_model(domain: str, operator: str, version: int, given: dict[str, Any]) -> Any:
    schema = defs.get_schema(operator, version, domain)
    inputs = [f"i{place}" for place in range(max(1, schema.min_input))]
    node = helper.make_node(operator, inputs, ["y"], domain=domain, **given)
    for name, attribute in schema.attributes.items():
        if attribute.required and name not in given:
            node.attribute.append(_something(name, attribute.type))
    untyped = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in inputs]
    graph = helper.make_graph([node], "g", untyped, [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)])
    opsets = [helper.make_opsetid("", 1 if domain else version)]
    opsets += [helper.make_opsetid(domain, version)] if domain else []
    return onnx_ir.from_proto(helper.make_model(graph, opset_imports=opsets))


def _something(name: str, kind: Any) -> Any:
    values = {"INT": 1, "INTS": [1, 1], "FLOAT": 1.0, "FLOATS": [1.0], "STRING": "TF"}
    return helper.make_attribute(name, values[str(kind).rpartition(".")[2]])


def refusal(model: Any, operators: Any, side: str) -> str | None:
    try:
        steps_of(model, operators, side)
    except GraphError as error:
        return error.message
    return None


@pytest.mark.parametrize("side", _SIDES)
def test_unknown_words_are_refused(side: str) -> None:
    checked = 0
    for domain, operator, name, version, is_list in string_attributes():
        operators = _SIDES[side]()
        for word in sorted(allowed(operator, name)):
            model = node_model(domain, operator, version, {name: [word] if is_list else word})
            refused = refusal(model, operators, side)
            assert refused is None or f"no {side} lowering" in refused, refused
        for wrong in ("bogus", "", "CONSTANT", "nearest_"):
            if wrong in allowed(operator, name):
                continue
            model = node_model(domain, operator, version, {name: [wrong] if is_list else wrong})
            with pytest.raises(GraphError, match=f"{operator}: {name} {wrong!r} is not one of") as caught:
                steps_of(model, operators, side)
            assert caught.value.exit_code == 7
            checked += 1
    assert checked > 100


def test_words_inside_bodies_are_checked_too() -> None:
    branch = helper.make_graph(
        [helper.make_node("Gelu", ["x"], ["z"], approximate="erf")],
        "b",
        [],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, [2])],
    )
    node = helper.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=branch)
    graph = helper.make_graph(
        [node],
        "g",
        [
            helper.make_tensor_value_info("c", TensorProto.BOOL, []),
            helper.make_tensor_value_info("x", TensorProto.FLOAT, [2]),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])
    for side, operators in _SIDES.items():
        with pytest.raises(GraphError, match="Gelu: approximate 'erf' is not one of none, tanh"):
            steps_of(onnx_ir.from_proto(model), operators(), side)


@pytest.mark.parametrize("auto_pad", ["", "NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"])
@pytest.mark.parametrize("operator", ["Conv", "ConvTranspose", "MaxPool", "AveragePool", "LpPool"])
def test_windows_lie_where_onnxruntime_has_them(operator: str, auto_pad: str) -> None:
    """The same for both, with kernels below and above the stride, and partial windows at the end."""
    random = np.random.default_rng(0)
    x = random.normal(size=(1, 2, 8, 7)).astype(np.float32)
    has_weight = operator.startswith("Conv")
    is_same = auto_pad.startswith("SAME") and operator != "ConvTranspose"  # kernels below the stride fail there
    below = (2, 2) if is_same else (3, 2)
    for kernel, strides, ceil_mode in (
        ((3, 2), (2, 2), 0),
        ((1 if below[0] == 3 else 2, 3), (below[0], 1), 0),
        ((2, 3), below, 1),
    ):
        given: dict[str, Any] = {"auto_pad": auto_pad, "kernel_shape": kernel, "strides": strides}
        inputs = [x]
        if has_weight:
            inputs.append(random.normal(size=(2, 2, *kernel)).astype(np.float32))
        elif ceil_mode:
            given["ceil_mode"] = 1
        if operator == "ConvTranspose" and ceil_mode:
            given["output_shape"] = [25, 11]
        names = ["x", "w"][: len(inputs)]
        graph = helper.make_graph(
            [helper.make_node(operator, names, ["y"], **given)],
            "g",
            [
                helper.make_tensor_value_info(name, TensorProto.FLOAT, each.shape)
                for name, each in zip(names, inputs, strict=True)
            ],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        (expected,) = session.run(None, dict(zip(names, inputs, strict=True)))
        for run in _RUNS:
            (found,) = run(onnx.ModelProto.FromString(model.SerializeToString()), inputs)
            assert found.shape == expected.shape, (run.__module__, kernel, strides, ceil_mode)
            np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
