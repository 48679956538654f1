"""How a file nests what it holds: what a copy in the same format is nested like.

A structure is plain data: its leaves are `Slot`s where weights are, `State`s where optimizers are, and everything else
as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, TypeVar

from converter.model.dtype import DType


@dataclass(frozen=True, slots=True, eq=False)
class Slot:
    """The place of the weight called `name`, which is tensor `shape` of `dtype` there."""

    name: str
    dtype: DType
    shape: tuple[int, ...]


@dataclass(slots=True, eq=False)
class State:
    """The place of an optimizer's state, or of several: `value` is what stands there, plain data."""

    value: Any = None


class OrderedMapping(dict[Any, Any]):
    """A dict that was a collections.OrderedDict; `attributes` is what it had besides, plain data.

    ``Module.state_dict()`` has the versions of its modules there, by which ``load_state_dict`` goes.
    """

    __slots__ = ("attributes",)

    def __init__(self, items: Mapping[Any, Any] = MappingProxyType({}), attributes: Any = None) -> None:
        super().__init__(items)
        self.attributes = attributes


class TorchDType(str):
    """A torch.dtype, by its name."""

    __slots__ = ()


class TorchDevice(str):
    """A torch.device, by its name."""

    __slots__ = ()


class TorchSize(tuple[Any, ...]):
    """A torch.Size."""

    __slots__ = ()


_GONE = object()
_Place = TypeVar("_Place", Slot, State)


def replaced(root: Any, slot: Callable[[Slot], Any], state: Callable[[State], Any]) -> Any:
    """Return `root` with what the functions make of its places; None takes a place out, and what was nothing but that.

    In a list or tuple None stands instead, so that the places of the others stay.
    """
    found = _replaced(root, slot, state)
    return None if found is _GONE else found


def _replaced(value: Any, slot: Callable[[Slot], Any], state: Callable[[State], Any]) -> Any:
    match value:
        case Slot():
            made = slot(value)
            return _GONE if made is None else made
        case State():
            made = state(value)
            return _GONE if made is None else made
        case Mapping():
            items = {key: _replaced(item, slot, state) for key, item in value.items()}
            kept = {key: item for key, item in items.items() if item is not _GONE}
            is_emptied = not kept and bool(items)
            return _GONE if is_emptied else alike(value, kept)
        case list() | tuple() if value:
            members = [_replaced(item, slot, state) for item in value]
            if all(item is _GONE for item in members):
                return _GONE
            return type(value)(None if item is _GONE else item for item in members)
        case _:
            return value


def alike(value: Mapping[Any, Any], items: dict[Any, Any]) -> dict[Any, Any]:
    """Return `items` in a dict of the same kind as `value`, with its attributes."""
    return OrderedMapping(items, value.attributes) if isinstance(value, OrderedMapping) else items


def places(root: Any, kind: type[_Place]) -> Iterator[_Place]:
    """Yield the places of weights (`Slot`) or of optimizers' states (`State`), in order."""
    if isinstance(root, kind):
        yield root
    elif isinstance(root, Mapping):
        for item in root.values():
            yield from places(item, kind)
    elif isinstance(root, list | tuple):
        for item in root:
            yield from places(item, kind)
