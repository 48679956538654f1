"""Where an output is made: in which order, what children may touch, which tensor an error names."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converter.errors import ReadError, WriteError
from converter.execution import child
from converter.execution.child import Terms
from converter.execution.parallel import Workers
from converter.execution.resume import Earlier
from converter.execution.workshop import LocalWorkshop
from converter.model.checkpoint import Checkpoint
from converter.model.child_function import Call, child_function
from converter.model.dtype import DType
from converter.model.output import Output, OutputFile, Watched, Workshop
from converter.model.tensor import Array, ArrayTensor, ComputedTensor, Tensor
from converter.observer import Observer


class Told(Observer):
    """Writes down what it hears."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, int | None]] = []

    def stage(self, name: str, total_bytes: int | None = None) -> None:
        self.heard.append((name, total_bytes))

    def advance(self, nbytes: int) -> None:
        name, total = self.heard[-1]
        self.heard[-1] = (name, (total or 0) - nbytes)


class Broken:
    """An operation that cannot be computed."""

    def declare(self, inputs: Sequence[Tensor]) -> tuple[DType, tuple[int, ...]]:
        return DType.FLOAT32, (4,)

    def __call__(self, *arrays: Array) -> Array:
        raise ReadError("cannot be had")


class Sum:
    """Keeps what was written of a tensor since the last reset."""

    def __init__(self) -> None:
        self.data = b"before"

    def reset(self) -> None:
        self.data = b""

    def update(self, data: memoryview | bytes, /) -> None:
        self.data += bytes(data)


@pytest.fixture
def places(tmp_path: Path) -> tuple[Path, Path]:
    for name in ("output", "scratch"):
        (tmp_path / name).mkdir()
    return tmp_path / "output", tmp_path / "scratch"


def tensor(start: float) -> Tensor:
    return ArrayTensor.of(np.arange(start, start + 4, dtype=np.float32))


def output_of(*tensors: Tensor, **more: Any) -> Output:
    files = tuple(OutputFile(name=f"{number}", pieces=(held,)) for number, held in enumerate(tensors))
    return Output(files=files, names={}, **more)


def test_files_are_written_and_then_the_rest_is_built(places: tuple[Path, Path]) -> None:
    folder, scratch = places
    observer = Told()
    workshop = LocalWorkshop(folder=folder, scratch=scratch, observer=observer)

    def build(given: Workshop) -> None:
        assert sorted(os.listdir(folder)) == ["0", "1"]
        given.stream(OutputFile(name="built", pieces=(tensor(9),)), given.scratch)

    kept = workshop.make(output_of(tensor(0), tensor(4), build=build), Checkpoint(tensors={}))
    assert kept == ()
    assert observer.heard == [("writing", 0), ("building", -16)]
    assert np.fromfile(scratch / "built", np.float32).tolist() == [9, 10, 11, 12]


def test_what_is_whole_from_before_is_kept(places: tuple[Path, Path], tmp_path: Path) -> None:
    folder, scratch = places
    (tmp_path / "earlier").mkdir()
    tensor(4).numpy().tofile(tmp_path / "earlier" / "1")
    tensor(5).numpy().tofile(tmp_path / "earlier" / "0")
    workshop = LocalWorkshop(folder=folder, scratch=scratch, earlier=Earlier(folder=tmp_path / "earlier"))
    kept = workshop.make(output_of(tensor(0), tensor(4)), Checkpoint(tensors={}))
    assert [file.name for file in kept] == ["1"]
    assert [np.fromfile(folder / name, np.float32)[0] for name in ("0", "1")] == [0, 4]


def test_a_file_that_cannot_be_kept_is_an_error_of_the_disk(
    places: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, scratch = places
    (tmp_path / "earlier").mkdir()
    tensor(0).numpy().tofile(tmp_path / "earlier" / "0")

    def refuse(*given: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "rename", refuse)
    workshop = LocalWorkshop(folder=folder, scratch=scratch, earlier=Earlier(folder=tmp_path / "earlier"))
    with pytest.raises(WriteError, match="Input/output error") as caught:
        workshop.make(output_of(tensor(0)), Checkpoint(tensors={}))
    assert caught.value.path == os.fspath(folder / "0")


@pytest.mark.parametrize("jobs", [1, 3])
@pytest.mark.parametrize("is_watched", [False, True])
def test_an_error_names_the_tensor_as_the_checkpoint_does(
    is_watched: bool, jobs: int, places: tuple[Path, Path]
) -> None:
    folder, scratch = places
    broken = ComputedTensor(dtype=DType.FLOAT32, shape=(4,), inputs=(), operation=Broken())
    piece = Watched(piece=broken, sum=Sum()) if is_watched else broken
    output = Output(files=(OutputFile(name="x", pieces=(tensor(0), piece)),), names={})
    workshop = LocalWorkshop(folder=folder, scratch=scratch, workers=Workers(jobs=jobs))
    with pytest.raises(ReadError, match="cannot be had") as caught:
        workshop.make(output, Checkpoint(tensors={"whole": tensor(0), "broken.weight": broken}))
    assert caught.value.tensor == "broken.weight"


def test_a_sum_is_of_what_was_written_last(places: tuple[Path, Path]) -> None:
    """A file may be compared with an earlier one first, and be written then."""
    folder, scratch = places
    total = Sum()
    output = Output(files=(OutputFile(name="x", pieces=(Watched(piece=tensor(0), sum=total),)),), names={})
    LocalWorkshop(folder=folder, scratch=scratch).make(output, Checkpoint(tensors={}))
    assert total.data == tensor(0).numpy().tobytes()


def nothing(*, number: int) -> None:
    """What a child would be called for."""


def test_children_read_the_output_and_write_it_while_it_is_built(
    places: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, scratch = places
    seen: list[tuple[Terms, int, list[Any]]] = []

    def call_all(calls: Sequence[Call[Any]], where: Path, *, terms: Terms, at_once: int) -> list[Any]:
        assert where == scratch
        seen.append((terms, at_once, [call.arguments for call in calls]))
        return [call.arguments["number"] for call in calls]

    monkeypatch.setattr(child, "call_all", call_all)
    elsewhere = Path("/elsewhere")
    terms = Terms(reads=(elsewhere,), writes=(elsewhere,), timeout_seconds=5)
    workshop = LocalWorkshop(folder=folder, scratch=scratch, terms=terms)
    function = child_function("nothing")(nothing)
    assert workshop.call(function, number=3) == 3
    workshop.make(output_of(build=lambda given: given.call(function, number=4)), Checkpoint(tensors={}))
    assert workshop.call_all([function.call(number=number) for number in (5, 6)], at_once=2) == [5, 6]
    assert [each[0].reads for each in seen] == [(elsewhere, folder)] * 3
    assert [each[0].writes for each in seen] == [(elsewhere,), (elsewhere, folder), (elsewhere,)]
    assert [each[0].timeout_seconds for each in seen] == [5] * 3
    assert [each[1] for each in seen] == [1, 1, 2]
