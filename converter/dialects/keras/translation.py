"""Checkpoints between Keras's names and layouts and PyTorch's, module by module."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from converter.dialects.keras import architecture, flattening, leaves
from converter.dialects.keras.flattening import Features, Order
from converter.dialects.keras.modules import (
    ALPHA,
    Module,
    Slot,
    flattened,
    of_elements,
    takes_features,
)
from converter.dialects.names.operations import applied
from converter.dialects.rewriting import Derivation, Rewriting
from converter.errors import ArchitectureError, LossError, ReadError, of_tensor
from converter.model.checkpoint import Checkpoint, Dialect
from converter.model.dtype import DType
from converter.model.ledger import misordered
from converter.model.optimizer import OptimizerState
from converter.model.tensor import Array, ArrayTensor, ComputedTensor, Tensor

FLATTEN_ORDER = "flatten-order"
_COUNTER = "num_batches_tracked"
_SHOWN = 10
_DROP = "--optimizer drop converts the weights without it"


def to_pytorch(checkpoint: Checkpoint) -> Checkpoint:
    """Return a checkpoint of Keras's names with PyTorch's names and layouts; nothing is read.

    The layers of a Keras config say what each variable is, names and shapes say it where there is none. What neither
    says keeps name and layout, with a warning. Defaulted tensors, and rows in an order that cannot be known, are
    ledger lines. Raises LossError when two names become one, ReadError for a shape that is not what its layer has.
    """
    config = None if checkpoint.keras_config is None else checkpoint.keras_config.values
    found = _found(checkpoint, config if architecture.is_model(config) else None)
    return found.translated(checkpoint)


def to_keras(checkpoint: Checkpoint, config: Mapping[str, Any]) -> Checkpoint:
    """Return a checkpoint of PyTorch's names with the names and layouts that the layers of a Keras config have.

    Names are `layer/variable`, in the order of the config. Raises ArchitectureError for layers whose variables no
    table knows, LossError for a variable that the checkpoint has no tensor for.
    """
    model = architecture.parse(config)
    modules, unknown = config_modules(model)
    if unknown:
        layer = unknown[0]
        raise ArchitectureError(
            f"layer {layer.path!r} is a {layer.class_name}, whose variables cannot be named",
            hint="a file of the source's own kind needs no names; .pth and safetensors have those that there are",
        )
    return _ToKeras(rewriting=Rewriting(source=checkpoint)).translated(modules)


def carry_layers(rewriting: Rewriting, names: Sequence[str], prefix: str) -> list[str]:
    """Carry variables of layers around a model that another dialect knows, to PyTorch's names and layouts.

    New names begin with `prefix`. Returns the names of those that stay: neither config nor names say what they are, or
    they are behind a Flatten whose channels no config tells.
    """
    source = rewriting.source
    config = None if source.keras_config is None else source.keras_config.values
    of_layers = replace(source, tensors={name: source.tensor(name) for name in names}, aliases={})
    found = _found(of_layers, config if architecture.is_model(config) else None)
    known = {name: each for name, each in found.slots.items() if name not in found.misordered}
    forward = _ToTorch(rewriting=rewriting)
    for name, (module, slot) in known.items():
        forward.add_slot(name, replace(module, module=prefix + module.module), slot)
    return [name for name in names if name not in known]


def adapted(checkpoint: Checkpoint, options: object = None) -> Checkpoint:
    """Return a checkpoint of PyTorch's names as the formats of Keras store it: `to_keras` if its config is Keras's."""
    config = None if checkpoint.keras_config is None else checkpoint.keras_config.values
    if checkpoint.dialect != Dialect.PYTORCH or config is None or not architecture.is_model(config):
        return checkpoint
    return to_keras(checkpoint, config)


def is_only_listed(checkpoint: Checkpoint, kind: str) -> bool:
    """Whether a file of Keras can be made only as the source, of that kind, lists its variables.

    No config says what its layers are, or a layer is one that no table knows.
    """
    listing = checkpoint.listing
    if listing is None or listing.format != kind or checkpoint.dialect != Dialect.KERAS:
        return False
    config = None if checkpoint.keras_config is None else checkpoint.keras_config.values
    if config is None or not architecture.is_model(config):
        return True
    return bool(config_modules(architecture.parse(config))[1])


def config_modules(model: architecture.Layer) -> tuple[list[Module], list[architecture.Layer]]:
    """Return the modules of a model, those behind a Flatten with their rows permuted, and its unknown layers."""
    return _modules(model, flattening.input_features(model))


def _modules(
    model: architecture.Layer, inputs: Mapping[str, Features]
) -> tuple[list[Module], list[architecture.Layer]]:
    modules, unknown = architecture.modules(model)
    return [_behind_flatten(module, _features(module, inputs)) for module in modules], unknown


def _features(module: Module, inputs: Mapping[str, Features]) -> Features | None:
    """Return what a layer takes, where it is not plain."""
    return next((inputs[path] for path in (module.path, *module.also) if path in inputs), None)


def _behind_flatten(module: Module, features: Features | None) -> Module:
    if features is None or features.order is not Order.FLAT or features.channels is None:
        return module
    slots = (flattened(slot, features.channels) or slot for slot in module.slots)
    return replace(module, slots=tuple(slots))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Assignment:
    """Which variable of a checkpoint is which slot of which module."""

    slots: Mapping[str, tuple[Module, Slot]]
    guessed: frozenset[str]
    misordered: Mapping[str, str] = field(default_factory=dict)
    """Variables whose rows may be in another order than PyTorch's -> the layer that merges them, if one does."""
    kept: Mapping[str, str] = field(default_factory=dict)
    """Variables whose rows stay as they are -> the layer that laid out what they are for."""

    def translated(self, checkpoint: Checkpoint) -> Checkpoint:
        forward = _ToTorch(rewriting=Rewriting(source=checkpoint))
        stored = [name for name in checkpoint.names if name not in self.slots]
        for name in checkpoint.names:
            if name in self.slots:
                forward.add_slot(name, *self.slots[name])
            else:
                forward.add_as_stored(name)
        rewriting = forward.rewriting
        rewriting.aliases = self._ties(checkpoint, forward.names)
        rewriting.tensors = {
            name: tensor for name, tensor in rewriting.tensors.items() if name not in rewriting.aliases
        }
        rewriting.buffers &= rewriting.tensors.keys()
        rewriting.frozen &= rewriting.tensors.keys()
        self._note_flatten(rewriting)
        self._warn(rewriting, stored)
        dialect = Dialect.PYTORCH if self.slots else Dialect.GENERIC
        return rewriting.done(dialect, **self._state(rewriting))

    def _ties(self, checkpoint: Checkpoint, names: Mapping[str, Sequence[str]]) -> dict[str, str]:
        """The ties that are still ties: both sides went through the same rearrangement."""
        kinds = {name: slot for name, (_, slot) in self.slots.items()}
        return {
            new: new_owner
            for alias, owner in checkpoint.aliases.items()
            if kinds.get(alias) == kinds.get(owner)
            for new, new_owner in zip(names[alias], names[owner], strict=True)
        }

    def _state(self, rewriting: Rewriting) -> dict[str, Any]:
        state = rewriting.source.optimizer
        for name in () if state is None else state.parameters:
            if name in self.slots and self.slots[name][1].added is not None:
                why = f"PyTorch has two biases where Keras has {name!r}: no state of theirs equals its own"
                return {"optimizer": None, "optimizer_refused": why}
        return rewriting.state()

    def _note_flatten(self, rewriting: Rewriting) -> None:
        reasons = []
        for by in dict.fromkeys(self.misordered.values()):
            names = [name for name, each in self.misordered.items() if each == by]
            of_map = f"whose map goes through {by}" if by else "as it seems, whose channels no config tells"
            reasons.append(f"{_listed(names)}: behind a Flatten, {of_map}")
        if reasons:
            reason = f"{'; '.join(reasons)}; rows stay in Keras's order, channels last"
            rewriting.lines.append(misordered(FLATTEN_ORDER, reason))
        for by in dict.fromkeys(self.kept.values()):
            names = [name for name, each in self.kept.items() if each == by]
            rewriting.note(f"{_listed(names)}: rows stay in Keras's order, in which {by} gives them (channels last)")

    def _warn(self, rewriting: Rewriting, stored: Sequence[str]) -> None:
        elements = [name for name, (_, slot) in self.slots.items() if slot.torch == ("alpha",)]
        if elements:
            why = "an alpha for each element, where torch.nn.PReLU has one for each channel"
            rewriting.note(f"layout as stored: {_listed(elements)}: {why}")
        if stored:
            rewriting.note(f"layout as stored: {_listed(stored)}: neither config nor names say what they are")
        if self.guessed:
            rewriting.note(
                f"layouts of {len(self.guessed)} tensors follow from their Keras names and shapes, without a config; "
                "a Dense behind a Flatten would need its rows permuted; activations, strides and epsilons are not known"
            )


