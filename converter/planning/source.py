"""A source: the checkpoint, where it is, and the config and the files beside it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from converter import formats
from converter.dialects.keras import OBJECTS, class_of_layers
from converter.dialects.keras import is_class as is_keras_class
from converter.encoding.folder import (
    CONFIG_NAME,
    CONFIG_NAMES,
    LEVELS_OF_CONFIG,
    TOKENIZER_NAMES,
    parse_config,
    read_assets,
    read_config,
    read_configs,
)
from converter.encoding.part_files import check_whole
from converter.errors import CkconvError, MissingExtraError, ReadError, UsageError
from converter.formats import Format, Probe
from converter.graphs.description.keras_source import graph_source
from converter.model.checkpoint import Checkpoint, Config, Dialect, Graph
from converter.model.file import LocalFile, Location, SourceFile, absolute, is_dir, is_there, open_file
from converter.model.size_limits import check_growth
from converter.model.tensor import files_of
from converter.options import Options

StrPath = str | os.PathLike[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A checkpoint and where it was read from: `path` is None for one that the caller made.

    `format` is the name of its format, or of its dialect when it was read from none.
    """

    checkpoint: Checkpoint
    path: Location | None
    format: str

    @classmethod
    def open(cls, path: Location, options: Options, specific: Mapping[str, Any]) -> tuple[Source, dict[str, Any]]:
        """Read the checkpoint at `path` and what is beside it; return the options that its reader does not take, too.

        No tensor is read. Raises CkconvError that names the file.
        """
        folder = path if is_dir(path) else path.parent
        check_whole(path)
        file, format_ = detected(path, options.from_format)
        accepted = {field.name for field in fields(format_.read_options)}
        read_options = format_.read_options(**{name: value for name, value in specific.items() if name in accepted})
        with _naming(file):
            checkpoint = format_.read(file, read_options)
            if not checkpoint.tensors and checkpoint.graph is None:
                raise ReadError("holds no tensor")
            check_growth(checkpoint, file)
        left = {name: value for name, value in specific.items() if name not in accepted}
        return cls(checkpoint=_with_siblings(checkpoint, folder, path, options), path=path, format=format_.name), left

    def whole(self) -> Checkpoint:
        """Return the checkpoint, for who takes all of it. Raises the error of a file that could not be read."""
        for error in self.checkpoint.unread.values():
            raise error
        return self.checkpoint

    @property
    def files(self) -> tuple[SourceFile, ...]:
        """The files that it consists of, each once."""
        files = {file.path: file.stored for tensor in self.checkpoint.tensors.values() for file in files_of(tensor)}
        if self.path is not None and not is_dir(self.path):
            files.setdefault(self.path, open_file(self.path))
        return tuple(files.values())

    def read_beside(self, options: Options) -> Iterator[Location]:
        """Yield every file that was or will be read for a conversion, besides the source itself."""
        yield from {file.path for tensor in self.checkpoint.tensors.values() for file in files_of(tensor)}
        yield from (file.path for file in self.checkpoint.assets.values())
        if isinstance(self.path, Path):
            above = self.path.absolute().parents[:LEVELS_OF_CONFIG]
            yield from (folder / name for folder in above for name in CONFIG_NAMES)
        yield from (each for each in (options.mapping, options.param_order) if each is not None)
        if options.config is not None:
            yield config_file(options.config)

    def named_in_errors(self) -> AbstractContextManager[None]:
        """Return a context in which errors that name no file name this one."""
        return _naming(self.path)


@contextmanager
def _naming(path: Location | None) -> Iterator[None]:
    try:
        yield
    except MissingExtraError:
        raise
    except CkconvError as error:
        if error.path is None and path is not None:
            error.path = str(path)
        raise


def detected(path: Location, name: str | None) -> tuple[Location, Format]:
    """Return the format at `path`, or the one called `name`; and the file in a folder, where that is of one file."""
    probe = Probe(path)
    format_ = formats.detect(probe) if name is None else formats.by_name(name)
    inside = format_.file_in(probe.entries)
    if inside is not None and (name is not None or not format_.sniff(probe)):
        return path / inside, format_
    return path, format_


