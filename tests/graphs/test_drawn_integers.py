"""Which integers inputs of ONNX files are checked with: all rows of what they look up, else what the source takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import converter
from converter.graphs.description.cases import sample_cases
from converter.graphs.description.signature import Role, Signature
from converter.graphs.trace.onnx_model import trace

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

INT64, FLOAT, BOOL = 7, 1, 9
TABLE = np.random.default_rng(7).normal(size=(50, 4)).astype(np.float32)


def node(operator: str, inputs: list[str], output: str, **attributes: Any) -> Any:
    return onnx.helper.make_node(operator, inputs, [output], **attributes)


def model(nodes: list[Any], shape: list[Any] | None = None, rank: int = 3, **values: Any) -> Any:
    info = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        nodes,
        "drawn",
        [info("ids", INT64, ["n", "m"] if shape is None else shape)],
        [info("y", FLOAT, [None] * rank)],
        [onnx.numpy_helper.from_array(np.asarray(value), name) for name, value in values.items()],
    )
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)


CODES = np.random.default_rng(8).integers(-100, 100, (50, 4)).astype(np.int8)
LOOKED_UP = {
    "a half": lambda: model(
        [node("Cast", ["t"], "wide", to=FLOAT), node("Gather", ["wide", "ids"], "y")], t=TABLE.astype(np.float16)
    ),
    "quantised": lambda: model(
        [node("DequantizeLinear", ["t", "s"], "wide"), node("Gather", ["wide", "ids"], "y")], t=CODES, s=np.float32(0.1)
    ),
    "a constant": lambda: model(
        [
            node("Constant", [], "t", value=onnx.numpy_helper.from_array(TABLE)),
            node("Gather", ["t", "ids"], "y"),
        ]
    ),
    "the last axis": lambda: model([node("Gather", ["t", "ids"], "y", axis=-1)], t=TABLE.T.copy()),
    "computed": lambda: model(
        [node("Transpose", ["t"], "turned", perm=[1, 0]), node("Gather", ["turned", "ids"], "y")], t=TABLE.T.copy()
    ),
    "one of classes": lambda: model(
        [node("OneHot", ["ids", "depth", "values"], "y")],
        depth=np.array(50, np.int64),
        values=np.array([0.0, 1.0], np.float32),
    ),
    "compared with each": lambda: model(
        [
            node("Unsqueeze", ["ids", "last"], "column"),
            node("Equal", ["column", "classes"], "is"),
            node("Cast", ["is"], "y", to=FLOAT),
        ],
        last=np.array([2], np.int64),
        classes=np.arange(50)[None, None],
    ),
}


def traced(made: Any, folder: Path) -> Signature:
    onnx.save(made, folder / "x.onnx")
    return Signature.from_json(trace(model=str(folder / "x.onnx"), graph=str(folder / "graph.onnx"), names={}))


@pytest.mark.parametrize("kind", LOOKED_UP)
def test_all_rows_of_what_is_looked_up(kind: str, tmp_path: Path) -> None:
    signature = traced(LOOKED_UP[kind](), tmp_path)
    (only,) = signature.inputs
    assert (only.sampling.role, only.sampling.high) == (Role.IDS, 50)
    drawn = np.concatenate([case.arrays["ids"].ravel() for case in sample_cases(signature).cases])
    assert set(drawn.tolist()) == set(range(50))


def wanted_in_part() -> Any:
    """Rows from the tenth on: nothing but a run says how many there are."""
    nodes = [node("Sub", ["ids", "ten"], "far"), node("Abs", ["far"], "at"), node("Gather", ["t", "at"], "y")]
    return model(nodes, ten=np.array(10, np.int64), t=TABLE)


@pytest.mark.parametrize("target", ["y.onnx", "savedmodel"])
def test_what_the_source_takes_is_found_by_trying(target: str, tmp_path: Path) -> None:
    if target == "savedmodel":
        pytest.importorskip("tensorflow")
    onnx.save(wanted_in_part(), tmp_path / "x.onnx")
    report = converter.convert(
        tmp_path / "x.onnx", tmp_path / target, to="savedmodel" if target == "savedmodel" else None
    )
    assert report.verification.outputs
    notes = [each for each in report.verification.left_out if "below" in each or "drawn" in each]
    assert notes == ["integers of ids were drawn from 0 to 15, as the source takes them"]


def test_a_number_is_what_it_is_compared_with(tmp_path: Path) -> None:
    """A rate of samples, on which another part of the graph depends."""
    branches = {
        f"{branch}_branch": onnx.helper.make_graph(
            [node(operator, ["t"], branch)], branch, [], [onnx.helper.make_tensor_value_info(branch, FLOAT, [50, 4])]
        )
        for branch, operator in (("then", "Neg"), ("else", "Abs"))
    }
    nodes = [node("Equal", ["ids", "rate"], "fast"), node("If", ["fast"], "y", **branches)]
    made = model(nodes, shape=[], rank=2, rate=np.array(16000, np.int64), t=TABLE)
    signature = traced(made, tmp_path)
    assert signature.inputs[0].sampling.keys == (16000,)
    drawn = {int(case.arrays["ids"]) for case in sample_cases(signature).cases}
    assert 16000 in drawn
    assert drawn - {16000}
    assert converter.convert(tmp_path / "x.onnx", tmp_path / "y.onnx").verification.outputs
