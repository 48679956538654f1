"""The conventions by which training code orders and groups parameters before it hands them to an optimizer.

Each is a guess that the numbers and shapes of an optimizer's entries must bear out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from converter.model.checkpoint import Checkpoint

Shape = tuple[int, ...]
Groups = tuple[tuple[str, ...], ...]
Rule = Callable[[str], bool]

_NO_DECAY = re.compile(r"bias|layernorm|rmsnorm|(?:^|\.)norm(?:$|\.)|_norm(?:$|\.)")
"""transformers.Trainer.get_decay_parameter_names (4.57 and 5.23), on lower-cased names."""
_WAYS_LIMIT, _DEPTH_LIMIT = 4_000, 8


@dataclass(frozen=True, slots=True, kw_only=True)
class ModuleOrder:
    """The order in which a model has its parameters, and which of them are inside a torch.nn.LayerNorm."""

    names: tuple[str, ...]
    layer_norms: frozenset[str]


def candidates(sizes: Sequence[int], checkpoint: Checkpoint, order: ModuleOrder | None) -> Iterator[tuple[Groups, str]]:
    """Yield the orders that training code uses: as defined, and split in two groups as the usual recipes do."""
    parameters = _parameters(checkpoint, order)
    trained = [name for name in parameters if name not in checkpoint.frozen]
    for names in [parameters] if parameters == trained else [parameters, trained]:
        if sum(sizes) != len(names):
            continue
        yield cut(names, sizes), "order"
        if len(sizes) == 2:
            for rule, convention in _splits(checkpoint, order):
                decayed = tuple(name for name in names if not rule(name))
                others = tuple(name for name in names if rule(name))
                yield (decayed, others), convention
                yield (others, decayed), f"{convention}, swapped"


def cut(names: Sequence[str], sizes: Sequence[int]) -> Groups:
    """Return `names` in groups of `sizes`, in order."""
    starts = [sum(sizes[:position]) for position in range(len(sizes))]
    return tuple(tuple(names[start : start + size]) for start, size in zip(starts, sizes, strict=True))


def _splits(checkpoint: Checkpoint, order: ModuleOrder | None) -> Iterator[tuple[Rule, str]]:
    shapes = {name: tensor.shape for name, tensor in checkpoint.tensors.items()}
    yield trainer_exempts(checkpoint, order), "Trainer groups"
    yield _is_exempt_by_name, "Trainer groups by name"
    yield lambda name: "bias" in name or "LayerNorm.weight" in name, "bias and LayerNorm.weight apart"
    yield lambda name: len(shapes[name]) < 2, "vectors apart"
    yield lambda name: name.endswith("bias"), "biases apart"


def trainer_exempts(checkpoint: Checkpoint, order: ModuleOrder | None) -> Rule:
    """Return which parameters transformers.Trainer does not decay: its second group.

    What is a torch.nn.LayerNorm is known from `order`, else told by the names and shapes of weight and bias.
    """
    if order is not None:
        layer_norms = order.layer_norms
        return lambda name: _is_exempt_by_name(name) or name in layer_norms
    shapes = {name: tensor.shape for name, tensor in checkpoint.tensors.items()}
    norms = {name.rpartition(".")[0] for name, shape in shapes.items() if _is_layer_norm(name, shape, shapes)}
    return lambda name: _is_exempt_by_name(name) or name.rpartition(".")[0] in norms


def _is_exempt_by_name(name: str) -> bool:
    return _NO_DECAY.search(name.lower()) is not None


def _is_layer_norm(name: str, shape: Shape, shapes: Mapping[str, Shape]) -> bool:
    module, _, leaf = name.rpartition(".")
    is_pair = leaf == "weight" and len(shape) == 1 and shapes.get(f"{module}.bias") == shape
    return is_pair and f"{module}.running_mean" not in shapes


def _parameters(checkpoint: Checkpoint, order: ModuleOrder | None) -> list[str]:
    if order is not None:
        return list(dict.fromkeys(checkpoint.aliases.get(name, name) for name in order.names))
    return [name for name in checkpoint.tensors if name not in checkpoint.buffers]


def without_frozen_modules(
    sizes: Sequence[int],
    checkpoint: Checkpoint,
    order: ModuleOrder | None,
    fits: Callable[[int, int, str], bool],
) -> Iterator[tuple[Groups, str]]:
    """Yield the orders that are left when modules are frozen whole, and their parameters not given to the optimizer.

    `fits` says whether an entry, by its group and its place in it, can be that of a parameter. Modules nearest to the
    root are tried first, and what is inside them only where no way to leave those out fits. At most two orders of a
    convention come, as the second already says that it is not certain.
    """
    parameters = _parameters(checkpoint, order)
    if not 0 < sum(sizes) < len(parameters):
        return
    rules: list[tuple[tuple[Rule, ...], str]] = []
    if len(sizes) == 1:
        rules = [((lambda name: True,), "order")]
    if len(sizes) == 2:
        for rule, convention in _splits(checkpoint, order):
            rules.append(((_inverse(rule), rule), convention))
            rules.append(((rule, _inverse(rule)), f"{convention}, swapped"))
    for depth in range(1, min(_DEPTH_LIMIT, max(name.count(".") for name in parameters)) + 1):
        found = list(_with_modules_left_out(_modules(parameters, depth), sizes, rules, fits))
        yield from found
        if found:
            return


def _modules(parameters: Sequence[str], depth: int) -> list[tuple[str, tuple[str, ...]]]:
    """Return each module that is this deep, or less deep and has no modules inside, and its parameters."""

    def module(name: str) -> str:
        return ".".join(name.split(".")[:-1][:depth])

    return [(path, tuple(names)) for path, names in groupby(parameters, module)]


def _with_modules_left_out(
    modules: Sequence[tuple[str, tuple[str, ...]]],
    sizes: Sequence[int],
    rules: Sequence[tuple[tuple[Rule, ...], str]],
    fits: Callable[[int, int, str], bool],
) -> Iterator[tuple[Groups, str]]:
    for members, convention in rules:
        for kept in _kept([names for _, names in modules], sizes, members, fits):
            left = [path for path, names in modules if names not in kept]
            others = "" if len(left) == 1 else f" and {len(left) - 1} other modules"
            names = [name for each in kept for name in each]
            groups = tuple(tuple(name for name in names if is_member(name)) for is_member in members)
            yield groups, f"{convention}, {left[0]}{others} frozen"


def _inverse(rule: Rule) -> Rule:
    return lambda name: not rule(name)


def _kept(
    modules: Sequence[tuple[str, ...]],
    sizes: Sequence[int],
    members: Sequence[Rule],
    fits: Callable[[int, int, str], bool],
) -> list[tuple[tuple[str, ...], ...]]:
    """Return ways to leave modules out such that the others fill groups of these sizes; at most two, none if too many.

    `ways` maps how far each group is filled -> the way there, and one other if there is any.
    """
    ways: dict[tuple[int, ...], list[Any]] = {(0,) * len(sizes): [None]}
    tried = 0
    for names in modules:
        grown = {filled: list(kept) for filled, kept in ways.items()}
        for filled, kept in ways.items():
            tried += 1
            further = _filled(filled, names, sizes, members, fits)
            if further is not None:
                grown.setdefault(further, []).extend((each, names) for each in kept)
        if tried > _WAYS_LIMIT:
            return []
        ways = {filled: kept[:2] for filled, kept in grown.items()}
    return [_unrolled(way) for way in ways.get(tuple(sizes), [])]


def _unrolled(way: Any) -> tuple[tuple[str, ...], ...]:
    """Return the modules of a way, which is (the way before the last, the last), or None at its start."""
    found = []
    while way is not None:
        way, names = way
        found.append(names)
    return tuple(reversed(found))


def _filled(
    filled: tuple[int, ...],
    names: Sequence[str],
    sizes: Sequence[int],
    members: Sequence[Rule],
    fits: Callable[[int, int, str], bool],
) -> tuple[int, ...] | None:
    """Return how far groups are filled with more parameters, None when these do not fit there."""
    counts = list(filled)
    for name in names:
        group = next(index for index, is_member in enumerate(members) if is_member(name))
        if counts[group] >= sizes[group] or not fits(group, counts[group], name):
            return None
        counts[group] += 1
    return tuple(counts)
