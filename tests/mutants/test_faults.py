"""Every fault has its place in converter/ and names tests that exist; whether they fail is what the runner shows."""

from __future__ import annotations

import shlex

import pytest

from tests.conftest import ROOT
from tests.mutants.__main__ import areas, planted


@pytest.mark.parametrize("area", areas())
def test_faults_can_be_planted(area: str) -> None:
    wrong = []
    for fault in areas()[area]:
        try:
            compile(planted(fault, ROOT), fault.module, "exec")
        except (ValueError, SyntaxError) as error:
            wrong.append(str(error))
        files = [word.partition("::")[0] for word in shlex.split(fault.tests) if word.startswith("tests/")]
        wrong += [f"{fault.module}: {fault.what}: no {file}" for file in files if not (ROOT / file).exists()]
        if not files:
            wrong.append(f"{fault.module}: {fault.what}: names no tests")
    assert not wrong, "\n".join(wrong)
