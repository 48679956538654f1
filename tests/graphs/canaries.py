"""Canaries as the tests run them: weights that are arrays, and which groups of weights a comparison notices."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from converter.errors import VerificationError
from converter.graphs.run.arrays import read_arrays
from converter.proof.comparing import compare_outputs

_HOUR = 3600.0


class Arrays:
    """Weights that are arrays."""

    def __init__(self, arrays: dict[str, Any]) -> None:
        self.arrays = arrays

    def sizes(self) -> dict[str, int]:
        return {name: array.nbytes for name, array in self.arrays.items()}

    def read(self, name: str) -> Any:
        return self.arrays[name].copy()

    def write(self, name: str, values: Any) -> None:
        self.arrays[name] = values


def with_canary(run: Callable[..., Any], file: Path, folder: Path) -> tuple[dict[str, Any], set[str], set[str]]:
    """Run the model `file` on `folder`/inputs.npz, with time for every group of weights.

    Returns what is told of the canary, the groups that the comparison notices, and the others.
    """
    answer = run(
        model=str(file),
        inputs=str(folder / "inputs.npz"),
        outputs=str(folder / "outputs.npz"),
        canary=str(folder / "canary.npz"),
        since=time.monotonic() - _HOUR,
    )["canary"]
    before = read_arrays(str(folder / "outputs.npz"), f"{answer['case']}/")
    noticed, unnoticed = set(), set()
    for number, group in enumerate(answer["tried"]):
        after = read_arrays(str(folder / "canary.npz"), f"{number}/")
        found = {key.replace(f"{number}/", f"{answer['case']}/", 1): array for key, array in after.items()}
        try:
            compare_outputs(before, found, path=file, atol=None, rtol=None)
            unnoticed.add(group)
        except VerificationError:
            noticed.add(group)
    return answer, noticed, unnoticed
