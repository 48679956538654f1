"""Lists of the variables of each layer, for one kind of Keras file, made of those in another kind of file.

An `.h5` has the layers of a model with their variables as `layer.weights` gives them; an archive has places of
attributes (`layers/dense/vars/0`); a SavedModel and a TensorFlow checkpoint have paths of objects. A Keras config, and
the tables of transformers' classes, lead from each to the other, so that names and layouts stay what Keras calls them.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial

from converter.dialects.keras import architecture, own_layers
from converter.dialects.keras.modules import Module
from converter.dialects.keras.objects import OBJECTS
from converter.dialects.keras.stores import IN_ORDER, NOT_TRAINED, as_today
from converter.dialects.optimizer.flavors import KerasFlavor, flavor_of
from converter.dialects.optimizer.keras_layouts import in_order
from converter.dialects.optimizer.semantics import to_keras
from converter.dialects.optimizer.writing import with_plain_class
from converter.dialects.transformers.attributes import names_from_places, place_of, without_gaps
from converter.dialects.transformers.heads import encoder_config, encoder_settings, is_head, module_of
from converter.dialects.transformers.tensorflow_classes import MAIN_LAYER, class_of_layer, knows
from converter.dialects.transformers.tensorflow_writing import (
    from_canonical,
    in_keras_order,
    in_order_of_class,
    naming_its_class,
    variables_of_layer,
)
from converter.errors import LossError
from converter.model.checkpoint import Checkpoint, Config, Listing
from converter.model.optimizer import Convention

_ARCHIVE, _HDF5 = "keras", "h5"
_VARIABLES = "vars"
_VERSION, _RELEASE = "2.15.0", "4.57.6"
"""Of the Keras whose layout an archive of a TensorFlow class has, and of transformers."""
_WAYS_OUT = "--to pretrained writes the model of transformers, and what is around it beside it"
_WITHOUT_MODEL = "--to pytorch and --to safetensors write its weights"


def _ways_out(checkpoint: Checkpoint) -> str:
    is_around = checkpoint.config is not None or encoder_config(checkpoint.keras_config) is not None
    return _WAYS_OUT if is_around else _WITHOUT_MODEL


def copied(checkpoint: Checkpoint, *, is_older: bool, is_archive: bool) -> Checkpoint:
    """Return what a copy of an archive or of a file of weights has: what is beside the weights, too.

    What the code of the user's layers, if given, has no place for is a warning. Keras loads no state from an archive
    whose config does not say which optimizer it is of: there it is left out.
    """
    config = checkpoint.keras_config
    if is_archive and checkpoint.optimizer_stored is not None and config and not config.values.get("compile_config"):
        why = "not carried: an archive says which optimizer it is of, and the source does not"
        left_out = replace(checkpoint, optimizer_stored=None)
        checkpoint = replace(left_out, warnings=(*checkpoint.warnings, f"optimizer state {why}"))
    kept = () if checkpoint.listing is None else checkpoint.listing.beside
    checkpoint = replace(checkpoint, lines=tuple(line for line in checkpoint.lines if line.name not in kept))
    listing, model = checkpoint.listing, _model(checkpoint)
    if listing is None or model is None:
        return checkpoint
    stores = {layer.name: layer.store for layer in architecture.modules(model)[1]}
    strange = []
    for name, inside in _inside_own_layers(listing, model, is_older=is_older).items():
        store = stores[name]
        known = {store, *(f"{store}/{place}" for place, *_ in inside)}
        below = [place for place in map(as_today, listing.layers) if f"{place}/".startswith(f"{store}/")]
        strange += [place for place in below if place not in known]
    if not strange:
        return checkpoint
    warning = f"the code of --custom-objects makes no layer at {strange[0]}, unless its build() does"
    return replace(checkpoint, warnings=(*checkpoint.warnings, warning))


def _inside_own_layers(
    listing: Listing, model: architecture.Layer, *, is_older: bool
) -> Mapping[str, Sequence[Sequence[str]]]:
    """Return what is inside layers of the user's, by their names: as their code says, if it was given."""
    unknown = architecture.modules(model)[1]
    entries = {layer.name: {"class_name": layer.class_name, "config": layer.config} for layer in unknown}
    return {} if listing.asked is None or not entries else listing.asked(layers=entries, is_older=is_older)


