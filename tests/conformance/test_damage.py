"""What every reader refuses, with one line and exit 1, and what every writer leaves behind when it fails: nothing."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

import numpy as np
import pytest

import converter
from converter.errors import CkconvError, ReadError
from converter.formats import registry
from converter.model.checkpoint import Checkpoint
from converter.model.dtype import DType
from converter.model.output import Provenance, piece_bytes
from converter.model.tensor import Array, Tensor
from converter.version import __version__
from tests.conformance.samples import destination_of, options_of, plain
from tests.conformance.test_formats import EVERY, _is_needed, read_all, with_config, written


def files_of(path: Path) -> list[Path]:
    """The files that reading depends on."""
    files = [path] if path.is_file() else [each for each in path.rglob("*") if each.is_file()]
    return sorted(file for file in files if file.suffix not in (".json", ".txt") and _is_needed(file, path))


def boundaries(name: str) -> Iterator[int]:
    """Where the pieces of a written sample begin, in whichever file."""
    format_ = registry()[name]
    provenance = Provenance(tool=f"ckconv {__version__}", source_name="", source_sha256=lambda: "")
    for file in format_.write(with_config(plain(), format_), format_.write_options(), provenance).files:
        yield from accumulate(map(piece_bytes, file.pieces), initial=0)


def assert_refused(path: Path, name: str) -> None:
    with pytest.raises(CkconvError) as caught:
        read_all(path, name)
    assert caught.value.exit_code == 1
    assert "\n" not in str(caught.value)


@EVERY
def test_a_file_that_ends_between_its_parts(name: str, tmp_path: Path) -> None:
    path = written(name, plain(), tmp_path)
    needed = files_of(path)
    assert needed
    for file in needed:
        whole = file.read_bytes()
        lengths = {at + near for at in boundaries(name) for near in (-1, 0, 1)}
        for keep in sorted(length for length in lengths if 0 <= length < len(whole)):
            file.write_bytes(whole[:keep])
            assert_refused(path, name)
        file.write_bytes(whole)
    read_all(path)


@EVERY
def test_a_file_that_starts_with_something_else(name: str, tmp_path: Path) -> None:
    path = written(name, plain(), tmp_path)
    for file in files_of(path):
        whole = file.read_bytes()
        file.write_bytes(bytes(byte ^ 0xFF for byte in whole[:8]) + whole[8:])
        assert_refused(path, name)
        file.write_bytes(whole)
    read_all(path)


@EVERY
def test_a_file_that_is_not_there(name: str, tmp_path: Path) -> None:
    path = written(name, plain(), tmp_path)
    for file in files_of(path):
        file.rename(file.with_name("aside"))
        assert_refused(path, name)
        file.with_name("aside").rename(file)
    read_all(path)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Unreadable(Tensor):
    def _read(self) -> Array:
        raise ReadError("cannot be read")


@EVERY
def test_a_conversion_that_fails_leaves_nothing(name: str, tmp_path: Path) -> None:
    sound = plain()
    folder = tmp_path / "out"
    folder.mkdir()
    bad = {**sound.tensors, "last.weight": _Unreadable(dtype=DType.FLOAT32, shape=(1 << 20,))}
    with pytest.raises(ReadError, match="cannot be read") as caught:
        written(name, Checkpoint(tensors=bad), folder)
    assert caught.value.tensor == "last.weight"
    assert os.listdir(folder) == []
    written(name, sound, folder)
    before = {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}
    format_ = registry()[name]
    with pytest.raises(ReadError, match="cannot be read"):
        converter.write(
            with_config(Checkpoint(tensors=bad), format_),
            destination_of(format_, os.fspath(folder)),
            to=name,
            overwrite=True,
            **options_of(format_),
        )
    assert {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()} == before
    np.testing.assert_array_equal(
        converter.read(destination_of(format_, os.fspath(folder))).tensors["head.weight"].numpy(),
        sound.tensors["head.weight"].numpy(),
    )
