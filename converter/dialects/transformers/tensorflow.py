"""TensorFlow models of transformers (4.57.6): names and layouts of their variables, wherever they are stored.

`tf_model.h5`, SavedModels, checkpoints and Keras models around an encoder all have the same names. A variable of a
known model type that no row has is refused, not guessed; variables of other layers become heads.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from converter.dialects.identity.inference import infer_architecture
from converter.dialects.identity.transformers_4 import classes_like, is_whole, type_called, type_inside
from converter.dialects.keras import are_keras, carry_layers
from converter.dialects.rewriting import Derivation, Rewriting, laid_out
from converter.dialects.tables import ModelClass, TensorFlowTable
from converter.dialects.tables.rows import Match
from converter.dialects.transformers import composites, heads
from converter.dialects.transformers.matching import Encoder, located, plain
from converter.dialects.transformers.mechanical import translated
from converter.errors import ArchitectureError, LossError, ReadError
from converter.model.checkpoint import Checkpoint, Config, Dialect
from converter.model.dtype import DType
from converter.model.ledger import dropped
from converter.model.tensor import ArrayTensor, is_equal

_COUNTER = "num_batches_tracked"
_STATISTICS = ("running_mean", "running_var")
_INDICES = "relative_position_index"
_NAMES_SHOWN = 20
_NUMBER = re.compile(r"_\d+$")


def to_canonical(checkpoint: Checkpoint) -> Checkpoint | None:
    """Return the checkpoint as save_pretrained of the PyTorch class writes it, None when no config says it is one.

    The class is the one that the config names, if the tensors are its own, else the config is corrected. Nothing but
    tied tensors is read. Raises LossError for variables of the model that no table has, and when two names become
    one, ReadError for shapes that are not what a row says.
    """
    config = checkpoint.config or heads.encoder_config(checkpoint.keras_config)
    if config is None:
        return _by_names(checkpoint)
    model_type = config.model_type
    if model_type is None:
        return None
    table = composites.table_of(config.values)
    if table is None:
        return _by_rules(replace(checkpoint, config=config), model_type)
    encoder = located(table, {name: checkpoint.tensor(name).shape for name in checkpoint.names})
    if encoder is None:
        return None
    if encoder.unknown:
        raise LossError(
            f"{len(encoder.unknown)} variables are in no table of {model_type}: {_listed(encoder.unknown)}",
            tensor=encoder.unknown[0],
        )
    rewriting = Rewriting(source=replace(checkpoint, config=config))
    return _Reading(rewriting=rewriting, table=table, encoder=encoder).result(config)


def _by_names(checkpoint: Checkpoint) -> Checkpoint | None:
    """Translate names that begin as Keras calls a class of transformers, whose type no config says; None for others.

    Where a user named the model otherwise, or has its main layer alone, all of a model is to be there.
    """
    layers = {part for name in checkpoint.names for part in plain(name).split("/")[:-1]}
    model_type = type_called(layers) or _type_of_whole(checkpoint, type_inside(layers))
    if model_type is None:
        return None
    values = {"model_type": model_type}
    translated_checkpoint = to_canonical(
        replace(checkpoint, config=Config(values=values, raw=json.dumps(values).encode("ascii")))
    )
    if translated_checkpoint is None:
        return None
    warning = f"names and layouts are those of transformers for {model_type}, as the names tell: no config does"
    return replace(translated_checkpoint, config=None, warnings=(*translated_checkpoint.warnings, warning))


def _type_of_whole(checkpoint: Checkpoint, model_type: str | None) -> str | None:
    """Return the type if there is one whole model of it, and nothing that could be of another, else None."""
    table = None if model_type is None else composites.table_of({"model_type": model_type})
    if table is None:
        return None
    encoder = located(table, {name: checkpoint.tensor(name).shape for name in checkpoint.names})
    if encoder is None or encoder.unknown:
        return None
    is_twice = any(model_type in plain(name).split("/") for name in encoder.outside)
    present = {match.row.canonical.text for match in encoder.found.values()}
    return model_type if is_whole(table, present) and not is_twice else None


@dataclass(slots=True, kw_only=True)
class _Reading:
    """A checkpoint on its way to PyTorch's names."""

    rewriting: Rewriting
    table: TensorFlowTable
    encoder: Encoder

    def result(self, config: Config) -> Checkpoint:
        """Return the whole checkpoint, translated."""
        rewriting, source, found = self.rewriting, self.rewriting.source, self.encoder.found
        present = {match.row.canonical.text for match in found.values()}
        named = config.architecture
        model_class = self._likeliest(classes_like(self.table, present, named, self.encoder.start), config.values)
        for name, match in found.items():
            self._add(name, match, model_class, config.values)
        self._warn_of_missing(model_class, present)
        config = self._tied(model_class, config)
        self._add_counters()
        self._add_heads()
        prefix = f"{self.table.prefix}." if model_class.is_base else ""
        rewriting.rename(lambda name: name.removeprefix(prefix))
        rewriting.buffers.update(filter(_is_buffer, (*rewriting.tensors, *rewriting.aliases)))
        rewriting.frozen.update(self._frozen())
        corrected = config.with_values({"architectures": [model_class.name]})
        if corrected.raw != config.raw and named is not None:
            rewriting.note(f"config.json: architectures is now {model_class.name}")
        described = heads.layer_configs(source.keras_config, self.encoder.outside)
        described_by = {} if described is None else {heads.METADATA_KEY: described}
        return rewriting.done(
            Dialect.PYTORCH,
            config=corrected,
            metadata={**source.metadata, **described_by},
            **rewriting.state_of_variables(),
        )

    def _likeliest(self, likely: list[ModelClass], config: Mapping[str, Any]) -> ModelClass:
        """Return the one of several classes with the same variables that the checkpoint of PyTorch's names is of."""
        if len(likely) == 1:
            return likely[0]
        named = {}
        for name, match in self.encoder.found.items():
            with suppress(ReadError):
                named[match.name] = laid_out(self.rewriting.source.tensor(name), match.layout, name, to_torch=True)
        try:
            architecture = infer_architecture(named, config).architecture
        except ArchitectureError:
            architecture = ""
        return next((each for each in likely if each.name == architecture), likely[0])

    def _add(self, name: str, match: Match, model_class: ModelClass, config: Mapping[str, Any]) -> None:
        rewriting, new = self.rewriting, match.name
        tensor = rewriting.source.tensor(name)
        reason = self._reason_to_drop(match, model_class, config)
        if reason is not None:
            is_used = match.row.canonical.text in self.table.used
            rewriting.drop(name, reason, is_refused_by_default=is_used and bool(np.any(tensor.numpy())))
            return
        derivation = Derivation(before=(name,), after=(new,), operations=match.operations)
        if new in rewriting.tensors and is_equal(rewriting.tensors[new], *derivation.applied([tensor])):
            rewriting.tie(name, new, f"the same as {rewriting.origins[new]}")
            rewriting.derivations[name] = derivation
            return
        rewriting.carry(derivation)
        if new.endswith(_INDICES):
            rewriting.tensors[new] = rewriting.tensors[new].cast(DType.INT64)

    def _warn_of_missing(self, model_class: ModelClass, present: set[str]) -> None:
        """Warn of tensors that every model of the class has; old releases had classes without poolers."""
        templates = dict.fromkeys(row.canonical.text for row in self.table.rows.all)
        missing = [name for name in templates if name not in present and model_class.needs(name)]
        if missing:
            lack = f"no variables for {_listed(missing)}: transformers fills them at random"
            self.rewriting.note(f"{model_class.name} has more: {lack}")

    def _reason_to_drop(self, match: Match, model_class: ModelClass, config: Mapping[str, Any]) -> str | None:
        template = match.row.canonical.text
        if not model_class.has(template):
            return f"{model_class.name} saves no such tensor"
        condition = self.table.unless.get(template)
        if condition is None:
            return None
        value = _at(config, condition.key, condition.value)
        is_there = value == condition.value
        return None if is_there else f"{model_class.name} with {condition.key} {value!r} has no such tensor"

    def _tied(self, model_class: ModelClass, config: Config) -> Config:
        """Make ties of what the class ties; return a config that ties nothing when the values differ."""
        rewriting = self.rewriting
        ties = model_class.ties_with(config.values, default=self.table.tied_by_default)
        for alias, owner in model_class.ties.items():
            if owner not in rewriting.tensors:
                continue
            if alias not in rewriting.tensors:
                if alias not in ties:  # TensorFlow's class has one where PyTorch's has two
                    rewriting.aliases[alias] = owner
            elif is_equal(rewriting.tensors[alias], rewriting.tensors[owner]):
                if alias in ties:
                    del rewriting.tensors[alias]
                    rewriting.aliases[alias] = owner
            elif alias in self.table.prevails:
                reason = f"the TensorFlow class does not use it, but {rewriting.origins[alias]}"
                rewriting.lines.append(dropped(rewriting.origins[owner], reason))
                rewriting.move(alias, owner)
            elif alias in ties:
                config = config.with_values({"tie_word_embeddings": False})
                rewriting.note(
                    f"config.json: tie_word_embeddings is now false: {rewriting.origins[alias]} is not "
                    f"{rewriting.origins[owner]}, and the TensorFlow class uses both"
                )
        return config

    def _add_counters(self) -> None:
        """Add what PyTorch counts beside running statistics, after them."""
        uncounted, self.rewriting.tensors = self.rewriting.tensors, {}
        for name, tensor in uncounted.items():
            self.rewriting.tensors[name] = tensor
            module, _, leaf = name.rpartition(".")
            if leaf == "running_var":
                counter = f"{module}.{_COUNTER}" if module else _COUNTER
                zero = ArrayTensor.of(np.zeros((), np.int64))
                self.rewriting.default(counter, zero, "0: TensorFlow does not count the batches")

    def _add_heads(self) -> None:
        outside = self.encoder.outside
        left = _carry_heads(self.rewriting, outside)
        if outside:
            self.rewriting.note(f"{len(outside)} tensors are of no {self.table.model_type} model: heads")
        if left:
            self.rewriting.note(f"layout as stored: {_listed(left)}: nothing says what these heads are")

    def _frozen(self) -> list[str]:
        by_origin = {origin: name for name, origin in self.rewriting.origins.items()}
        frozen = map(self.rewriting.source.origin, self.rewriting.source.frozen)
        return [by_origin[origin] for origin in frozen if origin in by_origin]


