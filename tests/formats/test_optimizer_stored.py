"""Optimizer state in files with names of PyTorch: whole again when read, and refused where the file is damaged."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

import converter
from converter.dialects.optimizer.stored import (
    document_of,
    is_placed,
    placed,
    stored_tensors,
    with_placed_state,
    with_stored_state,
)
from converter.encoding.hdf5 import Dataset, Group
from converter.errors import CkconvError, LossError, ReadError
from converter.model.checkpoint import Checkpoint
from converter.proof.weights import verify_optimizer
from tests.dialects.test_optimizer_semantics import CASES, checkpoint_of, state_of

TARGETS = {".weights.h5": "keras", ".h5": "h5", "-checkpoint": "tf-checkpoint", "-savedmodel": "savedmodel"}


def written(kind: str, target: str, folder: Path, **options: Any) -> Path:
    path = folder / f"model{target}"
    converter.write(checkpoint_of(kind, **options), path, to=TARGETS[target], weights_only=True)
    return path


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("kind", CASES)
def test_it_is_whole_again(kind: str, target: str, tmp_path: Path) -> None:
    source = checkpoint_of(kind)
    path = tmp_path / f"model{target}"
    report = converter.write(source, path, to=TARGETS[target], weights_only=True)
    assert report.optimizer.status == "carried"
    verify_optimizer(state_of(source), converter.read(path).optimizer, path=path)


@pytest.mark.parametrize("target", TARGETS)
def test_a_tensor_called_like_the_optimizers_own_stays(target: str, tmp_path: Path) -> None:
    source = checkpoint_of("adamw")
    for name in ("optimizer.weight", "optimizer_weights.weight", "optimizer/adamw/exp_avg/fc.bias", "adamw/exp_avg/x"):
        renamed = source.with_names({"fc.weight": name, "fc.bias": "fc.bias"}.__getitem__)
        path = tmp_path / f"model{target}"
        converter.write(renamed, path, to=TARGETS[target], weights_only=True, overwrite=True)
        found = converter.read(path)
        assert set(found.tensors) == {name, "fc.bias"}
        verify_optimizer(state_of(renamed), found.optimizer, path=path)


DAMAGE: dict[str, tuple[Any, type[CkconvError], str]] = {
    "no object": ("[]", LossError, "does not say what it is of"),
    "no groups": ("{}", LossError, "does not say what it is of"),
    "groups of another type": ('{"groups": 1}', LossError, "does not say what it is of"),
    "a step below 0": ('{"algorithm": "adamw", "step": -1, "groups": []}', LossError, "does not say what it is of"),
    "an endless step": ('{"algorithm": "adamw", "step": 1e400, "groups": []}', ReadError, "beyond a double"),
    "no JSON": ("adamw", ReadError, "is not JSON"),
    "another algorithm": (
        '{"algorithm": "x", "step": 7, "groups": [{"hyperparameters": {}}]}',
        LossError,
        "no parameter",
    ),
}


@pytest.mark.parametrize("value", [math.nan, math.inf, b"bytes", {1, 2}])
def test_what_json_has_no_words_for_is_not_stored(value: Any) -> None:
    with pytest.raises(LossError, match="its hyperparameters cannot be stored"):
        document_of(state_of(checkpoint_of("adamw", eps=value)))


def test_lists_are_tuples_as_torch_has_them() -> None:
    source = checkpoint_of("adamw")
    tensors = stored_tensors(state_of(source))
    document = json.loads(json.dumps(document_of(state_of(source))))
    made = state_of(with_stored_state(replace(source, optimizer=None), document, tensors))
    assert made.groups[0].hyperparameters["betas"] == (0.9, 0.0)
    assert type(made.groups[0].hyperparameters["betas"]) is tuple


def test_what_is_placed_is_told_by_its_document_and_the_names_of_its_first_group() -> None:
    both = {"ckconv_optimizer": "{}", "ckconv_group_0": ("a",)}
    assert is_placed(Group(attributes=both, members={}))
    assert not is_placed(None)
    for name in both:
        assert not is_placed(Group(attributes={name: both[name]}, members={}))


def test_a_group_whose_names_are_lacking_is_one_of_no_parameters(tmp_path: Path) -> None:
    source = checkpoint_of("adamw", decays=(0.5, 0.0))
    tensors, attributes = placed(state_of(source), "optimizer/vars")
    held = dict(attributes["optimizer/vars"])
    members = {key.rpartition("/")[2]: Dataset(tensor=tensor) for key, tensor in tensors.items()}

    def read(**changed: Any) -> Checkpoint:
        made: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in {**held, **changed}.items()
            if value is not None
        }
        bare = replace(source, optimizer=None)
        return with_placed_state(bare, Group(attributes=made, members=members), tmp_path)

    assert [group.parameters for group in state_of(read()).groups] == [("fc.weight",), ("fc.bias",)]
    lacking = read(ckconv_group_1=None)
    assert lacking.optimizer is None
    assert "is of no parameter" in str(lacking.optimizer_refused)


def damaged(path: Path, change: Callable[[Any], None]) -> Path:
    copy = path.with_name("damaged.weights.h5")
    shutil.copy(path, copy)
    with h5py.File(copy, "r+") as file:
        change(file["optimizer/vars"])
    return copy


@pytest.mark.parametrize("case", DAMAGE)
def test_a_damaged_document_is_refused(case: str, tmp_path: Path) -> None:
    text, kind, message = DAMAGE[case]
    path = written("adamw", ".weights.h5", tmp_path)
    assert converter.convert(path, tmp_path / "whole.pth").optimizer.status == "carried"
    bad = damaged(path, lambda group: group.attrs.__setitem__("ckconv_optimizer", text))
    with pytest.raises(kind, match=message):
        converter.convert(bad, tmp_path / "bad.pth")


def test_variables_that_are_not_listed_are_refused(tmp_path: Path) -> None:
    path = written("adamw", ".weights.h5", tmp_path)
    for change in (
        lambda group: group.attrs.__delitem__("weight_names"),
        lambda group: group.__delitem__("0"),
        lambda group: group.create_dataset("9", data=np.zeros(3, "f4")),
    ):
        with pytest.raises(ReadError, match="variables of the optimizer"):
            converter.read(damaged(path, change))
