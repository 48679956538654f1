"""Sets on which the source does not run are left out and said to be; where the target alone does not run, it fails."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import converter
from converter.errors import GraphError, LimitError, VerificationError
from converter.graphs.description.signature import Dimension, GraphInput, Role, Sampling, Signature, Threshold
from converter.graphs.description.traced import Reference, TracedGraph
from converter.graphs.run.answers import Answer
from converter.graphs.run.arrays import read_sets, run_sets
from converter.model.checkpoint import Checkpoint
from converter.model.child_function import Call, child_function
from converter.model.dtype import DType
from converter.observer import SILENT
from converter.options import Options
from converter.proof import verify_outputs
from converter.report import Verification

Model = Callable[[dict[str, Any]], dict[str, Any]]


def doubled(arrays: dict[str, Any]) -> dict[str, Any]:
    return {"y": arrays["x"] * 2.0 + arrays["mask"]}


def failing(is_wrong: Callable[[dict[str, Any]], bool]) -> Model:
    def model(arrays: dict[str, Any]) -> dict[str, Any]:
        if is_wrong(arrays):
            raise GraphError("no such extent")
        return doubled(arrays)

    return model


def dying(is_wrong: Callable[[dict[str, Any]], bool]) -> Model:
    def model(arrays: dict[str, Any]) -> dict[str, Any]:
        if is_wrong(arrays):
            raise LimitError("the reference reached its limit of memory, 1 GiB")
        return doubled(arrays)

    return model


def is_single(arrays: dict[str, Any]) -> bool:
    return bool(arrays["x"].shape[1] == 1)


def is_long(arrays: dict[str, Any]) -> bool:
    return bool(arrays["x"].shape[1] > 40)


@child_function("source")
def run_source(*, model: str, inputs: str, outputs: str) -> Answer:
    raise NotImplementedError  # the workshop below has a model instead


@child_function("target")
def run_target(*, model: str, inputs: str, outputs: str) -> Answer:
    raise NotImplementedError


class Workshop:
    """Calls functions in this process; one that raises LimitError is a child that ended without an answer."""

    observer = SILENT

    def __init__(self, scratch: Path, source: Model, target: Model) -> None:
        self.scratch = scratch
        self.models = {"source": source, "target": target}

    def call_all(self, calls: Sequence[Call[Any]], *, at_once: int = 1) -> list[Any]:
        return [{"failed": self._called(call)} for call in calls]

    def _called(self, call: Call[Any]) -> dict[str, str]:
        model = self.models[call.what]

        def run(arrays: dict[str, Any]) -> dict[str, Any]:
            try:
                return model(arrays)
            except LimitError as error:
                raise KilledError(str(error)) from error

        try:
            return run_sets(read_sets(call.arguments["inputs"]), call.arguments["outputs"], run)
        except KilledError as error:
            raise LimitError(str(error)) from error


class KilledError(Exception):
    """What no runner catches."""


def verified(source: Model, target: Model, folder: Path) -> Verification:
    shape = ("batch", "sequence")
    architecture = Signature(
        title="",
        parameters={},
        inputs=(
            GraphInput(name="x", dtype=DType.INT64, shape=shape, sampling=Sampling(role=Role.IDS, high=9)),
            GraphInput(name="mask", dtype=DType.INT64, shape=shape, sampling=Sampling(role=Role.MASK)),
        ),
        dimensions=(Dimension(name="batch", checked=(3, 1, 4, 2, 2)), Dimension(name="sequence")),
        thresholds=(Threshold(name="window 64", dimension="sequence", count=64),),
    )
    reference = Reference(runner=run_source, model=folder, takes_weights=False)
    graph = TracedGraph(file=folder, signature=architecture, reference=reference)
    checkpoint = Checkpoint(tensors={}, dialect="pytorch", graph=graph)
    workshop: Any = Workshop(folder, source, target)
    return verify_outputs(checkpoint, folder / "staged", run_target, Options(), workshop)


def test_all_sets_are_compared_where_both_run(tmp_path: Path) -> None:
    found = verified(doubled, doubled, tmp_path)
    assert (found.outputs, found.left_out, found.beyond) == (True, (), None)


def test_a_set_that_the_source_does_not_take_is_left_out_and_said_to_be(tmp_path: Path) -> None:
    for target in (doubled, failing(is_single)):
        found = verified(failing(is_single), target, tmp_path)
        said = "outputs not compared on the shortest, 2 x 1: the source does not run there: no such extent"
        assert found.left_out == (said,)
        assert found.notes == (said,)
        assert found.beyond is None


def test_lengths_that_the_source_does_not_take_are_in_the_verdict(tmp_path: Path) -> None:
    found = verified(failing(is_long), doubled, tmp_path)
    assert str(found).endswith("; outputs not compared beyond 17 tokens (window 64)")
    assert "past window 64, 1 x 72" in found.left_out[0]


def test_a_target_that_alone_does_not_run_fails(tmp_path: Path) -> None:
    with pytest.raises(VerificationError, match="does not run on the shortest, 2 x 1, where the source does: no such"):
        verified(doubled, failing(is_single), tmp_path)


def test_a_target_that_is_wrong_on_one_set_fails(tmp_path: Path) -> None:
    def wrong(arrays: dict[str, Any]) -> dict[str, Any]:
        found = doubled(arrays)
        return {"y": found["y"] + (arrays["mask"][-1].max() == 0)}

    with pytest.raises(VerificationError, match="differs"):
        verified(doubled, wrong, tmp_path)


def test_a_source_that_dies_is_run_on_the_plainest_sets(tmp_path: Path) -> None:
    found = verified(dying(is_long), doubled, tmp_path)
    assert found.outputs
    assert len(found.left_out) == 4
    assert all("reached its limit of memory" in each for each in found.left_out)
    assert found.beyond == "outputs not compared beyond 17 tokens (window 64)"


def test_a_target_that_dies_alone_fails(tmp_path: Path) -> None:
    with pytest.raises(LimitError, match="limit of memory"):
        verified(doubled, dying(is_long), tmp_path)


def test_a_source_that_never_runs_fails(tmp_path: Path) -> None:
    with pytest.raises(GraphError, match="the source does not run: no such extent"):
        verified(failing(lambda arrays: True), doubled, tmp_path)


def test_ids_out_of_range_of_the_source_are_no_false_alarm(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    from tests.graphs import onnx_models

    table = np.random.default_rng(0).normal(size=(2, 3)).astype(np.float32)
    graph = onnx.helper.make_graph(
        [
            onnx.helper.make_node("Abs", ["ids"], ["positive"]),
            onnx.helper.make_node("Gather", ["table", "positive"], ["y"]),
        ],
        "looked up",
        [onnx.helper.make_tensor_value_info("ids", onnx.TensorProto.INT64, ["batch", "n"])],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["batch", "n", 3])],
        [onnx.numpy_helper.from_array(table, "table")],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=10)
    onnx_models.save(model, tmp_path / "x.onnx")
    report = converter.convert(tmp_path / "x.onnx", tmp_path / "out.onnx")
    assert report.verification.outputs
    note, drawn = report.verification.left_out
    assert drawn == "integers of ids were drawn from 0 to 1, as the source takes them"
    assert note.startswith("outputs not compared on negative and large integers, 4 x 12: the source does not run there")
    assert f"note: {note}" in report.losses()
