"""Random ONNX graphs whose numbers stand wherever they can: nodes, functions, branches, loops, sparse, oddly named."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

WIDTH = 4
NAMES = ("w", "0", "self", "class", "a/b", "x:0", "input.1", "重み", "w.weight", " ", "w_1", "If_0/then_branch/w")
OPSET = 18


class Maker:
    """A graph from `x` [n, 4] to `y` [n, 4], a step at a time. `inputs` are the names that x may have."""

    def __init__(self, seed: int, name: str = "x") -> None:
        self.random = np.random.default_rng(seed)
        self.nodes: list[Any] = []
        self.initializers: list[Any] = []
        self.sparse: list[Any] = []
        self.functions: list[Any] = []
        self.taken = {name, "y"}
        self.input = self.last = name
        steps = list(self.steps())
        for number in self.random.permutation(len(steps) + 4)[: len(steps)]:
            steps[number % len(steps)]()

    def steps(self) -> Iterator[Callable[[], None]]:
        yield from (self.initializer, self.constant, self.floats, self.scalar, self.integers, self.sparse_initializer)
        yield from (self.sparse_constant, self.branches, self.called, self.loop, self.resized, self.unused)

    def model(self) -> Any:
        self.add("Identity", [self.last], "y")
        value = helper.make_tensor_value_info
        graph = helper.make_graph(
            self.nodes,
            "places",
            [value(self.input, TensorProto.FLOAT, ["n", WIDTH])],
            [value("y", TensorProto.FLOAT, ["n", WIDTH])],
            self.initializers,
            sparse_initializer=self.sparse,
        )
        opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid("own", 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=9, functions=self.functions)

    def values(self, *shape: int) -> Any:
        return self.random.normal(size=shape).astype(np.float32)

    def name(self) -> str:
        free = [name for name in NAMES if name not in self.taken]
        name = str(self.random.choice(free)) if free and self.random.random() < 0.7 else f"v{len(self.taken)}"
        self.taken.add(name)
        return name

    def add(self, operator: str, inputs: list[str], output: str, **more: Any) -> None:
        self.nodes.append(helper.make_node(operator, inputs, [output], **more))
        self.last = output

    def combine(self, name: str) -> None:
        self.add(str(self.random.choice(["Add", "Sub"])), [self.last, name], self.name())

    def initializer(self) -> None:
        name = self.name()
        self.initializers.append(numpy_helper.from_array(self.values(WIDTH, WIDTH), name))
        self.add("MatMul", [self.last, name], self.name())

    def constant(self) -> None:
        name, last = self.name(), self.last
        self.add("Constant", [], name, value=numpy_helper.from_array(self.values(WIDTH)))
        self.last = last
        self.combine(name)

    def floats(self) -> None:
        name, last = self.name(), self.last
        self.add("Constant", [], name, value_floats=self.values(WIDTH).tolist())
        self.last = last
        self.combine(name)

    def scalar(self) -> None:
        name, last = self.name(), self.last
        self.add("Constant", [], name, value_float=0.5)
        self.last = last
        self.combine(name)

    def integers(self) -> None:
        name, last = self.name(), self.last
        self.add("Constant", [], name, value_ints=[-1, WIDTH])
        self.add("Reshape", [last, name], self.name())

    def sparse_initializer(self) -> None:
        name = self.name()
        self.sparse.append(sparse(self.values(2), name))
        self.combine(name)

    def sparse_constant(self) -> None:
        name, last = self.name(), self.last
        self.add("Constant", [], name, sparse_value=sparse(self.values(2), ""))
        self.last = last
        self.combine(name)

    def branches(self) -> None:
        flag, last, output = self.name(), self.last, self.name()
        self.initializers.append(numpy_helper.from_array(np.array(bool(self.random.integers(2))), flag))
        graphs = {branch: self.branch(branch, last) for branch in ("then_branch", "else_branch")}
        self.add("If", [flag], output, name=str(self.random.choice(["", "choice"])), **graphs)

    def branch(self, branch: str, last: str) -> Any:
        name = str(self.random.choice(["inner", f"inner of {branch}"]))
        nodes, initializers = [], []
        if self.random.random() < 0.5:
            nodes.append(helper.make_node("Constant", [], [name], value=numpy_helper.from_array(self.values(WIDTH))))
        else:
            initializers.append(numpy_helper.from_array(self.values(WIDTH), name))
        nodes.append(helper.make_node("Add", [last, name], [f"{branch} result"]))
        output = helper.make_tensor_value_info(f"{branch} result", TensorProto.FLOAT, None)
        return helper.make_graph(nodes, branch, [], [output], initializers)

    def called(self) -> None:
        constant = helper.make_node("Constant", [], ["w"], value=numpy_helper.from_array(self.values(WIDTH)))
        nodes = [constant, helper.make_node("Mul", ["x", "w"], ["y"])]
        imports = [helper.make_opsetid("", OPSET)]
        self.functions.append(helper.make_function("own", "Scale", ["x"], ["y"], nodes, imports))
        for _ in range(2):
            self.add("Scale", [self.last], self.name(), domain="own")

    def loop(self) -> None:
        value, count = helper.make_tensor_value_info, self.name()
        self.initializers.append(numpy_helper.from_array(np.array(2, np.int64), count))
        nodes = [
            helper.make_node("Identity", ["going"], ["on"]),
            helper.make_node("Constant", [], ["in loop"], value=numpy_helper.from_array(self.values(WIDTH))),
            helper.make_node("Add", ["state", "in loop"], ["next"]),
        ]
        inputs = [value("step", TensorProto.INT64, []), value("going", TensorProto.BOOL, [])]
        state, after = (value(name, TensorProto.FLOAT, ["n", WIDTH]) for name in ("state", "next"))
        body = helper.make_graph(nodes, "body", [*inputs, state], [value("on", TensorProto.BOOL, []), after])
        self.add("Loop", [count, "", self.last], self.name(), body=body)

    def resized(self) -> None:
        """Through an image of the same size: scales are no weights, be they constants or computed of some."""
        there, scales, half, back, last = self.name(), self.name(), self.name(), self.name(), self.last
        shapes = {there: [-1, 1, 2, 2], back: [-1, WIDTH]}
        self.initializers += [numpy_helper.from_array(np.array(each, np.int64), name) for name, each in shapes.items()]
        factors = np.array([0.5] * 4, np.float32)
        if self.random.random() < 0.5:
            self.initializers.append(numpy_helper.from_array(factors, half))
        else:
            self.add("Constant", [], half, value=numpy_helper.from_array(factors))
        self.add("Add", [half, half], scales)
        self.add("Reshape", [last, there], self.name())
        self.add("Resize", [self.last, "", scales], self.name(), mode="nearest")
        self.add("Reshape", [self.last, back], self.name())

    def unused(self) -> None:
        last = self.last
        self.add("Constant", [], self.name(), value=numpy_helper.from_array(self.values(3, 2)))
        self.last = last


def sparse(values: Any, name: str) -> Any:
    return helper.make_sparse_tensor(
        numpy_helper.from_array(values, name), numpy_helper.from_array(np.array([1, 3], np.int64)), [WIDTH]
    )


def numbers_in(model: Any) -> int:
    """How many numbers a model has, by onnx alone."""

    def in_graph(graph: Any) -> int:
        own = sum(int(np.prod(each.dims)) for each in (*graph.initializer, *graph.sparse_initializer))
        return own + in_nodes(graph.node)

    def in_nodes(nodes: Any) -> int:
        return sum(in_attribute(node, each) for node in nodes for each in node.attribute)

    def in_attribute(node: Any, attribute: Any) -> int:
        value = helper.get_attribute_value(attribute)
        match attribute.type:
            case onnx.AttributeProto.GRAPH:
                return in_graph(value)
            case onnx.AttributeProto.TENSOR | onnx.AttributeProto.SPARSE_TENSOR:
                return int(np.prod(value.dims))
        return int(np.size(value)) if node.op_type == "Constant" else 0

    return in_graph(model.graph) + sum(in_nodes(each.node) for each in model.functions)
