"""What tells classes apart that have the same layers: a few questions, the same for every model type."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from converter.dialects.identity.classes import layer_of
from converter.dialects.identity.sightings import POOLER, Fit
from converter.dialects.identity.tasks import (
    ANSWER_TASK,
    CAUSAL_TASK,
    CHOICE_TASK,
    MASKED_TASK,
    SEQUENCE_TASK,
    TOKEN_TASK,
)
from converter.errors import ArchitectureError


class Shaped(Protocol):
    """What is asked of a tensor here."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The extents."""


def break_tie(fits: Sequence[Fit], tensors: Mapping[str, Shaped], config: Mapping[str, Any]) -> tuple[Fit, str | None]:
    """Return the one of several that it is, and what told it from the others where that is not certain.

    Multiple choice ends in one row, answers in two. Names tell where layers do not: of two linear layers one has a
    bias. A pooler is there or not. A decoder predicts the next word, others those that are masked. A type of problem is
    that of whole sequences. One label makes one row, with any other number one row is of multiple choice. Raises
    ArchitectureError when nothing tells.
    """
    if len({fit.known.layers for fit in fits}) > 1:
        raise ambiguous(fits)
    left = [fit for fit in fits if not _is_for(fit, CHOICE_TASK) or _rows(fit, tensors) == 1] or list(fits)
    left = _by_inner_layers(_without(left, ANSWER_TASK, CHOICE_TASK), tensors)
    fewest = min(fit.names_astray for fit in left)
    left = [fit for fit in left if fit.names_astray == fewest]
    left, reason = _by_pooler(left)
    if config.get("is_decoder"):
        left = _without(left, MASKED_TASK, CAUSAL_TASK)
    else:
        left = _without(left, CAUSAL_TASK, MASKED_TASK)
    if config.get("problem_type") is not None:
        left = _without(_without(left, TOKEN_TASK, SEQUENCE_TASK), CHOICE_TASK, SEQUENCE_TASK)
    by_labels = left
    match _labels(config):
        case 1:
            left = _without(_without(left, CHOICE_TASK, SEQUENCE_TASK), CHOICE_TASK, TOKEN_TASK)
        case int():
            left = _without(_without(left, SEQUENCE_TASK, CHOICE_TASK), TOKEN_TASK, CHOICE_TASK)
    if len(left) != 1:
        raise ambiguous(left)
    if len(by_labels) > 1:
        others = ", ".join(fit.known.name for fit in by_labels if fit not in left)
        labels = f"the config's number of labels tells it from {others}"
        reason = labels if reason is None else f"{reason}; {labels}"
    return left[0], reason


def ambiguous(fits: Sequence[Fit]) -> ArchitectureError:
    """Return the error that says which classes the tensors may be of."""
    tasks = dict.fromkeys(task for fit in fits for task in fit.known.tasks)
    return ArchitectureError(
        f"the tensors are of {' or '.join(fit.known.name for fit in fits)}, nothing says which",
        hint=f"give --task ({', '.join(tasks)}), or --config with a config.json that has 'architectures', "
        "or --weights-only",
    )


def _by_inner_layers(fits: list[Fit], names: Iterable[str]) -> list[Fit]:
    """Return those whose own layers, deeper than what their names start with, are there or tied, and no other's."""
    every = frozenset[str]().union(*(fit.known.tells for fit in fits))
    if not every:
        return fits
    held = {layer_of(name.removeprefix(fits[0].sighting.prefix)) for name in names} & every
    astray = [len((held ^ fit.known.tells) - (fit.known.tied_layers - held)) for fit in fits]
    return [fit for fit, count in zip(fits, astray, strict=True) if count == min(astray)]


def _by_pooler(fits: list[Fit]) -> tuple[list[Fit], str | None]:
    has_pooler = POOLER in fits[0].sighting.base
    pooled = [fit for fit in fits if (POOLER in fit.known.base | fit.known.base_optional) == has_pooler] or fits
    if len(pooled) == len(fits):
        return fits, None
    others = ", ".join(fit.known.name for fit in fits if fit not in pooled)
    return pooled, f"{'a' if has_pooler else 'no'} pooler is there, which tells it from {others}"


def _without(fits: list[Fit], task: str, other: str) -> list[Fit]:
    """Return those that are not for `task` alone, where some are for the `other`."""
    if not any(_is_for(fit, other) for fit in fits):
        return fits
    return [fit for fit in fits if not _is_for(fit, task) or _is_for(fit, other)]


def _is_for(fit: Fit, task: str) -> bool:
    return task in fit.known.tasks


def _rows(fit: Fit, tensors: Mapping[str, Shaped]) -> int | None:
    tensor = tensors.get(f"{fit.sighting.prefix}{fit.known.output}")
    return tensor.shape[0] if tensor is not None and tensor.shape else None


def _labels(config: Mapping[str, Any]) -> int | None:
    labels = config.get("id2label") or config.get("num_labels")
    return len(labels) if isinstance(labels, (dict, list)) else labels