def places_inside(checkpoint: Checkpoint) -> own_layers.InOrder | None:
    """Return what gives the places inside a layer of the user's, in the order of its code; None without that code."""
    listing, model = checkpoint.listing, _model(checkpoint)
    if listing is None or listing.asked is None or model is None:
        return None
    is_older = flavor_of(checkpoint, default=KerasFlavor.KERAS_3) is not KerasFlavor.KERAS_3
    inside = cache(partial(_inside_own_layers, listing, model, is_older=is_older))
    return lambda layer: {place: class_name for place, _, _, class_name in inside().get(layer.name, ())}


class NoPlaceError(LossError):
    """Nothing says where an archive of a class of transformers would have a variable."""


def is_of_layers(checkpoint: Checkpoint, kind: str) -> bool:
    """Whether another kind of file has a Keras model with layers that only their own variables tell of.

    A TensorFlow checkpoint says by its objects alone which layers there are: enough for weights by layer.
    """
    listing, config = checkpoint.listing, checkpoint.keras_config
    if listing is None or listing.format == kind:
        return False
    if config is None or not architecture.is_model(config.values):
        return kind == _HDF5 and listing.format in OBJECTS
    return bool(architecture.modules(architecture.parse(config.values))[1])


def relisted(checkpoint: Checkpoint, kind: str, *, is_older: bool) -> Checkpoint:
    """Return the checkpoint with the names that a file of another `kind` has for its variables, and its listing.

    Raises LossError where neither config nor tables say the order of a layer's variables, or their places.
    """
    listing = checkpoint.listing
    assert listing is not None
    there = set(checkpoint.names)
    if kind == _HDF5:
        layers = dict(_layers_of_hdf5(checkpoint, listing))
        renamed = {name: f"{called}:0" for held in layers.values() for called, name in held if name in there}
        pairs = {
            layer: tuple((renamed[name], renamed[name]) for _, name in held if name in there)
            for layer, held in layers.items()
        }
    else:
        places = _Archive.of(checkpoint, listing, is_older=is_older).places()
        renamed = {name: new for new, _, name in places if name in there}
        held_at: dict[str, dict[str, str]] = {}
        for new, place, name in places:
            group, _, number = place.rpartition(f"/{_VARIABLES}/")
            if name in there:
                held_at.setdefault(group, {})[number] = new
        pairs = _numbered(held_at)
    left = [name for name in checkpoint.names if name not in renamed]
    if left:
        raise LossError("is of no layer of the Keras model", tensor=left[0], hint=_ways_out(checkpoint))
    order = dict.fromkeys(new for held in pairs.values() for _, new in held)
    named = checkpoint.with_names(lambda name: renamed[name])
    state = None if named.optimizer is None else with_plain_class(in_order(named.optimizer, order))
    return replace(named, optimizer=state, listing=Listing(format=kind, layers=pairs))


def as_archive_of_class(checkpoint: Checkpoint, *, is_exact: bool) -> Checkpoint:
    """Return a checkpoint of PyTorch's names as an archive of its TensorFlow class has it; itself where there is none.

    Raises NoPlaceError for layers around the model, and for a variable whose place in an archive no table has.
    """
    config = naming_its_class(checkpoint)
    if config is None or not knows(config):
        return checkpoint
    if any(map(is_head, checkpoint.names)):
        problem = "Keras opens a model with heads only by the config of the whole model, and the source has none"
        raise NoPlaceError(problem, hint=_WAYS_OUT)
    named = replace(checkpoint, config=config, metadata={**checkpoint.metadata, "keras_version": _VERSION})
    written = from_canonical(to_keras(named, KerasFlavor.TF_KERAS, is_exact=is_exact))
    assert written.config is not None
    values = {"transformers_version": _RELEASE, **written.config.values}
    architecture = written.config.architecture or ""
    class_name = f"TF{architecture}"
    places: dict[str, str] = {}
    for name in written.names:
        place = place_of(class_name, _plain(name))
        if place is None:
            raise NoPlaceError(f"no table says where an archive has this variable of a {class_name}", tensor=name)
        places[name] = place
    places = without_gaps(places)
    ranks = {name: len(written.tensor(name).shape) for name in written.names}
    order = in_keras_order(ranks, values, architecture)
    found = names_from_places(places.values(), config=values)
    renamed = {name: found.get(place, place) for name, place in places.items()}
    held_at: dict[str, dict[str, str]] = {}
    for name, place in places.items():
        group, _, number = place.rpartition(f"/{_VARIABLES}/")
        held_at.setdefault(group, {})[number] = renamed[name]
    entry = {"class_name": class_name, "config": values}
    keras_config = {
        "module": module_of(entry),
        **entry,
        "registered_name": class_name,
        "build_config": {"input_shape": [None, None]},
    }
    archived = written.with_names(renamed.__getitem__)
    state = archived.optimizer
    if state is not None and order is not None:
        state = in_order(state, dict.fromkeys(renamed[name] for name in order[0]))
    return replace(
        archived,
        config=None,
        keras_config=Config(values=keras_config, raw=json.dumps(keras_config).encode("ascii")),
        optimizer=state,
        listing=Listing(format=_ARCHIVE, layers=_numbered(held_at)),
    )


