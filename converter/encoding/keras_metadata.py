"""`keras_metadata.pb`, which Keras 2 writes beside a SavedModel: what each of its objects was made of, as JSON.

tf_keras/protobuf/saved_metadata.proto (tf_keras 2.21).
"""

from __future__ import annotations

from typing import Any

from converter.encoding import json as strict_json
from converter.encoding.protobuf import LENGTH_DELIMITED, Message
from converter.errors import ReadError
from converter.model.file import SourceFile

FILE_NAME = "keras_metadata.pb"
_LIMIT_BYTES = 64 << 20
_METADATA = {1: LENGTH_DELIMITED}
_OBJECT = {3: LENGTH_DELIMITED, 5: LENGTH_DELIMITED}


def training_config(file: SourceFile) -> Any:
    """Return how the model was compiled, None when the file does not say. Raises ReadError when it is malformed."""
    if file.size > _LIMIT_BYTES:
        raise ReadError(f"is a description of {file.size} bytes", path=file.path)
    for data in Message.parse(file.read(0, file.size), _METADATA, file.path).repeated(1):
        node = Message.parse(data, _OBJECT, file.path)
        if node.text(3) == "root":
            described = strict_json.loads(bytes(node.content(5)), path=file.path, what="metadata")
            return described.get("training_config") if isinstance(described, dict) else None
    return None
