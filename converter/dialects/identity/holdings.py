"""Whether a class of transformers finds what it asks for: `from_pretrained` makes up what it does not, and goes on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from converter.dialects.identity.classes import template_of
from converter.dialects.identity.inference import Inference
from converter.dialects.identity.parameters import parameters_of
from converter.dialects.identity.ties import every_tie
from converter.errors import LossError
from converter.model.checkpoint import Checkpoint, type_named
from converter.model.ledger import LedgerLine, defaulted

_OF_ADAPTERS = ("base_layer", "lora_A", "lora_B", "lora_embedding_A", "lora_magnitude_vector", "original_module")
_QUANTISED = "quantization_config"
_SHOWN = 3


def missing_slots(checkpoint: Checkpoint, config: Mapping[str, Any], inference: Inference) -> Iterator[LedgerLine]:
    """Yield a line, refused by default, for each parameter of a layer that others have and a checkpoint lacks in it.

    What a whole model lacks may be what its config leaves out, and so may what a stage of layers does.

    A tie counts under any of its names. Nothing is missing of a class that no table knows, of one that is made of other
    models, whose types the config says, nor of one that is quantised, whose modules have parameters of their own.
    """
    known = parameters_of(config, inference.architecture)
    if known is None or _QUANTISED in config or _is_composite(config):
        return
    names = frozenset(name.removeprefix(inference.prefix) for name in checkpoint.names)
    ties = every_tie(inference.architecture, config)
    elsewhere = {template for template in map(template_of, names) if template.count("#") == 1}
    missing = [name for name in _not_in(names, known.required(names), ties) if template_of(name) in elsewhere]
    if not missing:
        return
    strange = [name for name in sorted(names) if known.place(name) is None and name not in ties]
    reason = f"is not in the source: {inference.architecture} would make it up{_shown(strange)}"
    for name in missing:
        yield defaulted(name, reason, is_refused_by_default=True)


def _not_in(names: frozenset[str], required: Iterable[str], ties: Mapping[str, str]) -> list[str]:
    """Return what is required and not there, neither under a tied name nor behind a part more."""
    held = {ties.get(name, name) for name in names}
    missing = [name for name in required if name not in names and ties.get(name, name) not in held]
    elsewhere = {name[start:] for name in names for start in _starts(name)} if missing else set()
    return [name for name in missing if name not in elsewhere]


def _is_composite(config: Mapping[str, Any]) -> bool:
    return any(isinstance(part, Mapping) and type_named(part) is not None for part in config.values())


def _shown(strange: Sequence[str]) -> str:
    """Return the words that say which names a class has no place for."""
    more = "" if len(strange) <= _SHOWN else f" and {len(strange) - _SHOWN} more"
    return f", and has no {', '.join(strange[:_SHOWN])}{more}" if strange else ""


def _starts(name: str) -> Iterator[int]:
    """Yield where the parts of a name begin, but for the first: towers have another part in front in some releases."""
    start = name.find(".") + 1
    while start:
        yield start
        start = name.find(".", start) + 1


def check_no_adapters(names: Iterable[str]) -> None:
    """Raise LossError for the state dict of a model of PEFT, whose names no class of transformers has."""
    for name in names:
        if not set(name.split(".")).isdisjoint(_OF_ADAPTERS):
            hint = "save what its merge_and_unload() returns"
            raise LossError("is of a model of PEFT, with adapters beside its weights", tensor=name, hint=hint)