def _numbered(held_at: Mapping[str, Mapping[str, str]]) -> dict[str, tuple[tuple[str, str], ...]]:
    """Return the variables of each place in the order of their numbers."""
    return {group: tuple(sorted(held.items(), key=lambda pair: int(pair[0]))) for group, held in held_at.items()}


Held = tuple[tuple[str, str], ...]
"""What each variable of a layer is called there, and its name in the checkpoint, as `layer.weights` has them."""


def _layers_of_hdf5(checkpoint: Checkpoint, listing: Listing) -> Iterator[tuple[str, Held]]:
    model = _model(checkpoint)
    if model is None:
        begins = {path: {name.partition("/")[0] for _, name in pairs} for path, pairs in listing.layers.items()}
        shared = Counter(begin for each in begins.values() for begin in each)
        for path, pairs in listing.layers.items():
            layer_name = next((begin for begin in begins[path] if len(begins[path]) == shared[begin] == 1), path)
            yield layer_name, tuple((_plain(name), name) for name in _of_objects(pairs, checkpoint))
        return
    for layer, names in _weights_of(checkpoint, listing, model):
        own = layer.store.rpartition("/")[2]
        if layer.class_name.endswith(MAIN_LAYER):  # whose archive is read as one of the class that has it
            own = f"{architecture.snake_case(class_of_layer(layer.class_name))}/{layer.name}"
        is_known = not architecture.modules(replace(model, layers=(layer,)))[1]
        called = (name if is_known else _below(layer.name, own, _unnumbered(name)) for name in map(_plain, names))
        yield layer.name, tuple(zip(called, names, strict=True))


def _unnumbered(name: str) -> str:
    """Return a name that is only a place in an archive as Keras calls the variables of a layer."""
    place, numbered, number = name.removeprefix("layers/").rpartition(f"/{_VARIABLES}/")
    return f"{place}/variable_{number}" if numbered and name.startswith("layers/") else name


def _below(layer: str, own: str, name: str) -> str:
    """Return a name that begins with a layer's place as one that begins with what the layer is called."""
    return f"{layer}/{name.removeprefix(f'{own}/')}" if name.startswith(f"{own}/") else name


def _plain(name: str) -> str:
    return name.removesuffix(":0")


def _model(checkpoint: Checkpoint) -> architecture.Layer | None:
    config = checkpoint.keras_config
    is_model = config is not None and architecture.is_model(config.values)
    return architecture.parse(config.values) if config is not None and is_model else None


def _weights_of(
    checkpoint: Checkpoint, listing: Listing, model: architecture.Layer
) -> Iterator[tuple[architecture.Layer, tuple[str, ...]]]:
    """Yield each layer of a model with its variables as `layer.weights` has them."""
    if listing.format == _HDF5:
        for layer in model.layers:
            yield layer, tuple(name for _, name in listing.layers.get(layer.name, ()))
    elif listing.format in OBJECTS:
        layers = model.layers
        if model.class_name == "Sequential" and len(layers) == len(listing.layers) + 1:
            layers = tuple(layer for layer in layers if layer.class_name != "InputLayer")
        if len(layers) != len(listing.layers):
            raise LossError("the config has other layers than the objects beside it", hint=_WAYS_OUT)
        for layer, pairs in zip(layers, listing.layers.values(), strict=True):
            yield layer, _of_objects(pairs, checkpoint)
    else:
        places = {as_today(place): [name for _, name in pairs] for place, pairs in listing.layers.items()}
        code = places_inside(checkpoint)
        for layer in model.layers:
            yield layer, _joined(list(_parts(layer, places, checkpoint, code, is_frozen=False)))


