"""A save_pretrained folder of transformers: config.json, weights, tokenizer files, training state.

Weights are safetensors or pytorch_model.bin, in one file or in shards. Ties that transformers knows of are stored
once, under the name it keeps; config and tokenizer files are copied as bytes.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial

from converter.declaring import option, set_choices
from converter.dialects.identity.holdings import Holding, check_no_adapters, held_against, is_adapter
from converter.dialects.identity.inference import Inference, base_within, infer_architecture, is_known
from converter.dialects.identity.ties import ties_of, with_names_apart
from converter.dialects.identity.transformers_4 import INNER_PREFIXES, is_class_named
from converter.dialects.keras import is_model as is_keras_model
from converter.dialects.optimizer.flavors import KerasFlavor
from converter.dialects.optimizer.semantics import to_keras
from converter.dialects.optimizer.writing import Epsilon, epsilon_option
from converter.dialects.transformers.heads import METADATA_KEY as HEADS_KEY
from converter.dialects.transformers.heads import PREFIX as HEADS_PREFIX
from converter.dialects.transformers.heads import is_head, only_model_inside
from converter.encoding import safetensors, shards
from converter.encoding.folder import (
    ADAPTER_CONFIG_NAME,
    CONFIG_NAME,
    TOKENIZER_NAMES,
    asset_files,
    open_inside,
    read_assets,
    read_config,
)
from converter.errors import ArchitectureError, UsageError
from converter.formats import Format, NoOptions, ParameterOrder, Probe
from converter.formats.pretrained import training, weights
from converter.model.checkpoint import ADDS_MODEL_TYPE, NO_MODEL_TYPE, Checkpoint, Config, Dialect, Part
from converter.model.file import Location, names_in
from converter.model.ledger import LedgerLine, Status
from converter.model.output import Output, OutputFile, Provenance
from converter.model.tensor import Tensor, is_equal

_HEADS_NAME = "heads.safetensors"
_ADAPTER_NAME = "adapter_model.safetensors"

_NO_CLASS_HINT = (
    "--select takes one model of several, --config FILE names another config, "
    "--to pytorch and --to safetensors hold all of it"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteOptions:
    """What a save_pretrained folder may be asked for; shards are as large as transformers 5 makes them."""

    flavor: str = option("safetensors", "Which weight files a pretrained folder gets.", choices=tuple(weights.FLAVORS))
    max_shard_size: str = shards.shard_size_option("50GB")
    train_batch_size: int | None = option(
        None, "Of a device, with which transformers.Trainer is to go on from DST.", metavar="N"
    )
    epsilon: Epsilon = epsilon_option()

    def __post_init__(self) -> None:
        set_choices(self)
        if self.epsilon is Epsilon.EXACT and not weights.FLAVORS[self.flavor].is_of_keras:
            listed = " or ".join(name for name, each in weights.FLAVORS.items() if each.is_of_keras)
            raise UsageError(f"--epsilon is for Keras's optimizers, which --flavor {listed} writes")


def sniff(probe: Probe) -> bool:
    """A folder with config.json and safetensors or Flax weights, or with pytorch_model.bin."""
    alone = [flavor for name, flavor in weights.FLAVORS.items() if name not in ("safetensors", "flax")]
    if any(flavor.is_in(probe.entries) for flavor in alone):
        return True
    if CONFIG_NAME in probe.entries and weights.FLAVORS["flax"].is_in(probe.entries):
        return True
    suffixes = (safetensors.SUFFIX, safetensors.INDEX_SUFFIX)
    return CONFIG_NAME in probe.entries and any(name.endswith(suffixes) for name in probe.entries)


def read(path: Location, options: NoOptions) -> Checkpoint:
    """Read a folder: headers, config and the names of its assets.

    Raises ReadError when it holds no model, or two that disagree.
    """
    entries = frozenset(names_in(path))
    weight_entries = entries - {_HEADS_NAME}
    checkpoint = replace(weights.read(path, weight_entries), config=read_config(path), assets=read_assets(path))
    if _HEADS_NAME in entries:
        checkpoint = _with_heads(checkpoint, path)
    return training.read(checkpoint, path, entries)


def adapted(checkpoint: Checkpoint, options: WriteOptions) -> Checkpoint:
    """Return a checkpoint of PyTorch's names with those of the flavour, its config with the class that it is of.

    Raises ArchitectureError for a flavour of a framework that has no such model.
    """
    flavor = weights.FLAVORS[options.flavor]
    if checkpoint.config is None or checkpoint.dialect != Dialect.PYTORCH:
        return checkpoint
    _check_one_model(checkpoint, checkpoint.config)
    checkpoint = _with_heads_apart(checkpoint, checkpoint.config)
    if flavor.adapt is None:
        return with_names_apart(checkpoint)
    assert checkpoint.config is not None
    model, heads = _apart(checkpoint)
    config, inference, warnings = _identified(model, checkpoint.config)
    prefix = "" if inference is None else inference.prefix
    model, holding = _held(model, config, inference, flavor)
    if not flavor.identifies:
        model = model.with_names(lambda name: name.removeprefix(prefix))
        model = replace(model, config=config, warnings=(*model.warnings, *warnings))
    if flavor.is_of_keras:
        if model.has_state_of(heads):
            model = model.without_state("it is of the heads, too, which the TensorFlow class does not have")
        model = to_keras(model, KerasFlavor.TF_KERAS, is_exact=options.epsilon is Epsilon.EXACT)
    model = flavor.adapt(model)
    model = replace(model, lines=(*model.lines, *_not_said(holding, model, flavor)), unchecked=holding.unchecked)
    origins = {**model.origins, **{name: checkpoint.origin(name) for name in heads}}
    return replace(model, tensors={**model.tensors, **heads}, origins=origins)


def _with_heads_apart(checkpoint: Checkpoint, config: Config) -> Checkpoint:
    """Return a checkpoint with the names of a base model, and those of the user's own layers around it as heads."""
    try:
        infer_architecture(checkpoint.by_name, config.values)
        return checkpoint
    except ArchitectureError:
        base = None if any(map(is_head, checkpoint.names)) else base_within(checkpoint.by_name, config.values)
    if base is None:
        return checkpoint
    prefix = base.prefix
    named = checkpoint.with_names(
        lambda name: name.removeprefix(prefix) if name.startswith(prefix) else HEADS_PREFIX + name
    )
    warning = f"{base.note}: the folder holds {base.architecture}, {_HEADS_NAME} what is around it"
    return replace(
        named,
        config=config.with_values({"architectures": [base.architecture]}),
        warnings=(*named.warnings, warning),
    )


