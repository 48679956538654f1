"""Checkpoints between Keras's names and layouts and PyTorch's, module by module."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from converter.dialects.keras import architecture, flattening, leaves
from converter.dialects.keras.flattening import Features, Order
from converter.dialects.keras.modules import CONVOLUTIONS, DENSE, Module, Slot, flattened, takes_features
from converter.errors import ArchitectureError, LossError, ReadError
from converter.model.checkpoint import Checkpoint, Dialect
from converter.model.dtype import DType
from converter.model.ledger import LedgerLine, Status, defaulted, dropped
from converter.model.optimizer import OptimizerState
from converter.model.tensor import Array, ArrayTensor, ComputedTensor, Tensor, concat

FLATTEN_ORDER = "flatten-order"
_COUNTER = "num_batches_tracked"
_SHOWN = 10
_DROP = "--optimizer drop converts the weights without it"


def to_pytorch(checkpoint: Checkpoint) -> Checkpoint:
    """Return a checkpoint of Keras's names with PyTorch's names and layouts; nothing is read.

    The layers of a Keras config say what each variable is, names and shapes say it where there is none. What neither
    says keeps name and layout, with a warning. Defaulted tensors, and rows in an order that cannot be known, are
    ledger lines. Raises ReadError when two names become one, or a shape is not what its layer has.
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
            f"layer {layer.path!r} is a {layer.class_name}, whose variables cannot be named", hint="--weights-only"
        )
    return _Inverse(checkpoint=checkpoint).translated(modules)


def adapted(checkpoint: Checkpoint, options: object = None) -> Checkpoint:
    """Return a checkpoint of PyTorch's names as the formats of Keras store it: `to_keras` if its config is Keras's."""
    config = None if checkpoint.keras_config is None else checkpoint.keras_config.values
    if checkpoint.dialect != Dialect.PYTORCH or config is None or not architecture.is_model(config):
        return checkpoint
    return to_keras(checkpoint, config)


def config_modules(model: architecture.Layer) -> tuple[list[Module], list[architecture.Layer]]:
    """Return the modules of a model, those behind a Flatten with their rows permuted, and its unknown layers."""
    return _modules(model, flattening.taken(model))


def _modules(model: architecture.Layer, taken: Mapping[str, Features]) -> tuple[list[Module], list[architecture.Layer]]:
    modules, unknown = architecture.modules(model)
    return [_behind_flatten(module, _features(module, taken)) for module in modules], unknown


def _features(module: Module, taken: Mapping[str, Features]) -> Features | None:
    """Return what a layer takes, where it is not plain."""
    return next((taken[path] for path in (module.path, *module.also) if path in taken), None)


def _behind_flatten(module: Module, features: Features | None) -> Module:
    if features is None or features.order is not Order.FLAT or features.channels is None:
        return module
    slots = (flattened(slot, features.channels) or slot for slot in module.slots)
    return replace(module, slots=tuple(slots))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    """Which variable of a checkpoint is which slot of which module."""

    slots: Mapping[str, tuple[Module, Slot]]
    guessed: frozenset[str]
    misordered: tuple[str, ...] = ()

    def translated(self, checkpoint: Checkpoint) -> Checkpoint:
        made = _Forward(checkpoint=checkpoint)
        stored = [name for name in checkpoint.names if name not in self.slots]
        for name in checkpoint.names:
            if name in self.slots:
                made.add_slot(name, *self.slots[name])
            else:
                made.add_as_stored(name)
        aliases = self._ties(checkpoint, made.names)
        optimizer, refused = self._optimizer(checkpoint)
        tensors = {name: tensor for name, tensor in made.tensors.items() if name not in aliases}
        return replace(
            checkpoint,
            tensors=tensors,
            aliases=aliases,
            origins=made.origins,
            buffers=frozenset(made.buffers & tensors.keys()),
            frozen=frozenset(made.frozen & tensors.keys()),
            dialect=Dialect.PYTORCH if self.slots else Dialect.GENERIC,
            optimizer=optimizer,
            optimizer_refused=refused,
            lines=(*checkpoint.lines, *made.lines, *self._flatten_lines()),
            warnings=(*checkpoint.warnings, *self._warnings(stored)),
        )

    def _ties(self, checkpoint: Checkpoint, names: Mapping[str, Sequence[str]]) -> dict[str, str]:
        """The ties that are still ties: both sides went through the same rearrangement."""
        kinds = {name: slot for name, (_, slot) in self.slots.items()}
        return {
            new: new_owner
            for alias, owner in checkpoint.aliases.items()
            if kinds.get(alias) == kinds.get(owner)
            for new, new_owner in zip(names[alias], names[owner], strict=True)
        }

    def _optimizer(self, checkpoint: Checkpoint) -> tuple[OptimizerState | None, str | None]:
        """The state with each slot rearranged as its weight is, or why that cannot be."""
        state = checkpoint.optimizer
        if state is None:
            return None, checkpoint.optimizer_refused
        groups = []
        for group in state.groups:
            names: list[str] = []
            for name in group.parameters:
                module, slot = self.slots.get(name, (None, None))
                if slot is not None and slot.added is not None:
                    return None, f"PyTorch has two biases where Keras has {name!r}: no state of theirs equals its own"
                names += [name] if module is None or slot is None else map(module.torch_name, slot.torch)
            groups.append(replace(group, parameters=tuple(names)))
        slots = {
            kind: {
                new: part for name, tensor in tensors.items() for new, part in self._rearranged(name, tensor).items()
            }
            for kind, tensors in state.slots.items()
        }
        return replace(state, groups=tuple(groups), slots=slots), None

    def _rearranged(self, name: str, tensor: Tensor) -> dict[str, Tensor]:
        if name not in self.slots:
            return {name: tensor}
        module, slot = self.slots[name]
        return dict(zip(map(module.torch_name, slot.torch), _to_torch(tensor, slot), strict=True))

    def _flatten_lines(self) -> list[LedgerLine]:
        if not self.misordered:
            return []
        reason = (
            f"{_listed(self.misordered)}: behind a Flatten, as it seems, whose channels no config tells; "
            "rows stay in Keras's order, channels last"
        )
        return [dropped(FLATTEN_ORDER, reason, is_refused_by_default=True)]

    def _warnings(self, stored: Sequence[str]) -> list[str]:
        said = []
        if stored:
            said.append(f"layout as stored: {_listed(stored)}: neither config nor names say what they are")
        if self.guessed:
            said.append(
                f"layouts of {len(self.guessed)} tensors follow from their Keras names and shapes, without a config; "
                "a Dense behind a Flatten would need its rows permuted; activations, strides and epsilons are not told"
            )
        return said


