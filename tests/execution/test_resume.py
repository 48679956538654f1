"""Which files of an earlier attempt may be kept, one condition at a time, without killing anything."""

from __future__ import annotations

import os
from dataclasses import Field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converter.declaring import options_of
from converter.execution import resume
from converter.execution.resume import Attempt, Earlier, moved_into
from converter.model.file import LocalFile
from converter.model.output import Late, OutputFile
from converter.model.tensor import ArrayTensor
from converter.options import Options


def planned(name: str = "x") -> OutputFile:
    tensor = ArrayTensor.of(np.arange(8, dtype=np.float32))
    return OutputFile(name=name, pieces=(b"head", Late(nbytes=4, render=lambda: b"late"), tensor))


CONTENT = b"head" + b"late" + np.arange(8, dtype="<f4").tobytes()


def attempt_of(folder: Path, source: Path, **request: str) -> Attempt:
    return Attempt.of(folder / "out", [LocalFile(source)], request)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    path.write_bytes(b"weights")
    return path


def leftover(tmp_path: Path, attempt: Attempt) -> Path:
    folder = tmp_path / "leftover"
    (folder / "output" / "sub").mkdir(parents=True)
    (folder / "output" / "x").write_bytes(CONTENT)
    (folder / "output" / "sub" / "y").write_bytes(CONTENT)
    attempt.write(folder)
    return folder


def test_what_is_whole_is_moved(tmp_path: Path, source: Path) -> None:
    attempt = attempt_of(tmp_path, source)
    old, new = leftover(tmp_path, attempt), tmp_path / "new"
    (new / "output").mkdir(parents=True)
    earlier = moved_into(attempt, [old], new, "output")
    assert not old.exists()
    assert earlier.notes == ()
    assert earlier.bytes_of([planned(), planned("sub/y"), planned("other")]) == 2 * len(CONTENT)
    assert [earlier.keep(planned(name), new / "output") for name in ("x", "sub/y", "other")] == [True, True, False]
    assert (new / "output" / "sub" / "y").read_bytes() == CONTENT


@pytest.mark.parametrize("place", range(0, len(CONTENT), 3))
def test_one_other_byte_anywhere_is_noticed(place: int, tmp_path: Path) -> None:
    """The head, what is known last, and the tensor: each byte counts."""
    (tmp_path / "earlier").mkdir()
    file = tmp_path / "earlier" / "x"
    file.write_bytes(CONTENT[:place] + bytes([CONTENT[place] ^ 1]) + CONTENT[place + 1 :])
    assert not Earlier(folder=tmp_path / "earlier").keep(planned(), tmp_path)
    assert not file.exists()


def test_a_file_of_another_size_is_no_candidate(tmp_path: Path) -> None:
    (tmp_path / "earlier").mkdir()
    (tmp_path / "earlier" / "x").write_bytes(CONTENT + b"\0")
    earlier = Earlier(folder=tmp_path / "earlier")
    assert earlier.bytes_of([planned()]) == 0
    assert not earlier.keep(planned(), tmp_path)


