"""Flax models of transformers (4.57.6): names and layouts of their leaves, both ways.

A leaf is named by the keys on the way to it, joined with `/`; models with batch normalisation have the collections
`params` and `batch_stats` in front. A leaf of a known model type that no row has is refused, not guessed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from converter.dialects.identity.inference import infer_architecture
from converter.dialects.identity.ties import every_tie
from converter.dialects.names.rearrangement import Rearrangement
from converter.dialects.rewriting import Rewriting, laid_out
from converter.dialects.tables.rows import layout_of
from converter.dialects.transformers.flax_names import Names
from converter.dialects.transformers.old_configs import of_old_release
from converter.dialects.transformers.sinusoids import is_computed, sinusoids
from converter.errors import ArchitectureError, LossError, ReadError
from converter.model.checkpoint import Checkpoint, Config, Dialect, class_named
from converter.model.dtype import DType
from converter.model.ledger import Status, dropped
from converter.model.tensor import ArrayTensor, Tensor, is_equal

_PARAMETERS, _STATISTICS = "params", "batch_stats"
_RUNNING = ("running_mean", "running_var")
_COUNTER = "num_batches_tracked"
_LEAVES = {"scale": "weight", "embedding": "weight", "mean": "running_mean", "var": "running_var"}
_KERNELS = {2: "i o -> o i", 3: "x i o -> o i x", 4: "y x i o -> o i y x", 5: "z y x i o -> o i z y x"}
_CLASSES = {"BertForCausalLM": "BertLMHeadModel"}
_SHARED, _USED = "shared.weight", "embed_tokens.weight"
"""Embeddings that classes of Flax hand to encoder and decoder, whatever the config ties."""
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
    model_type = None if config is None else config.model_type
    if config is None or model_type is None:
        warning = "layout as stored: no config says which model this is"
        return replace(checkpoint, warnings=(*checkpoint.warnings, warning))
    names = Names.of(config.values)
    if names is None:
        return _by_rules(checkpoint, model_type)
    reading = _Reading(rewriting=Rewriting(source=checkpoint), config=config, names=names)
    reading.add_leaves()
    reading.tie()
    reading.split()
    reading.add_what_flax_computes()
    return reading.result()


def leaf_of(config: Config, name: str) -> str | None:
    """Return the leaf that holds a tensor of PyTorch, None where the Flax class has none, or another's for it."""
    names = Names.of(config.values)
    merged = name if names is None else _merged(names, name)
    if names is None or merged in _shared(names, config.values):
        return None
    found = names.from_canonical(merged)
    return None if found is None else found[0]


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
    writing = _Writing(
        rewriting=Rewriting(source=checkpoint), config=config.values, names=names, shared=_shared(names, config.values)
    )
    for name in checkpoint.names:
        writing.add(name)
    writing.repeat_ties()
    return writing.result()


