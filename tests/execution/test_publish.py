"""An output appears whole or not at all, and what was there before stays unless it was asked to go."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from converter.errors import DestinationExistsError, UsageError, WriteError
from converter.execution import publish
from converter.execution.publish import Destination, staging


def replaceable(path: Path, *, is_folder: bool, overwrite: bool) -> None:
    Destination.of(path).check_replaceable(
        is_folder=is_folder,
        overwrite=overwrite,
        foreign=lambda entries: next((entry for entry in entries if entry != "ours"), None),
    )


def test_a_destination_is_read_as_it_was_written(tmp_path: Path) -> None:
    assert not Destination.of(f"{tmp_path}/x").as_folder
    assert Destination.of(f"{tmp_path}/x/").as_folder
    (tmp_path / "empty").mkdir()
    assert Destination.of(f"{tmp_path}/empty").as_folder
    with pytest.raises(WriteError, match="parent folder does not exist"):
        Destination.of(f"{tmp_path}/no/x")
    for wrong in ("", "/", "a\0b"):
        with pytest.raises(UsageError):
            Destination.of(wrong)


def test_what_may_be_replaced(tmp_path: Path) -> None:
    file, folder, foreign = tmp_path / "file", tmp_path / "folder", tmp_path / "foreign"
    file.write_text("old")
    folder.mkdir()
    replaceable(folder, is_folder=True, overwrite=False)  # empty counts as absent
    (folder / "ours").write_text("old")
    foreign.mkdir()
    (foreign / "thesis.tex").write_text("years of work")
    replaceable(file, is_folder=False, overwrite=True)
    replaceable(folder, is_folder=True, overwrite=True)
    for path, is_folder, overwrite in (
        (file, False, False),
        (file, True, True),
        (folder, True, False),
        (folder, False, True),
        (foreign, True, True),
    ):
        with pytest.raises(DestinationExistsError) as caught:
            replaceable(path, is_folder=is_folder, overwrite=overwrite)
        assert caught.value.exit_code == 6


def test_source_and_destination_stay_apart(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    file = folder / "x.pth"
    file.write_text("weights")
    os.link(file, tmp_path / "hard")
    (tmp_path / "soft").symlink_to(file)
    Destination.of(tmp_path / "model2").check_apart_from(folder)
    for destination, source in (
        (folder, folder),
        (folder / "out", folder),
        (folder, file),
        (file, file),
        (tmp_path / "hard", file),
        (tmp_path / "soft", file),
    ):
        with pytest.raises(UsageError) as caught:
            Destination.of(destination).check_apart_from(source)
        assert caught.value.exit_code == 2


def test_what_is_read_and_the_destination_stay_apart(tmp_path: Path) -> None:
    """Through links too: a link in the source's folder is part of it, and a folder may hold what others link to."""
    model, blobs, out = tmp_path / "model", tmp_path / "blobs", tmp_path / "out"
    for folder in (model, blobs, out):
        folder.mkdir()
    (blobs / "abc").write_text("weights")
    (model / "x.pth").symlink_to(blobs / "abc")
    (model / "config.json").write_text("{}")
    (tmp_path / "elsewhere").write_text("")
    (model / "link").symlink_to(tmp_path / "elsewhere")
    (out / "linked.pth").symlink_to(blobs / "abc")
    (out / "folder").symlink_to(blobs)
    read = [model / "x.pth", model / "config.json"]
    Destination.of(out).check_apart_from(model / "x.pth", *read)
    Destination.of(model / "y.pth").check_apart_from(model / "x.pth", *read)
    for destination, source in (
        (model / "link", model),
        (out, out / "linked.pth"),
        (out / "folder" / "new", blobs),
        (model / "config.json", model / "x.pth"),
        (blobs, model / "x.pth"),
        (blobs, model),
        (blobs / "abc", model / "x.pth"),
    ):
        with pytest.raises(UsageError) as caught:
            Destination.of(destination).check_apart_from(source, *read)
        assert caught.value.exit_code == 2


@pytest.mark.parametrize("has_renameat2", [True, False])
def test_publishing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_renameat2: bool) -> None:
    if not has_renameat2:
        monkeypatch.setattr(publish, "_renameat2", lambda *arguments: False)
    file, folder, link = tmp_path / "file", tmp_path / "folder", tmp_path / "link"
    link.symlink_to(tmp_path / "elsewhere")
    for path, is_folder, overwrite in (
        (file, False, False),
        (file, False, True),
        (folder, True, False),
        (folder, True, True),
        (link, False, True),
    ):
        with staging(path) as stage:
            staged = stage.output if is_folder else stage.output / "x"
            (stage.output / "x").write_text(f"{overwrite}")
            stage.publish(staged, overwrite=overwrite)
        assert (path / "x" if is_folder else path).read_text() == f"{overwrite}"
    assert not link.is_symlink()
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["file", "folder", "link"]


@pytest.mark.parametrize("has_renameat2", [True, False])
def test_what_appeared_meanwhile_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_renameat2: bool) -> None:
    if not has_renameat2:
        monkeypatch.setattr(publish, "_renameat2", lambda *arguments: False)
    with staging(tmp_path / "x") as stage:
        (stage.output / "x").write_text("new")
        (tmp_path / "x").write_text("somebody else's")
        with pytest.raises(DestinationExistsError, match="appeared"):
            stage.publish(stage.output / "x", overwrite=False)
    assert (tmp_path / "x").read_text() == "somebody else's"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_failure_leaves_nothing(tmp_path: Path) -> None:
    def fail_half_way() -> None:
        with staging(tmp_path / "x") as stage:
            (stage.output / "x").write_text("half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_half_way()
    assert list(tmp_path.iterdir()) == []


def test_leftovers_of_the_dead_are_swept_and_the_living_left_alone(tmp_path: Path) -> None:
    program = (
        "import os, pathlib, sys\n"
        "from converter.execution.publish import staging\n"
        "with staging(pathlib.Path(sys.argv[1])) as stage:\n"
        "    (stage.output / 'half').write_text('half')\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    subprocess.run([sys.executable, "-c", program, os.fspath(tmp_path / "dead")], check=False)
    (dead,) = tmp_path.iterdir()
    assert dead.name.startswith(".ckconv-")
    with staging(tmp_path / "living") as living:
        assert not dead.exists()
        with staging(tmp_path / "another"):
            assert living.folder.exists()
