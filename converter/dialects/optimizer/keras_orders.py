"""In which order Keras lists the trained weights of a model, as far as its config, its places and shapes tell.

Layers stand as the config has them; of those inside a layer of the user's own only its code says how they stand.
Keras numbers layers of one class as they are made, so that theirs is known; how they stand among others, shapes may.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import itemgetter
from typing import Any

from converter.dialects.keras import architecture
from converter.dialects.keras.own_layers import InOrder, trained_of
from converter.dialects.keras.stores import NOT_TRAINED, as_today
from converter.dialects.optimizer.keras_names import Order, Orders, Shape
from converter.dialects.transformers.heads import encoder_config
from converter.dialects.transformers.tensorflow_writing import in_order_of_class, variables_of_layer
from converter.errors import LossError
from converter.model.checkpoint import Checkpoint, Config
from converter.model.tensor import Tensor

Stores = Mapping[str, Sequence[str]]
"""Place of each layer's variables -> their names."""
Ways = tuple[Order, ...]

_ENOUGH = 2
_WAYS_LIMIT = 100_000
_NUMBER = re.compile(r"_(\d+)$")


@dataclass(frozen=True, slots=True)
class Part:
    """Trained weights that stand together, and then what is inside.

    `ways`   the weights that come first; several, where nothing says which of them are trained
    `runs`   what follows: each run in its order, several in any
    """

    ways: Ways = ((),)
    runs: tuple[tuple[Part, ...], ...] = ()


def orders_of(
    checkpoint: Checkpoint,
    stores: Stores,
    config: Mapping[str, Any] | None,
    *,
    frozen: Collection[str] = (),
    inside: InOrder | None = None,
) -> Orders:
    """Return what gives the orders that the trained weights may be in when they have certain shapes, at most two.

    `config` is that of the model; without one, it is a class of transformers or the numbers in places that tell.
    `frozen` are weights that are not trained. What it gives raises LossError where there are too many ways to try.
    """
    if config is not None and architecture.is_model(config):
        model = Part(runs=(_Layers(checkpoint, stores, inside).parts(architecture.parse(config)),))
    else:
        names = [name for held in stores.values() for name in held]
        found = (
            variables_of_layer(config, stores, checkpoint)
            if config is not None
            else in_order_of_class(names, checkpoint)
        )
        model = _by_numbers(stores) if found is None else Part(ways=(found[0],))
    trained = {name: tensor for name, tensor in checkpoint.tensors.items() if name not in frozen}
    return lambda shapes: _fitting(model, trained, frozen, shapes)


@dataclass(frozen=True, slots=True)
class _Layers:
    """Makes parts of the layers of a config."""

    checkpoint: Checkpoint
    stores: Stores
    inside: InOrder | None

    def parts(self, model: architecture.Layer) -> tuple[Part, ...]:
        return tuple(self._part(layer, model) for layer in model.layers)

    def _part(self, layer: architecture.Layer, model: architecture.Layer) -> Part:
        modules, unknown = architecture.modules(replace(model, layers=(layer,)))
        if not unknown:
            trained = (module for module in modules if module.is_trainable)
            names = (f"{module.path}/{slot.keras}" for module in trained for slot in module.slots if not slot.is_buffer)
            return Part(ways=(tuple(names),))
        if layer.class_name in architecture.MODELS:
            return Part(runs=(self.parts(layer),))
        if layer.config.get("trainable") is False:
            return Part()
        own = _stores_of(layer, self.stores)
        if not _is_of_user(layer):
            found = variables_of_layer(_entry(layer), own, self.checkpoint)
            return Part(ways=() if found is None else (found[0], ()))  # no config says whether it is trained
        return self._own(layer, own)

    def _own(self, layer: architecture.Layer, own: Stores) -> Part:
        """Return a layer of the user's: what it has itself, and the layers inside it."""
        called = {} if self.checkpoint.listing is None else self.checkpoint.listing.titles
        below = {at: as_today(at).removeprefix(layer.store).lstrip("/") for at in own}
        told = self.inside(layer) if self.inside is not None and len(own) > 1 else {}
        ways = {below[at]: self._ways(at, names, told.get(below[at], "")) for at, names in own.items()}
        titles = {below[at]: called.get(at, "") for at in own}
        first = ways.pop("", ((),))
        run = tuple(Part(ways=ways.pop(place)) for place in told if place in ways)
        return Part(ways=first, runs=((run,) if run else ()) + _nested("", ways, titles))

    def _ways(self, place: str, names: Sequence[str], class_name: str) -> Ways:
        """Return which weights of a layer inside another may be trained: what is not comes last, or is all of it."""
        known = trained_of(place, names, class_name, {name: self.checkpoint.tensor(name).shape for name in names})
        if known is not None:
            return (known, ())
        return tuple(tuple(names[:count]) for count in range(len(names), -1, -1))


