"""Which class of transformers a set of tensors is of, and what that class ties, by the tables.

Ties are those of transformers 4.57.6, whose save_pretrained made the tables, in both directions. With
`tie_word_embeddings: false` it still shares the embeddings of some classes (BART's `shared`), and stores them once;
transformers 5 may have a tensor for each there, and calls the others missing. Nothing is added for it: one tensor is
what the source has, and what comes back from it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from converter.dialects.transformers.tables import ModelClass, TensorFlowTable, tensorflow_table


def class_of(table: TensorFlowTable, present: Iterable[str], named: str | None, start: str) -> ModelClass:
    """Return the class that has tensors of the templates `present`.

    It is the class `named` by the config when that has them all and none of its own head is missing, else the one
    whose head fits best; of several, the one whose variables have names that begin with `start`, else what fits best.
    """
    held = set(present)
    every = {row.canonical.text for row in (*table.rows.all, *table.aliases.all)}
    known = tuple(table.classes.values())

    def misfits(candidate: ModelClass, *, of_head: bool) -> int:
        extra = {template for template in held if not candidate.has(template)}
        missing = {template for template in every - held if candidate.needs(template)}
        return sum(not of_head or _is_of_head(template, table.prefix) for template in extra | missing)

    for candidate in known:
        if candidate.name == named and not misfits(candidate, of_head=bool(table.prefix)):
            return candidate
    return min(
        known,
        key=lambda candidate: (
            misfits(candidate, of_head=bool(table.prefix)),
            not candidate.is_called(start),
            misfits(candidate, of_head=False),
            candidate.name != named,
            not candidate.is_base,
        ),
    )


def is_class_named(names: Iterable[str], config: Mapping[str, Any]) -> bool:
    """Whether tensors are just those of the class that a config names: none of another, all that it needs."""
    found = _named(config)
    if found is None:
        return False
    table, known = found
    prefix = f"{table.prefix}." if known.is_base else ""
    held = set()
    for name in names:
        match = table.from_canonical(prefix + name)
        if match is not None:
            held.add(match.row.canonical.text)
        elif prefix + name not in known.ties and not name.endswith("num_batches_tracked"):
            return False
    every = {row.canonical.text for row in table.rows.all}
    return all(map(known.has, held)) and not any(known.needs(template) for template in every - held)


def _named(config: Mapping[str, Any]) -> tuple[TensorFlowTable, ModelClass] | None:
    architectures = config.get("architectures")
    table = tensorflow_table(str(config.get("model_type")))
    if table is None or not isinstance(architectures, list) or not architectures:
        return None
    known = table.classes.get(architectures[0]) if isinstance(architectures[0], str) else None
    return None if known is None else (table, known)


def declared_ties(names: Iterable[str], config: Mapping[str, Any]) -> dict[str, str]:
    """Return tied name -> owner for the ties that the class in a config declares, among `names`."""
    found = _named(config)
    if found is None:
        return {}
    table, known = found
    prefix = f"{table.prefix}." if known.is_base else ""
    held = set(names)
    pairs = {
        alias.removeprefix(prefix): owner.removeprefix(prefix)
        for alias, owner in known.ties_with(config, default=table.tied_by_default).items()
    }
    return {alias: owner for alias, owner in pairs.items() if alias in held and owner in held}


def stored_once(names: Iterable[str], config: Mapping[str, Any]) -> dict[str, str]:
    """Return missing name -> the one among `names` that is its tensor, of ties that a config does not ask for."""
    found = _named(config)
    if found is None or config.get("tie_word_embeddings", found[0].tied_by_default):
        return {}
    table, known = found
    prefix = f"{table.prefix}." if known.is_base else ""
    held = set(names)
    pairs = {a.removeprefix(prefix): o.removeprefix(prefix) for a, o in known.ties_when_untied.items()}
    return {alias: owner for alias, owner in pairs.items() if alias not in held and owner in held}


def _is_of_head(template: str, prefix: str) -> bool:
    return not template.startswith(f"{prefix}.")
