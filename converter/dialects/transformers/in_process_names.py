"""Names that transformers 5 has in memory, brought to the hub's, which save_pretrained writes and all else here uses.

Names alone tell which side a checkpoint is on; its config says which rows there are (`in_process_rows`). What those of
the whole model do not say, those of its parts may: every config inside the config has rows of its own.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from converter.dialects.rewriting import Derivation, Rewriting
from converter.dialects.tables.rows import Indices, key_of
from converter.dialects.transformers.in_process_rows import Packed, Variant, variants
from converter.errors import LossError
from converter.model.checkpoint import Checkpoint, class_named, type_named

_OUTER_COMPONENTS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """How many names only one of the sides has, and how many are the same on both, as far as rows say."""

    in_process: int
    on_hub: int
    either: int

    @property
    def explained(self) -> int:
        """How many names the side that explains more of them explains; 0 when every name is on both sides."""
        decided = max(self.in_process, self.on_hub)
        return decided + self.either if decided else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacedRows:
    """Rows, and what stands before their names on either side."""

    variant: Variant
    process: str
    hub: str
    is_named: bool = False

    def counts(self, names: Iterable[str]) -> Counts:
        """Return on which side `names` are."""
        in_process = {name for name in names if self._has(name, self.process, in_process=True)}
        hub = {name for name in names if self._has(name, self.hub, in_process=False)}
        either = {name for name in names if name not in in_process | hub and self.stays(name)}
        return Counts(
            in_process=len(in_process - hub), on_hub=len(hub - in_process), either=len(in_process & hub) + len(either)
        )

    def stays(self, name: str) -> bool:
        """Whether the name is known to be the same on both sides."""
        rests = [name.removeprefix(prefix) for prefix in (self.process, self.hub) if name.startswith(prefix)]
        return any(path.fullmatch(rest) for rest in rests for path in self.variant.stays)

    def has_row(self, name: str) -> bool:
        """Whether a row has the name, on either side."""
        return any(
            name.startswith(prefix) and self.variant.has(name.removeprefix(prefix), in_process=in_process)
            for prefix, in_process in ((self.process, True), (self.hub, False))
        )

    def _has(self, name: str, prefix: str, *, in_process: bool) -> bool:
        rest = name.removeprefix(prefix)
        if not name.startswith(prefix):
            return False
        return (
            self.variant.has(rest, in_process=in_process)
            or self.variant.moved_name(rest, in_process=in_process) is not None
            or (in_process and self.variant.why_left_out(rest) is not None)
        )

    def hub_name(self, name: str) -> str:
        """Return the hub's name for a name in memory; for a packed tensor, the templates of its row."""
        if not name.startswith(self.process):
            return name
        rest = name.removeprefix(self.process)
        renamed, packed = self.variant.rows.to_canonical(rest), self.variant.packed_row(rest, in_process=True)
        if renamed is not None:
            return self.hub + renamed.name
        if packed is not None:
            return f"{self.hub}{packed[0].whole.text} {packed[0].parts[0].text}"
        return self.hub + (self.variant.moved_name(rest, in_process=True) or rest)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What names were found to be: `places` have rows for them, the first that has one counts.

    `is_ambiguous` says that several classes fit as well, and call them differently on the hub.
    """

    places: tuple[PlacedRows, ...]
    is_ambiguous: bool
    in_process: int
    on_hub: int


def read_names(names: Sequence[str], config: Mapping[str, Any]) -> Reading:
    """Return which rows of the table the names are of, by the model type of `config` and those of its parts.

    Of names that differ in numbers alone, one is looked at.
    """
    names = list({key_of(name): name for name in names}.values())
    model_type, named = type_named(config), class_named(config)
    own = () if model_type is None else variants(model_type)
    places: list[PlacedRows] = []
    for outers in ([""], _outer(names, 1)):
        candidates = [
            PlacedRows(variant=variant, process=before, hub=before, is_named=_is_meant(class_name, named))
            for outer in outers
            for variant in own
            for class_name, prefix in variant.classes.items()
            for before in (outer + prefix,)
        ]
        places = places or _best(candidates, names)
    is_ambiguous = len(places) > 1 and any(place.counts(names).in_process for place in places)
    places = places[:1]
    left = [name for name in names if not any(place.has_row(name) or place.stays(name) for place in places)]
    for key, part in _parts(config):
        places += _best(_nested(places, left, key, part), left)[:1]
    counted = [place.counts(names) for place in places]
    return Reading(
        places=tuple(places),
        is_ambiguous=is_ambiguous,
        in_process=sum(counts.in_process for counts in counted),
        on_hub=sum(counts.on_hub for counts in counted),
    )


def _is_meant(class_name: str, named: str | None) -> bool:
    """Whether a class is the one that the config names; if it names none, any but a backbone, which few save alone."""
    return class_name == named if named is not None else not class_name.endswith("Backbone")


def _parts(config: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield key and model type of the configs in a config."""
    for key, value in config.items():
        model_type = type_named(value) if isinstance(value, Mapping) else None
        if model_type is not None:
            yield key, model_type


