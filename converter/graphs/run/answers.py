"""What functions of a child process say of a model; what they make of it is in files."""

from __future__ import annotations

from typing import TypedDict


class Prepared(TypedDict):
    """What is known of a graph once it is as targets get it: `converter.graphs.passes.preparing`.

    `kernels`  the names of tensors that TensorFlow would rather have otherwise
    `rounded`  the type that an output is computed in, by its name, where that is float16 or bfloat16
    `activations`  which of them are sigmoids or softmaxes, by name
    """

    kernels: list[str]
    rounded: dict[str, str]
    activations: dict[str, str]


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
