"""How the names of a checkpoint look as those of a model type: where its base model is, and which classes fit."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from converter.dialects.identity.classes import KnownClass, KnownType, layer_of, template_of

POOLER = "pooler"
"""The part of base models that releases of transformers keep in other classes: it tells, and is never missed."""


_DEEPEST = 8
"""How many components may stand before all names: wrappers have one or two, names of strangers 10,000."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sighting:
    """One way to read the names of a checkpoint: `prefix` taken off, and the base model below a name of its own.

    `base_prefix`   that name, "" where the base model's own names are not below one
    `base`          the first components of the base model's own names
    `head`          the names outside the base model, as templates; `layers` their layers
    `outside`       layers whose names do not start with `prefix`
    """

    prefix: str
    base_prefix: str
    base: frozenset[str]
    head: frozenset[str]
    layers: frozenset[str]
    outside: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """A checkpoint seen as one of a class: layers that it lacks, and those that the class has no place for."""

    known: KnownClass
    sighting: Sighting
    missing: frozenset[str]
    left_over: frozenset[str]

    @property
    def lacks_base_prefix(self) -> bool:
        """Whether the base model's names lack the prefix that the class gives them."""
        return bool(self.known.prefix) and not self.sighting.base_prefix

    @property
    def prefix(self) -> str:
        """What stands before each of the class's own names."""
        inside = self.sighting.base_prefix if not self.known.prefix else ""
        return self.sighting.prefix + (f"{inside}." if inside else "")

    @property
    def rank(self) -> tuple[int, int, bool]:
        """A key that sorts better fits first."""
        return len(self.missing), len(self.left_over), self.lacks_base_prefix

    @property
    def is_proven(self) -> bool:
        """Whether layers are there that only classes with this head have."""
        return bool(self.known.layers) or not (self.known.is_base or self.known.prefix)

    @property
    def names_astray(self) -> int:
        """How many names of the head are missing in the checkpoint or unknown to the class."""
        known = self.known
        return len(self.sighting.head - known.head - known.optional) + len(known.head - self.sighting.head)


def fits(known: KnownType, names: Iterable[str], *, is_tied: bool) -> list[Fit]:
    """Return all classes of a type as each sighting, where the two go together; the shortest prefixes come first.

    `is_tied` is whether the config ties word embeddings: what the class ties to them may be missing then.
    """
    found: dict[tuple[str, str], Fit] = {}
    for sighting in sightings(known, tuple(names)):
        for each in known.classes.values():
            if each.prefix == sighting.base_prefix or (each.is_base if sighting.base_prefix else each.prefix):
                fit = _fit(known, each, sighting, is_tied=is_tied)
                other = found.get((each.name, fit.prefix), fit)
                found[each.name, fit.prefix] = min(fit, other, key=lambda each: each.rank)
    return sorted(found.values(), key=lambda fit: len(fit.prefix))


def _fit(known: KnownType, each: KnownClass, sighting: Sighting, *, is_tied: bool) -> Fit:
    tied = each.tied_layers if is_tied else frozenset[str]()
    base = each.base | each.base_optional
    has_all_names = not each.prefix and not sighting.base_prefix
    layers = sighting.layers
    if has_all_names:
        layers = frozenset(layer for layer in layers if layer.partition(".")[0] not in base)
    needed = each.base - {POOLER} if not known.anchor else frozenset[str]()
    firsts = {name.partition(".")[0] for name in sighting.head} if has_all_names else set()
    missing = (each.layers - tied - sighting.layers) | (needed - sighting.base - firsts)
    left_over = (layers - each.layers - each.optional_layers - tied) | (sighting.base - base - {POOLER})
    return Fit(known=each, sighting=sighting, missing=missing, left_over=left_over | sighting.outside)


def sightings(known: KnownType, names: tuple[str, ...]) -> Iterator[Sighting]:
    """Yield how names can be seen as those of a model type; those with the shortest prefix first.

    Where all its base models have one name alike, there is one way at most, and what is beside it is `outside`.
    """
    if known.anchor:
        anchors = anchored(known, names)
        if len(anchors) == 1:
            before = anchors[0].removesuffix(known.anchor)
            inside = [prefix for prefix in known.prefixes if f".{before}".endswith(f".{prefix}.")]
            yield _sighting(known, names, before.removesuffix(f"{inside[0]}." if inside else ""), *inside[:1])
        return
    for outer in _outers(names):
        for prefix in known.prefixes:
            if any(name.startswith(f"{outer}{prefix}.") for name in names):
                yield _sighting(known, names, outer, prefix)
        yield _sighting(known, names, outer)


def anchored(known: KnownType, names: Iterable[str]) -> list[str]:
    """Return the names that end like the one that base models of the type have once."""
    return [name for name in names if f".{name}".endswith(f".{known.anchor}")]


def _outers(names: tuple[str, ...]) -> Iterator[str]:
    """Yield what all names start with: nothing, their first component where it is one, and so on."""
    outer = ""
    yield outer
    if not names:
        return
    for part in names[0].split(".", _DEEPEST)[:-1]:
        outer += f"{part}."
        if not all(name.startswith(outer) for name in names):
            return
        yield outer


def _sighting(known: KnownType, names: tuple[str, ...], prefix: str, base_prefix: str = "") -> Sighting:
    inside = [name.removeprefix(prefix) for name in names if name.startswith(prefix)]
    below = f"{base_prefix}."
    base: set[str] = set()
    head: set[str] = set()
    for name in inside:
        first = (name.removeprefix(below) if base_prefix else name).partition(".")[0]
        if name.startswith(below) if base_prefix else first in known.modules:
            base.add(first)
        else:
            head.add(name)
    templates = frozenset(map(template_of, head))
    return Sighting(
        prefix=prefix,
        base_prefix=base_prefix,
        base=frozenset(base & known.modules),
        head=templates,
        layers=frozenset(map(layer_of, templates)),
        outside=frozenset(layer_of(name) for name in names if not name.startswith(prefix)),
    )