@dataclass(slots=True, kw_only=True)
class _Reading:
    """A Flax checkpoint on its way to PyTorch's names."""

    rewriting: Rewriting
    config: Config
    names: Names

    def add_leaves(self) -> None:
        unknown: list[str] = []
        for path in self.rewriting.source.names:
            found = self.names.to_canonical(_without_collection(path))
            if found is None:
                unknown.append(path)
            else:
                self._add(path, *found)
        if unknown:
            problem = f"{len(unknown)} leaves are in no table of {self.config.model_type}: {_listed(unknown)}"
            raise LossError(problem, tensor=unknown[0])

    def _add(self, path: str, name: str, layout: Rearrangement | None) -> None:
        self.rewriting.put(path, name, laid_out(self.rewriting.source.tensor(path), layout, path, to_torch=True))
        module, _, leaf = name.rpartition(".")
        if leaf == _RUNNING[-1]:
            zero = ArrayTensor.of(np.zeros((), np.int64))
            self.rewriting.default(f"{module}.{_COUNTER}", zero, "0: Flax does not count the batches")

    def tie(self) -> None:
        """Make ties of what Flax stores twice; a config that ties them is changed when they differ."""
        rewriting = self.rewriting
        for alias, owner in _ties(self.names, self.config.values):
            if alias not in rewriting.tensors or owner not in rewriting.tensors:
                continue
            if is_equal(rewriting.tensors[alias], rewriting.tensors[owner]):
                rewriting.merge(alias, owner)
            else:
                self.config = self.config.with_values({"tie_word_embeddings": False})
                rewriting.note(
                    f"config.json: tie_word_embeddings is now false: {rewriting.origins[alias]} is not "
                    f"{rewriting.origins[owner]}, and the Flax class uses both"
                )

    def split(self) -> None:
        """Give a tensor that Flax has once all of the names that PyTorch has."""
        found = self.names.split()
        for start in () if found is None else ("", f"{self.names.table.prefix}."):
            assert found is not None
            once, several = start + found[0], [start + name for name in found[1]]
            if once in self.rewriting.tensors:
                first, *others = several
                self.rewriting.move(once, first)
                self.rewriting.aliases |= dict.fromkeys(others, first)
                self.rewriting.origins |= dict.fromkeys(others, self.rewriting.origins[first])

    def add_what_flax_computes(self) -> None:
        """Add what the PyTorch class saves and Flax has not: position tables, and poolers that nothing uses."""
        rewriting = self.rewriting
        dtype = next((tensor.dtype for tensor in rewriting.tensors.values() if tensor.dtype.is_floating), DType.FLOAT32)
        for name, tensor in _computed(self.names, dtype, rewriting.tensors, is_stored=True):
            rewriting.default(name, tensor, "computed from the config: Flax does not store it")
        for template in self.names.table.lacks.get(self._architecture(), ()):
            if template not in rewriting.tensors:
                shape = _pooler_shape(self.config.values, template)
                zeros = ArrayTensor.of(np.zeros(shape, np.float32)).cast(dtype)
                rewriting.default(template, zeros, "0: this class of PyTorch has a pooler, and does not use it")

    def _architecture(self) -> str:
        """Return the class that the config names, or the one that the tensors are of; "" where nothing says it."""
        named = self.config.architecture
        if named is not None:
            return named
        try:
            return infer_architecture(self.rewriting.tensors, self.config.values).architecture
        except ArchitectureError:
            return ""

    def result(self) -> Checkpoint:
        config = self.config
        if config.architecture in _CLASSES:
            config = config.with_values({"architectures": [_CLASSES[config.architecture]]})
        self.rewriting.buffers.update(name for name in self.rewriting.tensors if _is_buffer(name))
        return self.rewriting.done(Dialect.PYTORCH, config=config)


@dataclass(slots=True, kw_only=True)
class _Writing:
    """A checkpoint of PyTorch's names on its way to Flax's. `shared` are names that the Flax class has no leaf for."""

    rewriting: Rewriting
    config: Mapping[str, Any]
    names: Names
    shared: Mapping[str, str]

    def add(self, name: str) -> None:
        own = _merged(self.names, name)
        owner = self.shared.get(own)
        if owner is not None and owner in self.rewriting.source:
            self._share(name, owner)
            return
        own = owner or own
        found = self.names.from_canonical(own)
        if not self._is_lost(name, found is not None) and found is not None:
            self._put(name, *found)

    def _put(self, name: str, leaf: str, layout: Rearrangement | None) -> None:
        tensor = laid_out(self.rewriting.source.tensor(name), layout, name, to_torch=False)
        if leaf not in self.rewriting.tensors:
            self.rewriting.put(name, leaf, tensor)
        elif is_equal(self.rewriting.tensors[leaf], tensor):
            self.rewriting.tie(name, leaf, "stored once")
        else:
            self.rewriting.drop(name, f"Flax has {leaf} alone for it", is_refused_by_default=True)

    def _share(self, name: str, owner: str) -> None:
        """Write down that a tensor is another, which Flax uses for both, or that it is lost where it is not."""
        found = self.names.from_canonical(owner)
        leaf = owner if found is None else found[0]
        if is_equal(self.rewriting.source.tensor(name), self.rewriting.source.tensor(owner)):
            self.rewriting.tie(name, leaf, "Flax has it once")
        else:
            self.rewriting.drop(name, f"the Flax class uses {leaf}, and it differs", is_refused_by_default=True)

    def _is_lost(self, name: str, is_known: bool) -> bool:
        """Write down what becomes of a tensor that Flax has no leaf for; whether it is one."""
        rewriting = self.rewriting
        if name in self.names.table.lacks.get(class_named(self.config) or "", ()):
            rewriting.drop(name, "the Flax class has no pooler, and PyTorch's does not use it")
        elif (table := self._computed_as(name)) is not None:
            is_same = is_equal(table, rewriting.source.tensor(name))
            reason = "a table of positions, which Flax computes" if is_same else "Flax computes other positions"
            rewriting.drop(name, reason, is_refused_by_default=not is_same)
        elif is_known:
            return False
        elif name.rpartition(".")[2] == _COUNTER:
            rewriting.drop(name, "Flax does not count the batches")
        elif self.names.is_constant(name) or name.endswith(".position_ids"):
            rewriting.drop(name, "a constant, which Flax computes")
        elif (owner := self._twin(name)) is not None:
            rewriting.tie(name, owner, "Flax has it once")
        else:
            rewriting.drop(name, "the Flax model has no leaf for it", is_refused_by_default=True)
        return True

    def _computed_as(self, name: str) -> Tensor | None:
        """Return what Flax computes in place of a tensor, None when it stores it."""
        for start, part in self.names.each():
            known = () if part.table.sinusoids is None else part.table.sinusoids.names
            own = name.removeprefix(start)
            if own in known or f"{part.table.prefix}.{own}" in known:
                computed = _computed(self.names, self.rewriting.source.tensor(name).dtype, {}, is_stored=False)
                return next((tensor for each, tensor in computed if each.endswith(own)), None)
        return None

    def _twin(self, name: str) -> str | None:
        """Return the leaf of a tensor that a name without a leaf is tied to."""
        source = self.rewriting.source
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
            if found is None or found[0] in self.rewriting.tensors or owner not in self.rewriting.source:
                continue
            leaf, layout = found
            self.rewriting.put(
                owner, leaf, laid_out(self.rewriting.source.tensor(owner), layout, owner, to_torch=False)
            )

    def result(self) -> Checkpoint:
        rewriting = self.rewriting
        rewriting.buffers.update(leaf for leaf in rewriting.tensors if _is_statistic(self.names, leaf))
        if rewriting.buffers:
            in_collections = {
                leaf: f"{_STATISTICS if leaf in rewriting.buffers else _PARAMETERS}/{leaf}"
                for leaf in rewriting.tensors
            }
            rewriting.rename(lambda leaf: in_collections.get(leaf, leaf))
        return _without_defaults(rewriting).done(Dialect.FLAX).without_state("Flax's models have none")


