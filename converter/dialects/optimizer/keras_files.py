"""The optimizer of a Keras file, given the parts of the file that hold it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from converter.dialects.keras import architecture
from converter.dialects.keras.stores import NOT_TRAINED, as_today
from converter.dialects.optimizer.keras_layouts import WITHOUT_DECAY, parameters_of
from converter.dialects.optimizer.keras_names import (
    Orders,
    Shape,
    UntoldError,
    state_by_names,
    state_by_positions,
    state_of_graph,
)
from converter.dialects.optimizer.record import Record, parsed, record_of
from converter.dialects.optimizer.settings import SCALING_TITLE, settings_of
from converter.dialects.transformers.heads import encoder_config
from converter.dialects.transformers.tensorflow_writing import variables_of_layer
from converter.encoding import json as strict_json
from converter.encoding.hdf5 import Group
from converter.encoding.hdf5.layers import listed
from converter.encoding.object_graph import object_graph
from converter.encoding.tensor_bundle import Bundle
from converter.errors import LossError
from converter.model.checkpoint import Checkpoint, Config
from converter.model.file import Location
from converter.model.ledger import Kind, without
from converter.model.optimizer import OptimizerState, StoredOptimizer
from converter.model.tensor import Tensor

SAVE_COUNTER = "save_counter"
"""A variable that every tf.train.Checkpoint has."""
_WEIGHTS, _NUMBERED = "optimizer_weights", "optimizer"
_RECORD, _RECORDED_PARAMETERS, _RECORDED_WITHOUT_DECAY = (
    "ckconv_optimizer",
    "ckconv_parameters",
    "ckconv_without_decay",
)
_HINT = "--config FILE with what to_json() or get_config() of the model returned says the order"
_ORDERS_LIMIT = 16
_WAYS_LIMIT = 100_000
_NUMBER = re.compile(r"_(\d+)$")


def with_listed_state(checkpoint: Checkpoint, root: Group, compiled: object, path: Location) -> Checkpoint:
    """Add the optimizer of the HDF5 file at `path`, which names its variables. `compiled` is the `training_config`."""
    group = root.group(_WEIGHTS)
    variables = {} if group is None else {"/".join(path): item.tensor for path, item in group.datasets()}
    held = {name: tensor for name, tensor in variables.items() if tensor is not None}
    if not held:
        return checkpoint
    assert group is not None
    ranks = {name: rank for rank, name in enumerate(listed(group, "weight_names") or ())}
    held = dict(sorted(held.items(), key=lambda item: ranks.get(item[0], len(ranks))))  # HDF5 has them by name
    record = _record(group, path)
    settings = record.completing(settings_of(compiled))
    return _with(checkpoint, lambda: record.applied(state_by_names(held, checkpoint.tensors, settings, None)))


def with_numbered_state(
    checkpoint: Checkpoint,
    root: Group,
    stores: Mapping[str, Sequence[str]],
    config: Mapping[str, Any] | None,
    path: Location,
) -> Checkpoint:
    """Add the optimizer of the `.weights.h5` at `path`, alone or in an archive whose `config` is that of the model.

    `stores` maps the place of each layer's variables -> their names.
    """
    group = root.group(_NUMBERED, "vars")
    if group is None:
        return checkpoint
    held = {path[0]: item.tensor for path, item in group.datasets() if len(path) == 1 and item.tensor is not None}
    variables = [held[str(number)] for number in range(len(held)) if str(number) in held]
    if not variables:
        return checkpoint
    record, compiled = _record(group, path), settings_of(None if config is None else config.get("compile_config"))
    settings = record.completing(compiled)
    title = group.attributes.get("name")
    inner = root.group(_NUMBERED, "inner_optimizer", "vars")
    if isinstance(title, str) and title.startswith(SCALING_TITLE) and inner is not None:
        title = inner.attributes.get("name")
    if not settings.class_name and isinstance(title, str):
        settings = replace(settings, class_name=title)

    def named(
        class_name: str | None = None, order: Sequence[str] | None = None, frozen: Collection[str] = ()
    ) -> OptimizerState:
        known = settings if class_name is None else replace(settings, class_name=class_name)
        orders = _orders_of(checkpoint, stores, config, record.parameters, frozen)
        if order is not None:
            orders = _order_given(order, checkpoint)
        if len(variables) != sum(1 for _ in group.datasets()):
            raise LossError("its variables are not numbered in a row")
        try:
            state_found = state_by_positions(variables, checkpoint.tensors, orders, known)
        except UntoldError:
            raise
        except LossError as error:
            error.hint = error.hint or (_HINT if config is None and not record.parameters else None)
            raise
        found = record.applied(state_found, compiled.config.get(WITHOUT_DECAY))
        return found if order is None else replace(found, basis="given")

    everything = root.group(_NUMBERED) or group
    stored = StoredOptimizer(
        tensors={"/".join(path): item.tensor for path, item in everything.datasets() if item.tensor is not None},
        attributes={"/".join(path): each.attributes for path, each in everything.groups()},
        named=named,
    )
    try:
        return _with(replace(checkpoint, optimizer_stored=stored), named)
    except UntoldError as error:
        return replace(checkpoint, optimizer_stored=replace(stored, untold=error.message))


def with_bundle_state(
    checkpoint: Checkpoint,
    bundle: Bundle,
    names: Mapping[str, str],
    compiled: object = None,
    document: object = None,
) -> Checkpoint:
    """Add the optimizer that the object graph of a bundle has. `names` maps the keys of weights -> their names.

    `document` is the record that `recorded` made, if any.
    """
    nodes = object_graph(bundle)
    held = {key: name for key, name in names.items() if name in checkpoint.tensors}
    record = _record_in(document)
    settings = record.completing(settings_of(compiled))

    def state() -> OptimizerState | None:
        state_found = state_of_graph(nodes, bundle.tensors, held, settings)
        return None if state_found is None else record.applied(state_found)

    return _with(checkpoint, state)


def with_named_state(checkpoint: Checkpoint, bundle: Bundle, document: object) -> Checkpoint:
    """Add the optimizer of a bundle that has nothing else; `document` is the record that `recorded` made of it."""
    record = _record_in(document)
    variables = {
        node.full_name: bundle.tensors[node.key]
        for node in object_graph(bundle)
        if node.key is not None and node.key in bundle.tensors and node.full_name != SAVE_COUNTER
    }
    settings = record.completing(settings_of(None))
    return _with(checkpoint, lambda: record.applied(state_by_names(variables, checkpoint.tensors, settings, None)))


def _record_in(document: object) -> Record:
    value = document if isinstance(document, Mapping) else {}
    lists = [value.get(key, []) for key in (_RECORDED_WITHOUT_DECAY, _RECORDED_PARAMETERS)]
    is_record = all(isinstance(names, list) and all(isinstance(name, str) for name in names) for names in lists)
    return parsed(value, *lists) if is_record else Record()


def record_attributes(state: OptimizerState) -> dict[str, Any]:
    """Return the attributes that hold the record of a state in Keras's conventions."""
    return {_RECORD: json.dumps(record_of(state)), **_recorded_names(state)}


