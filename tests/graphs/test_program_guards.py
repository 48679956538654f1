"""A program of torch.export that holds for some lengths alone is refused, and says so where it is run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converter.errors import GraphError
from converter.graphs.run.arrays import read_arrays, write_sets

torch = pytest.importorskip("torch")


class Windows(torch.nn.Module):  # type: ignore[misc]
    """Adds up every fourth column, or, where there are as many as `decisive`, takes their mean."""

    def __init__(self, decisive: int) -> None:
        super().__init__()
        self.weight, self.decisive = torch.nn.Parameter(torch.tensor(2.0)), decisive

    def forward(self, x: Any) -> dict[str, Any]:
        found = x[:, ::4] * self.weight
        return {"y": found.mean(-1) if found.shape[1] == self.decisive else found.sum(-1)}


def exported(decisive: int) -> Any:
    from converter.graphs.lower.torch.program import exported

    return exported(Windows(decisive), {"x": torch.ones(3, 26)}, {"x": {0: "batch", 1: "length"}})


def test_a_program_for_one_length_is_refused() -> None:
    assert exported(decisive=100)
    with pytest.raises(GraphError, match=r"some lengths alone: where .*x\.shape\[1\].* == 7") as caught:
        exported(decisive=7)
    assert caught.value.exit_code == 7


def test_a_condition_that_something_divides_is_none() -> None:
    from converter.graphs.lower.torch.program import _check_open

    free = {("x", 1)}
    _check_open(["L['x'].size()[1] % 4 == 0", "L['x'].size()[0] == 2", "L['x'].size()[1] == L['y'].size()[1]"], free)
    with pytest.raises(GraphError):
        _check_open(["L['x'].size()[1] // 4 == 2"], free)


def test_a_guard_that_does_not_hold_is_a_reason(tmp_path: Path) -> None:
    from converter.graphs.run.torch_export import run

    axes = {"x": {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}}
    program = torch.export.export(Windows(7), (), {"x": torch.ones(3, 26)}, dynamic_shapes=axes)
    torch.export.save(program, tmp_path / "p.pt2", extra_files={"ckconv.json": "{}"})
    sets = {"long": {"x": np.ones((2, 26), np.float32)}, "short": {"x": np.ones((2, 9), np.float32)}}
    write_sets(str(tmp_path / "in.npz"), sets)
    made = {"inputs": str(tmp_path / "in.npz"), "outputs": str(tmp_path / "out.npz")}
    found = run(model=str(tmp_path / "p.pt2"), canary=str(tmp_path / "canary.npz"), **made)
    assert set(found["failed"]) == {"short"}
    assert "Guard failed" in found["failed"]["short"]
    assert "\n" not in found["failed"]["short"]
    assert found["canary"]["reason"] == found["failed"]["short"]  # the smallest set is the one that it would change
    np.testing.assert_array_equal(read_arrays(made["outputs"])["long/y"], [2, 2])
