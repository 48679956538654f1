"""Keras 3's own formats, which tf_keras writes too: the `.keras` archive, and `.weights.h5`.

keras/src/saving/saving_lib.py (Keras 3.15): an archive holds `config.json`, `metadata.json` and `model.weights.h5`,
stored, so that its tensors are read where they are in the archive. `.weights.h5` numbers the variables of each layer
below ``<place of the layer>/vars``; what they are called, config or places say.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from functools import partial

from converter.declaring import option, set_choices
from converter.dialects import keras as dialect
from converter.dialects.keras.stores import as_today, names_from_modules, names_from_path
from converter.dialects.optimizer.flavors import KerasFlavor, flavor_of, stated_version
from converter.dialects.optimizer.keras_files import record_attributes, with_numbered_state
from converter.dialects.optimizer.keras_layouts import config_of, variables
from converter.dialects.optimizer.stored import is_placed, with_placed_state
from converter.dialects.optimizer.stored import placed as placed_state
from converter.dialects.optimizer.writing import (
    Epsilon,
    call_of,
    compile_config,
    epsilon_option,
    for_keras,
    with_kept_state,
)
from converter.dialects.transformers import attributes
from converter.dialects.transformers.heads import encoder_settings, module_of
from converter.dialects.transformers.listings import NoPlaceError, as_archive_of_class, copied, is_of_layers, relisted
from converter.encoding import hdf5
from converter.encoding import json as strict_json
from converter.encoding import zip as zip_archive
from converter.encoding.hdf5.names import escaped, set_apart, unescaped
from converter.encoding.provenance import in_zip_or_hdf5
from converter.errors import ReadError, UsageError
from converter.formats import Format, NoOptions, Probe
from converter.graphs.description.keras_source import graph_source, is_hostile
from converter.model.checkpoint import Checkpoint, Config, Dialect, Listing, Part
from converter.model.dtype import DType
from converter.model.file import Location, SourceFile, open_file
from converter.model.ledger import Kind, LedgerLine, dropped, no_weight
from converter.model.output import Late, Output, OutputFile, Provenance
from converter.model.tensor import Tensor

_CONFIG, _METADATA, _WEIGHTS, _PROVENANCE = "config.json", "metadata.json", "model.weights.h5", "ckconv.json"
_JSON_LIMIT_BYTES = 16 << 20
_VARIABLES = "vars"
_OPTIMIZER = "optimizer"
_NOT_WEIGHTS = {
    _OPTIMIZER: Kind.OPTIMIZER,
    "metrics": Kind.METRIC,
    "compile_metrics": Kind.METRIC,
    "_compile_metrics": Kind.METRIC,
}
_SEED = "seed_generator"
_DIALECTS = tuple(Dialect)
_INPUTS = ("layers", "input_layer")
"""A group of functional models alone, whatever their layers."""
_DATE_SAVED = "1980-01-01@00:00:00"
_flavor = partial(flavor_of, default=KerasFlavor.KERAS_3)


def sniff(probe: Probe) -> bool:
    """An archive with config and weights in it, or an HDF5 file that has a group `vars`."""
    if probe.is_hdf5:
        return probe.is_numbered_hdf5
    return _CONFIG in probe.zip_members and not probe.zip_members.isdisjoint({_WEIGHTS, "model.weights.npz"})


def read(path: Location, options: NoOptions) -> Checkpoint:
    """Read an archive or its weights file; tensors stay where they are, checked by the archive's CRC as they are read.

    Variables of the optimizer, of metrics and random generators are ledger lines. Raises ReadError and SafetyError as
    the encodings do, and for a config that is no strict JSON.
    """
    file = open_file(path)
    if not file.read(0, min(4, file.size)).startswith(b"PK"):
        root = hdf5.read(file)
        by_config = partial(_weights_by_config, root, path)
        return replace(_weights(root, None, path), by_keras_config=by_config)
    members = zip_archive.read_members(file)
    for name in (_CONFIG, _WEIGHTS):
        if name not in members:
            raise ReadError(f"is an archive without {name}", path=path)
    weights = members[_WEIGHTS]
    if not weights.is_stored:
        raise ReadError(f"has its {_WEIGHTS} compressed, which Keras does not do", path=path)
    config = _json(file, members[_CONFIG])
    root = hdf5.read(
        file,
        offset=weights.data_offset,
        length=weights.uncompressed_bytes,
        checksum=zip_archive.checksum(file, weights),
    )
    checkpoint = _weights(root, config, path)
    metadata = _json(file, members[_METADATA]).values if _METADATA in members else {}
    version = metadata.get("keras_version")
    others = sorted(members.keys() - {_CONFIG, _METADATA, _WEIGHTS, _PROVENANCE})
    warnings = (f"{', '.join(others[:10])} not carried: files beside the weights",) if others else ()
    return replace(
        checkpoint,
        keras_config=config,
        metadata={"keras_version": version} if isinstance(version, str) else {},
        warnings=(*checkpoint.warnings, *warnings),
    )


def _weights_by_config(root: hdf5.Group, path: Location, config: Config) -> Checkpoint:
    return replace(_weights(root, config, path), keras_config=config)


def _json(file: SourceFile, member: zip_archive.Member) -> Config:
    raw = zip_archive.read_bytes(file, member, limit_bytes=_JSON_LIMIT_BYTES)
    values = strict_json.loads(raw, path=file.path, what=member.name)
    if not isinstance(values, dict):
        raise ReadError(f"has a {member.name} that is not a JSON object", path=file.path)
    return Config(values=values, raw=raw)


def _weights(root: hdf5.Group, config: Config | None, path: Location) -> Checkpoint:
    own = root.attributes.get("ckconv_dialect")
    if own is not None:
        return _own(root, own, path)
    stores, strays, beside, lines = _gathered(root)
    named = _named(root, stores, config)
    tensors = dict(strays)
    listed: dict[str, tuple[str, ...]] = {}
    for place, held in stores.items():
        listed[place] = names = named.get(place) or tuple(
            f"{place}/{_VARIABLES}/{number}".lstrip("/") for number in range(len(held))
        )
        for name, tensor in zip(names, held, strict=True):
            if name in tensors:
                raise ReadError("is the name of two variables", path=path, tensor=name)
            tensors[name] = tensor
    owners: dict[int, str] = {}
    ties = {name: owner for name, tensor in tensors.items() if (owner := owners.setdefault(id(tensor), name)) != name}
    once = {name: tensor for name, tensor in tensors.items() if name not in ties}
    numbered = {
        place: tuple((str(number), name) for number, name in enumerate(names)) for place, names in listed.items()
    }
    listing = Listing(format=FORMAT.name, layers=numbered, titles=dict(_titles(root, ())), beside=beside)
    graph = None
    if config is not None and (dialect.is_model(config.values) or is_hostile(config.values)):
        graph = graph_source(path, config.values, once.values(), listing)
    checkpoint = Checkpoint(
        tensors=once,
        aliases=ties,
        dialect=Dialect.KERAS,
        graph=graph,
        listing=None if strays else listing,
        lines=tuple(lines),
    )
    return with_numbered_state(checkpoint, root, listed, None if config is None else config.values, path)


def _gathered(
    root: hdf5.Group,
) -> tuple[dict[str, list[Tensor]], dict[str, Tensor], dict[str, Tensor], list[LedgerLine]]:
    """Return the variables of each layer by its place, what is numbered nowhere, what are no weights, and lines."""
    strays: dict[str, Tensor] = {}
    beside: dict[str, Tensor] = {}
    lines: list[LedgerLine] = []
    held: dict[str, dict[str, Tensor]] = {}
    for place, dataset in root.datasets():
        kind = _kind_besides_weights(place)
        if kind is not None:
            lines.append(no_weight("/".join(place), kind))
            if kind is not Kind.OPTIMIZER and dataset.tensor is not None:
                beside["/".join(place)] = dataset.tensor
        elif dataset.tensor is None:
            lines.append(dropped("/".join(place), "text, not numbers", is_refused_by_default=True))
        elif len(place) > 1 and place[-2] == _VARIABLES:
            held.setdefault("/".join(place[:-2]), {})[place[-1]] = dataset.tensor
        else:
            strays["/".join(place)] = dataset.tensor
    stores: dict[str, list[Tensor]] = {}
    for layer, tensors in held.items():
        numbers = [str(number) for number in range(len(tensors))]
        if set(numbers) == set(tensors):
            stores[layer] = [tensors[number] for number in numbers]
        else:
            strays.update({f"{layer}/{_VARIABLES}/{key}".lstrip("/"): tensor for key, tensor in tensors.items()})
    return stores, strays, beside, lines


def _kind_besides_weights(place: tuple[str, ...]) -> Kind | None:
    if _SEED in place:
        return Kind.RANDOM
    return _NOT_WEIGHTS.get(place[0])


def _named(root: hdf5.Group, stores: Mapping[str, list[Tensor]], config: Config | None) -> dict[str, tuple[str, ...]]:
    """Return the names of the variables of each place: by the layers of a config, else by what the places say.

    Files that were written here list the names, for when no config is at hand.
    """
    named: dict[str, tuple[str, ...]] = {}
    if config is not None and dialect.is_model(config.values):
        modules, _ = dialect.config_modules(dialect.parse(config.values))
        by_place = names_from_modules(modules, {as_today(place): len(held) for place, held in stores.items()})
        named = {place: by_place[now] for place in stores if (now := as_today(place)) in by_place}
    is_around = root.group(*_INPUTS) is not None or (config is not None and dialect.is_model(config.values))
    unlisted = {place: held for place, held in stores.items() if _listed(root, place) is None}
    named |= _named_in_transformers(unlisted, is_around=is_around, config=encoder_settings(config))
    titles = dict(_titles(root, ()))
    for place, held in stores.items():
        if place and place not in named:
            listed = _listed(root, place)
            names = listed or names_from_path(place, [tensor.shape for tensor in held], titles)
            if names is not None and len(names) == len(held):
                named[place] = names
    return named


def _named_in_transformers(
    stores: Mapping[str, list[Tensor]], *, is_around: bool, config: Mapping[str, object]
) -> dict[str, tuple[str, ...]]:
    """Return the names of the variables of each place that is in a model of transformers, of that config.

    `is_around`: the root is a model of Keras, of which a main layer may be one layer and a head of its own another.
    """
    positions = {
        place: [f"{place}/{_VARIABLES}/{number}".lstrip("/") for number in range(len(held))]
        for place, held in stores.items()
    }
    found = attributes.names_from_places(
        (each for places in positions.values() for each in places), is_around=is_around, config=config
    )
    return {
        place: tuple(found.get(each, each) for each in places)
        for place, places in positions.items()
        if any(each in found for each in places)
    }


def _listed(root: hdf5.Group, place: str) -> tuple[str, ...] | None:
    group = root.group(*place.split("/"), _VARIABLES)
    names = None if group is None else group.attributes.get("weight_names")
    return names if isinstance(names, tuple) else None


def _titles(group: hdf5.Group, place: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """Yield place and name of every layer whose group says what it is called."""
    for link, member in group.members.items():
        if not isinstance(member, hdf5.Group) or (link == _OPTIMIZER and not place):
            continue
        title = member.attributes.get("name")
        if link == _VARIABLES and isinstance(title, str):
            yield "/".join(place), title
        else:
            yield from _titles(member, (*place, link))


def _own(root: hdf5.Group, own: object, path: Location) -> Checkpoint:
    """Read a weights file that was written here: modules as layers, names as they were."""
    if own not in _DIALECTS:
        raise ReadError(f"has names of the unknown dialect {own!r}", path=path)
    tensors: dict[str, Tensor] = {}
    aliases: dict[str, str] = {}
    first: dict[int, str] = {}
    state = root.group(_OPTIMIZER, _VARIABLES)
    for link in root.members:
        if link == _OPTIMIZER and is_placed(state):
            continue
        group = root.group(link) if link == _VARIABLES else root.group(link, _VARIABLES)
        leaves = None if group is None else group.attributes.get("weight_names")
        if group is None or not isinstance(leaves, tuple):
            raise ReadError(f"has a group {link!r} that lists no variables", path=path)
        for position, leaf in enumerate(leaves):
            dataset = group.members.get(str(position))
            name = unescaped(leaf) if link == _VARIABLES else f"{unescaped(link)}.{unescaped(leaf)}"
            if not isinstance(dataset, hdf5.Dataset) or dataset.tensor is None or name in tensors or name in aliases:
                raise ReadError("is listed, but the file has it not at all or twice", path=path, tensor=name)
            if id(dataset) in first:
                aliases[name] = first[id(dataset)]
            else:
                first[id(dataset)] = name
                tensors[name] = dataset.tensor
    checkpoint = Checkpoint(tensors=tensors, aliases=aliases, dialect=str(own))
    return with_placed_state(checkpoint, state, path) if state is not None and is_placed(state) else checkpoint


class Container(str, Enum):
    """Which of the two files of Keras 3 is written."""

    AUTO = "auto"
    """the archive where there is a config"""
    ARCHIVE = "archive"
    WEIGHTS = "weights"


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteOptions:
    """What a file of Keras 3 may be asked for."""

    container: Container = option(
        Container.AUTO,
        "A `.keras` archive, a `.weights.h5` file, or the former where there is a config.",
        choices=Container,
    )
    epsilon: Epsilon = epsilon_option()

    def __post_init__(self) -> None:
        set_choices(self)


def adapted(checkpoint: Checkpoint, options: WriteOptions) -> Checkpoint:
    """Return a checkpoint of PyTorch's names and conventions with Keras's, where there is a Keras config."""
    is_archive = options.container is not Container.WEIGHTS
    if checkpoint.listing is not None:
        if checkpoint.listing.format != FORMAT.name:
            checkpoint = relisted(checkpoint, FORMAT.name, is_older=_is_older(checkpoint))
        else:
            checkpoint = copied(checkpoint, is_older=_is_older(checkpoint), is_archive=is_archive)
        return with_kept_state(checkpoint, _flavor(checkpoint), says_kind=False, has_config=is_archive)
    is_exact = options.epsilon is Epsilon.EXACT
    keras = for_keras(checkpoint, _flavor(checkpoint), is_exact=is_exact)
    if keras.dialect != Dialect.PYTORCH:
        return keras
    try:
        return as_archive_of_class(keras, is_exact=is_exact)
    except NoPlaceError:
        if options.container is Container.ARCHIVE:
            raise
        return keras  # arrays alone, which a file of weights may be asked for


def keeps_names(checkpoint: Checkpoint) -> bool:
    """Whether nothing but the places in another file of Keras says where variables are."""
    return dialect.is_only_listed(checkpoint, FORMAT.name) or is_of_layers(checkpoint, FORMAT.name)


def write(checkpoint: Checkpoint, options: WriteOptions, provenance: Provenance) -> Output:
    """Lay out an archive or a weights file of an `adapted` checkpoint; without a Keras config, weights alone.

    Raises UsageError when an archive is asked for and there is no config of a Keras model, LossError for a model of
    transformers, whose places in an archive no table has.
    """
    late = Late(nbytes=provenance.nbytes, render=provenance.render)
    config = checkpoint.keras_config
    listing = checkpoint.listing
    has_model = checkpoint.dialect == Dialect.KERAS and config is not None and dialect.is_model(config.values)
    is_archive = has_model or (listing is not None and config is not None)
    if options.container is Container.ARCHIVE and not is_archive:
        hint = "--config FILE gives it, as to_json() or get_config() returned it; a .weights.h5 needs none"
        raise UsageError("a .keras archive needs the config of a Keras model", hint=hint)
    if not has_model and listing is None:
        content, names, warnings = _module_file(checkpoint, late)
        file = OutputFile(name=_WEIGHTS, pieces=hdf5.pieces(content))
        alone = dialect.arrays_alone(checkpoint, suffix=".weights.h5")
        return Output(files=(file,), names=names, warnings=warnings, arrays_alone=alone)
    content, names = _layer_file(checkpoint) if listing is None else _listed_file(checkpoint, listing)
    if options.container is Container.WEIGHTS or not is_archive:
        stated = {"": {"ckconv": late}, **content.attributes}
        pieces = hdf5.pieces(replace(content, attributes=stated))
        warnings = () if checkpoint.optimizer is None else (call_of(checkpoint.optimizer),)
        return Output(files=(OutputFile(name=_WEIGHTS, pieces=pieces),), names=names, warnings=warnings)
    archived, warnings = _archived_config(checkpoint)
    archive = _archive(checkpoint, archived, content, late)
    return Output(files=(archive,), names=names, warnings=warnings, has_config=True)


def _archived_config(checkpoint: Checkpoint) -> tuple[bytes, tuple[str, ...]]:
    """Return the config as it is, or, when it comes from an HDF5 file, with what archives say besides."""
    assert checkpoint.keras_config is not None
    values = checkpoint.keras_config.values
    warnings: tuple[str, ...] = ()
    if "module" not in values:
        values = dialect.with_modules(values, is_older=_is_older(checkpoint), module_of=module_of)
        warnings = (dialect.said_of_modules(is_older=_is_older(checkpoint)),)
    if checkpoint.optimizer is not None:
        values = {**values, "compile_config": compile_config(checkpoint.optimizer, values.get("compile_config"))}
    if values is checkpoint.keras_config.values:
        return checkpoint.keras_config.raw, warnings
    return json.dumps(values).encode("ascii"), warnings


def _is_older(checkpoint: Checkpoint) -> bool:
    return _flavor(checkpoint) is not KerasFlavor.KERAS_3


def _archive(checkpoint: Checkpoint, config: bytes, content: hdf5.FileContent, late: Late) -> OutputFile:
    version = stated_version(checkpoint) or ("2.15.0" if _is_older(checkpoint) else "3.0.0")
    metadata = json.dumps({"keras_version": version, "date_saved": _DATE_SAVED}).encode("ascii")
    records = [
        zip_archive.Record(name=_METADATA, content=metadata),
        zip_archive.Record(name=_CONFIG, content=config),
        zip_archive.Record(name=_WEIGHTS, content=hdf5.image(content)),
        zip_archive.Record(name=_PROVENANCE, content=late),
    ]
    return OutputFile(name=FORMAT.file_name or "", pieces=zip_archive.archive(records))


def _layer_file(checkpoint: Checkpoint) -> tuple[hdf5.FileContent, dict[str, str]]:
    """Lay out the variables where the layers of the config look for them."""
    assert checkpoint.keras_config is not None
    model = dialect.parse(checkpoint.keras_config.values)
    modules, _ = dialect.config_modules(model)
    version = -1 if _is_older(checkpoint) else 0
    tensors: dict[str, Tensor] = {}
    names: dict[str, str] = {}
    attributes: dict[str, dict[str, object]] = {_VARIABLES: {"name": model.name}}  # tf_keras opens that of the model
    for module in modules:
        group = f"{module.stores[version]}/{_VARIABLES}"
        listed = [f"{module.path}/{slot.keras}" for slot in module.slots]
        attributes[group] = {"name": module.path.rpartition("/")[2], "weight_names": listed}
        for position, name in enumerate(listed):
            tensors[f"{group}/{position}"] = checkpoint.tensor(name)
            names[name] = name
    return _with_state(checkpoint, tensors, attributes), names


def _listed_file(checkpoint: Checkpoint, listing: Listing) -> tuple[hdf5.FileContent, dict[str, str]]:
    """Lay out the variables where another such file has them."""
    tensors: dict[str, Tensor] = {}
    attributes: dict[str, dict[str, object]] = {_VARIABLES: {}}  # tf_keras opens that of the model
    attributes |= {f"{place}/{_VARIABLES}".lstrip("/"): {"name": title} for place, title in listing.titles.items()}
    there = set(checkpoint.names)
    for place, pairs in listing.layers.items():
        group = f"{place}/{_VARIABLES}".lstrip("/")
        attributes.setdefault(group, {})["weight_names"] = [name for _, name in pairs]
        tensors |= {f"{group}/{number}": checkpoint.tensor(name) for number, name in pairs if name in there}
    tensors |= listing.beside
    return _with_state(checkpoint, tensors, attributes), {name: name for name in checkpoint.names}


def _with_state(
    checkpoint: Checkpoint, tensors: dict[str, Tensor], attributes: dict[str, dict[str, object]]
) -> hdf5.FileContent:
    """Lay out the state of the optimizer beside the variables."""
    if checkpoint.optimizer is not None:
        group = f"{_OPTIMIZER}/{_VARIABLES}"
        held = variables(checkpoint.optimizer, _flavor(checkpoint))
        tensors |= {f"{group}/{position}": tensor for position, tensor in enumerate(held.values())}
        attributes[group] = {
            "name": config_of(checkpoint.optimizer)[1]["name"],
            **record_attributes(checkpoint.optimizer),
        }
    elif checkpoint.optimizer_stored is not None:
        kept = checkpoint.optimizer_stored
        tensors |= {f"{_OPTIMIZER}/{path}": tensor for path, tensor in kept.tensors.items()}
        attributes |= {f"{_OPTIMIZER}/{path}".rstrip("/"): {**held} for path, held in kept.attributes.items()}
    stored, links = hdf5.shared(tensors)
    return hdf5.FileContent(tensors=stored, links=links, attributes=attributes)


def _module_file(checkpoint: Checkpoint, late: Late) -> tuple[hdf5.FileContent, dict[str, str], tuple[str, ...]]:
    """Lay out one group per module, with names and layouts as they are; ties become hard links."""
    by_module: dict[str, list[str]] = {}
    reserved = {_VARIABLES} if checkpoint.optimizer is None else {_VARIABLES, _OPTIMIZER}
    for name in checkpoint.names:
        module, dot, _ = name.rpartition(".")
        link = escaped(module) if dot else ""
        by_module.setdefault(set_apart(module) if link in reserved else link, []).append(name)
    places: dict[str, str] = {}
    attributes: dict[str, dict[str, object]] = {"": {"ckconv_dialect": str(checkpoint.dialect), "ckconv": late}}
    escapes: list[str] = []
    for link, held in by_module.items():
        group = f"{link}/{_VARIABLES}".lstrip("/")
        leaves = [escaped(name.rpartition(".")[2]) for name in held]
        attributes[group] = {"weight_names": leaves}
        places.update({name: f"{group}/{position}" for position, name in enumerate(held)})
        plain = (f"{link}.{leaf}" if link else leaf for leaf in leaves)
        escapes += [name for name, written in zip(held, plain, strict=True) if written != name]
    slots: dict[str, Tensor] = {}
    if checkpoint.optimizer is not None:
        slots, more = placed_state(checkpoint.optimizer, f"{_OPTIMIZER}/{_VARIABLES}")
        attributes.update(more)
    placed = hdf5.FileContent(
        tensors={**{places[name]: tensor for name, tensor in checkpoint.tensors.items()}, **slots},
        links={places[name]: places[owner] for name, owner in checkpoint.aliases.items()},
        attributes=attributes,
    )
    warnings = (f"names that HDF5 cannot hold are escaped: {', '.join(escapes[:10])}",) if escapes else ()
    return placed, {name: name for name in checkpoint.names}, warnings


FORMAT = Format(
    name="keras",
    description="Keras 3: .keras archives, and .weights.h5",
    suffixes=(".weights.h5", ".keras"),
    holds=frozenset({Part.WEIGHTS, Part.CONFIG, Part.OPTIMIZER}),
    dtypes=frozenset(DType),
    sniff=sniff,
    read=read,
    write=write,
    provenance=in_zip_or_hdf5,
    keeps_names=keeps_names,
    adapt=adapted,
    write_options=WriteOptions,
    by_suffix={".keras": {"container": Container.ARCHIVE}, ".weights.h5": {"container": Container.WEIGHTS}},
    file_name="model.keras",
    entries=("*.keras", "*.weights.h5"),
)