@dataclass(slots=True, kw_only=True)
class _Forward:
    """A checkpoint on its way to PyTorch's names: what has been translated so far."""

    checkpoint: Checkpoint
    tensors: dict[str, Tensor] = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)
    names: dict[str, list[str]] = field(default_factory=dict)
    buffers: set[str] = field(default_factory=set)
    frozen: set[str] = field(default_factory=set)
    lines: list[LedgerLine] = field(default_factory=list)

    def add_as_stored(self, name: str) -> None:
        """Keep a variable as it is."""
        self._add(name, self.checkpoint.tensor(name), name)
        self.buffers.update({name} & self.checkpoint.buffers)
        self.frozen.update({name} & self.checkpoint.frozen)

    def add_slot(self, name: str, module: Module, slot: Slot) -> None:
        """Add what PyTorch has for a variable, and what only PyTorch has beside it."""
        tensor = self.checkpoint.tensor(name)
        try:
            parts = _to_torch(tensor, slot)
        except ReadError as error:
            error.tensor = error.tensor or name
            raise
        for leaf, part in zip(slot.torch, parts, strict=True):
            new = module.torch_name(leaf)
            self._add(new, part, name)
            if slot.is_buffer:
                self.buffers.add(new)
            elif not module.is_trainable or name in self.checkpoint.frozen:
                self.frozen.add(new)
        if slot.added is not None:
            why = "zeros: Keras has one bias where PyTorch adds two"
            self._add_default(module.torch_name(slot.added), parts[0].dtype, parts[0].shape, 0, why)
        if slot is module.slots[-1]:
            self._add_constants(module, tensor)

    def _add_constants(self, module: Module, like: Tensor) -> None:
        for leaf, value in (module.constants or {}).items():
            name, why = module.torch_name(leaf), f"{value}: Keras has no such variable"
            if leaf == _COUNTER:
                self._add_default(name, DType.INT64, (), value, why)
                self.buffers.add(name)
            else:
                self._add_default(name, like.dtype, like.shape, value, why)

    def _add_default(self, name: str, dtype: DType, shape: tuple[int, ...], value: int, why: str) -> None:
        array = np.full(shape, value, dtype.numpy)
        self._add(name, ArrayTensor(dtype=dtype, shape=shape, array=array), None)
        self.lines.append(defaulted(name, why))

    def _add(self, name: str, tensor: Tensor, source: str | None) -> None:
        if name in self.tensors:
            taken = self.origins.get(name, name)
            raise ReadError(f"and {taken!r} would both be called {name!r}", tensor=source)
        self.tensors[name] = tensor
        if source is not None:
            self.names.setdefault(source, []).append(name)
            if self.checkpoint.origin(source) != name:
                self.origins[name] = self.checkpoint.origin(source)


