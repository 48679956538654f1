"""What a class of transformers ties, by the tables.

`tables/classes.json` has what transformers 5 ties when the config asks for it. `tables/tensorflow.json` has what
transformers 4.57.6 ties, whose save_pretrained made it: with `tie_word_embeddings: false` that still shares the
embeddings of some classes (BART's `shared`), and stores them once. transformers 5 may have a tensor for each there: a
folder then has each, which either loads whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from converter.dialects.identity.classes import KnownType, known_type, type_with
from converter.dialects.identity.inference import infer_architecture
from converter.dialects.identity.parameters import parameters_of
from converter.dialects.identity.shapes import UncheckedError, shapes_of
from converter.dialects.identity.sightings import fits
from converter.dialects.identity.tie_breaks import Shaped
from converter.dialects.identity.transformers_4 import named_in_table
from converter.dialects.tables import ModelClass, TensorFlowTable
from converter.errors import ArchitectureError
from converter.model.checkpoint import Checkpoint, type_named

_KEY = "tie_word_embeddings"


def ties_of(tensors: Mapping[str, Shaped], config: Mapping[str, Any], architecture: str | None) -> dict[str, str]:
    """Return tied name -> owner for the ties of a class, among the names in `tensors`: the owner is what is stored.

    Those that transformers 4 declares for the class in the config, and those that transformers 5 does for
    `architecture`, where there is one; of a config that does not say it, only where transformers 4 ties them too. What
    transformers 4 shares against the config, and transformers 5 does not, is none.
    """
    older, found = _of_transformers_4(tensors, config), named_in_table(config)
    apart = {} if architecture is None else _shared_against(architecture, config)
    older = {alias: owner for alias, owner in older.items() if alias not in apart}
    is_open = found is not None and not found[0].tied_by_default and _KEY not in config
    newer = {} if architecture is None or is_open else declared_ties(tensors, config, architecture)
    owners = set(older.values())
    added = {alias: older.get(owner, owner) for alias, owner in newer.items() if alias not in owners}
    return {**older, **added}


def declared_ties(tensors: Mapping[str, Shaped], config: Mapping[str, Any], architecture: str) -> dict[str, str]:
    """Return tied name -> owner for the ties that `architecture` declares, among the names in `tensors`.

    The owner is the name that `save_pretrained` of transformers 5 writes. transformers ties only what is equal: here
    shapes are compared, values are left to the caller. Empty for classes that no table knows.
    """
    known = _type_with(architecture, config)
    if known is None or not _is_tied(config, default=known.is_tied):
        return {}
    own = [fit for fit in fits(known, tensors, is_tied=True) if fit.known.name == architecture]
    if not own:
        return {}
    fit = min(own, key=lambda fit: fit.rank)
    pairs = {fit.prefix + alias: fit.prefix + owner for alias, owner in fit.known.ties.items()}
    return {
        alias: owner
        for alias, owner in pairs.items()
        if alias in tensors and owner in tensors and tuple(tensors[alias].shape) == tuple(tensors[owner].shape)
    }


def _type_with(architecture: str, config: Mapping[str, Any]) -> KnownType | None:
    model_type = type_named(config)
    known = None if model_type is None else known_type(model_type)
    if known is not None and architecture in known.classes:
        return known
    model_type = type_with(architecture)
    return None if model_type is None else known_type(model_type)


def is_tied(config: Mapping[str, Any]) -> bool:
    """Whether a config ties word embeddings, as that of its model type does where it says nothing."""
    model_type = type_named(config)
    known = None if model_type is None else known_type(model_type)
    return _is_tied(config, default=known is None or known.is_tied)


def _is_tied(config: Mapping[str, Any], *, default: bool) -> bool:
    """Whether a config ties word embeddings; not where that of a part says it, which the part alone goes by."""
    if _KEY in config:
        return bool(config[_KEY])
    return default and not any(isinstance(part, Mapping) and _KEY in part for part in config.values())


def _of_transformers_4(names: Iterable[str], config: Mapping[str, Any]) -> dict[str, str]:
    found = named_in_table(config)
    if found is None:
        return {}
    table, known = found
    pairs, held = _own(table, known, known.ties_with(config, default=table.tied_by_default)), set(names)
    return {alias: owner for alias, owner in pairs.items() if alias in held and owner in held}


def with_every_name(checkpoint: Checkpoint) -> Checkpoint:
    """Return a model of transformers with what its class or config ties under each of its names, as it has in memory.

    That is what ``load_state_dict`` asks for, where files leave tied names out. Other checkpoints are returned as they
    are.
    """
    return _with_names(checkpoint, every_tie)


def with_names_apart(checkpoint: Checkpoint) -> Checkpoint:
    """Return a model of transformers with what transformers 4 shares against its config under each of its names.

    transformers 5 has a tensor for each, and asks for all of them.
    """
    return _with_names(checkpoint, _shared_against)


def _with_names(checkpoint: Checkpoint, ties: Callable[[str, Mapping[str, Any]], Mapping[str, str]]) -> Checkpoint:
    """Return a model of transformers with the names of `ties` that it lacks, in those of its class."""
    if checkpoint.config is None or type_named(checkpoint.config.values) is None:
        return checkpoint
    values = checkpoint.config.values
    try:
        inference = infer_architecture(checkpoint.by_name, values)
    except ArchitectureError:
        return checkpoint
    prefix, names = inference.prefix, frozenset(checkpoint.names)
    groups: dict[str, list[str]] = {}
    for alias, owner in ties(inference.architecture, values).items():
        groups.setdefault(prefix + owner, [prefix + owner]).append(prefix + alias)
    added: dict[str, str] = {}
    for group in groups.values():
        held = next((name for name in group if name in names), None)
        if held is not None:
            added |= {name: checkpoint.aliases.get(held, held) for name in group if name not in names}
    if not added:
        return checkpoint
    return replace(
        checkpoint,
        aliases={**checkpoint.aliases, **added},
        origins={**checkpoint.origins, **{alias: checkpoint.origin(owner) for alias, owner in added.items()}},
    )


def _shared_against(architecture: str, config: Mapping[str, Any]) -> dict[str, str]:
    """Return tied name -> owner for what transformers 4 shares though the config does not tie, and 5 does not share."""
    found = named_in_table(config)
    if is_tied(config) or found is None or found[1].name != architecture:
        return {}
    ties = _own(*found, found[1].ties_when_untied)
    try:
        slots = shapes_of(config, architecture, ties).slots
    except UncheckedError:
        return {}
    return {alias: owner for alias, owner in ties.items() if alias in slots and slots[alias].is_required}


def every_tie(architecture: str, config: Mapping[str, Any]) -> dict[str, str]:
    """Return tied name -> the name that is stored, by both tables, in the class's own names."""
    known = parameters_of(config, architecture)
    newer = {} if known is None else known.ties_with(is_tied=is_tied(config))
    found = named_in_table(config)
    if found is None or found[1].name != architecture:
        return newer
    is_asked_for = bool(config.get(_KEY, found[0].tied_by_default))
    older = found[1].ties_with(config, default=found[0].tied_by_default)
    return {**_own(*found, older if is_asked_for else {**older, **found[1].ties_when_untied}), **newer}


def _own(table: TensorFlowTable, known: ModelClass, ties: Mapping[str, str]) -> dict[str, str]:
    """Return ties in the class's own names: a base model's are not below the name that others have for it."""
    prefix = f"{table.prefix}." if known.is_base else ""
    return {alias.removeprefix(prefix): owner.removeprefix(prefix) for alias, owner in ties.items()}
