"""The optimizer of a Keras file, given the parts of the file that hold it."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from converter.dialects.keras.keras_1_weights import NOT_TRAINED as NOT_TRAINED_OF_KERAS_1
from converter.dialects.keras.own_layers import InOrder
from converter.dialects.keras.stores import NOT_TRAINED
from converter.dialects.optimizer.flavors import stated_version
from converter.dialects.optimizer.keras_layouts import WITHOUT_DECAY, parameters_of
from converter.dialects.optimizer.keras_names import (
    Orders,
    UntoldError,
    are_of_no_weight,
    state_by_names,
    state_by_old_positions,
    state_by_positions,
    state_of_graph,
)
from converter.dialects.optimizer.keras_orders import Stores, layers_with_more_inside, orders_of
from converter.dialects.optimizer.record import Record, parsed, record_of
from converter.dialects.optimizer.settings import SCALING_TITLE, Settings, settings_of
from converter.encoding import json as strict_json
from converter.encoding.hdf5 import Group
from converter.encoding.hdf5.layers import listed
from converter.encoding.object_graph import object_graph
from converter.encoding.tensor_bundle import Bundle
from converter.errors import LossError
from converter.model.checkpoint import Checkpoint
from converter.model.file import Location
from converter.model.ledger import Kind, without
from converter.model.optimizer import OptimizerState, StoredOptimizer
from converter.model.tensor import Tensor

SAVE_COUNTER = "save_counter"
"""A variable that every tf.train.Checkpoint has."""
_NOT_TRAINED = (*(f"/{name}" for name in NOT_TRAINED), *NOT_TRAINED_OF_KERAS_1)
_WEIGHTS, _NUMBERED = "optimizer_weights", "optimizer"
_RECORD, _RECORDED_PARAMETERS, _RECORDED_WITHOUT_DECAY = (
    "ckconv_optimizer",
    "ckconv_parameters",
    "ckconv_without_decay",
)
_HINT = "--config FILE with what to_json() or get_config() of the model returned says the order"


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

    def state() -> OptimizerState:
        if not are_of_no_weight(held):
            return state_by_names(held, checkpoint.tensors, settings, None)
        names = (name for name in checkpoint.tensors if name not in checkpoint.frozen)
        order = tuple(name for name in names if not name.removesuffix(":0").endswith(_NOT_TRAINED))
        version = stated_version(checkpoint) or "2.0"
        is_sorted = version.startswith(("1.", "2.0"))  # they sorted weights by name
        orders = (order, tuple(sorted(order))) if is_sorted else (order,)
        return state_by_old_positions(list(held.values()), checkpoint.tensors, orders, settings)

    return _with(checkpoint, lambda: record.applied(state()))


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

    numbered = _Numbered(
        checkpoint=checkpoint,
        stores=stores,
        config=config,
        variables=variables,
        is_in_a_row=len(variables) == sum(1 for _ in group.datasets()),
        record=record,
        settings=settings,
        compiled_decay=compiled.config.get(WITHOUT_DECAY),
    )
    everything = root.group(_NUMBERED) or group
    stored = StoredOptimizer(
        tensors={"/".join(path): item.tensor for path, item in everything.datasets() if item.tensor is not None},
        attributes={"/".join(path): each.attributes for path, each in everything.groups()},
        named=numbered.named,
    )
    try:
        return _with(replace(checkpoint, optimizer_stored=stored), numbered.named)
    except UntoldError as error:
        return replace(checkpoint, optimizer_stored=replace(stored, untold=error.message))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Numbered:
    """The variables of an optimizer that a file numbers, and what it says of them."""

    checkpoint: Checkpoint
    stores: Stores
    config: Mapping[str, Any] | None
    variables: Sequence[Tensor]
    is_in_a_row: bool
    record: Record
    settings: Settings
    compiled_decay: object

    def named(
        self,
        class_name: str | None = None,
        order: Sequence[str] | None = None,
        frozen: Collection[str] = (),
        inside: InOrder | None = None,
    ) -> OptimizerState:
        """Return what `StoredOptimizer.named` does."""
        if not self.is_in_a_row:
            raise LossError("its variables are not numbered in a row")
        known = self.settings if class_name is None else replace(self.settings, class_name=class_name)
        orders = self._orders(order, frozen, inside)
        try:
            state = state_by_positions(self.variables, self.checkpoint.tensors, orders, known)
        except UntoldError:
            raise
        except LossError as error:
            error.hint = error.hint or self._hint(inside)
            raise
        found = self.record.applied(state, self.compiled_decay)
        return found if order is None else replace(found, basis="given")

    def _orders(self, order: Sequence[str] | None, frozen: Collection[str], inside: InOrder | None) -> Orders:
        """Return what gives the orders to try: the one that the user gives, that the record has, or that layers tell.

        Raises LossError for a name of the user's that no weight has.
        """
        weights = self.checkpoint.tensors
        if order is not None:
            strange = [name for name in order if name not in weights]
            if strange:
                raise LossError(f"the order given has {strange[0]!r}, which is no weight of the source")
            return lambda shapes: [tuple(order)]
        recorded = self.record.parameters
        if recorded:
            return lambda shapes: [recorded] if all(name in weights for name in recorded) else []
        return orders_of(self.checkpoint, self.stores, self.config, frozen=frozen, inside=inside)

    def _hint(self, inside: InOrder | None) -> str | None:
        if self.config is None:
            return None if self.record.parameters else _HINT
        own = layers_with_more_inside(self.stores, self.config) if inside is None else []
        if not own:
            return None
        names = ",".join(dict.fromkeys(layer.bare_class_name for layer in own))
        return f"--custom-objects package.module:{names} names code that says the order of what is inside"


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
