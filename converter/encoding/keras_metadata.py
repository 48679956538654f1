"""`keras_metadata.pb`, which Keras 2 writes beside a SavedModel: what each of its objects was made of, as JSON.

tf_keras/protobuf/saved_metadata.proto (tf_keras 2.21). A functional model is there whole, as a `.keras` archive has it;
of any other the layers are, each at the path of attributes that leads to it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from converter.encoding import json as strict_json
from converter.encoding.protobuf import LENGTH_DELIMITED, Message
from converter.errors import ReadError
from converter.model.checkpoint import Config
from converter.model.file import SourceFile

FILE_NAME = "keras_metadata.pb"
_LIMIT_BYTES = 64 << 20
_METADATA = {1: LENGTH_DELIMITED}
_OBJECT = {3: LENGTH_DELIMITED, 4: LENGTH_DELIMITED, 5: LENGTH_DELIMITED}
_ROOT = "root"
_LAYERS = ("_tf_keras_layer", "_tf_keras_model", "_tf_keras_network", "_tf_keras_sequential", "_tf_keras_rnn_layer")
_SEQUENCES = ("__tuple__", "TensorShape")
_WITHOUT_CONFIG = "layer was saved without config"


@dataclass(frozen=True, slots=True, kw_only=True)
class KerasMetadata:
    """What a file says of its model.

    `training_config`   how the model was compiled, None when it was not
    `model`             class and config of the model, where Keras can build it from these
    `layers`            class and config of every layer that has one, by its path
    `version`           of Keras, None when the file does not say
    """

    training_config: Any = None
    model: Config | None = None
    layers: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    version: str | None = None


def read(file: SourceFile) -> KerasMetadata:
    """Return what a file says. Raises ReadError when it is malformed."""
    if file.size > _LIMIT_BYTES:
        raise ReadError(f"is a description of {file.size} bytes, and at most {_LIMIT_BYTES} are read", path=file.path)
    layers: dict[str, Mapping[str, Any]] = {}
    root: Mapping[str, Any] = {}
    for data in Message.parse(file.read(0, file.size), _METADATA, file.path).repeated(1):
        node = Message.parse(data, _OBJECT, file.path)
        if node.text(4) not in _LAYERS:
            continue
        described = _described(node.content(5), file)
        config = described.get("config")
        if node.text(3) == _ROOT:
            root = described
        elif isinstance(config, Mapping) and config and _WITHOUT_CONFIG not in config:
            layers[node.text(3)] = {key: described.get(key) for key in ("class_name", "name", "config")}
    config, version = root.get("config"), root.get("keras_version")
    is_whole = isinstance(config, Mapping) and isinstance(config.get("layers"), list)
    return KerasMetadata(
        training_config=root.get("training_config"),
        model=_config({"class_name": root.get("class_name"), "config": config}) if is_whole else None,
        layers=layers,
        version=version if isinstance(version, str) else None,
    )


def _described(data: memoryview, file: SourceFile) -> Mapping[str, Any]:
    found = strict_json.loads(bytes(data), path=file.path, what="metadata")
    return _plain(found) if isinstance(found, dict) else {}


def _plain(value: Any) -> Any:
    """Return a value with tuples and shapes as lists, as archives have them (tf_keras, json_utils.Encoder)."""
    if isinstance(value, dict):
        if value.get("class_name") in _SEQUENCES and isinstance(value.get("items"), list):
            return _plain(value["items"])
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list) else value


def _config(values: dict[str, Any]) -> Config:
    return Config(values=values, raw=json.dumps(values).encode("ascii"))
