"""Which transformers class a checkpoint is of, told from its config and its tensors; no framework is needed.

The class that config.json names is right when the tensors of its head are there, and nothing of another head is.
Otherwise the head's tensors say which class it is, and `--task` overrules both.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from converter.dialects.classes import class_for_task, classes_of, told_by_names
from converter.dialects.families import (
    BASE_TASK,
    CAUSAL_TASK,
    CHOICE_TASK,
    CLASS_SUFFIXES,
    FAMILIES,
    MASKED_TASK,
    POSITION_EMBEDDINGS,
    SEQUENCE_TASK,
    Family,
    Head,
    task_named,
)
from converter.errors import ArchitectureError

_HINT = "give --config with a config.json that has 'architectures', or --task, or --weights-only"
_CLASS_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,99}")
_STEM_AND_HEAD = re.compile(r"([A-Za-z0-9_]+?)(?:For[A-Z][A-Za-z0-9_]*|LMHeadModel|Model)")
_NAMES_SHOWN = 4

_CLASSES = {family.architecture(head): (family, head) for family in FAMILIES.values() for head in family.heads}


class Shaped(Protocol):
    """What is asked of a tensor here."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The extents."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Inference:
    """A class, and why it is that one.

    `architecture`  the transformers class
    `basis`         what says so: "config", "head tensors" or "task"
    `prefix`        what stands before each of the class's own names, as Lightning's ``model.`` does; a base model
                    stored inside a class with a head has its base prefix here
    `note`          what a user should know, None when all agrees
    """

    architecture: str
    basis: str
    prefix: str = ""
    note: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Layers:
    """A checkpoint seen as a member of a family: layers are tensor names less their last component.

    `prefix`     what stands before every name of the class
    `is_nested`  whether the base model's names carry the family's base prefix
    `head`       layers outside the base model
    `outside`    layers whose names do not start with `prefix`
    """

    prefix: str
    is_nested: bool
    head: frozenset[str]
    outside: frozenset[str]
    has_pooler: bool

    def left_over(self, head: Head) -> frozenset[str]:
        """Return the layers that a class with `head` has no place for."""
        return (self.head - head.layers - head.optional) | self.outside


def infer_architecture(
    tensors: Mapping[str, Shaped], config: Mapping[str, Any], *, task: str | None = None
) -> Inference:
    """Return the transformers class of a checkpoint.

    `tensors` are in PyTorch names, old ones (`gamma`, `beta`) included; `config` is what config.json says. A model
    type that no table knows is taken at the config's word, its prefix is not looked for.

    Raises ArchitectureError when nothing says which class it is, or when several answer; UsageError for an unknown
    `task`.
    """
    wanted = None if task is None else task_named(task)
    named = _class_in(config)
    family = _family_of(config, named)
    if family is None:
        return _by_table(tensors, config, named, wanted)
    if wanted is not None:
        return _by_task(family, tensors, wanted)
    return _by_layers(family, tensors, config, named)


def declared_ties(tensors: Mapping[str, Shaped], config: Mapping[str, Any], architecture: str) -> dict[str, str]:
    """Return tied name -> owner for the ties that `architecture` declares, among the names in `tensors`.

    The owner is the name that `save_pretrained` of transformers 5.23 writes. transformers ties only what is equal:
    here shapes are compared, values are left to the caller. Empty for classes that no table knows.
    """
    if architecture not in _CLASSES or not config.get("tie_word_embeddings", True):
        return {}
    family, head = _CLASSES[architecture]
    layers = _layers_of(family, tensors)
    if layers is None:
        return {}
    pairs = {
        layers.prefix + alias: layers.prefix + owner.format(word=family.word_embeddings)
        for alias, owner in head.ties.items()
    }
    return {
        alias: owner
        for alias, owner in pairs.items()
        if alias in tensors and owner in tensors and tuple(tensors[alias].shape) == tuple(tensors[owner].shape)
    }


def _class_in(config: Mapping[str, Any]) -> str | None:
    architectures = config.get("architectures")
    if isinstance(architectures, list) and architectures and isinstance(architectures[0], str):
        return architectures[0]
    return None


def _family_of(config: Mapping[str, Any], named: str | None) -> Family | None:
    model_type = config.get("model_type")
    if isinstance(model_type, str):
        return FAMILIES.get(model_type)
    return _CLASSES[named][0] if named in _CLASSES else None


