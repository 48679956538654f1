"""What a source may declare is bounded by what it stores, however many tensors the declaration is spread over."""

from __future__ import annotations

from pathlib import Path

import pytest

import converter
from converter.errors import ReadError

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
