"""The disk says no: nothing half-written appears, what was there stays, and the reason is one line."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.conversions import (
    MEBIBYTE,
    PYTORCH,
    SAFETENSORS,
    SHARDS,
    Case,
    Target,
    assert_one_line,
    entries,
    environment,
    fingerprint,
    run,
)
from tests.faults.injection import has_fired, in_mounts, ordinal_of, strace

FAULTS = {
    "fsync": ("fsync,fdatasync:error=EIO", "Input/output error"),
    "rename": ("rename,renameat,renameat2,link,linkat:error=EIO", "Input/output error"),
    "write": ("write:error=ENOSPC:when=3", "No space left on device"),
    "mkdir": ("mkdir,mkdirat:error=ENOSPC:when=2+", "No space left on device"),
    "close": ("close:error=EIO:when={output}", "Input/output error"),
    "pwrite64": ("pwrite64:error=ENOSPC", "No space left on device"),
}
OPTIONS = {"pwrite64": ("--jobs", "2", "--max-memory", "64MiB")}
"""With several threads a file is written by pwrite64, otherwise by write; a shard of 2 MiB has one alone."""


@pytest.mark.parametrize("is_there_one", [False, True], ids=["absent", "over an older one"])
@pytest.mark.parametrize(
    ("target", "fault"),
    [*((SAFETENSORS, fault) for fault in FAULTS), *((SHARDS, fault) for fault in FAULTS if fault not in OPTIONS)],
    ids=str,
)
def test_a_call_fails(
    target: Target, fault: str, is_there_one: bool, tmp_path: Path, case_of: Callable[[Target], Case]
) -> None:
    case, (inject, said) = case_of(target), FAULTS[fault]
    if fault == "close":
        measured = case.destination(tmp_path / "measured", is_there_one=is_there_one)
        command = case.command(measured.parent)
        inject = inject.format(output=ordinal_of(command, "close", "/output/", tmp_path / "calls"))
    path, log = case.destination(tmp_path / "x", is_there_one=is_there_one), tmp_path / "log"
    result = run(strace([*case.command(path.parent), *OPTIONS.get(fault, ())], inject=inject, log=log))
    assert has_fired(log)
    assert_one_line(result, said)
    assert str(path) in result.stderr
    assert fingerprint(path) == (case.old if is_there_one else None)
    assert entries(path.parent) == ([path.name] if is_there_one else [])


def test_the_folder_cannot_be_flushed_after_the_rename(tmp_path: Path, case_of: Callable[[Target], Case]) -> None:
    """The output is there by then, and whole: the message must not say that it is not."""
    case, log = case_of(SAFETENSORS), tmp_path / "log"
    path = case.destination(tmp_path / "x", is_there_one=True)
    result = run(strace(case.command(path.parent), inject="fsync:error=EIO:when=2+", log=log))
    assert has_fired(log)
    assert_one_line(result, "is in place and whole")
    assert fingerprint(path) == case.new
    assert entries(path.parent) == [path.name]


@pytest.mark.parametrize("target", [SAFETENSORS, PYTORCH, SHARDS], ids=str)
def test_a_file_may_not_grow(target: Target, tmp_path: Path, case_of: Callable[[Target], Case]) -> None:
    case = case_of(target)
    path = case.destination(tmp_path / "x", is_there_one=True)
    command = ["prlimit", f"--fsize={MEBIBYTE}", *case.command(path.parent)]
    assert_one_line(run(command), "File too large")
    assert fingerprint(path) == case.old
    assert entries(path.parent) == [path.name]


MOUNTS = {
    "bytes": ("size=8m", "bytes, the disk has"),
    "inodes": ("size=256m,nr_inodes=12", "No space left on device"),
}


@pytest.mark.parametrize(
    ("target", "full"),
    [(SAFETENSORS, "bytes"), (SHARDS, "bytes"), (SHARDS, "inodes")],
    ids=str,
)
def test_the_disk_is_full(target: Target, full: str, tmp_path: Path, case_of: Callable[[Target], Case]) -> None:
    """A small disk of its own; what it held before is there afterwards, and nothing else."""
    case, (options, said) = case_of(target), MOUNTS[full]
    disk = tmp_path / "disk"
    disk.mkdir()
    path = case.target.path(disk)
    kept = disk / "kept"
    steps = [
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(disk)],
        ["sh", "-c", f"echo old > {kept}"],
        ["sh", "-c", '"$@"; code=$?; ls -A "$0"; exit $code', str(disk), *case.command(disk)],
    ]
    result = run(in_mounts(*steps))
    assert_one_line(result, said)
    assert str(path) in result.stderr
    assert result.stdout.split() == ["kept"]


@pytest.mark.parametrize("target", [SAFETENSORS, SHARDS], ids=str)
def test_the_folder_is_read_only(target: Target, tmp_path: Path, case_of: Callable[[Target], Case]) -> None:
    case = case_of(target)
    path = case.destination(tmp_path / "x", is_there_one=True)
    folder = str(path.parent)
    mounts = (["mount", "--bind", folder, folder], ["mount", "-o", "remount,ro,bind", folder])
    assert_one_line(run(in_mounts(*mounts, case.command(path.parent))), "Read-only file system")
    assert fingerprint(path) == case.old


@pytest.mark.parametrize("target", [SAFETENSORS, SHARDS], ids=str)
@pytest.mark.parametrize("kind", ["missing parent", "parent is a file", "the other kind", "a stranger", "a link"])
def test_bad_destinations(kind: str, target: Target, tmp_path: Path, case_of: Callable[[Target], Case]) -> None:
    """What the user keeps at the destination, or behind it, stays."""
    case, victim = case_of(target), tmp_path / "victim"
    victim.mkdir() if target is SHARDS else None
    (victim / "thesis.tex" if target is SHARDS else victim).write_text("years of work")
    folder = tmp_path / "x"
    path = case.target.path(folder)
    match kind:
        case "parent is a file":
            folder.write_text("years of work")
        case "missing parent":
            pass
        case _:
            folder.mkdir()
    match kind:
        case "the other kind" if target is SHARDS:
            path.write_text("years of work")
        case "the other kind" | "a stranger":
            path.mkdir()
            (path / "thesis.tex").write_text("years of work")
        case "a link":
            path.symlink_to(victim)
    before = fingerprint(tmp_path)
    result = run(case.command(folder))
    if kind == "a link" and target is SAFETENSORS:
        assert result.returncode == 0
        assert not path.is_symlink()
        assert (victim.read_text(), fingerprint(path)) == ("years of work", case.new)
        return
    assert_one_line(result, str(folder))
    assert fingerprint(tmp_path) == before


def test_the_source_is_never_the_destination(tmp_path: Path, case_of: Callable[[Target], Case]) -> None:
    case = case_of(SAFETENSORS)
    source = tmp_path / SAFETENSORS.entry
    shutil.copy(case.source, source)
    before = fingerprint(tmp_path)
    assert_one_line(run(SAFETENSORS.command(source, tmp_path, "--overwrite")), "is the source itself")
    (tmp_path / "link").mkdir()
    (tmp_path / "link" / SAFETENSORS.entry).symlink_to(source)
    assert_one_line(run(SAFETENSORS.command(source, tmp_path / "link", "--overwrite")), "is the source itself")
    assert before == {name: value for name, value in (fingerprint(tmp_path) or {}).items() if name in (before or {})}


def test_closed_standard_streams_and_a_hostile_environment(tmp_path: Path, case_of: Callable[[Target], Case]) -> None:
    """No stdout, no stderr, the C locale, an unwritable home: the right result, and nothing anywhere else."""
    for target in (SAFETENSORS, SHARDS):
        case = case_of(target)
        home, cwd = tmp_path / f"home-{target}", tmp_path / f"cwd-{target}"
        home.mkdir()
        cwd.mkdir()
        path = case.destination(tmp_path / f"out-{target}", is_there_one=False)
        completed = subprocess.run(
            ["sh", "-c", '"$@" <&- >&- 2>&-', "sh", *case.command(path.parent)],
            env=environment(HOME=str(home), TMPDIR=str(home), XDG_CACHE_HOME=str(home), LC_ALL="C"),
            cwd=cwd,
            check=False,
            timeout=60,
        )
        assert completed.returncode == 0
        assert fingerprint(path) == case.new
        assert [entries(folder) for folder in (home, cwd, path.parent)] == [[], [], [path.name]]
