"""In which order a class of transformers has its parameters: `tables/parameters.json`, parsed and checked.

`tests/oracle/generate/parameters.py` makes the table. It has a tree of names for each model type, or several where no
one order is right for all classes: the children of a module are in the order in which a model registers them, ``#``
stands for the items of a list, and ``?`` is at the end of what some configs leave out. A name has a ``+`` for each time
that it comes back behind others: names as they are saved need not be together where the parameters are.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from converter.dialects.identity.classes import template_of, type_with
from converter.dialects.tables import document, naming_entry
from converter.model.checkpoint import type_named

_TABLE = "parameters"
_NORM, _EITHER = 1, 2
_NORM_WORD = "LayerNorm:"

Place = tuple[tuple[int, int], ...]


@dataclass(slots=True)
class _Node:
    """A module, or a parameter: then `kind` says whether it is in a torch.nn.LayerNorm, always or by the config."""

    kind: int | None = None
    children: dict[str, list[tuple[int, bool, _Node]]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassParameters:
    """What the table has of a class.

    `home`   the path in the tree that the class's own names are below
    `has`    the paths of its own modules and parameters there; `lacks` those further down that it has not
    `apart`  templates of tensors that are saved in another form than the model has parameters in
    `unsure` templates of those that are parameters or buffers, by the config
    `ties`   tied name -> the name that is stored, in the class's own names; `always` are tied whatever the config says
    """

    tree: _Node
    home: str
    has: frozenset[str]
    lacks: frozenset[str]
    apart: frozenset[str]
    unsure: frozenset[str]
    ties: Mapping[str, str]
    always: frozenset[str]

    def ties_with(self, *, is_tied: bool) -> dict[str, str]:
        """Return tied name -> owner, where the config ties word embeddings or does not."""
        return {alias: owner for alias, owner in self.ties.items() if is_tied or alias in self.always}

    def place(self, name: str) -> Place | None:
        """Return what says where a parameter comes, None for a name that the class has no parameter of."""
        found = self._found(name)
        return None if found is None else found[0]

    def is_layer_norm(self, name: str, ranks: Mapping[str, int]) -> bool:
        """Whether a parameter is inside a torch.nn.LayerNorm.

        Of modules that may be of another kind those are that have a bias, and a weight of one axis.
        """
        found = self._found(name)
        kind, module = None if found is None else found[1].kind, name.rpartition(".")[0]
        is_like_one = f"{module}.bias" in ranks and ranks.get(f"{module}.weight") == 1
        return kind == _NORM or (kind == _EITHER and is_like_one)

    def is_apart(self, name: str) -> bool:
        """Whether the model has no parameter of that form."""
        return template_of(self._path(name)) in self.apart

    def is_unsure(self, name: str) -> bool:
        """Whether the config decides if the model has it as a parameter or as a buffer."""
        return template_of(self._path(name)) in self.unsure

    def required(self, names: Iterable[str]) -> Iterator[str]:
        """Yield the parameters that every config gives the class, as many layers taken as there are in `names`."""
        held: dict[str, Any] = {}
        for name in names:
            inside = held
            for part in self._path(name).split("."):
                inside = inside.setdefault(part, {})
        own = len(self.home) + 1 if self.home else 0
        for path in self._required(self.tree, held, ()):
            yield path[own:]

    def _required(self, node: _Node, held: Mapping[str, Any], parts: tuple[str, ...]) -> Iterator[str]:
        for key, runs in node.children.items():
            for part in [each for each in held if each.isdecimal()] if key == "#" else [key]:
                path = (*parts, part)
                for _, is_optional, child in runs:
                    if is_optional or not self._can_have(".".join(path)):
                        continue
                    if child.kind is not None:
                        yield ".".join(path)
                    yield from self._required(child, held.get(part, {}), path)

    def _can_have(self, path: str) -> bool:
        """Whether the class has a path of the tree: its home, what is below that, and is not left out."""
        if f"{self.home}.".startswith(f"{path}."):
            return True
        if self.home and not path.startswith(f"{self.home}."):
            return False
        parts = path.split(".")
        depth = self.home.count(".") + 1 if self.home else 0
        above = [template_of(".".join(parts[:size])) for size in range(depth + 1, len(parts) + 1)]
        return above[0] in self.has and self.lacks.isdisjoint(above)

    def _path(self, name: str) -> str:
        return f"{self.home}.{name}" if self.home else name

    def _found(self, name: str) -> tuple[Place, _Node] | None:
        path = self._path(name)
        found = list(_places(self.tree, path.split("."))) if self._can_have(path) else []
        return found[0] if len(found) == 1 else None


def _places(node: _Node, parts: Sequence[str]) -> Iterator[tuple[Place, _Node]]:
    if not parts:
        if node.kind is not None:
            yield (), node
        return
    number = int(parts[0]) if parts[0].isdecimal() else 0
    for position, _, child in node.children.get(template_of(parts[0]), ()):
        for rest, leaf in _places(child, parts[1:]):
            yield ((position, number), *rest), leaf


def parameters_of(config: Mapping[str, Any], architecture: str) -> ClassParameters | None:
    """Return what the table has of a class, by the type that a config says or that alone has it; None for nothing."""
    model_type = type_named(config) or type_with(architecture)
    return None if model_type is None else class_parameters(model_type, architecture)


@cache
def class_parameters(model_type: str, architecture: str) -> ClassParameters | None:
    """Return what the table has of a class, None when it does not know it. Raises ValueError for a slip in it."""
    for variant in document(_TABLE)["models"].get(model_type, ()):
        if architecture in variant["classes"]:
            with naming_entry(_TABLE, model_type):
                return _parsed(architecture, **variant)
    return None


def _parsed(
    architecture: str, *, tree: Any, classes: Mapping[str, Any], apart: Sequence[str] = (), unsure: Sequence[str] = ()
) -> ClassParameters:
    own = {"home": "", "lacks": (), "always": (), "ties": {}, **classes[architecture]}
    sets: dict[str, Any] = {key: frozenset(own.pop(key)) for key in ("has", "lacks", "always")}
    return ClassParameters(tree=_node(tree), apart=frozenset(apart), unsure=frozenset(unsure), **sets, **own)


def _node(entry: Any) -> _Node:
    """Return a module or a parameter of an entry; what has nothing but parameters of one kind is their names."""
    if isinstance(entry, int):
        return _Node(kind=entry)
    if isinstance(entry, str):
        words = entry.split()
        is_norm = words[0] == _NORM_WORD
        entry = dict.fromkeys(words[is_norm:], _NORM if is_norm else 0)
    node = _Node()
    for position, (key, child) in enumerate(entry.items()):
        name = key.rstrip("?").rstrip("+")
        node.children.setdefault(name, []).append((position, key.endswith("?"), _node(child)))
    return node
