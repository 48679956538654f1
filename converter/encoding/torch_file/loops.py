"""Values that stand inside themselves, as an object does that knows its owner: nothing of them is read twice."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from converter.encoding.pickle import Placeholder

_LEAVES = frozenset((str, int, float, complex, bool, bytes, type(None)))
_KEYS_SHOWN = 32
_ABOVE_KEYS = 2
"""The root has no key, nor what it is in here."""


def without_loops(root: Any, told: Callable[[list[Any]], None]) -> Any:
    """Return `root`, changed in place: nothing stands where a value would be inside itself; `told` gets the keys to it.

    Objects, which know their owners, are not told of. It takes as many steps as the pickle has operations.
    """
    return _Loops(told).cut(root)


class _Loops:
    """The walk, in depth: `_open` has each value that it is inside of, the key that this stands under, and its rest."""

    def __init__(self, told: Callable[[list[Any]], None]) -> None:
        self._told = told
        self._open: list[tuple[Any, Any, Iterator[tuple[Any, Any]]]] = []
        self._above: set[int] = set()
        self._done: set[int] = set()
        self._members: dict[int, list[Any]] = {}
        self._instead: dict[int, tuple[Any, Any]] = {}
        """Tuples, which cannot be changed, and what comes in the place of each."""
        self._gone: list[tuple[dict[Any, Any], Any]] = []

    def cut(self, root: Any) -> Any:
        """Return a value without loops."""
        changed = [root]
        self._enter(changed, None)
        while self._open:
            value, key, inner = self._open[-1]
            for place, child in inner:
                if type(child) not in _LEAVES and self._look(value, place, child):
                    break
            else:
                self._leave(value, key)
        for items, key in self._gone:
            del items[key]
        return changed[0]

    def _look(self, value: Any, place: Any, child: Any) -> bool:
        """Look at what stands at a place of `value`, and return whether it was entered."""
        identity = id(child)
        if identity in self._above:
            shown = self._open[max(_ABOVE_KEYS, len(self._open) - _KEYS_SHOWN) :]
            if not any(isinstance(each, Placeholder) for each, _, _ in self._open[-_KEYS_SHOWN:]):
                self._told([*(key for _, key, _ in shown), place])
            self._put(value, place, None)
        elif identity in self._instead:
            self._put(value, place, self._instead[identity][1])
        elif identity not in self._done and _holds(child):
            self._enter(child, place)
            return True
        return False

    def _enter(self, value: Any, key: Any) -> None:
        self._above.add(id(value))
        self._open.append((value, key, _inside(value)))

    def _leave(self, value: Any, key: Any) -> None:
        self._open.pop()
        self._above.discard(id(value))
        self._done.add(id(value))
        members = self._members.pop(id(value), None)
        if members is not None:
            self._instead[id(value)] = value, tuple(members)
            self._put(self._open[-1][0], key, tuple(members))

    def _put(self, value: Any, place: Any, other: Any) -> None:
        match value:
            case dict():
                value[place] = other
                if other is None:
                    self._gone.append((value, place))
            case list():
                value[place] = other
            case tuple():
                self._members.setdefault(id(value), list(value))[place] = other
            case _:
                setattr(value, place, other)


def _holds(value: Any) -> bool:
    """Whether a value may hold containers."""
    match value:
        case dict():
            return not _LEAVES.issuperset(map(type, value.values()))
        case list() | tuple():
            return not _LEAVES.issuperset(map(type, value))
    return isinstance(value, Placeholder)


def _inside(value: Any) -> Iterator[tuple[Any, Any]]:
    """Return what is in a value, each with what `_put` takes for its place.

    The items and values of an object are nowhere else, and no place for another.
    """
    match value:
        case dict():
            return iter(value.items())
        case list() | tuple():
            return enumerate(value)
    return iter(
        (("arguments", value.arguments), ("state", value.state), ("items", value.items), ("values", value.values))
    )
