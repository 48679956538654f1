"""A folder for each source, which appears once it is whole; inputs and outputs go beside the model.

`expected.npz` has what its framework computes, `after.npz` what it does after three further steps of training.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

Save = Callable[[Path], object]
GoOn = Callable[[], tuple[Mapping[str, Any], Mapping[str, Any]]]
"""Trains on, with and without the optimizer's state; returns what is computed in the end."""


def save(
    folder: Path, saves: Mapping[str, Save], inputs: Mapping[str, Any], outputs: Mapping[str, Any], go_on: GoOn
) -> None:
    """Write a source of each name with what `saves` has for it, and what its framework computes."""
    given = _arrays("in", inputs)
    for name, write in saves.items():
        part = folder / f"{name}.part"
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        write(part)
        np.savez(part / "expected.npz", **given, **_arrays("out", outputs))
    after, forgetful = go_on()
    for name in saves:
        part = folder / f"{name}.part"
        np.savez(part / "after.npz", **given, **_arrays("out", after), **_arrays("forgetful", forgetful))
        shutil.rmtree(folder / name, ignore_errors=True)
        part.rename(folder / name)


def _arrays(kind: str, values: Mapping[str, Any]) -> dict[str, np.ndarray]:
    return {f"{kind}:{name}": np.asarray(value) for name, value in values.items()}


def make(groups: Mapping[str, Callable[[Path], object]], seed: Callable[[], object]) -> None:
    """Make the sources of the groups that the command line names, in the folder that it names first, each by itself."""
    for group in sys.argv[2:]:
        seed()
        groups[group](Path(sys.argv[1]))
        print(group, flush=True)


def expected(folder: Path, file: str = "expected.npz") -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """The inputs and the outputs of a source."""
    with np.load(folder / file) as arrays:
        kinds = [
            {name.partition(":")[2]: arrays[name] for name in arrays if name.startswith(f"{kind}:")}
            for kind in ("in", "out")
        ]
    return kinds[0], kinds[1]
