"""The functions that run a model on given inputs, called as the driver calls them: JSON values, a process each."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from converter.errors import GraphError
from converter.graphs.lower.tensorflow.saved_model import build
from converter.graphs.run import saved_model
from converter.graphs.run.arrays import read_arrays, read_sets, write_sets

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
    assert report == {"missing": [], "unexpected": [], "failed": {}}
    _assert_same(tmp_path / "source.npz", folder / "outputs.npz")

    arguments = {"graph": str(folder / "graph.onnx"), "weights": str(folder / "model.safetensors")}
    build(**arguments, folder=str(tmp_path / "saved"), trainable=[], input_dtype="int32")
    saved_model.run(
        model=str(tmp_path / "saved"),
        architecture="BertForQuestionAnswering",
        inputs=str(folder / "inputs.npz"),
        outputs=str(tmp_path / "target.npz"),
    )
    _assert_same(tmp_path / "target.npz", folder / "outputs.npz")


def test_tensors_that_do_not_belong_are_reported(
    prepared: Prepared, tmp_path: Path, child_environment: dict[str, str]
) -> None:
    folder = prepared("BertForQuestionAnswering")
    shutil.copy(folder / "config.json", tmp_path)
    tensors = load_file(folder / "model.safetensors")
    tensors["qa_outputs.weigth"] = tensors.pop("qa_outputs.weight")
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    report = _run_transformers(tmp_path, folder, tmp_path / "outputs.npz", child_environment)
    assert report == {"missing": ["qa_outputs.weight"], "unexpected": ["qa_outputs.weigth"], "failed": {}}


def test_a_model_without_a_signature(tmp_path: Path) -> None:
    save_file({"scale": np.ones(2, np.float32)}, tmp_path / "weights.safetensors")
    build(graph=None, weights=str(tmp_path / "weights.safetensors"), folder=str(tmp_path / "saved"), trainable=[])
    write_sets(str(tmp_path / "inputs.npz"), {"0": {"x": np.zeros(1)}})
    with pytest.raises(GraphError, match="no signature"):
        saved_model.run(
            model=str(tmp_path / "saved"),
            architecture="",
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
