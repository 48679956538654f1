"""A SavedModel that this program wrote, run by TensorFlow. Never for a file from elsewhere: loading one executes it."""

from __future__ import annotations

from typing import Any

from converter.errors import GraphError
from converter.graphs.lower.tensorflow.framework import tf
from converter.graphs.lower.tensorflow.saved_model import parameter_names
from converter.graphs.run.arrays import read_inputs, write_outputs


def run(*, model: str, architecture: str, inputs: str, outputs: str) -> dict[str, Any]:
    """Call `serving_default` of the SavedModel folder `model` on the inputs of an .npz file; write another.

    Inputs are cast to the signature's types. `architecture` is not needed, and is taken so that every runner is
    called alike. Returns `missing` and `unexpected`, both empty. Raises GraphError without that signature, or when
    the graph fails.
    """
    loaded = tf.saved_model.load(model)
    if "serving_default" not in loaded.signatures:
        raise GraphError("has no signature serving_default", path=model)
    function = loaded.signatures["serving_default"]
    types = {name: specification.dtype for name, specification in function.structured_input_signature[1].items()}
    results = {}
    for number, arrays in read_inputs(inputs).items():
        given = {parameter: arrays[name] for name, parameter in parameter_names(list(arrays)).items()}
        try:
            result = function(**{name: tf.cast(given[name], dtype) for name, dtype in types.items()})
        except (KeyError, tf.errors.OpError) as error:
            raise GraphError(f"does not run: {' '.join(str(error).split())[:300]}", path=model) from error
        results[number] = {name: tensor.numpy() for name, tensor in result.items()}
    write_outputs(outputs, results)
    return {"missing": [], "unexpected": []}
