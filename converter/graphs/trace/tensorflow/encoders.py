"""A model of transformers inside a Keras model: a layer that computes as PyTorch's class, of the weights in the file.

transformers 5 has no classes of TensorFlow. The graph of the class of PyTorch, traced from the config that the Keras
config holds, is lowered to TensorFlow inside a layer of Keras 3, whose variables are those of the file: the model
around it is traced, loaded and run as any other. What TensorFlow's classes take and return: transformers 4.57,
modeling_tf_utils.py (`input_processing`), and tf.nest, which sorts the fields of what they return.
"""

from __future__ import annotations

import operator
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from converter.errors import ArchitectureError, GraphError
from converter.graphs.lower.tensorflow.core import lower
from converter.graphs.trace.tensorflow.encoder_config import LAYER

_OPERATORS = {"add": operator.add, "eq": operator.eq, "ne": operator.ne}
_IN_ORDER = ("input_ids", "attention_mask", "token_type_ids")
"""What the classes of encoders take without a name, as far as they take it."""
_ALWAYS = "input_ids"
_MAY_BE_LEFT_OUT = {"attention_mask": 1, "token_type_ids": 0}
_OF_TRAINING = ("training", "mask")
_DEFAULT = ("return_dict", "output_attentions", "output_hidden_states")
"""Settings of a call that say what comes out, which the graph has once and for all."""


def classes(encoder: Mapping[str, Any], keras: Any) -> dict[str, Any]:
    """Return the classes by name, as custom objects of Keras 3 or tf_keras.

    `encoder` is as converter.planning.encoders says.
    """
    import onnx_ir
    import tensorflow as tf

    graph = onnx_ir.load(encoder["graph"])
    _leave_outputs_of(graph, encoder["absent"])
    autocast = "autocast" if keras.__name__ == "keras" else "experimental_autocast"
    if keras.__name__ == "keras":
        keras.config.disable_traceback_filtering()  # it makes other errors of those below
    else:
        tf.debugging.disable_traceback_filtering()

    class ModelOfTransformers(keras.layers.Layer):  # type: ignore[misc]
        """The layer, with one variable for each that the file lists for it, in their order.

        It computes as PyTorch's class was traced, in float32, and gives what its policy has layers give.
        """

        def __init__(self, name: str, dtype: str | None) -> None:
            super().__init__(name=name, dtype=dtype or _only_type(encoder["variables"]), autocast=False)
            self.by_name = {
                each["name"]: self.add_weight(
                    name=f"variable_{number}",
                    shape=each["shape"],
                    dtype=each["dtype"],
                    initializer="zeros",
                    **{autocast: False},
                )
                for number, each in enumerate(encoder["variables"])
            }
            self.built = True

        def __call__(self, *arguments: Any, **keywords: Any) -> Any:
            _check_order(_order([each.name for each in graph.graph.inputs]), arguments, self.name)
            return super().__call__(*arguments, **keywords)

        @tf.autograph.experimental.do_not_convert  # type: ignore[untyped-decorator]
        def call(self, *arguments: Any, **keywords: Any) -> Any:
            weights = {
                name: _moved(tf.convert_to_tensor(self.by_name[held["variable"]]), held["steps"])
                for name, held in encoder["weights"].items()
            }
            found = lower(graph, weights)(**_inputs(graph, arguments, keywords, self.name))
            outputs = [_given(found[name], self.compute_dtype) for name in sorted(found, key=_place)]
            return outputs[0] if len(outputs) == 1 else outputs

        def load_own_variables(self, store: Any) -> None:
            """Leave the variables of an archive to `load`: they are in groups of layers that are not here."""

    class OperationOfTensorFlow(keras.layers.Layer):  # type: ignore[misc]
        """A function of TensorFlow that was found to be one of those that models call."""

        def __init__(self, name: str, function: str, constant: Any = None, keyword: str | None = None) -> None:
            super().__init__(name=name, autocast=False)
            self.function, self.constant, self.keyword = function, constant, keyword

        @tf.autograph.experimental.do_not_convert  # type: ignore[untyped-decorator]
        def call(self, *arguments: Any, **keywords: Any) -> Any:
            keywords = {name: value for name, value in keywords.items() if name not in _OF_TRAINING}
            if self.keyword is None:
                return _called(self.function, arguments, keywords)
            return _called(self.function, (self.constant,), {self.keyword: arguments[0], **keywords})

    return {each.__name__: each for each in (ModelOfTransformers, OperationOfTensorFlow)}


def _place(name: str) -> tuple[str, int]:
    """Return where an output stands among all that tf.nest lists: tensors of one field by their numbers."""
    field, _, number = name.partition(".")
    return field, int(number or 0)


def _only_type(variables: Sequence[Mapping[str, Any]]) -> str | None:
    """Return the type of the floating-point variables, which a policy that mixes none computes in."""
    types = {each["dtype"] for each in variables if "float" in each["dtype"]}
    return types.pop() if len(types) == 1 else None


def _given(tensor: Any, dtype: str) -> Any:
    import tensorflow as tf

    return tf.cast(tensor, dtype) if tensor.dtype.is_floating else tensor


