"""What is flushed to the disk before an output appears, in which order, and what is put back when a step fails."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from converter.errors import Interrupted, ReadError, WriteError
from converter.execution import mounted, publish
from converter.execution.publish import Destination, check_space, staging


@contextmanager
def recorded(monkeypatch: pytest.MonkeyPatch, root: Path) -> Iterator[list[str]]:
    """Yield the list of what is flushed and renamed below `root`, in order; the staging folder is called STAGE."""
    calls: list[str] = []
    fsync, rename, renameat2 = os.fsync, os.rename, publish._renameat2

    def name(path: str | os.PathLike[str]) -> str:
        parts = os.path.relpath(path, root).split(os.sep)
        return "/".join("STAGE" if part.startswith(".ckconv-") else part for part in parts)

    def record_fsync(descriptor: int) -> None:
        calls.append(f"fsync {name(os.readlink(f'/proc/self/fd/{descriptor}'))}")
        fsync(descriptor)

    def record_rename(source: Path, target: Path) -> None:
        calls.append(f"rename {name(target)}")
        rename(source, target)

    def record_renameat2(source: Path, target: Path, flags: int) -> bool:
        calls.append(f"rename {name(target)}")
        return renameat2(source, target, flags)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", record_fsync)
        patch.setattr(os, "rename", record_rename)
        patch.setattr(os, "replace", record_rename)
        patch.setattr(publish, "_renameat2", record_renameat2)
        yield calls


def fill(folder: Path) -> None:
    (folder / "sub" / "deep").mkdir(parents=True)
    for place in ("a", "sub/b", "sub/deep/c"):
        (folder / place).write_text(place)


@pytest.mark.parametrize("is_there_one", [False, True], ids=["absent", "over an older one"])
def test_every_file_and_folder_and_then_the_parent(
    is_there_one: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if is_there_one:
        (tmp_path / "x").mkdir()
        (tmp_path / "x" / "old").write_text("old")
    with recorded(monkeypatch, tmp_path) as calls, staging(tmp_path / "x") as stage:
        fill(stage.output)
        stage.publish(stage.output, overwrite=is_there_one)
    staged = "STAGE/output"
    before = {f"fsync {staged}{inner}" for inner in ("", "/a", "/sub", "/sub/b", "/sub/deep", "/sub/deep/c")}
    assert set(calls[:-2]) == before
    assert calls[-2:] == ["rename x", "fsync ."]
    assert calls.count(f"fsync {staged}") == 1


def test_one_file_and_then_the_parent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with recorded(monkeypatch, tmp_path) as calls, staging(tmp_path / "x") as stage:
        (stage.output / "x").write_text("new")
        stage.publish(stage.output / "x", overwrite=True)
    assert calls == ["fsync STAGE/output/x", "rename x", "fsync ."]


def test_nothing_is_flushed_that_need_not_be_durable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with recorded(monkeypatch, tmp_path) as calls, staging(tmp_path / "x") as stage:
        fill(stage.output)
        stage.publish(stage.output, overwrite=False, durable=False)
    assert calls == ["rename x"]


def test_a_folder_that_is_filled_is_itself_flushed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "disk").mkdir()
    with recorded(monkeypatch, tmp_path) as calls, staging(tmp_path / "disk", is_fixed=True) as stage:
        for name in ("index", "shard"):
            (stage.output / name).write_text(name)
        stage.publish(stage.output, overwrite=False, order=["shard", "index"])
    assert calls[-3:] == ["rename disk/shard", "rename disk/index", "fsync disk"]
    assert {"fsync disk/STAGE/output/index", "fsync disk/STAGE/output/shard"} <= set(calls[:-3])


def test_a_folder_is_put_back_when_the_second_step_of_an_exchange_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "old").write_text("old")
    rename = os.rename

    def refuse_the_new(source: Path, target: Path) -> None:
        if Path(target) == tmp_path / "x" and Path(source).name == "output":
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        rename(source, target)

    monkeypatch.setattr(publish, "_renameat2", lambda *arguments: False)
    monkeypatch.setattr(os, "rename", refuse_the_new)
    with staging(tmp_path / "x") as stage:
        (stage.output / "new").write_text("new")
        with pytest.raises(WriteError, match="Input/output error") as caught:
            stage.publish(stage.output, overwrite=True)
        assert caught.value.path == os.fspath(tmp_path / "x")
    assert [entry.name for entry in tmp_path.iterdir()] == ["x"]
    assert (tmp_path / "x" / "old").read_text() == "old"


def test_what_was_moved_into_a_mount_is_put_back_when_a_rename_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk, rename = tmp_path / "disk", os.rename
    disk.mkdir()
    for name in ("one", "two"):
        (disk / name).write_text("old")

    def refuse_one(source: Path, target: Path) -> None:
        if Path(target) == disk / "two" and "output" in Path(source).parts:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        rename(source, target)

    monkeypatch.setattr(os, "rename", refuse_one)
    with staging(disk, is_fixed=True) as stage:
        for name in ("one", "two"):
            (stage.output / name).write_text("new")
        with pytest.raises(WriteError, match="No space"):
            stage.publish(stage.output, overwrite=True)
    assert {entry.name: entry.read_text() for entry in disk.iterdir()} == {"one": "old", "two": "old"}


def test_a_mount_is_filled_by_one_writer_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second waits for the first, and then finds what it put there."""
    disk = tmp_path / "disk"
    disk.mkdir()
    for number in (1, 2):
        (tmp_path / f"staged{number}").mkdir()
        (tmp_path / f"staged{number}" / "x").write_text(f"{number}")
    locks: list[int] = []
    flock = mounted.fcntl.flock
    monkeypatch.setattr(mounted.fcntl, "flock", lambda at, how: (locks.append(how), flock(at, how))[1])
    mounted.fill(disk, tmp_path / "staged1", tmp_path, overwrite=False, order=[])
    with pytest.raises(FileExistsError):
        mounted.fill(disk, tmp_path / "staged2", tmp_path, overwrite=False, order=[])
    assert locks == [mounted.fcntl.LOCK_EX, mounted.fcntl.LOCK_EX]
    assert (disk / "x").read_text() == "1"