def _by_table(
    tensors: Mapping[str, Shaped], config: Mapping[str, Any], named: str | None, task: str | None
) -> Inference:
    """Tell a class of a type that is no encoder family by the table of classes, else by what the config says."""
    model_type = config.get("model_type")
    if not isinstance(model_type, str) or not classes_of(model_type):
        return _at_its_word(config, named, task)
    is_tied = config.get("tie_word_embeddings") is True
    if task is not None:
        asked = class_for_task(model_type, task)
        if asked is None:
            known = sorted({task for each in classes_of(model_type) for task in each.tasks})
            raise ArchitectureError(f"{model_type!r} has no class for {task}", hint=f"it has {', '.join(known)}")
        told = told_by_names(model_type, tensors, asked, is_tied=is_tied)
        prefix = told.prefix if told is not None and told.name == asked else ""
        return Inference(architecture=asked, basis="task", prefix=prefix)
    if named is not None and named not in {each.name for each in classes_of(model_type)}:
        return _at_its_word(config, named, task)
    told = told_by_names(model_type, tensors, named, is_tied=is_tied)
    if told is None:
        if named is None:
            raise ArchitectureError(f"the names are of no class of model type {model_type!r}", hint=_HINT)
        return Inference(architecture=named, basis="config")
    if told.name == named:
        return Inference(architecture=named, basis="config", prefix=told.prefix)
    if named is not None and not told.is_certain:
        return Inference(architecture=named, basis="config", prefix=told.prefix)
    note = None if named is None else f"config.json says {named}, the tensors are {told.name}'s"
    return Inference(architecture=told.name, basis="head tensors", prefix=told.prefix, note=note)


def _at_its_word(config: Mapping[str, Any], named: str | None, task: str | None) -> Inference:
    model_type = config.get("model_type")
    if named is None or not _CLASS_NAME.fullmatch(named):
        what = "no model type is known" if model_type is None else f"no table knows the model type {model_type!r}"
        raise ArchitectureError(f"{what}, and the config names no class", hint=_HINT)
    if task is None:
        return Inference(architecture=named, basis="config")
    stem = _STEM_AND_HEAD.fullmatch(named)
    if stem is None:
        raise ArchitectureError(f"cannot tell which class of {named!r}'s family is for {task}", hint=_HINT)
    return Inference(architecture=stem[1] + CLASS_SUFFIXES[task], basis="task")


def _layers_of(family: Family, tensors: Mapping[str, Shaped]) -> _Layers | None:
    """Sort the layers of a checkpoint, None when it has no position embeddings or several."""
    anchors = [name for name in tensors if f".{name}".endswith(f".{POSITION_EMBEDDINGS}")]
    if len(anchors) != 1:
        return None
    before = anchors[0].removesuffix(POSITION_EMBEDDINGS)
    base = f"{family.base_prefix}."
    is_nested = f".{before}".endswith(f".{base}")
    prefix = before.removesuffix(base) if is_nested else before
    layers = {name.rpartition(".")[0] or name for name in tensors}
    inside = {layer.removeprefix(prefix) for layer in layers if layer.startswith(prefix)}
    of_base = {layer for layer in inside if _is_of_base(family, layer, is_nested)}
    pooler = None if family.pooler is None else (base if is_nested else "") + family.pooler
    return _Layers(
        prefix=prefix,
        is_nested=is_nested,
        head=frozenset(inside - of_base),
        outside=frozenset(layer for layer in layers if not layer.startswith(prefix)),
        has_pooler=pooler in of_base,
    )


def _is_of_base(family: Family, layer: str, is_nested: bool) -> bool:
    first = layer.partition(".")[0]
    return first == family.base_prefix if is_nested else first in family.base_modules


def _by_task(family: Family, tensors: Mapping[str, Shaped], task: str) -> Inference:
    head = next((head for head in family.heads if head.task == task), None)
    if head is None:
        known = ", ".join(head.task for head in family.heads)
        raise ArchitectureError(f"the {family.model_type} family has no class for {task}", hint=f"it has {known}")
    layers = _layers_of(family, tensors)
    return _inference(family, head, layers, "task")