def test_a_source_that_differs_in_nanoseconds_alone(tmp_path: Path, source: Path) -> None:
    before = source.stat()
    first = attempt_of(tmp_path, source)
    os.utime(source, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    assert source.stat().st_size == before.st_size
    assert attempt_of(tmp_path, source).difference(first) == "the source has changed since"


def test_another_file_of_the_same_size_and_time(tmp_path: Path, source: Path) -> None:
    """Put in its place by a rename: only the inode tells."""
    first = attempt_of(tmp_path, source)
    before, other = source.stat(), tmp_path / "other"
    other.write_bytes(b"WEIGHTS")
    os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
    os.replace(other, source)
    assert source.stat().st_mtime_ns == before.st_mtime_ns
    assert attempt_of(tmp_path, source).difference(first) == "the source has changed since"


def test_the_same_attempt_has_no_difference(tmp_path: Path, source: Path) -> None:
    first = attempt_of(tmp_path, source, to="x")
    assert attempt_of(tmp_path, source, to="x").difference(first) is None
    assert attempt_of(tmp_path, source, to="y").difference(first) == "it was asked for something else"


def test_other_attempts_at_the_destination_go_and_those_elsewhere_stay(tmp_path: Path, source: Path) -> None:
    attempt = attempt_of(tmp_path, source)
    other = leftover(tmp_path, attempt_of(tmp_path, source, dtype="float16"))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    Attempt(destination="/somewhere/else", request={}, sources=attempt.sources).write(elsewhere)
    earlier = moved_into(attempt, [other, elsewhere], tmp_path / "new", "output")
    assert earlier.folder is None
    assert len(earlier.notes) == 1
    assert not other.exists()
    assert elsewhere.exists()


def test_what_an_attempt_had_taken_over_is_taken_from_it(tmp_path: Path, source: Path) -> None:
    """One that was killed again before it came to what the first had finished; what it wrote itself counts more."""
    attempt = attempt_of(tmp_path, source)
    old, new = leftover(tmp_path, attempt), tmp_path / "new"
    (new / "output").mkdir(parents=True)
    (old / "earlier" / "deep").mkdir(parents=True)
    for name in ("x", "z", "deep/z"):
        (old / "earlier" / name).write_bytes(CONTENT if name != "x" else bytes(len(CONTENT)))
    earlier = moved_into(attempt, [old], new, "output")
    assert [earlier.keep(planned(name), new / "output") for name in ("x", "z", "deep/z", "sub/y")] == [True] * 4


@pytest.mark.parametrize("link", [os.link, os.symlink], ids=["hard", "symbolic"])
def test_a_file_that_has_another_name_is_not_kept(link: Any, tmp_path: Path) -> None:
    (tmp_path / "earlier").mkdir()
    (tmp_path / "elsewhere").write_bytes(CONTENT)
    link(tmp_path / "elsewhere", tmp_path / "earlier" / "x")
    earlier = Earlier(folder=tmp_path / "earlier")
    assert not earlier.keep(planned(), tmp_path)
    assert earlier.bytes_of([planned()]) == 0
    (tmp_path / "earlier" / "x").unlink()
    (tmp_path / "earlier" / "x").write_bytes(CONTENT)
    assert earlier.keep(planned(), tmp_path)


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_what_belongs_to_another_user_is_not_taken(
    kind: str, tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempt = attempt_of(tmp_path, source)
    old, new = leftover(tmp_path, attempt), tmp_path / "new"
    (new / "output").mkdir(parents=True)
    if kind == "folder":
        monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
        assert moved_into(attempt, [old], new, "output").folder is None
        assert old.exists()
        return
    earlier = moved_into(attempt, [old], new, "output")
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    assert not earlier.keep(planned(), new / "output")


def test_a_description_that_is_no_description(tmp_path: Path) -> None:
    for content in (b"", b"[]", b"{}", b'{"destination": 1}', b"\xff"):
        (tmp_path / "attempt.json").write_bytes(content)
        with_content = Attempt.read(tmp_path)
        assert with_content is None, content
    (tmp_path / "attempt.json").unlink()
    (tmp_path / "attempt.json").symlink_to(tmp_path / "elsewhere")
    assert Attempt.read(tmp_path) is None
    assert resume.NOTHING.folder is None


@pytest.mark.parametrize("item", [pytest.param(item, id=item.name) for item, _ in options_of(Options)])
def test_the_request_says_what_decides_an_output_and_nothing_else(item: Field[Any]) -> None:
    """An attempt with another `--dtype` is another one; one with more threads is not."""
    others: dict[str, Any] = {
        "config_value": ("a=1",),
        "shape": ("a=1",),
        "hyperparameter": ("lr=1",),
        "dtype": "float16",
        "optimizer": "drop",
        "verify": "weights",
        "source_hash": "sha256",
        "max_memory": 1 << 30,
        "opset": 17,
        "atol": 0.0,
        "rtol": 0.0,
    }
    kind = type(item.default)
    plain = {bool: not item.default, int: 3, float: 3.0, tuple: ("x",)}.get(kind, "x")
    model = {"model": "package.module:factory"} if item.name == "inputs" else {}
    changed = Options(**{item.name: others.get(item.name, plain)}, **model)
    does_not = {"verify", "atol", "rtol", "overwrite", "dry_run", "durable", "resume"}
    does_not |= {"jobs", "max_memory", "timeout", "require_sandbox"}
    assert (changed.deciding == Options(**model).deciding) is (item.name in does_not)
