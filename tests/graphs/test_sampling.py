"""Which integers a graph is checked with: of the whole type where every runtime gives the same for any."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import converter
from converter.errors import VerificationError
from converter.graphs.description.signature import GraphInput, Role, Sampling
from converter.graphs.run.arrays import fitting
from converter.graphs.trace.sampling import sampling_of
from converter.model.dtype import DType

onnx = pytest.importorskip("onnx")
ir = pytest.importorskip("onnx_ir")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402

NUMBERS = Sampling(role=Role.NUMBERS)
WHOLE = "integers of the whole type"
node = helper.make_node


def model(
    *nodes: Any, dtype: str = "int64", output: int = TensorProto.INT64, shape: Any = None, **constants: Any
) -> Any:
    """A model of x[n, m]; the last node makes y."""
    graph = helper.make_graph(
        list(nodes),
        "g",
        [helper.make_tensor_value_info("x", helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), ["n", "m"])],
        [helper.make_tensor_value_info("y", output, shape)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def sampled(made: Any, dtype: DType = DType.INT64) -> Sampling:
    return sampling_of(ir.from_proto(made).graph, GraphInput(name="x", dtype=dtype, shape=("n", "m")))


_TEN, _TABLE = np.int64(10), np.eye(10, dtype=np.float32)
_WHOLE = {
    "arithmetic": model(
        node("Mul", ["x", "x"], ["a"]), node("Sub", ["a", "k"], ["b"]), node("Neg", ["b"], ["y"]), k=_TEN
    ),
    "divided": model(node("Div", ["x", "k"], ["y"]), k=_TEN),
    "another type": model(node("Cast", ["x"], ["y"], to=TensorProto.INT8), output=TensorProto.INT8),
    "is there": model(
        node("Cast", ["x"], ["b"], to=TensorProto.BOOL), node("Not", ["b"], ["y"]), output=TensorProto.BOOL
    ),
    "compared": model(
        node("Less", ["x", "k"], ["b"]),
        node("Cast", ["b"], ["y"], to=TensorProto.FLOAT),
        output=TensorProto.FLOAT,
        k=_TEN,
    ),
    "a hash": model(node("Mod", ["x", "k"], ["a"]), node("Gather", ["t", "a"], ["y"]), output=1, k=_TEN, t=_TABLE),
}
_NOT = {
    "an index": model(node("Abs", ["x"], ["a"]), node("Gather", ["t", "a"], ["y"]), output=1, t=_TABLE),
    "a large remainder": model(
        node("Mod", ["x", "k"], ["a"]), node("Gather", ["t", "a"], ["y"]), output=1, k=np.int64(1 << 30), t=_TABLE
    ),
    "a remainder of C": model(node("Mod", ["x", "k"], ["y"], fmod=1), k=_TEN),
    "a divisor": model(node("Div", ["k", "x"], ["y"]), k=_TEN),
    "by itself": model(node("Div", ["x", "x"], ["y"])),
    "by zero": model(node("Div", ["x", "k"], ["y"]), k=np.array([1, 0])),
    "by a negative number": model(node("Div", ["x", "k"], ["y"]), k=np.int64(-1)),
    "a floating-point number": model(node("Cast", ["x"], ["y"], to=TensorProto.FLOAT), output=TensorProto.FLOAT),
    "a sum": model(node("ReduceSum", ["x"], ["y"])),
    "a shape": model(node("Reshape", ["k", "x"], ["y"]), k=_TEN),
    "one use of two": model(
        node("Add", ["x", "k"], ["a"]), node("ReduceSum", ["a"], ["b"]), node("Add", ["a", "b"], ["y"]), k=_TEN
    ),
}


@pytest.mark.parametrize("kind", _WHOLE)
def test_where_any_integer_will_do(kind: str) -> None:
    assert sampled(_WHOLE[kind]) == NUMBERS


@pytest.mark.parametrize("kind", _NOT)
def test_where_not_every_integer_will_do(kind: str) -> None:
    assert sampled(_NOT[kind]) == Sampling()


def test_what_is_no_integer_is_no_number() -> None:
    made = model(node("Neg", ["x"], ["y"]), dtype="float32", output=TensorProto.FLOAT)
    assert sampled(made, DType.FLOAT32) == Sampling()
    looked_up = model(node("Gather", ["t", "x"], ["y"]), output=1, t=_TABLE)
    assert sampled(looked_up) == Sampling(role=Role.IDS, high=10)


def test_ids_of_two_tables_are_rows_of_the_smallest() -> None:
    made = model(
        node("Gather", ["t", "x"], ["a"]),
        node("Gather", ["small", "x"], ["b"]),
        node("Concat", ["a", "b"], ["y"], axis=-1),
        output=1,
        t=_TABLE,
        small=_TABLE[:4],
    )
    assert sampled(made) == Sampling(role=Role.IDS, high=4)


def test_rows_are_those_of_the_axis_that_is_chosen_from() -> None:
    for axis, rows in ((0, 10), (1, 7), (-1, 7)):
        made = model(node("Gather", ["t", "x"], ["y"], axis=axis), output=1, t=_TABLE[:, :7])
        assert sampled(made) == Sampling(role=Role.IDS, high=rows)
    data = model(node("Gather", ["x", "k"], ["y"]), k=np.int64(1))
    assert sampled(data) == Sampling()


_FROM_EITHER_END = [
    node("Less", ["x", "zero"], ["before"]),
    node("Add", ["x", "rows"], ["from_the_end"]),
    node("Where", ["before", "from_the_end", "x"], ["row"]),
    node("Gather", ["t", "row"], ["y"]),
]


def test_rows_may_be_counted_from_either_end() -> None:
    constants = {"t": _TABLE, "zero": np.int64(0)}
    rows = node("Constant", [], ["rows"], value=numpy_helper.from_array(_TEN))
    assert sampled(model(rows, *_FROM_EITHER_END, output=1, **constants)) == Sampling(role=Role.IDS, high=10)
    constants["rows"] = _TEN
    assert sampled(model(*_FROM_EITHER_END, output=1, **constants)) == Sampling(role=Role.IDS, high=10)
    shifted = model(node("Add", ["x", "rows"], ["row"]), node("Gather", ["t", "row"], ["y"]), output=1, **constants)
    assert sampled(shifted) == Sampling()


@pytest.mark.parametrize("inputs", [["x", ""], ["x"], ["x", "odd"]])
def test_what_no_row_can_be_told_from_is_no_row(inputs: list[str]) -> None:
    odd = np.zeros((2, 3, 5), np.int64)
    made = model(node("Add", inputs, ["row"]), node("Gather", ["t", "row"], ["y"]), output=1, t=_TABLE, odd=odd)
    assert sampled(made).role is not Role.IDS


def test_an_operator_of_another_domain_is_not_known() -> None:
    made = model(node("Abs", ["x"], ["y"], domain="com.example"))
    assert sampled(made) == Sampling()


_KEYS = np.array([-5, 3, 4, 9], np.int64)


def searched(*, dtype: str = "int64", keys: Any = _KEYS, **more: Any) -> Any:
    """Whether x is one of the keys, at a place that is made of x too."""
    return model(
        node("Cast", ["x"], ["wide"], to=TensorProto.INT64),
        node("LessOrEqual", ["k", "wide"], ["after"]),
        node("Cast", ["after"], ["place"], to=TensorProto.INT64),
        node("Gather", ["keys", "place"], ["nearest"]),
        node("Equal", ["nearest", "wide"], ["y"]),
        output=TensorProto.BOOL,
        dtype=dtype,
        k=np.int64(4),
        keys=keys,
        **more,
    )


def test_what_is_compared_with_one_of_a_list_is_a_key_of_it() -> None:
    found = sampled(searched())
    assert (found.role, found.keys) == ("keys", (-5, 3, 4, 9))
    assert set(found.beside) >= {-6, -4, 2, 5, 8, 10, -1, 0, 1, -(1 << 63), (1 << 63) - 1}
    assert not set(found.beside) & set(found.keys)
    narrow = sampled(searched(dtype="uint8", keys=np.array([-5, 3, 4, 255, 256], np.int64)), DType.UINT8)
    assert narrow.keys == (3, 4, 255)
    assert narrow.beside == (0, 1, 2, 5, 254)
    assert sampled(searched(dtype="uint8", keys=np.array([-5, 300], np.int64)), DType.UINT8) == NUMBERS


def test_keys_that_a_table_cannot_be_asked_for_are_not() -> None:
    described = GraphInput(name="x", dtype=DType.INT64, shape=("n", "m"))
    found = sampling_of(ir.from_proto(searched()).graph, described, {0, 5, -1})
    assert not {0, 5, -1} & set(found.beside)
    assert {1, 8} <= set(found.beside)


def test_of_a_long_list_some_keys_are_taken_from_the_first_to_the_last() -> None:
    found = sampled(searched(keys=np.arange(0, 100_000, 2)))
    assert len(found.keys) == len(found.beside) == 256
    assert (found.keys[0], found.keys[-1]) == (0, 99_998)


def test_keys_of_what_also_chooses_rows_are_rows() -> None:
    made = searched()
    made.graph.node.append(node("Gather", ["rows", "x"], ["other"]))
    made.graph.initializer.append(numpy_helper.from_array(np.eye(5, dtype=np.float32), "rows"))
    found = sampled(made)
    assert (found.keys, found.beside) == ((3, 4), (0, 1, 2))
    made.graph.node.append(node("Gather", ["many", "x"], ["more"]))
    made.graph.initializer.append(numpy_helper.from_array(np.eye(100, dtype=np.float32), "many"))
    assert sampled(made) == found


def test_what_does_not_fit_is_told() -> None:
    sets = {"0": {"x": np.array([1, -1])}, "1": {"x": np.array([1 << 31])}, "2": {"x": np.array([2**31], "u4")}}
    taken, unfit = fitting(sets, {"x": np.int32})
    assert unfit == {"1": "the target takes int32 for x"}
    assert taken.keys() == sets.keys() - unfit.keys()
    assert fitting(sets, {"x": np.int64}) == fitting(sets, {}) == (sets, {})


def hashed(*more: Any) -> Any:
    """Rows of a table by what is left of a number, times a large one, and the number itself."""
    return model(
        *more,
        node("Mul", ["number" if more else "x", "factor"], ["product"]),
        node("Mod", ["product", "k"], ["row"]),
        node("Gather", ["table", "row"], ["y"]),
        output=TensorProto.FLOAT,
        shape=["n", "m", 3],
        factor=np.int64(0x9E3779B97F4A7C15 - (1 << 64)),
        k=_TEN,
        table=np.random.default_rng(0).standard_normal((10, 3)).astype(np.float32),
    )


@pytest.mark.parametrize("target", ["savedmodel", "pt2"])
def test_a_graph_that_takes_any_integer_is_compared_on_the_whole_type(target: str, tmp_path: Path) -> None:
    pytest.importorskip({"savedmodel": "tensorflow", "pt2": "torch"}[target])
    onnx.save(hashed(), tmp_path / "x.onnx")
    report = converter.convert(tmp_path / "x.onnx", tmp_path / "out", to=target, verify="outputs")
    assert report.verification.outputs
    assert report.verification.left_out == ()


def test_a_narrower_type_is_noticed(tmp_path: Path) -> None:
    narrow = [
        node("Cast", ["x"], ["narrow"], to=TensorProto.INT32),
        node("Cast", ["narrow"], ["number"], to=TensorProto.INT64),
    ]
    onnx.save(hashed(), tmp_path / "x.onnx")
    onnx.save(hashed(*narrow), tmp_path / "other.onnx")
    converter.convert(tmp_path / "x.onnx", tmp_path / "out.onnx", verify="outputs")
    with pytest.raises(VerificationError, match="output 'y' differs"):
        converter.verify(tmp_path / "other.onnx", tmp_path / "out.onnx", verify="outputs")


def test_a_target_that_was_asked_to_take_less_is_no_false_alarm(tmp_path: Path) -> None:
    pytest.importorskip("tensorflow")
    onnx.save(hashed(), tmp_path / "x.onnx")
    report = converter.convert(tmp_path / "x.onnx", tmp_path / "out", to="savedmodel", input_dtype="int32")
    assert report.verification.outputs
    (note,) = report.verification.left_out
    assert note == f"outputs not compared on {WHOLE}, 4 x 12: the target takes int32 for x"
