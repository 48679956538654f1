"""Values that stand inside themselves, as an object does that knows its owner: nothing of them is read twice."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from converter.encoding.pickle import Placeholder

_Put = Callable[[Any], None]
"""Puts another value where one stands."""
_Place = tuple[Any, Any, _Put]
"""A key, what stands under it, and what puts another there."""
_Instead = dict[int, tuple[Any, Any]]
"""Tuples, which cannot be changed, by identity, and what comes in the place of each."""
_LEAVES = frozenset((str, int, float, complex, bool, bytes, type(None)))
_KEYS_SHOWN = 32


def without_loops(root: Any, told: Callable[[list[Any]], None]) -> Any:
    """Return `root`, changed in place: nothing stands where a value would be inside itself; `told` gets the keys to it.

    Objects, which know their owners, are not told of. It takes as many steps as the pickle has operations.
    """
    if not _has_loop(root):
        return root
    changed = [root]
    done: set[int] = set()
    instead: _Instead = {}
    open_: list[tuple[Any, Any, Iterator[_Place]]] = [(root, None, _places(root, _putting(changed, 0), instead))]
    above = {id(root)}
    while open_:
        value, _, inner = open_[-1]
        place = next(inner, None)
        if place is None:
            open_.pop()
            above.discard(id(value))
            done.add(id(value))
            continue
        key, child, put = place
        if id(child) in above:
            if not any(isinstance(each, Placeholder) for each, _, _ in open_[-_KEYS_SHOWN:]):
                told([*(each for _, each, _ in open_[-_KEYS_SHOWN:] if each is not None), key])
            put(None)
        elif id(child) in instead:
            put(instead[id(child)][1])
        elif id(child) not in done:
            open_.append((child, key, _places(child, put, instead)))
            above.add(id(child))
    return changed[0]


def _has_loop(root: Any) -> bool:
    """Whether anything stands inside itself: most of what is read does not, and this takes a part of the time."""
    done: set[int] = set()
    above = {id(root)}
    open_: list[tuple[int, Iterator[Any]]] = [(id(root), _inside(root))]
    while open_:
        own, inner = open_[-1]
        for child in inner:
            if type(child) in _LEAVES or (type(child) is tuple and _is_flat(child)):
                continue
            number = id(child)
            if number in done:
                continue
            if number in above:
                return True
            above.add(number)
            open_.append((number, _inside(child)))
            break
        else:
            open_.pop()
            above.discard(own)
            done.add(own)
    return False


def _is_flat(value: tuple[Any, ...]) -> bool:
    return all(type(each) in _LEAVES or (type(each) is tuple and not each) for each in value)


def _inside(value: Any) -> Iterator[Any]:
    if isinstance(value, list | tuple):
        return iter(value)
    if isinstance(value, dict):
        return iter(value.values())
    if isinstance(value, Placeholder):
        beside = value.values if isinstance(value.values, list) else ()
        return iter((value.arguments, value.state, *beside, *(value.settable().values() if value.items else ())))
    return iter(())


def _places(value: Any, put: _Put, instead: _Instead) -> Iterator[_Place]:
    """Yield the places in a value, which stands where `put` puts, that hold what may hold more."""
    match value:
        case dict():
            yield from _items(value)
        case list():
            yield from _positions(value)
        case tuple():
            yield from _members(value, put, instead)
        case Placeholder():
            yield from _of_object(value)


def _members(value: tuple[Any, ...], put: _Put, instead: _Instead) -> Iterator[_Place]:
    members = list(value)

    def putting(place: int) -> _Put:
        def put_member(other: Any) -> None:
            members[place] = other
            changed = tuple(members)
            instead[id(value)] = value, changed
            put(changed)

        return put_member

    yield from ((place, item, putting(place)) for place, item in enumerate(value) if _holds(item))


def _of_object(value: Placeholder) -> Iterator[_Place]:
    for name in ("arguments", "state"):
        part = getattr(value, name)
        if _holds(part):
            yield None, part, partial(setattr, value, name)
    yield from _items(value.settable()) if value.items else ()
    if isinstance(value.values, list):
        yield from _positions(value.values)


def _items(value: dict[Any, Any]) -> Iterator[_Place]:
    yield from ((key, item, _putting(value, key)) for key, item in list(value.items()) if _holds(item))


def _positions(value: list[Any]) -> Iterator[_Place]:
    yield from ((place, item, _putting(value, place)) for place, item in enumerate(value) if _holds(item))


def _putting(container: Any, key: Any) -> _Put:
    """Return what puts a value under a key; None takes the key out of a dict."""

    def put(other: Any) -> None:
        if other is None and isinstance(container, dict):
            del container[key]
        else:
            container[key] = other

    return put


def _holds(value: Any) -> bool:
    """Whether a value may hold containers."""
    match value:
        case dict():
            return not _LEAVES.issuperset(map(type, value.values()))
        case list() | tuple():
            return not _LEAVES.issuperset(map(type, value))
    return isinstance(value, Placeholder)
