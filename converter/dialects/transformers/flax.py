"""Flax models of transformers (4.57.6): names and layouts of their leaves, both ways.

A leaf is named by the keys on the way to it, joined with `/`; models with batch normalisation have the collections
`params` and `batch_stats` in front. A leaf of a known model type that no row has is refused, not guessed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from converter.dialects.identity.classes import class_named
from converter.dialects.identity.inference import infer_architecture
from converter.dialects.keras.rearrangement import Rearrangement
from converter.dialects.tables.rows import layout_of
from converter.dialects.transformers.flax_names import Names
from converter.dialects.transformers.old_configs import of_old_release
from converter.dialects.transformers.sinusoids import is_computed, sinusoids
from converter.errors import ArchitectureError, LossError, ReadError
from converter.model.checkpoint import Checkpoint, Config, Dialect
from converter.model.dtype import DType
from converter.model.ledger import LedgerLine, Status, defaulted, dropped
from converter.model.tensor import ArrayTensor, Tensor, is_equal

_PARAMETERS, _STATISTICS = "params", "batch_stats"
_RUNNING = ("running_mean", "running_var")
_COUNTER = "num_batches_tracked"
_LEAVES = {"scale": "weight", "embedding": "weight", "mean": "running_mean", "var": "running_var"}
_KERNELS = {2: "i o -> o i", 3: "x i o -> o i x", 4: "y x i o -> o i y x", 5: "z y x i o -> o i z y x"}
_CLASSES = {"BertForCausalLM": "BertLMHeadModel"}
_NAMES_SHOWN = 20
_POOLER_LIMIT = 1 << 16


def is_known(config: Config | None) -> bool:
    """Whether a table knows the model that a config describes."""
    return config is not None and Names.of(config.values) is not None


def to_canonical(checkpoint: Checkpoint) -> Checkpoint:
    """Return the checkpoint as save_pretrained of the PyTorch class writes it; as it is when no config says what it is.

    Nothing but tied tensors is read. Raises LossError for leaves that no table has, ReadError for shapes that are not
    what a row says.
    """
    config = checkpoint.config
    model_type = None if config is None else config.values.get("model_type")
    if config is None or not isinstance(model_type, str):
        said = "layout as stored: no config says which model this is"
        return replace(checkpoint, warnings=(*checkpoint.warnings, said))
    names = Names.of(config.values)
    if names is None:
        return _by_rules(checkpoint, model_type)
    reading = _Reading(source=checkpoint, config=config, names=names)
    reading.add_leaves()
    reading.tie()
    reading.split()
    reading.add_what_flax_computes()
    return reading.checkpoint_made()


def from_canonical(checkpoint: Checkpoint) -> Checkpoint:
    """Return a checkpoint of PyTorch's names as the Flax class stores it.

    What Flax has no place for is ledger lines, refused where it is a loss. Tensors that may be tied or computed are
    read. Raises ArchitectureError when no table knows the config's model type.
    """
    checkpoint = of_old_release(checkpoint)
    config = checkpoint.config
    names = None if config is None else Names.of(config.values)
    if config is None or names is None:
        model_type = None if config is None else config.values.get("model_type")
        raise ArchitectureError(f"no table knows Flax's names of the model type {model_type!r}")
    writing = _Writing(source=checkpoint, config=config.values, names=names)
    for name in checkpoint.names:
        writing.add(name)
    writing.repeat_ties()
    return writing.checkpoint_made()


@dataclass(slots=True, kw_only=True)
class _Reading:
    """A Flax checkpoint on its way to PyTorch's names."""

    source: Checkpoint
    config: Config
    names: Names
    tensors: dict[str, Tensor] = field(default_factory=dict)
    aliases: dict[str, str] = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)
    lines: list[LedgerLine] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def add_leaves(self) -> None:
        unknown: list[str] = []
        for path in self.source.names:
            found = self.names.to_canonical(_without_collection(path))
            if found is None:
                unknown.append(path)
            elif found[0] in self.tensors:
                raise ReadError(f"and {self.origins[found[0]]!r} would both be called {found[0]!r}", tensor=path)
            else:
                self._add(path, *found)
        if unknown:
            model_type = self.config.values["model_type"]
            raise LossError(
                f"{len(unknown)} leaves are in no table of {model_type}: {_listed(unknown)}", tensor=unknown[0]
            )

    def _add(self, path: str, name: str, layout: Rearrangement | None) -> None:
        self.tensors[name] = _arranged(self.source.tensor(path), layout, path, to_torch=True)
        self.origins[name] = self.source.origin(path)
        module, _, leaf = name.rpartition(".")
        if leaf == _RUNNING[-1]:
            counter = f"{module}.{_COUNTER}"
            self.tensors[counter] = ArrayTensor.of(np.zeros((), np.int64))
            self.lines.append(defaulted(counter, "0: Flax does not count the batches"))

    def tie(self) -> None:
        """Make ties of what Flax stores twice; a config that ties them is changed when they differ."""
        for alias, owner in _ties(self.names, self.config.values):
            if alias not in self.tensors or owner not in self.tensors:
                continue
            if is_equal(self.tensors[alias], self.tensors[owner]):
                del self.tensors[alias]
                origin = self.origins.pop(alias)
                reason = f"the same as {self.origins[owner]}"
                self.lines.append(LedgerLine(status=Status.TIED, name=origin, target=owner, reason=reason))
            else:
                self.config = self.config.with_values({"tie_word_embeddings": False})
                self.warnings.append(
                    f"config.json: tie_word_embeddings is now false: {self.origins[alias]} is not "
                    f"{self.origins[owner]}, and the Flax class uses both"
                )

    def split(self) -> None:
        """Give a tensor that Flax has once all of the names that PyTorch has."""
        found = self.names.split()
        for start in () if found is None else ("", f"{self.names.table.prefix}."):
            assert found is not None
            once, several = start + found[0], [start + name for name in found[1]]
            if once in self.tensors:
                first, *others = several
                self.tensors[first], self.origins[first] = self.tensors.pop(once), self.origins.pop(once)
                self.aliases |= dict.fromkeys(others, first)
                self.origins |= dict.fromkeys(others, self.origins[first])

    def add_what_flax_computes(self) -> None:
        """Add what the PyTorch class saves and Flax has not: position tables, and poolers that nothing uses."""
        dtype = next((tensor.dtype for tensor in self.tensors.values() if tensor.dtype.is_floating), DType.FLOAT32)
        for name, tensor in _computed(self.names, dtype, self.tensors, is_stored=True):
            self.tensors[name] = tensor
            self.lines.append(defaulted(name, "computed from the config: Flax does not store it"))
        for template in self.names.table.lacks.get(self._architecture(), ()):
            if template not in self.tensors:
                shape = _pooler_shape(self.config.values, template)
                self.tensors[template] = ArrayTensor.of(np.zeros(shape, np.float32)).cast(dtype)
                self.lines.append(defaulted(template, "0: this class of PyTorch has a pooler, and does not use it"))

    def _architecture(self) -> str:
        """Return the class that the config names, or the one that the tensors are of; "" where nothing says it."""
        named = class_named(self.config.values)
        if named is not None:
            return named
        try:
            return infer_architecture(self.tensors, self.config.values).architecture
        except ArchitectureError:
            return ""

    def checkpoint_made(self) -> Checkpoint:
        source, config = self.source, self.config
        named = class_named(config.values)
        if named in _CLASSES:
            config = config.with_values({"architectures": [_CLASSES[named]]})
        return replace(
            source,
            tensors=self.tensors,
            aliases=self.aliases,
            origins={name: origin for name, origin in self.origins.items() if name != origin},
            buffers=frozenset(name for name in self.tensors if name.rpartition(".")[2] in (*_RUNNING, _COUNTER)),
            frozen=frozenset(),
            dialect=Dialect.PYTORCH,
            config=config,
            lines=(*source.lines, *self.lines),
            warnings=(*source.warnings, *self.warnings),
        )


