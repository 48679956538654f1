"""Which parts of what training code saves are models, which are tensors beside them, which are optimizers.

A model is a module, or a state dict: a dict with tensors that have axes, under names that parameters have, or with more
tensors than other values. Dicts that are none are looked into, at whatever depth. A tensor with axes that stands
beside a model is a weight, too. Scalars, counters, the states of random generators, and what stands in a dict of
settings and numbers are the rest.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from converter.dialects.optimizer.torch_layouts import as_state_dict, states_in
from converter.encoding.part_files import ZERO_HINT
from converter.encoding.pickle import Placeholder
from converter.encoding.torch_file import Walk
from converter.encoding.torch_file.tree import axes_of, is_carried, is_module, is_name, text_of
from converter.errors import ReadError
from converter.model.dtype import DType

Path = tuple[Any, ...]

WEIGHTS_KEYS = ("model_state_dict", "state_dict", "model", "module")
"""What training code calls the weights of a model, whatever their names."""
_PARAMETERS = frozenset(("weight", "bias", "w", "b", "kernel", "gamma", "beta", "embedding", "embeddings"))
_OF_RANDOM = re.compile(r"(^|_)rng|(^|_)rand(om)?_?states?")
_OF_OPTIMIZERS = re.compile(r"(^|_)optim(?!al|um)|(^|_)opt(_|s?$)")
_OWN_WEIGHTS, OWN_EXTRAS = ("model_state_dict", "model"), "extras"
"""What this program calls the weights of files, and what it puts beside them that would be something else there."""
_OF_ZERO = frozenset(("zero_stage", "partition_count"))
_DEPTH_LIMIT = 16


@dataclass(slots=True, kw_only=True)
class Parts:
    """By path from the root: models, single tensors that are weights, and values that are states of optimizers.

    `base` is the path of the dict that all else stands in: what wraps that alone says nothing.
    """

    base: Path = ()
    models: dict[Path, Any] = field(default_factory=dict)
    tensors: dict[Path, Any] = field(default_factory=dict)
    optimizers: dict[Path, Any] = field(default_factory=dict)
    places: dict[Path, int] = field(default_factory=dict)

    @property
    def weights(self) -> list[tuple[Path, Any]]:
        """Models and tensors in the order of the file."""
        return sorted((self.models | self.tensors).items(), key=lambda item: self.places[item[0]])

    @property
    def above(self) -> frozenset[Path]:
        """The paths of all that has parts inside."""
        taken = (*self.models, *self.tensors, *self.optimizers)
        return frozenset(path[:length] for path in taken for length in range(len(path)))

    def come_by(self, path: Path) -> Path:
        """Note that `path` is the next in the file."""
        self.places.setdefault(path, len(self.places))
        return path


def items_of(value: Any) -> Mapping[Any, Any] | None:
    """Return what is in a container by key or position, and the attributes of an object; None for anything else."""
    match value:
        case dict():
            return value
        case list() | tuple():
            return dict(enumerate(value))
        case Placeholder() if not is_module(value):
            states = value.state if isinstance(value.state, tuple) else (value.state,)
            found = {**dict(enumerate(value.values)), **value.items}
            for state in states:
                found |= state if isinstance(state, dict) else {}
            return found
    return None


def parts_of(root: Any, walk: Walk) -> Parts:
    """Return the parts of what a file holds. Raises ReadError for weights that are places without values."""
    found = Parts()
    items = items_of(root)
    _check_values(items or {})
    if items is None:
        found.models[found.come_by(())] = root
        return found
    while len(items) == 1:
        ((key, inner),) = items.items()
        below = items_of(inner)
        if below is None or isinstance(inner, list | tuple) or not walk.has_tensors(inner) or states_in(inner):
            break
        if _is_state_dict(key, below, walk):
            break
        found.base, items = (*found.base, key), below
    if _has_dotted_names(items):
        _take_whole(items, found, walk)
    else:
        _take_apart(items, found.base, found, walk)
    if not found.models:
        found.tensors = {}
        _take_whole(items, found, walk)
    return found


def _check_values(items: Mapping[Any, Any]) -> None:
    """Raise ReadError for what a process of DeepSpeed's ZeRO saves: names without values, of which all have parts.

    `param_shapes` beside them says how large they are. The parts are with those of the optimizer, in files that have no
    model.
    """
    state = items.get("optimizer_state_dict")
    if isinstance(state, dict) and state.keys() >= _OF_ZERO and items.keys().isdisjoint(WEIGHTS_KEYS):
        raise ReadError("has the part of an optimizer that one process of DeepSpeed had", hint=ZERO_HINT)
    listed = items.get("param_shapes")
    shapes = {
        name: shape for each in (listed if isinstance(listed, list) else [listed]) for name, shape in _of_dict(each)
    }
    for key in WEIGHTS_KEYS:
        for name, value in _of_dict(items.get(key)):
            shape = getattr(value, "shape", None)
            if name in shapes and isinstance(shape, tuple) and 0 in shape and 0 not in shapes[name]:
                raise ReadError(
                    "has no values here: they are in the parts that ZeRO-3's processes wrote (*_optim_states.pt)",
                    tensor=text_of(name),
                    hint=ZERO_HINT,
                )


def _of_dict(value: Any) -> list[tuple[Any, Any]]:
    return list(value.items()) if isinstance(value, dict) else []


def _take_whole(items: Mapping[Any, Any], found: Parts, walk: Walk) -> None:
    """Take everything with tensors as weights of one model, whose names are the keys."""
    for key, value in items.items():
        where = found.come_by((*found.base, key))
        if states_in(value):
            found.optimizers[where] = value
        elif is_name(key) and walk.has_tensors(value) and _OF_RANDOM.match(text_of(key).lower()) is None:
            found.tensors[where] = value


def _take_apart(items: Mapping[Any, Any], path: Path, found: Parts, walk: Walk) -> None:
    """Take the models and optimizers below `path`; where there are models, the tensors beside them."""
    walk.search(len(items))
    has_own = not items.keys().isdisjoint(_OWN_WEIGHTS)
    count = len(found.models)
    beside = {}
    for key, value in items.items():
        where = found.come_by((*path, key))
        if states_in(value):
            found.optimizers[where] = value
        elif not is_name(key) or not walk.has_tensors(value) or (key == OWN_EXTRAS and has_own):
            continue
        elif is_module(value):
            found.models[where] = value
        elif axes_of(value) is not None or _is_one_in_a_list(value):
            if _is_beside(key, value[0] if isinstance(value, list | tuple) else value):
                beside[where] = value
        elif _OF_OPTIMIZERS.search(text_of(key).lower()) is None and not _is_random(key, value):
            _take_container(key, value, where, found, walk)
    is_top = path == found.base
    if beside and (is_top or len(found.models) > count):
        found.tensors |= beside


def _take_container(key: Any, value: Any, where: Path, found: Parts, walk: Walk) -> None:
    below = items_of(value) or {}
    if as_state_dict(below) is not None:  # an object that was an optimizer
        return
    if _is_state_dict(key, below, walk):
        found.models[where] = value
    elif _is_statistics(below):
        for name, tensor in below.items():
            if _is_beside(name, tensor):
                found.tensors[found.come_by((*where, name))] = tensor
    elif len(where) < _DEPTH_LIMIT:
        _take_apart(below, where, found, walk)


def _axes_by_name(items: Mapping[Any, Any]) -> dict[Any, int]:
    named = {name: value for name, value in items.items() if is_name(name)}
    return {name: axes for name, value in named.items() if (axes := axes_of(value)) and not _is_random(name, value)}


def _is_state_dict(key: Any, items: Mapping[Any, Any], walk: Walk) -> bool:
    direct = _axes_by_name(items)
    if not direct:
        return key in WEIGHTS_KEYS and any(axes_of(value) is not None for value in items.values())
    if key in WEIGHTS_KEYS or _has_dotted_names(direct):
        return True
    others = [value for value in items.values() if axes_of(value) is None and value is not None]
    if any(walk.has_tensors(value) for value in others):
        return False
    if len(direct) < sum(map(is_carried, others)):
        return False
    if all(isinstance(name, int) for name in items):
        return len(items) > 1
    return any(axes > 1 or text_of(name) in _PARAMETERS for name, axes in direct.items())


def _is_statistics(items: Mapping[Any, Any]) -> bool:
    """Whether a dict holds nothing but tensors, which have no names of parameters: a mean and a deviation, say."""
    if not all(isinstance(name, str) for name in items):
        return False
    values = [value for value in items.values() if axes_of(value) is not None or is_carried(value)]
    return bool(values) and all(axes_of(value) is not None for value in values)


def _has_dotted_names(items: Mapping[Any, Any]) -> bool:
    return any("." in text_of(name) for name, value in items.items() if axes_of(value))


def _is_beside(key: Any, value: Any) -> bool:
    """Whether what stands beside a model is a weight: a tensor with axes, but a counter or the state of a generator."""
    axes = axes_of(value)
    return bool(axes) and not _is_random(key, value) and not _is_counter(value)


def _is_one_in_a_list(value: Any) -> bool:
    return isinstance(value, list | tuple) and len(value) == 1 and axes_of(value[0]) is not None


def _is_counter(value: Any) -> bool:
    dtype = getattr(value, "dtype", None)
    is_whole = isinstance(dtype, DType) and not dtype.is_floating and not dtype.value.startswith("complex")
    return is_whole and set(value.shape) == {1}


def _is_random(key: Any, value: Any) -> bool:
    """Whether something is the state of a random generator: by its name, or as bytes in a row."""
    if _OF_RANDOM.search(text_of(key).lower()) is not None:
        return True
    return axes_of(value) == 1 and getattr(value, "dtype", None) is DType.UINT8
