"""TensorFlow's SavedModel: a folder with a graph, and variables in a bundle beside it.

https://www.tensorflow.org/guide/saved_model. The graph is a program and is not opened: the variables, and what they
are called, are all in the bundle. In `assets.extra/`, which TensorFlow leaves to others, the SavedModels of this
program carry config.json, tokenizer files and `ckconv.json`:
``{"dialect": "pytorch", "names": {stored: original}, "ties": {name: owner}, "buffers": [name], "frozen": [name]}``.
"""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from converter.encoding import json as strict_json
from converter.encoding import safetensors
from converter.encoding.folder import ASSET_NAMES, CONFIG_NAME, open_inside, read_assets, read_config
from converter.encoding.tensor_bundle import OBJECT_GRAPH_KEY, Bundle, Entry, object_names, read_bundle
from converter.errors import ReadError, UsageError
from converter.formats import Format, NoOptions, Probe
from converter.model.checkpoint import Checkpoint, Part
from converter.model.dtype import DType
from converter.model.ledger import LedgerLine, Status, dropped
from converter.model.output import Late, Output, OutputFile, Provenance, Workshop
from converter.model.tensor import Tensor

_GRAPH_NAME = "saved_model.pb"
_TEXT_GRAPH_NAME = "saved_model.pbtxt"
_VARIABLES = "variables/variables"
_EXTRA = "assets.extra"
_DOCUMENT_NAME = f"{_EXTRA}/ckconv.json"
_DOCUMENT_LIMIT_BYTES = 64 << 20
_DIALECTS = ("pytorch", "tensorflow", "generic")
_VALUE_SUFFIX = "/.ATTRIBUTES/VARIABLE_VALUE"
_SLOT_MARK = "/.OPTIMIZER_SLOT/"
_NOT_WEIGHTS = {
    "optimizer/": "a variable of the optimizer",
    "keras_api/metrics/": "the state of a metric",
    "save_counter/": "how many times the model was saved",
}
_BUILD = "converter.graphs.lower.tensorflow.saved_model:build"
_RUN = "converter.graphs.run.saved_model:run"
_TAKEN_AS_IS = re.compile(r"[A-Za-z0-9.][A-Za-z0-9_./-]*")
_REFUSED = re.compile(r"[^A-Za-z0-9_./-]")
_NOT_VARIABLES = {DType.FLOAT8_E4M3FNUZ, DType.FLOAT8_E5M2FNUZ, DType.FLOAT8_E8M0FNU}
"""What tf.Variable refuses; measured with TensorFlow 2.21."""


def sniff(probe: Probe) -> bool:
    """A folder with a graph in it; whether it has variables is for the reader to say."""
    return probe.is_folder and not probe.entries.isdisjoint({_GRAPH_NAME, _TEXT_GRAPH_NAME})


def read(path: Path, options: NoOptions) -> Checkpoint:
    """Read the variables of a SavedModel, by the names that its object graph gives them; no tensor is read.

    Variables of the optimizer, metrics and text are ledger lines. Raises ReadError for a model without variables or
    in text form, a damaged bundle, and variables that share a name; SafetyError for links that leave the folder.
    """
    if not os.path.lexists(path / _GRAPH_NAME):
        form = f"in text form ({_TEXT_GRAPH_NAME})" if os.path.lexists(path / _TEXT_GRAPH_NAME) else "without a graph"
        raise ReadError(f"is a SavedModel {form}, which is not read", path=path)
    open_inside(path, _GRAPH_NAME)
    if not os.path.lexists(path / f"{_VARIABLES}.index"):
        raise ReadError("is a SavedModel without variables", path=path)
    bundle = read_bundle(path / _VARIABLES, root=path)
    tensors, lines = _weights(bundle)
    checkpoint = Checkpoint(
        tensors=tensors,
        dialect="tensorflow",
        config=read_config(path, f"{_EXTRA}/{CONFIG_NAME}"),
        assets={
            name.removeprefix(f"{_EXTRA}/"): file
            for name, file in read_assets(path, [f"{_EXTRA}/{name}" for name in ASSET_NAMES]).items()
        },
        lines=lines,
    )
    return _described(checkpoint, path) if os.path.lexists(path / _DOCUMENT_NAME) else checkpoint