def _held(
    model: Checkpoint, config: Config, inference: Inference | None, flavor: weights.Flavor
) -> tuple[Checkpoint, Holding]:
    """Hold a model against its class of PyTorch, as far as that of the flavour has the same tensors.

    Return it without those that the latter could not take, and what is wrong.
    """
    holding = held_against(model, config.values, inference)
    prefix = "" if inference is None else inference.prefix
    has = partial(_is_called, flavor, config)
    left_out = frozenset(name for name in holding.left_out if has(name.removeprefix(prefix)))
    origins = {model.origin(name) for name in left_out}
    lines = [line for line in holding.lines if (has(line.target or "") if line.name is None else line.name in origins)]
    kept = model.of_names([name for name in model.names if name not in left_out])
    return kept, replace(holding, lines=tuple(lines), left_out=left_out)


def _is_called(flavor: weights.Flavor, config: Config, name: str) -> bool:
    return flavor.called is not None and flavor.called(config, name) is not None


def _not_said(holding: Holding, model: Checkpoint, flavor: weights.Flavor) -> Iterator[LedgerLine]:
    """Yield the lines of a holding, but for slots that the flavour itself found to be empty."""
    assert flavor.called is not None
    assert model.config is not None
    said = {line.target for line in model.lines if line.status is Status.DEFAULTED and line.is_refused_by_default}
    for line in holding.lines:
        if line.name is not None or flavor.called(model.config, line.target or "") not in said:
            yield line


def _no_config(checkpoint: Checkpoint) -> ArchitectureError:
    if is_keras_model(checkpoint.keras_config and checkpoint.keras_config.values):
        return ArchitectureError(
            "a pretrained folder holds a model of transformers, and the layers of this Keras model are none",
            hint="--to safetensors and --to pytorch write its weights, --to savedmodel and --to onnx all of it",
        )
    problem = "a pretrained folder needs a config.json, and there is none beside the source"
    if checkpoint.keras_config is not None:
        problem = "a pretrained folder needs a config.json of transformers, and the Keras config lists no layers"
    return ArchitectureError(problem, hint="--config FILE names one")


