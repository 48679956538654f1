"""A TensorFlow graph of values to ONNX: tf2onnx, what it lacks, and what makes sure of its result.

tf2onnx 1.17 (https://github.com/onnx/tensorflow-onnx) stops at opset 18, passes operators that it does not know through
under a success message, and loses names. So the result is checked by onnx and opened by onnxruntime before it counts.
"""

from __future__ import annotations

import contextlib
import io
import logging
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from converter.errors import GraphError, MissingExtraError
from converter.graphs.description.signature import Declaration, Dimension, GraphInput, Signature
from converter.graphs.description.traced import WEIGHTS_LOCATION
from converter.graphs.failures import summary_of
from converter.graphs.trace.sampling import sampling_of
from converter.graphs.trace.tensorflow.bfloat16 import computed_in_float32
from converter.graphs.trace.tensorflow.lifting import lift
from converter.graphs.trace.tensorflow.tables import Table
from converter.model.dtype import DType

_OPSET = 18  # the highest that tf2onnx writes; the program raises it
_POSITIONS = re.compile(r"position|/wpe/")
_LONGEST = 17
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Variable:
    """A variable of a graph: what the checkpoint calls it, and whether an optimizer may change it."""

    name: str
    dtype: DType
    shape: tuple[int, ...]
    is_trainable: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Port:
    """An input or output of a graph: what users call it, the tensor (`node:0`) that it is; None is a free extent."""

    name: str
    tensor: str
    dtype: DType
    shape: tuple[int | None, ...] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A GraphDef, its ports, and its variables and tables by the node that makes their handle."""

    title: str
    graph: Any
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    variables: Mapping[str, Variable]
    tables: Mapping[str, Table] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Converted:
    """A graph (an onnx_ir.Model whose initializers name the source's variables) and what it is made of."""

    graph: Any
    signature: Signature


def convert(source: Source) -> Converted:
    """Return the ONNX graph of a TensorFlow graph. Nothing of the latter is run.

    Raises GraphError when an operator has no counterpart or the result does not hold, MissingExtraError without
    tf2onnx.
    """
    inputs = _named_dimensions(source.inputs)
    with _silence() as printed:
        # tf2onnx fails with any exception there is, and with none: what it could not do may be in its log alone.
        try:
            model = _converted(source)
        except (GraphError, MissingExtraError):
            raise
        except Exception as error:
            _log.debug("tf2onnx on %s: %s", source.title, printed.getvalue(), exc_info=True)
            raise GraphError(f"{source.title} could not be converted by tf2onnx: {summary_of(error)}") from error
    _log.debug("tf2onnx on %s: %s", source.title, printed.getvalue())
    _check(model, source.title)
    graph = _named(model, source, inputs)
    for node in graph.graph.all_nodes():
        if node.op_type == "Conv":
            _say_padding(node)
    reserved = {key for table in source.tables.values() for key in table.reserved}
    inputs = tuple(replace(each, sampling=sampling_of(graph.graph, each, reserved)) for each in inputs)
    used = [each for each in source.variables.values() if each.name in graph.graph.initializers]
    signature = Signature(
        title=source.title,
        parameters=_declarations(used, is_trainable=True),
        buffers=_declarations(used, is_trainable=False),
        inputs=inputs,
        outputs=tuple(port.name for port in source.outputs),
        dimensions=_dimensions(inputs, source.variables.values()),
    )
    return Converted(graph=graph, signature=signature)


def _declarations(variables: Iterable[Variable], *, is_trainable: bool) -> dict[str, Declaration]:
    return {each.name: (each.dtype, each.shape) for each in variables if each.is_trainable is is_trainable}


_OF_ONE_TEXT = frozenset(
    f"{prefix}{name}"
    for prefix in ("", "decoder_")
    for name in ("input_ids", "attention_mask", "token_type_ids", "position_ids", "special_tokens_mask")
)


def _named_dimensions(ports: Sequence[Port]) -> tuple[GraphInput, ...]:
    """Return the inputs with a name for every extent that is free: the first is `batch`, the second of ids a sequence.

    What has `decoder` in its name has a sequence of its own, and so has each input that is not known to be of one text
    with the others: a runtime takes extents of one name for equal. Others are named after their input, too.
    """
    inputs = []
    texts = [port.name for port in ports if not port.dtype.is_floating and port.shape and len(port.shape) == 2]
    for port in ports:
        if port.shape is None:
            raise GraphError(f"input {port.name!r} has no number of dimensions")
        names: list[int | str] = []
        for axis, extent in enumerate(port.shape):
            if extent is not None:
                names.append(extent)
            elif axis == 1 and port.name in texts and (texts == [port.name] or port.name in _OF_ONE_TEXT):
                names.append("decoder_sequence" if "decoder" in port.name else "sequence")
            else:
                names.append(_free_dimension(port.name, axis))
        inputs.append(GraphInput(name=port.name, dtype=port.dtype, shape=tuple(names)))
    return tuple(inputs)


def _free_dimension(port: str, axis: int) -> str:
    """Return what an extent of no known meaning is called; the first is taken for that of the batch."""
    return "batch" if axis == 0 else f"{re.sub(r'[^A-Za-z0-9]+', '_', port)}_{axis}"


def _dimensions(inputs: Sequence[GraphInput], variables: Iterable[Variable]) -> tuple[Dimension, ...]:
    """Return how large dimensions may be where a graph has a table of few positions; RoBERTa counts them from 2."""
    positions = [each.shape[0] - 2 for each in variables if len(each.shape) == 2 and _POSITIONS.search(each.name)]
    names = {extent for each in inputs for extent in each.shape if isinstance(extent, str)}
    if not positions or min(positions) >= _LONGEST or not names - {"batch"}:
        return ()
    limit = max(1, min(positions))
    return tuple(
        Dimension(name=name, checked=(3, 1, 4, 2, 2)) if name == "batch" else Dimension(name=name, high=limit)
        for name in sorted(names)
    )


def _converted(source: Source) -> Any:
    """Return an onnx.ModelProto whose inputs are those of the source and, after them, its variables."""
    try:
        import tensorflow as tf
        from tf2onnx import optimizer
        from tf2onnx.tf_loader import tf_optimize
        from tf2onnx.tfonnx import process_tf_graph
    except ImportError as error:
        raise MissingExtraError("tensorflow", "converting a TensorFlow graph") from error
    from converter.graphs.trace.tensorflow import handlers

    handlers.register()
    graph = _lifted(source)
    inputs = [port.tensor for port in source.inputs]
    inputs += [f"{node.name}:0" for node in graph.node if node.name in source.variables]
    outputs = [f"{_output_node(number)}:0" for number in range(len(source.outputs))]
    with tf.Graph().as_default():
        graph = tf_optimize(inputs, outputs, graph)
    with tf.Graph().as_default() as imported:
        tf.import_graph_def(graph, name="")
        converted = process_tf_graph(imported, opset=_OPSET, input_names=inputs, output_names=outputs)
    model = optimizer.optimize_graph(converted).make_model(source.title)
    for value, port in zip(model.graph.output, source.outputs, strict=True):
        if not value.type.tensor_type.HasField("shape") and port.shape is not None:  # lost behind loops and branches
            for extent in port.shape:
                value.type.tensor_type.shape.dim.add(**({} if extent is None else {"dim_value": extent}))
    return model


def _output_node(number: int) -> str:
    return f"output_of_signature_{number}"


def _lifted(source: Source) -> Any:
    """Return the source's GraphDef, its variables placeholders, with an Identity for every output."""
    import tensorflow as tf

    graph = source.graph
    clashing = {node.name for node in graph.node}.intersection(map(_output_node, range(len(source.outputs))))
    if clashing:
        raise GraphError(
            f"{source.title} has a node called {min(clashing)!r}, which is the name of a node added to its graph"
        )
    for number, port in enumerate(source.outputs):
        node = graph.node.add(name=_output_node(number), op="Identity", input=[port.tensor])
        node.attr["T"].type = tf.as_dtype(port.dtype.numpy).as_datatype_enum
    shapes = {port.tensor.partition(":")[0]: port.shape for port in source.inputs}
    for node in graph.node:
        if node.name in shapes:
            node.attr["shape"].shape.CopyFrom(tf.TensorShape(shapes[node.name]).as_proto())
    variables = {
        node: (tf.as_dtype(each.dtype.numpy).as_datatype_enum, tf.TensorShape(each.shape).as_proto())
        for node, each in source.variables.items()
    }
    roots = [*map(_output_node, range(len(source.outputs))), *shapes]
    lifted = lift(graph, variables, source.tables, roots)
    computed_in_float32(lifted)
    return lifted


def _check(model: Any, title: str) -> None:
    """Raise GraphError when onnx or, where it is installed, onnxruntime refuses the model."""
    import onnx

    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise GraphError(f"{title} became a graph that is not valid: {summary_of(error)}") from error
    try:
        import onnxruntime
    except ImportError:
        return
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    try:
        onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its exceptions have no root of their own
        raise GraphError(f"{title} became a graph that onnxruntime refuses: {summary_of(error)}") from error


def _named(model: Any, source: Source, inputs: Sequence[GraphInput]) -> Any:
    """Return the model as onnx_ir has it: ports by their names, variables as initializers that name them."""
    import onnx_ir

    converted = onnx_ir.from_proto(model)
    graph = converted.graph
    variables = {f"{node}:0": variable for node, variable in source.variables.items()}
    values = {value.name: value for value in graph.inputs}
    _make_way(
        graph, {*(each.name for each in variables.values()), *(port.name for port in source.inputs + source.outputs)}
    )
    graph.inputs.clear()
    for port, described in zip(source.inputs, inputs, strict=True):
        value = values[port.tensor]
        value.name, value.shape = described.name, onnx_ir.Shape(described.shape)
        graph.inputs.append(value)
    for tensor, variable in variables.items():
        if tensor in values:
            _refer(graph, values[tensor], variable)
    for position, port in enumerate(source.outputs):
        _name_output(graph, position, port.name)
    return converted


def _say_padding(node: Any) -> None:
    """Say in numbers how a convolution of single steps is padded to the same extent: onnxruntime asks, if dilated."""
    import onnx_ir

    how = {name: each.value for name, each in node.attributes.items()}
    extents = how.get("kernel_shape", ())
    if how.get("auto_pad") == "SAME_UPPER" and extents and set(how.get("strides", ())) <= {1}:
        steps = how.get("dilations", [1] * len(extents))
        more = [step * (extent - 1) for extent, step in zip(extents, steps, strict=True)]
        pads = [*(each // 2 for each in more), *(each - each // 2 for each in more)]
        node.attributes["pads"] = onnx_ir.AttrInt64s("pads", pads)
        del node.attributes["auto_pad"]


def _make_way(graph: Any, names: set[str]) -> None:
    """Rename what is called as an input, an output or a variable is going to be."""
    nodes = list(graph.all_nodes())
    for value in [*graph.inputs, *(output for node in nodes for output in node.outputs)]:
        if value.name in names:
            value.name = f"{value.name}/inner"
    for name in [name for name in graph.initializers if name in names]:
        value = graph.initializers.pop(name)
        value.name = f"{name}/inner"
        graph.register_initializer(value)


def _refer(graph: Any, value: Any, variable: Variable) -> None:
    """Make what was an input an initializer; two handles of one variable become one."""
    import onnx_ir

    if variable.name in graph.initializers:
        value.replace_all_uses_with(graph.initializers[variable.name])
        return
    value.name = variable.name
    value.shape = onnx_ir.Shape(variable.shape)
    value.const_value = onnx_ir.ExternalTensor(
        WEIGHTS_LOCATION,
        None,
        None,
        onnx_ir.DataType.from_numpy(variable.dtype.numpy),
        shape=onnx_ir.Shape(variable.shape),
        name=variable.name,
    )
    graph.register_initializer(value)


def _name_output(graph: Any, position: int, name: str) -> None:
    """Call an output by its name; one that is an input, a variable, or another output too, gets a node of its own."""
    import onnx_ir

    value = graph.outputs[position]
    is_shared = value in list(graph.outputs)[:position]
    if value.producer() is None or is_shared:
        node = onnx_ir.Node("", "Identity", [value])
        node.outputs[0].shape, node.outputs[0].type = value.shape, value.type
        graph.append(node)
        graph.outputs[position] = value = node.outputs[0]
    value.name = name
    if value.shape is not None:
        value.shape = onnx_ir.Shape(
            extent if isinstance(extent, int) else _free_dimension(name, axis)
            for axis, extent in enumerate(value.shape)
        )


@contextlib.contextmanager
def _silence() -> Iterator[io.StringIO]:
    """Keep what tf2onnx and TensorFlow print, log and warn of for the debug log."""
    printed = io.StringIO()
    handler = logging.StreamHandler(printed)
    noisy = [logging.getLogger(name) for name in ("tf2onnx", "tensorflow", "absl")]
    before = [(logger.propagate, list(logger.handlers)) for logger in noisy]
    try:
        for logger in noisy:
            logger.propagate, logger.handlers = False, [handler]
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield printed
    finally:
        for logger, (propagates, handlers) in zip(noisy, before, strict=True):
            logger.propagate, logger.handlers = propagates, handlers
