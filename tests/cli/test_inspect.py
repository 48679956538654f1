"""`ckconv inspect --hash --canonical`: hashes of bytes, under the names that every format can be compared by."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

import converter
from converter.cli.inspect import describe
from converter.model.checkpoint import Checkpoint, Config
from converter.model.optimizer import OptimizerState, ParameterGroup
from converter.model.tensor import ArrayTensor
from tests.conftest import Ckconv


def test_hashes_are_of_the_bytes(tmp_path: Path, ckconv: Ckconv) -> None:
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    tensors = {"a": ArrayTensor.of(array), "c": ArrayTensor.of(array + 1)}
    source = Checkpoint(tensors=tensors, aliases={"b": "a"})
    converter.write(source, tmp_path / "x.pth")
    wanted, other = (hashlib.sha256(each.tobytes()).hexdigest() for each in (array, array + 1))
    said = json.loads(ckconv("inspect", tmp_path / "x.pth", "--hash", "--json").stdout)
    hashes = {tensor["name"]: tensor["sha256"] for tensor in said["tensors"]}
    assert hashes == {"a": wanted, "b": wanted, "c": other}
    assert ckconv("inspect", tmp_path / "x.pth", "--hash").stdout.startswith(f"{wanted}  float32")
    assert "sha256" not in json.loads(ckconv("inspect", tmp_path / "x.pth", "--json").stdout)["tensors"][0]


def test_a_line_says_what_a_tensor_is_and_what_it_is_tied_to(tmp_path: Path, ckconv: Ckconv) -> None:
    tensors = {"a": ArrayTensor.of(np.ones((2, 3), np.float32)), "count": ArrayTensor.of(np.array(4, np.int64))}
    converter.write(Checkpoint(tensors=tensors, aliases={"b": "a"}), tmp_path / "x.pth")
    *lines, last = ckconv("inspect", tmp_path / "x.pth").stdout.splitlines()
    assert sorted(line.split() for line in lines) == [
        ["float32", "2x3", "a"],
        ["float32", "2x3", "b", "=", "a"],
        ["int64", "scalar", "count"],
    ]
    assert last == "3 tensors, 32 B; no config; no optimizer"


def test_canonical_names_and_layouts(tmp_path: Path, ckconv: Ckconv) -> None:
    torch = pytest.importorskip("torch")
    torch.save({"module.dense.weight": torch.ones(2, 3)}, tmp_path / "x.pth")

    def names(*options: str) -> list[str]:
        said = json.loads(ckconv("inspect", tmp_path / "x.pth", "--json", *options).stdout)
        return [tensor["name"] for tensor in said["tensors"]]

    assert names() == ["module.dense.weight"]
    assert names("--canonical") == ["dense.weight"]


def test_all_that_is_known_of_a_checkpoint_is_told() -> None:
    one = ArrayTensor.of(np.ones((2, 3), np.float16))
    group = ParameterGroup(parameters=("a",), hyperparameters={})
    state = OptimizerState(algorithm="sgd", step=7, groups=(group,), slots={"momentum_buffer": {"a": one}})
    told = describe(
        Checkpoint(
            tensors={"a": one},
            aliases={"b": "a"},
            config=Config(values={"architectures": ["One", "Two"]}, raw=b""),
            optimizer=state,
            optimizer_refused="why it is",
            constants={"axes": 2, "scale": 1},
            extras={"epoch": 3},
            warnings=("mind this",),
        )
    )
    tensor = {"dtype": "float16", "shape": [2, 3]}
    assert told == {
        "bytes": 12,
        "parts": ["config", "extras", "optimizer", "weights"],
        "architecture": "One, Two",
        "tensors": [{"name": "a", **tensor, "tied_to": None}, {"name": "b", **tensor, "tied_to": "a"}],
        "constants": {"count": 2, "numbers": 3, "by_name": {"axes": 2, "scale": 1}},
        "optimizer": {"algorithm": "sgd", "step": 7, "basis": "named", "slots": ["momentum_buffer"]},
        "optimizer_refused": "why it is",
        "extras": ["epoch"],
        "assets": [],
        "warnings": ["mind this"],
    }
    assert describe(Checkpoint(tensors={}))["optimizer"] is None
    assert describe(Checkpoint(tensors={}))["architecture"] is None
