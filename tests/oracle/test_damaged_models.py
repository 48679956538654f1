"""A checkpoint that is damaged is refused, or the TensorFlow or Flax class finds all that it asks for, and no more.

Twenty types that have such a class, in the twelve ways of tests/formats/damages.py, loaded by transformers 4.57.6. A
slice of the damages, seeded by CKCONV_ORACLE_SEED; all of them with CKCONV_ORACLE_FULL=1.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest

import converter
from converter.dialects.tables import document
from converter.errors import LossError
from converter.report import Report
from tests.formats.damages import DAMAGES, models, saved
from tests.graphs.zoo import ZOO
from tests.oracle import environment
from tests.slices import IS_FULL, SEED

if not environment.PYTHON:
    pytest.skip("CKCONV_ORACLE_PYTHON names no Python", allow_module_level=True)

_OF_A_PART = 16
_TYPES = 20


def classes(flavor: str) -> set[str]:
    """Return the classes of PyTorch that have one of the flavour's framework."""
    if flavor == "tf":
        return {name.removeprefix("TF") for name in document("tensorflow_classes")["models"]}
    return {name for entry in document("flax")["models"].values() for name in entry["classes"]}


@pytest.mark.parametrize(("flavor", "prefix"), [("tf", "TF"), ("flax", "Flax")])
def test_ok_is_said_of_what_the_loader_takes(
    flavor: str, prefix: str, tmp_path: Path, tell: Callable[[str], None]
) -> None:
    chosen = models(classes(flavor))
    types = {model.model_type for model in ZOO}
    having = {model.model_type for model in ZOO if model.architecture in classes(flavor)}
    assert len(chosen) == _TYPES
    every = [(model.architecture, damage) for model in chosen for damage in (None, *DAMAGES)]
    cases = every if IS_FULL else random.Random(SEED).sample(every, _OF_A_PART)
    done: dict[str, Report] = {}
    (tmp_path / "out").mkdir()
    for architecture, damage in cases:
        name = f"{architecture}.{'whole' if damage is None else damage.__name__}"
        source = saved(architecture, tmp_path / "in" / name, damage)
        try:
            done[name] = converter.convert(
                source, tmp_path / "out" / name, to="pretrained", flavor=flavor, durable=False
            )
        except LossError:
            assert damage is not None, name
    said = environment.run("tests.oracle.complaints", prefix, str(tmp_path / "out"), timeout_seconds=1800)
    found = json.loads(said.splitlines()[-1])
    assert found.keys() == done.keys()
    wrong = {name: each for name, each in found.items() if each and done[name].unchecked is None}
    unchecked = [name for name, report in done.items() if report.unchecked is not None]
    of_them = sum(bool(found[name]) for name in unchecked)
    tell(
        f"{prefix}: {len(cases)} of {len(every)} checkpoints of {_TYPES} types; {len(done)} ok, the loader complains "
        f"of {len(wrong)}, and of {of_them} of the {len(unchecked)} whose verdict says that it was not checked; "
        f"{len(types - having)} of {len(types)} types in the zoo have no such class"
    )
    assert wrong == {}