def _leave_outputs_of(model: Any, absent: Sequence[str]) -> None:
    """Take the outputs off a graph that weights which the file lacks decide, as those of a pooler that a model has not.

    Raises GraphError where none would be left.
    """
    from onnx_ir.passes.common import RemoveUnusedNodesPass

    graph = model.graph
    unknown = {graph.initializers[name] for name in absent}
    if not unknown:
        return
    for node in graph:
        inner = [value for each in node.attributes.values() for value in _used_inside(each)]
        if not unknown.isdisjoint((*node.inputs, *inner)):
            unknown.update(node.outputs)
    known = [value for value in graph.outputs if value not in unknown]
    if not known:
        raise GraphError("the class has it, the Keras model does not", tensor=absent[0])
    graph.outputs[:] = known
    RemoveUnusedNodesPass()(model)


def _used_inside(attribute: Any) -> Iterator[Any]:
    """Yield the values that nodes of a graph inside a node use."""
    import onnx_ir

    if isinstance(attribute, onnx_ir.Attr) and attribute.type is onnx_ir.AttributeType.GRAPH:
        for node in onnx_ir.traversal.RecursiveGraphIterator(attribute.value):
            yield from node.inputs


def names_of(model: Any) -> dict[int, str]:
    """Return what the file calls the variables of the layer in a model, by their ids."""
    return {id(each): name for layer in _inside(model) for name, each in layer.by_name.items()}


def load(model: Any, encoder: Mapping[str, Any], file: Any) -> None:
    """Give the layer its variables from where they are in the weights (h5py) of an archive."""
    places = {each["name"]: each["place"] for each in encoder["variables"]}
    for layer in _inside(model):
        for name, variable in layer.by_name.items():
            variable.assign(file[places[name]][()])


def _inside(model: Any) -> list[Any]:
    return [layer for layer in model._flatten_layers() if type(layer).__name__ == LAYER]


def _moved(tensor: Any, steps: Sequence[Sequence[Any]]) -> Any:
    import tensorflow as tf

    for kind, values in steps:
        tensor = tf.transpose(tensor, values) if kind == "transpose" else tf.reshape(tensor, values)
    return tensor


def _order(declared: Collection[str]) -> list[str]:
    """Return the inputs of a graph that tensors without a name are for, in their order."""
    return [name for name in _IN_ORDER if name in declared] if _ALWAYS in declared else list(declared)[:1]


def _check_order(order: Sequence[str], arguments: Sequence[Any], layer: str) -> None:
    """Raise ArchitectureError for a list of the model's inputs that are called as others than their places say.

    TensorFlow's classes go by the names while they trace and by the places otherwise (`input_processing`).
    """
    listed = arguments[0] if len(arguments) == 1 and isinstance(arguments[0], list | tuple) else arguments
    for place, tensor in zip(order, listed, strict=False):
        own = getattr(tensor, "name", None)
        if own in order and own != place:
            raise ArchitectureError(
                f"layer {layer!r} is called with a list that has {own} in the place of {place}, and what the class of "
                "TensorFlow takes it for depends on how it is run",
                hint="the same model by model.save(folder) has a graph of its own",
            )


def _inputs(graph: Any, arguments: Sequence[Any], keywords: Mapping[str, Any], layer: str) -> dict[str, Any]:
    """Return the graph's inputs of what a class of TensorFlow would be called with.

    Raises ArchitectureError for a call that has another meaning than its tensors.
    """
    import tensorflow as tf

    declared = {value.name: value for value in graph.graph.inputs}
    given: dict[str, Any] = {}
    order = _order(declared)
    first = arguments[0] if len(arguments) == 1 else list(arguments)
    if isinstance(first, Mapping):
        given.update(first)
    else:
        listed = list(first) if isinstance(first, list | tuple) else [first]
        if len(listed) > len(order):
            raise ArchitectureError(f"layer {layer!r} is called with {len(listed)} tensors, of which {order} are known")
        given.update(zip(order, listed, strict=False))
    for name, value in keywords.items():
        if name in _OF_TRAINING or value is None or (name in _DEFAULT and value is (name == _DEFAULT[0])):
            continue
        given[name] = value
    unknown = sorted(name for name, value in given.items() if name not in declared and value is not None)
    if unknown:
        raise ArchitectureError(f"layer {layer!r} is called with {', '.join(unknown)}, which its graph does not take")
    found: dict[str, Any] = {}
    for name, value in declared.items():
        dtype = tf.as_dtype(value.dtype.numpy())
        if given.get(name) is not None:
            found[name] = tf.cast(given[name], dtype)
        elif name in _MAY_BE_LEFT_OUT and given.get(_ALWAYS) is not None:
            found[name] = tf.cast(tf.fill(tf.shape(given[_ALWAYS]), _MAY_BE_LEFT_OUT[name]), dtype)
        else:
            raise ArchitectureError(f"layer {layer!r} is called without {name}")
    return found


def _called(function: str, arguments: Sequence[Any], keywords: Mapping[str, Any]) -> Any:
    import tensorflow as tf

    module, _, name = function.rpartition(".")
    if name == "getitem":
        (tensor,) = arguments
        return tensor[tuple(_index(each) for each in keywords["slice_spec"])]
    if module == "__operators__":
        if name not in _OPERATORS:
            raise ArchitectureError(f"is a model of Keras 2 that calls tf.{function}", hint="pip install tf-keras")
        return _OPERATORS[name](*arguments, *(each for key, each in keywords.items() if key != "name"))
    found: Any = tf
    for part in function.split("."):
        found = getattr(found, part)
    return found(*arguments, **keywords)


def _index(value: Any) -> Any:
    return slice(value["start"], value["stop"], value["step"]) if isinstance(value, Mapping) else value