def _without_defaults(rewriting: Rewriting) -> Rewriting:
    """Forget the lines of tensors that were made on the way to PyTorch's names, which Flax does not store."""
    lines = rewriting.source.lines
    defaulted = {line.target for line in lines if line.status is Status.DEFAULTED}
    kept = tuple(line for line in lines if line.status is not Status.DEFAULTED)
    rewriting.source = replace(rewriting.source, lines=kept)
    rewriting.lines = [line for line in rewriting.lines if line.name not in defaulted]
    return rewriting


def _merged(names: Names, name: str) -> str:
    """Return what a tensor is called that Flax has once and PyTorch under several names."""
    found = names.split()
    for start in () if found is None else ("", f"{names.table.prefix}."):
        assert found is not None
        if name in [start + each for each in found[1]]:
            return start + found[0]
    return name


def _shared(names: Names, config: Mapping[str, Any]) -> dict[str, str]:
    """Return name -> the one whose tensor the Flax class takes for it, of what the class ties and Flax stores once."""
    architecture = class_named(config)
    ties = {} if architecture is None else every_tie(architecture, config)
    tied = {} if architecture is None else every_tie(architecture, {**config, "tie_word_embeddings": True})
    ties |= {alias: owner for alias, owner in tied.items() if owner.endswith(_SHARED) and alias.endswith(_USED)}
    twice = {alias for alias, _ in _ties(names, config)}
    return {alias: owner for alias, owner in ties.items() if alias not in twice}


def _is_buffer(name: str) -> bool:
    return name.rpartition(".")[2] in (*_RUNNING, _COUNTER)


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
    rewriting = Rewriting(source=checkpoint)
    undecided: list[str] = []
    for path in checkpoint.names:
        tensor = checkpoint.tensor(path)
        *modules, leaf = _without_collection(path).split("/")
        layout = _KERNELS.get(len(tensor.shape)) if leaf == "kernel" else None
        name = ".".join([*modules, "weight" if layout is not None else _LEAVES.get(leaf, leaf)])
        if layout is None and leaf not in (*_LEAVES, "bias"):
            undecided.append(path)
        rewriting.put(path, name, laid_out(tensor, layout_of(layout), path, to_torch=True))
    reason = (
        f"no table knows the model type {model_type!r}: {len(rewriting.tensors)} names follow what Flax calls leaves; "
        f"undecided: {_listed(undecided) or 'none'}, and what PyTorch's class has besides"
    )
    rewriting.lines.append(dropped("model-type", reason, is_refused_by_default=True))
    rewriting.buffers.update(name for name in rewriting.tensors if name.rpartition(".")[2] in _RUNNING)
    return rewriting.done(Dialect.PYTORCH)


def _without_collection(path: str) -> str:
    collection, _, rest = path.partition("/")
    return rest if collection in (_PARAMETERS, _STATISTICS) and rest else path


def _listed(names: list[str]) -> str:
    shown = ", ".join(names[:_NAMES_SHOWN])
    return shown if len(names) <= _NAMES_SHOWN else f"{shown} and {len(names) - _NAMES_SHOWN} more"