def _found(checkpoint: Checkpoint, config: Mapping[str, Any] | None) -> _Found:
    slots: dict[str, tuple[Module, Slot]] = {}
    taken: Mapping[str, Features] = {}
    misordered: list[str] = []
    if config is not None:
        model = architecture.parse(config)
        taken = flattening.taken(model)
        modules, _ = _modules(model, taken)
        slots = _matched(checkpoint.names, modules)
        misordered = [
            name
            for name, (module, slot) in slots.items()
            if (features := _features(module, taken)) is not None and _is_misordered(slot, features)
        ]
    left = {name: checkpoint.tensor(name).shape for name in checkpoint.names if name not in slots}
    guessed = _by_leaves(left)
    misordered += [
        name
        for name, (module, slot) in guessed.items()
        if leaves.without_cell(module.path) in taken and takes_features(slot)
    ]
    misordered += _suspects(guessed, {name: checkpoint.tensor(name).shape for name in checkpoint.names})
    return _Found(slots={**slots, **guessed}, guessed=frozenset(guessed), misordered=tuple(misordered))


def _is_misordered(slot: Slot, features: Features) -> bool:
    """Whether a variable may be in another order than PyTorch's: what its layer takes is not known, or not permuted."""
    is_permuted = slot.layout is not None and "channels" in slot.layout.sizes
    return takes_features(slot) and (features.order is Order.UNKNOWN or not is_permuted)


def _suspects(guessed: Mapping[str, tuple[Module, Slot]], shapes: Mapping[str, tuple[int, ...]]) -> list[str]:
    """Return the kernels that may be behind a Flatten, as far as shapes tell.

    Their rows are a multiple of the channels of a convolution, and no other layer makes features of that number.
    """
    layouts = {name: slot.layout for name, (_, slot) in guessed.items()}
    convolutions = [shapes[name] for name, layout in layouts.items() if layout in CONVOLUTIONS.values()]
    channels = {extent for shape in convolutions for extent in shape[-2:]}
    wide = [shape for shape in shapes.values() if len(shape) > 2]
    made = {shape[1] for shape in shapes.values() if len(shape) == 2}
    made |= {extent for shape in wide for extent in (*shape[-2:], shape[-2] * shape[-1])}
    return [
        name
        for name, layout in layouts.items()
        if layout == DENSE
        and guessed[name][1].keras == "kernel"
        and guessed[name][1].torch == ("weight",)
        and shapes[name][0] not in made
        and any(1 < channel < shapes[name][0] and shapes[name][0] % channel == 0 for channel in channels)
    ]


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
    taken: set[tuple[int, str]] = set()
    for find in (_exact, _nearly):
        for name in names:
            path, leaf = leaves.split(name)
            for module in find(leaves.without_cell(path), by_path) if name not in slots else ():
                slot = next((slot for slot in module.slots if leaf in slot.names), None)
                if slot is not None and (id(module), slot.keras) not in taken:
                    taken.add((id(module), slot.keras))
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


def _to_torch(tensor: Tensor, slot: Slot) -> list[Tensor]:
    if slot.layout is not None:
        tensor = slot.layout.to_torch(tensor)
    if len(slot.torch) == 1:
        return [tensor]
    if tensor.shape[0] != len(slot.torch):
        raise ReadError(f"has shape {list(tensor.shape)}, not {len(slot.torch)} rows")
    return [
        tensor.take(axis=0, start=index, stop=index + 1).reshape(tensor.shape[1:]) for index in range(len(slot.torch))
    ]