@dataclass(slots=True, kw_only=True)
class _Writing:
    """A checkpoint of PyTorch's names on its way to Flax's."""

    source: Checkpoint
    config: Mapping[str, Any]
    names: Names
    tensors: dict[str, Tensor] = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)
    lines: list[LedgerLine] = field(default_factory=list)

    def add(self, name: str) -> None:
        own = self._merged(name)
        found = None if own is None else self.names.from_canonical(own)
        lost = self._fate(name, found is not None)
        if lost is not None:
            self.lines.append(lost)
        elif found is not None:
            self._put(name, *found)

    def _put(self, name: str, leaf: str, layout: Rearrangement | None) -> None:
        tensor = _arranged(self.source.tensor(name), layout, name, to_torch=False)
        if leaf not in self.tensors:
            self.tensors[leaf] = tensor
            self.origins[leaf] = self.source.origin(name)
            return
        is_same = is_equal(self.tensors[leaf], tensor)
        self.lines.append(
            LedgerLine(status=Status.TIED, name=self.source.origin(name), target=leaf, reason="stored once")
            if is_same
            else dropped(self.source.origin(name), f"Flax has {leaf} alone for it", is_refused_by_default=True)
        )

    def _merged(self, name: str) -> str | None:
        """Return what a tensor is called that Flax has once and PyTorch under several names."""
        found = self.names.split()
        if found is None:
            return name
        for start in ("", f"{self.names.table.prefix}."):
            if name in [start + each for each in found[1]]:
                return start + found[0]
        return name

    def _fate(self, name: str, is_known: bool) -> LedgerLine | None:
        """Return the line of a tensor that Flax has no leaf for, None when it has one."""
        origin = self.source.origin(name)
        lacking = self.names.table.lacks.get(class_named(self.config) or "", ())
        if name in lacking:
            return dropped(origin, "the Flax class has no pooler, and PyTorch's does not use it")
        table = self._computed_as(name)
        if table is not None:
            is_same = is_equal(table, self.source.tensor(name))
            said = "a table of positions, which Flax computes" if is_same else "Flax computes other positions"
            return dropped(origin, said, is_refused_by_default=not is_same)
        if is_known:
            return None
        if name.rpartition(".")[2] == _COUNTER:
            return dropped(origin, "Flax does not count the batches")
        if self.names.is_constant(name) or name.endswith(".position_ids"):
            return dropped(origin, "a constant, which Flax computes")
        owner = self._twin(name)
        if owner is not None:
            return LedgerLine(status=Status.TIED, name=origin, target=owner, reason="Flax has it once")
        return dropped(origin, "the Flax model has no leaf for it", is_refused_by_default=True)

    def _computed_as(self, name: str) -> Tensor | None:
        """Return what Flax computes in place of a tensor, None when it stores it."""
        for start, part in self.names.each():
            known = () if part.table.sinusoids is None else part.table.sinusoids.names
            own = name.removeprefix(start)
            if own in known or f"{part.table.prefix}.{own}" in known:
                computed = _computed(self.names, self.source.tensor(name).dtype, {}, is_stored=False)
                return next((tensor for each, tensor in computed if each.endswith(own)), None)
        return None

    def _twin(self, name: str) -> str | None:
        """Return the leaf of a tensor that a name without a leaf is tied to."""
        source = self.source
        group = source.aliases.get(name, name)
        tied = [other for other in source.names if other != name and source.aliases.get(other, other) == group]
        mine = source.tensor(name)
        alike = [
            other
            for other in source.tensors
            if other != name and source.tensors[other].shape == mine.shape and self.names.from_canonical(other)
        ]
        for other in (*tied, *(each for each in alike if each.rpartition(".")[2] == name.rpartition(".")[2])):
            found = self.names.from_canonical(other)
            if found is not None and (other in tied or is_equal(source.tensor(other), mine)):
                return found[0]
        return None

    def repeat_ties(self) -> None:
        """Store once more what Flax stores twice and PyTorch once."""
        for alias, owner in _ties(self.names, self.config):
            found = self.names.from_canonical(alias)
            if found is None or found[0] in self.tensors or owner not in self.source.names:
                continue
            leaf, layout = found
            self.tensors[leaf] = _arranged(self.source.tensor(owner), layout, owner, to_torch=False)
            self.origins[leaf] = self.source.origin(owner)

    def checkpoint_made(self) -> Checkpoint:
        source = self.source
        in_statistics = {leaf for leaf in self.tensors if _is_statistic(self.names, leaf)}
        new = {
            leaf: f"{_STATISTICS if leaf in in_statistics else _PARAMETERS}/{leaf}" if in_statistics else leaf
            for leaf in self.tensors
        }
        lines = [
            line if line.status is not Status.TIED else replace(line, target=new.get(line.target or "", line.target))
            for line in self.lines
        ]
        said = () if source.optimizer is None else ("optimizer state not carried: Flax's models have none",)
        made = {line.target for line in source.lines if line.status is Status.DEFAULTED}
        kept = (line for line in source.lines if line.status is not Status.DEFAULTED)
        return replace(
            source,
            tensors={new[leaf]: tensor for leaf, tensor in self.tensors.items()},
            aliases={},
            origins={new[leaf]: origin for leaf, origin in self.origins.items() if origin != new[leaf]},
            buffers=frozenset(new[leaf] for leaf in in_statistics),
            frozen=frozenset(),
            optimizer=None,
            dialect=Dialect.FLAX,
            lines=(*kept, *(line for line in lines if line.name not in made)),
            warnings=(*source.warnings, *said),
        )


