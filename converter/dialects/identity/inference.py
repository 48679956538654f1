"""Which transformers class a checkpoint is of, told from its config and its tensors; no framework is needed.

The class that config.json names is right when the tensors of its head are there, and nothing of another head is.
Otherwise the head's tensors say which class it is, and `--task` overrules both.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from converter.dialects.identity.classes import KnownType, known_type, layer_of, type_with
from converter.dialects.identity.sightings import Fit, anchored, fits
from converter.dialects.identity.tasks import CLASS_SUFFIXES, task_named
from converter.dialects.identity.tie_breaks import Shaped, break_tie
from converter.errors import ArchitectureError
from converter.model.checkpoint import class_named, type_named

_HINT = "give --config with a config.json that has 'architectures', or --task, or --weights-only"
_OWN_HINT = (
    "--model package.module:factory names the code of a module of your own; "
    "else give --config with a config.json that has 'architectures', or --task, or --weights-only"
)
_CLASS_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,99}")
_STEM_AND_HEAD = re.compile(r"([A-Za-z0-9_]+?)(?:For[A-Z][A-Za-z0-9_]*|LMHeadModel|Model)")
_NAMES_SHOWN = 4
_DEEPEST_BASE = 3
"""How many components may stand before the names of a base model inside another module."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Inference:
    """A class, and why it is that one.

    `architecture`  the transformers class
    `basis`         what says so: "config", "head tensors" or "task"
    `prefix`        what stands before each of the class's own names, as Lightning's ``model.`` does; a base model
                    stored inside a class with a head has its base prefix here
    `note`          what a user should know, None when all agrees
    """

    architecture: str
    basis: str
    prefix: str = ""
    note: str | None = None


def infer_architecture(
    tensors: Mapping[str, Shaped], config: Mapping[str, Any], *, task: str | None = None
) -> Inference:
    """Return the transformers class of a checkpoint.

    `tensors` are in PyTorch names, old ones (`gamma`, `beta`) included; `config` is what config.json says. A model
    type that no table knows, and a class that its table has the name of alone, are taken at the config's word, and
    the prefix is not looked for.

    Raises ArchitectureError when nothing says which class it is, or when several answer; UsageError for an unknown
    `task`.
    """
    wanted = None if task is None else task_named(task)
    named = class_named(config)
    known = _type_of(config, named)
    if known is None or (wanted is None and named in known.others):
        return _as_named(config, named, wanted)
    found = fits(known, tensors, is_tied=config.get("tie_word_embeddings") is True)
    if wanted is not None:
        return _by_task(known, found, wanted)
    complete = [fit for fit in found if not fit.missing]
    if not complete:
        return _without_fit(known, tensors, named)
    lowest = min(fit.rank for fit in complete)
    return _by_layers(known, [fit for fit in complete if fit.rank == lowest], found, tensors, config)


def is_known(config: Mapping[str, Any]) -> bool:
    """Whether a table knows the classes of a config's model type."""
    return _type_of(config, class_named(config)) is not None


def base_within(tensors: Mapping[str, Shaped], config: Mapping[str, Any]) -> Inference | None:
    """Return the base model around which layers stand that no class of its type has, None where that is not so.

    Its `prefix` is what stands before its own names, and before nothing else.
    """
    known = _type_of(config, class_named(config))
    found = (
        [] if known is None else [fit for prefix in _aboves(tensors) for fit in _bases_below(known, prefix, tensors)]
    )
    if known is None or len({fit.prefix for fit in found}) != 1:
        return None
    best = min(found, key=lambda fit: fit.rank)
    note = f"no class of the {known.name} family has {_shown(best.sighting.outside)}"
    return Inference(architecture=best.known.name, basis="head tensors", prefix=best.prefix, note=note)


def _aboves(names: Iterable[str]) -> list[str]:
    """Return what some names start with, and others do not: one to three components."""
    parts = (name.split(".") for name in names)
    found = {".".join(part[:depth]) + "." for part in parts for depth in range(1, min(len(part), _DEEPEST_BASE + 1))}
    return sorted(above for above in found if not all(name.startswith(above) for name in names))


def _bases_below(known: KnownType, prefix: str, tensors: Mapping[str, Shaped]) -> Iterator[Fit]:
    below = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    outside = frozenset(layer_of(name) for name in tensors if not name.startswith(prefix))
    for fit in fits(known, below, is_tied=False):
        if fit.known.is_base and not (fit.prefix or fit.missing or fit.left_over):
            yield replace(fit, sighting=replace(fit.sighting, prefix=prefix, outside=outside))


def _type_of(config: Mapping[str, Any], named: str | None) -> KnownType | None:
    model_type = type_named(config) or (None if named is None else type_with(named))
    return None if model_type is None else known_type(model_type)


