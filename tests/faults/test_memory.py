"""Memory stays within base + 256 MiB however large the checkpoint; too little of it is an error like any other."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest

from tests.faults.conversions import (
    MEBIBYTE,
    PYTORCH,
    SAFETENSORS,
    SHARDS,
    Target,
    entries,
    environment,
    write_source,
)

BUDGET = 256 * MEBIBYTE


def peak_of(command: list[str], limit_bytes: int) -> tuple[int, int, str]:
    """Return exit code, peak of private memory in bytes, and errors.

    RLIMIT_DATA and RssAnon count what the process allocates; address space and RSS would count files in the cache.
    """
    process = subprocess.Popen(
        ["prlimit", f"--data={limit_bytes}", *command], stderr=subprocess.PIPE, text=True, env=environment()
    )
    peak = 0
    while process.poll() is None:
        try:
            status = Path(f"/proc/{process.pid}/status").read_text()
        except ProcessLookupError:
            break
        found = [line.split()[1] for line in status.splitlines() if line.startswith("RssAnon")]
        peak = max([peak, *(int(kibibytes) << 10 for kibibytes in found)])
        time.sleep(0.005)
    _, errors = process.communicate()
    return process.returncode, peak, errors


@pytest.mark.parametrize("target", [SAFETENSORS, PYTORCH, SHARDS], ids=str)
def test_a_large_checkpoint_takes_little_memory(target: Target, tmp_path: Path) -> None:
    """600 MiB in three tensors."""
    for name in ("in", "small", "large"):
        (tmp_path / name).mkdir()
    small = write_source(tmp_path / "in" / "small.safetensors", mebibytes=1)
    large = write_source(tmp_path / "in" / "large.safetensors", mebibytes=600, tensors=3, first=None)
    code, base, errors = peak_of(target.command(small, tmp_path / "small", "--no-fsync"), 1 << 40)
    assert (code, errors) == (0, "")
    code, peak, errors = peak_of(target.command(large, tmp_path / "large", "--no-fsync"), base + BUDGET + (512 << 20))
    assert (code, errors) == (0, "")
    assert peak < base + BUDGET, f"{peak >> 20} MiB, {base >> 20} MiB without a large tensor"


@pytest.mark.parametrize("mebibytes", [16, 24, 32, 48, 64])
def test_too_little_memory(mebibytes: int, tmp_path: Path) -> None:
    """Wherever it runs out, the start of the interpreter included: no half output, nothing left behind."""
    for name in ("in", "out"):
        (tmp_path / name).mkdir()
    source = write_source(tmp_path / "in" / "source.safetensors", mebibytes=48)
    code, _, errors = peak_of(SAFETENSORS.command(source, tmp_path / "out"), mebibytes << 20)
    assert entries(tmp_path / "out") == ([SAFETENSORS.entry] if code == 0 else []), errors
