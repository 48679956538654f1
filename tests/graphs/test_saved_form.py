"""Weights that are saved in another form than a class computes with: put together in front of the graph."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir
import pytest
from safetensors.numpy import load_file

from converter.errors import GraphError
from converter.graphs.trace.assembling import assemble
from converter.graphs.trace.saved_form import Assembly, TensorOperation, saved_form

_SMALL = {
    "vocab_size": 10,
    "hidden_size": 8,
    "intermediate_size": 6,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "max_position_embeddings": 16,
}
CLASSES = {
    "MixtralForCausalLM": {**_SMALL, "num_local_experts": 3, "num_experts_per_tok": 2},
    "Qwen2MoeForCausalLM": {**_SMALL, "num_experts": 3, "num_experts_per_tok": 2, "moe_intermediate_size": 4},
    "NomicBertModel": {**_SMALL, "intermediate_size": 12},
}


def _reference(name: str, array: Any) -> Any:
    tensor = onnx_ir.tensor(array, name=name)
    kind = onnx_ir.TensorType(tensor.dtype)
    return onnx_ir.Value(name=name, shape=onnx_ir.Shape(array.shape), type=kind, const_value=tensor)


def _run(assembly: Assembly, weights: dict[str, Any]) -> dict[str, Any]:
    import onnxruntime

    references = {name: _reference(name, weights[name]) for name in assembly.saved}
    graph = onnx_ir.Graph([], [], nodes=[], initializers=list(references.values()), opset_imports={"": 20})
    made = assemble(graph, assembly, references)
    for name, value in made.items():
        value.name = name
        graph.outputs.append(value)
    model = onnx_ir.Model(graph, ir_version=10)
    session = onnxruntime.InferenceSession(onnx_ir.to_proto(model).SerializeToString())
    return dict(zip(made, session.run(list(made), {}), strict=True))


@pytest.mark.parametrize("class_name", CLASSES)
def test_what_is_put_together_is_what_the_model_has(class_name: str, tmp_path: Any) -> None:
    import transformers

    class_ = getattr(transformers, class_name)
    model = class_(class_.config_class(**CLASSES[class_name]))
    model.save_pretrained(tmp_path)
    weights, state = load_file(tmp_path / "model.safetensors"), model.state_dict()
    form = saved_form(model)
    assert form.parts
    assert {*form.names.values(), *form.declared} == set(weights)
    for name, (dtype, shape) in form.declared.items():
        assert (str(weights[name].dtype), weights[name].shape) == (dtype.value, shape)
    for assembly in form.assemblies:
        for name, array in _run(assembly, weights).items():
            np.testing.assert_array_equal(array, state[name].numpy())


def test_a_name_that_is_old_where_it_is_read_is_not_that_of_the_model(tmp_path: Any) -> None:
    import transformers

    sizes = {"vocab_size": 9, "hidden_size": 4, "num_hidden_layers": 1, "num_attention_heads": 2, "pad_token_id": 1}
    config = transformers.EsmConfig(**sizes, intermediate_size=4, position_embedding_type="rotary")
    names = saved_form(transformers.EsmModel(config)).names
    for name in ("encoder.layer.0.LayerNorm.weight", "rotary_embeddings.inv_freq"):
        assert names[name] == name


_PIECE = np.arange(24, dtype=np.float32).reshape(2, 3, 4)


@pytest.mark.parametrize(
    ("operation", "arguments", "expected"),
    [
        ("transpose", (0, -1), _PIECE.transpose(2, 1, 0)),
        ("permute", ([1, 2, 0],), _PIECE.transpose(1, 2, 0)),
        ("view", ([6, 4],), _PIECE.reshape(6, 4)),
        ("slice", (2, 1, 4, 2), _PIECE[:, :, 1:4:2]),
        ("slice", (0, -1), _PIECE[-1:]),
        ("select", (1, -1), _PIECE[:, -1]),
        ("clone", (), _PIECE),
    ],
)
def test_operations_on_one_tensor(operation: str, arguments: tuple[Any, ...], expected: Any) -> None:
    step = TensorOperation(
        operation=operation, inputs=(0,), arguments=arguments, outputs=(1,), shapes=(expected.shape,)
    )
    assembly = Assembly(saved={"saved": 0}, steps=(step,), built={"made": 1})
    if operation == "clone":
        assembly = Assembly(
            saved={"saved": 0},
            steps=(
                step,
                TensorOperation(operation="view", inputs=(1,), arguments=(), outputs=(2,), shapes=(expected.shape,)),
            ),
            built={"made": 2},
        )
    np.testing.assert_array_equal(_run(assembly, {"saved": _PIECE})["made"], expected)


def test_an_operation_that_is_not_known() -> None:
    step = TensorOperation(operation="transpose", inputs=(0,), arguments=(0, 1), outputs=(1,), shapes=((3, 2, 4),))
    known = Assembly(saved={"saved": 0}, steps=(step,), built={"made": 1})
    assert _run(known, {"saved": _PIECE})["made"].shape == (3, 2, 4)
    other = TensorOperation(operation="cholesky", inputs=(0,), arguments=(), outputs=(1,), shapes=((2, 3, 4),))
    with pytest.raises(GraphError, match="cholesky"):
        _run(Assembly(saved={"saved": 0}, steps=(other,), built={"made": 1}), {"saved": _PIECE})