@dataclass(slots=True, kw_only=True)
class _ToTorch:
    """A checkpoint on its way to PyTorch's names. `names` is what each variable has become."""

    rewriting: Rewriting
    names: dict[str, list[str]] = field(default_factory=dict)

    def add_as_stored(self, name: str) -> None:
        """Keep a variable as it is."""
        self._put(name, name)
        self.rewriting.buffers.update({name} & self.rewriting.source.buffers)
        self.rewriting.frozen.update({name} & self.rewriting.source.frozen)

    def add_slot(self, name: str, module: Module, slot: Slot) -> None:
        """Add what PyTorch has for a variable, and what only PyTorch has beside it."""
        rewriting = self.rewriting
        news = tuple(map(module.torch_name, slot.torch))
        rewriting.carry(Derivation(before=(name,), after=news, operations=slot.operations))
        self.names[name] = [*news]
        for new in news:
            if slot.is_buffer:
                rewriting.buffers.add(new)
            elif not module.is_trainable or name in rewriting.source.frozen:
                rewriting.frozen.add(new)
        if slot.added is not None:
            like = rewriting.tensors[news[0]]
            zeros = _filled(like.dtype, like.shape, 0)
            rewriting.default(module.torch_name(slot.added), zeros, "zeros: Keras has one bias where PyTorch adds two")
        if slot is module.slots[-1]:
            self._add_constants(module, rewriting.source.tensor(name))

    def _add_constants(self, module: Module, like: Tensor) -> None:
        for leaf, value in (module.constants or {}).items():
            name, is_counter = module.torch_name(leaf), leaf == _COUNTER
            constant = _filled(DType.INT64, (), value) if is_counter else _filled(like.dtype, like.shape, value)
            self.rewriting.default(name, constant, f"{value}: Keras has no such variable")
            if is_counter:
                self.rewriting.buffers.add(name)

    def _put(self, name: str, new: str, tensor: Tensor | None = None) -> None:
        self.rewriting.put(name, new, tensor)
        self.names.setdefault(name, []).append(new)


