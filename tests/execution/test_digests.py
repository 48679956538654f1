"""What is read back is held against what was written, and the source is not read for that."""

from __future__ import annotations

import gc
import os
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import converter
from converter.errors import VerificationError
from converter.execution.digests import Digests, digest_of
from converter.execution.workshop import LocalWorkshop
from converter.model.checkpoint import Checkpoint
from converter.model.file import LocalFile
from converter.model.tensor import ArrayTensor
from converter.proof.weights import verify_weights

ARRAYS = {name: np.arange(1 << 18, dtype=np.float32) + number for number, name in enumerate("abc")}


class Written:
    """Something that is written."""


def test_a_digest_is_of_all_chunks_and_of_one_object() -> None:
    digests, one = Digests(), Written()
    assert list(digests.watched(one, [b"ab", memoryview(b"c")])) == [b"ab", b"c"]
    assert digests.of(one) == digest_of([b"a", b"bc"])
    assert digests.of(Written()) is None
    given_up = digests.watched(other := Written(), [b"a", b"b"])
    next(given_up)
    given_up.close()
    assert digests.of(other) is None
    is_there = weakref.ref(one)
    del one
    gc.collect()
    assert is_there() is not None  # else another object could be where it was


def test_what_is_read_back_is_compared_with_what_was_written() -> None:
    ours = Checkpoint(tensors={"a": ArrayTensor.of(ARRAYS["a"])})
    digests = Digests()
    list(digests.watched(ours.tensors["a"], ours.tensors["a"].chunks()))
    same = Checkpoint(tensors={"a": ArrayTensor.of(ARRAYS["a"].copy())})
    verify_weights(ours, same, {"a": "a"}, path=Path("x"), digests=digests)
    other = Checkpoint(tensors={"a": ArrayTensor.of(ARRAYS["b"])})
    with pytest.raises(VerificationError, match="tensor a: differs from the source"):
        verify_weights(ours, other, {"a": "a"}, path=Path("x"), digests=digests)


@pytest.mark.parametrize("to", ["pth", "safetensors", "h5", "npz"])
@pytest.mark.parametrize("jobs", [1, 2])
def test_the_source_is_read_for_the_output_and_its_hash(
    to: str, jobs: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    converter.write(
        Checkpoint(tensors={name: ArrayTensor.of(array) for name, array in ARRAYS.items()}), tmp_path / "x.safetensors"
    )
    read, own = [0], LocalFile.read_into

    def counted(self: LocalFile, offset: int, buffer: memoryview) -> None:
        if self.path.name == "x.safetensors":
            read[0] += len(buffer)
        own(self, offset, buffer)

    monkeypatch.setattr(LocalFile, "read_into", counted)
    options: dict[str, Any] = {"weights_only": True} if to == "h5" else {}
    converter.convert(tmp_path / "x.safetensors", tmp_path / f"y.{to}", jobs=jobs, **options)
    assert read[0] < 2.1 * os.path.getsize(tmp_path / "x.safetensors")


def test_a_file_that_changes_after_it_was_written_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = Checkpoint(tensors={name: ArrayTensor.of(array) for name, array in ARRAYS.items()})
    make = LocalWorkshop.make

    def damaged(self: LocalWorkshop, *arguments: Any) -> Any:
        kept = make(self, *arguments)
        (path,) = self.folder.iterdir()
        with path.open("r+b") as file:
            file.seek(-5, os.SEEK_END)
            file.write(b"\x01")
        return kept

    monkeypatch.setattr(LocalWorkshop, "make", damaged)
    with pytest.raises(VerificationError, match="tensor c: differs from the source"):
        converter.write(source, tmp_path / "y.safetensors")
    assert list(tmp_path.iterdir()) == []
