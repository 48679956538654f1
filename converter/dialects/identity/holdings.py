"""Whether a class of transformers finds what it asks for, and nothing else: `from_pretrained` makes up the rest.

What a class has is in `tables/shapes.json`, by the config; here a checkpoint is held against it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from converter.dialects.identity.classes import template_of
from converter.dialects.identity.inference import Inference
from converter.dialects.identity.shapes import Shapes, UncheckedError, shapes_of
from converter.dialects.identity.ties import every_tie
from converter.dialects.identity.transformers_4 import is_class_named, is_known
from converter.errors import LossError
from converter.model.checkpoint import Checkpoint, class_named, type_named
from converter.model.ledger import LedgerLine, defaulted, dropped
from converter.model.tensor import is_equal

_ADAPTED = frozenset(("base_layer", "original_module"))
"""Parts of names of what PEFT puts an adapter around."""
_OF_ADAPTERS = _ADAPTED | {"lora_A", "lora_B", "lora_embedding_A", "lora_magnitude_vector"}
_OF_PEFT, _PROMPT = "base_model.model.", "prompt_embeddings"
_COMPUTED = ".inv_freq"
"""Rotary frequencies: transformers 4 saved them in each layer, and what loads them now passes over most."""
_COUNTER = ".num_batches_tracked"
"""What the tables of transformers 4 do not have, being TensorFlow's, and its classes do."""
_SHOWN = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Holding:
    """How a checkpoint is held against its class.

    `lines`      what the class does not find, and what it does not take, both refused by default
    `left_out`   names of tensors that it does not take
    `unchecked`  what no table knows, None where the class was looked up
    """

    lines: tuple[LedgerLine, ...] = ()
    left_out: frozenset[str] = field(default_factory=frozenset)
    unchecked: str | None = None


def held_against(checkpoint: Checkpoint, config: Mapping[str, Any], inference: Inference | None) -> Holding:
    """Hold names and shapes against those of the class that a checkpoint is of, or that its config names.

    A tie counts under any of its names, and so does a name that its loader renames.
    """
    architecture = class_named(config) if inference is None else inference.architecture
    if architecture is None:
        return Holding(unchecked=str(type_named(config)))
    prefix = "" if inference is None else inference.prefix
    own = {name.removeprefix(prefix): name for name in checkpoint.names}
    try:
        shapes = shapes_of(config, architecture, own)
    except UncheckedError as unchecked:
        return Holding(unchecked=str(unchecked))
    taken, strange = _placed(own, shapes)
    unknown = [name for name in strange if not name.endswith(_COMPUTED)]
    wrong = dict(_wrong(checkpoint, own, taken, shapes))
    held = {slot for slots in taken.values() for slot in slots}
    missing = _missing(shapes, held, every_tie(architecture, config))
    if (missing or unknown) and not wrong and _is_older(own, missing, unknown, shapes, config):
        return Holding(unchecked=f"{architecture} as transformers 4 saves it")
    made_up = f"is not in the source: {architecture} would make it up{_shown(unknown)}"
    lines = [defaulted(name, made_up, is_refused_by_default=True) for name in missing]
    for name, slot in wrong.items():
        reason = f"is {list(checkpoint.tensor(own[name]).shape)}, {architecture} has {shapes.told(slot)}"
        lines.append(dropped(checkpoint.origin(own[name]), reason, is_refused_by_default=True))
        lines.append(defaulted(slot, f"{architecture} would make it up", is_refused_by_default=True))
    for name in unknown:
        reason = f"{architecture} has no tensor of that name"
        lines.append(dropped(checkpoint.origin(own[name]), reason, is_refused_by_default=True))
    vague = sum(not shapes.slots[slot].is_known for slot in held) + len(strange) - len(unknown)
    return Holding(
        lines=tuple(lines),
        left_out=frozenset(own[name] for name in (*wrong, *unknown)),
        unchecked=f"the shape of {vague} tensors of {architecture}" if vague else None,
    )


