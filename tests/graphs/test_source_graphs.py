"""Sources that bring a graph: their tensors get PyTorch's names and layouts, and the graph computes what it did."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import converter
from converter.errors import GraphError, LossError, VerificationError
from converter.graphs.description.signature import Signature
from converter.graphs.description.source import GraphSource
from converter.graphs.fitting.fitting import fitted_to_source
from converter.model.checkpoint import Checkpoint
from converter.model.dtype import DType
from converter.model.tensor import ArrayTensor, concat
from tests.graphs import keras_side
from tests.graphs.keras_side import WEIGHTS

pytest.importorskip("tensorflow")


def source(tmp_path: Path, **changes: Any) -> Checkpoint:
    """A Keras checkpoint whose kernel is [in, out], with a graph that uses it so."""
    tensors = {name: ArrayTensor.of(array) for name, array in WEIGHTS.items()}
    graph = GraphSource(
        model=tmp_path,
        trace=keras_side.trace.with_arguments(trained=["dense/kernel"]),
        reference=keras_side.run,
        extra="tensorflow",
    )
    return replace(Checkpoint(tensors=tensors, dialect="keras", graph=graph), **changes)


def variables(path: Path) -> dict[str, Any]:
    import tensorflow as tf

    loaded = tf.saved_model.load(str(path))
    return {variable.name.removesuffix(":0"): variable for variable in loaded.variables}


def test_names_and_layouts_are_pytorchs_and_outputs_those_of_the_source(tmp_path: Path) -> None:
    report = converter.write(source(tmp_path), tmp_path / "out", to="savedmodel")
    assert report.verification.outputs
    assert report.verification.max_abs is not None
    found = variables(tmp_path / "out")
    np.testing.assert_array_equal(found["dense.weight"].numpy(), WEIGHTS["dense/kernel"].T)
    assert set(found) == {"dense.weight", "dense.bias", "count"}
    assert "dense.bias" not in [name for name, variable in found.items() if variable.trainable]
    assert report.counts["mapped"] == 3


def test_another_weight_than_the_references_is_caught(tmp_path: Path) -> None:
    tensors = {**source(tmp_path).tensors, "dense/bias": ArrayTensor.of(WEIGHTS["dense/bias"] + 1e-3)}
    with pytest.raises(VerificationError, match="output 'y' differs"):
        converter.write(source(tmp_path, tensors=tensors), tmp_path / "out", to="savedmodel")


def test_a_cast_is_made_up_for_in_the_graph(tmp_path: Path) -> None:
    report = converter.write(source(tmp_path), tmp_path / "out", to="savedmodel", dtype="float16")
    assert report.verification.outputs
    assert variables(tmp_path / "out")["dense.weight"].dtype.name == "float16"


def test_a_tensor_that_the_graph_uses_cannot_be_left_out(tmp_path: Path) -> None:
    converter.write(source(tmp_path), tmp_path / "whole", to="savedmodel", exclude=("count",), verify="weights")
    with pytest.raises(LossError, match="the graph uses it"):
        converter.write(source(tmp_path), tmp_path / "out", to="savedmodel", exclude=("dense.bias",))


def test_a_graph_that_cannot_be_had_says_why(tmp_path: Path) -> None:
    graph = replace(source(tmp_path).graph, trace=keras_side.trace_of_nothing)
    with pytest.raises(GraphError, match="reading the graph: nothing failed: ValueError: nonsense"):
        converter.write(source(tmp_path, graph=graph), tmp_path / "out", to="savedmodel")
    converter.write(source(tmp_path, graph=graph), tmp_path / "out", to="savedmodel", weights_only=True)
    assert set(variables(tmp_path / "out")) == {"dense.weight", "dense.bias", "count"}


def test_what_was_joined_keeps_the_sources_names(tmp_path: Path) -> None:
    given = source(tmp_path)
    left, right = ArrayTensor.of(np.ones((2, 3), np.float32)), ArrayTensor.of(np.ones((1, 3), np.float32))
    given = replace(given, tensors={"a/left": left, "a/right": right, "b": given.tensors["count"]})
    planned = replace(
        given,
        tensors={"joined": concat([left.transpose((1, 0)), right.transpose((1, 0))], axis=1), "c": given.tensors["b"]},
        origins={"joined": "a/left", "c": "b"},
    )
    declared = {"a/left": (DType.FLOAT32, (2, 3)), "b": (DType.FLOAT32, (2,))}
    fitted = fitted_to_source(planned, given, Signature(title="x", parameters=declared))
    assert set(fitted.checkpoint.tensors) == {"a/left", "a/right", "c"}
    assert fitted.checkpoint.origins == {"c": "b"}
    assert [(name, each.name) for name, each in fitted.stored.items()] == [("b", "c")]
