"""What the table says of names and shapes is right of classes built from configs that it was not made of.

Of some model types, chosen by CKCONV_ORACLE_SEED; of all with CKCONV_ORACLE_FULL=1.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from converter.dialects.identity.shapes import UncheckedError, shapes_of
from converter.dialects.tables import document
from tests.oracle import environment
from tests.slices import IS_FULL, SEED

os.environ["HF_HUB_OFFLINE"] = "1"

TYPES_OF_A_PART = 5

pytestmark = pytest.mark.skipif(not environment.PYTHON, reason="CKCONV_ORACLE_PYTHON names no Python")


def _chosen() -> list[str]:
    types = sorted(document("shapes")["models"])
    return types if IS_FULL else random.Random(SEED).sample(types, TYPES_OF_A_PART)


def _built(model_type: str) -> Iterator[tuple[dict[str, Any], str, dict[str, tuple[int, ...]]]]:
    """Yield configs, classes, and what these save, of which the table was not made."""
    import transformers

    from tests.oracle.generate.shapes_dump import explored, nested

    names = document("shapes")["models"][model_type]["classes"]
    dump = explored(model_type, {name: getattr(transformers, name) for name in names}, seed=SEED + 1)
    assert dump is not None
    for given, _, forms in dump.samples:
        for name, number in forms.items():
            config = nested({**dump.given, **given, "model_type": model_type})
            yield config, name, dict(dump.forms[number].shapes)


@pytest.mark.parametrize("model_type", _chosen())
def test_what_a_class_saves(model_type: str, tell: Callable[[str], None]) -> None:
    counts = {"built": 0, "not checked": 0}
    for config, name, saved in _built(model_type):
        counts["built"] += 1
        try:
            found = shapes_of(config, name, saved)
        except UncheckedError:
            counts["not checked"] += 1
            continue
        missing = [each for each, slot in found.slots.items() if slot.is_required and each not in saved]
        unknown = [each for each in saved if each not in found.slots]
        wrong = [each for each, shape in saved.items() if each in found.slots and not found.slots[each].takes(shape)]
        assert (missing, unknown, wrong) == ([], [], []), (name, config)
    tell(f"shapes of {model_type}: {counts['built']} built, {counts['not checked']} not checked")
