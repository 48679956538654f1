"""SIGKILL in the middle of a target of several files, and `--resume`: what was finished is kept, and nothing else."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.conversions import (
    DCP,
    FOLDERS,
    MEBIBYTE,
    PRETRAINED,
    SAVEDMODEL,
    SHARDS,
    Case,
    Target,
    entries,
    environment,
    fingerprint,
    run,
)

_KILLED = """
import os, sys
import converter
from converter.cli.convert import command

class KilledAt(converter.Observer):
    def __init__(self, nbytes):
        self.left = nbytes

    def advance(self, nbytes):
        self.left -= nbytes
        if self.left < 0:
            os.kill(os.getpid(), {signal})

nbytes, source, destination, *options = sys.argv[1:]
given = command.make_context("ckconv", [source, destination, *options]).params
for name in ("ledger_path", "as_json", "no_progress", "quiet", "verbose"):
    del given[name]
given = {{name: value for name, value in given.items() if value not in (None, (), False)}}
converter.convert(given.pop("source"), given.pop("destination"), observer=KilledAt(int(nbytes)), **given)
"""


def killed_at(nbytes: int, target: Target, source: Path, folder: Path, *options: str) -> Path:
    """Start a conversion that is killed when so many bytes are written; return the staging folder that it leaves."""
    folder.mkdir(exist_ok=True)
    program = [sys.executable, "-c", _KILLED.format(signal=int(signal.SIGKILL)), f"{nbytes}"]
    command = [*program, os.fspath(source), f"{folder}/{target.entry}", *target.options, *options]
    result = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False, timeout=60)
    assert result.returncode == -signal.SIGKILL, result.stderr
    (staging,) = folder.glob(".ckconv-*")
    return staging


def resumed(target: Target, source: Path, folder: Path, *options: str) -> str:
    """Run with --resume, and return what it says."""
    command = [part for part in target.command(source, folder, "--resume", *options) if part != "--quiet"]
    result = run(command)
    assert result.returncode == 0, result.stderr
    assert entries(folder) == [target.entry.rstrip("/")]
    return result.stdout


def inodes(folder: Path) -> dict[str, tuple[int, int]]:
    return {
        os.path.relpath(path, folder): (path.stat().st_ino, path.stat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize("jobs", ["1", "4"])
@pytest.mark.parametrize("target", FOLDERS, ids=str)
def test_finished_files_are_kept(target: Target, jobs: str, tmp_path: Path, case_of: Callable[[Target], Case]) -> None:
    case, chance = case_of(target), random.Random(11)
    for moment in range(3):
        folder = tmp_path / f"{moment}"
        at = chance.randrange(3 * MEBIBYTE, 15 * MEBIBYTE)
        staging = killed_at(at, target, case.source, folder, "--jobs", jobs)
        before = inodes(staging / "output")
        whole = {name for name, hash_ in (fingerprint(staging / "output") or {}).items() if case.new.get(name) == hash_}
        assert whole or target in (DCP, SAVEDMODEL), "nothing was finished: killed too early"
        said = resumed(target, case.source, folder, "--jobs", jobs)
        assert fingerprint(target.path(folder)) == case.new
        after = inodes(target.path(folder))
        assert {name for name in before if after[name] == before[name]} == whole
        if whole:
            assert f"note: resumed: {len(whole)} of " in said


def test_a_run_that_is_killed_again_and_again_comes_to_its_end(
    tmp_path: Path, case_of: Callable[[Target], Case]
) -> None:
    case = case_of(SHARDS)
    first = killed_at(5 * MEBIBYTE, SHARDS, case.source, tmp_path)
    kept = inodes(first / "output")
    for at in (3, 7, 11):
        staging = killed_at(at * MEBIBYTE, SHARDS, case.source, tmp_path, "--resume")
        assert not first.exists() or staging == first
    resumed(SHARDS, case.source, tmp_path)
    after = inodes(SHARDS.path(tmp_path))
    assert fingerprint(SHARDS.path(tmp_path)) == case.new
    name = "model-00001-of-00008.safetensors"
    assert after[name] == kept[name]


def test_a_damaged_file_is_written_again(tmp_path: Path, case_of: Callable[[Target], Case]) -> None:
    case = case_of(PRETRAINED)
    staging = killed_at(9 * MEBIBYTE, PRETRAINED, case.source, tmp_path)
    before = inodes(staging / "output")
    shards = sorted(path for path in (staging / "output").glob("*.safetensors"))
    assert len(shards) >= 4
    with open(shards[1], "r+b") as file:
        file.seek(MEBIBYTE)
        file.write(b"\1")
    os.utime(shards[1], ns=(before[shards[1].name][1],) * 2)
    resumed(PRETRAINED, case.source, tmp_path)
    after = inodes(PRETRAINED.path(tmp_path))
    assert fingerprint(PRETRAINED.path(tmp_path)) == case.new
    assert after[shards[0].name] == before[shards[0].name]
    assert after[shards[1].name] != before[shards[1].name]


@pytest.mark.parametrize("link", ["symbolic", "hard"])
def test_a_file_that_somebody_else_could_change_is_not_kept(
    link: str, tmp_path: Path, case_of: Callable[[Target], Case]
) -> None:
    case = case_of(SHARDS)
    staging = killed_at(9 * MEBIBYTE, SHARDS, case.source, tmp_path / "x")
    shard = staging / "output" / "model-00001-of-00008.safetensors"
    elsewhere = tmp_path / "elsewhere"
    shutil.copy(shard, elsewhere)
    shard.unlink()
    shard.symlink_to(elsewhere) if link == "symbolic" else os.link(elsewhere, shard)
    resumed(SHARDS, case.source, tmp_path / "x")
    assert fingerprint(SHARDS.path(tmp_path / "x")) == case.new
    there = SHARDS.path(tmp_path / "x") / shard.name
    assert not there.is_symlink()
    assert not there.samefile(elsewhere)


def test_another_source_is_not_mixed_in(tmp_path: Path, case_of: Callable[[Target], Case]) -> None:
    case, source = case_of(SHARDS), tmp_path / "source.safetensors"
    old = case.source.parents[1] / "old" / case.source.name
    shutil.copy(old, source)
    shutil.copy(case.source.with_name("config.json"), tmp_path)
    killed_at(9 * MEBIBYTE, SHARDS, source, tmp_path / "x")
    shutil.copy(case.source, source)
    said = resumed(SHARDS, source, tmp_path / "x")
    assert "note: started anew: an earlier attempt is not resumed, the source has changed since" in said
    assert "files kept" not in said
    assert fingerprint(SHARDS.path(tmp_path / "x")) == case.new


def test_other_options_start_anew(tmp_path: Path, case_of: Callable[[Target], Case]) -> None:
    case = case_of(SHARDS)
    killed_at(9 * MEBIBYTE, SHARDS, case.source, tmp_path, "--dtype", "float16")
    said = resumed(SHARDS, case.source, tmp_path)
    assert "it was asked for something else" in said
    assert fingerprint(SHARDS.path(tmp_path)) == case.new


def test_whose_leftovers_go(tmp_path: Path, case_of: Callable[[Target], Case]) -> None:
    """--resume takes its own and leaves those of other destinations; without it all of the dead are swept."""
    case = case_of(SHARDS)
    other = Target(name="other", entry="other/", options=SHARDS.options)
    (tmp_path / "x").mkdir()
    staging = killed_at(9 * MEBIBYTE, other, case.source, tmp_path / "x")
    result = run(SHARDS.command(case.source, tmp_path / "x", "--resume"))
    assert result.returncode == 0, result.stderr
    assert staging.exists()
    assert run(SHARDS.command(case.source, tmp_path / "x", "--overwrite")).returncode == 0
    assert not staging.exists()


def test_a_signal_leaves_what_can_be_gone_on_from(tmp_path: Path, case_of: Callable[[Target], Case]) -> None:
    """Only with --resume: without it an interrupted run leaves nothing."""
    case = case_of(SHARDS)
    source = tmp_path / "source.safetensors"
    shutil.copy(case.source, source)
    program = _KILLED.format(signal=int(signal.SIGTERM)).replace(
        "import converter\n",
        "import converter, signal, converter.cli\nsignal.signal(signal.SIGTERM, converter.cli._interrupt)\n",
        1,
    )
    for options in ([], ["--resume"]):
        command = [sys.executable, "-c", program, f"{9 * MEBIBYTE}", os.fspath(source), f"{tmp_path}/out/"]
        result = subprocess.run(
            [*command, *SHARDS.options, *options], env=environment(), capture_output=True, check=False, timeout=60
        )
        assert b"Interrupted" in result.stderr
        left = list(tmp_path.glob(".ckconv-*"))
        assert len(left) == len(options)
    result = run([sys.executable, "-m", "converter", f"{source}", f"{tmp_path}/out/", *SHARDS.options, "--resume"])
    assert "note: resumed: " in result.stdout
    assert fingerprint(tmp_path / "out")
    assert not list(tmp_path.glob(".ckconv-*"))
