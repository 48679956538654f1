"""`ckconv diff` and `ckconv verify`: what is the same is found the same across formats, and one flipped bit is not."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import converter
from converter.model.checkpoint import Checkpoint
from converter.model.tensor import ArrayTensor
from tests.conftest import Ckconv

TARGETS = {
    "pytorch": ("x.pth", {}),
    "safetensors": ("x.safetensors", {}),
    "once": ("once.safetensors", {"tied": "once"}),
    "pretrained": ("folder", {"to": "pretrained"}),
    "h5": ("x.h5", {"weights_only": True}),
    "flax": ("x.msgpack", {}),
    "savedmodel": ("saved", {"to": "savedmodel", "weights_only": True}),
}


def flags(options: dict[str, Any]) -> list[str]:
    found: list[str] = []
    for name, value in options.items():
        found += [f"--{name.replace('_', '-')}", *([] if value is True else [value])]
    return found


def flipped(path: Path) -> None:
    """Change one bit of the largest file at `path`."""
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    largest = max(files, key=lambda file: file.stat().st_size)
    data = bytearray(largest.read_bytes())
    data[len(data) // 2] ^= 1
    largest.write_bytes(data)


@pytest.mark.one_in(2)
@pytest.mark.parametrize("target", TARGETS)
def test_a_conversion_is_the_same_and_proven(target: str, squad_bert: Path, tmp_path: Path, ckconv: Ckconv) -> None:
    entry, options = TARGETS[target]
    path = tmp_path / entry
    converter.convert(squad_bert, path, **options)
    alike = ckconv("diff", squad_bert, path)
    assert alike.returncode == 0, alike.stdout + alike.stderr
    assert alike.stdout.splitlines()[-1] == "same: 39 same, 0 differ, 0 only in A, 0 only in B"
    options = {name: value for name, value in options.items() if name != "to"}
    proven = ckconv("verify", squad_bert, entry, *flags(options), cwd=tmp_path)
    assert proven.returncode == 0, proven.stderr
    assert proven.stdout.splitlines()[-1].startswith("ok: 39 mapped")
    assert proven.stdout.splitlines()[-1].endswith("verified weights")


@pytest.mark.parametrize("target", ["safetensors", "flax"])
def test_one_bit(target: str, squad_bert: Path, tmp_path: Path, ckconv: Ckconv) -> None:
    entry, options = TARGETS[target]
    converter.convert(squad_bert, tmp_path / entry, **options)
    flipped(tmp_path / entry)
    different = ckconv("diff", squad_bert, tmp_path / entry)
    assert different.returncode == 1
    assert different.stdout.splitlines()[-1] == "different: 38 same, 1 differ, 0 only in A, 0 only in B"
    assert ": other values" in different.stdout
    refused = ckconv("verify", squad_bert, tmp_path / entry)
    assert refused.returncode == 4
    (line,) = refused.stderr.splitlines()
    assert line.startswith(f"ckconv: {tmp_path / entry}: tensor ")
    assert "differs from the source" in line
    answer = json.loads(ckconv("verify", squad_bert, tmp_path / entry, "--json").stdout)
    assert (answer["status"], answer["exit_code"], answer["error"]["code"]) == ("failed", 4, 4)


def test_what_differs_is_said(tmp_path: Path, ckconv: Ckconv) -> None:
    def written(name: str, **arrays: np.ndarray[Any, Any]) -> Path:
        tensors = {key: ArrayTensor.of(array) for key, array in arrays.items()}
        converter.write(Checkpoint(tensors=tensors), tmp_path / name)
        return tmp_path / name

    ones = np.ones((2, 3), np.float32)
    left = written("a.safetensors", same=ones, shape=ones, dtype=ones, value=ones, left=ones)
    right = written("b.pth", same=ones, shape=ones.T, dtype=ones.astype(np.float16), value=2 * ones, right=ones)
    result = ckconv("diff", left, right)
    assert result.returncode == 1
    assert result.stdout.splitlines() == [
        "only in A: left",
        "only in B: right",
        "differs: dtype: float32 and float16",
        "differs: shape: [2, 3] and [3, 2]",
        "differs: value: other values",
        "different: 1 same, 3 differ, 1 only in A, 1 only in B",
    ]
    result = ckconv("diff", left, right, "--json")
    answer = json.loads(result.stdout)
    assert (answer["status"], answer["exit_code"], answer["only_left"]) == ("different", 1, ["left"])
    assert result.returncode == 1
    assert ckconv("diff", left, left, "--quiet").stdout == ""


def test_a_tied_name_may_be_left_out(tmp_path: Path, ckconv: Ckconv) -> None:
    array = ArrayTensor.of(np.ones((2, 3), np.float32))
    converter.write(Checkpoint(tensors={"owner": array}, aliases={"tied": "owner"}), tmp_path / "a.pth")
    converter.write(Checkpoint(tensors={"tied": array}), tmp_path / "b.safetensors")
    assert ckconv("diff", tmp_path / "a.pth", tmp_path / "b.safetensors").returncode == 0
    converter.write(Checkpoint(tensors={"neither": array}), tmp_path / "c.safetensors")
    assert ckconv("diff", tmp_path / "a.pth", tmp_path / "c.safetensors").returncode == 1


def test_any_failure_of_diff_is_2(squad_bert: Path, tmp_path: Path, ckconv: Ckconv) -> None:
    (tmp_path / "wrong.pth").write_text("this is not a checkpoint")
    for arguments in (("missing.pth",), ("wrong.pth",), ("wrong.pth", "--nonsense"), ()):
        result = ckconv("diff", squad_bert, *arguments, cwd=tmp_path)
        assert result.returncode == 2, arguments
        assert len(result.stderr.splitlines()) == 1
    answer = json.loads(ckconv("diff", squad_bert, tmp_path / "wrong.pth", "--json").stdout)
    assert (answer["status"], answer["exit_code"]) == ("failed", 2)


def test_a_missing_shard_or_tensor_is_not_proven(squad_bert: Path, tmp_path: Path, ckconv: Ckconv) -> None:
    shards = tmp_path / "shards"
    converter.convert(squad_bert, shards, to="pretrained", max_shard_size="100KB")
    assert ckconv("verify", squad_bert, shards).returncode == 0
    assert ckconv("verify", squad_bert, shards, "--exclude", "qa_*").returncode == 4
    copy = tmp_path / "copy"
    shutil.copytree(shards, copy)
    next(copy.glob("*-00002-of-*")).unlink()
    assert ckconv("verify", squad_bert, copy).returncode == 1