def _of_objects(pairs: Held, checkpoint: Checkpoint) -> tuple[str, ...]:
    """Return the variables of a layer as `layer.weights` has them, which SavedModels list.

    In a checkpoint the optimizer tells the order of what is trained, else the tables of transformers, or what Keras
    calls the variables of its own layers. Raises LossError where none of these does.
    """
    names = tuple(name for _, name in pairs)
    listing, state = checkpoint.listing, checkpoint.optimizer
    if len(names) < 2 or listing is None or listing.format != "tf-checkpoint":
        return names
    trained = tuple(name for name in names if name.rpartition("/")[2] not in NOT_TRAINED)
    slots = {} if state is None or state.convention is not Convention.KERAS else state.slots
    ranks = {name: rank for slot in slots.values() for rank, name in enumerate(slot)}
    if ranks.keys() >= set(trained):
        return (*sorted(trained, key=ranks.__getitem__), *(name for name in names if name not in trained))
    found = in_order_of_class(names, checkpoint)
    return _by_leaves(pairs) if found is None else (*found[0], *found[1])


def _by_leaves(pairs: Held) -> tuple[str, ...]:
    """Return variables in the order in which the layers that they are of stand, each with those of one of Keras's."""
    inside = list(dict.fromkeys(path.rpartition("/")[0] for path, _ in pairs))
    leaves = [path.rpartition("/")[2] for path, _ in pairs]
    if not set(leaves) <= set(IN_ORDER):
        problem = "neither optimizer nor names say in which order their layer has these variables"
        raise LossError(problem, tensor=pairs[0][1], hint=_WAYS_OUT)

    def rank(pair: tuple[str, str]) -> tuple[bool, int, int]:
        group, _, leaf = pair[0].rpartition("/")
        return (leaf in NOT_TRAINED, inside.index(group), IN_ORDER.index(leaf))

    return tuple(name for _, name in sorted(pairs, key=rank))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    """Variables of a layer or of one inside it, those that are trained and the others."""

    trained: tuple[str, ...]
    others: tuple[str, ...] = ()
    is_frozen: bool = False


def _joined(parts: Sequence[_Part]) -> tuple[str, ...]:
    """Return variables as `layer.weights` has them: what is trained in all of it, then what is not, part by part."""
    trained = [name for part in parts if not part.is_frozen for name in part.trained]
    others = [name for part in parts for name in ((*part.trained, *part.others) if part.is_frozen else part.others)]
    return (*trained, *others)


def _parts(
    layer: architecture.Layer,
    places: Mapping[str, Sequence[str]],
    checkpoint: Checkpoint,
    code: own_layers.InOrder | None,
    *,
    is_frozen: bool,
) -> Iterator[_Part]:
    """Yield the parts of a layer whose variables lie at `places` of an archive, in the order of their making."""
    is_frozen = is_frozen or layer.config.get("trainable") is False
    if layer.class_name in architecture.MODELS:
        for inner in layer.layers:
            yield from _parts(inner, places, checkpoint, code, is_frozen=is_frozen)
        return
    modules, unknown = _modules(layer)
    for module in modules:
        names = {f"{module.path}/{slot.keras}": slot for slot in module.slots}
        yield _Part(
            trained=tuple(name for name, slot in names.items() if not slot.is_buffer),
            others=tuple(name for name, slot in names.items() if slot.is_buffer),
            is_frozen=is_frozen or not module.is_trainable,
        )
    if unknown:
        own = {place: held for place, held in places.items() if f"{place}/".startswith(f"{layer.store}/")}
        yield _part_of_unknown(layer, own, checkpoint, code, is_frozen=is_frozen)


def _part_of_unknown(
    layer: architecture.Layer,
    own: Mapping[str, Sequence[str]],
    checkpoint: Checkpoint,
    code: own_layers.InOrder | None,
    *,
    is_frozen: bool,
) -> _Part:
    """Return the variables of a layer that is not Keras's own: a class of transformers, one place, or as code says."""
    entry = {"class_name": layer.class_name, "config": layer.config}
    found = variables_of_layer(entry, own, checkpoint)
    is_of_transformers = encoder_config(Config(values=entry, raw=b"")) is not None
    if found is None and not is_of_transformers and code is not None:
        shapes = {name: checkpoint.tensor(name).shape for names in own.values() for name in names}
        found = own_layers.variables(layer, own, code(layer), shapes, checkpoint.optimizer)
    if found is None or (is_frozen and found[1] and len(own) > 1):
        name = layer.bare_class_name
        problem = f"layer {layer.name!r}, a {name}, has layers inside whose order an archive does not tell"
        hint = f"--custom-objects package.module:{name} names its code, which does; so does an .h5 or a SavedModel"
        if code is not None:
            problem += ", and its code not which of its own variables are trained"
            hint = "an optimizer does, as a .keras has one of; so does an .h5 or a SavedModel"
        raise LossError(problem, hint=_WAYS_OUT if is_of_transformers else f"{hint} of the same model")
    return _Part(trained=found[0], others=found[1], is_frozen=is_frozen)