def _to_keras(parts: Sequence[Tensor], slot: Slot) -> Tensor:
    tensor = parts[0]
    if len(parts) > 1:
        tensor = concat([part.reshape((1, *part.shape)) for part in parts], axis=0)
    return tensor if slot.layout is None else slot.layout.to_keras(tensor)


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
class _Inverse:
    checkpoint: Checkpoint
    tensors: dict[str, Tensor] = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)
    lines: list[LedgerLine] = field(default_factory=list)
    used: set[str] = field(default_factory=set)

    def translated(self, modules: Sequence[Module]) -> Checkpoint:
        for module in modules:
            for slot in module.slots:
                self._add(module, slot)
        constants = {
            module.torch_name(leaf): value for module in modules for leaf, value in (module.constants or {}).items()
        }
        for name in self.checkpoint.names:
            if name not in self.used:
                self._drop(name, constants.get(name))
        source = self.checkpoint
        held = [(f"{module.path}/{slot.keras}", module, slot) for module in modules for slot in module.slots]
        return replace(
            source,
            tensors=self.tensors,
            aliases={},
            origins=self.origins,
            buffers=frozenset(name for name, _, slot in held if slot.is_buffer),
            frozen=frozenset(name for name, module, slot in held if not module.is_trainable and not slot.is_buffer),
            dialect=Dialect.KERAS,
            optimizer=None if source.optimizer is None else self._optimizer(source.optimizer, held),
            lines=(*source.lines, *self.lines),
        )

    def _optimizer(self, state: OptimizerState, held: Sequence[tuple[str, Module, Slot]]) -> OptimizerState:
        """The state with each slot joined and rearranged as its weight is, in the order of the trained weights.

        Raises LossError where the layers do not train what the optimizer does, and the reverse.
        """
        trained = [each for each in held if each[1].is_trainable and not each[2].is_buffer]
        parts = {name: self._owners(module, slot) for name, module, slot in trained}
        taken = [name for names in parts.values() for name in names]
        known = [name for group in state.groups for name in group.parameters]
        for what, names in (("two variables of the Keras config", taken), ("optimizer groups", known)):
            twice = [name for name, count in Counter(names).items() if count > 1]
            if twice:
                raise LossError(f"optimizer state: is in {what}", tensor=twice[0], hint=_DROP)
        for name, _, slot in trained:
            if slot.added is not None:
                raise LossError(
                    f"optimizer state: Keras has one bias where PyTorch has {slot.torch[0]} and {slot.added}",
                    tensor=name,
                    hint=_DROP,
                )
        left = [name for name in known if name not in taken]
        if left:
            raise LossError(
                "optimizer state: no trained variable of the Keras config is it", tensor=left[0], hint=_DROP
            )
        lacking = [name for name, names in parts.items() if not set(names) <= set(known)]
        if lacking:
            why = "optimizer state: the Keras config trains it, the optimizer has no state for it"
            hint = f'"trainable": false for its layer in the config is right where it is not trained; {_DROP}'
            raise LossError(why, tensor=lacking[0], hint=hint)
        groups = [
            replace(group, parameters=tuple(name for name, names in parts.items() if names[0] in group.parameters))
            for group in state.groups
        ]
        slots = {
            kind: {
                name: _to_keras([tensors[part] for part in parts[name]], slot)
                for name, _, slot in trained
                if parts[name][0] in tensors
            }
            for kind, tensors in state.slots.items()
        }
        return replace(state, groups=tuple(groups), slots=slots)

    def _owners(self, module: Module, slot: Slot) -> list[str]:
        """The parameters that a variable is of, each by the name that its optimizer state has among tied ones."""
        names = map(module.torch_name, slot.torch)
        return [self.checkpoint.aliases.get(name, name) for name in names]

    def _add(self, module: Module, slot: Slot) -> None:
        name = f"{module.path}/{slot.keras}"
        parts = [self._part(module.torch_name(leaf), name) for leaf in slot.torch]
        first = module.torch_name(slot.torch[0])
        tensor = parts[0]
        if slot.added is not None and module.torch_name(slot.added) in self.checkpoint.names:
            added = module.torch_name(slot.added)
            self.used.add(added)
            summed = _Sum()
            inputs = (tensor, self.checkpoint.tensor(added))
            dtype, shape = summed.declare(inputs)
            tensor = ComputedTensor(dtype=dtype, shape=shape, inputs=inputs, operation=summed)
            reason = f"added to {self.checkpoint.origin(first)}: Keras has one bias where PyTorch adds two"
            self.lines.append(dropped(self.checkpoint.origin(added), reason))
        if len(parts) > 1:
            others = [module.torch_name(leaf) for leaf in slot.torch[1:]]
            reason = f"stored with {self.checkpoint.origin(first)}, as {name}"
            self.lines += [
                LedgerLine(status=Status.MAPPED, name=self.checkpoint.origin(other), target=name, reason=reason)
                for other in others
            ]
        try:
            self.tensors[name] = _to_keras([tensor, *parts[1:]], slot)
        except ReadError as error:
            error.tensor = error.tensor or first
            raise
        if self.checkpoint.origin(first) != name:
            self.origins[name] = self.checkpoint.origin(first)

    def _part(self, name: str, slot: str) -> Tensor:
        if name not in self.checkpoint.tensors and name not in self.checkpoint.aliases:
            raise LossError(f"has no tensor for it: {name!r} is not in the checkpoint", tensor=slot)
        self.used.add(name)
        return self.checkpoint.tensor(name)

    def _drop(self, name: str, constant: int | None) -> None:
        origin = self.checkpoint.origin(name)
        if name.rpartition(".")[2] == _COUNTER:
            self.lines.append(dropped(origin, "Keras does not count the batches of BatchNormalization"))
        elif constant is not None and np.all(self.checkpoint.tensor(name).numpy() == constant):
            self.lines.append(dropped(origin, f"{constant} throughout, which is what the Keras layer without it has"))
        else:
            self.lines.append(dropped(origin, "no layer of the Keras config holds it", is_refused_by_default=True))


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_SHOWN])
    return shown if len(names) <= _SHOWN else f"{shown} and {len(names) - _SHOWN} more"
