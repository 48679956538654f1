"""Two-way rules from names to names: whole-name templates, one pass, validated when the table is built.

A template is a name with placeholders: ``{n}`` stands for one component (no dot), ``{path*}`` for any number. Both
sides of a rule have the same placeholders, so each can be read from the other.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from converter.errors import LossError, UsageError
from converter.model.checkpoint import Checkpoint
from converter.model.tensor import Tensor

_PLACEHOLDER = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)(\*?)\}")
_LAYOUTS = ("as is", "transpose")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One name rule, both ways. `layout` is "as is" or "transpose" (all axes reversed).

    Raises UsageError when the two templates do not have the same placeholders, each once.
    """

    left: str
    right: str
    layout: str = "as is"
    _patterns: tuple[re.Pattern[str], re.Pattern[str]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        sides = [sorted(match.groups() for match in _PLACEHOLDER.finditer(side)) for side in (self.left, self.right)]
        if sides[0] != sides[1] or len({name for name, _ in sides[0]}) != len(sides[0]):
            raise UsageError(f"rule {self.left!r} -> {self.right!r}: the sides need the same placeholders, each once")
        if self.layout not in _LAYOUTS:
            raise UsageError(f"rule {self.left!r}: layout is one of {', '.join(_LAYOUTS)}, not {self.layout!r}")
        object.__setattr__(self, "_patterns", (_pattern(self.left), _pattern(self.right)))

    def forward(self, name: str) -> str | None:
        """Return what the right side calls `name`, None when it is not of this rule."""
        return _filled(self._patterns[0], self.right, name)

    def backward(self, name: str) -> str | None:
        """Return what the left side calls `name`, None when it is not of this rule."""
        return _filled(self._patterns[1], self.left, name)


def _pattern(template: str) -> re.Pattern[str]:
    parts, position = [], 0
    for match in _PLACEHOLDER.finditer(template):
        parts.append(re.escape(template[position : match.start()]))
        parts.append(f"(?P<{match[1]}>{'.+' if match[2] else '[^.]+'})")
        position = match.end()
    return re.compile("".join(parts) + re.escape(template[position:]))


def _filled(pattern: re.Pattern[str], template: str, name: str) -> str | None:
    match = pattern.fullmatch(name)
    return None if match is None else _PLACEHOLDER.sub(lambda placeholder: match[placeholder[1]], template)


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleTable:
    """Rules that are applied together; a name that two of them claim, on either side, is an error."""

    rules: Sequence[Rule]

    def direction_of(self, names: Iterable[str]) -> str:
        """Return "forward" or "backward", whichever side knows more of `names`.

        Raises UsageError when neither knows one, or both know as many.
        """
        known = list(names)
        counts = {
            "forward": sum(any(rule.forward(name) is not None for rule in self.rules) for name in known),
            "backward": sum(any(rule.backward(name) is not None for rule in self.rules) for name in known),
        }
        if counts["forward"] == counts["backward"]:
            what = "neither side of the mapping matches a name" if not counts["forward"] else "both sides match as well"
            raise UsageError(f"{what}: its direction is unknown")
        return max(counts, key=lambda direction: counts[direction])

    def apply(self, checkpoint: Checkpoint, direction: str) -> Checkpoint:
        """Return the checkpoint in the other side's names and layouts; names of no rule stay as they are.

        Raises LossError when two rules claim a name, or two names become one.
        """
        chosen = {name: self._rule_for(name, direction) for name in checkpoint.names}
        new = {name: name if rule is None else rule[1] for name, rule in chosen.items()}
        transposed = {name for name, rule in chosen.items() if rule is not None and rule[0].layout == "transpose"}
        for alias, owner in checkpoint.aliases.items():
            if (alias in transposed) != (owner in transposed):
                raise LossError(f"is tied to {owner}, and the mapping transposes one of them", tensor=alias)
        return _transposed(checkpoint, transposed).with_names(lambda name: new[name])

    def unused(self, names: Iterable[str], direction: str) -> tuple[Rule, ...]:
        """Return the rules that none of `names` is of."""
        known = list(names)
        return tuple(rule for rule in self.rules if all(getattr(rule, direction)(name) is None for name in known))

    def _rule_for(self, name: str, direction: str) -> tuple[Rule, str] | None:
        found = [(rule, renamed) for rule in self.rules if (renamed := getattr(rule, direction)(name)) is not None]
        if len(found) > 1:
            sides = " and ".join(repr(rule.left if direction == "forward" else rule.right) for rule, _ in found)
            raise LossError(f"is claimed by several rules: {sides}", tensor=name)
        return found[0] if found else None


def _transposed(checkpoint: Checkpoint, names: set[str]) -> Checkpoint:
    def turned(name: str, tensor: Tensor) -> Tensor:
        return tensor.transpose(tuple(reversed(range(len(tensor.shape))))) if name in names else tensor

    def turned_all(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: turned(name, tensor) for name, tensor in tensors.items()}

    state = checkpoint.optimizer
    if state is not None:
        state = replace(state, slots={slot: turned_all(tensors) for slot, tensors in state.slots.items()})
    return replace(checkpoint, tensors=turned_all(checkpoint.tensors), optimizer=state)
