"""Graphs of transformers models as modules and programs of torch: values, gradients and names."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.graphs.zoo_report import ROOT

pytestmark = pytest.mark.framework

CLASSES = ("BertForMaskedLM", "GPT2LMHeadModel", "T5ForConditionalGeneration", "ViTForImageClassification")
_TIMEOUT_SECONDS = 600


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory, child_environment: dict[str, str]) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("zoo")
    for half in ("zoo_torch", "zoo_program"):
        command = [sys.executable, "-m", f"tests.graphs.{half}", str(folder), *CLASSES]
        subprocess.run(command, cwd=ROOT, env=child_environment, timeout=_TIMEOUT_SECONDS, check=True)
    return {name: json.loads((Path(folder) / name / "program.json").read_text()) for name in CLASSES}


@pytest.mark.parametrize("class_name", CLASSES)
def test_parity(class_name: str, answers: dict[str, Any]) -> None:
    found = answers[class_name]
    assert "error" not in found, found["error"]
    assert found["module"] < 1e-5
    assert found["program"] < 1e-5
    assert not found["names"]
    assert not found["without_gradient"]
    assert found["gradients"] < 1e-2
