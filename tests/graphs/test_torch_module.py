"""The module that an ONNX graph becomes: names, gradients, dynamic shapes, and the original module given back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from converter.errors import GraphError
from converter.graphs.lower.torch.module import lower
from converter.graphs.lower.torch.names import RESERVED, module_names, original_name
from converter.graphs.lower.torch.program import exported
from converter.graphs.trace.recurrent import as_operators
from tests.graphs.test_operators import CASES, Case, _model

# Axes and positions that only a run has: a program has one number of dimensions, and fixed ones.
_LOOKS_INTO_TENSORS = {
    ("Slice", "backwards, every other"),
    ("Expand", "booleans"),
    ("CumSum", "exclusive from the end"),
    ("ReduceMax", "axes at run time"),
    ("ReduceSum", "axes at run time, dropped"),
    ("Reshape", "copy at run time"),
    ("Expand", "both ways at run time"),
    ("Slice", "axes at run time"),
    ("Squeeze", "axes at run time"),
    ("Unsqueeze", "axes at run time"),
    ("Range", "delta below zero"),
}


def _feeds(case: Case) -> dict[str, Any]:
    return {f"input_{at}": np.asarray(each) for at, each in enumerate(case.inputs) if at not in case.constant}


def _expected(model: Any, feeds: dict[str, Any]) -> list[Any]:
    return onnxruntime.InferenceSession(model.SerializeToString()).run(None, feeds)  # type: ignore[no-any-return]


def _compare(found: dict[str, Any], expected: list[Any]) -> None:
    for value, wanted in zip(found.values(), expected, strict=True):
        assert value.numpy().dtype == wanted.dtype
        assert value.shape == wanted.shape
        np.testing.assert_allclose(value.numpy(), wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("case", CASES, ids=lambda each: f"{each.op_type}: {each.name}")
def test_operator(case: Case) -> None:
    model, feeds = _model(case), _feeds(case)
    module = lower(onnx_ir.from_proto(model), {})
    with torch.no_grad():
        _compare(module(**{name: torch.from_numpy(array) for name, array in feeds.items()}), _expected(model, feeds))


@pytest.mark.parametrize("case", CASES, ids=lambda each: f"{each.op_type}: {each.name}")
def test_operator_exported(case: Case) -> None:
    model, feeds = _model(case), _feeds(case)
    module = lower(onnx_ir.from_proto(model), {})
    tensors = {name: torch.from_numpy(array) for name, array in feeds.items()}
    if (case.op_type, case.name) in _LOOKS_INTO_TENSORS:
        with pytest.raises((GraphError, RuntimeError)):
            exported(module, tensors, {}).module()(**tensors)
        return
    _compare(exported(module, tensors, {}).module()(**tensors), _expected(model, feeds))


def _graph(
    nodes: list[Any], inputs: dict[str, list[Any]], outputs: list[str], opset: int = 20, **constants: Any
) -> Any:
    declared = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs.items()]
    results = [onnx.ValueInfoProto(name=name) for name in outputs]
    held = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    graph = helper.make_graph(nodes, "graph", declared, results, held)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)


def test_a_program_runs_at_shapes_that_were_not_traced() -> None:
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Gather", ["shape", "zero"], ["rows"]),
        helper.make_node("Mul", ["rows", "two"], ["twice"]),
        helper.make_node("Unsqueeze", ["twice", "first"], ["twice_vector"]),
        helper.make_node("Concat", ["twice_vector", "rest"], ["wanted"], axis=0),
        helper.make_node("Concat", ["x", "x"], ["both"], axis=0),
        helper.make_node("Reshape", ["both", "wanted"], ["reshaped"]),
        helper.make_node("Expand", ["reshaped", "wide"], ["y"]),
    ]
    model = _graph(
        nodes,
        {"x": ["rows", "columns", 4]},
        ["y"],
        zero=np.array(0, np.int64),
        two=np.array(2, np.int64),
        first=np.array([0], np.int64),
        rest=np.array([-1, 2, 2], np.int64),
        wide=np.array([3, 1, 1, 1, 1], np.int64),
    )
    module = lower(onnx_ir.from_proto(model), {})
    program = exported(module, {"x": torch.zeros(4, 5, 4)}, {"x": {0: "rows", 1: "columns"}}).module()
    for shape in ((2, 3, 4), (7, 9, 4), (1, 6, 4)):
        x = torch.randn(shape)
        wanted = torch.cat([x, x]).reshape(2 * shape[0], -1, 2, 2).expand(3, -1, -1, -1, -1)
        torch.testing.assert_close(module(x)["y"], wanted)
        torch.testing.assert_close(program(x=x)["y"], wanted)


def test_what_exporters_compute_of_extents_stays_symbolic() -> None:
    node = helper.make_node
    nodes = [
        node("Shape", ["x"], ["shape"]),
        node("Cast", ["shape"], ["small"], to=TensorProto.INT32),
        node("ReduceProd", ["small", "first"], ["size"], keepdims=1, noop_with_empty_axes=1),
        node("Cast", ["size"], ["flat"], to=TensorProto.INT64),
        node("Reshape", ["x", "flat"], ["row"]),
        node("Gather", ["shape", "zero"], ["rows"]),
        node("Neg", ["rows"], ["below"]),
        node("Div", ["below", "four"], ["quarter"]),
        node("Sign", ["below"], ["sign"]),
        node("Sign", ["four"], ["plus"]),
        node("Equal", ["sign", "plus"], ["alike"]),
        node("Not", ["alike"], ["unlike"]),
        node("Mod", ["below", "four"], ["rest"]),
        node("Cast", ["rest"], ["some"], to=TensorProto.BOOL),
        node("And", ["unlike", "some"], ["off"]),
        node("CastLike", ["off", "quarter"], ["one"]),
        node("Sub", ["quarter", "one"], ["floor"]),
        node("Mul", ["floor", "minus_four"], ["up"]),
        node("Sub", ["up", "rows"], ["missing"]),
        node("Unsqueeze", ["missing", "first"], ["after"]),
        node("Concat", ["none", "after", "nothing"], ["pads"], axis=0),
        node("Pad", ["x", "pads"], ["padded"]),
        node("CastLike", ["float_zero", "rows"], ["start"]),
        node("Range", ["start", "rows", "one_more"], ["numbers"]),
    ]
    constants = {"zero": 0, "four": 4, "minus_four": -4, "one_more": 1, "first": [0], "none": [0, 0], "nothing": [0]}
    model = _graph(
        nodes,
        {"x": ["rows", "columns"]},
        ["row", "padded", "numbers"],
        float_zero=np.array(0, np.float32),
        **{name: np.array(value, np.int64) for name, value in constants.items()},
    )
    module = lower(onnx_ir.from_proto(model), {})
    program = exported(module, {"x": torch.zeros(6, 5)}, {"x": {0: "rows", 1: "columns"}}).module()
    for shape in ((2, 3), (7, 9), (8, 2), (1, 6)):
        x = torch.randn(shape)
        for found in (module(x), program(x=x)):
            torch.testing.assert_close(found["row"], x.reshape(-1))
            torch.testing.assert_close(found["padded"], torch.nn.functional.pad(x, (0, 0, 0, -shape[0] % 4)))
            assert found["numbers"].tolist() == list(range(shape[0]))


def test_a_program_with_an_empty_constant_is_saved(tmp_path: Path) -> None:
    model = _graph(
        [helper.make_node("Resize", ["x", "roi", "scales"], ["y"])],
        {"x": [1, 2, 3, 3]},
        ["y"],
        roi=np.zeros(0, np.float32),
        scales=np.array([1, 1, 2, 2], np.float32),
    )
    x = torch.arange(18.0).reshape(1, 2, 3, 3)
    torch.export.save(exported(lower(onnx_ir.from_proto(model), {}), {"x": x}, {}), tmp_path / "x.pt2")
    _compare(torch.export.load(tmp_path / "x.pt2").module()(x=x), _expected(model, {"x": x.numpy()}))


def test_what_depends_on_nothing_is_computed_once() -> None:
    nodes = [
        helper.make_node("Add", ["one", "one"], ["two"]),
        helper.make_node("Exp", ["two"], ["e"]),
        helper.make_node("Mul", ["x", "e"], ["y"]),
    ]
    module = lower(onnx_ir.from_proto(_graph(nodes, {"x": ["n"]}, ["y"], one=np.ones(1, np.float32))), {})
    assert [step.operator.op_type for step in module._graph.steps] == ["Mul"]
    assert list(module.state_dict()) == []


def _branches(condition: str) -> list[Any]:
    """Two branches of different values around them, each with a constant of the same name."""

    def branch(op_type: str) -> Any:
        result = onnx.ValueInfoProto(name=op_type)
        nodes = [
            helper.make_node(op_type, ["x", "sum" if op_type == "Add" else "x"], ["made"]),
            helper.make_node("Mul", ["made", "factor"], [op_type]),
        ]
        factor = helper.make_tensor("factor", TensorProto.FLOAT, [], [2.0 if op_type == "Add" else 3.0])
        return helper.make_graph(nodes, op_type, [], [result], [factor])

    return [
        helper.make_node("ReduceSum", ["x"], ["sum"], keepdims=0),
        helper.make_node("Greater", ["sum", "nothing"], [condition]),
        helper.make_node("If", [condition], ["y"], then_branch=branch("Add"), else_branch=branch("Mul")),
    ]


def test_both_branches_are_in_the_program() -> None:
    model = _graph(_branches("positive"), {"x": ["n"]}, ["y"], nothing=np.zeros((), np.float32))
    module = lower(onnx_ir.from_proto(model), {})
    program = exported(module, {"x": torch.ones(3)}, {"x": {0: "n"}}).module()
    for x in (torch.full((5,), 3.0), torch.full((2,), -3.0)):
        wanted = 2 * (x + x.sum()) if x.sum() > 0 else 3 * x * x
        torch.testing.assert_close(module(x)["y"], wanted)
        torch.testing.assert_close(program(x=x)["y"], wanted)


def _doubling(outputs: list[str]) -> Any:
    body = helper.make_graph(
        [
            helper.make_node("Add", ["state", "state"], ["doubled"]),
            helper.make_node("Mul", ["state", "x"], ["seen"]),
            helper.make_node("ReduceMax", ["doubled"], ["most"], keepdims=0),
            helper.make_node("Less", ["most", "limit"], ["goes_on"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("step", TensorProto.INT64, []),
            helper.make_tensor_value_info("before", TensorProto.BOOL, []),
            helper.make_tensor_value_info("state", TensorProto.FLOAT, ["n"]),
        ],
        [onnx.ValueInfoProto(name=name) for name in ["goes_on", "doubled", *outputs]],
    )
    results = ["last", *(["all"] if outputs else [])]
    nodes = [helper.make_node("Loop", ["", "", "x"], results, body=body)]
    return _graph(nodes, {"x": ["n"]}, results, limit=np.array(50, np.float32))


def test_a_loop_stops_by_its_condition() -> None:
    module = lower(onnx_ir.from_proto(_doubling(["seen"])), {})
    found = module(torch.tensor([3.0, 1.0]))
    assert found["last"].tolist() == [96, 32]
    assert found["all"].tolist() == [[9, 1], [18, 2], [36, 4], [72, 8], [144, 16]]


def test_a_loop_in_a_program() -> None:
    module = lower(onnx_ir.from_proto(_doubling([])), {})
    program = exported(module, {"x": torch.tensor([3.0, 1.0])}, {}).module()
    assert program(x=torch.tensor([30.0, 1.0]))["last"].tolist() == [60, 2]
    assert program(x=torch.tensor([1.0, 3.0]))["last"].tolist() == [32, 96]


def test_a_loop_over_any_number_of_steps_in_a_program(tmp_path: Path) -> None:
    """The first values of states are not taken for all of them, and constants of the body are in the program."""
    body = helper.make_graph(
        [
            helper.make_node("Gather", ["x", "done"], ["row"]),
            helper.make_node("Mul", ["before", "w"], ["scaled"]),
            helper.make_node("Add", ["scaled", "row"], ["after"]),
            helper.make_node("Add", ["done", "one"], ["next"]),
            helper.make_node("Identity", ["after"], ["seen"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("step", TensorProto.INT64, []),
            helper.make_tensor_value_info("holds", TensorProto.BOOL, []),
            helper.make_tensor_value_info("done", TensorProto.INT32, []),
            helper.make_tensor_value_info("before", TensorProto.FLOAT, [3]),
        ],
        [onnx.ValueInfoProto(name=name) for name in ("holds", "next", "after", "seen")],
        [helper.make_tensor("one", TensorProto.INT32, [], [1])],
    )
    nodes = [
        helper.make_node("Shape", ["x"], ["steps"], start=0, end=1),
        helper.make_node("Loop", ["steps", "", "first", "start"], ["count", "end", "all"], body=body),
    ]
    start = {"first": np.array(0, np.int32), "start": np.zeros(3, np.float32)}
    model = _graph(nodes, {"x": ["n", 3], "w": [3]}, ["end", "all"], **start)
    given = {"x": torch.zeros(4, 3), "w": torch.zeros(3)}
    torch.export.save(exported(lower(onnx_ir.from_proto(model), {}), given, {"x": {0: "n"}}), tmp_path / "x.pt2")
    program = torch.export.load(tmp_path / "x.pt2").module()
    for steps in (2, 7):
        feeds = {"x": torch.randn(steps, 3), "w": torch.randn(3)}
        _compare(program(**feeds), _expected(model, {name: tensor.numpy() for name, tensor in feeds.items()}))


def test_a_scan_over_any_number_of_steps_in_a_program() -> None:
    body = helper.make_graph(
        [
            helper.make_node("Mul", ["before", "w"], ["scaled"]),
            helper.make_node("Add", ["scaled", "row"], ["after"]),
            helper.make_node("Identity", ["after"], ["seen"]),
        ],
        "body",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [3]) for name in ("before", "row")],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [3]) for name in ("after", "seen")],
    )
    how = {"num_scan_inputs": 1, "scan_input_axes": [1], "scan_input_directions": [1], "scan_output_axes": [1]}
    node = helper.make_node("Scan", ["start", "x"], ["end", "all"], body=body, **how)
    model = _graph([node], {"start": [3], "x": [3, "steps"], "w": [3]}, ["end", "all"])
    program = exported(
        lower(onnx_ir.from_proto(model), {}),
        {"start": torch.zeros(3), "x": torch.zeros(3, 4), "w": torch.zeros(3)},
        {"x": {1: "steps"}},
    ).module()
    for steps in (2, 7):
        feeds = {"start": torch.randn(3), "x": torch.randn(3, steps), "w": torch.randn(3)}
        expected = _expected(model, {name: tensor.numpy() for name, tensor in feeds.items()})
        _compare(program(**feeds), expected)


def test_an_operator_that_onnx_defines_by_others() -> None:
    node = helper.make_node("HannWindow", ["size"], ["y"])
    module = lower(onnx_ir.from_proto(_graph([node], {}, ["y"], size=np.array(6, np.int64))), {})
    torch.testing.assert_close(module()["y"], torch.hann_window(6), atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "takes x, not nothing"),
        ({"x": np.zeros(2), "z": np.zeros(2)}, "takes x, not x, z"),
        ({"x": np.zeros(2, np.float64)}, "input x is torch.float64, the graph declares FLOAT"),
        ({"x": np.zeros((2, 2), np.float32)}, "input x has 2 dimensions, the graph declares 1"),
    ],
)
def test_wrong_inputs(given: dict[str, Any], said: str) -> None:
    module = lower(onnx_ir.from_proto(_graph([helper.make_node("Relu", ["x"], ["y"])], {"x": ["n"]}, ["y"])), {})
    assert module(torch.zeros(2))["y"].tolist() == [0, 0]
    with pytest.raises(GraphError, match=said):
        module(**{name: torch.from_numpy(array) for name, array in given.items()})


def test_an_operator_without_a_lowering_is_named() -> None:
    nodes = [helper.make_node("StringConcat", ["x", "x"], ["y"], name="the_node")]
    with pytest.raises(GraphError, match=r"no PyTorch lowering for 1 node.*StringConcat.*the_node"):
        lower(onnx_ir.from_proto(_graph(nodes, {"x": ["n"]}, ["y"])), {})


def test_an_error_in_a_run_names_the_node() -> None:
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"], name="the_node")]
    module = lower(onnx_ir.from_proto(_graph(nodes, {"x": ["n"]}, ["y"], w=np.ones((3, 2), np.float32))), {})
    assert module(torch.ones(3))["y"].tolist() == [3, 3]
    with pytest.raises(GraphError, match=r"node the_node \(MatMul\) cannot be run"):
        module(torch.ones(4))


# --- names

_NAMES = [
    "encoder.layer.0.weight",
    "encoder.layer.0.bias",
    "encoder.layer",
    "type",
    "training.weight",
    "a..b",
    "",
    "forward",
    "marked>",
    "marked>.weight",
    "_constants.0",
    "_graph",
    "__class__",
    "bert/encoder/kernel:0",
    "has space",
    "self",
    "class.weight",
    "a.self.weight",
    "ümläut.模型",
]


def test_names_are_paths_and_come_back() -> None:
    keys = module_names(_NAMES)
    assert len(set(keys.values())) == len(_NAMES)
    assert [original_name(key) for key in keys.values()] == _NAMES
    assert keys["encoder.layer.0.weight"] == "encoder.layer.0.weight"
    assert keys["a.self.weight"] == "a.self.weight"
    model = _graph([helper.make_node("Relu", ["x"], ["y"])], {"x": ["n"]}, ["y"])
    tensors = {name: torch.full((2,), float(at)) for at, name in enumerate(_NAMES)}
    module = lower(
        onnx_ir.from_proto(model), tensors, trainable=[_NAMES[0], "type"], ties={"head.weight": "type", "to": "forward"}
    )
    state = module.state_dict()
    assert {original_name(key): value[0].item() for key, value in state.items()} == {
        **{name: at for at, name in enumerate(_NAMES)},
        "head.weight": _NAMES.index("type"),
        "to": _NAMES.index("forward"),
    }
    assert {original_name(name) for name, _ in module.named_parameters()} == {_NAMES[0], "type"}
    assert module.get_parameter("head.weight") is module.get_parameter("type>")
    assert state["head.weight"].data_ptr() == state["type>"].data_ptr()
    program = exported(module, {"x": torch.ones(2)}, {"x": {0: "n"}})
    assert set(program.state_dict) == set(state)


def test_no_name_hides_an_attribute_of_a_module() -> None:
    public = {name for name in dir(torch.nn.Module()) if not name.startswith("__")}
    assert public <= RESERVED


# --- a module, exported to ONNX by torch, given back


class _Convolutional(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3, stride=2, padding=1), torch.nn.BatchNorm2d(8))
        self.up = torch.nn.ConvTranspose2d(8, 4, 2, stride=2)
        self.norm = torch.nn.GroupNorm(2, 4)
        self.head = torch.nn.Linear(4, 5)

    def forward(self, image: Any) -> Any:
        x = torch.nn.functional.max_pool2d(torch.relu(self.stem(image)), 2)
        x = torch.nn.functional.interpolate(self.norm(self.up(x)), scale_factor=2.0, mode="bilinear")
        return torch.softmax(self.head(x.mean((2, 3))), -1)


class _Steps(torch.nn.Module):
    def __init__(self, rnn: Any) -> None:
        super().__init__()
        self.rnn = rnn

    def forward(self, sequence: Any) -> Any:
        y, states = self.rnn(sequence)
        return (y, *states) if isinstance(states, tuple) else (y, states)


class _Recurrent(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn = torch.nn.LSTM(6, 4, bidirectional=True, batch_first=True)
        self.norm = torch.nn.LayerNorm(8)
        self.out = torch.nn.Linear(8, 3)

    def forward(self, sequence: Any) -> Any:
        y, _ = self.rnn(sequence)
        return self.out(self.norm(y))


@pytest.mark.parametrize(
    ("module", "traced", "unseen"),
    [(_Convolutional, (2, 3, 16, 16), (3, 3, 16, 16)), (_Recurrent, (2, 5, 6), (3, 5, 6))],
    ids=["convolutional", "recurrent"],
)
def test_a_module_comes_back(module: Any, traced: tuple[int, ...], unseen: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    original = module().eval()
    made = torch.onnx.export(
        original,
        (torch.randn(traced),),
        dynamo=True,
        optimize=False,
        verbose=False,
        dynamic_shapes=({0: torch.export.Dim.DYNAMIC},),
    )
    model = made.model
    held = original.state_dict()
    names = [name for name in held if name in model.graph.initializers]
    assert len(names) >= len(list(original.parameters()))
    for name in names:
        model.graph.initializers[name].const_value = onnx_ir.ExternalTensor(
            "weights", 0, 0, model.graph.initializers[name].dtype, shape=onnx_ir.Shape(held[name].shape), name=name
        )
    trained = [name for name, _ in original.named_parameters()]
    lowered = lower(model, {name: held[name].clone() for name in names}, trainable=trained)

    assert set(lowered.state_dict()) == set(names)
    assert {name for name, _ in lowered.named_parameters()} == set(trained)
    x = torch.randn(unseen)
    wanted = original(x)
    (found,) = lowered(x).values()
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)
    (wanted**2).sum().backward()
    (found**2).sum().backward()
    gradients = dict(lowered.named_parameters())
    for name, parameter in original.named_parameters():
        torch.testing.assert_close(gradients[name].grad, parameter.grad, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    "rnn",
    [
        torch.nn.LSTM(6, 4, num_layers=2, bidirectional=True, batch_first=True),
        torch.nn.GRU(6, 4),
        torch.nn.RNN(6, 4, num_layers=2, nonlinearity="relu", bidirectional=True, bias=False),
    ],
    ids=["lstm", "gru", "rnn"],
)
def test_recurrent_modules_take_sequences_of_any_length(rnn: Any) -> None:
    original = _Steps(rnn).eval()
    dynamic = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    how = {"dynamo": True, "optimize": False, "verbose": False, "dynamic_shapes": ({**dynamic},)}
    with as_operators():
        model = torch.onnx.export(original, (torch.randn(5, 3, 6),), **how).model
    assert {"LSTM", "GRU", "RNN"} & {node.op_type for node in model.graph}
    held = original.state_dict()
    for name, tensor in held.items():
        initializer = model.graph.initializers[name]
        initializer.const_value = onnx_ir.ExternalTensor(
            "weights", 0, 0, initializer.dtype, shape=onnx_ir.Shape(tensor.shape), name=name
        )
    lowered = lower(model, {name: tensor.clone() for name, tensor in held.items()}, trainable=list(held))
    (name,) = (each.name for each in model.graph.inputs)
    program = exported(lowered, {name: torch.randn(5, 3, 6)}, {name: {0: "one", 1: "two"}}).module()
    for shape in ((7, 2, 6), (2, 9, 6)):
        x = torch.randn(shape)
        wanted = original(x)
        for found in (lowered(x), program(**{name: x})):
            for value, each in zip(found.values(), wanted, strict=True):
                torch.testing.assert_close(value, each, atol=1e-5, rtol=1e-5)
    (wanted[0] ** 2).sum().backward()
    (next(iter(found.values())) ** 2).sum().backward()
    gradients = dict(program.named_parameters())
    for name, parameter in original.named_parameters():
        torch.testing.assert_close(gradients[name].grad, parameter.grad, atol=1e-4, rtol=1e-3)


def test_numbers_among_extents_are_divided_as_numbers() -> None:
    from converter.graphs.lower.torch.shape_arithmetic import HOST

    numbers, extents = np.array([3.0, 1.0], object), np.array([7, -7], object)
    np.testing.assert_array_equal(HOST["Div"](numbers, np.array([2.0, 4.0], object)), [1.5, 0.25])
    np.testing.assert_array_equal(HOST["Div"](extents, np.array([2, 2], object)), [3, -3])
    np.testing.assert_array_equal(HOST["Max"](numbers, np.array([2.0, 2.0], np.float32)), [3.0, 2.0])
    assert HOST["Max"](np.float32([1.0]), np.float32([np.nan])) is None  # which the op table knows how to compare


def test_statistics_that_a_graph_computes_pass_gradients_on() -> None:
    """So TensorFlow's layer normalization comes, of rows as channels: statistics of a batch, given to another node."""
    nodes = [
        helper.make_node("Mul", ["x", "weight"], ["scaled"]),
        helper.make_node("ReduceMean", ["scaled"], ["mean"], axes=[0, 2], keepdims=0),
        helper.make_node("ReduceMean", ["scaled"], ["scaled_mean"], axes=[0, 2], keepdims=1),
        helper.make_node("Sub", ["scaled", "scaled_mean"], ["centred"]),
        helper.make_node("Mul", ["centred", "centred"], ["squares"]),
        helper.make_node("ReduceMean", ["squares"], ["variance"], axes=[0, 2], keepdims=0),
        helper.make_node("BatchNormalization", ["scaled", "ones", "zeros", "mean", "variance"], ["y"], epsilon=1e-3),
    ]
    onnx_graph = helper.make_graph(
        nodes,
        "layer_normalization",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4, 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4, 3])],
        [
            numpy_helper.from_array(np.ones(4, np.float32), "ones"),
            numpy_helper.from_array(np.zeros(4, np.float32), "zeros"),
        ],
    )
    onnx_graph.initializer.append(TensorProto(name="weight", data_type=TensorProto.FLOAT, dims=[3], data_location=1))
    onnx_graph.initializer[-1].external_data.add(key="location", value="weights")
    model = helper.make_model(onnx_graph, opset_imports=[helper.make_opsetid("", 15)])
    weight = torch.tensor([1.0, 2.0, -3.0])
    module = lower(onnx_ir.from_proto(model), {"weight": weight.clone()}, trainable=["weight"])
    x = torch.randn(1, 4, 3)
    own = weight.clone().requires_grad_()
    wanted = torch.nn.functional.layer_norm(x * own, [3], eps=1e-3)
    (wanted**3).sum().backward()
    for program in (module, exported(module, {"x": x}, {}).module()):
        (found,) = program(x=x).values()
        torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)
        program.zero_grad()
        (found**3).sum().backward()
        torch.testing.assert_close(program.get_parameter("weight").grad, own.grad, atol=1e-4, rtol=1e-4)