def _filled(dtype: DType, shape: tuple[int, ...], value: int) -> Tensor:
    return ArrayTensor(dtype=dtype, shape=shape, array=np.full(shape, value, dtype.numpy))


def _found(checkpoint: Checkpoint, config: Mapping[str, Any] | None) -> _Assignment:
    shapes = {name: checkpoint.tensor(name).shape for name in checkpoint.names}
    slots: dict[str, tuple[Module, Slot]] = {}
    inputs: Mapping[str, Features] = {}
    if config is not None:
        model = architecture.parse(config)
        inputs = flattening.input_features(model)
        slots = _matched(checkpoint.names, _modules(model, inputs)[0])
        for name, (module, slot) in slots.items():
            if slot.layout == ALPHA and len(shapes[name]) != 1:
                slots[name] = (kept_alpha := of_elements(module)), kept_alpha.slots[0]
    guessed = _by_leaves({name: shape for name, shape in shapes.items() if name not in slots})
    misordered: dict[str, str] = {}
    kept: dict[str, str] = {}
    for name, (module, slot) in {**slots, **guessed}.items():
        features = inputs.get(leaves.without_cell(module.path)) if name in guessed else _features(module, inputs)
        if features is None or not takes_features(slot):
            continue
        if flattening.is_misordered(slot, features, shapes[name]):
            misordered[name] = features.by
        elif features.order is Order.KEPT:
            kept[name] = features.by
    suspects = flattening.suspects({name: slot for name, (_, slot) in guessed.items()}, shapes)
    misordered |= {name: misordered.get(name, "") for name in suspects if name not in kept}
    return _Assignment(slots={**slots, **guessed}, guessed=frozenset(guessed), misordered=misordered, kept=kept)