def _outer(names: Iterable[str], components: int) -> list[str]:
    """Return what may stand before the names of a part of a model: their first components."""
    found: dict[str, None] = {}
    for name in names:
        parts = name.split(".")[:-1]
        found.update({".".join(parts[:count]) + ".": None for count in range(1, min(components, len(parts)) + 1)})
    return [outer for outer in found if not re.search(r"\d", outer)]


def _nested(places: Sequence[PlacedRows], names: Sequence[str], key: str, model_type: str) -> list[PlacedRows]:
    """Return where the rows of a part may be: below a path that the whole model moves, or anywhere as it is."""
    moved = [
        (place.process + process + ".", place.hub + hub + ".")
        for place in places
        for process, hub in place.variant.moved.items()
    ]
    outers = [*moved, *((outer, outer) for outer in _outer(names, _OUTER_COMPONENTS))]
    wants_backbone = key == "backbone_config"
    return [
        PlacedRows(variant=variant, process=process + prefix, hub=hub + prefix, is_named=is_backbone == wants_backbone)
        for process, hub in outers
        for variant in variants(model_type)
        for class_name, prefix in variant.classes.items()
        for is_backbone in (class_name.endswith("Backbone"),)
        if not prefix or is_backbone
    ]


def _best(candidates: Sequence[PlacedRows], names: Sequence[str]) -> list[PlacedRows]:
    """Return the candidates that explain most of the names and disagree; the class that the config names before others.

    One is enough where all of them say the same.
    """
    counted = [(place.counts(names).explained, place.is_named, place) for place in candidates]
    best = max((entry[:2] for entry in counted), default=(0, False))
    found: dict[tuple[str, ...], PlacedRows] = {}
    for *score, place in counted:
        if best[0] and tuple(score) == best:
            found.setdefault(tuple(place.hub_name(name) for name in names), place)
    return list(found.values())


def to_hub(checkpoint: Checkpoint) -> Checkpoint:
    """Return a checkpoint of names that transformers 5 has in memory with those that it saves; others as they are.

    Needs a config that says the model type. Nothing is read. Raises LossError for names that no row can say on the
    hub, for parts that are missing, and when two names become one; ReadError for a shape that is not its row's.
    """
    if checkpoint.config is None:
        return checkpoint
    config = checkpoint.config.values
    reading = read_names(checkpoint.names, config)
    if reading.is_ambiguous:
        warning = "names kept: several classes have them in memory, which their config does not tell apart"
        return replace(checkpoint, warnings=(*checkpoint.warnings, warning))
    if not reading.in_process:
        return checkpoint
    if reading.on_hub:
        warning = (
            f"names kept: {reading.in_process} kinds are those that transformers 5 has in memory, "
            f"{reading.on_hub} those that it saves"
        )
        return replace(checkpoint, warnings=(*checkpoint.warnings, warning))
    warning = f"{config['model_type']}: names that transformers 5 has in memory, here as save_pretrained writes them"
    rewriting = Rewriting(source=checkpoint, warnings=[warning])
    return _Renaming(rewriting=rewriting, places=reading.places, is_from_process=True).result()


