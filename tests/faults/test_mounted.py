"""The destination is an empty folder that nothing can be renamed over: a disk mounted there, a parent not ours."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from converter.errors import DestinationExistsError, WriteError
from converter.execution import mounted, publish
from tests.faults.conversions import FOLDERS, SHARDS, Case, Target, assert_one_line, entries, fingerprint, run
from tests.faults.injection import in_mounts


def on_a_mount(case: Case, folder: Path, *steps: list[str], kind: str = "tmpfs") -> list[str]:
    """Return the command that converts onto a disk mounted at the destination, and copies what is there to `copy`."""
    path = case.target.path(folder)
    path.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(path)]
    if kind == "bind":
        (folder / "volume").mkdir()
        mount = ["mount", "--bind", str(folder / "volume"), str(path)]
    command = [part for part in case.command(folder) if part != "--overwrite"]
    then_copy = '"$@"; code=$?; cd "$0" && cp -a . ../copy; exit $code'
    return in_mounts(mount, *steps, ["sh", "-c", then_copy, str(path), *command])


@pytest.mark.parametrize("kind", ["tmpfs", "bind"])
@pytest.mark.parametrize("target", FOLDERS, ids=str)
def test_onto_an_empty_disk(target: Target, kind: str, tmp_path: Path, case_of: Callable[[Target], Case]) -> None:
    case = case_of(target)
    result = run(on_a_mount(case, tmp_path / "x", kind=kind))
    assert result.returncode == 0, result.stderr
    assert fingerprint(tmp_path / "x" / "copy") == case.new
    assert not [entry for entry in entries(tmp_path / "x" / "copy") if entry.startswith(".ckconv-")]


def test_what_a_disk_and_the_dead_leave_is_not_in_the_way(tmp_path: Path, case_of: Callable[[Target], Case]) -> None:
    case = case_of(SHARDS)
    path = SHARDS.path(tmp_path / "x")
    leave = ["mkdir", f"{path}/lost+found", f"{path}/.ckconv-4194999-0a0b0c0d"]
    result = run(on_a_mount(case, tmp_path / "x", leave))
    assert result.returncode == 0, result.stderr
    assert fingerprint(tmp_path / "x" / "copy") == case.new
    assert "lost+found" in entries(tmp_path / "x" / "copy")
    assert ".ckconv-4194999-0a0b0c0d" not in entries(tmp_path / "x" / "copy")


def test_a_disk_that_holds_something_stays_as_it_is(tmp_path: Path, case_of: Callable[[Target], Case]) -> None:
    case = case_of(SHARDS)
    path = SHARDS.path(tmp_path / "x")
    result = run(on_a_mount(case, tmp_path / "x", ["sh", "-c", f"echo years > {path}/thesis.tex"]))
    assert_one_line(result, "exists; --overwrite replaces it")
    assert result.returncode == 6
    assert entries(tmp_path / "x" / "copy") == ["thesis.tex"]


@pytest.fixture
def fixed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A destination that renaming over fails on, as on a mount point."""
    path = tmp_path / "out"
    path.mkdir()
    real = os.rename

    def rename(source: str | Path, target: str | Path) -> None:
        if path in (Path(source), Path(target)):
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), target)
        real(source, target)

    monkeypatch.setattr(os, "rename", rename)
    monkeypatch.setattr(mounted, "is_fixed", lambda folder: folder == path)
    return path


def staged(stage: publish.Staging, *names: str) -> None:
    for name in names:
        (stage.output / name).parent.mkdir(parents=True, exist_ok=True)
        (stage.output / name).write_text("new")


def test_the_file_that_names_the_others_comes_last(fixed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    moved: list[str] = []
    real = mounted.rename_if_absent

    def rename(source: Path, target: Path) -> None:
        moved.append(target.name)
        real(source, target)

    monkeypatch.setattr(mounted, "rename_if_absent", rename)
    with publish.staging(fixed, is_fixed=True) as stage:
        staged(stage, "z", "variables/b", "variables/a", "index", "built")
        stage.publish(stage.output, overwrite=False, order=["z", "variables/b", "variables/a", "index"])
    assert moved == ["z", "variables", "index", "built"]
    assert fingerprint(fixed) is not None
    assert entries(fixed) == ["built", "index", "variables", "z"]
    assert publish.Destination.of(fixed).is_fixed


@pytest.mark.parametrize("is_there_one", [False, True])
def test_a_failure_half_way_takes_all_back(is_there_one: bool, fixed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if is_there_one:
        (fixed / "old").write_text("old")
    real, left = mounted.rename_if_absent, [2 + is_there_one]

    def rename(source: Path, target: Path) -> None:
        left[0] -= 1
        if left[0] == 0:
            raise OSError(errno.EIO, os.strerror(errno.EIO), target)
        real(source, target)

    for fails in (True, False):
        if not fails:
            left[0] = 100
        monkeypatch.setattr(mounted, "rename_if_absent", rename)
        with publish.staging(fixed, is_fixed=True) as stage:
            staged(stage, "a", "b", "c")
            if fails:
                with pytest.raises(WriteError, match="Input/output error"):
                    stage.publish(stage.output, overwrite=is_there_one)
                assert sorted(entries(stage.output)) == ["a", "b", "c"]
            else:
                stage.publish(stage.output, overwrite=is_there_one)
        assert entries(fixed) == (["a", "b", "c"] if not fails else ["old"] if is_there_one else [])


def test_what_appeared_meanwhile_stays(fixed: Path) -> None:
    with publish.staging(fixed, is_fixed=True) as stage:
        staged(stage, "a")
        (fixed / "somebody's").write_text("x")
        with pytest.raises(DestinationExistsError, match="appeared"):
            stage.publish(stage.output, overwrite=False)
    assert entries(fixed) == ["somebody's"]
