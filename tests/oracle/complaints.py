"""What classes of transformers 4.57.6 say of folders that they load.

    python -m tests.oracle.complaints PREFIX FOLDERS

PREFIX is TF or Flax; FOLDERS has folders called <class of PyTorch>.<anything>. Prints {folder: [complaint, ...]}.
"""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path
from typing import Any


def of_tensorflow(model_class: Any, folder: Path) -> list[str]:
    """Return what a TensorFlow class does not find in a folder, or finds and does not know."""
    import tf_keras

    tf_keras.backend.clear_session()
    told = model_class.from_pretrained(folder, output_loading_info=True)[1]
    return [f"{kind}: {sorted(map(str, found))[:3]}" for kind, found in told.items() if found]


def of_flax(model_class: Any, folder: Path) -> list[str]:
    """Return what a Flax class does not find in a folder, or finds and does not know."""
    return [message[:300] for message in told_of(model_class, folder)[1]]


def told_of(model_class: Any, folder: Path) -> tuple[Any, list[str]]:
    """Return the Flax model of a folder, and what its loader logs that it did not find there, or does not know."""
    seen: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: seen.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("transformers.modeling_flax_utils")
    logger.addHandler(handler)
    try:
        model = model_class.from_pretrained(folder)
    finally:
        logger.removeHandler(handler)
    return model, [message for message in seen if "were not used" in message or "newly initialized" in message]


def complaints(prefix: str, folder: Path) -> list[str]:
    """Return what the class of a folder says."""
    import transformers

    model_class = getattr(transformers, prefix + folder.name.partition(".")[0])
    try:
        return (of_tensorflow if prefix == "TF" else of_flax)(model_class, folder)
    except Exception as error:  # whatever a loader raises, it is a complaint
        return [f"{type(error).__name__}: {str(error)[:300]}"]


if __name__ == "__main__":
    from tests.oracle.generate.flax_models import allow_old_names

    if sys.argv[1] == "Flax":
        allow_old_names()
    folders = sorted(path for path in Path(sys.argv[2]).iterdir() if path.is_dir())
    print(json.dumps({folder.name: complaints(sys.argv[1], folder) for folder in folders}))
