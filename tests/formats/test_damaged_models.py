"""A checkpoint that is damaged is refused, or `from_pretrained` finds all that it asks for, and nothing else.

Where the table does not know all of a class, the verdict says so: there a complaint of the loader is no surprise.
A slice of the damages, seeded by CKCONV_ORACLE_SEED; all of them with CKCONV_ORACLE_FULL=1.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

import converter
from converter.errors import CkconvError, LossError
from tests.formats.damages import DAMAGES, Damage, made, models, saved
from tests.graphs.zoo import Model
from tests.slices import IS_FULL, SEED

NOT_KNOWN_WHOLLY = {
    *("BeitForImageClassification", "DPTForDepthEstimation", "LevitForImageClassification", "MobileBertForMaskedLM"),
    *("MobileNetV2ForImageClassification", "Phi3ForCausalLM", "Qwen2MoeForCausalLM", "ResNetForImageClassification"),
}
"""Classes some of whose tensors no formula fits, or with settings that they were not seen with."""
_OF_A_PART = 24


def _cases() -> list[tuple[Model, Damage]]:
    every = [(model, damage) for model in models() for damage in DAMAGES]
    return every if IS_FULL else random.Random(SEED).sample(every, _OF_A_PART)


def _complaints(built: Any, folder: Path) -> list[str]:
    """Return what `from_pretrained` does not find, or finds and does not know."""
    try:
        told = type(built).from_pretrained(folder, output_loading_info=True)[1]
    except Exception as error:  # whatever a loader raises, it is a complaint
        return [f"{type(error).__name__}: {error}"]
    return [f"{kind}: {found}" for kind, found in told.items() if found]


@pytest.mark.parametrize("model", models() if IS_FULL else models()[SEED % 5 :: 5], ids=lambda each: each.architecture)
def test_what_is_whole_is_taken_whole(model: Model, tmp_path: Path) -> None:
    report = converter.convert(saved(model.architecture, tmp_path / "in"), tmp_path / "out", to="pretrained")
    assert report.unchecked is None or model.architecture in NOT_KNOWN_WHOLLY
    assert _complaints(made(model.architecture)[0], tmp_path / "out") == []


@pytest.mark.parametrize(
    ("model", "damage"), _cases(), ids=lambda each: getattr(each, "architecture", None) or each.__name__
)
def test_ok_is_said_of_what_the_loader_takes(model: Model, damage: Damage, tmp_path: Path) -> None:
    source = saved(model.architecture, tmp_path / "in", damage)
    try:
        report = converter.convert(source, tmp_path / "out", to="pretrained")
    except LossError:
        return
    assert report.unchecked or _complaints(made(model.architecture)[0], tmp_path / "out") == []


def test_a_shard_that_is_gone(tmp_path: Path) -> None:
    made(models()[0].architecture)[0].save_pretrained(tmp_path / "in", max_shard_size="5KB")
    converter.convert(tmp_path / "in", tmp_path / "whole", to="pretrained")
    next(iter(sorted((tmp_path / "in").glob("*-00002-of-*")))).unlink()
    with pytest.raises(CkconvError):
        converter.convert(tmp_path / "in", tmp_path / "out", to="pretrained")