def _check_one_model(checkpoint: Checkpoint, config: Config) -> None:
    """Raise ArchitectureError for a config that `from_pretrained` opens nothing by, and for two models in one."""
    if config.model_type is None and "auto_map" not in config.values:
        problem = f"{NO_MODEL_TYPE}, and from_pretrained opens no folder without it"
        raise ArchitectureError(problem, hint=ADDS_MODEL_TYPE)
    hint = "--to keras, --to h5 and --to pytorch hold all of it"
    only_model_inside(checkpoint.keras_config, problem="a folder holds one", hint=hint)


def write(checkpoint: Checkpoint, options: WriteOptions, provenance: Provenance) -> Output:
    """Lay out a folder that `AutoModel...from_pretrained` loads without a missing or unexpected key.

    Raises ArchitectureError without a config, LossError for a model with adapters inside. What the class asks for and
    the checkpoint lacks is a line, refused by default.
    """
    source_config = checkpoint.config
    if ADAPTER_CONFIG_NAME in checkpoint.assets and (source_config is None or is_adapter(checkpoint.names)):
        return _adapter(checkpoint, options, provenance)
    if source_config is None:
        raise _no_config(checkpoint)
    _check_one_model(checkpoint, source_config)
    checkpoint, outside = _apart(checkpoint)
    check_no_adapters(checkpoint.names)
    flavor = weights.FLAVORS[options.flavor]
    identified = _identified(checkpoint, source_config) if flavor.adapt is None else (source_config, None, ())
    config, inference, warnings = identified
    prefix = "" if inference is None else inference.prefix
    holding = held_against(checkpoint, config.values, inference) if flavor.adapt is None else Holding()
    names = {name.removeprefix(prefix): name for name in checkpoint.names if name not in holding.left_out}
    ties = {} if flavor.adapt is not None else _confirmed_ties(checkpoint, names, config, inference)
    for tied in ties:
        del names[tied]
    tensors = {slot: checkpoint.tensor(name) for slot, name in names.items()}
    max_shard_bytes = shards.parse_size(options.max_shard_size)
    metadata = {key: value for key, value in checkpoint.metadata.items() if key != HEADS_KEY}
    model = replace(checkpoint, tensors=tensors, aliases={}, config=config, metadata=metadata)
    weight_files = flavor.write(model, provenance, max_shard_bytes)
    weight_files = (*_head_files(outside, checkpoint.metadata, provenance), *weight_files)
    beside = [OutputFile(name=CONFIG_NAME, pieces=(config.raw,)), *asset_files(checkpoint.assets)]
    renamed = checkpoint.with_names(lambda name: name.removeprefix(prefix))
    beside_weights, lines, notes = training.files(renamed, options.train_batch_size)
    return Output(
        files=(*beside, *beside_weights, *weight_files),
        names={**names, **{name: name for name in outside}},
        ties={prefix + tied: owner for tied, owner in ties.items()},
        lines=(*lines, *holding.lines),
        unchecked=holding.unchecked or checkpoint.unchecked,
        warnings=(*warnings, *notes, *_warnings_of_tokenizer(checkpoint.assets, config)),
    )


def _apart(checkpoint: Checkpoint) -> tuple[Checkpoint, dict[str, Tensor]]:
    """Return the model of transformers, and what is around it."""
    heads = {name: checkpoint.tensor(name) for name in checkpoint.names if is_head(name)}
    return checkpoint.of_names([name for name in checkpoint.names if name not in heads]), heads


def _adapter(checkpoint: Checkpoint, options: WriteOptions, provenance: Provenance) -> Output:
    """Lay out a folder that `PeftModel.from_pretrained` loads: an adapter, whose base model is somewhere else."""
    if options.flavor != "safetensors":
        raise ArchitectureError("an adapter is written as safetensors alone", hint="leave --flavor out")
    tensors = checkpoint.by_name
    (file,) = safetensors.files(tensors, checkpoint.metadata, provenance)
    config = [] if checkpoint.config is None else [OutputFile(name=CONFIG_NAME, pieces=(checkpoint.config.raw,))]
    beside = (*config, *asset_files(checkpoint.assets))
    beside_weights, lines, notes = training.files(checkpoint, options.train_batch_size)
    return Output(
        files=(*beside, *beside_weights, replace(file, name=_ADAPTER_NAME)),
        names={name: name for name in tensors},
        lines=lines,
        warnings=notes,
    )


