"""An operator of ONNX is found in the same place on both sides: a file of one name, and a function of one name."""

from __future__ import annotations

from collections import defaultdict
from functools import partial
from typing import Any

import pytest

from converter.graphs.lower import tensorflow, torch
from converter.graphs.lower.registry import Operator, Registry
from converter.graphs.lower.tensorflow.registry import registry as of_tensorflow
from converter.graphs.lower.torch.registry import registry as of_torch

Variants = dict[tuple[str, str], dict[int, Operator]]


def variants(registry: Registry) -> Variants:
    found: Variants = defaultdict(dict)
    for operator in registry:
        found[operator.domain, operator.op_type][operator.since] = operator
    return found


def home(operator: Operator) -> str:
    function: Any = operator.function
    while isinstance(function, partial):
        function = function.func
    return str(function.__module__)


def own_name(operator: Operator) -> str | None:
    """Return the name of its function; None for a row of a list, whose function is that of other rows too."""
    function: Any = operator.function
    is_row = isinstance(function, partial) or "<locals>" in function.__qualname__
    return None if is_row else str(function.__name__)


BOTH = [(variants(of_tensorflow()), variants(of_torch()))]


@pytest.mark.parametrize(("ours", "theirs"), BOTH, ids=["tensorflow and torch"])
def test_an_operator_has_one_home_and_one_name(ours: Variants, theirs: Variants) -> None:
    shared = sorted(ours.keys() & theirs.keys())
    assert len(shared) >= 184
    apart = []
    for key in shared:
        sides = (ours[key], theirs[key])
        left, right = (
            {home(each).removeprefix(f"{package.__name__}.") for each in side.values()}
            for side, package in zip(sides, (tensorflow, torch), strict=True)
        )
        if left != right or len(left) != 1:
            apart.append(f"{key[1]}: in {sorted(left)} and in {sorted(right)}")
        pairs = [(sides[0][since], sides[1][since]) for since in sides[0].keys() & sides[1].keys()]
        pairs.append((sides[0][max(sides[0])], sides[1][max(sides[1])]))
        for one, other in pairs:
            names = {own_name(one), own_name(other)} - {None}
            if len(names) > 1:
                apart.append(f"{key[1]}: {sorted(map(str, names))}")
    assert not apart
