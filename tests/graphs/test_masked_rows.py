"""Lengths, masks and padding that once went wrong, each with the class that showed it: onnxruntime does as torch.

LED was cut to nothing where its text fills all windows; masks of numbers (LayoutLM, T5) gave a row that is all masked
zeros where torch attends evenly; transformers zeroes the row of padding that it has loaded (ChineseCLIP).
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("transformers")

from converter.graphs.run.arrays import read_arrays
from tests.graphs.conftest import ROOT

_CLASSES = ("LEDForConditionalGeneration", "LayoutLMModel", "ChineseCLIPModel")
_RUN = """
import sys
from converter.graphs.run.transformers import run
folder = sys.argv[1]
print(run(model=folder, architecture=sys.argv[2], inputs=f"{folder}/inputs.npz", outputs=f"{folder}/found.npz"))
"""


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory, child_environment: dict[str, str]) -> Path:
    folder = tmp_path_factory.mktemp("zoo")
    command = [sys.executable, "-m", "tests.graphs.zoo_torch", str(folder), *_CLASSES]
    subprocess.run(command, cwd=ROOT, env=child_environment, check=True, capture_output=True)
    return folder


@pytest.mark.parametrize("name", _CLASSES)
def test_the_graph_computes_what_torch_does(name: str, zoo: Path) -> None:
    found = json.loads((zoo / name / "torch.json").read_text())
    assert found.get("error") is None
    assert found["left_out"] == {}
    assert found["onnx"] < 1e-4


def test_the_reference_has_the_weights_of_the_file(zoo: Path, child_environment: dict[str, str]) -> None:
    folder = zoo / "ChineseCLIPModel"
    command = [sys.executable, "-c", _RUN, str(folder), folder.name]
    subprocess.run(command, cwd=ROOT, env=child_environment, check=True, capture_output=True)
    found, expected = (read_arrays(str(folder / name)) for name in ("found.npz", "outputs.npz"))
    assert set(found) == set(expected)
    for key in expected:
        np.testing.assert_allclose(found[key], expected[key], atol=1e-5, err_msg=key)
