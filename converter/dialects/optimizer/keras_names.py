"""Which weight a variable of a Keras optimizer belongs to, in every layout that Keras has.

`AdamW/m/fc1/kernel` (tf_keras 2.11 and later), `Adam/fc1/kernel/m` (before, and legacy), `adam/fc1_kernel_momentum`
(Keras 3), slots of an object graph, and variables that are only numbered. Every slot must have its weight's shape.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from converter.dialects.optimizer.conversion import SWITCHES
from converter.dialects.optimizer.settings import SCALING_TITLE, Settings, algorithm_of
from converter.encoding.object_graph import Node
from converter.errors import LossError
from converter.model.optimizer import NAMED, Convention, OptimizerState, ParameterGroup
from converter.model.tensor import Tensor

_SLOTS = {
    "m": "momentum",
    "v": "velocity",
    "vhat": "velocity_hat",
    "rms": "velocity",
    "mg": "average_gradient",
    **{name: name for name in ("momentum", "velocity", "velocity_hat", "accumulator", "average_gradient")},
}
"""What optimizers of any version call a slot -> what Keras 3 calls it."""
_BY_LENGTH = sorted(_SLOTS, key=len, reverse=True)
_STEP_OF_LEGACY = "iter"
_STEPS = ("iteration", _STEP_OF_LEGACY, "iterations")
_RATES = ("learning_rate", "current_learning_rate")
_STEP_LIMIT = 1 << 53
_MORE = ("use_ema", "gradient_accumulation_steps")
"""What makes an optimizer of Keras keep more variables than its algorithm needs."""

_OF_NO_WEIGHT = re.compile(
    r"(?:.*/)?(?:variable|param|iterations|m|v|vhat|moment|accumulator)(?:_?[0-9]+)*(?::0)?", re.IGNORECASE
)
"""What Keras 1.0 to 2.3 call the variables of an optimizer (keras/optimizers.py): by no weight, but in its order."""
_OLD_PARTS: Mapping[str, tuple[tuple[str, ...], ...]] = {
    "adam": (("momentum", "velocity"), ("momentum", "velocity", "velocity_hat")),
    "sgd": (("momentum",),),
    "rmsprop": (("velocity",),),
    "adagrad": (("accumulator",),),
}
"""The slots that they keep, all of the first before all of the second."""
_OLD_WITHOUT_STEPS = ("rmsprop", "adagrad")

Shape = tuple[int, ...]
Order = tuple[str, ...]
Orders = Callable[[Sequence[Shape]], Iterable[Order]]
Places = tuple[tuple[str, str], ...]
"""Slot and weight of each variable that is only numbered."""
Slots = dict[str, dict[str, Tensor]]


class UntoldError(LossError):
    """The file does not say which optimizer its state is of."""


@dataclass(slots=True, kw_only=True)
class _Variables:
    """The variables of an optimizer, sorted into step, rate and slots."""

    settings: Settings
    step: int | None = None
    scalars: dict[str, Any] = field(default_factory=dict)
    slots: Slots = field(default_factory=dict)
    is_legacy: bool = False
    title: str = ""

    def add_scalar(self, leaf: str, tensor: Tensor) -> None:
        value = tensor.numpy().reshape(()).item()
        if leaf in _STEPS:
            if self.step is not None:
                raise LossError(f"it has two step counts, {self.step} and {value!r}")
            if not 0 <= value < _STEP_LIMIT or value != int(value):
                raise LossError(f"its step count {value!r} is not a whole number from 0 to 2**53")
            self.step = int(value)
            self.is_legacy = self.is_legacy or leaf == _STEP_OF_LEGACY
        elif isinstance(value, int | float):
            self.scalars["learning_rate" if leaf in _RATES else leaf] = value

    def add_scaling(self, leaf: str, tensor: Tensor) -> None:
        """Keep the factor of a LossScaleOptimizer. Its steps are those that it tried, not those that were taken."""
        if leaf == "dynamic_scale":
            self.scalars["dynamic_scale"] = tensor.numpy().reshape(()).item()

    def add_slot(self, slot: str, weight: str, tensor: Tensor, weights: Mapping[str, Tensor]) -> None:
        name = _SLOTS.get(slot)
        if name is None:
            raise LossError(f"it keeps {slot!r} for {weight!r}, which is not known")
        shape = weights[weight].shape
        if tensor.shape != shape:
            raise LossError(f"its {slot} for {weight!r} has shape {list(tensor.shape)}, the weight {list(shape)}")
        if weight in self.slots.setdefault(name, {}):
            raise LossError(f"it has two {slot} for {weight!r}")
        self.slots[name][weight] = tensor

    def _known(self, called: str) -> str:
        algorithm = algorithm_of(called)
        if algorithm is None:
            raise LossError(f"no other framework has the optimizer {called!r} of Keras as it is")
        return algorithm

    def check_class(self) -> None:
        """Raise LossError for a class that no other framework has, or that uses what theirs lack."""
        more = next((name for name in _MORE if self.settings.config.get(name)), None)
        if more is not None:
            raise LossError(f"it uses {more}, which no other framework has in its optimizers")
        if self.settings.class_name:
            self._known(self.settings.class_name)

    def state(self, weights: Iterable[str], basis: str) -> OptimizerState:
        algorithm = self._known(self.settings.class_name or self.title)
        if self.step is None:
            raise LossError("it has no step count")
        parameters = tuple(name for name in weights if any(name in by_weight for by_weight in self.slots.values()))
        for slot, by_weight in self.slots.items():
            lacking = [name for name in parameters if name not in by_weight]
            if lacking:
                raise LossError(f"it has no {slot} for {lacking[0]!r}, which has other slots")
        scalars = {key: value for key, value in self.scalars.items() if key not in self.settings.config}
        is_scheduled = isinstance(self.settings.config.get("learning_rate"), Mapping)
        if "learning_rate" in self.scalars and not is_scheduled:
            scalars["learning_rate"] = self.scalars["learning_rate"]  # what it is now, not what it started with
        class_name = self.settings.class_name or self.title
        hyperparameters = {**self.settings.config, **scalars, "class_name": class_name}
        group = ParameterGroup(parameters=parameters, hyperparameters=hyperparameters)
        return OptimizerState(
            algorithm=algorithm,
            step=self.step,
            groups=(group,),
            slots=self.slots,
            basis=basis,
            convention=Convention.KERAS_LEGACY if self.is_legacy else Convention.KERAS,
        )


def state_by_names(
    variables: Mapping[str, Tensor], weights: Mapping[str, Tensor], settings: Settings, names: Mapping[str, str] | None
) -> OptimizerState:
    """Return the state that `variables`, by their full names, are of.

    `names` maps the full name of a weight -> what `weights` calls it, None when they are the same.

    Raises LossError, without a path, for a variable of no weight, of an unknown kind or of another shape.
    """
    full = {name.removesuffix(":0"): name for name in weights} if names is None else names
    flat: dict[str, list[str]] = {}
    for name in full:
        flat.setdefault(name.replace("/", "_"), []).append(name)
    found = _Variables(settings=settings)
    found.check_class()
    for variable, tensor in variables.items():
        path = variable.removesuffix(":0")
        title, _, leaf = path.rpartition("/")
        if title.startswith(SCALING_TITLE) and tensor.shape == ():
            found.add_scaling(leaf, tensor)
            continue
        if tensor.shape == () and leaf in (*_STEPS, *_RATES, "beta_1", "beta_2", "decay", "momentum", "rho"):
            found.add_scalar(leaf, tensor)
            found.title = found.title or title.rpartition("/")[2]
            continue
        owners = list(dict.fromkeys(_owners(path, full, flat)))
        if len(owners) != 1:
            what = "belongs to no weight" if not owners else f"could belong to {len(owners)} weights"
            raise LossError(f"its variable {variable!r} {what}")
        slot, weight, title, is_legacy = owners[0]
        found.add_slot(slot, full[weight], tensor, weights)
        found.title = found.title or title
        found.is_legacy = found.is_legacy or is_legacy
    return found.state(weights, NAMED)


def _owners(
    path: str, full: Mapping[str, str], flat: Mapping[str, Sequence[str]]
) -> Iterator[tuple[str, str, str, bool]]:
    """Yield slot, weight, optimizer's name and whether the layout is the legacy one."""
    parts = path.split("/")
    for index in range(len(parts) - 1):
        if parts[index] in _SLOTS and "/".join(parts[index + 1 :]) in full:
            title = parts[index - 1] if index else ""  # of an optimizer in a LossScaleOptimizerV3 the name is left out
            yield parts[index], "/".join(parts[index + 1 :]), title, False
    if parts[-1] in _SLOTS:
        for index in range(1, len(parts) - 1):
            if "/".join(parts[index:-1]) in full:
                yield parts[-1], "/".join(parts[index:-1]), parts[index - 1], True
                break
    for slot in _BY_LENGTH:
        joined = parts[-1].removesuffix(f"_{slot}")
        if joined != parts[-1] and len(parts) > 1 and joined in flat:
            for weight in flat[joined]:
                yield slot, weight, parts[-2], False
            break


