"""safetensors: one file, or a folder of shards with an index.

Ties are written as copies, so that every name is there for whoever opens the file; `--tied once` writes each tensor
once and keeps the other names in `__metadata__`, as safetensors.torch.save_model does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from converter.declaring import option, set_choices
from converter.encoding import safetensors, shards
from converter.encoding.folder import CONFIG_NAME
from converter.encoding.provenance import in_safetensors
from converter.formats import Format, NoOptions, Probe
from converter.model.checkpoint import Checkpoint, Part
from converter.model.file import Location, is_dir, names_in, open_file
from converter.model.output import Output, Provenance
from converter.model.tensor import Tensor


class Tied(str, Enum):
    """How often a tied tensor is written."""

    COPIES = "copies"
    """under each of its names"""
    ONCE = "once"


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteOptions:
    """What files of safetensors may be asked for."""

    tied: Tied = option(
        Tied.COPIES, "Whether safetensors gets a tied tensor under each of its names, or once.", choices=Tied
    )
    max_shard_size: str | None = shards.shard_size_option(None)

    def __post_init__(self) -> None:
        set_choices(self)


def sniff(probe: Probe) -> bool:
    """A file that starts with a header, or a folder with such files and no config.json."""
    if probe.is_folder:
        suffixes = (safetensors.SUFFIX, safetensors.INDEX_SUFFIX)
        return CONFIG_NAME not in probe.entries and any(name.endswith(suffixes) for name in probe.entries)
    return safetensors.looks_like(probe.head, probe.size)


def read(path: Location, options: NoOptions) -> Checkpoint:
    """Read a file, or the one model of a folder; the headers alone.

    Raises ReadError for a malformed header, a shard that is missing or is not what the index says, and a folder
    with several models.
    """
    tensors: Mapping[str, Tensor]
    if is_dir(path):
        tensors, metadata = safetensors.read_folder(path, names_in(path))
    else:
        tensors, metadata = safetensors.read(open_file(path))
    aliases = {name: owner for name, owner in metadata.items() if owner in tensors and name not in tensors}
    ours = {"format", safetensors.PROVENANCE_KEY, *aliases}
    kept = {key: value for key, value in metadata.items() if key not in ours}
    return Checkpoint(tensors=tensors, aliases=aliases, metadata=kept)


def write(checkpoint: Checkpoint, options: WriteOptions, provenance: Provenance) -> Output:
    """Lay out a file, or shards with an index when `max_shard_size` asks for them."""
    aliases = checkpoint.aliases if options.tied is Tied.ONCE else {}
    tensors = {name: checkpoint.tensor(name) for name in checkpoint.names if name not in aliases}
    files = safetensors.files(
        tensors,
        {**checkpoint.metadata, **aliases},
        provenance,
        max_shard_bytes=shards.parse_size(options.max_shard_size or "0"),
    )
    return Output(files=files, names={name: name for name in checkpoint.names})


FORMAT = Format(
    name="safetensors",
    description="safetensors: one file, or a folder of shards with an index",
    suffixes=(safetensors.SUFFIX,),
    holds=frozenset({Part.WEIGHTS}),
    dtypes=frozenset(safetensors.CODES),
    sniff=sniff,
    read=read,
    write=write,
    provenance=in_safetensors,
    write_options=WriteOptions,
    file_name=safetensors.FILE_NAME,
    entries=("*" + safetensors.SUFFIX, "*" + safetensors.INDEX_SUFFIX),
)
