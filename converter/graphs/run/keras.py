"""A Keras model from elsewhere, run by Keras, which builds it from a config that was found harmless."""

from __future__ import annotations

import os
import shutil
import tempfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from converter.errors import GraphError
from converter.graphs.run.answers import Answer
from converter.graphs.run.arrays import read_sets, run_sets
from converter.graphs.run.canary import is_floating, nudged
from converter.graphs.trace.tensorflow import encoders
from converter.graphs.trace.tensorflow.building import build
from converter.graphs.trace.tensorflow.keras import called
from converter.graphs.trace.tensorflow.keras_2 import is_of_keras_2
from converter.graphs.trace.tensorflow.own_code import framework_of

_ZIP = b"PK"
_LAYERS, _MODEL = "layer_names", "model_weights"
_WEIGHTS, _WEIGHTS_SUFFIX = "model.weights.h5", ".weights.h5"


def run(
    *,
    model: str,
    inputs: str,
    outputs: str,
    config: Mapping[str, Any],
    elements: int | None = None,
    custom_objects: Sequence[str] = (),
    folder: str = "",
    encoder: Mapping[str, Any] | None = None,
    nudge: str | None = None,
    recipes: Mapping[str, Sequence[Any]] | None = None,
) -> Answer:
    """Call the model in the file `model` on the inputs of an .npz file; write another.

    With `nudge` every weight is changed in its last place before. `recipes` say how the weights of each layer are made
    of the datasets of a file that Keras does not load any more.

    Raises as converter.graphs.trace.tensorflow.keras does, and GraphError when Keras cannot load the weights.
    """
    is_archive = _is_zip(model) or _is_numbered(model)
    built = build(config, custom_objects, folder, is_archive=is_archive, elements=elements, encoder=encoder)
    is_renamed = is_archive and is_of_keras_2(config) and framework_of(built) == "keras"
    with tempfile.TemporaryDirectory(dir=Path(outputs).parent, prefix="source-") as scratch:
        try:
            if recipes is not None:
                _set_weights(built, model, recipes)
            else:
                file = _weights(Path(model), Path(scratch), is_archive=is_archive, is_renamed=is_renamed)
                built.load_weights(os.fspath(file))
        except Exception as error:  # Keras raises what comes
            raise GraphError(f"Keras cannot load the weights: {' '.join(str(error).split())[:300]}") from error
    if encoder is not None and is_archive:
        _load_encoder(built, encoder, model)
    if nudge is not None:
        for number, variable in enumerate(built.weights):
            values = variable.numpy()
            if is_floating(values.dtype):
                variable.assign(nudged(values, str(number), nudge))
    # Keras raises what comes.
    return {"failed": run_sets(read_sets(inputs), outputs, lambda arrays: called(built, arrays), (Exception,))}


def _set_weights(built: Any, model: str, recipes: Mapping[str, Sequence[Any]]) -> None:
    """Give layers the weights that recipes make: datasets side by side, axes permuted, some reversed, and a shape."""
    import h5py
    import numpy as np

    with h5py.File(model) as file:
        for layer, made in recipes.items():
            weights = []
            for places, axes, reversed_axes, shape in made:
                joined = np.concatenate([file[place][()] for place in places], axis=-1)
                weights.append(np.flip(joined.transpose(axes), reversed_axes).reshape(shape))
            built.get_layer(layer).set_weights(weights)


def _load_encoder(built: Any, encoder: Mapping[str, Any], model: str) -> None:
    import h5py

    with _opened(model) as weights, h5py.File(weights) as file:
        encoders.load(built, encoder, file)


def _is_zip(model: str) -> bool:
    with open(model, "rb") as file:
        return file.read(len(_ZIP)) == _ZIP


def _is_numbered(model: str) -> bool:
    """Whether a file has what is in an archive, and not the lists of layers that files of Keras 2 have."""
    import h5py

    with h5py.File(model) as file:
        return _LAYERS not in file.attrs and _MODEL not in file


@contextmanager
def _opened(model: str) -> Iterator[Any]:
    """Open the weights of an archive, or those that are a file of their own."""
    if not _is_zip(model):
        with open(model, "rb") as file:
            yield file
        return
    with zipfile.ZipFile(model) as archive, archive.open(_WEIGHTS) as member:
        yield member


def _weights(model: Path, scratch: Path, *, is_archive: bool, is_renamed: bool) -> Path:
    """Return a file called as Keras wants it that has the weights, those of a Keras 2 archive where Keras 3 looks."""
    suffix = ".h5" if not is_archive else ".keras" if _is_zip(os.fspath(model)) else _WEIGHTS_SUFFIX
    if not is_renamed:
        if model.name.endswith(suffix) and model.name.endswith(_WEIGHTS_SUFFIX) is (suffix == _WEIGHTS_SUFFIX):
            return model.absolute()
        return Path(shutil.copyfile(model, scratch / f"model{suffix}"))  # no link is made inside a box
    import h5py

    with _opened(os.fspath(model)) as source, open(scratch / _WEIGHTS, "wb") as target:
        shutil.copyfileobj(source, target)
    with h5py.File(scratch / _WEIGHTS, "r+") as file:
        groups: list[str] = []
        file.visit(groups.append)
        for name in reversed(groups):  # what is in a group before the group
            parent, _, own = name.rpartition("/")
            if own.startswith("_"):
                file.move(name, f"{parent}/{own.lstrip('_')}")
    return scratch / _WEIGHTS
