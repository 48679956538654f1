"""Every TensorFlow class of transformers: tf_model.h5 to what save_pretrained of the PyTorch class writes.

Needs the second environment (tests/oracle/environment.py). Prints which classes were built, which are exact, and why
the others are not.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.oracle import environment
from tests.oracle.reading import built_in, outcome
from tests.slices import IS_FULL

if not environment.PYTHON:
    pytest.skip("CKCONV_ORACLE_PYTHON names no Python", allow_module_level=True)

_RENAMED = "transformers 5 has other names in its heads, and no rule that reads the old ones"
NOT_EXACT = {
    "TFData2VecVisionForSemanticSegmentation.0": _RENAMED,
    "TFData2VecVisionForSemanticSegmentation.1": _RENAMED,
    "TFEsmForSequenceClassification.1": "its TensorFlow class has no cross-attention where PyTorch's has",
    "TFEsmForTokenClassification.1": "its TensorFlow class has no cross-attention where PyTorch's has",
}


def test_every_class_is_exact(tensorflow_dumps: Path, tmp_path: Path, tell: Callable[[str], None]) -> None:
    outcomes = {path.name: outcome(path, tmp_path) for path in built_in(tensorflow_dumps)}
    failed = tensorflow_dumps / "failed.json"
    assert not failed.exists(), failed.read_text()
    wrong = {name: found.reason for name, found in outcomes.items() if found.reason}
    classes = {found.class_name for found in outcomes.values()}
    exact = classes - {outcomes[name].class_name for name in wrong}
    tell(f"TensorFlow to PyTorch: {len(classes)} classes built, {len(exact)} exact in both variants")
    for name, reason in wrong.items():
        tell(f"  {name}: {NOT_EXACT.get(name, reason)}")
    assert {name: reason for name, reason in wrong.items() if name not in NOT_EXACT} == {}
    assert [name for name in NOT_EXACT if name in outcomes and name not in wrong] == []
    assert len(exact) >= (260 if IS_FULL else environment.FAMILIES_OF_A_PART)