def _weights(bundle: Bundle) -> tuple[dict[str, Tensor], tuple[LedgerLine, ...]]:
    """Return the weights by name, and what became of everything else in the bundle."""
    full_names = _full_names(bundle)
    names = {key: full_names.get(key, key) for key in bundle.entries if key != OBJECT_GRAPH_KEY}
    bearers = Counter(names.values())
    keys: dict[str, str] = {}
    lines: list[LedgerLine] = []
    for key, name in names.items():
        entry = bundle.entries[key]
        reason = _reason_to_drop(key)
        if reason is not None:
            lines.append(dropped(name if bearers[name] == 1 else key.removesuffix(_VALUE_SUFFIX), reason))
        elif entry.is_text:
            lines.append(dropped(name, "text, not numbers", is_refused_by_default=True))
        elif key not in bundle.tensors:
            raise ReadError(f"is of type {entry.type_name}, which is not read", path=bundle.path, tensor=name)
        elif name not in keys:
            keys[name] = key
        elif _holds_the_same(entry, bundle.entries[keys[name]]):
            lines.append(LedgerLine(status=Status.TIED, name=key, target=name, reason="stored twice"))
        else:
            raise ReadError(f"is the name of both {keys[name]} and {key}", path=bundle.path, tensor=name)
    return {name: bundle.tensors[key] for name, key in keys.items()}, tuple(lines)


def _full_names(bundle: Bundle) -> dict[str, str]:
    """Return key -> name of what the object graph says are variables; there is none in name-based bundles."""
    if OBJECT_GRAPH_KEY not in bundle.entries:
        return {}
    graph = bundle.text(OBJECT_GRAPH_KEY)
    if len(graph) != 1:
        raise ReadError(f"has {len(graph)} object graphs", path=bundle.path)
    full_names = object_names(graph[0], path=bundle.path)
    return {
        key: full_name.removesuffix(":0") or key.removesuffix(_VALUE_SUFFIX)
        for key, full_name in full_names.items()
        if key.endswith(_VALUE_SUFFIX)
    }


def _reason_to_drop(key: str) -> str | None:
    if _SLOT_MARK in key:
        return _NOT_WEIGHTS["optimizer/"]
    return next((reason for prefix, reason in _NOT_WEIGHTS.items() if key.startswith(prefix)), None)


def _holds_the_same(entry: Entry, other: Entry) -> bool:
    """Whether two entries are one variable: Keras 3 exports keep each under `variables` and `_all_variables`."""
    is_stored_whole = not entry.slices and not other.slices
    return is_stored_whole and (entry.dtype, entry.shape, entry.crc32c) == (other.dtype, other.shape, other.crc32c)


def _described(checkpoint: Checkpoint, path: Path) -> Checkpoint:
    """Return the checkpoint with the dialect, names and ties that `ckconv.json` gives it."""
    file = open_inside(path, _DOCUMENT_NAME)
    if file.size > _DOCUMENT_LIMIT_BYTES:
        raise ReadError(f"is a document of {file.size} bytes", path=file.path)
    document = strict_json.loads(file.read(0, file.size), path=file.path, what="document")
    if not isinstance(document, dict) or document.get("dialect") not in _DIALECTS:
        raise ReadError("does not say in which dialect the names are", path=file.path)
    originals, ties = (_names_by_name(document.get(key, {}), file.path) for key in ("names", "ties"))
    for name in originals:
        if name not in checkpoint.tensors:
            raise ReadError("is renamed, and not there", path=file.path, tensor=name)
    try:
        renamed = checkpoint.with_names(lambda name: originals.get(name, name))
    except ReadError as error:
        raise ReadError(error.message, path=file.path, tensor=error.tensor) from error
    for name, owner in ties.items():
        if name in renamed.tensors or owner not in renamed.tensors:
            raise ReadError(f"cannot be tied to {owner!r}", path=file.path, tensor=name)
    return replace(
        renamed,
        dialect=document["dialect"],
        aliases=ties,
        buffers=_known_names(document.get("buffers", []), renamed, file.path),
        frozen=_known_names(document.get("frozen", []), renamed, file.path),
    )


