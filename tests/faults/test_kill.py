"""SIGKILL at any moment: the destination is absent, old or new, and always whole."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from functools import cache
from itertools import chain
from pathlib import Path

import pytest

from tests.faults.conversions import (
    SAFETENSORS,
    SHARDS,
    TARGETS,
    Case,
    Target,
    entries,
    fingerprint,
    run,
    start,
    wait_for,
)
from tests.faults.injection import calls_of, strace

pytestmark = pytest.mark.one_in(2)

MOMENTS = 4
CALLS = {
    "write": ("write", "pwrite64", "writev"),
    "fsync": ("fsync", "fdatasync"),
    "rename": ("rename", "renameat", "renameat2", "link", "linkat"),
    "remove": ("unlink", "unlinkat", "rmdir"),
}


def assert_whole(case: Case, path: Path, *, is_there_one: bool) -> bool:
    """Whether the new output is there; else the old one must be, or nothing."""
    found = fingerprint(path)
    assert found in (case.new, case.old if is_there_one else None)
    assert all(entry == path.name or entry.startswith(".ckconv-") for entry in entries(path.parent))
    return found == case.new


def assert_a_rerun_sweeps(case: Case, path: Path) -> None:
    result = run(case.command(path.parent))
    assert result.returncode == 0, result.stderr
    assert fingerprint(path) == case.new
    assert entries(path.parent) == [path.name]


@pytest.mark.parametrize(
    ("target", "is_there_one"),
    [*[(target, True) for target in TARGETS], (SAFETENSORS, False), (SHARDS, False)],
    ids=lambda value: {True: "over an older one", False: "absent"}.get(value) or str(value),
)
def test_killed_at_random_moments(
    target: Target, is_there_one: bool, tmp_path: Path, case_of: Callable[[Target], Case]
) -> None:
    case, chance = case_of(target), random.Random(7)
    early = 0
    for moment in range(MOMENTS):
        path = case.destination(tmp_path / f"{moment}", is_there_one=is_there_one)
        process = start(case.command(path.parent))
        wait_for(path.parent, ".ckconv-*", process)
        time.sleep(case.seconds / 2 * (moment * chance.random() / MOMENTS))  # the first at once
        process.kill()
        process.communicate()
        early += not assert_whole(case, path, is_there_one=is_there_one)
    assert early, "every output was published before the signal came: the source is too small"
    assert_a_rerun_sweeps(case, path)


@pytest.fixture(scope="module")
def made_by(
    case_of: Callable[[Target], Case], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[Target], list[str]]:
    """Return the system calls that replacing an older output makes."""

    @cache
    def made_by(target: Target) -> list[str]:
        folder = tmp_path_factory.mktemp("counted")
        case = case_of(target)
        path = case.destination(folder / "x", is_there_one=True)
        return calls_of(case.command(path.parent), ",".join(chain(*CALLS.values())), folder / "log")

    return made_by


@pytest.mark.parametrize("kind", CALLS)
@pytest.mark.parametrize("target", [SAFETENSORS, SHARDS], ids=str)
def test_killed_at_a_system_call(
    target: Target,
    kind: str,
    tmp_path: Path,
    case_of: Callable[[Target], Case],
    made_by: Callable[[Target], list[str]],
) -> None:
    """On entry of the first, a middle and the last call of a kind, over an older output."""
    case = case_of(target)
    calls = [call for call in made_by(target) if call in CALLS[kind]]
    assert calls, f"the run makes no {CALLS[kind]}"
    for position in sorted({0, len(calls) // 2, len(calls) - 1}):
        path = case.destination(tmp_path / f"{position}", is_there_one=True)
        call = calls[position]
        inject = f"{call}:signal=KILL:when={calls[: position + 1].count(call)}"  # strace counts each call apart
        result = run(strace(case.command(path.parent), inject=inject, log=tmp_path / "log"))
        assert result.returncode in (-9, 137), (inject, result)
        is_new = assert_whole(case, path, is_there_one=True)
        assert is_new or kind != "remove"
        assert not is_new or kind not in ("write", "rename")
    assert_a_rerun_sweeps(case, path)
