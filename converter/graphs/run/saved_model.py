"""A SavedModel that this program wrote, run by TensorFlow. Never for a file from elsewhere: loading one executes it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from converter.errors import GraphError
from converter.graphs.description.input_names import tensorflow_parameters
from converter.graphs.lower.tensorflow.framework import tf
from converter.graphs.run.answers import Answer
from converter.graphs.run.arrays import fitting, read_sets, run_sets
from converter.graphs.run.canary import is_floating, try_groups


def run(*, model: str, inputs: str, outputs: str, canary: str | None = None, since: float = 0.0) -> Answer:
    """Call `serving_default` of the SavedModel folder `model` on the inputs of an .npz file; write another.

    Inputs are cast to the signature's types. With `canary`, an .npz to write, weights are then changed
    (converter.graphs.run.canary). Raises GraphError without that signature, or when the graph fails.
    """
    loaded = tf.saved_model.load(model)
    if "serving_default" not in loaded.signatures:
        raise GraphError("has no signature serving_default", path=model)
    function = loaded.signatures["serving_default"]
    types = {name: specification.dtype for name, specification in function.structured_input_signature[1].items()}

    def called(arrays: Mapping[str, Any]) -> dict[str, Any]:
        by_name = {parameter: arrays[name] for name, parameter in tensorflow_parameters(list(arrays)).items()}
        try:
            result = function(**{name: tf.cast(by_name[name], dtype) for name, dtype in types.items()})
        except (KeyError, tf.errors.OpError) as error:
            raise GraphError(f"does not run: {' '.join(str(error).split())[:300]}", path=model) from error
        return {name: tensor.numpy() for name, tensor in result.items()}

    wanted = read_sets(inputs)
    parameters = tensorflow_parameters(list(next(iter(wanted.values()), {})))
    input_types = {
        name: types[parameter].as_numpy_dtype for name, parameter in parameters.items() if parameter in types
    }
    sets, unfit = fitting(wanted, input_types)
    failed = run_sets(sets, outputs, called)
    tried = None if canary is None else try_groups(_Variables(loaded), called, sets, path=canary, since=since)
    return {"failed": failed, "unfit": unfit, "canary": tried}


class _Variables:
    """The variables of a loaded SavedModel, as `converter.graphs.run.canary.Weights`."""

    def __init__(self, loaded: Any) -> None:
        self._variables = {variable.name.removesuffix(":0"): variable for variable in loaded.variables}

    def sizes(self) -> Mapping[str, int]:
        return {
            name: variable.shape.num_elements() * variable.dtype.size
            for name, variable in self._variables.items()
            if is_floating(variable.dtype.as_numpy_dtype) and variable.shape.num_elements()
        }

    def read(self, name: str) -> Any:
        return self._variables[name].numpy().copy()

    def write(self, name: str, values: Any) -> None:
        self._variables[name].assign(values)
