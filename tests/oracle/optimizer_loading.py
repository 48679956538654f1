"""Loads what was written for tf_keras with tf_keras itself, and says what its optimizer holds and where it goes.

    TF_USE_LEGACY_KERAS=1 python -m tests.oracle.optimizer_loading FOLDER

FOLDER has <case>/ with a model (`model.h5`, `model.keras` or the prefix `ckpt`), `config.json` and `batches.npz`; each
gets `found.npz`, which is `<position>/<variable name>` of the optimizer and `losses` of training on the batches, or
`error.txt`. Weights that `without_decay` of batches.npz names do not decay.
"""

from __future__ import annotations

import json
import sys
import traceback
from pathlib import Path
from typing import Any

import numpy as np


def loaded(folder: Path) -> Any:
    import tensorflow as tf
    import tf_keras

    for name in ("model.h5", "model.keras"):
        if (folder / name).exists():
            return tf_keras.models.load_model(folder / name)
    model = tf_keras.models.model_from_json((folder / "config.json").read_text())
    recorded = json.loads((folder / "ckconv.json").read_text())["optimizer"]
    is_legacy = "is_legacy_optimizer" not in recorded["config"]
    kind = tf_keras.optimizers.legacy if is_legacy else tf_keras.optimizers
    optimizer = getattr(kind, recorded["class_name"]).from_config(recorded["config"])
    if is_legacy:
        optimizer._create_all_weights(model.trainable_variables)
    else:
        optimizer.build(model.trainable_variables)
    tf.train.Checkpoint(model=model, optimizer=optimizer).restore(str(folder / "ckpt")).assert_consumed()
    model.compile(optimizer=optimizer)
    return model


def rebuilt(model: Any, names: list[str]) -> Any:
    """Return the optimizer as it is, but for the weights that do not decay: tf_keras takes those before it is built."""
    if not names:
        return model.optimizer
    optimizer = type(model.optimizer).from_config(model.optimizer.get_config())
    optimizer.exclude_from_weight_decay(
        var_list=[variable for variable in model.trainable_variables if variable.name.removesuffix(":0") in names]
    )
    optimizer.build(model.trainable_variables)
    for ours, theirs in zip(optimizer.variables, model.optimizer.variables, strict=True):
        ours.assign(theirs)
    return optimizer


def main(folder: Path) -> None:
    import tf_keras

    model = loaded(folder)
    batches = np.load(folder / "batches.npz")
    variables = model.optimizer.variables
    variables = variables() if callable(variables) and not isinstance(variables, list) else variables
    found = {f"{at}/{variable.name}": variable.numpy() for at, variable in enumerate(variables)}
    optimizer = rebuilt(model, list(batches["without_decay"]))
    model.compile(optimizer=optimizer, loss=tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    losses = []
    for inputs, labels in zip(batches["inputs"], batches["labels"], strict=True):
        model.reset_metrics()
        losses.append(float(model.train_on_batch(inputs, labels)))
    np.savez(folder / "found.npz", losses=np.array(losses), **found)


if __name__ == "__main__":
    for case in sorted(path.parent for path in Path(sys.argv[1]).glob("*/batches.npz")):
        try:
            main(case)
        except Exception:  # one case says nothing about the others
            (case / "error.txt").write_text(traceback.format_exc())
