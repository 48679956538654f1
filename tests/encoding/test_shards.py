"""Tensors dealt out over files: as full as is allowed, and an index that is believed only as far as it is true."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from converter.encoding import shards
from converter.errors import ReadError, UsageError
from converter.model.file import SourceFile
from converter.model.tensor import ArrayTensor, Tensor


def tensors(*sizes: int) -> dict[str, Tensor]:
    return {f"t{number}": ArrayTensor.of(np.zeros(size, np.uint8)) for number, size in enumerate(sizes)}


@pytest.mark.parametrize(
    ("sizes", "most", "dealt"),
    [
        ((4, 6, 1), 10, [2, 1]),
        ((4, 6, 10), 10, [2, 1]),
        ((4, 7, 3), 10, [1, 2]),
        ((99, 1, 9), 10, [1, 2]),
        ((1, 99, 1), 10, [1, 1, 1]),
        ((5, 5, 5, 5, 5), 10, [2, 2, 1]),
        ((0, 0), 10, [2]),
        ((99, 99), 0, [2]),
        ((), 10, [0]),
    ],
)
def test_a_shard_is_as_full_as_is_allowed(sizes: tuple[int, ...], most: int, dealt: list[int]) -> None:
    parts = shards.deal(tensors(*sizes), most)
    assert [len(part) for part in parts] == dealt
    assert [name for part in parts for name in part] == list(tensors(*sizes))


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("5GB", 5 * 10**9),
        ("64MiB", 64 << 20),
        ("2 kib", 2048),
        ("1.5K", 1500),
        ("1Ti", 1 << 40),
        ("0", 0),
        (" 7b ", 7),
        ("200", 200),
    ],
)
def test_sizes(text: str, size: int) -> None:
    assert shards.parse_size(text) == size


@pytest.mark.parametrize("text", ["", "GB", "-1", "5PB", "1,5GB", "5 G B", "inf", "0x10", "5GBs"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is not a size"):
        shards.parse_size(text)


def test_names_and_index() -> None:
    assert shards.shard_names("model.safetensors", 1) == ["model.safetensors"]
    assert shards.shard_names("a.b.bin", 2) == ["a-00001-of-00002.b.bin", "a-00002-of-00002.b.bin"]
    held = tensors(3, 5)
    index = json.loads(shards.index_json(held, [["t1"], ["t0"]], ["x", "y"]))
    assert index == {"metadata": {"total_size": 8}, "weight_map": {"t0": "y", "t1": "x"}}


def folder(path: Path, weight_map: object) -> Path:
    for name in "ab":
        (path / name).write_bytes(b"")
    (path / "index").write_text(json.dumps({"weight_map": weight_map}))
    return path


HELD = {"a": tensors(1), "b": {"u": ArrayTensor.of(np.ones(1, np.uint8))}}


def read(path: Path) -> dict[str, Tensor]:
    def read_shard(file: SourceFile, name: str) -> dict[str, Tensor]:
        assert file.path == path / name
        return HELD[name]

    return shards.read(path, "index", read_shard)


@pytest.mark.parametrize(
    ("weight_map", "what"),
    [
        ({"t0": "a", "u": "a"}, "is not in this shard"),
        ({"t0": "b", "u": "b"}, "is not in this shard"),
        ({"v": "b"}, "does not say so"),
        ({"t0": "a", "u": "b", "v": "b"}, "is not in this shard"),
        ({"t0": "b", "u": "a"}, "does not say so"),
        ({"u": "b", "t0": "index"}, "is mapped to the index itself"),
        ({"u": "b", "t0": ""}, "not a file name"),
        ({"u": "b", "t0": None}, "not a file name"),
        ({}, "no weight_map"),
        ([["u", "b"]], "no weight_map"),
    ],
)
def test_an_index_that_is_not_true(weight_map: object, what: str, tmp_path: Path) -> None:
    assert list(read(folder(tmp_path, {"u": "b", "t0": "a"}))) == ["u", "t0"]
    with pytest.raises(ReadError, match=what):
        read(folder(tmp_path, weight_map))


def test_a_shard_that_holds_a_tensor_of_another_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Loaders that go through the shards would take the one that comes last."""
    whole = {"t0": "a", "u": "b"}
    assert set(read(folder(tmp_path, whole))) == {"t0", "u"}
    monkeypatch.setitem(HELD, "b", {**HELD["b"], "t0": ArrayTensor.of(np.full(1, 9, np.uint8))})
    with pytest.raises(ReadError, match="does not say so") as caught:
        read(folder(tmp_path, whole))
    assert (caught.value.tensor, Path(str(caught.value.path)).name) == ("t0", "b")
