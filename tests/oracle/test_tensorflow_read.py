"""Every TensorFlow class of transformers: tf_model.h5 to what save_pretrained of the PyTorch class writes.

Needs the second environment (tests/oracle/environment.py). Prints which classes were built, which are exact, and why
the others are not.
"""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.oracle import environment
from tests.oracle.generate.tensorflow_configs import CONFIGS
from tests.oracle.reading import built_in, outcome

if not environment.PYTHON:
    pytest.skip("CKCONV_ORACLE_PYTHON names no Python", allow_module_level=True)

FAMILIES_OF_A_PART = 8
NOT_EXACT = {
    "TFEsmForSequenceClassification.1": "its TensorFlow class has no cross-attention where PyTorch's has",
    "TFEsmForTokenClassification.1": "its TensorFlow class has no cross-attention where PyTorch's has",
}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("built")
    families = sorted(CONFIGS)
    if not environment.IS_FULL:
        families = random.Random(environment.SEED).sample(families, FAMILIES_OF_A_PART)
    environment.run("tests.oracle.generate.tensorflow_dump", str(folder), *families, timeout_seconds=3000)
    return folder


def test_every_class_is_exact(built: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    outcomes = {path.name: outcome(path, tmp_path) for path in built_in(built)}
    assert not (built / "failed.json").exists(), (built / "failed.json").read_text()
    wrong = {name: found.reason for name, found in outcomes.items() if found.reason}
    classes = {found.class_name for found in outcomes.values()}
    exact = classes - {outcomes[name].class_name for name in wrong}
    with capsys.disabled():
        print(f"\nTensorFlow to PyTorch: {len(classes)} classes built, {len(exact)} exact in both variants")
        for name, reason in wrong.items():
            print(f"  {name}: {NOT_EXACT.get(name, reason)}")
    assert {name: reason for name, reason in wrong.items() if name not in NOT_EXACT} == {}
    assert environment.IS_FULL is False or len(exact) >= 255
