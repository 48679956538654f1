"""A save_pretrained folder of transformers: config.json, weights, tokenizer files, training state.

Weights are safetensors or pytorch_model.bin, in one file or in shards. Ties that transformers knows of are stored
once, under the name it keeps; config and tokenizer files are copied as bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from converter.dialects.architecture import Inference, config_with, declared_ties, infer_architecture
from converter.encoding import safetensors, shards
from converter.encoding.folder import CONFIG_NAME, read_assets, read_config
from converter.errors import ArchitectureError
from converter.formats import Format, NoOptions, Probe
from converter.formats.pretrained import training, weights
from converter.model.checkpoint import Checkpoint, Config, Part
from converter.model.output import Output, OutputFile, Provenance
from converter.model.tensor import is_equal


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteOptions:
    """`flavor`: of the weight files; `max_shard_size`: such as "5GB", "0" for one file; 50 GB as in transformers 5."""

    flavor: str = "safetensors"
    max_shard_size: str = "50GB"

    def __post_init__(self) -> None:
        weights.flavor_of(self.flavor)


def sniff(probe: Probe) -> bool:
    """A folder with config.json and safetensors weights, or with pytorch_model.bin."""
    if any(flavor.is_in(probe.entries) for flavor in weights.FLAVORS.values() if flavor.name != "safetensors"):
        return True
    suffixes = (safetensors.SUFFIX, safetensors.INDEX_SUFFIX)
    return CONFIG_NAME in probe.entries and any(name.endswith(suffixes) for name in probe.entries)


def read(path: Path, options: NoOptions) -> Checkpoint:
    """Read a folder: headers, config and the names of its assets.

    Raises ReadError when it holds no model, or two that disagree.
    """
    entries = frozenset(entry.name for entry in path.iterdir())
    checkpoint = replace(weights.read(path, entries), config=read_config(path), assets=read_assets(path))
    return training.read(checkpoint, path, entries)


def write(checkpoint: Checkpoint, options: WriteOptions, provenance: Provenance) -> Output:
    """Lay out a folder that `AutoModel...from_pretrained` loads without a missing or unexpected key.

    Raises ArchitectureError without a config.
    """
    if checkpoint.config is None:
        raise ArchitectureError(
            "a pretrained folder needs a config.json, and there is none beside the source",
            hint="--config FILE names one",
        )
    config, inference, warnings = _identified(checkpoint, checkpoint.config)
    prefix = "" if inference is None else inference.prefix
    names = {name.removeprefix(prefix): name for name in checkpoint.names}
    ties = {} if inference is None else _confirmed_ties(checkpoint, names, config, inference)
    for tied in ties:
        del names[tied]
    tensors = {slot: checkpoint.tensor(name) for slot, name in names.items()}
    flavor = weights.flavor_of(options.flavor)
    max_shard_bytes = shards.parse_size(options.max_shard_size)
    weight_files = flavor.write(tensors, checkpoint.metadata, provenance, max_shard_bytes)
    beside = [OutputFile(name=CONFIG_NAME, pieces=(config.raw,))]
    beside += [OutputFile(name=name, pieces=(file,)) for name, file in checkpoint.assets.items()]
    renamed = checkpoint.with_names(lambda name: name.removeprefix(prefix))
    beside_weights, lines, notes = training.files(renamed)
    return Output(
        files=(*weight_files, *beside, *beside_weights),
        names=names,
        ties={prefix + tied: owner for tied, owner in ties.items()},
        lines=lines,
        warnings=(*warnings, *notes),
    )


def _identified(checkpoint: Checkpoint, config: Config) -> tuple[Config, Inference | None, tuple[str, ...]]:
    """The config with its `architectures` right, as far as that can be known."""
    try:
        inference = infer_architecture(checkpoint.tensors, config.values)
    except ArchitectureError as error:
        return config, None, (f"config.json is left as it is: {error.message}",)
    corrected = config_with(config, architectures=[inference.architecture])
    warnings = () if inference.note is None else (inference.note,)
    if corrected.raw != config.raw:
        warnings = (*warnings, f"config.json: architectures is now {inference.architecture}")
    return corrected, inference, warnings


def _confirmed_ties(
    checkpoint: Checkpoint, names: Mapping[str, str], config: Config, inference: Inference
) -> dict[str, str]:
    """The ties that transformers declares, less those whose tensors differ: both are kept then."""
    tensors = {slot: checkpoint.tensor(name) for slot, name in names.items()}
    declared = declared_ties(tensors, config.values, inference.architecture)
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
    write_options=WriteOptions,
    entries=(
        "*" + safetensors.SUFFIX,
        "*" + safetensors.INDEX_SUFFIX,
        *(pattern for flavor in weights.FLAVORS.values() for pattern in flavor.entries),
        *training.FILE_NAMES,
    ),
)
