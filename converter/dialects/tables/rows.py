"""Rows of a table: two names of one tensor, and how its layouts differ. Templates, whole names, read both ways.

``{n}`` in a template stands for the digits of one list index. Both sides of a row have the same placeholders, each
once, so either name gives the other.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from converter.dialects.names.operations import Rearrange, TwoWay
from converter.dialects.names.rearrangement import Rearrangement

_PLACEHOLDER = re.compile(r"\{([a-z]+)\}")
_DIGITS = re.compile(r"\d+")
_NUMBER = "#"

Indices = Mapping[str, str]


@lru_cache(maxsize=256)
def layout_of(pattern: str | None) -> Rearrangement | None:
    """Return the layout that `pattern` says, None for tensors that both sides store alike. Raises ValueError."""
    return None if pattern is None else Rearrangement(pattern=pattern)


@dataclass(frozen=True, slots=True, kw_only=True)
class Template:
    """A name with placeholders. Raises ValueError when one occurs twice."""

    text: str
    _pattern: re.Pattern[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if len(set(self.placeholders)) != len(self.placeholders):
            raise ValueError(f"{self.text!r} has a placeholder twice")
        parts = enumerate(_PLACEHOLDER.split(self.text))
        pattern = "".join(f"(?P<{part}>[0-9]+)" if index % 2 else re.escape(part) for index, part in parts)
        object.__setattr__(self, "_pattern", re.compile(pattern))

    @property
    def placeholders(self) -> tuple[str, ...]:
        """The names of the placeholders, in order."""
        return tuple(_PLACEHOLDER.findall(self.text))

    @property
    def key(self) -> str:
        """The template with every number and placeholder made alike; names that match have the same `key_of`."""
        return key_of(_PLACEHOLDER.sub(_NUMBER, self.text))

    def indices(self, name: str) -> Indices | None:
        """Return what the placeholders stand for in `name`, None when it does not match."""
        match = self._pattern.fullmatch(name)
        return None if match is None else match.groupdict()

    def filled(self, indices: Indices) -> str:
        """Return the name with these indices. Raises KeyError when one is missing."""
        return _PLACEHOLDER.sub(lambda placeholder: indices[placeholder[1]], self.text)

    def overlaps(self, other: Template) -> bool:
        """Whether some name matches both."""
        if self.key != other.key:
            return False
        own, its = (re.findall(r"\d+|\{[a-z]+\}", template.text) for template in (self, other))
        return all(mine == yours or "{" in mine + yours for mine, yours in zip(own, its, strict=True))


def key_of(name: str) -> str:
    """Return `name` with every number made alike."""
    return _DIGITS.sub(_NUMBER, name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One tensor of a model type: `theirs` and `canonical` are templates, `layout` has theirs on the left.

    `theirs` may have placeholders more, for numbers that say nothing; such a row reads one way.

    Raises ValueError when `canonical` has placeholders more, or the layout does not read both ways.
    """

    theirs: Template
    canonical: Template
    layout: Rearrangement | None = None

    @property
    def operations(self) -> tuple[TwoWay, ...]:
        """What makes PyTorch's tensor of theirs."""
        return () if self.layout is None else (Rearrange(self.layout),)

    def __post_init__(self) -> None:
        if not set(self.theirs.placeholders) >= set(self.canonical.placeholders):
            raise ValueError(f"{self.canonical.text!r} has a placeholder that {self.theirs.text!r} lacks")

    def rank(self, side: str) -> int | None:
        """Return how many axes the tensor has on a side, "theirs" or "canonical"; None when the row does not say."""
        if self.layout is None:
            return None
        theirs, _, canonical = self.layout.pattern.partition("->")
        return len((theirs if side == "theirs" else canonical).split())

    @classmethod
    def of(cls, entry: Sequence[str | None]) -> Row:
        """Return the row that a table file has as [theirs, canonical, layout]. Raises ValueError for anything else."""
        match entry:
            case [str(theirs), str(canonical), (str() | None) as layout]:
                return cls(theirs=Template(text=theirs), canonical=Template(text=canonical), layout=layout_of(layout))
        raise ValueError(f"{entry!r} is no row: it needs two names and a layout")


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """A name that a row has: `name` is that of the other side, `indices` what its placeholders stand for."""

    row: Row
    name: str
    indices: Indices

    @property
    def layout(self) -> Rearrangement | None:
        """How the two layouts differ; theirs is what Rearrangement calls Keras's."""
        return self.row.layout

    @property
    def operations(self) -> tuple[TwoWay, ...]:
        """What makes PyTorch's tensor of theirs."""
        return self.row.operations


class Rows:
    """Rows that are applied together. Raises ValueError when two of them claim one name, on a side that is read.

    Two rows may have one name for tensors of different ranks; then a name needs its tensor's rank.

    `is_two_way`   whether canonical names are read as well, so that each is in one row only
    """

    __slots__ = ("_by_canonical", "_by_theirs", "all")

    def __init__(self, rows: Iterable[Row], *, is_two_way: bool = True) -> None:
        self.all = tuple(rows)
        self._by_theirs = _index(self.all, "theirs")
        self._by_canonical = _index(self.all, "canonical") if is_two_way else {}
        for row in self.all:
            if is_two_way and len(row.theirs.placeholders) != len(row.canonical.placeholders):
                raise ValueError(f"{row.theirs.text!r} and {row.canonical.text!r} need the same placeholders")

    def to_canonical(self, name: str, rank: int | None = None) -> Match | None:
        """Return what PyTorch calls their `name`, None when no row has it."""
        for row in self._by_theirs.get(key_of(name), ()):
            indices = row.theirs.indices(name)
            if indices is not None and _is_of_rank(row, "theirs", rank):
                return Match(row=row, name=row.canonical.filled(indices), indices=indices)
        return None

    def from_canonical(self, name: str, rank: int | None = None) -> Match | None:
        """Return what they call PyTorch's `name`, None when no row has it."""
        for row in self._by_canonical.get(key_of(name), ()):
            indices = row.canonical.indices(name)
            if indices is not None and _is_of_rank(row, "canonical", rank):
                return Match(row=row, name=row.theirs.filled(indices), indices=indices)
        return None


def _is_of_rank(row: Row, side: str, rank: int | None) -> bool:
    return rank is None or row.rank(side) in (None, rank)


def _index(rows: Iterable[Row], side: str) -> dict[str, tuple[Row, ...]]:
    """Return the rows by key, so that a name is tried against few of them."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        template: Template = getattr(row, side)
        others = found.setdefault(template.key, [])
        for other in others:
            differ_in_rank = None not in (row.rank(side), other.rank(side)) and row.rank(side) != other.rank(side)
            if template.overlaps(getattr(other, side)) and not differ_in_rank:
                raise ValueError(f"{template.text!r} is in two rows, as {side}")
        others.append(row)
    return {key: tuple(group) for key, group in found.items()}
