"""What a source may declare is bounded by what it stores, however many tensors the declaration is spread over."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import converter
from converter.errors import ReadError
from converter.model.checkpoint import Checkpoint
from converter.model.dtype import DType
from converter.model.file import LocalFile
from converter.model.optimizer import OptimizerState, ParameterGroup
from converter.model.size_limits import RATIO_LIMIT, check_growth
from converter.model.tensor import ArrayTensor, FileTensor, Tensor, strided

torch = pytest.importorskip("torch")


def test_many_views_of_little_are_refused(tmp_path: Path) -> None:
    tensors = {str(number): torch.zeros(1).expand(1 << 21) for number in range(8)}
    torch.save(tensors, tmp_path / "eight.pth")
    assert len(converter.read(tmp_path / "eight.pth").tensors) == 8
    torch.save({**tensors, "more": torch.zeros(1).expand(1 << 21)}, tmp_path / "nine.pth")
    with pytest.raises(ReadError, match="bytes in all, of which") as caught:
        converter.read(tmp_path / "nine.pth")
    assert caught.value.path == str(tmp_path / "nine.pth")


def test_what_is_stored_may_be_declared(tmp_path: Path) -> None:
    torch.save({str(number): torch.zeros(1 << 20).expand(4, 1 << 20) for number in range(5)}, tmp_path / "x.pth")
    assert sum(tensor.nbytes for tensor in converter.read(tmp_path / "x.pth").tensors.values()) > 64 << 20


def large(folder: Path) -> FileTensor:
    """Two MiB in a file."""
    (folder / "x").touch()
    os.truncate(folder / "x", 2 << 20)
    return FileTensor(dtype=DType.UINT8, shape=(2 << 20,), file=LocalFile(folder / "x"), offset=0)


def views(stored: FileTensor, count: int) -> dict[str, Tensor]:
    return {str(n): strided(stored, offset=0, shape=(16, 2 << 20), strides=(0, 1)) for n in range(count)}


def test_what_may_grow_is_not_added_up(tmp_path: Path) -> None:
    stored = large(tmp_path)
    check_growth(Checkpoint(tensors=views(stored, RATIO_LIMIT // 16)), tmp_path)
    more = {**views(stored, RATIO_LIMIT // 16), "more": ArrayTensor.of(np.zeros(1, np.uint8))}
    with pytest.raises(ReadError, match=f"of which {2 << 20} are stored"):
        check_growth(Checkpoint(tensors=more), tmp_path)


def test_a_file_counts_once(tmp_path: Path) -> None:
    tensors = views(large(tmp_path), 5)
    with pytest.raises(ReadError, match=f"of which {2 << 20} are stored"):
        check_growth(Checkpoint(tensors=tensors), tmp_path)


def test_a_source_is_stored_though_its_tensors_are_read_from_nowhere(tmp_path: Path) -> None:
    made = ArrayTensor.of(np.zeros(65 << 20, np.uint8))  # as a reader makes of what is compressed or filled in
    stored = large(tmp_path)
    check_growth(Checkpoint(tensors={"x": made}), stored.file.path)
    with pytest.raises(ReadError, match="of which 0 are stored"):
        check_growth(Checkpoint(tensors={"x": made}), tmp_path)


def test_moments_count(tmp_path: Path) -> None:
    tensors = views(large(tmp_path), 4)
    group = ParameterGroup(parameters=tuple(tensors), hyperparameters={})
    state = OptimizerState(algorithm="adam", step=1, groups=(group,), slots={"exp_avg": tensors})
    check_growth(Checkpoint(tensors={}, optimizer=state), tmp_path)
    with pytest.raises(ReadError, match="bytes in all, of which"):
        check_growth(Checkpoint(tensors=tensors, optimizer=state), tmp_path)
    two = replace(state, slots={"exp_avg": tensors, "exp_avg_sq": tensors})
    with pytest.raises(ReadError, match="bytes in all, of which"):
        check_growth(Checkpoint(tensors={}, optimizer=two), tmp_path)
