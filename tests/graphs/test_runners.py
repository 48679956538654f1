"""The functions that run a model on given inputs, called as the driver calls them: JSON values, a process each."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from converter.errors import GraphError, VerificationError
from converter.execution.child import Terms
from converter.execution.workshop import LocalWorkshop
from converter.graphs.calls import run_transformers
from converter.graphs.description.signature import Signature
from converter.graphs.description.traced import Reference, TracedGraph
from converter.graphs.lower.tensorflow.saved_model import build
from converter.graphs.run import saved_model
from converter.graphs.run.arrays import read_arrays, read_sets, write_sets
from converter.model.checkpoint import Checkpoint
from converter.model.tensor import ArrayTensor
from converter.options import Options
from converter.proof import verify_outputs
from tests.graphs import keras_side

Prepared = Callable[[str], Path]
_PROGRAM = """
import json, sys
from converter.graphs.run import transformers
print(json.dumps(transformers.run(**json.loads(sys.argv[1]))))
"""


def _run_transformers(model: Path, folder: Path, target: Path, environment: dict[str, str]) -> dict[str, Any]:
    arguments = {
        "model": str(model),
        "architecture": "BertForQuestionAnswering",
        "inputs": str(folder / "inputs.npz"),
        "outputs": str(target),
    }
    command = [sys.executable, "-c", _PROGRAM, json.dumps(arguments)]
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    report: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return report


def _assert_same(found: Path, expected: Path) -> None:
    left, right = read_arrays(str(found)), read_arrays(str(expected))
    assert set(left) == set(right) == {f"{n}/{name}_logits" for n in "01" for name in ("start", "end")}
    for key in right:
        np.testing.assert_allclose(left[key], right[key], atol=1e-5)


def test_source_and_target_agree(prepared: Prepared, tmp_path: Path, child_environment: dict[str, str]) -> None:
    folder = prepared("BertForQuestionAnswering")
    report = _run_transformers(folder, folder, tmp_path / "source.npz", child_environment)
    assert report == {"failed": {}}
    _assert_same(tmp_path / "source.npz", folder / "outputs.npz")

    arguments = {"graph": str(folder / "graph.onnx"), "weights": str(folder / "model.safetensors")}
    build(**arguments, folder=str(tmp_path / "saved"), trainable=[], input_dtype="int32")
    saved_model.run(
        model=str(tmp_path / "saved"),
        inputs=str(folder / "inputs.npz"),
        outputs=str(tmp_path / "target.npz"),
    )
    _assert_same(tmp_path / "target.npz", folder / "outputs.npz")


def test_a_reference_without_a_weight_of_its_class_is_no_difference_of_outputs(
    prepared: Prepared, tmp_path: Path
) -> None:
    """Transformers fills it at random: what is wrong is how the reference was prepared, not the target."""
    folder = prepared("BertForQuestionAnswering")
    model, staged, scratch = (tmp_path / name for name in ("model", "staged", "scratch"))
    for each in (model, staged, scratch):
        each.mkdir()
    shutil.copy(folder / "config.json", model)
    shutil.copy(folder / "outputs.npz", staged)
    description = json.loads((folder / "architecture.json").read_text())
    graph = TracedGraph(
        file=folder / "graph.onnx",
        signature=Signature.from_json(description),
        reference=Reference(
            runner=run_transformers.with_arguments(architecture="BertForQuestionAnswering"),
            model=model,
            takes_weights=True,
        ),
    )
    tensors = {name: ArrayTensor.of(values) for name, values in load_file(folder / "model.safetensors").items()}
    checkpoint = Checkpoint(tensors=tensors, graph=graph)
    workshop = LocalWorkshop(folder=staged, scratch=scratch, terms=Terms(reads=(model,)))
    with pytest.raises(VerificationError):  # with all of them it runs, and the target gives nothing to compare
        verify_outputs(checkpoint, staged, keras_side.run_nothing, Options(), workshop)

    (model / "model.safetensors").unlink()
    lacking = replace(checkpoint, tensors={name: each for name, each in tensors.items() if name != "qa_outputs.weight"})
    with pytest.raises(GraphError) as caught:
        verify_outputs(lacking, staged, keras_side.run_nothing, Options(), workshop)
    assert str(caught.value) == (
        "tensor qa_outputs.weight: is not in the checkpoint that BertForQuestionAnswering is to be run with"
    )
    assert caught.value.exit_code == 7


def test_a_model_without_a_signature(tmp_path: Path) -> None:
    save_file({"scale": np.ones(2, np.float32)}, tmp_path / "weights.safetensors")
    build(graph=None, weights=str(tmp_path / "weights.safetensors"), folder=str(tmp_path / "saved"), trainable=[])
    write_sets(str(tmp_path / "inputs.npz"), {"0": {"x": np.zeros(1)}})
    with pytest.raises(GraphError, match="no signature"):
        saved_model.run(
            model=str(tmp_path / "saved"),
            inputs=str(tmp_path / "inputs.npz"),
            outputs=str(tmp_path / "outputs.npz"),
        )


def test_sets_of_arrays_survive_a_file(tmp_path: Path) -> None:
    sets = {"0": {"input_ids": np.arange(3), "a/b": np.zeros((0, 2))}, "1": {"input_ids": np.array(1.5)}}
    write_sets(str(tmp_path / "sets.npz"), sets)
    found = read_sets(str(tmp_path / "sets.npz"))
    assert {key: set(arrays) for key, arrays in found.items()} == {key: set(arrays) for key, arrays in sets.items()}
    for key, arrays in sets.items():
        for name, array in arrays.items():
            np.testing.assert_array_equal(found[key][name], array)
