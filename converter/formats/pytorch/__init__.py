"""PyTorch: what torch.save writes, read and written without torch.

It is a zip archive since torch 1.6, before that a row of pickles (layouts: torch/serialization.py, torch 2.13).

Reading names no class into being: pickles are plain data to us (converter.encoding.pickle).
"""

from __future__ import annotations

from dataclasses import dataclass

from converter.declaring import option
from converter.dialects.training import select_option
from converter.encoding.pickle import looks_like_pickle
from converter.encoding.provenance import in_zip
from converter.encoding.torch_file.containers import is_compressed_tar, is_nemo, is_stable_baselines
from converter.encoding.torch_file.script import is_script
from converter.formats import Format, NoOptions, ParameterOrder, Probe, keeps_pytorch
from converter.formats.pytorch.reading import read_checkpoint
from converter.formats.pytorch.writing import write_checkpoint
from converter.model.checkpoint import Checkpoint, Part
from converter.model.dtype import DType
from converter.model.file import Location
from converter.model.output import Output, Provenance

FILE_NAME = "pytorch_model.bin"
SUFFIXES = (".pth.tar", ".pth", ".pt", ".bin", ".ckpt")


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadOptions:
    """What may be asked of a file of torch.save."""

    select: str | None = select_option()
    name: str | None = option(
        None,
        "What the tensor of a file with one that has no name is called; by default as the file is.",
        metavar="NAME",
    )


def sniff(probe: Probe) -> bool:
    """A zip archive with ``<root>/data.pkl``, or anything that reads as a pickle, harmless or not.

    Of TorchScript it is none; `.nemo` and `.zip` of stable-baselines3 have such archives in them.
    """
    if probe.is_folder:
        return False
    if any(name.endswith("/data.pkl") and name.count("/") == 1 for name in probe.zip_members):
        return not is_script(probe.zip_members)
    if is_nemo(probe.tar_members) or is_compressed_tar(probe.head) or is_stable_baselines(probe.zip_members):
        return True
    return looks_like_pickle(probe.head, probe.size)


def read(path: Location, options: ReadOptions) -> Checkpoint:
    """Read a file of torch.save; see `read_checkpoint`."""
    stem = next((path.name[: -len(suffix)] for suffix in SUFFIXES if path.name.lower().endswith(suffix)), path.name)
    return read_checkpoint(path, select=options.select, name=options.name, stem=stem)


def write(checkpoint: Checkpoint, options: NoOptions, provenance: Provenance) -> Output:
    """Lay out a file of torch.save; see `write_checkpoint`."""
    return write_checkpoint(checkpoint, file_name=FILE_NAME, provenance=provenance)


FORMAT = Format(
    name="pytorch",
    description="PyTorch: files of torch.save, .nemo and .zip of stable-baselines3 around them",
    suffixes=SUFFIXES,
    holds=frozenset({Part.WEIGHTS, Part.OPTIMIZER, Part.EXTRAS}),
    dtypes=frozenset(DType),
    sniff=sniff,
    read=read,
    write=write,
    provenance=in_zip,
    file_name=FILE_NAME,
    other_names=("adapter_model.bin",),
    keeps_names=keeps_pytorch,
    spells_ties=True,
    keeps_structure=True,
    read_options=ReadOptions,
    parameters=ParameterOrder.MODEL,
    entries=tuple("*" + suffix for suffix in SUFFIXES),
)
