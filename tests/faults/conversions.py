"""The conversions that are put to the test: what they are run on, how, and what they leave behind."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import struct
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from converter.formats import registry
from tests.conftest import ROOT

MEBIBYTE = 1 << 20
LIMIT_SECONDS = 60
OFFLINE_AND_QUIET = {"TF_CPP_MIN_LOG_LEVEL": "2", "PYTHONPATH": os.fspath(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One way to write a checkpoint: the name of the destination and the options that go with it."""

    name: str
    entry: str
    options: tuple[str, ...] = ()

    def __str__(self) -> str:
        return self.name

    def path(self, folder: Path) -> Path:
        """Return where the output appears in `folder`."""
        return folder / self.entry.rstrip("/")

    def command(self, source: Path, folder: Path, *options: str) -> list[str]:
        """Return the command that converts `source` into `folder`."""
        program = [sys.executable, "-m", "converter", os.fspath(source), f"{folder}/{self.entry}", "--quiet"]
        return [*program, *self.options, *options]


_SHARDED = ("--max-shard-size", "3MB")
SAFETENSORS = Target(name="safetensors", entry="model.safetensors")
PYTORCH = Target(name="pytorch", entry="model.pth")
SHARDS = Target(name="shards", entry="model/", options=("--to", "safetensors", *_SHARDED))
PRETRAINED = Target(name="pretrained", entry="model", options=("--to", "pretrained", *_SHARDED))
SAVEDMODEL = Target(name="savedmodel", entry="model", options=("--to", "savedmodel", "--weights-only"))
DCP = Target(name="dcp", entry="model", options=("--to", "dcp"))
FILES = (SAFETENSORS, PYTORCH)
FOLDERS = (SHARDS, PRETRAINED, SAVEDMODEL, *([DCP] if "dcp" in registry() else []))
TARGETS = (*FILES, *FOLDERS)


def write_source(path: Path, *, mebibytes: int, tensors: int = 8, first: float | None = 1.0) -> Path:
    """Write a safetensors file of float32 tensors, each filled with one number; a sparse one if `first` is None."""
    nbytes = mebibytes * MEBIBYTE // tensors
    header = {
        f"t{number}": {
            "dtype": "F32",
            "shape": [nbytes // 4],
            "data_offsets": [number * nbytes, (number + 1) * nbytes],
        }
        for number in range(tensors)
    }
    text = json.dumps(header).encode()
    text = text.ljust(-(-len(text) // 8) * 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        if first is not None:
            for number in range(tensors):
                file.write(struct.pack("<f", first + number) * (nbytes // 4))
        file.truncate(8 + len(text) + tensors * nbytes)
    (path.parent / "config.json").write_text(json.dumps({"model_type": "of-no-table"}))
    return path


def fingerprint(path: Path) -> dict[str, str] | None:
    """Return the hash of every file at or under `path`; None when nothing is there."""
    if not os.path.lexists(path):
        return None
    files = sorted(file for file in path.rglob("*") if not file.is_dir()) if path.is_dir() else [path]
    return {
        os.path.relpath(file, path): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in files
        if file.name != "fingerprint.pb"  # TensorFlow puts a random number into it
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A target, its source, an older output to be replaced, and what the two outputs are."""

    target: Target
    source: Path
    older: Path
    old: dict[str, str]
    new: dict[str, str]
    seconds: float

    @classmethod
    def of(cls, target: Target, sources: Path) -> Case:
        """Run `target` over the two sources in `sources` once, without a fault."""
        folder = sources / f"of-{target}"
        for name in ("new", "old"):
            (folder / name).mkdir(parents=True)
        run(target.command(sources / "old" / "source.safetensors", folder / "old")).check_returncode()
        started = time.monotonic()
        run(target.command(sources / "new" / "source.safetensors", folder / "new")).check_returncode()
        seconds = time.monotonic() - started
        old, new = (fingerprint(target.path(folder / name)) for name in ("old", "new"))
        assert old is not None
        assert new is not None
        assert old != new
        older = target.path(folder / "old")
        source = sources / "new" / "source.safetensors"
        return cls(target=target, source=source, older=older, old=old, new=new, seconds=seconds)

    def destination(self, folder: Path, *, is_there_one: bool) -> Path:
        """Return where the output goes in `folder`, with the older output in its place or not."""
        folder.mkdir(exist_ok=True)
        path = self.target.path(folder)
        if is_there_one:
            (shutil.copytree if self.older.is_dir() else shutil.copy)(self.older, path)
        return path

    def command(self, folder: Path) -> list[str]:
        """Return the command that puts the new output into `folder`, over an older one too."""
        return self.target.command(self.source, folder, "--overwrite")


def environment(**changes: str) -> dict[str, str]:
    """Return the environment that conversions run in."""
    return {**os.environ, **OFFLINE_AND_QUIET, **changes}


def run(command: list[str], limit_seconds: float = LIMIT_SECONDS) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        errors="backslashreplace",
        env=environment(),
        check=False,
        timeout=limit_seconds,
    )


def start(command: list[str]) -> subprocess.Popen[str]:
    """Start a command and leave it running."""
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment())


def wait_for(folder: Path, pattern: str, process: subprocess.Popen[str]) -> bool:
    """Wait until something in `folder` matches `pattern`; False when the process ended first."""
    deadline = time.monotonic() + LIMIT_SECONDS
    while time.monotonic() < deadline:
        if next(folder.glob(pattern), None) is not None:
            return True
        if process.poll() is not None:
            return False
        time.sleep(0.001)
    raise AssertionError(f"nothing like {pattern} in {LIMIT_SECONDS} s")


def entries(folder: Path) -> list[str]:
    """Return what is in `folder`, dot files too."""
    return sorted(os.listdir(folder))


def assert_one_line(result: subprocess.CompletedProcess[str], *said: str) -> None:
    """Hold a failure to one line on stderr that says one of `said`."""
    assert result.returncode != 0, result.stdout
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("ckconv: "), lines
    assert any(part in lines[0] for part in said), lines
    assert "internal error" not in lines[0], lines