def _warnings_of_tokenizer(assets: Container[str], config: Config) -> tuple[str, ...]:
    """Say that a model of texts goes without its tokenizer: transformers 5 then makes one up, and says nothing."""
    parts = (config.values, *(part for part in config.values.values() if isinstance(part, Mapping)))
    if any(name in assets for name in TOKENIZER_NAMES) or not any("vocab_size" in part for part in parts):
        return ()
    return (
        "no tokenizer went along: none is beside the source, and AutoTokenizer makes one up from config.json, in "
        "which most words are unknown; --tokenizer DIR names the folder that has it",
    )


def _head_files(
    heads: Mapping[str, Tensor], metadata: Mapping[str, str], provenance: Provenance
) -> tuple[OutputFile, ...]:
    """Lay out the tensors of layers that are no part of the model, with the layers' configs beside them."""
    if not heads:
        return ()
    described = {key: value for key, value in metadata.items() if key == HEADS_KEY}
    stored = {name.removeprefix(HEADS_PREFIX): tensor for name, tensor in heads.items()}
    (file,) = safetensors.files(stored, described, provenance)
    return (replace(file, name=_HEADS_NAME),)


def _with_heads(checkpoint: Checkpoint, folder: Location) -> Checkpoint:
    tensors, metadata = safetensors.read(open_inside(folder, _HEADS_NAME))
    described = {key: value for key, value in metadata.items() if key == HEADS_KEY}
    heads = {HEADS_PREFIX + name: tensor for name, tensor in tensors.items()}
    return replace(
        checkpoint,
        tensors={**checkpoint.tensors, **heads},
        metadata={**checkpoint.metadata, **described},
    )


def _identified(checkpoint: Checkpoint, config: Config) -> tuple[Config, Inference | None, tuple[str, ...]]:
    """The config with its `architectures` right, as far as that can be known."""
    try:
        inference = infer_architecture(checkpoint.by_name, config.values)
    except ArchitectureError as error:
        if config.architecture is None and is_known(config.values) and "auto_map" not in config.values:
            raise ArchitectureError(error.message, hint=_NO_CLASS_HINT) from error
        return config, None, (f"config.json is left as it is: {error.message}",)
    named = config.architecture
    if named is not None and is_class_named(checkpoint.names, config.values):
        return config, replace(inference, architecture=named, prefix=""), ()
    if named == inference.architecture and inference.prefix in INNER_PREFIXES:
        inference = replace(inference, prefix="")
    corrected = config.with_values({"architectures": [inference.architecture]})
    warnings = () if inference.note is None else (inference.note,)
    if corrected.raw != config.raw:
        warnings = (*warnings, f"config.json: architectures is now {inference.architecture}")
    return corrected, inference, warnings


def _confirmed_ties(
    checkpoint: Checkpoint, names: Mapping[str, str], config: Config, inference: Inference | None
) -> dict[str, str]:
    """The ties that transformers declares, less those whose tensors differ: both are kept then."""
    tensors = {slot: checkpoint.tensor(name) for slot, name in names.items()}
    declared = ties_of(tensors, config.values, None if inference is None else inference.architecture)
    return {tied: owner for tied, owner in declared.items() if is_equal(tensors[tied], tensors[owner])}


FORMAT = Format(
    name="pretrained",
    description="a save_pretrained folder: config.json, weights, tokenizer files, training state",
    suffixes=(),
    holds=frozenset({Part.WEIGHTS, Part.CONFIG, Part.ASSETS, Part.OPTIMIZER, Part.EXTRAS}),
    dtypes=frozenset(safetensors.CODES),
    sniff=sniff,
    read=read,
    write=write,
    provenance=weights.provenance,
    is_of_one_class=True,
    adapt=adapted,
    parameters=ParameterOrder.TRAINER,
    write_options=WriteOptions,
    entries=(
        "*" + safetensors.SUFFIX,
        "*" + safetensors.INDEX_SUFFIX,
        *(pattern for flavor in weights.FLAVORS.values() for pattern in flavor.entries),
        *training.FILE_NAMES,
    ),
)
