"""The official node tests through every lowering: the slice of CKCONV_ORACLE_SEED, or all with CKCONV_ORACLE_FULL=1."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.graphs import node_suite

pytestmark = pytest.mark.framework

HERE = Path(__file__).parent
LOWERINGS = sorted(path.stem.removeprefix("node_suite_") for path in HERE.glob("node_suite_*.txt"))
_TIMEOUT_SECONDS = 1500


@pytest.mark.parametrize("lowering", LOWERINGS)
def test_what_is_not_excluded_passes(
    lowering: str, child_environment: dict[str, str], tell: Callable[[str], None]
) -> None:
    # A child process: a framework that aborts ends the child alone, and its memory goes with it.
    command = [sys.executable, "-m", "tests.graphs.node_suite", lowering]
    done = subprocess.run(
        command,
        cwd=HERE.parents[1],
        env=child_environment,
        capture_output=True,
        text=True,
        timeout=_TIMEOUT_SECONDS,
        check=False,
    )
    tell(done.stdout.strip())
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]


class _Case:
    name = "test_of_three"
    model = None
    data_sets = (([np.float32([1])], [np.float32([2])]),)
    rtol, atol = 1e-3, 1e-7


def _excluding(*patterns: str) -> tuple[node_suite.Exclusion, ...]:
    return tuple(node_suite.Exclusion(pattern=each, category=node_suite.NOT_YET, reason="why") for each in patterns)


@pytest.mark.parametrize(
    ("answer", "patterns", "is_expected"),
    [
        (np.float32([2]), (), True),
        (np.float32([2.1]), (), False),
        (np.float64([2]), (), False),
        (np.float32([[2]]), (), False),
        (np.float32([2]), ("test_of_*",), False),
        (np.float32([3]), ("test_of_*",), True),
        (np.float32([3]), ("another",), False),
    ],
)
def test_a_case_is_held_against_the_list(answer: np.ndarray, patterns: tuple[str, ...], is_expected: bool) -> None:
    found = node_suite.outcome(_Case, lambda model, inputs: [answer], _excluding(*patterns))
    assert found.is_expected is is_expected


@pytest.mark.parametrize("answer", [2, 3])
def test_a_case_may_pass_or_not_by_processor(answer: int) -> None:
    line = node_suite.Exclusion(pattern="test_of_*", category=node_suite.BY_PROCESSOR, reason="why")
    found = node_suite.outcome(_Case, lambda model, inputs: [np.float32([answer])], (line,))
    assert found.is_expected
    assert node_suite.report([found], (), is_full=False)[1]


def test_an_error_is_an_outcome() -> None:
    def fails(model: object, inputs: object) -> list[object]:
        raise RuntimeError("two\nlines")

    assert node_suite.outcome(_Case, fails, ()).error == "RuntimeError: two lines"


@pytest.mark.parametrize("lowering", LOWERINGS)
def test_every_line_of_the_exclude_list_has_a_reason(lowering: str) -> None:
    patterns = [each.pattern for each in node_suite.exclusions(lowering)]
    assert len(patterns) == len(set(patterns))