def as_loaded(
    checkpoint: Checkpoint, config: Mapping[str, Any], architecture: str, wanted: Iterable[str]
) -> Checkpoint:
    """Return a checkpoint with names that a class has, `wanted`, where its loader takes others for them.

    Of several that it takes for one the first is it; others of the same values are left out. Nothing changes for a
    class that no table knows.
    """
    lacking = {name for name in wanted if name not in checkpoint}
    others = [name for name in checkpoint.names if name not in set(wanted)]
    try:
        shapes = shapes_of(config, architecture, checkpoint.names)
    except UncheckedError:
        return checkpoint
    loaded = {shapes.in_memory(name)[0]: name for name in lacking}
    renamed: dict[str, str] = {}
    again: set[str] = set()
    for name in others if lacking else ():
        found = loaded.get(shapes.in_memory(name)[0])
        first = next((own for own, new in renamed.items() if new == found), None)
        if found is not None and first is None:
            renamed[name] = found
        elif first is not None and is_equal(checkpoint.tensor(name), checkpoint.tensor(first)):
            again.add(name)
    lines = tuple(dropped(checkpoint.origin(name), f"{architecture} has it once") for name in sorted(again))
    left = checkpoint.of_names([name for name in checkpoint.names if name not in again])
    return replace(left.with_names(lambda name: renamed.get(name, name)), lines=(*left.lines, *lines))


def _placed(own: Iterable[str], shapes: Shapes) -> tuple[dict[str, tuple[str, ...]], list[str]]:
    """Return name -> the tensors of the class that it is taken for, and the names that its loader does not take."""
    taken = {name: (name,) for name in own if name in shapes.slots}
    others = [name for name in own if name not in taken]
    read_as = shapes.read_as(others) if others else {}
    strange = [name for name in others if name not in read_as and not shapes.is_ignored(name)]
    return {**taken, **read_as}, strange


def _is_older(
    own: Mapping[str, str], missing: Sequence[str], unknown: Sequence[str], shapes: Shapes, config: Mapping[str, Any]
) -> bool:
    """Whether what is missing and unknown is so because transformers 4 had the whole class otherwise.

    One more of what the class has several of, as a layer, is not, nor what transformers 4 has in that class, too.
    """
    if any(name.endswith(_COUNTER) or is_known(name, config) for name in missing):
        return False
    held, known = set(map(template_of, own)), set(map(template_of, shapes.slots))
    is_otherwise = held.isdisjoint(map(template_of, missing)) and known.isdisjoint(map(template_of, unknown))
    return is_otherwise and is_class_named(own, config)


def _wrong(
    checkpoint: Checkpoint, own: Mapping[str, str], taken: Mapping[str, Sequence[str]], shapes: Shapes
) -> Iterator[tuple[str, str]]:
    """Yield the tensors of another shape than the class has, and its names for them."""
    for name, slots in taken.items():
        if len(slots) == 1 and not shapes.in_memory(name)[1]:
            shape = checkpoint.tensor(own[name]).shape
            if not shapes.slots[slots[0]].takes(shape):
                yield name, slots[0]


def _missing(shapes: Shapes, held: set[str], ties: Mapping[str, str]) -> list[str]:
    """Return what is required and not there, under any name of a tie."""
    owners = held | {ties.get(name, name) for name in held}  # transformers 4 and 5 may own a tie the other way around
    return [
        name
        for name, slot in shapes.slots.items()
        if slot.is_required and name not in held and ties.get(name, name) not in owners and not shapes.is_spared(name)
    ]


def _shown(strange: Sequence[str]) -> str:
    """Return the words that say which names a class has no place for."""
    strange = sorted(strange)
    more = "" if len(strange) <= _SHOWN else f" and {len(strange) - _SHOWN} more"
    return f", and has no {', '.join(strange[:_SHOWN])}{more}" if strange else ""


def is_adapter(names: Iterable[str]) -> bool:
    """Whether all weights are those of an adapter of PEFT, as it saves one without the model that it is for."""
    return all(
        name == _PROMPT or (name.startswith(_OF_PEFT) and _ADAPTED.isdisjoint(name.split("."))) for name in names
    )


def check_no_adapters(names: Iterable[str]) -> None:
    """Raise LossError for the state dict of a model of PEFT, whose names no class of transformers has."""
    for name in names:
        if not set(name.split(".")).isdisjoint(_OF_ADAPTERS):
            hint = "save what its merge_and_unload() returns"
            raise LossError("is of a model of PEFT, with adapters beside its weights", tensor=name, hint=hint)
