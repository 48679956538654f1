"""The order of a checkpoint's parameters in its class of transformers, which optimizers of torch number them in."""

from __future__ import annotations

from collections.abc import Mapping

from converter.dialects.identity.classes import type_with
from converter.dialects.identity.parameters import ClassParameters, Place, parameters_of
from converter.dialects.identity.ties import is_tied
from converter.dialects.optimizer.numbering_conventions import ModuleOrder
from converter.errors import ArchitectureError, GraphError, LossError
from converter.model.checkpoint import Checkpoint


def order_of_class(checkpoint: Checkpoint, architecture: str, prefix: str = "") -> ModuleOrder:
    """Return the order in which `architecture`, the checkpoint's class, has its parameters, by its table.

    The class's own names are behind `prefix`. A parameter of several names comes where the first of them does, and is
    called as the checkpoint calls it.

    Raises ArchitectureError for a class that no table knows, GraphError for a tensor that is no parameter in the form
    that it is saved in, LossError when the class has a parameter that the checkpoint lacks.
    """
    assert checkpoint.config is not None
    config = checkpoint.config.values
    known = parameters_of(config, architecture)
    if known is None:
        model_type = checkpoint.config.model_type or type_with(architecture)
        what = f"no table knows the order of the parameters of {architecture!r}, of model type {model_type!r}"
        raise ArchitectureError(what, hint="name its class in the 'architectures' of a config.json: --config")
    size = len(prefix)
    names = frozenset(name[size:] for name in checkpoint.names if name.startswith(prefix))
    unsure = next((name for name in sorted(names) if known.is_unsure(name)), None)
    if unsure is not None:
        raise LossError(f"whether {architecture} trains {unsure!r} is a matter of its config, and no table says when")
    apart = next((name for name in sorted(names) if known.is_apart(name)), None)
    if apart is not None:
        raise GraphError("is stored in another form than the model computes with, not only renamed", tensor=apart)
    ties = _groups(known.ties_with(is_tied=is_tied(config)), _below(checkpoint.aliases, prefix))
    _require(known, architecture, names, ties)
    listed = tuple(prefix + name for name in _spelt(known, names, ties))
    ranks = {name: len(checkpoint.tensor(prefix + name).shape) for name in names}
    norms = frozenset(prefix + name for name in names if known.is_layer_norm(name, ranks))
    return ModuleOrder(names=tuple(checkpoint.aliases.get(name, name) for name in listed), layer_norms=norms)


def _below(pairs: Mapping[str, str], prefix: str) -> dict[str, str]:
    size = len(prefix)
    return {
        alias[size:]: owner[size:]
        for alias, owner in pairs.items()
        if alias.startswith(prefix) and owner.startswith(prefix)
    }


def _groups(*ties: Mapping[str, str]) -> dict[str, str]:
    """Return name -> the same one for all names of a parameter, for those that have several."""
    group: dict[str, str] = {}
    for alias, owner in (pair for each in ties for pair in each.items()):
        first, second = group.setdefault(alias, alias), group.setdefault(owner, owner)
        group.update({name: first for name, known in group.items() if known == second})
    return group


def _require(known: ClassParameters, architecture: str, names: frozenset[str], ties: Mapping[str, str]) -> None:
    held = {ties.get(name, name) for name in names}
    for name in known.required(names):
        if name not in names and ties.get(name, name) not in held:
            raise LossError(f"{architecture} has a parameter {name!r}, which is not among the weights")


def _spelt(known: ClassParameters, names: frozenset[str], ties: Mapping[str, str]) -> list[str]:
    """Return each parameter once, in order: the first of its names that there is."""
    first: dict[str, Place] = {}
    spelt: dict[str, str] = {}
    places = {name: place for name in names.union(ties) if (place := known.place(name)) is not None}
    for name in sorted(places, key=places.__getitem__):
        group = ties.get(name, name)
        first.setdefault(group, places[name])
        if name in names:
            spelt.setdefault(group, name)
    return [spelt[group] for group in sorted(spelt, key=first.__getitem__)]
