"""What is proven before an output is published, by what is asked: targets whose readers find something else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import converter
from converter import proof
from converter.errors import UsageError, VerificationError
from converter.execution.workshop import LocalWorkshop
from converter.formats import registry
from converter.model.checkpoint import Checkpoint
from converter.model.optimizer import OptimizerState, ParameterGroup
from converter.model.output import Provenance
from converter.model.tensor import ArrayTensor
from converter.options import Options
from converter.planning import Source, Target, plan
from converter.proof import prove
from converter.report import Verification

WEIGHTS = {"w": ArrayTensor.of(np.ones(3, np.float32))}
SETTINGS = {"lr": 0.1, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.0, "amsgrad": False}
STATE = OptimizerState(
    algorithm="adam",
    step=3,
    groups=(ParameterGroup(parameters=("w",), hyperparameters=SETTINGS),),
    slots={name: {"w": ArrayTensor.of(np.full(3, 2, np.float32))} for name in ("exp_avg", "exp_avg_sq")},
)
SOURCE = Checkpoint(tensors=WEIGHTS, optimizer=STATE)
OTHER = {"w": ArrayTensor.of(np.zeros(3, np.float32))}
Change = Callable[[Checkpoint], Checkpoint]
CHANGES: list[tuple[str, Change, str]] = [
    ("a weight", lambda found: replace(found, tensors=OTHER), "tensor w: differs from the source"),
    ("no weight", lambda found: replace(found, tensors={}), "tensor w: is missing in the output"),
    ("one more", lambda found: replace(found, tensors={**found.tensors, **{"v": OTHER["w"]}}), "tensor v: is in the"),
    ("a moment", lambda found: _with(found, slots={**STATE.slots, "exp_avg": OTHER}), "exp_avg/w: differs"),
    ("a step", lambda found: _with(found, step=4), "optimizer is adam at step 4, not adam at 3"),
    ("no state", lambda found: replace(found, optimizer=None), "has no optimizer state"),
]


def _with(found: Checkpoint, **changed: Any) -> Checkpoint:
    assert found.optimizer is not None
    return replace(found, optimizer=replace(found.optimizer, **changed))


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Callable[[Change], None]:
    """Let the reader of dcp find something else than is there."""
    dcp = registry()["dcp"]

    def changed(change: Change) -> None:
        def read(path: Path, options: Any) -> Checkpoint:
            return change(dcp.read(path, options))

        monkeypatch.setitem(registry(), "dcp", replace(dcp, read=read))  # type: ignore[arg-type]

    return changed


@pytest.mark.parametrize("verify", ["auto", "weights", "none"])
@pytest.mark.parametrize(("change", "why"), [row[1:] for row in CHANGES], ids=[row[0] for row in CHANGES])
def test_what_is_found_is_what_was_meant_unless_nobody_asks(
    change: Change, why: str, verify: str, reads: Callable[[Change], None], tmp_path: Path
) -> None:
    assert converter.write(SOURCE, tmp_path / "right", to="dcp", verify=verify).verification.weights is (
        verify != "none"
    )
    reads(change)
    if verify == "none":
        converter.write(SOURCE, tmp_path / "wrong", to="dcp", verify=verify)
    else:
        with pytest.raises(VerificationError, match=why) as caught:
            converter.write(SOURCE, tmp_path / "wrong", to="dcp", verify=verify)
        assert caught.value.path == str(tmp_path / "wrong")
        assert not (tmp_path / "wrong").exists()


def test_outputs_are_not_proven_of_what_computes_nothing(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--verify outputs needs a target that runs"):
        converter.write(SOURCE, tmp_path / "x", to="dcp", verify="outputs")
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("is_there", [False, True])
@pytest.mark.parametrize("verify", ["auto", "outputs", "weights"])
def test_what_may_come_from_elsewhere_is_not_run_as_what_was_written_here(
    is_there: bool, verify: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[str] = []

    def noted(name: str) -> Callable[..., Verification]:
        def run(*_: Any) -> Verification:
            ran.append(name)
            return Verification(weights=True, outputs=True, max_abs=0.0)

        return run

    monkeypatch.setattr(proof, "verify_outputs", noted("own"))
    monkeypatch.setattr(proof, "verify_foreign_outputs", noted("foreign"))
    options = Options(verify=verify)
    converter.write(Checkpoint(tensors=WEIGHTS), tmp_path / "x.onnx", weights_only=True)
    target = Target.found(tmp_path / "x.onnx", None).with_options({})
    assert target.is_there
    target = replace(target, is_there=is_there)
    source = Source(checkpoint=Checkpoint(tensors=WEIGHTS), path=None, format="x")
    workshop = LocalWorkshop(folder=tmp_path, scratch=tmp_path)
    provenance = Provenance(tool="x", source_name="x", source_hash=lambda: "")
    made = plan(source, target, Options(weights_only=True), workshop, provenance)
    graph = replace(made, checkpoint=replace(made.checkpoint, graph=object()))
    found = prove(graph, tmp_path / "x.onnx", options, workshop)
    assert ran == ([] if verify == "weights" else ["foreign" if is_there else "own"])
    assert (found.weights, found.outputs) == (True, verify != "weights")