def are_of_no_weight(variables: Iterable[str]) -> bool:
    """Whether an optimizer has the names of Keras 1.0 to 2.3, which say of no weight that a variable is its own."""
    return all(map(_OF_NO_WEIGHT.fullmatch, variables))


def state_by_old_positions(
    variables: Sequence[Tensor], weights: Mapping[str, Tensor], orders: Iterable[Order], settings: Settings
) -> OptimizerState:
    """Return the state of an optimizer of Keras 1.0 to 2.3: the step count, if there is one, and slot after slot.

    `orders` are those that the trained weights may be in. Raises LossError where the shapes are of none, or of two.
    """
    found = _Variables(settings=settings, is_legacy=True)
    found.check_class()
    slots = list(variables)
    if slots and slots[0].shape == ():
        found.add_scalar("iterations", slots.pop(0))
    elif settings.algorithm in _OLD_WITHOUT_STEPS:
        found.step = 0
    places = [
        (parts, order) for order in dict.fromkeys(orders) for parts in _old_parts(slots, weights, order, settings)
    ]
    if len(places) != 1:
        what = "fit several orders of the model's weights" if places else "have not the shapes of the trained weights"
        raise LossError(f"its {len(slots)} variables, which have the names of no weights, {what}")
    ((parts, order),) = places
    for number, tensor in enumerate(slots[: len(parts) * len(order)]):
        found.add_slot(parts[number // len(order)], order[number % len(order)], tensor, weights)
    return found.state(order, "verified (order)")


def _old_parts(
    slots: Sequence[Tensor], weights: Mapping[str, Tensor], order: Order, settings: Settings
) -> Iterator[tuple[str, ...]]:
    """Yield the slots that variables are, one after the other, of weights in this order."""
    shapes = [weights[name].shape for name in order]
    unused = [(1,)] * len(order)  # what an Adam without amsgrad has in the place of the third
    for parts in _OLD_PARTS.get(settings.algorithm or "", ()):
        whole = shapes * len(parts)
        if order and [tensor.shape for tensor in slots] in (whole, [*whole, *unused] if len(parts) == 2 else whole):
            yield parts


def state_by_positions(
    variables: Sequence[Tensor],
    weights: Mapping[str, Tensor],
    orders: Orders,
    settings: Settings,
) -> OptimizerState:
    """Return the state of an optimizer whose variables are only numbered: steps, learning rate, then its slots.

    `orders` gives the orders that the trained weights may be in when they have these shapes. All arrangements of
    slots that Keras has had are tried; raises LossError when none fits the shapes, or more than one.
    """
    found = _Variables(settings=settings)
    found.check_class()
    algorithm = settings.algorithm
    if algorithm is None:
        raise UntoldError("the file does not say which optimizer it has")
    slots = _without_scalars(variables, found)
    if not slots and found.step == 0:
        return found.state((), NAMED)  # Keras makes the slots at the first step
    fits: dict[Places, Order] = {}
    for arrangement in _ARRANGEMENTS["adam" if algorithm == "adamw" else algorithm]:
        if not _is_contradicted(arrangement.slots, algorithm, settings):
            fits.update(arrangement.fits(slots, weights, orders))
    if len(fits) != 1:
        what = "fit no order of the model's weights" if not fits else "fit several orders of the model's weights"
        raise LossError(f"its {len(slots)} variables, which have no names, {what}")
    ((places, order),) = fits.items()
    for (slot, name), tensor in zip(places, slots, strict=True):
        found.add_slot(slot, name, tensor, weights)
    is_certain = len({weights[name].shape for name in order}) == len(order)
    return found.state(order, "verified (shapes)" if is_certain else "verified (order)")


def _without_scalars(variables: Sequence[Tensor], found: _Variables) -> Sequence[Tensor]:
    """Return the slots, which come last, having added to `found` the loss scale, step count and rate before them."""
    if _is_scaled(variables):
        found.add_scaling("dynamic_scale", variables[3])
        variables = variables[4:]
    if not variables or variables[0].shape != () or variables[0].dtype.is_floating:
        raise LossError("its first variable is no step count")
    found.add_scalar("iteration", variables[0])
    slots = variables[1:]
    if slots and slots[0].shape == () and slots[0].dtype.is_floating:
        found.add_scalar("learning_rate", slots[0])
        return slots[1:]
    return slots


def _is_scaled(variables: Sequence[Tensor]) -> bool:
    """Whether there are steps, rate, counter and factor of a LossScaleOptimizer before those of the one inside."""
    kinds = [tensor.dtype.is_floating for tensor in variables[:6] if tensor.shape == ()]
    return kinds == [False, True] * 3


def _is_contradicted(slots: frozenset[str], algorithm: str, settings: Settings) -> bool:
    """Whether the config says that there are other slots than these."""
    return any(
        switch in settings.config and bool(settings.config[switch]) != (slot in slots)
        for switch, slot in SWITCHES.get(algorithm, {}).items()
    )


@dataclass(frozen=True, slots=True)
class _Arrangement:
    """How a version of Keras numbers slots: those of a part side by side for each weight, one part after the other."""

    parts: tuple[tuple[str, ...], ...]

    @classmethod
    def of(cls, text: str) -> _Arrangement:
        return cls(tuple(tuple(part.split()) for part in text.split("|")))

    @property
    def slots(self) -> frozenset[str]:
        return frozenset(slot for part in self.parts for slot in part)

    def fits(self, tensors: Sequence[Tensor], weights: Mapping[str, Tensor], orders: Orders) -> dict[Places, Order]:
        """Return slot and weight of each of the `tensors` for every order of weights that their shapes allow."""
        if not self.slots:
            return {} if tensors else {(): ()}
        count, rest = divmod(len(tensors), len(self.slots))
        if rest:
            return {}
        first = [tensors[at * len(self.parts[0])].shape for at in range(count)]
        return {
            places: order for order in orders(first) if _have_shapes(places := self._places(order), tensors, weights)
        }

    def _places(self, order: Order) -> Places:
        return tuple((slot, name) for part in self.parts for name in order for slot in part)


def _have_shapes(places: Places, tensors: Sequence[Tensor], weights: Mapping[str, Tensor]) -> bool:
    return [weights[name].shape for _, name in places] == [tensor.shape for tensor in tensors]


_ARRANGEMENTS: Mapping[str, tuple[_Arrangement, ...]] = {
    algorithm: tuple(map(_Arrangement.of, texts))
    for algorithm, texts in {
        "adam": ("momentum velocity", "momentum velocity|velocity_hat", "momentum velocity velocity_hat"),
        "sgd": ("", "momentum"),
        "rmsprop": ("velocity", "velocity|momentum", "velocity|average_gradient", "velocity|momentum|average_gradient"),
        "adagrad": ("accumulator",),
    }.items()
}
"""The arrangements of Keras 3.0 to 3.15 and tf_keras 2.21; a bar ends a part."""


def optimizer_nodes(nodes: Sequence[Node]) -> list[Node]:
    """Return the optimizers among the objects of a graph: those with an iteration count of their own."""
    found = []
    for node in nodes:
        has_count = "_iterations" in node.children or (
            "iter" in node.children and (node.slots or not node.children.keys().isdisjoint(("learning_rate", "decay")))
        )
        if has_count:
            found.append(node)
    return found


def state_of_graph(
    nodes: Sequence[Node], tensors: Mapping[str, Tensor], names: Mapping[str, str], settings: Settings
) -> OptimizerState | None:
    """Return the state of the one optimizer of an object graph, None when there is none.

    `tensors` maps keys -> tensors of the whole bundle, `names` the keys of weights -> what they are called.

    Raises LossError when there are several, and as `state_by_names` does.
    """
    optimizers = optimizer_nodes(nodes)
    if not optimizers:
        return None
    if len(optimizers) > 1:
        raise LossError(f"there are {len(optimizers)} optimizers, one can be carried")
    (node,) = optimizers
    weights = {name: tensors[key] for key, name in names.items()}
    if "_iterations" not in node.children:
        return _legacy(node, nodes, tensors, names, settings, weights)
    listed = node.children.get("_variables")
    held = [*node.children.values(), *(nodes[listed].children.values() if listed is not None else ())]
    variables = {
        nodes[index].full_name: tensors[key]
        for index in dict.fromkeys(held)
        if (key := nodes[index].key) is not None and key not in names
    }
    full = {inner.full_name: names[inner.key] for inner in nodes if inner.key in names and inner.key is not None}
    by_lists = _by_lists(node, nodes, names)
    variables = {by_lists.get(name, (name, ""))[0]: tensor for name, tensor in variables.items()}
    full |= {weight: weight for _, weight in by_lists.values()}
    return state_by_names(variables, weights, settings, full)


_LISTS = {
    **{"_momentums": "momentum", "momentums": "momentum", "_velocities": "velocity", "_velocity_hats": "velocity_hat"},
    **{"_accumulators": "accumulator", "_average_gradients": "average_gradient"},
}
"""Where optimizers of Keras 3 list their slots, in the order of the weights that they list besides."""


def _by_lists(node: Node, nodes: Sequence[Node], names: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """Return the full name of a slot -> one that ends in the name of its weight, and that name.

    Nothing where the optimizer does not list its weights. The variables of a class of the user's own have full names
    that do not say whose they are: `model/kernel` in every layer.
    """
    trained = node.children.get("_trainable_variables")
    owners = {} if trained is None else nodes[trained].children
    found = {}
    for attribute, slot in _LISTS.items():
        listed = node.children.get(attribute)
        for position, index in () if listed is None else nodes[listed].children.items():
            owner = None if position not in owners else nodes[owners[position]].key
            if owner is not None and owner in names:
                title = nodes[index].full_name.partition("/")[0]
                found[nodes[index].full_name] = (f"{title}/{slot}/{names[owner]}", names[owner])
    return found


def _legacy(
    node: Node,
    nodes: Sequence[Node],
    tensors: Mapping[str, Tensor],
    names: Mapping[str, str],
    settings: Settings,
    weights: Mapping[str, Tensor],
) -> OptimizerState:
    found = _Variables(settings=settings, is_legacy=True)
    found.check_class()
    for local_name, index in node.children.items():
        key = nodes[index].key
        if key is not None and tensors[key].shape == ():
            found.add_scalar(local_name, tensors[key])
            found.title = found.title or nodes[index].full_name.rpartition("/")[0].rpartition("/")[2]
    for slot in node.slots:
        owner, key = nodes[slot.owner].key, nodes[slot.node].key
        if owner is None or key is None or owner not in names:
            raise LossError(f"its {slot.name} {nodes[slot.node].full_name!r} belongs to no weight")
        found.add_slot(slot.name, names[owner], tensors[key], weights)
    return found.state(weights, NAMED)
