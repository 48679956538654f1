"""TensorFlow models of transformers (4.57.6): names and layouts of their variables, wherever they are stored.

`tf_model.h5`, SavedModels, checkpoints and Keras models around an encoder all have the same names. A variable of a
known model type that no row has is refused, not guessed; variables of other layers become heads.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from converter.dialects.identity.classes import class_named
from converter.dialects.identity.inference import infer_architecture
from converter.dialects.identity.transformers_4 import classes_like
from converter.dialects.keras import are_keras
from converter.dialects.keras.rearrangement import Rearrangement
from converter.dialects.tables import ModelClass, TensorFlowTable
from converter.dialects.tables.rows import Match
from converter.dialects.transformers import composites, heads
from converter.dialects.transformers.matching import Encoder, located, plain
from converter.dialects.transformers.mechanical import translated
from converter.errors import ArchitectureError, LossError, ReadError
from converter.model.checkpoint import Checkpoint, Config, Dialect
from converter.model.dtype import DType
from converter.model.ledger import LedgerLine, Status, defaulted, dropped
from converter.model.optimizer import Convention, OptimizerState
from converter.model.tensor import ArrayTensor, Tensor, is_equal

_COUNTER = "num_batches_tracked"
_STATISTICS = ("running_mean", "running_var")
_INDICES = "relative_position_index"
_NAMES_SHOWN = 20
_NUMBER = re.compile(r"_\d+$")


def to_canonical(checkpoint: Checkpoint) -> Checkpoint | None:
    """Return the checkpoint as save_pretrained of the PyTorch class writes it, None when no config says it is one.

    The class is the one that the config names, if the tensors are its own, else the config is corrected. Nothing but
    tied tensors is read. Raises LossError for variables of the model that no table has, ReadError for shapes that
    are not what a row says, and when two names become one.
    """
    config = checkpoint.config or heads.encoder_config(checkpoint.keras_config)
    model_type = None if config is None else config.values.get("model_type")
    if config is None or not isinstance(model_type, str):
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
    return _Translation(checkpoint=replace(checkpoint, config=config), table=table, encoder=encoder).checkpoint_made()


@dataclass(slots=True, kw_only=True)
class _Translation:
    """A checkpoint on its way to PyTorch's names."""

    checkpoint: Checkpoint
    table: TensorFlowTable
    encoder: Encoder
    tensors: dict[str, Tensor] = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)
    aliases: dict[str, str] = field(default_factory=dict)
    lines: list[LedgerLine] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def checkpoint_made(self) -> Checkpoint:
        """Return the whole checkpoint, translated."""
        source, found = self.checkpoint, self.encoder.found
        assert source.config is not None
        values = source.config.values
        present = {match.row.canonical.text for match in found.values()}
        model_class = self._told(classes_like(self.table, present, class_named(values), self.encoder.start), values)
        for name, match in found.items():
            self._add(name, match, model_class, values)
        self._say_what_is_missing(model_class, present)
        config = self._tied(model_class, source.config)
        self._add_counters()
        self._add_heads()
        renamed = self._without_prefix(model_class)
        corrected = config.with_values({"architectures": [model_class.name]})
        if corrected.raw != config.raw and class_named(values) is not None:
            self.warnings.append(f"config.json: architectures is now {model_class.name}")
        metadata = dict(source.metadata)
        described = heads.layer_configs(source.keras_config, self.encoder.outside)
        if described is not None:
            metadata[heads.METADATA_KEY] = described
        return replace(
            source,
            tensors={renamed[name]: tensor for name, tensor in self.tensors.items()},
            aliases={renamed[alias]: renamed[owner] for alias, owner in self.aliases.items()},
            origins={renamed[name]: origin for name, origin in self.origins.items() if renamed[name] != origin},
            buffers=frozenset(new for name, new in renamed.items() if _is_buffer(name)),
            frozen=frozenset(renamed[name] for name in self._frozen()),
            dialect=Dialect.PYTORCH,
            config=corrected,
            optimizer=self._optimizer(renamed),
            metadata=metadata,
            lines=(*source.lines, *self.lines),
            warnings=(*source.warnings, *self.warnings),
        )

    def _told(self, likely: list[ModelClass], config: Mapping[str, Any]) -> ModelClass:
        """Return the one of several classes with the same variables that the checkpoint of PyTorch's names is of."""
        if len(likely) == 1:
            return likely[0]
        named = {}
        for name, match in self.encoder.found.items():
            tensor = self.checkpoint.tensor(name)
            with suppress(ReadError):
                named[match.name] = tensor if match.layout is None else match.layout.to_torch(tensor)
        try:
            told = infer_architecture(named, config).architecture
        except ArchitectureError:
            told = ""
        return next((each for each in likely if each.name == told), likely[0])

    def _add(self, source: str, match: Match, model_class: ModelClass, config: Mapping[str, Any]) -> None:
        tensor = self.checkpoint.tensor(source)
        reason = self._reason_to_drop(match, model_class, config)
        if reason is not None:
            is_used = match.row.canonical.text in self.table.used
            is_loss = is_used and bool(np.any(tensor.numpy()))
            self.lines.append(dropped(self.checkpoint.origin(source), reason, is_refused_by_default=is_loss))
            return
        try:
            tensor = tensor if match.layout is None else match.layout.to_torch(tensor)
        except ReadError as error:
            error.tensor = error.tensor or source
            raise
        if match.name.endswith(_INDICES):
            tensor = tensor.cast(DType.INT64)
        if match.name in self.tensors:
            self._tie_to_first(source, match.name, tensor)
            return
        self.tensors[match.name] = tensor
        self.origins[match.name] = self.checkpoint.origin(source)

    def _say_what_is_missing(self, model_class: ModelClass, present: set[str]) -> None:
        """Warn of tensors that every model of the class has; old releases had classes without poolers."""
        templates = dict.fromkeys(row.canonical.text for row in self.table.rows.all)
        missing = [name for name in templates if name not in present and model_class.needs(name)]
        if missing:
            said = f"no variables for {_listed(missing)}: transformers fills them at random"
            self.warnings.append(f"{model_class.name} has more: {said}")

    def _reason_to_drop(self, match: Match, model_class: ModelClass, config: Mapping[str, Any]) -> str | None:
        template = match.row.canonical.text
        if not model_class.has(template):
            return f"{model_class.name} saves no such tensor"
        condition = self.table.unless.get(template)
        if condition is None:
            return None
        said = _at(config, condition.key, condition.value)
        is_there = said == condition.value
        return None if is_there else f"{model_class.name} with {condition.key} {said!r} has no such tensor"

    def _tie_to_first(self, source: str, name: str, tensor: Tensor) -> None:
        if not is_equal(self.tensors[name], tensor):
            raise ReadError(f"and {self.origins[name]!r} would both be called {name!r}", tensor=source)
        reason = f"the same as {self.origins[name]}"
        self.lines.append(
            LedgerLine(status=Status.TIED, name=self.checkpoint.origin(source), target=name, reason=reason)
        )

    def _tied(self, model_class: ModelClass, config: Config) -> Config:
        """Make ties of what the class ties; return a config that ties nothing when the values differ."""
        default = self.table.tied_by_default
        ties = model_class.ties_with(config.values, default=default)
        for alias, owner in model_class.ties.items():
            if owner not in self.tensors:
                continue
            if alias not in self.tensors:
                if alias not in ties:  # TensorFlow's class has one where PyTorch's has two
                    self.aliases[alias] = owner
            elif is_equal(self.tensors[alias], self.tensors[owner]):
                if alias in ties:
                    del self.tensors[alias]
                    self.aliases[alias] = owner
            elif alias in self.table.prevails:
                self._let_prevail(alias, owner)
            elif alias in ties:
                config = _untied(config)
                self.warnings.append(
                    f"config.json: tie_word_embeddings is now false: {self.origins[alias]} is not "
                    f"{self.origins[owner]}, and the TensorFlow class uses both"
                )
        return config

    def _let_prevail(self, alias: str, owner: str) -> None:
        self.lines.append(
            dropped(self.origins[owner], f"the TensorFlow class does not use it, but {self.origins[alias]}")
        )
        self.tensors[owner] = self.tensors.pop(alias)
        self.origins[owner] = self.origins.pop(alias)

    def _add_counters(self) -> None:
        """Add what PyTorch counts beside running statistics, after them."""
        completed: dict[str, Tensor] = {}
        for name, tensor in self.tensors.items():
            completed[name] = tensor
            module, _, leaf = name.rpartition(".")
            if leaf == "running_var":
                counter = f"{module}.{_COUNTER}" if module else _COUNTER
                completed[counter] = ArrayTensor.of(np.zeros((), np.int64))
                self.lines.append(defaulted(counter, "0: TensorFlow does not count the batches"))
        self.tensors = completed

    def _add_heads(self) -> None:
        for name in self.encoder.outside:
            head = heads.head_name(name)
            if head in self.tensors:
                raise ReadError(f"and another would both be called {head!r}", tensor=name)
            self.tensors[head] = self.checkpoint.tensor(name)
            self.origins[head] = self.checkpoint.origin(name)
        if self.encoder.outside:
            self.warnings.append(
                f"{len(self.encoder.outside)} tensors are of no {self.table.model_type} model: heads, layout as stored"
            )

    def _without_prefix(self, model_class: ModelClass) -> dict[str, str]:
        prefix = f"{self.table.prefix}." if model_class.is_base else ""
        renamed = {name: name.removeprefix(prefix) for name in (*self.tensors, *self.aliases)}
        self.lines = [
            replace(line, target=None if line.target is None else line.target.removeprefix(prefix))
            for line in self.lines
        ]
        return renamed

    def _optimizer(self, renamed: Mapping[str, str]) -> OptimizerState | None:
        """Return the optimizer's state with each slot named and laid out as its variable."""
        state = self.checkpoint.optimizer
        if state is None or state.convention is Convention.TORCH:
            return state

        def translated_slots(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
            made = {}
            for name, tensor in tensors.items():
                new, layout = self.translated_name(name)
                if new in renamed:
                    is_alike = layout is not None and tensor.shape == self.checkpoint.tensor(name).shape
                    made[renamed[new]] = layout.to_torch(tensor) if layout is not None and is_alike else tensor
            return made

        groups = [
            [renamed[new] for name in group.parameters if (new := self.translated_name(name)[0]) in renamed]
            for group in state.groups
        ]
        return replace(
            state,
            groups=tuple(
                replace(group, parameters=tuple(names)) for group, names in zip(state.groups, groups, strict=True)
            ),
            slots={slot: translated_slots(tensors) for slot, tensors in state.slots.items()},
        )

    def translated_name(self, name: str) -> tuple[str, Rearrangement | None]:
        """Return what a variable is called, the base model's prefix included, and how its layout changes."""
        match = self.encoder.found.get(name)
        return (heads.head_name(name), None) if match is None else (match.name, match.layout)

    def _frozen(self) -> list[str]:
        by_origin = {origin: name for name, origin in self.origins.items()}
        frozen = map(self.checkpoint.origin, self.checkpoint.frozen)
        return [by_origin[origin] for origin in frozen if origin in by_origin]


def _at(config: Any, key: str, default: Any) -> Any:
    """Return what a config says at a path of keys, joined with dots."""
    for part in key.split("."):
        if not isinstance(config, Mapping) or part not in config:
            return default
        config = config[part]
    return config


def _untied(config: Config) -> Config:
    return config.with_values({"tie_word_embeddings": False})


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
    tensors: dict[str, Tensor] = {}
    origins: dict[str, str] = {}
    undecided: list[str] = []
    for name, (first, *rest) in names.items():
        tensor = checkpoint.tensor(name)
        found = translated("/".join(rest) or first, len(tensor.shape))
        if len(rest) == 1 and _NUMBER.sub("", first) not in deep:
            found = replace(found, name=heads.head_name(name), layout=None, is_certain=False)
        if found.name in tensors:
            raise LossError(f"and {origins[found.name]!r} would both be called {found.name!r}", tensor=name)
        tensors[found.name] = tensor if found.layout is None else found.layout.to_torch(tensor)
        origins[found.name] = checkpoint.origin(name)
        if not found.is_certain:
            undecided.append(name)
    said = (
        f"no table knows the model type {model_type!r}: {len(tensors)} names follow transformers' rules; undecided: "
        f"whether the names keep the base model's prefix, and layouts of {_listed(undecided) or 'none'}"
    )
    return replace(
        checkpoint,
        tensors=tensors,
        aliases={},
        origins=origins,
        buffers=frozenset(name for name in tensors if _is_buffer(name)),
        frozen=frozenset(),
        dialect=Dialect.PYTORCH,
        lines=(*checkpoint.lines, dropped("model-type", said, is_refused_by_default=True)),
    )


def _listed(names: tuple[str, ...] | list[str]) -> str:
    shown = ", ".join(names[:_NAMES_SHOWN])
    return shown if len(names) <= _NAMES_SHOWN else f"{shown} and {len(names) - _NAMES_SHOWN} more"
