"""A slice of ONNX's model tests as files, in every target with a graph; CKCONV_ORACLE_FULL=1 takes all of them."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from tests.graphs import model_suite
from tests.slices import IS_FULL, SEED

pytestmark = pytest.mark.framework
_DRAWN = 4


def test_what_is_not_excluded_passes(tell: Callable[[str], None]) -> None:
    for needed in ("torch", "tensorflow", "onnxruntime"):
        pytest.importorskip(needed)
    everything = model_suite.paths()
    assert len(everything) >= 140
    small = [path for path in everything if path.parent.name != "light"]
    chosen = everything if IS_FULL else random.Random(SEED).sample(small, _DRAWN)
    tell(f"{len(chosen)} of {len(everything)} models of onnx.backend.test")
    found = [(name, target, wrong) for name, target, wrong in model_suite.results(chosen)]
    assert [row for row in found if bool(row[2]) != model_suite.is_excluded(*row[:2])] == []
