"""A Keras model to an ONNX graph whose initializers name its variables as the readers of its formats do.

The model is built anew from its config, by Keras 3 or, where that cannot, by tf_keras; its file is not opened, and no
weight is read. Which variable is which follows from where Keras would save it.
"""

from __future__ import annotations

import importlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

from converter.errors import CkconvError, GraphError
from converter.graphs.failures import summary_of
from converter.graphs.trace.patches import replaced
from converter.graphs.trace.tensorflow import encoders, recurrence
from converter.graphs.trace.tensorflow.building import LAYER_OF, build
from converter.graphs.trace.tensorflow.conversion import Port, Source, Variable, convert
from converter.graphs.trace.tensorflow.keras_2 import has_shapes_of_keras_2
from converter.graphs.trace.tensorflow.own_code import OwnCode, framework_of
from converter.graphs.trace.tensorflow.patches import biased_by_channels, convertible, dilated
from converter.graphs.trace.tensorflow.tables import Table, note_of
from converter.model.dtype import DType

_VARIABLES = "vars"


def trace(
    *,
    model: str,
    graph: str,
    config: Mapping[str, Any],
    layers: Sequence[tuple[str, Sequence[str]]] | None = None,
    places: Mapping[str, str] | None = None,
    elements: int | None = None,
    custom_objects: Sequence[str] = (),
    folder: str = "",
    encoder: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Convert the Keras model that `config` describes; write the ONNX file `graph`.

    `layers`   the names of each layer's weights in order, for a file that lists them (HDF5); else
    `places`   the name of each variable by where it is stored: ``layers/dense/vars/0``
    `elements` how many numbers the file holds: a config that asks for many more is refused before they are allocated
    `custom_objects`, `folder`   the user's classes, ``package.module:Name,Name``, and where to look for their modules
    `encoder`  the layer that is a model of transformers, as converter.planning.encoders says it
    Returns the Signature as JSON values. Raises SafetyError for a config that is a program, ArchitectureError for a
    class that nobody named, GraphError when the model cannot be built, traced or converted.
    """
    built = build(config, custom_objects, folder, is_archive=layers is None, elements=elements, encoder=encoder)
    try:
        names = _names_by_layer(built, layers) if layers is not None else _names_by_place(built, places or {})
        names |= encoders.names_of(built)
        source = _source(built, names)
    except CkconvError:
        raise
    except Exception as error:  # tracing runs the layers' own Python: it can fail with any exception there is
        code = OwnCode(custom_objects, is_older=has_shapes_of_keras_2(config))
        refusal = code.refusal({framework_of(built): error})
        raise refusal or GraphError(f"the Keras model could not be traced: {summary_of(error)}") from error
    converted = convert(source)
    import onnx_ir

    onnx_ir.save(converted.graph, graph)
    notes = tuple(filter(None, (note_of(source.tables.values()), recurrence.note_of(config))))
    return replace(converted.signature, notes=notes).to_json()


def _structure(model: Any) -> Any:
    """Return how a model takes its inputs: one, a list, or by name."""
    for attribute in ("_inputs_struct", "_nested_inputs"):
        if getattr(model, attribute, None) is not None:
            return getattr(model, attribute)
    return model.inputs[0]  # a Sequential


def _names_by_layer(model: Any, layers: Sequence[tuple[str, Sequence[str]]]) -> dict[int, str]:
    """Return the name of each variable by its id: a file lists those that are trained first, as a layer does."""
    own = {layer.name: [*layer.trainable_weights, *layer.non_trainable_weights] for layer in model.layers}
    top = [
        variable for variable in model.weights if not any(variable is each for held in own.values() for each in held)
    ]
    names: dict[int, str] = {}
    for layer, listed in layers:
        variables = own.get(layer, top)
        if len(variables) != len(listed):
            raise GraphError(f"layer {layer!r} has {len(variables)} variables, its file lists {len(listed)}")
        names.update({id(variable): name for variable, name in zip(variables, listed, strict=True)})
    return names


def _names_by_place(model: Any, places: Mapping[str, str]) -> dict[int, str]:
    """Return the name of each variable by its id, from where Keras would put it if it saved the model."""
    keras = framework_of(model)
    saving = importlib.import_module(f"{keras}.src.saving.saving_lib")

    class Recorder(saving.H5IOStore):  # type: ignore[misc,name-defined]
        """A store that keeps the variables themselves."""

        def __init__(self) -> None:
            self.held: dict[str, dict[str, Any]] = {}

        def __bool__(self) -> bool:
            return True

        def make(self, path: str, metadata: Any = None) -> dict[str, Any]:
            return self.held.setdefault(path, {})

    recorder, layer = Recorder(), importlib.import_module(LAYER_OF[keras]).Layer
    with replaced(layer, "save_own_variables", _variables_themselves) if keras == "tf_keras" else nullcontext():
        saving._save_state(model, recorder, None, "", set())
    names: dict[int, str] = {}
    public = {_public(place): name for place, name in places.items()}
    for place, held in recorder.held.items():
        for number, variable in held.items():
            name = public.get(_public(f"{place}/{_VARIABLES}/{number}"))
            if name is not None:
                names[id(variable)] = name
    return names


def _variables_themselves(layer: Any, store: dict[str, Any]) -> None:
    """Store what tf_keras stores the values of."""
    own = [*layer._trainable_weights, *layer._non_trainable_weights]
    store.update((str(number), each) for number, each in enumerate(own))


def _public(place: str) -> str:
    """Return where Keras 3 stores what Keras 2 stores below the name of a private attribute (`_query_dense`)."""
    return "/".join(part.lstrip("_") for part in place.split("/") if part)


def _source(model: Any, names: Mapping[int, str]) -> Source:
    """Trace the model's inference graph; its inputs are called as its input layers, its outputs as output layers."""
    import tensorflow as tf

    inputs = _named_inputs(model)
    order: list[str] = []
    specifications = [
        tf.TensorSpec(tuple(each.shape), each.dtype, name=f"input_{number}")
        for number, each in enumerate(inputs.values())
    ]

    def call(*tensors: Any) -> Any:
        by_name = dict(zip(inputs, tensors, strict=True))
        result = model(_arranged(model, by_name), training=False)
        outputs = dict(_named_outputs(model, result))
        order.extend(outputs)
        return list(outputs.values())

    with convertible(model), dilated(), biased_by_channels(model):
        concrete = tf.function(call, input_signature=specifications, autograph=False).get_concrete_function()
    graph = concrete.graph.as_graph_def()
    tables = dict(_tables(model, concrete))
    variables = dict(_variables(model, concrete, names, tables))
    _fill_constants(graph, concrete)
    return Source(
        title=f"the Keras model {model.name}",
        graph=graph,
        inputs=tuple(_port(name, each) for name, each in zip(inputs, concrete.inputs, strict=False)),
        outputs=tuple(
            _port(_apart(name, inputs), each)
            for name, each in zip(order[: len(concrete.outputs)], concrete.outputs, strict=True)
        ),
        variables=variables,
        tables=tables,
    )


def called(model: Any, arrays: Mapping[str, Any]) -> dict[str, Any]:
    """Return the outputs of a model by name for inputs by name, called as in its graph."""
    import tensorflow as tf

    inputs = _named_inputs(model)
    tensors = {name: tf.cast(arrays[name], each.dtype) for name, each in inputs.items()}
    with biased_by_channels(model):
        result = model(_arranged(model, tensors), training=False)
    return {_apart(name, inputs): tf.convert_to_tensor(each).numpy() for name, each in _named_outputs(model, result)}


def _named_inputs(model: Any) -> dict[str, Any]:
    named: dict[str, Any] = {}
    for each in model.inputs:
        named[_apart(each.name.partition(":")[0], named)] = each
    return named


def _arranged(model: Any, tensors: Mapping[str, Any]) -> Any:
    """Return inputs by name as the model takes them: one, several, or by keys of its own."""
    structure = _structure(model)
    names = {id(each): name for name, each in _named_inputs(model).items()}
    if isinstance(structure, Mapping):
        return {key: tensors[names[id(each)]] for key, each in structure.items()}
    if isinstance(structure, list | tuple):
        return [tensors[names[id(each)]] for each in structure]
    return tensors[names[id(structure)]]


def _named_outputs(model: Any, result: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(result, Mapping):
        yield from result.items()
        return
    results = list(result) if isinstance(result, list | tuple) else [result]
    listed = list(getattr(model, "output_names", ()) or ())
    if not listed and len(results) == 1:
        listed = [model.layers[-1].name]
    if len(listed) != len(results):
        listed = [f"output_{number}" for number in range(len(results))]
    used: dict[str, Any] = {}
    for name, each in zip(listed, results, strict=True):
        apart = _apart(name.partition(":")[0], used)
        used[apart] = each
        yield apart, each


def _apart(name: str, used: Mapping[str, Any]) -> str:
    """Return a name that is not taken."""
    found, number = name, 1
    while found in used:
        found, number = f"{name}_{number}", number + 1
    return found


def _port(name: str, tensor: Any) -> Port:
    shape = None if tensor.shape.rank is None else tuple(tensor.shape.as_list())
    try:
        return Port(name=name, tensor=tensor.name, dtype=DType(tensor.dtype.name), shape=shape)
    except ValueError as error:
        raise GraphError(
            f"has elements of type {tensor.dtype.name}, which no tensor of a checkpoint has", tensor=name
        ) from error


def _tables(model: Any, concrete: Any) -> Iterator[tuple[str, Table]]:
    """Yield the tables of preprocessing layers that the graph captured, by the placeholder of their handle."""
    import tensorflow as tf

    kinds = tf.lookup.StaticHashTable, tf.lookup.experimental.MutableHashTable
    found = (getattr(layer, "lookup_table", None) for layer in model._flatten_layers())
    held = {id(each.resource_handle): each for each in found if isinstance(each, kinds)}
    for outer, inner in concrete.graph.captures:
        table = held.get(id(outer))
        if table is None:
            continue
        if tf.string in (table.key_dtype, table.value_dtype):
            raise GraphError(
                f"looks values up in a table of text (node {inner.op.name!r}), which no converted graph has"
            )
        try:
            keys, values = table.export()
        except tf.errors.OpError as error:
            raise GraphError("looks values up in a table whose keys the config does not have") from error
        yield inner.op.name, Table.of(keys.numpy(), values.numpy())


def _variables(
    model: Any, concrete: Any, names: Mapping[int, str], tables: Collection[str]
) -> Iterator[tuple[str, Variable]]:
    """Yield the variables that the graph captured, by the placeholder of their handle."""
    held = {id(_tensorflow_variable(each).handle): each for each in model.variables}
    for outer, inner in concrete.graph.captures:
        variable = held.get(id(outer))
        if inner.dtype.name != "resource" or inner.op.name in tables:
            continue
        if variable is None or id(variable) not in names:
            raise GraphError(
                "is a variable of the model that its file does not have", tensor=getattr(variable, "path", inner.name)
            )
        yield (
            inner.op.name,
            Variable(
                name=names[id(variable)],
                dtype=DType(_tensorflow_variable(variable).dtype.name),
                shape=tuple(variable.shape),
                is_trainable=bool(variable.trainable),
            ),
        )


def _tensorflow_variable(variable: Any) -> Any:
    """Return the variable of TensorFlow that one of Keras 3 wraps."""
    value = getattr(variable, "value", None)
    return variable if callable(value) or value is None else value


def _fill_constants(graph: Any, concrete: Any) -> None:
    """Put the values of captured tensors where the graph has placeholders for them."""
    import tensorflow as tf

    captured = {inner.op.name: outer for outer, inner in concrete.graph.captures if inner.dtype.name != "resource"}
    for node in graph.node:
        if node.name in captured:
            value = captured[node.name]
            node.op = "Const"
            node.attr.clear()
            node.attr["dtype"].type = value.dtype.as_datatype_enum
            node.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(value.numpy()))