def recorded(state: OptimizerState) -> dict[str, Any]:
    """Return the record of a state in Keras's conventions as one document."""
    return {**record_of(state), **_recorded_names(state)}


def _recorded_names(state: OptimizerState) -> dict[str, list[str]]:
    (_, *others) = state.groups
    names = {
        _RECORDED_PARAMETERS: parameters_of(state),
        _RECORDED_WITHOUT_DECAY: [name for group in others for name in group.parameters],
    }
    return {key: listed for key, listed in names.items() if listed}


def _record(group: Group, path: Location) -> Record:
    text = group.attributes.get(_RECORD)
    value = strict_json.loads(text.encode("utf-8"), path=path, what=_RECORD) if isinstance(text, str) else None
    return parsed(value, listed(group, _RECORDED_WITHOUT_DECAY) or (), listed(group, _RECORDED_PARAMETERS) or ())


def _with(checkpoint: Checkpoint, state: Callable[[], OptimizerState | None]) -> Checkpoint:
    """Add a state, or why there is none that can be used; what is in the state is no loss."""
    try:
        found = state()
    except UntoldError:
        raise
    except LossError as error:
        return replace(checkpoint, optimizer_refused=error.message_and_hint)
    if found is None:
        return checkpoint
    return replace(checkpoint, optimizer=found, lines=without(checkpoint.lines, Kind.OPTIMIZER))


def _orders_of(
    checkpoint: Checkpoint,
    stores: Mapping[str, Sequence[str]],
    config: Mapping[str, Any] | None,
    listed: tuple[str, ...],
    frozen: Collection[str],
) -> Orders:
    """Return what gives the orders that trained weights of certain shapes may be in: the one `listed`, if any."""
    if frozen:
        stores = {place: [name for name in names if name not in frozen] for place, names in stores.items()}
    if listed:
        is_known = all(name in checkpoint.tensors for name in listed)
        return lambda shapes: [listed] if is_known else []
    if config is not None and architecture.is_model(config):
        orders = _orders_of_layers(architecture.parse(config), stores, checkpoint)
        trained = [tuple(name for name in order if name not in frozen) for order in orders]
        whole = [order for order in trained if all(name in checkpoint.tensors for name in order)]
        return lambda shapes: whole
    of_class = None if config is None else _order_of_class(config, stores, checkpoint)
    if of_class is not None:
        return lambda shapes: [of_class]
    runs = _runs(stores)
    return lambda shapes: _merged(runs, checkpoint.tensors, shapes)