def _carry_heads(rewriting: Rewriting, names: Sequence[str]) -> list[str]:
    """Carry variables of layers around the model, and return those that keep their names and layouts."""
    left = carry_layers(rewriting, names, heads.PREFIX)
    for name in left:
        rewriting.carry(Derivation(before=(name,), after=(heads.head_name(name),)))
    return left


def _at(config: Any, key: str, default: Any) -> Any:
    """Return what a config says at a path of keys, joined with dots."""
    for part in key.split("."):
        if not isinstance(config, Mapping) or part not in config:
            return default
        config = config[part]
    return config


def _is_buffer(name: str) -> bool:
    return name.rpartition(".")[2] in (*_STATISTICS, _COUNTER, _INDICES)


def _by_rules(checkpoint: Checkpoint, model_type: str) -> Checkpoint | None:
    """Translate what no table knows by transformers' own rules: a loss that must be allowed, with what they leave open.

    Embeddings that are shared have names of their own, ``shared/shared/embeddings``; layers around the model are heads.
    None when the names are not those of a model of transformers.
    """
    if not are_keras(map(plain, checkpoint.names)):
        return None
    names = {name: plain(name).split("/") for name in checkpoint.names}
    deep = {_NUMBER.sub("", first) for first, *rest in names.values() if len(rest) > 1 and first != rest[0]}
    if len(deep) != 1:
        return None
    rewriting = Rewriting(source=checkpoint)
    undecided: list[str] = []
    outside = [name for name, (first, *rest) in names.items() if len(rest) == 1 and _NUMBER.sub("", first) not in deep]
    for name, (first, *rest) in names.items():
        if name in outside:
            continue
        tensor = checkpoint.tensor(name)
        found = translated("/".join(rest) or first, len(tensor.shape))
        rewriting.put(name, found.name, laid_out(tensor, found.layout, name, to_torch=True))
        if not found.is_certain:
            undecided.append(name)
    undecided += _carry_heads(rewriting, outside)
    reason = (
        f"no table knows the model type {model_type!r}: {len(rewriting.tensors)} names follow transformers' rules; "
        f"undecided: whether the names keep the base model's prefix, and layouts of {_listed(undecided) or 'none'}"
    )
    rewriting.lines.append(dropped("model-type", reason, is_refused_by_default=True))
    rewriting.buffers.update(filter(_is_buffer, rewriting.tensors))
    return rewriting.done(Dialect.PYTORCH)


def _listed(names: tuple[str, ...] | list[str]) -> str:
    shown = ", ".join(names[:_NAMES_SHOWN])
    return shown if len(names) <= _NAMES_SHOWN else f"{shown} and {len(names) - _NAMES_SHOWN} more"
