"""What is opened is a regular file, what is asked for is inside it, and what was damaged once stays so."""

from __future__ import annotations

import os
import subprocess
import sys
import zlib
from pathlib import Path

import pytest

from converter.errors import ReadError, SafetyError
from converter.model.dtype import DType
from converter.model.file import Checksum, LocalFile
from converter.model.tensor import FileTensor
from tests.conftest import ROOT


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "x").write_bytes(bytes(range(16)))
    return tmp_path / "x"


def test_a_pipe_is_refused_at_once(path: Path) -> None:
    LocalFile(path)
    os.mkfifo(path.with_name("pipe"))
    program = f"from converter.model.file import LocalFile\nLocalFile({os.fspath(path.with_name('pipe'))!r})"
    environment = {**os.environ, "PYTHONPATH": os.fspath(ROOT)}
    command = [sys.executable, "-c", program]
    completed = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=20, check=False)
    assert "is not a regular file" in completed.stderr


@pytest.mark.parametrize("kind", ["folder", "device", "absent"])
def test_what_is_no_file_is_refused(kind: str, path: Path) -> None:
    place = {"folder": path.parent, "device": Path("/dev/zero"), "absent": path.with_name("absent")}[kind]
    with pytest.raises(ReadError, match="No such file" if kind == "absent" else "is not a regular file"):
        LocalFile(place)


def test_a_link_is_followed_only_where_that_is_said(path: Path) -> None:
    link = path.with_name("link")
    link.symlink_to(path)
    assert LocalFile(link).read(0, 16) == path.read_bytes()
    assert LocalFile(path, follow_symlink=False).size == 16
    with pytest.raises(SafetyError, match="is a symbolic link"):
        LocalFile(link, follow_symlink=False)


@pytest.mark.parametrize(("offset", "length"), [(-1, 2), (4, -1), (0, 17), (16, 1), (17, 0)])
def test_what_is_outside_is_refused(path: Path, offset: int, length: int) -> None:
    file = LocalFile(path)
    assert (file.read(0, 16), file.read(16, 0)) == (path.read_bytes(), b"")
    with pytest.raises(ReadError, match=f"needs {length} bytes at {offset}, has 16 in all"):
        file.read(offset, length)


def test_a_file_that_shrinks_while_it_is_read(path: Path) -> None:
    file = LocalFile(path)
    os.truncate(path, 8)
    assert b"".join(map(bytes, file.chunks(0, 8, 3))) == bytes(range(8))
    with pytest.raises(ReadError, match="ended while it was being read"):
        list(file.chunks(4, 8, 3))


def test_damage_is_found_each_time(path: Path) -> None:
    file = LocalFile(path)
    checksum = Checksum(file=file, offset=0, length=16, expected=zlib.crc32(path.read_bytes()) ^ 1)
    for read in (lambda: list(checksum.chunks()), checksum.verify, lambda: list(checksum.chunks()), checksum.verify):
        with pytest.raises(ReadError, match="CRC mismatch"):
            read()


@pytest.mark.parametrize(("offset", "length"), [(0, 4), (12, 4), (4, 8), (0, 16)])
def test_a_part_of_what_has_a_checksum_is_that_part(path: Path, offset: int, length: int) -> None:
    file = LocalFile(path)
    checksum = Checksum(file=file, offset=0, length=16, expected=zlib.crc32(path.read_bytes()))
    tensor = FileTensor(dtype=DType.UINT8, shape=(length,), file=file, offset=offset, checksum=checksum)
    assert tensor.numpy().tolist() == list(range(offset, offset + length))
