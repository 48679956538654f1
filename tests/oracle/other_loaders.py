"""Loads converted models with transformers 4.57.6 and tf_keras, in strict mode; says in JSON what each loader says.

    TF_USE_LEGACY_KERAS=1 python -m tests.oracle.other_loaders JOBS

JOBS is what tests.oracle.loaders asks: a list of class of PyTorch, target, path and source. Prints a line for each.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tests.oracle.complaints import told_of
from tests.oracle.generate import flax_models
from tests.oracle.tensorflow_loading import referenced


def _unlike(found: Any, reference: Any) -> str:
    wrong = [
        own.name
        for own, theirs in zip(found.weights, reference.weights, strict=True)
        if not np.array_equal(own.numpy(), theirs.numpy())
    ]
    return f"other values: {wrong[:3]}" if wrong else ""


def tensorflow_folder(job: Mapping[str, str]) -> str:
    """Load a folder with the class of TensorFlow."""
    import transformers

    made, told = getattr(transformers, f"TF{job['class']}").from_pretrained(job["path"], output_loading_info=True)
    said = {key: list(map(str, found))[:3] for key, found in told.items() if found}
    return str(said) if said else _unlike(made, referenced(f"TF{job['class']}", Path(job["source"]))[0])


def tensorflow_checkpoint(job: Mapping[str, str]) -> str:
    """Restore a checkpoint into a built model, all of it and no more; read PyTorch's names where it has no objects."""
    import tensorflow as tf
    import transformers
    from safetensors.numpy import load_file

    reader = tf.train.load_checkpoint(job["path"])
    names = set(reader.get_variable_to_shape_map())
    if "_CHECKPOINTABLE_OBJECT_GRAPH" not in names:
        source = load_file(Path(job["source"]) / "model.safetensors")
        wrong = [name for name in names & set(source) if not np.array_equal(reader.get_tensor(name), source[name])]
        return f"other values: {wrong[:3]}" if wrong else str(sorted(names ^ set(source)) or "")
    made = getattr(transformers, f"TF{job['class']}")(transformers.AutoConfig.from_pretrained(job["source"]))
    made.build_in_name_scope()
    tf.train.Checkpoint(made).restore(tf.train.latest_checkpoint(job["path"])).assert_consumed()
    return _unlike(made, referenced(f"TF{job['class']}", Path(job["source"]))[0])


def _count(path: Path) -> int:
    """Return how many arrays a file has by name; what is tied may be one array of two names."""
    import h5py

    def inside(group: Any) -> int:
        return sum(inside(each) if isinstance(each, h5py.Group) else 1 for each in group.values())

    with h5py.File(path) as file:
        return inside(file)


def keras_weights(job: Mapping[str, str]) -> str:
    """Load a file of weights into a built model, in which every value is none."""
    import transformers

    config = transformers.AutoConfig.from_pretrained(job["source"])
    made = getattr(transformers, f"TF{job['class']}")(config)
    made.build_in_name_scope()
    for variable in made.weights:
        if variable.dtype.is_floating:
            variable.assign(np.full(variable.shape, np.nan))
    made.load_weights(job["path"])
    left = [each.name for each in made.weights if each.dtype.is_floating and not np.isfinite(each.numpy()).all()]
    if left:
        return f"not loaded: {left[:3]}"
    reference = referenced(f"TF{job['class']}", Path(job["source"]))[0]
    with tempfile.TemporaryDirectory() as folder:
        own = Path(folder) / Path(job["path"]).name
        reference.save_weights(own)
        if _count(own) != _count(Path(job["path"])):
            return f"has {_count(Path(job['path']))} arrays, a file of Keras's own {_count(own)}"
    return _unlike(made, reference)


def flax(job: Mapping[str, str]) -> str:
    """Load a folder, or a file beside its config, with the class of Flax."""
    import transformers
    from flax.traverse_util import flatten_dict

    path = Path(job["path"])
    with tempfile.TemporaryDirectory() as folder:
        if path.is_file():
            shutil.copy(path, Path(folder) / "flax_model.msgpack")
            shutil.copy(Path(job["source"]) / "config.json", folder)
            path = Path(folder)
        flax_class = getattr(transformers, f"Flax{job['class']}")
        made, told = told_of(flax_class, path)
        reference = flax_class.from_pretrained(job["source"], from_pt=True)
    if told:
        return told[0][:300]
    own, theirs = flatten_dict(made.params), flatten_dict(reference.params)
    wrong = ["/".join(name) for name, each in theirs.items() if not np.array_equal(own[name], each)]
    return f"other values: {wrong[:3]}" if wrong else str(sorted(own.keys() ^ theirs.keys()) or "")


LOADERS = {
    "pretrained --flavor tf": tensorflow_folder,
    "tf-checkpoint": tensorflow_checkpoint,
    "h5": keras_weights,
    "keras": keras_weights,
    "pretrained --flavor flax": flax,
    "flax": flax,
}


def main(jobs: Path) -> None:
    """Print what became of every job."""
    import tf_keras

    flax_models.allow_old_names()
    for job in json.loads(jobs.read_text()):
        tf_keras.backend.clear_session()  # layers without a name are numbered through the process
        try:
            problem = LOADERS[job["target"]](job)
        except Exception as error:  # whatever a loader raises
            problem = f"{type(error).__name__}: {str(error)[:300]}"
        print(json.dumps({"job": job, "problem": problem}), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