def _by_leaves(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[Module, Slot]]:
    named = {leaves.split(name): name for name in shapes}
    slots: dict[str, tuple[Module, Slot]] = {}
    if len(named) < len(shapes):  # some differ by `:0` alone
        return slots
    for module in leaves.modules(shapes):
        for slot in module.slots:
            for leaf in slot.names:
                if (module.path, leaf) in named:
                    slots[named[module.path, leaf]] = (module, slot)
    return slots


def _matched(names: Iterable[str], modules: Sequence[Module]) -> dict[str, tuple[Module, Slot]]:
    """Return which module of a config each variable belongs to; paths may lack or have an outer part."""
    by_path: dict[str, list[Module]] = {}
    for module in modules:
        for path in (module.path, *module.also):
            by_path.setdefault(leaves.without_cell(path), []).append(module)
    slots: dict[str, tuple[Module, Slot]] = {}
    used: set[tuple[int, str]] = set()
    for find in (_exact, _nearly):
        for name in names:
            path, leaf = leaves.split(name)
            for module in find(leaves.without_cell(path), by_path) if name not in slots else ():
                slot = next((slot for slot in module.slots if leaf in slot.names), None)
                if slot is not None and (id(module), slot.keras) not in used:
                    used.add((id(module), slot.keras))
                    slots[name] = (module, slot)
                    break
    return slots


def _exact(path: str, by_path: Mapping[str, list[Module]]) -> list[Module]:
    return by_path.get(path, [])


def _nearly(path: str, by_path: Mapping[str, list[Module]]) -> list[Module]:
    """Return what a path means that has the model's own name before it, or lacks that of a nested model."""
    outer, _, rest = path.partition("/")
    if rest in by_path and not any(known.split("/")[0] == outer for known in by_path):
        return by_path[rest]
    longer = [module for known, found in by_path.items() if known.endswith("/" + path) for module in found]
    return longer if len({module.path for module in longer}) == 1 else []


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sum:
    """Two tensors added."""

    def declare(self, inputs: Sequence[Tensor]) -> tuple[DType, tuple[int, ...]]:
        first, second = inputs
        if (first.dtype, first.shape) != (second.dtype, second.shape):
            raise ReadError(f"biases of {list(first.shape)} and {list(second.shape)} cannot be added")
        return first.dtype, first.shape

    def __call__(self, *arrays: Array) -> Array:
        total: Array = arrays[0] + arrays[1]
        return total


