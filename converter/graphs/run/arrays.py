"""Sets of inputs and outputs in .npz files: keys are `<set number>/<name>`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np


def read_inputs(path: str) -> dict[str, dict[str, Any]]:
    """Return the arrays of each set by name. Pickled arrays are refused (ValueError)."""
    sets: dict[str, dict[str, Any]] = {}
    with np.load(path, allow_pickle=False) as archive:
        for key in archive.files:
            number, name = key.split("/", 1)
            sets.setdefault(number, {})[name] = archive[key]
    return sets


def write_outputs(path: str, sets: Mapping[str, Mapping[str, Any]]) -> None:
    """Write the arrays of each set."""
    flat = {f"{number}/{name}": array for number, arrays in sets.items() for name, array in arrays.items()}
    np.savez(path, **flat)
