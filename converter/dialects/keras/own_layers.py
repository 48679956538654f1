"""Where an archive has the layers inside a layer of the user's own: under its attributes.

Objects say these, names do not: there the code of the layer does, if it was given. What is in a list or dict an archive
has by its class and a number (`saving_lib` of Keras 3.15 and tf_keras 2.21).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence

from converter.dialects.keras.architecture import Layer
from converter.dialects.keras.objects import OBJECTS
from converter.dialects.keras.stores import NOT_TRAINED, Shape, as_today, is_unnamed, leaves_of
from converter.errors import LossError
from converter.model.checkpoint import Listing
from converter.model.optimizer import OptimizerState

Inside = Mapping[str, Sequence[Sequence[str]]]
"""Layer -> place, name, path and class of each layer inside it, as Listing.asked says them."""
InOrder = Callable[[Layer], Mapping[str, str]]
"""Gives the places inside a layer of the user's in the order of its code, each with the class if that is Keras's."""
_NUMBERED = re.compile(r"(.*?)(?:_(\d+))?")
_OF_MODEL = re.compile(r"\[layer-(\d+)\]")
_SAVED_MODEL = OBJECTS[0]


def paths(
    layer: Layer, names: Sequence[str], listing: Listing, inside: Callable[[], Inside], *, way_out: str
) -> dict[str, str]:
    """Return where each variable of a layer of the user's is below it; `names` are those of the variables.

    `inside` asks the code. Raises LossError where nothing says it: `way_out` is what else helps.
    """
    if listing.format in OBJECTS:
        known = {name: path for pairs in listing.layers.values() for path, name in pairs if name in names}
        groups = {group for path in known.values() if _place(group := path.rpartition("/")[0], {}, listing) is None}
        by_path = {path: place for place, _, path, *_ in inside().get(layer.name, ())} if groups else {}
        found = {group: _place(group, by_path, listing) for group in groups}
        places: Mapping[str, str] = {group: place for group, place in found.items() if place is not None}
    else:
        known = {name: name.removesuffix(":0").removeprefix(f"{layer.name}/") for name in names}
        groups = {path.rpartition("/")[0] for path in known.values()} - {""}
        places = _by_name(groups, inside().get(layer.name, ())) if groups else {}
    if len(places) < len(groups):
        raise LossError(
            f"layer {layer.name!r}, a {layer.bare_class_name}, has layers inside, and nothing says under which "
            "attributes an archive has them",
            hint=_hint(layer.bare_class_name, listing, way_out),
        )
    split = {name: path.rpartition("/") for name, path in known.items()}
    return {name: f"{places.get(group, group)}{slash}{leaf}" for name, (group, slash, leaf) in split.items()}


def variables(
    layer: Layer,
    own: Mapping[str, Sequence[str]],
    classes: Mapping[str, str],
    shapes: Mapping[str, Shape],
    state: OptimizerState | None,
) -> tuple[tuple[str, ...], tuple[str, ...]] | None:
    """Return the variables of a layer of the user's as Keras lists them: what it trains, and the others.

    `own` are its places in an archive, by name, `classes` is what `InOrder` gives of it, `state` that of the optimizer.
    None where the file has places that the code has not, or where nothing says which of their variables are trained.
    """
    at = {as_today(place).removeprefix(layer.store).lstrip("/"): place for place in own}
    trained: list[str] = []
    others: list[str] = []
    for place in dict.fromkeys(("", *classes)):
        where = at.pop(place, "")
        names = own.get(where, ())
        known = trained_of(where, names, classes.get(place, ""), shapes)
        if known is None and state is not None:
            known = tuple(name for name in names if name in state.parameters)
        if known is None:
            return None
        trained += known
        others += [name for name in names if name not in known]
    return None if at else (tuple(trained), tuple(others))


def trained_of(
    place: str, names: Sequence[str], class_name: str, shapes: Mapping[str, Shape]
) -> tuple[str, ...] | None:
    """Return which variables of a place may be trained, None where nothing says it; `class_name` is Keras's, if any."""
    leaves = [name.rpartition("/")[2] for name in names]
    if is_unnamed(place, names):
        told = leaves_of(class_name, [shapes[name] for name in names])
        if told is None:
            return None
        leaves = list(told)
    return tuple(name for name, leaf in zip(names, leaves, strict=True) if leaf not in NOT_TRAINED)


def _place(path: str, by_path: Mapping[str, str], listing: Listing) -> str | None:
    """Return the place of a layer by its path among the objects, `by_path` being places that the code says.

    None for what is in a list or dict of which it says nothing. A checkpoint does not tell the keys of a dict from the
    attributes of a layer.
    """
    parts = path.split("/") if path else []
    bare = [_OF_MODEL.sub(r"layers/\1", part).strip("[]") for part in parts]
    count = next((count for count in range(len(parts), 0, -1) if "/".join(bare[:count]) in by_path), 0)
    rest = parts[count:]
    is_told = len(rest) < 2 or listing.format == _SAVED_MODEL
    if not is_told or any(part.startswith("[") for part in rest):
        return None
    return "/".join([by_path["/".join(bare[:count])], *rest] if count else rest)


def _by_name(groups: Collection[str], inside: Sequence[Sequence[str]]) -> dict[str, str]:
    """Return the place of each layer inside another, of those that the code has as many of.

    Keras numbers the layers that nobody named as they are made, from wherever it has come to by then.
    """
    places = {name: place for place, name, *_ in inside}
    theirs, ours = _by_class(groups), _by_class(places)
    return {
        name: places[own]
        for kind, held in theirs.items()
        if len(ours.get(kind, ())) == len(held)
        for name, own in zip(held, ours[kind], strict=True)
    }


def _hint(class_name: str, listing: Listing, way_out: str) -> str:
    if listing.asked is not None:
        return f"the code of --custom-objects makes others, or makes them in its build(); {way_out}"
    code = f"--custom-objects package.module:{class_name} names its code, which does"
    if listing.format == _SAVED_MODEL:
        return code
    return f"{code}; so does a SavedModel of the same model, as model.save(dir) writes it, where they are attributes"


def _by_class(names: Collection[str]) -> dict[str, list[str]]:
    """Return paths of layers without the numbers of their names -> those paths, in the order of these."""
    found: dict[str, list[tuple[list[int], str]]] = {}
    for name in names:
        parts = [match.groups() for part in name.split("/") if (match := _NUMBERED.fullmatch(part)) is not None]
        kind = "/".join(own for own, _ in parts)
        found.setdefault(kind, []).append(([int(number or 0) for _, number in parts], name))
    return {kind: [name for _, name in sorted(held)] for kind, held in found.items()}
