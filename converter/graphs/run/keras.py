"""A Keras model from elsewhere, run by Keras, which builds it from a config that was found harmless."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from converter.errors import GraphError
from converter.graphs.run.arrays import read_inputs, write_outputs
from converter.graphs.trace.tensorflow.keras import build, called

_ZIP = b"PK"


def run(
    *,
    model: str,
    architecture: str,
    inputs: str,
    outputs: str,
    config: Mapping[str, Any],
    custom_objects: Sequence[str] = (),
    folder: str = "",
) -> dict[str, Any]:
    """Call the model in the file `model` on the inputs of an .npz file; write another.

    Raises as converter.graphs.trace.tensorflow.keras does, and GraphError when Keras cannot load the weights.
    """
    with open(model, "rb") as file:
        is_archive = file.read(len(_ZIP)) == _ZIP
    built = build(config, custom_objects, folder, is_archive=is_archive)
    suffix = ".keras" if is_archive else ".h5"
    with tempfile.TemporaryDirectory(dir=Path(outputs).parent, prefix="source-") as scratch:
        link = Path(scratch, f"model{suffix}")  # Keras goes by the suffix
        os.symlink(Path(model).absolute(), link)
        try:
            built.load_weights(os.fspath(link))
        except Exception as error:  # Keras raises what comes
            raise GraphError(f"Keras cannot load the weights: {' '.join(str(error).split())[:300]}") from error
    results = {number: called(built, arrays) for number, arrays in read_inputs(inputs).items()}
    write_outputs(outputs, results)
    return {"missing": [], "unexpected": []}
