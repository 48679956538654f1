"""How the TensorFlow classes of transformers (4.57.6) lay out their weights: names, layers of a tf_model.h5, layouts.

Their loader (modeling_tf_utils.load_tf_weights_from_h5) wants every layer of the class in the file, those without
weights too, tied weights in every layer that uses them, and variables that PyTorch has no tensor for.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from converter.dialects.identity.inference import Inference, infer_architecture
from converter.dialects.identity.transformers_4 import type_called
from converter.dialects.keras.stores import NOT_TRAINED
from converter.dialects.optimizer.keras_layouts import in_order
from converter.dialects.rewriting import Derivation, Rewriting, laid_out
from converter.dialects.tables import TensorFlowTable
from converter.dialects.tables.rows import Row, key_of
from converter.dialects.transformers import heads
from converter.dialects.transformers.composites import table_of
from converter.dialects.transformers.extents import computed_variables
from converter.dialects.transformers.old_configs import of_old_release
from converter.dialects.transformers.tensorflow_classes import (
    TOP_LEVEL,
    Layer,
    TensorFlowClass,
    class_of,
    class_of_layer,
    knows,
    named_class,
)
from converter.errors import ArchitectureError, LossError, UsageError
from converter.model.checkpoint import Checkpoint, Config, Dialect
from converter.model.dtype import DType
from converter.model.ledger import defaulted
from converter.model.optimizer import OptimizerState
from converter.model.tensor import ArrayTensor, Tensor, is_equal

_COUNTER = "num_batches_tracked"
_INDICES = "relative_position_index"
_COMPUTED = ("position_ids", "token_type_ids", "rotary_emb.inv_freq", "masked_bias", "attn.bias")
_STATISTICS = re.compile(r"(?:^|/)moving_(?:mean|variance)$")
_NUMBERS = re.compile(r"\d+")
_IS_EXTENSION = 2
"""numpy.dtype.isbuiltin of the types of ml_dtypes."""


def is_laid_out(checkpoint: Checkpoint) -> bool:
    """Whether a checkpoint is one that `from_canonical` returned."""
    return checkpoint.dialect == Dialect.KERAS and checkpoint.keras_config is None and knows(checkpoint.config)


def layers(checkpoint: Checkpoint) -> dict[str, list[str]]:
    """Return layer -> variables of a checkpoint that is laid out, in the order of a file; TOP_LEVEL comes last."""
    assert checkpoint.config is not None
    config = checkpoint.config.values
    model = class_of(config, named_class(config))
    ranks = {name: len(tensor.shape) for name, tensor in checkpoint.tensors.items() if not heads.is_head(name)}
    templates = {name: model.template(name, rank) for name, rank in ranks.items()}
    found: dict[str, list[str]] = {}
    for layer in model.layers:
        held = _in_order(layer, templates, model.table)
        if held or (layer.is_constant and layer.name != TOP_LEVEL):
            found[model.layer_name(layer, config)] = held
    found.setdefault(TOP_LEVEL, [])
    return found


def in_keras_order(
    ranks: Mapping[str, int], config: Mapping[str, Any], architecture: str
) -> tuple[tuple[str, ...], tuple[str, ...]] | None:
    """Return the variables of a TensorFlow class as Keras lists them: those that it trains, and the others.

    None where a table does not have each.

    `ranks` are those of all its variables, by name; `architecture` is the class without its ``TF``.
    """
    try:
        model = class_of(config, architecture)
        templates = {name: model.template(name, rank) for name, rank in ranks.items()}
    except (UsageError, KeyError):
        return None
    place = _place_in(model)
    templates = dict(sorted(templates.items(), key=lambda item: place(item[0], ranks[item[0]])))
    listed = dict.fromkeys(name for layer in model.layers for name in _in_order(layer, templates, model.table))
    if len(listed) < len(ranks):
        return None
    others = tuple(name for name in listed if _is_untrained(name, model.table))
    return tuple(name for name in listed if name not in others), others


def variables_of_layer(
    entry: Mapping[str, Any], stores: Mapping[str, Sequence[str]], checkpoint: Checkpoint
) -> tuple[tuple[str, ...], tuple[str, ...]] | None:
    """Return the variables of a layer that is none of Keras's own as Keras lists them: what it trains, and the others.

    `entry` is its entry in a Keras config, `stores` are the places of an archive that have its variables, by name. None
    where they are in several places, and it is no class of transformers that says their order.
    """
    names = [name for held in stores.values() for name in held]
    if len(stores) <= 1:
        others = tuple(name for name in names if name.rpartition("/")[2] in NOT_TRAINED)
        return tuple(name for name in names if name not in others), others
    config = heads.encoder_config(Config(values=entry, raw=b""))
    if config is None:
        return None
    ranks = {name: len(checkpoint.tensor(name).shape) for name in names if name in checkpoint}
    return in_keras_order(ranks, config.values, class_of_layer(str(entry.get("class_name"))).removeprefix("TF"))


def in_order_of_class(names: Sequence[str], checkpoint: Checkpoint) -> tuple[tuple[str, ...], tuple[str, ...]] | None:
    """Return what `in_keras_order` does of a model of transformers as which the names of its variables begin.

    None for other names, and where classes that have them all differ in their order.
    """
    start = names[0].partition("/")[0] if names else ""
    model_type = type_called({start})
    values = {"model_type": model_type}
    table = None if model_type is None else table_of(values)
    if table is None:
        return None
    ranks = {name: len(checkpoint.tensor(name).shape) for name in names}
    called = {each.name for each in table.classes.values() if each.is_called(start)}
    found = {name: in_keras_order(ranks, values, name) for name in table.classes}
    orders = {found[name] for name in called} - {None} or set(found.values()) - {None}
    return orders.pop() if len(orders) == 1 else None


def _place_in(model: TensorFlowClass) -> Callable[[str, int], tuple[Any, ...]]:
    """Return what gives the place of a variable of some rank among those of a class, as Keras builds them."""
    ranks: dict[tuple[str, ...], int] = {}
    for row in (*model.table.rows.all, *model.table.aliases.all):
        parts = row.theirs.text.split("/")
        for length in range(1, len(parts) + 1):
            ranks.setdefault(tuple(parts[:length]), len(ranks))

    def place(name: str, rank: int) -> tuple[Any, ...]:
        own = model.path(name).split("/")
        parts = model.template(name, rank).split("/")
        steps = [
            (ranks[tuple(parts[: index + 1])], [int(number) for number in _NUMBERS.findall(own[index])])
            for index in range(len(parts))
        ]
        return (_is_untrained(name, model.table), steps)

    return place


def _in_order(layer: Layer, templates: Mapping[str, str], table: TensorFlowTable) -> list[str]:
    """Return the variables of a layer as Keras lists them: those of its own first, what is not trained last."""
    places = {name: layer.place(template) for name, template in templates.items() if layer.holds(template)}
    return sorted(places, key=lambda name: (_is_untrained(name, table), places[name]))


def _is_untrained(variable: str, table: TensorFlowTable) -> bool:
    name = variable.removesuffix(":0")
    return bool(_STATISTICS.search(name)) or name.endswith(table.not_trained)


def naming_its_class(checkpoint: Checkpoint) -> Config | None:
    """Return the config with the class that it names, or that the tensors tell."""
    config = checkpoint.config
    if config is None or config.architecture is not None:
        return config
    try:
        architecture = infer_architecture(checkpoint.by_name, config.values).architecture
    except ArchitectureError:
        return config
    return config.with_values({"architectures": [architecture]})


def from_canonical(checkpoint: Checkpoint) -> Checkpoint:
    """Return a checkpoint of PyTorch's names as the TensorFlow class of its config has it: `tf_bert_model/...:0`.

    What only PyTorch has ends as a ledger line, what only TensorFlow has is added with one. Nothing but tied tensors
    is read. Raises UsageError when no table has the class, ReadError for a shape that is not what a row says.
    """
    if checkpoint.config is None:
        raise UsageError("a TensorFlow class needs a config.json", hint="--config FILE names one")
    checkpoint = of_old_release(checkpoint)
    assert checkpoint.config is not None
    translation = _translated(checkpoint, checkpoint.config)
    rewriting = translation.rewriting
    rewriting.tensors = {name: rewriting.tensors[name] for name in translation.ordered()}
    rewriting.buffers.update(name for name in rewriting.tensors if _STATISTICS.search(name.removesuffix(":0")))
    written = rewriting.done(
        Dialect.KERAS,
        config=checkpoint.config.with_values({"architectures": [translation.model.torch.name]}),
        keras_config=None,
        optimizer=None,
    )
    if checkpoint.optimizer is None:
        return written
    trained = [name for names in layers(written).values() for name in names]
    return replace(written, optimizer=translation.optimizer(trained))


def variable_of(config: Config, name: str) -> str | None:
    """Return the row of the variable that holds a tensor of PyTorch, None where the TensorFlow class has none."""
    model = class_of(config.values, named_class(config.values))
    spelled = {name, f"{model.table.prefix}.{name}", name.removeprefix(f"{model.table.prefix}.")}
    rows = (row for row in model.rows() if any(row.canonical.indices(each) is not None for each in spelled))
    return next((row.theirs.text for row in rows), None)


def _translated(checkpoint: Checkpoint, config: Config) -> _Writing:
    """Return the checkpoint as the class that the config names, or as the one that its tensors say when it is not."""
    named = named_class(config.values)
    try:
        inference = infer_architecture(checkpoint.by_name, config.values)
    except ArchitectureError:
        inference = Inference(architecture=named or "", basis="config")
    by_name = None
    if named is not None and (named != inference.architecture or inference.prefix) and knows(config):
        by_name = _as_class(checkpoint, config, named, "")
        if by_name.is_whole:
            return by_name
    translation = _as_class(checkpoint, config, inference.architecture or None, inference.prefix)
    if by_name is not None and not translation.is_whole:
        return by_name
    notes = [] if inference.note is None else [inference.note]
    if named is not None and named != inference.architecture:
        notes.append(f"config.json: architectures is now {inference.architecture}")
    translation.rewriting.warnings[:0] = notes
    return translation


def _as_class(checkpoint: Checkpoint, config: Config, architecture: str | None, prefix: str) -> _Writing:
    model = class_of(config.values, architecture)
    rewriting = Rewriting(source=checkpoint)
    translation = _Writing(rewriting=rewriting, model=model, config=config.values, prefix=prefix)
    translation.translate()
    return translation


@dataclass(slots=True, kw_only=True)
class _Writing:
    """A checkpoint on its way to TensorFlow's names."""

    rewriting: Rewriting
    model: TensorFlowClass
    config: Mapping[str, Any]
    prefix: str
    _rows: dict[str, list[Row]] = field(default_factory=dict)
    _filled: dict[str, tuple[str, ...]] = field(default_factory=dict)
    _made: list[str] = field(default_factory=list)

    def translate(self) -> None:
        """Put every tensor, and write down what becomes of everything else."""
        table, source = self.model.table, self.rewriting.source
        for row in self.model.rows():
            self._rows.setdefault(key_of(row.canonical.key), []).append(row)
        names = {self._canonical(name): name for name in source.names if not heads.is_head(name)}
        ties = self.model.torch.ties_with(self.config, default=table.tied_by_default)
        for canonical, name in names.items():
            if not self._is_stored_elsewhere(canonical, name, names, ties):
                self._add(canonical, name)
        for copy, owner in self.model.copies.items():
            if owner in names and not self._has(copy):
                self._add(copy, names[owner])
        for name in filter(heads.is_head, source.names):
            self.rewriting.put(name, name)
        self._make()
        self._note_ties()
        self._note_missing()

    @property
    def is_whole(self) -> bool:
        """Whether nothing of the checkpoint or of the class is left over."""
        return not any(line.is_refused_by_default for line in self.rewriting.lines)

    def ordered(self) -> list[str]:
        """Return the variables as Keras lists them: layer by layer, what is trained before what is not."""
        place = _place_in(self.model)
        ranks = {name: len(tensor.shape) for name, tensor in self.rewriting.tensors.items()}
        return sorted(ranks, key=lambda name: (2,) if heads.is_head(name) else place(name, ranks[name]))

    def _canonical(self, name: str) -> str:
        plain = name.removeprefix(self.prefix)
        with_prefix = f"{self.model.table.prefix}.{plain}"
        choices = (with_prefix, plain) if self.model.torch.is_base and self.model.table.prefix else (plain, with_prefix)
        rank = len(self.rewriting.source.tensor(name).shape)
        return next((choice for choice in choices if self._row(choice, rank) is not None), choices[0])

    def _row(self, canonical: str, rank: int) -> tuple[Row, str] | None:
        """Return the row of one of PyTorch's names, and the variable it is."""
        for row in self._rows.get(key_of(canonical), ()):
            indices = row.canonical.indices(canonical)
            if indices is None or row.rank("canonical") not in (None, rank):
                continue
            extra = set(row.theirs.placeholders) - set(indices)
            if not extra:
                if _is_first_of_numbered(row, indices):
                    return row, row.theirs.filled(indices)
            elif any(number != "0" for number in indices.values()):
                return row, row.theirs.filled({**dict.fromkeys(extra, _last(indices)), **indices})
        return None

    def _has(self, canonical: str) -> bool:
        return canonical in self._filled

    def _is_stored_elsewhere(
        self, canonical: str, name: str, names: Mapping[str, str], ties: Mapping[str, str]
    ) -> bool:
        """Whether a class has no variable of its own for a tied name; that has its line then."""
        found = self._row(canonical, len(self.rewriting.source.tensor(name).shape))
        owner = ties.get(canonical) if found is not None else self.model.torch.ties.get(canonical)
        if name in self.rewriting.source.aliases and owner is None and found is None:
            by_name = {source: other for other, source in names.items()}
            owner = by_name.get(self.rewriting.source.aliases[name])
        if owner is None or owner not in names or canonical in self.model.copies:
            return False
        tensor, kept = self.rewriting.source.tensor(name), self.rewriting.source.tensor(names[owner])
        if is_equal(tensor, kept):
            self._filled[canonical] = (owner, name)
        elif canonical in ties:
            reason = f"{self.model.name} uses {names[owner]} for it, which differs"
            self.rewriting.drop(name, reason, is_refused_by_default=True)
        else:
            return False
        return True

    def _add(self, canonical: str, name: str) -> None:
        tensor = self._storable(self.rewriting.source.tensor(name))
        found = self._row(canonical, len(tensor.shape))
        if found is None:
            self._drop(canonical, name)
            return
        row, theirs = found
        tensor = laid_out(tensor, row.layout, name, to_torch=False)
        if canonical.endswith(_INDICES):
            tensor = tensor.cast(DType.INT32)
        variable = self.model.variable(theirs)
        self.rewriting.put(name, variable, tensor)
        self.rewriting.derivations[name] = Derivation(
            before=(name,), after=(variable,), operations=row.operations, is_forward=False
        )
        self._filled[canonical] = (variable,)

    def optimizer(self, variables: Sequence[str]) -> OptimizerState | None:
        """Return the optimizer's state, each slot laid out as its weight is, in the order that `variables` are in.

        Raises LossError for state of a weight that the class has not, or in parts.
        """
        state = self.rewriting.source.optimizer
        if state is None:
            return None
        lacking = [name for held in state.slots.values() for name in held if name not in self.rewriting.derivations]
        if lacking:
            raise LossError(f"has optimizer state, and {self.model.name} no such variable", tensor=lacking[0])
        translated = self.rewriting.state()
        if translated["optimizer"] is None:
            raise LossError(f"optimizer state: {translated['optimizer_refused']}")
        return in_order(self._with_state_of_made(translated["optimizer"]), dict.fromkeys(variables))

    def _with_state_of_made(self, state: OptimizerState) -> OptimizerState:
        """Add zeros for trained variables that only the TensorFlow class has, where all others have state.

        An optimizer of Keras that is built for the class counts them.
        """
        tensors = self.rewriting.tensors
        translated = {name for each in self.rewriting.derivations.values() for name in each.after}
        made = [name for name in self._made if tensors[name].dtype.is_floating]
        if not made or not state.slots or not translated <= set(state.parameters):
            return state
        first, *others = state.groups
        zeros = {name: ArrayTensor.of(np.zeros(tensors[name].shape, np.float32)) for name in made}
        return replace(
            state,
            groups=(replace(first, parameters=(*first.parameters, *made)), *others),
            slots={slot: {**held, **zeros} for slot, held in state.slots.items()},
        )

    def _storable(self, tensor: Tensor) -> Tensor:
        """Return the tensor in a type that HDF5 and TensorFlow both have names for."""
        if tensor.dtype.numpy.isbuiltin != _IS_EXTENSION:
            return tensor
        warning = f"{tensor.dtype.value} is written as float32: TensorFlow reads no such type from HDF5"
        self.rewriting.note(warning)
        return tensor.cast(DType.FLOAT32)

    def _drop(self, canonical: str, name: str) -> None:
        if canonical.rpartition(".")[2] == _COUNTER:
            self.rewriting.drop(name, "TensorFlow does not count the batches")
        elif any(canonical == leaf or canonical.endswith(f".{leaf}") for leaf in _COMPUTED):
            self.rewriting.drop(name, "computed by the TensorFlow class")
        else:
            self.rewriting.drop(name, f"{self.model.name} has no such variable", is_refused_by_default=True)

    def _make(self) -> None:
        """Add the variables that PyTorch has no tensor for."""
        floats = (tensor.dtype for tensor in self.rewriting.tensors.values() if tensor.dtype.is_floating)
        dtype = next(floats, DType.FLOAT32)
        for entry, config in self.model.own_variables:
            for theirs, reason, values in computed_variables(entry, config):
                variable = self.model.variable(theirs)
                if variable not in self.rewriting.tensors:
                    tensor = ArrayTensor.of(values).cast(dtype)
                    self.rewriting.default(variable, tensor, f"{reason}: only the TensorFlow class has it")
                    if reason.startswith("zeros"):
                        self._made.append(variable)

    def _note_ties(self) -> None:
        for filled in list(self._filled.values()):
            if len(filled) == 2:
                owner, name = filled
                target = self._filled[owner][0] if len(self._filled.get(owner, ())) == 1 else owner
                self.rewriting.tie(name, target, f"the TensorFlow class uses {target}")

    def _note_missing(self) -> None:
        """Refuse a checkpoint that lacks what every model of the class has."""
        templates = {
            self.model.template(name, len(tensor.shape))
            for name, tensor in self.rewriting.tensors.items()
            if not heads.is_head(name)
        }
        present = {self._canonical_of(template) for template in templates}
        for rows in self._rows.values():
            for row in rows:
                canonical = row.canonical.text
                if canonical in present or not self.model.torch.needs(canonical):
                    continue
                present.add(canonical)
                reason = f"no tensor {canonical} for it: transformers would fill it at random"
                self.rewriting.lines.append(defaulted(row.theirs.text, reason, is_refused_by_default=True))

    def _canonical_of(self, template: str) -> str:
        rows = (*self.model.table.rows.all, *self.model.table.aliases.all)
        return next(row.canonical.text for row in rows if row.theirs.text == template)


def _is_first_of_numbered(row: Row, indices: Mapping[str, str]) -> bool:
    """Whether a row without the number of an auto-named layer is the one for these indices: that of the first."""
    is_numbered = bool(re.search(r"(?:^|/)tf_[a-z_]+(?:/|$)", row.theirs.text))
    return not is_numbered or all(number == "0" for number in indices.values())


def _last(indices: Mapping[str, str]) -> str:
    return list(indices.values())[-1]