def test_only_the_owner_sees_what_is_staged(tmp_path: Path) -> None:
    with staging(tmp_path / "x") as stage:
        assert stat.S_IMODE(stage.folder.stat().st_mode) == 0o700


def test_modes_are_those_that_any_new_file_has(tmp_path: Path) -> None:
    with staging(tmp_path / "x") as stage:
        (stage.output / "a").write_text("a")
        stage.publish(stage.output, overwrite=False)
    (tmp_path / "plain").mkdir()
    assert (tmp_path / "x").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_staging_folder_of_another_user_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """os.kill says PermissionError of a process that lives and is not ours."""
    other = tmp_path / ".ckconv-4194301-00000000"
    other.mkdir()

    def refuse(process_id: int, number: int) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    with monkeypatch.context() as patch:
        patch.setattr(os, "kill", refuse)
        with staging(tmp_path / "x"):
            assert other.exists()
    with staging(tmp_path / "x"):
        assert not other.exists()


def test_a_staging_folder_that_is_locked_is_left_alone(tmp_path: Path) -> None:
    """Its process may live in another container, where ours does not see it."""
    other = tmp_path / ".ckconv-4194301-00000000"
    other.mkdir()
    lock = os.open(other, os.O_RDONLY)
    publish.fcntl.flock(lock, publish.fcntl.LOCK_EX)
    try:
        with staging(tmp_path / "x"):
            assert other.exists()
    finally:
        os.close(lock)


def test_a_link_that_looks_like_a_staging_folder_is_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "thesis.tex").write_text("years of work")
    (tmp_path / ".ckconv-4194301-00000000").symlink_to(victim)
    with staging(tmp_path / "x"):
        pass
    assert (victim / "thesis.tex").read_text() == "years of work"


def test_what_is_asked_just_before_publishing_decides(tmp_path: Path) -> None:
    def refuse() -> None:
        raise ReadError("has changed")

    with staging(tmp_path / "x") as stage:
        (stage.output / "x").write_text("new")
        with pytest.raises(ReadError, match="has changed"):
            stage.publish(stage.output / "x", overwrite=True, check=refuse)
    assert list(tmp_path.iterdir()) == []


def test_space_is_enough_to_the_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publish.shutil, "disk_usage", lambda folder: publish.shutil._ntuple_diskusage(100, 0, 100))
    check_space(tmp_path, 100, tmp_path / "x")
    with pytest.raises(WriteError, match="needs 101 bytes, the disk has 100 free"):
        check_space(tmp_path, 101, tmp_path / "x")


def test_an_empty_folder_is_replaced_without_being_asked(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    place = Destination.of(tmp_path / "x")
    place.check_replaceable(is_folder=True, overwrite=False, foreign=lambda entries: None)
    with staging(place.path) as stage:
        (stage.output / "a").write_text("a")
        stage.publish(stage.output, overwrite=False)
    assert (tmp_path / "x" / "a").read_text() == "a"


@pytest.mark.parametrize("resumes", [True, False])
@pytest.mark.parametrize(
    ("error", "is_gone_on_from"),
    [(WriteError("is full"), True), (Interrupted(15), True), (ReadError("is cut short"), False), (ValueError(), False)],
    ids=lambda each: type(each).__name__,
)
def test_what_a_failed_attempt_leaves(error: Exception, is_gone_on_from: bool, resumes: bool, tmp_path: Path) -> None:
    """Where the source or the program is at fault another attempt would end as this one did."""

    def work() -> None:
        with staging(tmp_path / "x", resumes=resumes) as stage:
            (stage.output / "half").write_text("half")
            raise error

    with pytest.raises(type(error)):
        work()
    left = [entry.name for entry in tmp_path.glob(".ckconv-*/output/*")]
    assert left == (["half"] if resumes and is_gone_on_from else [])
    assert bool(list(tmp_path.iterdir())) is bool(left)
