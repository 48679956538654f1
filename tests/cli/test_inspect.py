"""`ckconv inspect --hash --canonical`: hashes of bytes, under the names that every format can be compared by."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

import converter
from converter.model.checkpoint import Checkpoint
from converter.model.tensor import ArrayTensor
from tests.conftest import Ckconv


def test_hashes_are_of_the_bytes(tmp_path: Path, ckconv: Ckconv) -> None:
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    source = Checkpoint(tensors={"a": ArrayTensor.of(array)}, aliases={"b": "a"})
    converter.write(source, tmp_path / "x.pth")
    wanted = hashlib.sha256(array.tobytes()).hexdigest()
    said = json.loads(ckconv("inspect", tmp_path / "x.pth", "--hash", "--json").stdout)
    assert [(tensor["name"], tensor["sha256"]) for tensor in said["tensors"]] == [("a", wanted), ("b", wanted)]
    assert ckconv("inspect", tmp_path / "x.pth", "--hash").stdout.startswith(f"{wanted}  float32")
    assert "sha256" not in json.loads(ckconv("inspect", tmp_path / "x.pth", "--json").stdout)["tensors"][0]


def test_canonical_names_and_layouts(tmp_path: Path, ckconv: Ckconv) -> None:
    torch = pytest.importorskip("torch")
    torch.save({"module.dense.weight": torch.ones(2, 3)}, tmp_path / "x.pth")

    def names(*options: str) -> list[str]:
        said = json.loads(ckconv("inspect", tmp_path / "x.pth", "--json", *options).stdout)
        return [tensor["name"] for tensor in said["tensors"]]

    assert names() == ["module.dense.weight"]
    assert names("--canonical") == ["dense.weight"]