def _is_statistic(names: Names, leaf: str) -> bool:
    found = names.to_canonical(leaf)
    return found is not None and found[0].rpartition(".")[2] in _RUNNING


def _ties(names: Names, config: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield alias and owner of what a config ties and Flax stores twice."""
    for start, part in names.each():
        if part.config.get("tie_word_embeddings", False):
            for alias, owner in part.table.ties.items():
                yield start + alias, start + owner


def _computed(
    names: Names, dtype: DType, present: Mapping[str, Tensor], *, is_stored: bool
) -> Iterator[tuple[str, Tensor]]:
    """Yield the position tables that PyTorch's class has and that are not in `present`; `is_stored`: those it saves."""
    for start, part in names.each():
        table = part.table.sinusoids
        if table is None or not is_computed(table.kind, part.config):
            continue
        named = class_named(part.config)
        if is_stored and named is not None and named not in table.classes:
            continue
        prefix = f"{part.table.prefix}."
        is_base = is_stored and not any(name.startswith(start + prefix) for name in present)
        for name in table.names:
            own = start + (name.removeprefix(prefix) if is_base else name)
            if own not in present:
                yield own, sinusoids(table.kind, part.config, dtype)


def _pooler_shape(config: Mapping[str, Any], name: str) -> tuple[int, ...]:
    width = config.get("hidden_size")
    if type(width) is not int or not 0 < width <= _POOLER_LIMIT:
        raise ReadError(f"config.json says that hidden_size is {width!r}", tensor=name)
    return (width, width) if name.endswith(".weight") else (width,)


def _by_rules(checkpoint: Checkpoint, model_type: str) -> Checkpoint:
    """Translate what no table knows by what leaves are called: a loss that must be allowed."""
    tensors: dict[str, Tensor] = {}
    origins: dict[str, str] = {}
    undecided: list[str] = []
    for path in checkpoint.names:
        tensor = checkpoint.tensor(path)
        *modules, leaf = _without_collection(path).split("/")
        layout = _KERNELS.get(len(tensor.shape)) if leaf == "kernel" else None
        name = ".".join([*modules, "weight" if layout is not None else _LEAVES.get(leaf, leaf)])
        if layout is None and leaf not in (*_LEAVES, "bias"):
            undecided.append(path)
        if name in tensors:
            raise LossError(f"and {origins[name]!r} would both be called {name!r}", tensor=path)
        tensors[name] = _arranged(tensor, layout_of(layout), path, to_torch=True)
        origins[name] = checkpoint.origin(path)
    said = (
        f"no table knows the model type {model_type!r}: {len(tensors)} names follow what Flax calls leaves; undecided: "
        f"{_listed(undecided) or 'none'}, and what PyTorch's class has besides"
    )
    return replace(
        checkpoint,
        tensors=tensors,
        aliases={},
        origins=origins,
        buffers=frozenset(name for name in tensors if name.rpartition(".")[2] in _RUNNING),
        frozen=frozenset(),
        dialect=Dialect.PYTORCH,
        lines=(*checkpoint.lines, dropped("model-type", said, is_refused_by_default=True)),
    )


def _without_collection(path: str) -> str:
    collection, _, rest = path.partition("/")
    return rest if collection in (_PARAMETERS, _STATISTICS) and rest else path


def _arranged(tensor: Tensor, layout: Rearrangement | None, name: str, *, to_torch: bool) -> Tensor:
    if layout is None:
        return tensor
    try:
        return layout.to_torch(tensor) if to_torch else layout.to_keras(tensor)
    except ReadError as error:
        error.tensor = error.tensor or name
        raise


def _listed(names: list[str]) -> str:
    shown = ", ".join(names[:_NAMES_SHOWN])
    return shown if len(names) <= _NAMES_SHOWN else f"{shown} and {len(names) - _NAMES_SHOWN} more"