def _names_by_name(value: Any, path: Path) -> dict[str, str]:
    if not isinstance(value, dict) or not all(isinstance(name, str) for name in value.values()):
        raise ReadError("has something else where names by name belong", path=path)
    return value


def _known_names(value: Any, checkpoint: Checkpoint, path: Path) -> frozenset[str]:
    if not isinstance(value, list) or not all(isinstance(name, str) and name in checkpoint.tensors for name in value):
        raise ReadError("lists names that are not there", path=path)
    return frozenset(value)


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteOptions:
    """`input_dtype`: the element type of integer inputs, "int64" or "int32"."""

    input_dtype: str = "int64"

    def __post_init__(self) -> None:
        if self.input_dtype not in ("int64", "int32"):
            raise UsageError(f"--input-dtype is int64 or int32, not {self.input_dtype!r}")


def write(checkpoint: Checkpoint, options: WriteOptions, provenance: Provenance) -> Output:
    """Lay out what goes into `assets.extra/`; TensorFlow builds the rest in a child process.

    With a graph in the checkpoint the SavedModel runs and trains; without one it holds variables alone.
    """
    stored_as = {name: _variable_name(name) for name in checkpoint.tensors}
    document = _document(checkpoint, {stored: name for name, stored in stored_as.items() if stored != name})
    described = (document[:-1] + b', "provenance": ', Late(nbytes=provenance.nbytes, render=provenance.render), b"}\n")
    files = [OutputFile(name=_DOCUMENT_NAME, pieces=described)]
    if checkpoint.config is not None:
        files.append(OutputFile(name=f"{_EXTRA}/{CONFIG_NAME}", pieces=(checkpoint.config.raw,)))
    files += [OutputFile(name=f"{_EXTRA}/{name}", pieces=(file,)) for name, file in checkpoint.assets.items()]
    weights = safetensors.files(checkpoint.tensors, {}, None)[0]
    trainable = [
        name
        for name, tensor in checkpoint.tensors.items()
        if tensor.dtype.is_floating and name not in checkpoint.buffers and name not in checkpoint.frozen
    ]

    def build(workshop: Workshop) -> None:
        workshop.stream(weights, workshop.scratch)
        workshop.call(
            _BUILD,
            graph=None if checkpoint.graph is None else os.fspath(checkpoint.graph.file),
            weights=os.fspath(workshop.scratch / weights.name),
            folder=os.fspath(workshop.folder),
            trainable=trainable,
            input_dtype=options.input_dtype,
            names=stored_as,
        )

    return Output(
        files=tuple(files),
        names={name: name for name in checkpoint.tensors},
        ties=checkpoint.aliases,
        build=build,
        build_bytes=2 * weights.nbytes,
    )


def _variable_name(name: str) -> str:
    """Return `name`, or, where TensorFlow refuses it, ``.>`` and the name with refused characters as ``>hex>``."""
    if _TAKEN_AS_IS.fullmatch(name):
        return name
    return ".>" + _REFUSED.sub(lambda match: f">{ord(match[0]):x}>", name)


def _document(checkpoint: Checkpoint, names: Mapping[str, str]) -> bytes:
    values = {
        "dialect": checkpoint.dialect,
        "names": names,
        "ties": dict(checkpoint.aliases),
        "buffers": sorted(checkpoint.buffers),
        "frozen": sorted(checkpoint.frozen),
    }
    return json.dumps(values).encode("ascii")


FORMAT = Format(
    name="savedmodel",
    description="TensorFlow SavedModel: variables, and the graph that uses them",
    suffixes=(),
    holds=frozenset({Part.WEIGHTS, Part.CONFIG, Part.ASSETS, Part.GRAPH}),
    dtypes=frozenset(safetensors.CODES) - _NOT_VARIABLES,
    sniff=sniff,
    read=read,
    write=write,
    write_options=WriteOptions,
    extra="tensorflow",
    runner=_RUN,
    entries=("saved_model.pb", "variables", "assets", _EXTRA, "fingerprint.pb", "keras_metadata.pb"),
)
