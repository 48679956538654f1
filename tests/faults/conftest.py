"""The cases, made once: every target run without a fault."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.faults.conversions import Case, Target, write_source


@pytest.fixture(scope="session")
def case_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Target], Case]:
    """Return the case of a target."""
    sources = tmp_path_factory.mktemp("faults")
    for name, first in (("old", 100.0), ("new", 1.0)):
        (sources / name).mkdir()
        write_source(sources / name / "source.safetensors", mebibytes=16, first=first)
    cases: dict[Target, Case] = {}

    def case_of(target: Target) -> Case:
        if target not in cases:
            cases[target] = Case.of(target, sources)
        return cases[target]

    return case_of