def _by_layers(
    family: Family, tensors: Mapping[str, Shaped], config: Mapping[str, Any], named: str | None
) -> Inference:
    layers = _layers_of(family, tensors)
    if layers is None:
        message = f"is no {family.model_type}: that has exactly one tensor ending in {POSITION_EMBEDDINGS!r}"
        raise ArchitectureError(message, hint=_HINT)
    candidates = _best_heads(family, layers)
    unknown = layers.left_over(candidates[0])
    if unknown and not candidates[0].layers:
        raise ArchitectureError(f"no class of the {family.model_type} family has {_shown(unknown)}", hint=_HINT)
    for head in candidates:
        if named == family.architecture(head):
            return _inference(family, head, layers, "config")
    head, reason = _told_apart(family, candidates, layers, tensors, config)
    disagreement = None if named is None else f"config.json says {named}, the tensors are {family.architecture(head)}'s"
    return _inference(family, head, layers, "head tensors", disagreement, reason)


def _inference(family: Family, head: Head, layers: _Layers | None, basis: str, *notes: str | None) -> Inference:
    architecture = family.architecture(head)
    if layers is None:
        return Inference(architecture=architecture, basis=basis)
    said = [note for note in notes if note]
    if missing := head.layers - layers.head:
        said.append(f"the checkpoint has no {_shown(missing)}")
    if left_over := layers.left_over(head):
        said.append(f"{architecture} has no {_shown(left_over)}")
    is_base = head.task == BASE_TASK
    if not is_base and not layers.is_nested:
        said.append(f"the base model's names lack {family.base_prefix!r}")
    prefix = layers.prefix + (f"{family.base_prefix}." if is_base and layers.is_nested else "")
    return Inference(architecture=architecture, basis=basis, prefix=prefix, note="; ".join(said) or None)


def _best_heads(family: Family, layers: _Layers) -> list[Head]:
    """Return the heads that are there in full and leave the fewest layers over."""
    complete = [head for head in family.heads if head.layers <= layers.head]
    fewest = min(len(layers.left_over(head)) for head in complete)
    return [head for head in complete if len(layers.left_over(head)) == fewest]


def _told_apart(
    family: Family,
    candidates: Sequence[Head],
    layers: _Layers,
    tensors: Mapping[str, Shaped],
    config: Mapping[str, Any],
) -> tuple[Head, str | None]:
    """Return the one of several heads that it is, and what told it from the others where that is not certain.

    Raises ArchitectureError when nothing does.
    """
    if len({head.layers for head in candidates}) > 1:
        raise _ambiguous(family, candidates)
    heads = [head for head in candidates if head.task != CHOICE_TASK or _rows(head, layers, tensors) == 1]
    if {head.task for head in heads} == {MASKED_TASK, CAUSAL_TASK}:
        return _of_task(heads, CAUSAL_TASK if config.get("is_decoder") else MASKED_TASK), None
    pooled = [head for head in heads if family.pooler is None or head.has_pooler == layers.has_pooler] or heads
    reason = None
    if len(pooled) < len(heads):
        others = ", ".join(family.architecture(head) for head in heads if head not in pooled)
        reason = f"{'a' if layers.has_pooler else 'no'} pooler is there, which tells it from {others}"
    if {head.task for head in pooled} == {SEQUENCE_TASK, CHOICE_TASK}:
        task = _one_row_task(config)
        pooled = pooled if task is None else [_of_task(pooled, task)]
    if len(pooled) != 1:
        raise _ambiguous(family, pooled)
    return pooled[0], reason


def _one_row_task(config: Mapping[str, Any]) -> str | None:
    """Tell classification with one label from multiple choice: both end in one row."""
    labels = config.get("id2label") or config.get("num_labels")
    count = len(labels) if isinstance(labels, (dict, list)) else labels
    if config.get("problem_type") is not None or count == 1:
        return SEQUENCE_TASK
    return None if count is None else CHOICE_TASK


def _rows(head: Head, layers: _Layers, tensors: Mapping[str, Shaped]) -> int | None:
    tensor = tensors.get(f"{layers.prefix}{head.output}")
    return tensor.shape[0] if tensor is not None and tensor.shape else None


def _of_task(heads: Sequence[Head], task: str) -> Head:
    return next(head for head in heads if head.task == task)


def _ambiguous(family: Family, heads: Sequence[Head]) -> ArchitectureError:
    classes = " or ".join(family.architecture(head) for head in heads)
    tasks = ", ".join(head.task for head in heads)
    return ArchitectureError(
        f"the tensors are of {classes}, nothing says which",
        hint=f"give --task ({tasks}), or --config with a config.json that has 'architectures', or --weights-only",
    )


def _shown(layers: frozenset[str]) -> str:
    names = sorted(layers)
    more = "" if len(names) <= _NAMES_SHOWN else f" and {len(names) - _NAMES_SHOWN} more"
    return ", ".join(names[:_NAMES_SHOWN]) + more
