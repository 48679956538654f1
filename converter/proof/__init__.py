"""Proof of an output before it is published: its tensors bit for bit, and what its graph computes."""

from __future__ import annotations

from pathlib import Path

from converter.execution.workshop import LocalWorkshop
from converter.options import Options, Verify
from converter.planning import Plan
from converter.proof.outputs import verify_foreign_outputs, verify_outputs
from converter.proof.weights import verify_state, verify_weights
from converter.report import Verification

__all__ = ["prove"]


def prove(plan: Plan, path: Path, options: Options, workshop: LocalWorkshop) -> Verification:
    """Prove that what is at `path` holds what the plan says, and computes it.

    Nobody but this program has written it, unless it is there already (`Target.is_there`). Raises VerificationError
    when it does not, UnprovenError when proof was asked for and there is none.
    """
    if options.verify is Verify.NONE:
        return Verification()
    target, planned, names = plan.target.format, plan.checkpoint, plan.output.names
    workshop.observer.stage("verifying", planned.nbytes)
    found = target.read(path, target.read_options(**plan.output.read_with))
    kept = workshop.digests
    run = workshop.workers.run
    verify_weights(planned, found, names, path=path, digests=kept, observer=workshop.observer, run=run)
    verify_state(planned, found, names, path=path, digests=kept)
    if options.verify is not Verify.WEIGHTS and target.runner is not None and planned.graph is not None:
        if plan.target.is_there:
            return verify_foreign_outputs(planned, plan.output, path, target, options, workshop)
        return verify_outputs(planned, path, target.runner, options, workshop)
    return Verification(weights=True)
