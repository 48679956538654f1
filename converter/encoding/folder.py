"""What may be read beside a checkpoint: files with known names, inside the folder, and nothing else."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from converter.encoding import json as strict_json
from converter.errors import ReadError, SafetyError
from converter.model.checkpoint import Checkpoint, Config
from converter.model.file import LocalFile, Location, SourceFile, is_there, open_file
from converter.model.output import OutputFile

CONFIG_NAME = "config.json"
KERAS_CONFIG_NAME = "keras_config.json"
"""How Keras builds the model: config.json is of transformers alone, as whoever opens a folder by it thinks."""
CONFIG_NAMES = (CONFIG_NAME, KERAS_CONFIG_NAME)
LEVELS_OF_CONFIG = 3  # model/config.json of model/saved_model/1
TOKENIZER_NAMES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "spiece.model",
    "sentencepiece.bpe.model",
    "sentencepiece.model",
    "spm.model",
    "source.spm",
    "target.spm",
    "tokenizer.model",
    "tekken.json",
    "entity_vocab.json",
    "emoji.json",
    "bpe.codes",
    "dict.txt",
    "normalizer.json",
    "target_vocab.json",
    "vocab-src.json",
    "vocab-tgt.json",
    "spm_char.model",
    "prophetnet.tokenizer",
    "word_shape.json",
    "word_pronunciation.json",
    "byte_maps.json",
    "chat_template.jinja",
    "chat_template.json",
)
ADAPTER_CONFIG_NAME = "adapter_config.json"
"""What PEFT says of an adapter, beside its weights."""
ASSET_NAMES = (
    "generation_config.json",
    ADAPTER_CONFIG_NAME,
    *TOKENIZER_NAMES,
    # processors
    "preprocessor_config.json",
    "processor_config.json",
    "video_preprocessor_config.json",
    # sentence-transformers
    "modules.json",
    "sentence_bert_config.json",
    "config_sentence_transformers.json",
    "1_Pooling/config.json",
)
_CONFIG_LIMIT_BYTES = 16 << 20


def open_inside(folder: Location, name: object) -> SourceFile:
    """Open the file that something in `folder` calls `name`.

    Symbolic links of a local folder may lead elsewhere inside it, or, in a Hugging Face cache
    (`snapshots/<revision>/`), inside the model's own root, where the blobs are. Raises SafetyError for any other way
    out, ReadError when there is no such regular file.
    """
    if not isinstance(name, str) or not name or "\0" in name or "\\" in name or "://" in name:
        raise SafetyError(f"names a file in a way no checkpoint does: {name!r}", path=folder)
    if os.path.isabs(name) or any(part in ("", ".", "..") for part in name.split("/")):
        raise SafetyError(f"names a file outside its folder: {name!r}", path=folder)
    path = folder / name
    if not isinstance(folder, Path):
        return open_file(path)
    root = Path(os.path.realpath(folder))
    if root.parent.name == "snapshots":
        root = root.parent.parent
    actual = Path(os.path.realpath(folder / name))
    if not actual.is_relative_to(root):
        raise SafetyError("is a link that leaves its folder", path=path)
    try:
        file = LocalFile(actual, follow_symlink=False)
    except ReadError as error:
        raise ReadError(error.message, path=path) from error
    file.path = path
    return file


def read_config(folder: Location, name: str = CONFIG_NAME) -> Config | None:
    """Return the config of `folder`, None when it has none. Raises ReadError when it is not a JSON object."""
    if not is_there(folder / name):
        return None
    return parse_config(open_inside(folder, name))


def parse_config(file: SourceFile) -> Config:
    """Return the config in `file`. Raises ReadError when it is not a JSON object of a sane size."""
    if file.size > _CONFIG_LIMIT_BYTES:
        raise ReadError(f"is a config of {file.size} bytes, and at most {_CONFIG_LIMIT_BYTES} are read", path=file.path)
    raw = file.read(0, file.size)
    values = strict_json.loads(raw, path=file.path, what="config")
    if not isinstance(values, dict):
        raise ReadError("is not a JSON object", path=file.path)
    return Config(values=values, raw=raw)


def config_files(checkpoint: Checkpoint, inside: str = "") -> list[OutputFile]:
    """Return the files that say what a checkpoint is of, each under the name that a reader looks for it."""
    configs = zip(CONFIG_NAMES, (checkpoint.config, checkpoint.keras_config), strict=True)
    return [OutputFile(name=inside + name, pieces=(config.raw,)) for name, config in configs if config is not None]


def asset_files(assets: Mapping[str, SourceFile]) -> list[OutputFile]:
    """Return the tokenizer and other files that go along as they are."""
    return [OutputFile(name=name, pieces=(file,)) for name, file in assets.items()]


def read_configs(folder: Location, inside: str = "") -> Config | None:
    """Return the config of a folder: of transformers, or of Keras where there is no other, None when it has neither."""
    return next(filter(None, (read_config(folder, inside + name) for name in CONFIG_NAMES)), None)


def read_assets(folder: Location, names: Iterable[str] = ASSET_NAMES) -> dict[str, SourceFile]:
    """Return the tokenizer, processor and generation files of `folder`, unread."""
    return {name: open_inside(folder, name) for name in names if is_there(folder / name)}
