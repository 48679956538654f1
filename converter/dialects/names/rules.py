"""Two-way rules from names to names: whole-name templates, one pass, validated when the table is built.

A template is a name with placeholders: ``{n}`` stands for one component (no dot), ``{path*}`` for any number. All
templates of a rule have the same placeholders, so that each name gives the others.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from converter.dialects.names.operations import TwoWay, check_counts
from converter.dialects.rewriting import Derivation, Rewriting
from converter.errors import LossError, UsageError
from converter.model.checkpoint import Checkpoint

_PLACEHOLDER = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)(\*?)\}")


@dataclass(frozen=True, slots=True)
class _Template:
    text: str
    _pattern: re.Pattern[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        parts, position = [], 0
        for match in _PLACEHOLDER.finditer(self.text):
            parts.append(re.escape(self.text[position : match.start()]))
            parts.append(f"(?P<{match[1]}>{'.+' if match[2] else '[^.]+'})")
            position = match.end()
        object.__setattr__(self, "_pattern", re.compile("".join(parts) + re.escape(self.text[position:])))

    def match(self, name: str) -> Mapping[str, str] | None:
        match = self._pattern.fullmatch(name)
        return None if match is None else match.groupdict()

    def filled(self, parts: Mapping[str, str]) -> str:
        return _PLACEHOLDER.sub(lambda placeholder: parts[placeholder[1]], self.text)


@dataclass(frozen=True, slots=True, kw_only=True)
class Names:
    """What the two sides of a rule call some tensors: `before` in the checkpoint, `after` in what is made of it."""

    before: tuple[str, ...]
    after: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule, both ways: the names on the left, those on the right, and what makes the right tensors of the left.

    Raises UsageError when templates do not have the same placeholders, each once; when both sides have several; and
    when the operations make another number of tensors.
    """

    left: tuple[str, ...]
    right: tuple[str, ...]
    operations: tuple[TwoWay, ...] = ()
    _templates: tuple[tuple[_Template, ...], tuple[_Template, ...]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for side in (self.left, self.right):
            for text in side:
                self._check(text)
        if not self.left or not self.right or min(len(self.left), len(self.right)) > 1:
            raise UsageError(f"rule {self}: one side has one name, the other one or several")
        try:
            check_counts(self.operations, len(self.left), len(self.right))
        except UsageError as error:
            raise UsageError(f"rule {self}: {error.message}") from None
        templates = tuple(tuple(map(_Template, side)) for side in (self.left, self.right))
        object.__setattr__(self, "_templates", templates)

    def _check(self, text: str) -> None:
        first, own = (sorted(match.groups() for match in _PLACEHOLDER.finditer(side)) for side in (self.left[0], text))
        if own != first or len({name for name, _ in own}) != len(own):
            raise UsageError(f"rule {self}: all names need the same placeholders, each once")

    def __str__(self) -> str:
        left, right = (side[0] if len(side) == 1 else list(side) for side in (self.left, self.right))
        return f"{left!r} -> {right!r}"

    def names(self, name: str, *, is_forward: bool) -> Names | None:
        """Return the names on both sides of what `name` is on one, None when it is not of this rule."""
        before, after = self._templates if is_forward else reversed(self._templates)
        for template in before:
            parts = template.match(name)
            if parts is not None:
                return Names(
                    before=tuple(each.filled(parts) for each in before),
                    after=tuple(each.filled(parts) for each in after),
                )
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleTable:
    """Rules that are applied together; a name that two of them claim, on either side, is an error."""

    rules: Sequence[Rule]

    def is_forward(self, names: Iterable[str]) -> bool:
        """Whether the left side knows more of `names` than the right.

        Raises UsageError when neither knows one, or both know as many.
        """
        known = list(names)
        left, right = (
            sum(any(rule.names(name, is_forward=side) is not None for rule in self.rules) for name in known)
            for side in (True, False)
        )
        if left == right:
            what = "both sides match as well" if left else "neither side of the mapping matches a name"
            raise UsageError(f"{what}: its direction is unknown")
        return left > right

    def apply(self, checkpoint: Checkpoint, *, is_forward: bool) -> Checkpoint:
        """Return the checkpoint in the other side's names and layouts; names of no rule stay as they are.

        Raises LossError when two rules claim a name, two names become one, tensors that are joined are not all
        there, or tied ones come apart; ReadError when a shape does not fit.
        """
        return _Mapping(rewriting=Rewriting(source=checkpoint), table=self, is_forward=is_forward).result()

    def unused(self, names: Iterable[str], *, is_forward: bool) -> tuple[Rule, ...]:
        """Return the rules that none of `names` is of."""
        known = list(names)
        return tuple(
            rule for rule in self.rules if all(rule.names(each, is_forward=is_forward) is None for each in known)
        )

    def find(self, name: str, *, is_forward: bool) -> tuple[Rule | None, Names]:
        """Return the rule that a name is of, and what it calls its tensors. Raises LossError when there are two."""
        found = [(rule, names) for rule in self.rules if (names := rule.names(name, is_forward=is_forward)) is not None]
        if len(found) > 1:
            raise LossError(f"is claimed by several rules: {' and '.join(str(rule) for rule, _ in found)}", tensor=name)
        return found[0] if found else _kept(name)


@dataclass(slots=True, kw_only=True)
class _Mapping:
    """A checkpoint on its way to the other side's names."""

    rewriting: Rewriting
    table: RuleTable
    is_forward: bool
    _found: dict[str, tuple[Rule | None, Names]] = field(default_factory=dict)

    def result(self) -> Checkpoint:
        rewriting, source = self.rewriting, self.rewriting.source
        self._found = {name: self.table.find(name, is_forward=self.is_forward) for name in source.names}
        for name, (rule, names) in self._found.items():
            if name == names.before[0]:
                self._put(rule, names)
            elif names.before[0] not in self._found:
                raise _missing(names.before[0], names)
        self._tie()
        for name in source.buffers:
            rewriting.buffers.update(self._after(name))
        for name in source.frozen:
            rewriting.frozen.update(self._after(name))
        return rewriting.done(source.dialect, **rewriting.state())

    def _after(self, name: str) -> tuple[str, ...]:
        return self._found[name][1].after

    def _put(self, rule: Rule | None, names: Names) -> None:
        lacking = next((each for each in names.before if each not in self._found), None)
        if lacking is not None:
            raise _missing(lacking, names)
        operations = () if rule is None else rule.operations
        self.rewriting.carry(
            Derivation(before=names.before, after=names.after, operations=operations, is_forward=self.is_forward)
        )

    def _tie(self) -> None:
        """Keep ties whose two sides were rearranged alike."""
        for alias, owner in self.rewriting.source.aliases.items():
            (rule, names), (other_rule, others) = self._found[alias], self._found[owner]
            operations = () if rule is None else rule.operations
            if operations != (() if other_rule is None else other_rule.operations) or len(names.before) > 1:
                raise LossError(f"is tied to {owner}, and the mapping rearranges one of them", tensor=alias)
            for new, new_owner in zip(names.after, others.after, strict=True):
                del self.rewriting.tensors[new]
                self.rewriting.aliases[new] = new_owner


def _kept(name: str) -> tuple[None, Names]:
    return None, Names(before=(name,), after=(name,))


def _missing(name: str, names: Names) -> LossError:
    return LossError(
        f"is not in the checkpoint, and the mapping joins it with {_listed(set(names.before) - {name})}", tensor=name
    )


def _listed(names: Iterable[str]) -> str:
    return ", ".join(map(repr, names))
