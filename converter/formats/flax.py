"""Flax: `flax_model.msgpack`, nested maps of arrays in MessagePack (converter.encoding.flax_file).

Names are the keys on the way to an array, joined with `/`. With the config.json of a model of transformers that a
table knows, names and layouts become PyTorch's, and PyTorch's the Flax class's.

What this program writes of other models has one more array at the root, `__ckconv__`: the bytes of a JSON document
that says in which dialect the names are, and `separator`, which joins the keys to names.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from converter.dialects.transformers import flax as dialect
from converter.encoding import flax_file, msgpack
from converter.encoding.description import LIMIT_BYTES, Description, described, parse_document
from converter.encoding.flax_file import CHUNKED, FILE_NAME, OWN_KEY
from converter.encoding.folder import CONFIG_NAME, open_inside
from converter.encoding.provenance import in_flax
from converter.errors import ReadError
from converter.formats import Format, NoOptions, Probe
from converter.model.checkpoint import Checkpoint, Dialect, Part
from converter.model.dtype import DType
from converter.model.file import Location, SourceFile, is_dir, open_file
from converter.model.ledger import Kind, no_weight
from converter.model.output import Late, Output, OutputFile, Provenance

_SUFFIX = ".msgpack"
_DIALECTS_OF_PATHS = (Dialect.FLAX, Dialect.TENSORFLOW, Dialect.KERAS)


def sniff(probe: Probe) -> bool:
    """A map whose first long value is an extension, or a folder with such a file and no config.json."""
    if probe.is_folder:
        return FILE_NAME in probe.entries and CONFIG_NAME not in probe.entries
    return msgpack.starts_with_map_of_extensions(probe.head, probe.size)


def read(path: Location, options: NoOptions) -> Checkpoint:
    """Read the structure of a file; arrays stay where they are.

    Text is a ledger line, and so is the optimizer of a TrainState. Raises ReadError for malformed MessagePack, element
    types that are no numbers, shapes that do not fit the bytes, and keys that give two arrays one name.
    """
    file = open_inside(path, FILE_NAME) if is_dir(path) else open_file(path)
    tree = flax_file.read_tree(file)
    document = _document(file, tree.pop(OWN_KEY)) if OWN_KEY in tree else {}
    separator = document.get("separator", "/")
    if separator not in ("/", ".", ""):
        raise ReadError(f"joins names with {separator!r}", path=file.path)
    tensors, lines = flax_file.tensors_of(file, tree, separator)
    beside = {} if document else _beside_weights(tree)
    left = tuple(no_weight(name, kind) for name in tensors if (kind := _kind(name, beside)) is not None)
    checkpoint = Checkpoint(
        tensors={name: tensor for name, tensor in tensors.items() if _kind(name, beside) is None},
        dialect=Dialect.FLAX,
        lines=(*lines, *left),
    )
    return described(checkpoint, {**document, "ties": {}}, file.path) if document else checkpoint


def _beside_weights(tree: Mapping[str, Any]) -> dict[str, Kind]:
    """Return the keys below which nothing is a weight: of a TrainState of Flax, and of what T5X saves."""
    if "params" in tree and "opt_state" in tree:
        return {"opt_state": Kind.OPTIMIZER, "step": Kind.STEPS}
    inner = tree.get("optimizer")
    before, held = ("optimizer/", inner) if isinstance(inner, dict) else ("", tree)
    if "target" in held and isinstance(held.get("state"), dict):
        return {f"{before}state/step": Kind.STEPS, f"{before}state": Kind.OPTIMIZER}
    return {}


def _kind(name: str, beside: Mapping[str, Kind]) -> Kind | None:
    return next((kind for start, kind in beside.items() if name == start or name.startswith(start + "/")), None)


def _document(file: SourceFile, value: Any) -> dict[str, Any]:
    if isinstance(value, dict) and list(value.values()) == [{}]:
        return {}  # a provenance, as a key without an array
    tensor = flax_file.named_tensor(file, OWN_KEY, value)
    if tensor.dtype is not DType.UINT8 or tensor.nbytes > LIMIT_BYTES:
        raise ReadError("is no JSON document in bytes (uint8)", path=file.path, tensor=OWN_KEY)
    return parse_document(tensor.numpy().tobytes(), file.path)


def adapted(checkpoint: Checkpoint, options: NoOptions) -> Checkpoint:
    """Return a checkpoint of PyTorch's names as the Flax class of its config stores it, if a table knows that."""
    if checkpoint.dialect != Dialect.PYTORCH or not dialect.is_known(checkpoint.config):
        return checkpoint
    return dialect.from_canonical(checkpoint)


def write(checkpoint: Checkpoint, options: NoOptions, provenance: Provenance) -> Output:
    """Lay out a file that flax.serialization.msgpack_restore opens; tied tensors are there under each name.

    A model that a table knows has the arrays that its Flax class loads, and no other. Names of others are nested at
    `/` or, in dialects that use it, at `.`; when a name is the start of another, not at all.
    """
    names = {name: name for name in checkpoint.names}
    if checkpoint.dialect == Dialect.FLAX and dialect.is_known(checkpoint.config):
        loadable = flax_file.loadable_pieces({name: checkpoint.tensor(name) for name in names}, provenance)
        return Output(files=(OutputFile(name=FILE_NAME, pieces=loadable),), names=names)
    preferred = "/" if checkpoint.dialect in _DIALECTS_OF_PATHS else "."
    stored_as = _stored_names(checkpoint.names, preferred)
    separator = preferred if _can_nest(stored_as.values(), preferred) else ""
    description = Description(
        checkpoint=checkpoint,
        provenance=provenance,
        names={stored: name for name, stored in stored_as.items() if stored != name},
        more={"separator": separator},
    )
    tree = {
        OWN_KEY: Late(nbytes=description.nbytes, render=description.render),
        **flax_file.nested({stored: checkpoint.tensor(name) for name, stored in stored_as.items()}, separator),
    }
    return Output(files=(OutputFile(name=FILE_NAME, pieces=flax_file.pieces(tree)),), names=names)


def _stored_names(names: tuple[str, ...], separator: str) -> dict[str, str]:
    """Return name -> the name it is stored under: another one where a key would mean something to a reader."""
    stored_as = {}
    used = set(names)
    for name in names:
        keys = name.split(separator)
        stored = name
        if {CHUNKED, OWN_KEY}.intersection((*keys, name)):
            stored = separator.join(key + "_" if key in (CHUNKED, OWN_KEY) else key for key in keys)
            while stored in used:
                stored += "_"
            used.add(stored)
        stored_as[name] = stored
    return stored_as


def _can_nest(names: Any, separator: str) -> bool:
    """Whether no name is the start of another."""
    leaves = {tuple(name.split(separator)) for name in names}
    return not any(keys[:length] in leaves for keys in leaves for length in range(1, len(keys)))


FORMAT = Format(
    name="flax",
    description="flax_model.msgpack: nested maps of arrays in MessagePack",
    suffixes=(_SUFFIX,),
    holds=frozenset({Part.WEIGHTS}),
    dtypes=frozenset(DType),
    sniff=sniff,
    read=read,
    write=write,
    provenance=in_flax,
    file_name=FILE_NAME,
    adapt=adapted,
    entries=("*" + _SUFFIX,),
)