@dataclass(slots=True, kw_only=True)
class _ToKeras:
    """A checkpoint on its way to the names and layouts of a Keras config."""

    rewriting: Rewriting
    used: set[str] = field(default_factory=set)

    def translated(self, modules: Sequence[Module]) -> Checkpoint:
        rewriting, source = self.rewriting, self.rewriting.source
        modules = [self._as_it_is_held(module) for module in modules]
        for module in modules:
            for slot in module.slots:
                self._add(module, slot)
        constants = {
            module.torch_name(leaf): value for module in modules for leaf, value in (module.constants or {}).items()
        }
        for name in source.names:
            if name not in self.used:
                self._drop(name, constants.get(name))
        held = [(f"{module.path}/{slot.keras}", module, slot) for module in modules for slot in module.slots]
        rewriting.buffers.update(name for name, _, slot in held if slot.is_buffer)
        rewriting.frozen.update(name for name, module, slot in held if not module.is_trainable and not slot.is_buffer)
        optimizer = None if source.optimizer is None else self._optimizer(source.optimizer, held)
        return rewriting.done(Dialect.KERAS, optimizer=optimizer)

    def _as_it_is_held(self, module: Module) -> Module:
        is_prelu = any(slot.layout == ALPHA for slot in module.slots)
        return of_elements(module) if is_prelu and module.torch_name("alpha") in self.rewriting.source else module

    def _optimizer(self, state: OptimizerState, held: Sequence[tuple[str, Module, Slot]]) -> OptimizerState:
        """The state with each slot joined and rearranged as its weight is, in the order of the trained weights.

        Raises LossError where the layers do not train what the optimizer does, and the reverse.
        """
        trained = [each for each in held if each[1].is_trainable and not each[2].is_buffer]
        parts = {name: self._owners(module, slot) for name, module, slot in trained}
        for name, _, slot in trained:
            if slot.added is not None:
                why = f"optimizer state: Keras has one bias where PyTorch has {slot.torch[0]} and {slot.added}"
                raise LossError(why, tensor=name, hint=_DROP)
        _check_trained(parts, state.parameters)
        groups = [
            replace(group, parameters=tuple(name for name, names in parts.items() if names[0] in group.parameters))
            for group in state.groups
        ]
        slots = {
            kind: {
                name: applied(slot.operations, [tensors[part] for part in parts[name]], is_forward=False)[0]
                for name, _, slot in trained
                if parts[name][0] in tensors
            }
            for kind, tensors in state.slots.items()
        }
        return replace(state, groups=tuple(groups), slots=slots)

    def _owners(self, module: Module, slot: Slot) -> list[str]:
        """The parameters that a variable is of, each by the name that its optimizer state has among tied ones."""
        names = map(module.torch_name, slot.torch)
        return [self.rewriting.source.aliases.get(name, name) for name in names]

    def _add(self, module: Module, slot: Slot) -> None:
        name = f"{module.path}/{slot.keras}"
        parts = [self._part(module.torch_name(leaf), name) for leaf in slot.torch]
        rewriting, source = self.rewriting, self.rewriting.source
        first, *others = map(module.torch_name, slot.torch)
        tensor = parts[0]
        if slot.added is not None and module.torch_name(slot.added) in source:
            added = module.torch_name(slot.added)
            self.used.add(added)
            summed = _Sum()
            inputs = (tensor, source.tensor(added))
            dtype, shape = summed.declare(inputs)
            tensor = ComputedTensor(dtype=dtype, shape=shape, inputs=inputs, operation=summed)
            rewriting.drop(added, f"added to {source.origin(first)}: Keras has one bias where PyTorch adds two")
        for other in others:
            rewriting.join(other, name, f"stored with {source.origin(first)}, as {name}")
        with of_tensor(first):
            (whole,) = applied(slot.operations, [tensor, *parts[1:]], is_forward=False)
        rewriting.put(first, name, whole)

    def _part(self, name: str, slot: str) -> Tensor:
        if name not in self.rewriting.source.tensors and name not in self.rewriting.source.aliases:
            raise LossError(f"has no tensor for it: {name!r} is not in the checkpoint", tensor=slot)
        self.used.add(name)
        return self.rewriting.source.tensor(name)

    def _drop(self, name: str, constant: int | None) -> None:
        rewriting = self.rewriting
        if name.rpartition(".")[2] == _COUNTER:
            rewriting.drop(name, "Keras does not count the batches of BatchNormalization")
        elif constant is not None and np.all(rewriting.source.tensor(name).numpy() == constant):
            rewriting.drop(name, f"{constant} throughout, which is what the Keras layer without it has")
        else:
            rewriting.drop(name, "no layer of the Keras config holds it", is_refused_by_default=True)


def _check_trained(parts: Mapping[str, Sequence[str]], known: Sequence[str]) -> None:
    """Raise LossError unless the parameters that trained variables are made of are those of an optimizer, each once."""
    listed = [name for names in parts.values() for name in names]
    for what, names in (("two variables of the Keras config", listed), ("optimizer groups", known)):
        twice = [name for name, count in Counter(names).items() if count > 1]
        if twice:
            raise LossError(f"optimizer state: is in {what}", tensor=twice[0], hint=_DROP)
    left = [name for name in known if name not in listed]
    if left:
        raise LossError(
            "optimizer state: it belongs to no trained variable of the Keras config", tensor=left[0], hint=_DROP
        )
    lacking = [name for name, names in parts.items() if not set(names) <= set(known)]
    if lacking:
        why = "optimizer state: the Keras config trains it, the optimizer has no state for it"
        hint = f'"trainable": false for its layer in the config is right where it is not trained; {_DROP}'
        raise LossError(why, tensor=lacking[0], hint=hint)


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_SHOWN])
    return shown if len(names) <= _SHOWN else f"{shown} and {len(names) - _SHOWN} more"
