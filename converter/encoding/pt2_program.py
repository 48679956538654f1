"""A torch.export program that does nothing, for an archive of weights alone: without one torch.export.load refuses it.

Schema: torch/_export/serde/schema.py, version 8 (torch 2.7 to 2.13).
"""

from __future__ import annotations

import json
from typing import Any

from converter.encoding.pt2 import MODEL_NAME, Weights, tensor_meta
from converter.encoding.torch_file import torch_file
from converter.encoding.zip import Record
from converter.model.output import Late, Piece

_SCHEMA_VERSION = {"major": 8, "minor": 20}
_TORCH_VERSION = "2.13.0"


def idle_program(weights: Weights) -> list[Record]:
    """Return the members of a program that has `weights` as its state, takes nothing and returns nothing."""
    inputs = {name: f"p_{position}" for position, (name, _, _) in enumerate(weights.described)}
    metas = {
        inputs[name]: tensor_meta(tensor, requires_grad=owner in weights.parameters)
        for name, owner, tensor in weights.described
    }
    specifications = [
        _input(name, inputs[name], is_parameter=owner in weights.parameters) for name, owner, _ in weights.described
    ]
    graph = {
        "inputs": [{"as_tensor": {"name": name}} for name in inputs.values()],
        "outputs": [],
        "nodes": [],
        "tensor_values": metas,
        "sym_int_values": {},
        "sym_bool_values": {},
        "is_single_tensor_return": False,
        "custom_obj_values": {},
        "sym_float_values": {},
    }
    signature = {
        "inputs": [],
        "outputs": [],
        "in_spec": _tree("tuple", "null", _node("tuple", "null"), _node("dict", "[]")),
        "out_spec": _tree("dict", "[]"),
        "forward_arg_names": [],
    }
    program = {
        "graph_module": {
            "graph": graph,
            "signature": {"input_specs": specifications, "output_specs": []},
            "module_call_graph": [{"fqn": "", "signature": signature}],
            "metadata": {},
            "treespec_namedtuple_fields": {},
        },
        "opset_version": {"aten": 10},
        "range_constraints": {},
        "schema_version": _SCHEMA_VERSION,
        "verifiers": ["TRAINING"],
        "torch_version": _TORCH_VERSION,
        "guards_code": [],
    }
    constants: dict[str, Any] = {"config": {}}
    return [
        Record(name=f"{MODEL_NAME}/models/{MODEL_NAME}.json", content=json.dumps(program).encode("ascii")),
        Record(
            name=f"{MODEL_NAME}/data/constants/{MODEL_NAME}_constants_config.json",
            content=json.dumps(constants).encode(),
        ),
        Record(name=f"{MODEL_NAME}/data/sample_inputs/{MODEL_NAME}.pt", content=_joined(torch_file(((), {})))),
    ]


def _input(name: str, called: str, *, is_parameter: bool) -> dict[str, Any]:
    if is_parameter:
        return {"parameter": {"arg": {"name": called}, "parameter_name": name}}
    return {"buffer": {"arg": {"name": called}, "buffer_name": name, "persistent": True}}


def _tree(kind: str, context: str, *children: dict[str, Any]) -> str:
    """A structure of arguments, as torch.utils._pytree.treespec_dumps has it."""
    return json.dumps([1, _node(kind, context, *children)])


def _node(kind: str, context: str, *children: dict[str, Any]) -> dict[str, Any]:
    return {"type": f"builtins.{kind}", "context": context, "children_spec": list(children)}


def _joined(pieces: list[Piece]) -> bytes:
    rendered = [piece.render() if isinstance(piece, Late) else piece for piece in pieces]
    return b"".join(each for each in rendered if isinstance(each, bytes))
