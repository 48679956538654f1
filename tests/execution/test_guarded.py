"""How a report gets into its place: whole, by one rename, on file systems of every kind; nothing is left otherwise."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from converter.errors import DestinationExistsError, UsageError, WriteError
from converter.execution.guarded import GuardedFile, guarded

OWN = b"mine: "


@contextmanager
def place(folder: Path, name: str = "report", *, overwrite: bool = False) -> Iterator[GuardedFile]:
    with guarded(
        folder / name,
        option="--report",
        source=folder / "source",
        destination=folder / "destination",
        overwrite=overwrite,
        is_earlier=lambda content: content.startswith(OWN),
    ) as file:
        yield file


def write(folder: Path, *, overwrite: bool = False) -> None:
    with place(folder, overwrite=overwrite) as file:
        file.write(OWN + b"new")


def failing(monkeypatch: pytest.MonkeyPatch, name: str, number: int) -> None:
    def fail(*given: object, **options: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, name, fail)


@pytest.mark.parametrize("number", [errno.EPERM, errno.ENOSYS, errno.ENOTSUP, errno.EMLINK], ids=errno.errorcode.get)
def test_where_there_are_no_hard_links_a_rename_does(
    number: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    failing(monkeypatch, "link", number)
    write(tmp_path)
    assert {entry.name: entry.read_bytes() for entry in tmp_path.iterdir()} == {"report": OWN + b"new"}


@pytest.mark.parametrize("overwrite", [False, True])
def test_what_appears_where_there_are_no_hard_links_stays(
    overwrite: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def appear(*given: object, **options: object) -> None:
        (tmp_path / "report").write_bytes(OWN + b"of another")
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(os, "link", appear)
    with pytest.raises(DestinationExistsError, match="appeared meanwhile" if overwrite else "exists"):
        write(tmp_path, overwrite=overwrite)
    assert {entry.name: entry.read_bytes() for entry in tmp_path.iterdir()} == {"report": OWN + b"of another"}


@pytest.mark.parametrize("call", ["link", "fsync"])
def test_a_disk_that_refuses_leaves_nothing(call: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    failing(monkeypatch, call, errno.EIO)
    with pytest.raises(WriteError, match="cannot be written: Input/output error") as caught:
        write(tmp_path)
    assert caught.value.path == os.fspath(tmp_path / "report")
    assert not list(tmp_path.iterdir())


def test_an_earlier_one_stays_when_the_rename_fails(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "report").write_bytes(OWN + b"old")
    failing(monkeypatch, "replace", errno.EIO)
    with pytest.raises(WriteError):
        write(tmp_path, overwrite=True)
    assert {entry.name: entry.read_bytes() for entry in tmp_path.iterdir()} == {"report": OWN + b"old"}


@pytest.mark.parametrize("overwrite", [False, True])
def test_the_file_and_then_its_folder_are_flushed(
    overwrite: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if overwrite:
        (tmp_path / "report").write_bytes(OWN + b"old")
    calls: list[str] = []
    fsync, link, replace = os.fsync, os.link, os.replace

    def flush(descriptor: int) -> None:
        place = os.readlink(f"/proc/self/fd/{descriptor}")
        calls.append("folder" if place == os.fspath(tmp_path) else "file")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", flush)
    monkeypatch.setattr(os, "link", lambda *given, **more: (calls.append("rename"), link(*given, **more)))
    monkeypatch.setattr(os, "replace", lambda *given, **more: (calls.append("rename"), replace(*given, **more)))
    write(tmp_path, overwrite=overwrite)
    assert calls == ["file", "rename", "folder"]


def test_what_is_there_is_looked_at_again_when_it_is_written(tmp_path: Path) -> None:
    (tmp_path / "report").write_bytes(OWN + b"old")
    with place(tmp_path, overwrite=True) as file:
        (tmp_path / "report").write_bytes(b"years of work")
        with pytest.raises(DestinationExistsError, match="was not written by an earlier --report"):
            file.write(OWN)
    assert (tmp_path / "report").read_bytes() == b"years of work"
    (tmp_path / "report").unlink()
    with place(tmp_path, overwrite=True) as file:
        (tmp_path / "report").mkdir()
        with pytest.raises(UsageError, match="is a folder"):
            file.write(OWN)


@pytest.mark.parametrize(("content", "is_ours"), [(OWN, True), (b"", False), (b"other", False)])
def test_which_file_is_an_earlier_one(content: bytes, is_ours: bool, tmp_path: Path) -> None:
    (tmp_path / "report").write_bytes(content)
    if is_ours:
        write(tmp_path, overwrite=True)
        return
    with pytest.raises(DestinationExistsError, match="was not written by an earlier --report"):
        write(tmp_path, overwrite=True)
    assert (tmp_path / "report").read_bytes() == content


def test_a_file_too_large_for_a_report_is_none(tmp_path: Path) -> None:
    with open(tmp_path / "report", "wb") as file:
        file.write(OWN)
        file.truncate((256 << 20) + 1)
    with pytest.raises(DestinationExistsError, match="was not written by an earlier --report"):
        write(tmp_path, overwrite=True)


@pytest.mark.parametrize("call", ["stat", "open"])
def test_a_folder_that_cannot_be_looked_at(call: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    real = getattr(os, call)

    def refuse(path: object, *given: object, **more: object) -> object:
        if path in ("report", tmp_path):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return real(path, *given, **more)

    with monkeypatch.context() as patch:
        patch.setattr(os, call, refuse)
        with pytest.raises(WriteError, match="cannot be written: Permission denied") as caught:
            write(tmp_path)
    assert caught.value.path == os.fspath(tmp_path / "report")
    write(tmp_path)


def test_reports_have_the_modes_of_any_new_file(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "plain").write_text("")
    assert (tmp_path / "report").stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.parametrize("kind", ["a link", "a pipe"])
def test_what_is_put_in_its_place_while_it_is_looked_at_is_not_opened(
    kind: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A link is not followed, and a pipe not waited for."""
    (tmp_path / "report").write_bytes(OWN + b"old")
    (tmp_path / "elsewhere").write_bytes(OWN + b"of another place")
    opened = os.open

    def swap(path: object, flags: int, *given: int, **more: int) -> int:
        if path == "report":
            (tmp_path / "report").unlink()
            if kind == "a link":
                (tmp_path / "report").symlink_to("elsewhere")
            else:
                os.mkfifo(tmp_path / "report")
        return opened(path, flags, *given, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "open", swap)
    with pytest.raises(DestinationExistsError, match=r"cannot be read|was not written by"):
        write(tmp_path, overwrite=True)
    assert (tmp_path / "elsewhere").read_bytes() == OWN + b"of another place"