def _as_named(config: Mapping[str, Any], named: str | None, task: str | None) -> Inference:
    model_type = config.get("model_type")
    if named is None or not _CLASS_NAME.fullmatch(named):
        what = "no model type is known" if model_type is None else f"no table knows the model type {model_type!r}"
        raise ArchitectureError(f"{what}, and the config names no class", hint=_HINT)
    if task is None:
        return Inference(architecture=named, basis="config")
    stem = _STEM_AND_HEAD.fullmatch(named)
    if stem is None:
        raise ArchitectureError(f"cannot tell which class of {named!r}'s family is for {task}", hint=_HINT)
    return Inference(architecture=stem[1] + CLASS_SUFFIXES[task], basis="task")


def _without_fit(known: KnownType, names: Iterable[str], named: str | None) -> Inference:
    """Take the class that a config names where a type has no layers that all its models have."""
    if known.anchor and len(anchored(known, names)) != 1:
        message = f"is no {known.name}: that has exactly one tensor ending in {known.anchor!r}"
        raise ArchitectureError(message, hint=_OWN_HINT)
    if known.anchor or named is None or not _CLASS_NAME.fullmatch(named):
        raise ArchitectureError(f"the names are of no class of model type {known.name!r}", hint=_HINT)
    return Inference(architecture=named, basis="config")


def _by_task(known: KnownType, found: Sequence[Fit], task: str) -> Inference:
    classes = known.for_task(task)
    if not classes:
        tasks = sorted({each for one in known.classes.values() for each in one.tasks})
        raise ArchitectureError(f"{known.name!r} has no class for {task}", hint=f"it has {', '.join(tasks)}")
    if len(classes) > 1:
        raise ArchitectureError(
            f"{' and '.join(each.name for each in classes)} are for {task}",
            hint="name one in the 'architectures' of a config.json: --config",
        )
    own = [fit for fit in found if fit.known is classes[0]]
    if not own:
        return Inference(architecture=classes[0].name, basis="task")
    return _inference(min(own, key=lambda fit: fit.rank), "task")


def _by_layers(
    known: KnownType,
    best: Sequence[Fit],
    found: Sequence[Fit],
    tensors: Mapping[str, Shaped],
    config: Mapping[str, Any],
) -> Inference:
    """Return the class that `config` names if it is one of the `best`, else the one of them that it is.

    A class that the config names and that has a place for more of the layers is believed to lack some of its own.
    Layers beside a base model that no class has are a head of the user's. Where nothing anchors the base models of a
    type, they may be theirs too: then what the config names is believed, if nothing proves another class.
    """
    named = class_named(config)
    first, unknown = best[0], best[0].left_over
    own = min((fit for fit in found if fit.known.name == named), key=lambda fit: fit.rank, default=None)
    if own is not None and len(own.left_over) < len(unknown):
        return _inference(own, "config")
    if unknown and known.anchor and not first.is_proven:
        raise _foreign(known, unknown)
    as_named = next((fit for fit in best if fit.known.name == named), None)
    if as_named is not None:
        return _inference(as_named, "config")
    believed = _believed(known, first, named) if unknown else None
    if believed is not None:
        return Inference(architecture=believed, basis="config") if own is None else _inference(own, "config")
    if unknown and not first.is_proven and first.sighting.base_prefix:
        raise _foreign(known, unknown)
    return _by_head(best, tensors, config)


def _believed(known: KnownType, first: Fit, named: str | None) -> str | None:
    """Return the class that a config names where layers that no class has may belong to the base model.

    None where a base model is told by its anchor, and where the tensors prove another class of the type.
    """
    if named is None or known.anchor or not _CLASS_NAME.fullmatch(named):
        return None
    return None if first.is_proven and named in known.classes else named


def _by_head(best: Sequence[Fit], tensors: Mapping[str, Shaped], config: Mapping[str, Any]) -> Inference:
    """Return the class of the `best` that the layers of its head, their shapes and the config tell from the others."""
    alike = [fit for fit in best if fit.prefix == best[0].prefix]
    chosen, reason = break_tie(alike, tensors, config)
    named = class_named(config)
    disagreement = None if named is None else f"config.json says {named}, the tensors are {chosen.known.name}'s"
    return _inference(chosen, "head tensors", disagreement, reason)


def _foreign(known: KnownType, layers: frozenset[str]) -> ArchitectureError:
    return ArchitectureError(f"no class of the {known.name} family has {_shown(layers)}", hint=_OWN_HINT)


def _inference(fit: Fit, basis: str, *notes: str | None) -> Inference:
    reasons = [note for note in notes if note]
    if fit.missing:
        reasons.append(f"the checkpoint has no {_shown(fit.missing)}")
    if fit.left_over:
        reasons.append(f"{fit.known.name} has no {_shown(fit.left_over)}")
    if fit.lacks_base_prefix:
        reasons.append(f"the base model's names lack {fit.known.prefix!r}")
    return Inference(architecture=fit.known.name, basis=basis, prefix=fit.prefix, note="; ".join(reasons) or None)


def _shown(layers: frozenset[str]) -> str:
    names = sorted(layers)
    more = "" if len(names) <= _NAMES_SHOWN else f" and {len(names) - _NAMES_SHOWN} more"
    return ", ".join(names[:_NAMES_SHOWN]) + more
