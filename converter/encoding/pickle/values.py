"""What the pickle machine makes where Python would make instances: plain data that nothing was called for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Protocol

from converter.encoding.pickle.globals import Global

_NOTHING: Mapping[Any, Any] = MappingProxyType({})


class Bytes(Protocol):
    """Bytes by position: a SourceFile, or a MemoryBytes."""

    size: int

    def read(self, offset: int, length: int) -> bytes:
        """Return exactly `length` bytes from `offset`."""


class Constructed:
    """The base of what constructors return when BUILD may add to it."""

    __slots__ = ()

    def build(self, state: Any) -> None:
        """Take the state that follows the construction. Raises ReadError when it is not of the kind expected."""
        raise NotImplementedError


class Placeholder(Constructed):
    """What a call would have made that nobody makes: what is called, with what, and what the result was given.

    Of a class that is an instance; of a function whatever it returns. `items` and `values` are what was set and
    appended, `state` what BUILD gave it.
    """

    __slots__ = ("_items", "_values", "arguments", "of", "state")

    def __init__(self, of: Global, arguments: tuple[Any, ...] = (), items: Mapping[Any, Any] = _NOTHING) -> None:
        self.of = of
        self.arguments = arguments
        self.state: Any = None
        self._items: dict[Any, Any] | None = dict(items) if items else None
        self._values: list[Any] | None = None

    def __repr__(self) -> str:
        return f"Placeholder({self.of})"

    @property
    def is_bare(self) -> bool:
        """Whether there is nothing in it."""
        return not self.arguments and self.state is None and not self._items and not self._values

    @property
    def items(self) -> Mapping[Any, Any]:
        """What was set, by key."""
        return _NOTHING if self._items is None else self._items

    @property
    def values(self) -> list[Any] | tuple[()]:
        """What was appended."""
        return () if self._values is None else self._values

    def build(self, state: Any) -> None:
        """Keep what BUILD gives it; several make a pair."""
        self.state = state if self.state is None else (self.state, state)

    def settable(self) -> dict[Any, Any]:
        """Return its items, to be added to."""
        if self._items is None:
            self._items = {}
        return self._items

    def extend(self, values: list[Any]) -> None:
        """Append to its values."""
        if self._values is None:
            self._values = []
        self._values.extend(values)


@dataclass(frozen=True, slots=True)
class FileBytes:
    """Bytes that a pickle has as they are, left where they stand in its file."""

    file: Bytes
    offset: int
    length: int

    def __len__(self) -> int:
        return self.length


class OrderedItems(dict[Any, Any]):
    """A dict that a pickle made through a class: an OrderedDict where it `is_ordered`.

    `attributes` is what else the instance had.
    """

    __slots__ = ("attributes", "is_ordered")

    def __init__(self, *, is_ordered: bool = False) -> None:
        super().__init__()
        self.attributes: Any = None
        self.is_ordered = is_ordered