def _order_given(order: Sequence[str], checkpoint: Checkpoint) -> Orders:
    """Return what gives the one order that a user says. Raises LossError for a name that no weight has."""
    strange = [name for name in order if name not in checkpoint.tensors]
    if strange:
        raise LossError(f"the order given has {strange[0]!r}, which is no weight of the source")
    return lambda shapes: [tuple(order)]


def _orders_of_layers(
    model: architecture.Layer, stores: Mapping[str, Sequence[str]], checkpoint: Checkpoint
) -> list[tuple[str, ...]]:
    """Return the trained variables of a model as Keras lists them, layer by layer in the order of the config.

    A layer that no table knows may be a model of transformers, or have all of its variables in one place; where there
    is another, there is no order. Whether a model of transformers is trained its config does not say: there is an order
    with its variables, and one without, for as many as the first of them.
    """
    orders: list[tuple[str, ...]] = [()]
    for layer in model.layers:
        ways = _ways_of_layer(layer, model, stores, checkpoint)
        if len(orders) * len(ways) > _ORDERS_LIMIT:
            ways = ways[:1]
        orders = [(*order, *way) for order in orders for way in ways]
    return orders


def _ways_of_layer(
    layer: architecture.Layer,
    model: architecture.Layer,
    stores: Mapping[str, Sequence[str]],
    checkpoint: Checkpoint,
) -> list[tuple[str, ...]]:
    modules, unknown = architecture.modules(replace(model, layers=(layer,)))
    if not unknown:
        trained = (module for module in modules if module.is_trainable)
        return [
            tuple(f"{module.path}/{slot.keras}" for module in trained for slot in module.slots if not slot.is_buffer)
        ]
    if layer.class_name in architecture.MODELS:
        return _orders_of_layers(layer, stores, checkpoint)
    if layer.config.get("trainable") is False:
        return [()]
    own = {place: names for place, names in stores.items() if f"{as_today(place)}/".startswith(f"{layer.store}/")}
    entry = {"class_name": layer.class_name, "config": layer.config}
    order = _order_of_class(entry, own, checkpoint)
    if order is None:
        return []
    return [order] if encoder_config(Config(values=entry, raw=b"")) is None else [order, ()]


def _order_of_class(
    entry: Mapping[str, Any], stores: Mapping[str, Sequence[str]], checkpoint: Checkpoint
) -> tuple[str, ...] | None:
    """Return the trained variables, all in `stores`, of a layer that no table of Keras's own layers has."""
    found = variables_of_layer(entry, stores, checkpoint)
    return None if found is None else found[0]


def _runs(stores: Mapping[str, Sequence[str]]) -> list[list[tuple[str, ...]]]:
    """Return the trained weights of each layer, the layers of one class in the order that their numbers give."""
    by_class: dict[str, list[tuple[int, tuple[str, ...]]]] = {}
    for place, names in stores.items():
        number = _NUMBER.search(place)
        trained = tuple(name for name in names if name.rpartition("/")[2] not in NOT_TRAINED)
        if trained:
            key = _NUMBER.sub("", place)
            by_class.setdefault(key, []).append((int(number[1]) if number else 0, trained))
    return [[names for _, names in sorted(layers)] for layers in by_class.values()]


def _merged(
    runs: Sequence[Sequence[tuple[str, ...]]], tensors: Mapping[str, Tensor], shapes: Sequence[Shape]
) -> Iterator[tuple[str, ...]]:
    """Yield the ways to merge `runs`, the order in each kept, that have these shapes; at most two.

    Raises LossError when there are too many ways to try.
    """
    tried = 0
    waiting: list[tuple[tuple[int, ...], tuple[str, ...]]] = [((0,) * len(runs), ())]
    found = 0
    while waiting and found < 2:
        counts, order = waiting.pop()
        if len(order) == len(shapes):
            if all(count == len(run) for count, run in zip(counts, runs, strict=True)):
                found += 1
                yield order
            continue
        tried += 1
        if tried > _WAYS_LIMIT:
            raise LossError("the order of its variables, which have no names, cannot be told without a config")
        for index, run in enumerate(runs):
            names = run[counts[index]] if counts[index] < len(run) else None
            if names is None or len(order) + len(names) > len(shapes):
                continue
            if all(tensors[name].shape == shapes[len(order) + at] for at, name in enumerate(names)):
                further = (*counts[:index], counts[index] + 1, *counts[index + 1 :])
                waiting.append((further, (*order, *names)))
