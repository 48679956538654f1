"""What a function that runs a model says of it; its outputs are in a file."""

from __future__ import annotations

from typing import TypedDict


class TriedGroups(TypedDict):
    """Which groups of weights were changed (`converter.graphs.run.canary.try_groups`).

    `case`       the set of inputs on which they were
    `tried`      the groups; the outputs of each are in the file of the canary, under ``<its number here>/<output>``
    `failed`     the numbers of those with which the model did not run at all
    `not_tried`  how many groups there are besides
    `reason`     why none was tried, if none was
    """

    case: str
    tried: list[str]
    failed: list[int]
    not_tried: int
    reason: str | None


class _Ran(TypedDict):
    failed: dict[str, str]


class Answer(_Ran, total=False):
    """`failed` says why sets do not run; `unfit` why others were not run; `canary` what came of changed weights."""

    unfit: dict[str, str]
    canary: TriedGroups | None
