"""Of what is too long for every run a slice, another with every seed; what is left out is told at the end.

CKCONV_ORACLE_SEED chooses, CKCONV_ORACLE_FULL=1 takes everything. Tests that make a slice of their own cases read the
two here. Of tests that are marked `one_in(n)`, by themselves or by their file, an n-th runs, and one at least. Two
settings are for runs after every commit: of the tests that need no framework a quarter, where all of them have run
before (CKCONV_TIER_HAS_RUN=1), and of the others, slices too, one in so many (CKCONV_PART=3). What is named on the
command line runs whole.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Sequence

import pytest

IS_FULL = os.environ.get("CKCONV_ORACLE_FULL") == "1"
SEED = int(os.environ.get("CKCONV_ORACLE_SEED", "0"))

TOLD = "told"
"""The property of a test that is printed at the end."""
_HAS_TIER_RUN = os.environ.get("CKCONV_TIER_HAS_RUN") == "1"
_PART = int(os.environ.get("CKCONV_PART", "1"))
_ONE_IN_OF_TIER = 4
_TIER = "tests without frameworks"


def left_out(
    items: Sequence[pytest.Item], seed: int = SEED, *, has_tier_run: bool = _HAS_TIER_RUN, part: int = _PART
) -> list[pytest.Item]:
    """Return the tests that are not in this run's slices; those that are tell how many they stand for."""
    slices: dict[tuple[str, int], list[pytest.Item]] = {}
    for item in items:
        name, one_in = _share(item, has_tier_run=has_tier_run, part=part)
        if one_in > 1:
            slices.setdefault((name, one_in), []).append(item)
    return [item for (name, one_in), slice_ in slices.items() for item in _left_out(name, one_in, slice_, seed)]


def _share(item: pytest.Item, *, has_tier_run: bool, part: int) -> tuple[str, int]:
    """Return what a test is a part of, and that one in how many of it runs."""
    marked = next(item.iter_markers_with_node("one_in"), None)
    if marked is not None:
        node, mark = marked
        return (item.nodeid.partition("[")[0] if node is item else node.nodeid), mark.args[0] * part
    if item.get_closest_marker("framework") is not None:
        return item.nodeid.partition("::")[0].rpartition("/")[0], part
    return _TIER, _ONE_IN_OF_TIER if has_tier_run else 1


def _left_out(name: str, one_in: int, items: Sequence[pytest.Item], seed: int) -> list[pytest.Item]:
    turns = min(one_in, len(items))
    turn = (seed + zlib.crc32(name.encode())) % turns
    kept = items[turn::turns]
    if len(kept) < len(items):
        told = f"{name}: {len(items) - len(kept)} of {len(items)} tests left out"
        kept[0].user_properties.append((TOLD, told))
    return [item for number, item in enumerate(items) if number % turns != turn]
