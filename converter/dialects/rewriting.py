"""A checkpoint on its way to other names and layouts: the one account of what becomes of each tensor.

Every translation writes down here what it makes, so that names that collide, ties and losses are dealt with in one way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from converter.dialects.names.operations import TwoWay, applied
from converter.dialects.names.rearrangement import Rearrangement
from converter.errors import LossError, of_tensor
from converter.model.checkpoint import Checkpoint, both_named
from converter.model.ledger import LedgerLine, Status, defaulted, dropped
from converter.model.optimizer import Convention, OptimizerState
from converter.model.tensor import Tensor, is_equal


@dataclass(frozen=True, slots=True, kw_only=True)
class Derivation:
    """What became of tensors of the source together: those called `after` were made of `before` by `operations`."""

    before: tuple[str, ...]
    after: tuple[str, ...]
    operations: tuple[TwoWay, ...] = ()
    is_forward: bool = True

    def applied(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Return what the operations make of tensors in the order of `before`. Raises ReadError for unfit shapes."""
        with of_tensor(self.before[0]):
            return applied(self.operations, tensors, is_forward=self.is_forward)


@dataclass(slots=True, kw_only=True)
class Rewriting:
    """What has become of the tensors of `source` so far.

    `derivations`   name in the source -> how it was carried
    `tensors`       new name -> tensor, in the order of the target
    `origins`       new name -> what the source calls it
    `aliases`       new name -> the new name in `tensors` that holds its values
    `buffers`, `frozen`   new names, as in a Checkpoint
    """

    source: Checkpoint
    derivations: dict[str, Derivation] = field(default_factory=dict)
    tensors: dict[str, Tensor] = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)
    aliases: dict[str, str] = field(default_factory=dict)
    buffers: set[str] = field(default_factory=set)
    frozen: set[str] = field(default_factory=set)
    lines: list[LedgerLine] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def carry(self, derivation: Derivation) -> None:
        """Put what the source's tensors became, and remember how, for the state of an optimizer.

        Raises LossError when a new name is taken, ReadError for shapes that do not fit.
        """
        first, *others = derivation.before
        tensors = derivation.applied([self.source.tensor(name) for name in derivation.before])
        for new, tensor in zip(derivation.after, tensors, strict=True):
            self.put(first, new, tensor)
        for other in others:
            self.join(other, derivation.after[0], f"stored with {self.source.origin(first)}, as {derivation.after[0]}")
        self.derivations.update(dict.fromkeys(derivation.before, derivation))

    def put(self, name: str, new: str, tensor: Tensor | None = None) -> None:
        """Let `new` be the source's tensor `name`, or `tensor`, which was made of it.

        Raises LossError when `new` is another tensor already.
        """
        if new in self.tensors:
            raise self.collision(name, new)
        self.tensors[new] = self.source.tensor(name) if tensor is None else tensor
        self.origins[new] = self.source.origin(name)

    def collision(self, name: str, new: str) -> LossError:
        """Return the error for a tensor that would be named as one that was put."""
        return both_named(self.source.origin(name), self.origins.get(new, new), new)

    def move(self, old: str, new: str) -> None:
        """Let what was put as `old` be `new`, in the place of what `new` was."""
        self.tensors[new], self.origins[new] = self.tensors.pop(old), self.origins.pop(old)
        kept = {name: derivation for name, derivation in self.derivations.items() if derivation.after != (new,)}
        self.derivations = {
            name: replace(derivation, after=(new,)) if derivation.after == (old,) else derivation
            for name, derivation in kept.items()
        }

    def join(self, name: str, new: str, reason: str) -> None:
        """Write down that the source's tensor `name` is a part of `new`, which was put with another."""
        line = LedgerLine(status=Status.MAPPED, name=self.source.origin(name), target=new, reason=reason)
        self.lines.append(line)

    def tie(self, name: str, new: str, reason: str) -> None:
        """Write down that the values of the source's tensor `name` are those of `new`."""
        line = LedgerLine(status=Status.TIED, name=self.source.origin(name), target=new, reason=reason)
        self.lines.append(line)

    def merge(self, new: str, owner: str) -> None:
        """Forget `new`, which was put: its values are those of `owner`."""
        del self.tensors[new]
        reason = f"the same as {self.origins[owner]}"
        self.lines.append(LedgerLine(status=Status.TIED, name=self.origins.pop(new), target=owner, reason=reason))

    def drop(self, name: str, reason: str, *, is_refused_by_default: bool = False) -> None:
        """Write down that the source's tensor `name` is not carried, and why."""
        self.lines.append(dropped(self.source.origin(name), reason, is_refused_by_default=is_refused_by_default))

    def default(self, new: str, tensor: Tensor, reason: str) -> None:
        """Let `new` be a tensor that is made here. Raises LossError when it is another tensor already."""
        if new in self.tensors:
            raise self.collision(new, new)
        self.tensors[new] = tensor
        self.lines.append(defaulted(new, reason))

    def note(self, warning: str) -> None:
        """Write down what a user should know, once, in one line."""
        if warning not in self.warnings:
            self.warnings.append(warning)

    def rename(self, new_name: Callable[[str], str]) -> None:
        """Rename what was made so far, whatever mentions it included."""
        self.tensors = {new_name(name): tensor for name, tensor in self.tensors.items()}
        self.origins = {new_name(name): origin for name, origin in self.origins.items()}
        self.aliases = {new_name(alias): new_name(owner) for alias, owner in self.aliases.items()}
        self.derivations = {
            name: replace(derivation, after=tuple(map(new_name, derivation.after)))
            for name, derivation in self.derivations.items()
        }
        self.buffers, self.frozen = set(map(new_name, self.buffers)), set(map(new_name, self.frozen))
        self.lines = [
            line if line.target is None else replace(line, target=new_name(line.target)) for line in self.lines
        ]

    def state(self) -> dict[str, Any]:
        """Return what `done` takes of the optimizer: its state, each slot named and rearranged as its weight was.

        Where that cannot be, it is `optimizer_refused` that says why. Parameters that were not carried keep their
        names.
        """
        state = self.source.optimizer
        return {} if state is None else self._translated(state)

    def state_of_variables(self) -> dict[str, Any]:
        """Return what `state` does of variables: those that were not carried are dropped.

        A state in torch's conventions has torch's names already.
        """
        state = self.source.optimizer
        if state is None or state.convention is Convention.TORCH:
            return {}
        others = set(state.parameters) - self.derivations.keys()
        return self._translated(state.without(others))

    def _translated(self, state: OptimizerState) -> dict[str, Any]:
        try:
            groups = tuple(replace(group, parameters=self._parameters(group.parameters)) for group in state.groups)
            slots = {slot: dict(self._slot(slot, held)) for slot, held in state.slots.items()}
        except _ApartError as error:
            return {"optimizer": None, "optimizer_refused": str(error)}
        return {"optimizer": replace(state, groups=groups, slots=slots)}

    def _parameters(self, names: Sequence[str]) -> tuple[str, ...]:
        parameters: list[str] = []
        for name in names:
            derivation = self._derivation(name)
            if not set(derivation.before) <= set(names):
                raise _ApartError(f"{_listed(derivation.before)} become one, and are not in one parameter group")
            parameters += derivation.after if name == derivation.before[0] else ()
        return tuple(parameters)

    def _slot(self, slot: str, held: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
        for name in held:
            derivation = self._derivation(name)
            lacking = [each for each in derivation.before if each not in held]
            if lacking:
                raise _ApartError(f"{_listed(derivation.before)} become one, and {lacking[0]!r} has no {slot}")
            if name == derivation.before[0]:
                yield from zip(derivation.after, self._rearranged(slot, derivation, held), strict=True)

    def _rearranged(self, slot: str, derivation: Derivation, held: Mapping[str, Tensor]) -> list[Tensor]:
        tensors = [held[name] for name in derivation.before]
        if not derivation.operations:
            return tensors
        if all(tensor.shape == () and is_equal(tensor, tensors[0]) for tensor in tensors):
            return [tensors[0]] * len(derivation.after)
        for name, tensor in zip(derivation.before, tensors, strict=True):
            if tensor.shape != self.source.tensor(name).shape:
                raise _ApartError(f"{name!r} gets another layout, and its {slot} has another shape than it")
        return derivation.applied(tensors)

    def _derivation(self, name: str) -> Derivation:
        return self.derivations.get(name) or Derivation(before=(name,), after=(name,))

    def done(self, dialect: str, **changes: Any) -> Checkpoint:
        """Return the source with the names, layouts and ledger of this account, and `changes` to its other fields."""
        source = self.source
        return replace(
            source,
            tensors=self.tensors,
            aliases=self.aliases,
            origins={name: origin for name, origin in self.origins.items() if name != origin},
            buffers=frozenset(self.buffers),
            frozen=frozenset(self.frozen),
            dialect=dialect,
            lines=(*source.lines, *self.lines),
            warnings=(*source.warnings, *self.warnings),
            listing=None,
            **changes,
        )


class _ApartError(Exception):
    """Why the state of an optimizer cannot be rearranged as its weights are."""


def _listed(names: Iterable[str]) -> str:
    return ", ".join(map(repr, names))


def laid_out(tensor: Tensor, layout: Rearrangement | None, name: str, *, to_torch: bool) -> Tensor:
    """Return a tensor in the other layout; `name` is what an error calls it. Raises ReadError for an unfit shape."""
    if layout is None:
        return tensor
    with of_tensor(name):
        return layout.to_torch(tensor) if to_torch else layout.to_keras(tensor)
