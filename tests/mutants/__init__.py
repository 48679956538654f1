"""Faults that a person could really make, planted one at a time: the tests that are named with each must fail.

``python -m tests.mutants`` plants all of them; ``--area execution`` those of one area, ``--only WORD`` those whose
module or description has it, ``--seconds 110 --seed N`` a slice in a random order until the time is up. A fault is a
piece of text in a module of converter/ that stands there once, and what stands there instead; it is caught when a named
test fails, not when the module no longer imports.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One fault: in `module` (below converter/) `old`, which stands there once, becomes `new`.

    `tests`      arguments of pytest: what must fail, as narrow as is sensible
    `what`       what a user would have of it
    `survives`   why no test can or need notice it; None for a fault that must be caught
    """

    module: str
    old: str
    new: str
    tests: str
    what: str
    survives: str | None = None
