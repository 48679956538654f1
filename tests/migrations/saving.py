"""A folder for each source, which appears once it is whole; inputs and outputs go beside the model."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

Save = Callable[[Path], object]


def save(folder: Path, saves: Mapping[str, Save], inputs: Mapping[str, Any], outputs: Mapping[str, Any]) -> None:
    """Write a source of each name with what `saves` has for it, and what its framework computes."""
    arrays = {f"in:{name}": np.asarray(value) for name, value in inputs.items()}
    arrays |= {f"out:{name}": np.asarray(value) for name, value in outputs.items()}
    for name, write in saves.items():
        part = folder / f"{name}.part"
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        write(part)
        np.savez(part / "expected.npz", **arrays)
        shutil.rmtree(folder / name, ignore_errors=True)
        part.rename(folder / name)


def make(groups: Mapping[str, Callable[[Path], object]], seed: Callable[[], object]) -> None:
    """Make the sources of the groups that the command line names, in the folder that it names first, each by itself."""
    for group in sys.argv[2:]:
        seed()
        groups[group](Path(sys.argv[1]))
        print(group, flush=True)


def expected(folder: Path) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """The inputs and the outputs of a source."""
    with np.load(folder / "expected.npz") as arrays:
        names = list(arrays)
        inputs = {name[3:]: arrays[name] for name in names if name.startswith("in:")}
        return inputs, {name[4:]: arrays[name] for name in names if name.startswith("out:")}
