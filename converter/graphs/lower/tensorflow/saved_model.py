"""A SavedModel out of an ONNX graph and a safetensors file: runnable, trainable, its variables called as the tensors.

The root is a plain trackable, for a loaded tf.Module has no `variables`. Contract: DESIGN, "SavedModel".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from converter.errors import GraphError, UsageError
from converter.graphs.description.input_names import made_up, tensorflow_parameters
from converter.graphs.lower.tensorflow.core import lower
from converter.graphs.lower.tensorflow.framework import tf
from converter.graphs.lower.tensorflow.weights import StoredTensor, stored_tensors

# What TensorFlow takes as the name of an operation, and so of a variable (tensorflow/python/framework/ops.py).
_NAME = re.compile(r"[A-Za-z0-9.][A-Za-z0-9_.\\/>-]*")
_GRAPH_NAME = "saved_model.pb"
_AS_DECLARED = "auto"
_INPUT_DTYPES = (_AS_DECLARED, "int64", "int32")


def build(
    *,
    graph: str | None,
    weights: str,
    folder: str,
    trainable: list[str],
    input_dtype: str = _AS_DECLARED,
    names: dict[str, str] | None = None,
    kernels: Sequence[str] = (),
    optimizer: str | None = None,
) -> None:
    """Write a SavedModel into `folder`.

    `graph`        an ONNX file whose external initializers name tensors of `weights`; None saves variables alone
    `weights`      a safetensors file; every tensor in it becomes a variable
    `trainable`    the tensors that an optimizer may change
    `input_dtype`  the integer type of the inputs, int64 or int32; those of the graph where it is `auto`
    `names`        tensor name -> variable name, where these differ
    `kernels`      the tensors that are laid out as kernels, which the graph has as weights (`model.kernels`)
    `optimizer`    a safetensors file; every tensor in it becomes one of `optimizer.variables`, none for no optimizer

    Raises GraphError when an operator has no lowering, a tensor has no values, or TensorFlow refuses a name or a type.
    """
    if input_dtype not in _INPUT_DTYPES:
        raise UsageError(f"input type {input_dtype!r} is not one of {', '.join(_INPUT_DTYPES)}")
    stored = stored_tensors(weights)
    model = None if graph is None else _loaded(graph)
    if model is not None:
        lower(model, stored, kernels)  # refuses what is missing before the first variable is made
    trained = frozenset(trainable)
    variables = {name: _variable(name, (names or {}).get(name, name), stored[name], trained) for name in stored}
    root = tf.__internal__.tracking.AutoTrackable()
    root.variables = list(variables.values())
    root.trainable_variables = [variable for name, variable in variables.items() if name in trained]
    if optimizer is not None:
        root.optimizer = tf.__internal__.tracking.AutoTrackable()
        slots = stored_tensors(optimizer)
        root.optimizer.variables = [_variable(name, name, slots[name], frozenset()) for name in slots]
    if model is None:
        tf.saved_model.save(root, folder)
        return
    concrete, root.__call__ = _functions(model, variables, kernels, input_dtype)
    tf.saved_model.save(root, folder, signatures={"serving_default": concrete})
    _name_inputs(folder, made_up([value.name for value in model.graph.inputs]))


def _loaded(path: str) -> Any:
    import onnx_ir

    return onnx_ir.load(path)


def _variable(name: str, variable_name: str, tensor: StoredTensor, trained: frozenset[str]) -> Any:
    if _NAME.fullmatch(variable_name) is None:
        raise GraphError(f"TensorFlow refuses the variable name {variable_name!r}", tensor=name)
    try:
        tf.as_dtype(tensor.dtype.numpy)
        variable = tf.Variable(tensor.numpy(), name=variable_name, trainable=name in trained)
    except (TypeError, ValueError) as error:
        raise GraphError(f"TensorFlow holds no {tensor.dtype.value}", tensor=name) from error
    if variable.name.removesuffix(":0") != variable_name:
        raise GraphError(f"TensorFlow calls the variable {variable.name!r}", tensor=name)
    return variable


def _name_inputs(folder: str, names: Mapping[str, str]) -> None:
    """Let the signature call inputs as the graph does, for who reads it and passes them by it: parameter -> name."""
    if not names:
        return
    from tensorflow.core.protobuf import saved_model_pb2
    from tensorflow.python.saved_model import fingerprinting_utils

    file = Path(folder) / _GRAPH_NAME
    saved = saved_model_pb2.SavedModel.FromString(file.read_bytes())
    inputs = saved.meta_graphs[0].signature_def["serving_default"].inputs
    for parameter, name in names.items():
        inputs[name].CopyFrom(inputs.pop(parameter))
    file.write_bytes(saved.SerializeToString(deterministic=True))
    fingerprinting_utils.write_fingerprint(folder)


def _functions(model: Any, variables: Mapping[str, Any], kernels: Sequence[str], input_dtype: str) -> tuple[Any, Any]:
    run = lower(model, variables, kernels)
    declared = {value.name: tf.as_dtype(value.dtype.numpy()) for value in model.graph.inputs}

    parameters = tensorflow_parameters(list(declared))
    integer = None if input_dtype == _AS_DECLARED else tf.as_dtype(input_dtype)

    def call(**inputs: Any) -> dict[str, Any]:
        # A loaded signature checks types alone: a list of ids instead of a batch of them would be computed with.
        by_name = {
            name: tf.ensure_shape(inputs[parameters[name]], specifications[parameters[name]].shape) for name in declared
        }
        return run(**{name: tf.cast(by_name[name], dtype) for name, dtype in declared.items()})

    specifications = {
        parameters[value.name]: tf.TensorSpec(
            [extent if isinstance(extent, int) else None for extent in value.shape],
            integer if integer is not None and declared[value.name].is_integer else declared[value.name],
            name=parameters[value.name],
        )
        for value in model.graph.inputs
    }
    # autograph would rewrite each lowering's Python source: thirty seconds instead of five for a base model.
    function: Callable[..., Any] = tf.function(call, autograph=False)
    return function.get_concrete_function(**specifications), function  # type: ignore[attr-defined]
