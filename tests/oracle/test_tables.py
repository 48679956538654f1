"""The committed tables are what their generators make today, and what is written by them is in Keras's order.

The TensorFlow ones need the second environment (tests/oracle/environment.py), the one of names in memory this one.
"""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import converter
from converter.dialects.tables import document, tensorflow_table
from converter.dialects.transformers import tensorflow_writing
from converter.errors import CkconvError
from tests.oracle import environment
from tests.oracle.generate import tensorflow, tensorflow_classes
from tests.oracle.generate.tensorflow_configs import CONFIGS
from tests.oracle.reading import built_in
from tests.slices import IS_FULL, SEED

pytestmark = pytest.mark.one_in(2)

needs_oracle = pytest.mark.skipif(not environment.PYTHON, reason="CKCONV_ORACLE_PYTHON names no Python")

FAMILIES_OF_A_PART = 2
MODEL_TYPES_OF_A_PART = 5
WITHOUT_OBJECTS = {"flaubert", "resnet", "xlm"}
"""Families none of whose classes has every variable at one path."""
IN_OTHER_ORDER = {
    "TFBlipModel": "its projections come in another order in the classes with a head",
    "TFCvtForImageClassification": "cls_token is called as if it were no part of its stage",
    "TFCvtModel": "cls_token is called as if it were no part of its stage",
    "TFEsmForMaskedLM": "cross-attention, which Keras numbers",
    "TFEsmModel": "cross-attention, which Keras numbers",
    "TFLxmertForPreTraining": "the decoder's embeddings stand between the two heads",
}
"""Classes some of whose weights are not in Keras's order: names are right, a plain load by position is not."""

_NUMBERED = re.compile(r"(activation|average_pooling2d|dropout|flatten|max_pooling2d)_\d+")


@needs_oracle
def test_the_table_of_tensorflow_names(tensorflow_dumps: Path) -> None:
    by_type: dict[str, list[dict[str, Any]]] = {}
    for dump in tensorflow.dumps(tensorflow_dumps):
        by_type.setdefault(dump["model_type"], []).append(dump)
    known = document("tensorflow")["models"]
    made = {model_type: tensorflow.model_of(entries) for model_type, entries in by_type.items()}
    assert made == {model_type: known[model_type] for model_type in made}
    assert set(made) == set(known) if IS_FULL else len(made) > 0


@needs_oracle
def test_the_table_of_tensorflow_classes(tensorflow_dumps: Path) -> None:
    """All of it but the numbers that Keras gives to layers, which loading shows."""
    by_class: dict[str, list[dict[str, Any]]] = {}
    for dump in tensorflow.dumps(tensorflow_dumps):
        by_class.setdefault(dump["class"], []).append(dump)
    known = document("tensorflow_classes")["models"]
    for name, entries in by_class.items():
        table = tensorflow_table(entries[0]["model_type"])
        assert table is not None
        for key in ("copies", "made", "layers"):
            made = getattr(tensorflow_classes, key)(entries, table)
            assert json.loads(json.dumps(made)) == known[name][key], (name, key)
    assert set(by_class) == set(known) if IS_FULL else len(by_class) >= environment.FAMILIES_OF_A_PART


@needs_oracle
def test_weights_are_written_in_keras_order(tensorflow_dumps: Path, tell: Callable[[str], None]) -> None:
    wrong: dict[str, str] = {}
    built = built_in(tensorflow_dumps)
    for folder in built:
        dump = json.loads((folder / "dump.json").read_text())
        theirs = {_numberless(layer): [*map(tensorflow.stripped, names)] for layer, names in dump["layers"]}
        checkpoint = converter.read(folder / "expected.safetensors", config=folder / "config.json")
        try:
            made = tensorflow_writing.layers(tensorflow_writing.from_canonical(checkpoint))
        except CkconvError as error:
            wrong[folder.name] = error.message
            continue
        ours = {_numberless(layer): [*map(tensorflow.stripped, names)] for layer, names in made.items()}
        ours.pop(tensorflow_writing.TOP_LEVEL)
        if list(ours) != list(theirs) or ours != theirs:
            wrong[folder.name] = str([layer for layer in theirs if ours.get(layer) != theirs[layer]])
    others = f", not {', '.join(wrong)}" if wrong else ""
    tell(f"weights in Keras's order: {len(built) - len(wrong)} of {len(built)} files{others}")
    assert {name: why for name, why in wrong.items() if name.partition(".")[0] not in IN_OTHER_ORDER} == {}
    classes = {folder.name.partition(".")[0] for folder in built}
    assert IN_OTHER_ORDER.keys() & classes <= {name.partition(".")[0] for name in wrong}


def _numberless(layer: str) -> str:
    return _NUMBERED.sub(r"\1", layer)


@needs_oracle
@pytest.mark.parametrize("name", ["keras_attributes", "tensorflow_objects"])
def test_the_tables_of_places_in_files_and_of_objects(name: str, tmp_path: Path) -> None:
    families = sorted(set(CONFIGS) - WITHOUT_OBJECTS if name == "tensorflow_objects" else CONFIGS)
    if not IS_FULL:
        families = random.Random(f"{SEED} {name}").sample(families, FAMILIES_OF_A_PART)
    table = tmp_path / f"{name}.json"
    environment.run(f"tests.oracle.generate.{name}", str(table), *families, timeout_seconds=5000)
    _assert_as_committed(name, table)


def test_the_table_of_classes(tmp_path: Path, tell: Callable[[str], None]) -> None:
    _assert_made_again("classes", tmp_path, tell)


def test_the_table_of_parameters(tmp_path: Path, tell: Callable[[str], None]) -> None:
    _assert_made_again("parameters", tmp_path, tell)


def test_the_table_of_configs(tmp_path: Path, tell: Callable[[str], None]) -> None:
    _assert_made_again("configs", tmp_path, tell)


def test_the_table_of_names_in_memory(tmp_path: Path, tell: Callable[[str], None]) -> None:
    _assert_made_again("in_process", tmp_path, tell)


def _assert_made_again(name: str, folder: Path, tell: Callable[[str], None]) -> None:
    chosen = sorted(document(name)["models"])
    if not IS_FULL:
        chosen = random.Random(SEED).sample(chosen, MODEL_TYPES_OF_A_PART)
    tell(f"{name}.json: {', '.join(chosen)}")
    table = folder / f"{name}.json"
    command = [sys.executable, "-m", f"tests.oracle.generate.{name}", str(table), *chosen]
    subprocess.run(command, env={**os.environ, "HF_HUB_OFFLINE": "1"}, capture_output=True, timeout=7000, check=True)
    _assert_as_committed(name, table)


def _assert_as_committed(name: str, table: Path) -> None:
    known, made = document(name)["models"], json.loads(table.read_text())["models"]
    assert made
    for model_type, entry in made.items():
        assert entry == known[model_type], model_type
