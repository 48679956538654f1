"""A source that changes while it is read is never published as if it had not."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.conversions import (
    MEBIBYTE,
    SAFETENSORS,
    SHARDS,
    Case,
    Target,
    entries,
    fingerprint,
    start,
    wait_for,
)

MOMENTS = 4


@pytest.mark.parametrize("target", [SAFETENSORS, SHARDS], ids=str)
def test_the_source_shrinks(target: Target, tmp_path: Path, case_of: Callable[[Target], Case]) -> None:
    case = case_of(target)
    refused = 0
    for moment in range(MOMENTS):
        folder = tmp_path / f"{moment}"
        path = case.destination(folder, is_there_one=True)
        (tmp_path / "in").mkdir(exist_ok=True)
        source = tmp_path / "in" / "source.safetensors"
        shutil.copy(case.source, source)
        shutil.copy(case.source.with_name("config.json"), source.with_name("config.json"))
        process = start(case.target.command(source, folder, "--overwrite"))
        assert wait_for(folder, ".ckconv-*", process)
        time.sleep(case.seconds / 4 * moment / MOMENTS)
        os.truncate(source, MEBIBYTE)
        _, errors = process.communicate(timeout=60)
        assert process.returncode in (0, 1), errors
        assert len(errors.splitlines()) == (process.returncode != 0)
        found = fingerprint(path)
        assert set(found or {}) == set(case.old)
        assert found == case.old or process.returncode == 0
        refused += process.returncode == 1
        assert entries(folder) == [path.name]
    assert refused, "every output was published before the source shrank: it is too small"
