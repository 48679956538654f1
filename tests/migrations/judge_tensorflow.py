"""Targets as tf_keras and the TensorFlow classes of transformers 4.57.6 load them: tasks on standard input."""

from __future__ import annotations

from typing import Any

import h5py
import numpy as np
import tensorflow as tf
import transformers

from tests.migrations import tensorflow_models
from tests.migrations.judging import Arrays, Case, Judge, WrongError, answer, outputs_with_heads


def _outputs(case: Case, model: Any) -> Arrays:
    if case.source.head == "encoder":
        ids, mask = case.text
        return {"encoder": model(ids, attention_mask=mask).last_hidden_state.numpy()}
    found = model(dict(case.inputs))
    if isinstance(found, tf.Tensor):
        return {"": found.numpy()}
    return {name: found[name].numpy() for name in case.outputs}


def _has_config(case: Case) -> bool:
    with h5py.File(case.path) as file:
        return "model_config" in file.attrs


def keras(case: Case) -> Arrays:
    """Open a whole model, or load weights into the model that their author would build anew."""
    if case.target == "keras" or _has_config(case):
        more = {"safe_mode": False} if case.path.suffix == ".keras" else {}
        model = tf.keras.models.load_model(case.path, custom_objects=tensorflow_models.OWN, **more)
        return _outputs(case, model)
    built = getattr(tensorflow_models, case.source.group)()
    model, encoder = built if isinstance(built, tuple) else (built, None)
    if case.source.head == "encoder":
        encoder.load_weights(str(case.path))
        return _outputs(case, encoder)
    model(dict(case.inputs))
    model.load_weights(str(case.path))
    return _outputs(case, model)


def pretrained(case: Case) -> Arrays:
    from safetensors.numpy import load_file

    config = transformers.AutoConfig.from_pretrained(case.path)
    named = (config.architectures or [case.source.model])[0].removeprefix("TF")
    if named != case.source.model:
        raise WrongError(f"config.json names {named}, not {case.source.model}")
    model, info = getattr(transformers, f"TF{named}").from_pretrained(case.path, output_loading_info=True)
    amiss = {kind: found for kind, found in info.items() if found}
    if amiss:
        raise WrongError(f"from_pretrained: {amiss}")
    if not case.source.head:
        return _outputs(case, model)
    heads = case.path / "heads.safetensors"

    def states(ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        return model(ids, attention_mask=mask).last_hidden_state.numpy()

    return outputs_with_heads(case, states, load_file(heads) if heads.exists() else {})


JUDGES: dict[str, Judge] = {"h5": keras, "keras": keras, "tf": pretrained}

if __name__ == "__main__":
    transformers.logging.set_verbosity_error()
    answer(JUDGES)
