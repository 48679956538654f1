"""Several writers of one destination: it ends as exactly one of them wrote it, and nothing is left behind."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from converter.errors import DestinationExistsError
from converter.execution import publish
from tests.faults.conversions import (
    SAFETENSORS,
    SHARDS,
    Target,
    entries,
    fingerprint,
    run,
    start,
    write_source,
)

WRITERS = 4
ROUNDS = 1


@pytest.mark.parametrize("overwrites", [True, False], ids=["overwriting", "not overwriting"])
@pytest.mark.parametrize("target", [SAFETENSORS, SHARDS], ids=str)
def test_several_writers(target: Target, overwrites: bool, tmp_path: Path) -> None:
    sources, results = [], []
    for number in range(WRITERS):
        folder = tmp_path / f"{number}"
        (folder / "out").mkdir(parents=True)
        sources.append(write_source(folder / "source.safetensors", mebibytes=4, first=100.0 * number))
        assert run(target.command(sources[-1], folder / "out")).returncode == 0
        results.append(fingerprint(target.path(folder / "out")))
    for round_ in range(ROUNDS):
        together = tmp_path / f"together-{round_}"
        together.mkdir()
        options = ["--overwrite"] if overwrites else []
        processes = [start(target.command(source, together, *options)) for source in sources]
        errors = [process.communicate(timeout=60)[1] for process in processes]
        codes = [process.returncode for process in processes]
        won = fingerprint(target.path(together))
        assert won in results
        assert entries(together) == [target.path(together).name]
        assert codes.count(0) == WRITERS if overwrites else sorted(codes) == [0, 6, 6, 6], errors
        if not overwrites:
            assert won == results[codes.index(0)]


@pytest.mark.parametrize("overwrite", [True, False])
@pytest.mark.parametrize("at_first", ["nothing", "an empty folder", "a folder"])
@pytest.mark.parametrize("then", ["nothing", "an empty folder", "a folder"])
def test_the_destination_changes_at_the_last_moment(
    at_first: str, then: str, overwrite: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between looking and renaming, somebody else takes away or publishes what is there."""
    path = tmp_path / "out"

    def put(what: str) -> None:
        if path.exists():
            path.rename(tmp_path / f"moved-{len(list(tmp_path.iterdir()))}")
        if what != "nothing":
            path.mkdir()
        if what == "a folder":
            (path / "x").write_text("somebody's")

    looks = iter(range(100))

    def entries_then_change(folder: Path) -> tuple[str, ...]:
        found = tuple(os.listdir(folder))
        if next(looks) == 0:
            put(then)
        return found

    real = publish._renameat2

    def rename_after_change(source: Path, destination: Path, flags: int) -> bool:
        if next(looks) == 0:
            put(then)
        return real(source, destination, flags)

    put(at_first)
    monkeypatch.setattr(publish, "_entries", entries_then_change)
    monkeypatch.setattr(publish, "_renameat2", rename_after_change)
    with publish.staging(path) as stage:
        (stage.output / "x").write_text("new")
        try:
            stage.publish(stage.output, overwrite=overwrite, durable=False)
        except DestinationExistsError:
            assert not overwrite
            assert not (path / "x").exists() or (path / "x").read_text() == "somebody's"
        else:
            assert (path / "x").read_text() == "new"
    assert not [entry for entry in entries(tmp_path) if entry.startswith(".ckconv")]


def test_what_came_to_the_destination_since_is_looked_at_again(tmp_path: Path) -> None:
    path = tmp_path / "out"

    def check() -> None:
        if "thesis.tex" in entries(path):
            raise DestinationExistsError("holds 'thesis.tex'", path=path)

    for stranger in (False, True):
        path.mkdir(exist_ok=True)
        with publish.staging(path) as stage:
            (stage.output / "x").write_text("new")
            if stranger:
                (path / "thesis.tex").write_text("years of work")
                with pytest.raises(DestinationExistsError):
                    stage.publish(stage.output, overwrite=True, durable=False, check=check)
            else:
                stage.publish(stage.output, overwrite=True, durable=False, check=check)
    assert entries(path) == ["thesis.tex", "x"]
