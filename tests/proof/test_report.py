"""What a verdict and the JSON object say: no more than was proven."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from converter.errors import (
    DestinationExistsError,
    GraphError,
    LossError,
    ReadError,
    SafetyError,
    UsageError,
    VerificationError,
)
from converter.model.ledger import LedgerLine, Status, dropped
from converter.report import OptimizerReport, OptimizerStatus, OutputComparison, Report, Verification, failure
from converter.report.ledger import check_allowed
from tests.proof.from_json import verification_of

REPORT = Report(source="a", target="b", source_format="pytorch", target_format="onnx")
POWERLESS = OutputComparison(name="mask", dtype="bool", reason="constant")
PROVEN = OutputComparison(name="logits", dtype="float32", max_abs=1e-6, share=1.0)


@pytest.mark.parametrize(
    ("verification", "said"),
    [
        (Verification(), "not verified"),
        (Verification(weights=True), "verified weights"),
        (
            Verification(weights=True, reason="torch not installed"),
            "verified weights, outputs not verified: torch not installed",
        ),
        (
            Verification(weights=True, reason="'y' (constant)", is_unproven=True),
            "verified weights, outputs not proven: 'y' (constant)",
        ),
        (Verification(weights=True, outputs=True, max_abs=1e-6), "verified outputs max|d|=1.00e-06"),
        (
            Verification(weights=True, outputs=True, max_abs=1e-6, per_output=(PROVEN, POWERLESS)),
            "verified outputs max|d|=1.00e-06; not proven: 'mask' (constant)",
        ),
        (
            Verification(weights=True, outputs=True, max_abs=1e-6, beyond="outputs not compared beyond 17 tokens"),
            "verified outputs max|d|=1.00e-06; outputs not compared beyond 17 tokens",
        ),
        (
            Verification(weights=True, outputs=True, max_abs=1e-6, data="mine.npz"),
            "verified outputs max|d|=1.00e-06 on the inputs of mine.npz alone",
        ),
    ],
)
def test_verdicts(verification: Verification, said: str) -> None:
    report = replace(REPORT, verification=verification, optimizer=OptimizerReport(status=OptimizerStatus.CARRIED))
    assert report.verdict == f"ok: 0 mapped, 0 tied, 0 dropped, 0 defaulted; optimizer carried; {said}"
    told = json.loads(json.dumps(report.as_dict()))["verification"]
    assert (told["weights"], told["outputs"]) == (verification.weights, verification.outputs)
    assert replace(verification_of(told), is_unproven=verification.is_unproven) == verification


def test_a_dry_run_claims_nothing() -> None:
    assert replace(REPORT, is_dry_run=True).verdict.endswith("optimizer absent; nothing written (dry run)")


@pytest.mark.parametrize(
    "kind",
    [ReadError, UsageError, LossError, VerificationError, SafetyError, DestinationExistsError, GraphError],
)
def test_a_failure_says_its_exit_code(kind: type[ReadError]) -> None:
    lines = (LedgerLine(status=Status.MAPPED, name="x", target="y"),)
    error = kind("what", path="file", tensor="t", hint="do this")
    error.report = replace(REPORT, lines=lines)
    told = failure(error, source="a", target="b")
    assert (told["status"], told["exit_code"], told["error"]["code"]) == ("failed", kind.exit_code, kind.exit_code)
    assert told["error"] == {
        "code": kind.exit_code,
        "file": "file",
        "tensor": "t",
        "message": "what",
        "hint": "do this",
    }
    assert told["counts"]["mapped"] == 1
    assert failure(kind("what"), source="a", target="b").keys() >= told.keys() - {"source_format", "target_format"} - {
        "bytes",
        "bytes_without",
        "dry_run",
    }


def test_losses_behind_a_harmless_line_are_looked_at() -> None:
    lines = [dropped("a", "as asked"), dropped("b", "no place", is_refused_by_default=True)]
    with pytest.raises(LossError, match="no place"):
        check_allowed(lines, allow_dropped=[], allow_missing=[])