def layers_with_more_inside(stores: Stores, config: Mapping[str, Any]) -> list[architecture.Layer]:
    """Return the layers of the user's own in which a file has several layers."""
    if not architecture.is_model(config):
        return []
    unknown = architecture.modules(architecture.parse(config))[1]
    return [layer for layer in unknown if _is_of_user(layer) and len(_stores_of(layer, stores)) > 1]


def _is_of_user(layer: architecture.Layer) -> bool:
    return encoder_config(Config(values=_entry(layer), raw=b"")) is None


def _entry(layer: architecture.Layer) -> dict[str, Any]:
    return {"class_name": layer.class_name, "config": layer.config}


def _stores_of(layer: architecture.Layer, stores: Stores) -> Stores:
    return {place: names for place, names in stores.items() if f"{as_today(place)}/".startswith(f"{layer.store}/")}


def _nested(around: str, ways: Mapping[str, Ways], titles: Mapping[str, str]) -> tuple[tuple[Part, ...], ...]:
    """Return the layers directly inside a place, each with those inside it, in runs of one class each."""
    parts: dict[str, Part] = {}
    called: dict[str, str] = {}
    for place in dict.fromkeys(_first_below(around, place) for place in ways if place.startswith(around)):
        runs = _nested(f"{place}/", ways, titles)
        parts[place] = Part(ways=ways.get(place, ((),)), runs=runs)
        called[place] = titles.get(place) or place.rpartition("/")[2]
    return _runs(parts, called)


def _first_below(around: str, place: str) -> str:
    return around + place.removeprefix(around).partition("/")[0]


def _without_statistics(names: Sequence[str]) -> Order:
    return tuple(name for name in names if name.rpartition("/")[2] not in NOT_TRAINED)


def _by_numbers(stores: Stores) -> Part:
    trained = {place: order for place, names in stores.items() if (order := _without_statistics(names))}
    parts = {place: Part(ways=(order,)) for place, order in trained.items()}
    return Part(runs=_runs(parts, {place: place for place in parts}))


def _runs(parts: Mapping[str, Part], called: Mapping[str, str]) -> tuple[tuple[Part, ...], ...]:
    """Return layers in runs: those that are called alike but for a number at the end, by that number."""
    runs: dict[str, list[tuple[int, Part]]] = {}
    for place, part in parts.items():
        number = _NUMBER.search(called[place])
        runs.setdefault(_NUMBER.sub("", called[place]), []).append((int(number[1]) if number else 0, part))
    return tuple(tuple(part for _, part in sorted(run, key=itemgetter(0))) for run in runs.values())


@dataclass(frozen=True, slots=True)
class _Merge:
    """Runs of which some parts stand already."""

    runs: tuple[tuple[Part, ...], ...]
    counts: tuple[int, ...]

    def nexts(self) -> Iterator[tuple[Part, _Merge]]:
        for index, run in enumerate(self.runs):
            count = self.counts[index]
            if count < len(run):
                counts = (*self.counts[:index], count + 1, *self.counts[index + 1 :])
                yield run[count], _Merge(self.runs, counts)


_Agenda = tuple["Part | _Merge", Any] | None
"""What is still to stand: the first of it, and the rest."""


def _fitting(
    model: Part, trained: Mapping[str, Tensor], frozen: Collection[str], shapes: Sequence[Shape]
) -> Iterator[Order]:
    """Yield the orders that weights of these shapes may be in, at most two. Raises LossError for too many ways."""
    tried = 0
    found: list[Order] = []
    waiting: list[tuple[_Agenda, Order]] = [((model, None), ())]
    while waiting and len(found) < _ENOUGH:
        agenda, order = waiting.pop()
        if agenda is None:
            if len(order) == len(shapes) and order not in found:
                found.append(order)
                yield order
            continue
        first, rest = agenda
        choices: list[tuple[_Agenda, Order]]
        if isinstance(first, _Merge):
            choices = [((part, (merge, rest)), order) for part, merge in first.nexts()]
            choices = choices or [(rest, order)]
        else:
            after = (_Merge(first.runs, (0,) * len(first.runs)), rest) if first.runs else rest
            ways = dict.fromkeys(tuple(name for name in way if name not in frozen) for way in first.ways)
            choices = [(after, (*order, *way)) for way in ways if _are_next(way, order, trained, shapes)]
        tried += len(choices) > 1
        if tried > _WAYS_LIMIT:
            raise LossError("the order of its variables, which have no names, cannot be told by shapes alone")
        waiting += reversed(choices)


def _are_next(way: Order, order: Order, trained: Mapping[str, Tensor], shapes: Sequence[Shape]) -> bool:
    there = shapes[len(order) : len(order) + len(way)]
    return len(there) == len(way) and all(
        name in trained and trained[name].shape == shape for name, shape in zip(way, there, strict=True)
    )
