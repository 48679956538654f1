"""PyTorch's exported programs: what torch.export.save writes, weights read and laid out without torch.

https://docs.pytorch.org/docs/stable/export.html; the archive is converter.encoding.pt2's. With a graph in the
checkpoint torch exports the program in a child process, in which no weight is; without one the program does nothing,
and `torch.export.load("model.pt2").module()` has the weights all the same. In a folder, `model.pth` is its state_dict.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from converter.declaring import option
from converter.encoding import pt2, torch_file
from converter.encoding import zip as zip_archive
from converter.encoding.description import Description, described, parse_document
from converter.encoding.folder import open_inside
from converter.encoding.provenance import of_description
from converter.encoding.pt2_program import idle_program
from converter.encoding.zip import Record
from converter.errors import ReadError
from converter.formats import Format, NoOptions, Probe
from converter.graphs.calls import build_torch_program, run_torch_program
from converter.graphs.description.input_names import notes, torch_parameters
from converter.graphs.description.traced import TracedGraph
from converter.graphs.lower.torch.names import module_names
from converter.model.checkpoint import Checkpoint, Dialect, Part
from converter.model.dtype import DType
from converter.model.file import Location, SourceFile, is_dir, names_in, open_file
from converter.model.ledger import dropped
from converter.model.output import Late, Output, OutputFile, Provenance, Workshop
from converter.model.tensor import is_equal

_FILE_NAME = "model.pt2"
_SUFFIX = ".pt2"
_STATE_NAME = "model.pth"
_OWN_CONSTANTS = "_constants."
_POSITIONS = 16


def sniff(probe: Probe) -> bool:
    """An archive that says it is one, or a folder with such a file."""
    if probe.is_folder:
        return any(entry.endswith(_SUFFIX) for entry in probe.entries)
    return pt2.looks_like(probe.zip_members)


def read(path: Location, options: NoOptions) -> Checkpoint:
    """Read the state of an exported program: its parameters and buffers; no tensor is read, nothing unpickled.

    What is pickled, and the constants of the program, are ledger lines. Raises ReadError as converter.encoding.pt2
    does, and for a folder of several programs.
    """
    file = _archive(path)
    archive = pt2.Archive(file)
    state = archive.state()
    lines = [dropped(name, reason, is_refused_by_default=True) for name, reason in state.unread.items()]
    lines += [
        dropped(name, "a constant of the program, not of its state")
        for name in state.constants
        if not name.startswith(_OWN_CONSTANTS)
    ]
    checkpoint = Checkpoint(
        tensors=state.tensors, aliases=state.aliases, buffers=state.buffers, dialect=Dialect.PYTORCH, lines=tuple(lines)
    )
    document = archive.document()
    return checkpoint if document is None else described(checkpoint, parse_document(document, file.path), file.path)


def _program_in(folder: Location) -> SourceFile:
    names = [name for name in names_in(folder) if name.endswith(_SUFFIX)]
    if len(names) != 1:
        what = f"several programs: {', '.join(names)}" if names else "no exported program"
        raise ReadError(f"holds {what}", path=folder)
    return open_inside(folder, names[0])


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteOptions:
    """What a folder with a program may be asked for."""

    state_dict: bool = option(True, "Write no `model.pth` beside the program.", flag="--no-state-dict")


def write(checkpoint: Checkpoint, options: WriteOptions, provenance: Provenance) -> Output:
    """Lay out the archive, with a program that runs where the checkpoint has a graph."""
    keys = module_names(checkpoint.names)
    weights = pt2.Weights(
        tensors={keys[name]: tensor for name, tensor in checkpoint.tensors.items()},
        aliases={keys[alias]: keys[owner] for alias, owner in checkpoint.aliases.items()},
        parameters=frozenset(keys[name] for name in _parameters(checkpoint)),
    )
    renamed = {key: name for name, key in keys.items() if key != name and name in checkpoint.tensors}
    files = []
    if options.state_dict:
        state = torch_file.StateDict(tensors=weights.tensors, aliases=weights.aliases)
        files.append(OutputFile(name=_STATE_NAME, pieces=torch_file.torch_file(state, provenance)))
    names = {name: name for name in checkpoint.names}

    def archive(program: list[Record], inputs: dict[str, str]) -> OutputFile:
        description = Description(
            checkpoint=checkpoint, provenance=provenance, names=renamed, more={"inputs": inputs} if inputs else {}
        )
        document = Late(nbytes=description.nbytes, render=description.render)
        record = Record(name=f"{pt2.MODEL_NAME}/{pt2.DOCUMENT_RECORD}", content=document)
        return OutputFile(name=_FILE_NAME, pieces=zip_archive.archive(pt2.records(weights, program, record)))

    graph = TracedGraph.of(checkpoint)
    if graph is None:
        files.append(archive(idle_program(weights), {}))
        warning = "weights only: the program computes nothing"
        return Output(files=tuple(files), names=names, warnings=(warning,))

    def build(workshop: Workshop) -> None:
        traced = workshop.scratch / "program.pt2"
        inputs = workshop.call(
            build_torch_program,
            graph=os.fspath(graph.file),
            signature=graph.signature.to_json(),
            tensors={name: [tensor.dtype.value, list(tensor.shape)] for name, tensor in checkpoint.tensors.items()},
            small=_small(checkpoint),
            trainable=_parameters(checkpoint),
            ties=dict(checkpoint.aliases),
            file=os.fspath(traced),
        )
        program = pt2.Archive(open_file(traced)).parts()
        workshop.stream(archive(program, inputs), workshop.folder)

    nbytes = sum(tensor.nbytes for tensor in checkpoint.tensors.values())
    return Output(
        files=tuple(files),
        built=(_FILE_NAME,),
        names=names,
        build=build,
        build_bytes=nbytes,
        built_by="PyTorch",
        warnings=notes(torch_parameters([each.name for each in graph.signature.inputs])),
    )


def is_same_program(found: Path, again: Path) -> bool:
    """Whether two archives are the same but for the values of weights and the metadata of their making."""
    ours, theirs = (pt2.Archive(_archive(path)).besides_weights() for path in (again, found))
    return ours.keys() == theirs.keys() and all(is_equal(ours[name], theirs[name]) for name in ours)


def _provenance(path: Location) -> Mapping[str, Any]:
    file = _archive(path)
    return of_description(pt2.Archive(file).document(), file.path)


def _archive(path: Location) -> SourceFile:
    return _program_in(path) if is_dir(path) else open_file(path)


def _parameters(checkpoint: Checkpoint) -> list[str]:
    """What is trained: only numbers with a fraction have a gradient."""
    return [
        name
        for name, tensor in checkpoint.tensors.items()
        if (tensor.dtype.is_floating or tensor.dtype in (DType.COMPLEX64, DType.COMPLEX128))
        and name not in checkpoint.buffers
        and name not in checkpoint.frozen
    ]


def _small(checkpoint: Checkpoint) -> dict[str, Any]:
    """The values of integers that may decide the shapes of a graph."""
    return {
        name: tensor.numpy().reshape(-1).tolist()
        for name, tensor in checkpoint.tensors.items()
        if tensor.dtype.value in ("int32", "int64", "bool") and tensor.size <= _POSITIONS
    }


FORMAT = Format(
    name="pt2",
    description="PyTorch: programs of torch.export, and their weights",
    suffixes=(_SUFFIX,),
    holds=frozenset({Part.WEIGHTS, Part.GRAPH}),
    dtypes=frozenset(pt2.TYPE_CODES),
    sniff=sniff,
    read=read,
    write=write,
    provenance=_provenance,
    write_options=WriteOptions,
    by_suffix={"": {"state_dict": False}},
    extra="torch",
    runner=run_torch_program,
    is_same_program=is_same_program,
    is_traced=True,
    file_name=_FILE_NAME,
    entries=("*" + _SUFFIX, _STATE_NAME),
)