def _modules(layer: architecture.Layer) -> tuple[list[Module], list[architecture.Layer]]:
    return architecture.modules(replace(layer, class_name="Functional", layers=(layer,)))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Archive:
    """Where an archive has the variables of a model, which are listed otherwise."""

    checkpoint: Checkpoint
    listing: Listing
    model: architecture.Layer
    version: int
    inside: Callable[[], Mapping[str, Sequence[Sequence[str]]]]
    """What the code of the user's layers says, which is imported when it is asked first."""

    @classmethod
    def of(cls, checkpoint: Checkpoint, listing: Listing, *, is_older: bool) -> _Archive:
        model = _model(checkpoint)
        assert model is not None
        inside = cache(partial(_inside_own_layers, listing, model, is_older=is_older))
        return cls(checkpoint=checkpoint, listing=listing, model=model, version=-1 if is_older else 0, inside=inside)

    def places(self) -> list[tuple[str, str, str]]:
        """Return, of each variable, its name in an archive, its place there, and its name in the checkpoint."""
        found: list[tuple[str, str, str]] = []
        for layer, names in _weights_of(self.checkpoint, self.listing, self.model):
            found += self._of_layer(layer, names)
        config = encoder_settings(self.checkpoint.keras_config)
        by_place = names_from_places((place for _, place, _ in found), is_around=True, config=config)
        return [(by_place.get(place, new), place, name) for new, place, name in found]

    def _of_layer(self, layer: architecture.Layer, names: Sequence[str]) -> Iterator[tuple[str, str, str]]:
        modules, unknown = _modules(layer)
        if not unknown:
            slots = {
                f"{module.path}/{slot.keras}": f"{module.stores[self.version]}/{_VARIABLES}/{number}"
                for module in modules
                for number, slot in enumerate(module.slots)
            }
            new_names = _joined(list(_parts(layer, {}, self.checkpoint, None, is_frozen=False)))
            if len(new_names) != len(names):
                problem = f"layer {layer.name!r} has {len(names)} variables, its config says {len(new_names)}"
                raise LossError(problem, hint=_ways_out(self.checkpoint))
            yield from ((new, slots[new], name) for new, name in zip(new_names, names, strict=True))
        elif layer.class_name in architecture.MODELS:
            yield from self._of_model(layer, names)
        else:
            yield from self._of_unknown(layer, names)

    def _of_model(self, model: architecture.Layer, names: Sequence[str]) -> Iterator[tuple[str, str, str]]:
        """Yield what `places` returns of the layers of a model that is a layer: variables are called after theirs."""
        called = {name: name.removeprefix(f"{model.name}/") for name in names}  # Keras 2 leaves the model out
        held = {
            layer.name: [name for name in names if called[name].startswith(f"{layer.name}/")] for layer in model.layers
        }
        if Counter(name for each in held.values() for name in each) != Counter(names):
            raise LossError(
                f"model {model.name!r} has layers inside, and the names of its variables do not say which have them",
                hint=_ways_out(self.checkpoint),
            )
        for layer in model.layers:
            if held[layer.name]:
                yield from self._of_layer(layer, held[layer.name])

    def _of_unknown(self, layer: architecture.Layer, names: Sequence[str]) -> Iterator[tuple[str, str, str]]:
        own_config = encoder_config(Config(values={"config": layer.config}, raw=b""))
        if own_config is not None:
            places: dict[str, str] = {}
            for name in names:
                place = place_of(layer.bare_class_name, _plain(name))
                if place is None:
                    problem = f"no table says where an archive has this variable of a {layer.bare_class_name}"
                    raise LossError(problem, tensor=name, hint=_WAYS_OUT)
                places[name] = place
            yield from ((name, f"{layer.store}/{place}", name) for name, place in without_gaps(places).items())
            return
        counts: dict[str, int] = {}
        out = _ways_out(self.checkpoint)
        for name, path in own_layers.paths(layer, names, self.listing, self.inside, way_out=out).items():
            inside = path.rpartition("/")[0]
            place = f"{layer.store}/{inside}".rstrip("/")
            number = counts[place] = counts.get(place, -1) + 1
            yield f"{layer.name}/{path}", f"{place}/{_VARIABLES}/{number}", name
