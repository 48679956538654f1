"""Templates that say many names at once: which numbers of a name are indices of lists, told from instances."""

from __future__ import annotations

import itertools
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence

_DIGITS = re.compile(r"\d+")


def template_of_all(instances: Sequence[tuple[dict[str, str], str]]) -> str | None:
    """Return the one template that gives the name of every instance from its indices, None when there is none."""
    shapes = {_DIGITS.sub("#", name) for _, name in instances}
    if len(shapes) != 1:
        return None
    tokens = [_DIGITS.findall(name) for _, name in instances]
    letters, used, filled = list(instances[0][0]), [], []
    for position in range(len(tokens[0])):
        values = [found[position] for found in tokens]
        fits = [
            letter
            for letter in letters
            if letter not in used
            and all(own[letter] == value for (own, _), value in zip(instances, values, strict=True))
        ]
        if fits and (len(set(values)) > 1 or _is_component(instances[0][1], position)):
            used.append(fits[0])
            filled.append("{" + fits[0] + "}")
        elif len(set(values)) == 1:
            filled.append(values[0])
        else:
            return None
    if sorted(used) != sorted(letters):
        return None
    waiting = iter(filled)
    return _DIGITS.sub(lambda _: next(waiting), instances[0][1])


def _is_component(name: str, position: int) -> bool:
    match = list(_DIGITS.finditer(name))[position]
    return f".{name}."[match.start() : match.end() + 2] == f".{match[0]}."


def literal(template: str, letters: Sequence[str], values: Mapping[str, str]) -> str:
    """Return the template with some placeholders filled."""
    for letter in letters:
        template = template.replace("{" + letter + "}", values[letter])
    return template


Instance = tuple[tuple[str, ...], dict[str, str], str]


def solved(instances: Sequence[Instance], kept: str = "") -> list[tuple[tuple[str, ...], str]]:
    """Return rows (memory templates, hub template) for instances (memory templates, indices, hub name) of one kind.

    Where one template is not enough, indices are made literal, as few as can be. Raises ValueError when none do.
    """
    own = [letter for letter in instances[0][1] if letter not in kept]
    for count in range(len(own) + 1):
        for letters in itertools.combinations(own, count):
            groups: dict[tuple[str, ...], list[tuple[dict[str, str], str]]] = defaultdict(list)
            for memory, indices, hub in instances:
                key = tuple(literal(template, letters, indices) for template in memory)
                groups[key].append(({k: v for k, v in indices.items() if k not in letters}, hub))
            rows = [(key, template_of_all(group)) for key, group in groups.items()]
            if all(hub is not None for _, hub in rows):
                return [(key, hub) for key, hub in rows if hub is not None]
    raise ValueError(f"no template for {instances[0]}")
