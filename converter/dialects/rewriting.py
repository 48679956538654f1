"""A checkpoint on its way to other names and layouts: the one account of what becomes of each tensor.

Every translation writes down here what it makes, so that names that collide, ties and losses are dealt with in one way.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from converter.dialects.names.rearrangement import Rearrangement
from converter.errors import LossError, of_tensor
from converter.model.checkpoint import Checkpoint, both_named
from converter.model.ledger import LedgerLine, Status, defaulted, dropped
from converter.model.tensor import Tensor


@dataclass(slots=True, kw_only=True)
class Rewriting:
    """What has become of the tensors of `source` so far.

    `tensors`   new name -> tensor, in the order of the target
    `origins`   new name -> what the source calls it
    `aliases`   new name -> the new name in `tensors` that holds its values
    `buffers`, `frozen`   new names, as in a Checkpoint
    """

    source: Checkpoint
    tensors: dict[str, Tensor] = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)
    aliases: dict[str, str] = field(default_factory=dict)
    buffers: set[str] = field(default_factory=set)
    frozen: set[str] = field(default_factory=set)
    lines: list[LedgerLine] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

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

    def rename(self, new_name: Callable[[str], str]) -> None:
        """Rename what was made so far, whatever mentions it included."""
        self.tensors = {new_name(name): tensor for name, tensor in self.tensors.items()}
        self.origins = {new_name(name): origin for name, origin in self.origins.items()}
        self.aliases = {new_name(alias): new_name(owner) for alias, owner in self.aliases.items()}
        self.buffers, self.frozen = set(map(new_name, self.buffers)), set(map(new_name, self.frozen))
        self.lines = [
            line if line.target is None else replace(line, target=new_name(line.target)) for line in self.lines
        ]

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
            **changes,
        )


def laid_out(tensor: Tensor, layout: Rearrangement | None, name: str, *, to_torch: bool) -> Tensor:
    """Return a tensor in the other layout; `name` is what an error calls it. Raises ReadError for an unfit shape."""
    if layout is None:
        return tensor
    with of_tensor(name):
        return layout.to_torch(tensor) if to_torch else layout.to_keras(tensor)