def _with_siblings(checkpoint: Checkpoint, folder: Location, path: Location | None, options: Options) -> Checkpoint:
    """Return the checkpoint with the config asked for, or what is beside it; a file may hold one of Keras's already."""
    folders = [folder]
    if options.config is not None:
        file = LocalFile(config_file(options.config))
        metadata = {key: value for key, value in checkpoint.metadata.items() if key != "keras_version"}
        checkpoint = _with_config(replace(checkpoint, metadata=metadata), parse_config(file), path)
        folders.append(file.path.parent)
    elif checkpoint.config is None:
        folders = [_folder_of_config(folder, checkpoint)]
        checkpoint = _with_config(checkpoint, read_configs(folders[0]), path)
    elif is_keras_class(checkpoint.config.values):
        checkpoint = _with_config(replace(checkpoint, config=None), checkpoint.config, path)
    return replace(checkpoint, assets=_assets(checkpoint, folders, options.tokenizer))


def with_own_config(checkpoint: Checkpoint) -> Checkpoint:
    """Return the checkpoint with the config of transformers that training code saved in it, where it has no other."""
    held = {key: value for key, value in checkpoint.extras.items() if _is_config(value)}
    if checkpoint.config is not None or checkpoint.keras_config is not None or len(held) != 1:
        return checkpoint
    ((key, values),) = held.items()
    try:
        raw = (json.dumps(values, indent=2, sort_keys=True) + "\n").encode("ascii")
    except (TypeError, ValueError):
        return checkpoint
    return replace(
        checkpoint,
        config=Config(values=json.loads(raw), raw=raw),
        extras={name: value for name, value in checkpoint.extras.items() if name != key},
        warnings=(*checkpoint.warnings, f"config.json is what the file has under {key!r}"),
    )


def _is_config(value: object) -> bool:
    return isinstance(value, Mapping) and isinstance(value.get("model_type"), str)


def config_file(place: StrPath) -> Path:
    """Return the file that `--config` names, itself or by the folder that it is in."""
    return Path(place, CONFIG_NAME) if os.path.isdir(place) else Path(place)


def _assets(checkpoint: Checkpoint, folders: Iterable[Location], tokenizer: StrPath | None) -> Mapping[str, SourceFile]:
    """Return the checkpoint's files, or those of the first folder that has any; a tokenizer from the folder given."""
    assets = checkpoint.assets or next(filter(None, map(read_assets, folders)), {})
    if tokenizer is None:
        return assets
    found = read_assets(Path(tokenizer), TOKENIZER_NAMES)
    if not found:
        raise UsageError("--tokenizer: no folder with files of a tokenizer", path=tokenizer)
    return {**{name: file for name, file in assets.items() if name not in TOKENIZER_NAMES}, **found}


def _folder_of_config(folder: Location, checkpoint: Checkpoint) -> Location:
    """Return where a config is: in `folder`, or, of transformers, beside the folder of a SavedModel or checkpoint.

    save_pretrained puts SavedModels at saved_model/1, and the config beside saved_model. Nothing else is looked at.
    """
    if checkpoint.dialect != Dialect.TENSORFLOW or any(is_there(folder / name) for name in CONFIG_NAMES):
        return folder
    above = absolute(folder).parent
    if folder.name.isdigit() and above.name == "saved_model":
        above = above.parent
    config = read_config(above)
    return above if config is not None and config.model_type is not None else folder


def _with_config(checkpoint: Checkpoint, config: Config | None, path: Location | None) -> Checkpoint:
    keras_config = None if config is None else _of_keras(config)
    if keras_config is None:
        return replace(checkpoint, config=config)
    if checkpoint.by_keras_config is not None:
        checkpoint = replace(checkpoint.by_keras_config(keras_config), metadata=checkpoint.metadata)
        keras_config = checkpoint.keras_config or keras_config  # that of Keras 1 in the terms of Keras 2
    return replace(checkpoint, keras_config=keras_config, graph=_graph(checkpoint, keras_config, path))


def _graph(checkpoint: Checkpoint, keras_config: Config, path: Location | None) -> Graph | None:
    """Return the graph of a Keras model whose config and weights are in two files."""
    listing = checkpoint.listing
    if checkpoint.graph is not None or listing is None or listing.format in OBJECTS or path is None:
        return checkpoint.graph
    return graph_source(path, keras_config.values, checkpoint.tensors.values(), listing)


def _of_keras(config: Config) -> Config | None:
    """Return the config as `to_json` of a Keras model writes it, also where it is what `get_config` returns."""
    if is_keras_class(config.values):
        return config
    class_name = class_of_layers(config.values)
    if class_name is None:
        return None
    values = {"class_name": class_name, "config": config.values}
    return Config(values=values, raw=json.dumps(values).encode("ascii"))