def to_in_process(checkpoint: Checkpoint) -> Checkpoint:
    """Return a checkpoint of the hub's names with those that transformers 5 has in memory; the inverse of `to_hub`.

    Raises as `to_hub` does, and LossError where only the number of heads says how a tensor is divided.
    """
    if checkpoint.config is None:
        return checkpoint
    reading = read_names(checkpoint.names, checkpoint.config.values)
    if not reading.on_hub or reading.in_process:
        return checkpoint
    rewriting = Rewriting(source=checkpoint)
    return _Renaming(rewriting=rewriting, places=reading.places, is_from_process=False).result()


@dataclass(slots=True, kw_only=True)
class _Renaming:
    """A checkpoint on its way to the names of the other side."""

    rewriting: Rewriting
    places: Sequence[PlacedRows]
    is_from_process: bool
    held: frozenset[str] = frozenset()

    def result(self) -> Checkpoint:
        """Translate everything."""
        rewriting, source = self.rewriting, self.rewriting.source
        self.held = frozenset(source.names)
        for name in source.names:
            if name not in rewriting.derivations:
                self._translate(name)
        for name, owner in source.aliases.items():
            derivation, of_owner = rewriting.derivations[name], rewriting.derivations[owner]
            if not derivation.operations and not of_owner.operations:
                del rewriting.tensors[derivation.after[0]]
                rewriting.aliases[derivation.after[0]] = of_owner.after[0]
        rewriting.buffers.update(new for name in source.buffers for new in rewriting.derivations[name].after)
        rewriting.frozen.update(new for name in source.frozen for new in rewriting.derivations[name].after)
        return rewriting.done(source.dialect, **rewriting.state())

    def _translate(self, name: str) -> None:
        for place in self.places:
            own, other = (place.process, place.hub) if self.is_from_process else (place.hub, place.process)
            if not name.startswith(own):
                continue
            rest = name.removeprefix(own)
            rows = place.variant.rows
            match = rows.to_canonical(rest) if self.is_from_process else rows.from_canonical(rest)
            if match is not None:
                return self._rename(name, other + match.name)
            packed = place.variant.packed_row(rest, in_process=self.is_from_process)
            if packed is not None:
                return self._repack(name, *packed, own=own, other=other)
            why = place.variant.why_left_out(rest) if self.is_from_process else None
            if why is not None:
                raise LossError(f"is stored on the hub in a form that is not known here ({why})", tensor=name)
        return self._rename(name, self._moved(name))

    def _moved(self, name: str) -> str:
        for place in self.places:
            own, other = (place.process, place.hub) if self.is_from_process else (place.hub, place.process)
            if name.startswith(own):
                new = place.variant.moved_name(name.removeprefix(own), in_process=self.is_from_process)
                if new is not None:
                    return other + new
        return name

    def _rename(self, name: str, new: str) -> None:
        self.rewriting.carry(Derivation(before=(name,), after=(new,)))

    def _repack(self, name: str, row: Packed, indices: Indices, *, own: str, other: str) -> None:
        source = self.rewriting.source
        whole = source.tensor(name) if row.is_in_process == self.is_from_process else None
        if whole is not None and not self.is_from_process:
            self._check_heads(name, row)
        self.rewriting.carry(row.derivation(self.held, indices, before=own, after=other, whole=whole))

    def _check_heads(self, name: str, row: Packed) -> None:
        config = self.rewriting.source.config
        values = {} if config is None else config.values
        parts = [part for part in (values, *values.values()) if isinstance(part, Mapping)]
        is_uneven = any(
            part.get("num_key_value_heads") not in (None, part.get("num_attention_heads")) for part in parts
        )
        if len(row.parts) > 2 and is_uneven:
            raise LossError("joins queries with fewer keys and values: its shape does not say how many", tensor=name)
