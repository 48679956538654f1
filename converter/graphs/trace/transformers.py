"""A transformers class, from its config alone, to an ONNX graph whose initializers name the checkpoint's tensors.

Source: transformers.exporters.OnnxExporter (transformers >= 5.20), a front end of torch.onnx.export(dynamo=True).
Exported unoptimised: the optimiser folds weights into constants of its own, and their names are lost.
"""

from __future__ import annotations

import contextlib
import inspect
import io
import json
import logging
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from converter.errors import ArchitectureError, GraphError, MissingExtraError, UsageError
from converter.graphs.architecture import Architecture, Declaration, GraphInput, Sampling
from converter.graphs.trace.canonical_names import canonical_names, tied_names
from converter.graphs.trace.model_building import (
    DEFAULT_SIZE_LIMIT_BYTES,
    abstract_model,
    computed_buffers,
    is_multiple_choice,
    model_class,
    model_config,
)
from converter.graphs.traced import WEIGHTS_LOCATION
from converter.model.dtype import DType

_TEXT_INPUTS = ("input_ids", "attention_mask", "token_type_ids")
_DIMENSIONS = {2: ("batch", "sequence"), 3: ("batch", "choices", "sequence")}
_PRIMES = (11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61, 67, 71, 73, 79, 83, 89, 97)
_RESERVED_POSITIONS = 2
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Traced:
    """A graph (an onnx_ir.Model without weights) and what it is made of."""

    graph: Any
    architecture: Architecture


def trace(
    *,
    config: str,
    architecture: str,
    graph: str,
    opset: int | None = None,
    inputs: list[str] | None = None,
    max_parameters: int | None = None,
) -> dict[str, Any]:
    """Trace the class `architecture` built from the config.json at `config`; write the ONNX file `graph`.

    `inputs` restricts the graph's inputs to those, in that order; `max_parameters` caps the bytes of all parameters.
    Returns the Architecture as JSON values. Raises ArchitectureError, GraphError, MissingExtraError, UsageError.
    """
    try:
        config_values = json.loads(Path(config).read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise ArchitectureError(f"the config cannot be read: {error}", path=config) from error
    if not isinstance(config_values, dict):
        raise ArchitectureError("the config is not a JSON object", path=config)
    traced = trace_model(config_values, architecture, opset, inputs=inputs, max_parameters=max_parameters)
    import onnx_ir

    onnx_ir.save(traced.graph, graph)
    return traced.architecture.to_json()


def trace_model(
    config_values: Mapping[str, Any],
    architecture: str,
    opset: int | None = None,
    *,
    inputs: Sequence[str] | None = None,
    max_parameters: int | None = None,
) -> Traced:
    """Trace a transformers class in this process. Raises as `trace` does.

    Attention maps, hidden states and caches are not outputs, whatever the config says.
    """
    class_ = model_class(architecture)
    config = model_config(class_, config_values)
    limit = DEFAULT_SIZE_LIMIT_BYTES if max_parameters is None else max_parameters
    model = abstract_model(class_, config, size_limit_bytes=limit)
    dimensions = _DIMENSIONS[3 if is_multiple_choice(architecture) else 2]
    names = _input_names(class_, config, inputs)
    sizes = _traced_sizes(model, dimensions)
    graph = _export(model, names, sizes, opset)
    _name_dimensions(graph, dimensions)
    _check_extents(graph, sizes)
    _strip(graph)
    canonical, ties = canonical_names(model), tied_names(model)
    computed = _attach_tensors(graph, model, canonical, ties, lambda: computed_buffers(class_, config))
    parameters, buffers = _declared(model, canonical, ties)
    description = Architecture(
        architecture=architecture,
        parameters=parameters,
        buffers=buffers,
        ties={canonical[name]: canonical[owner] for name, owner in ties.items()},
        computed=computed,
        ignored=_ignored(model),
        inputs=tuple(
            GraphInput(name=value.name, dtype=DType.INT64, shape=dimensions, sampling=_sampling(value.name, config))
            for value in graph.graph.inputs
        ),
        outputs=tuple(value.name for value in graph.graph.outputs),
        sizes=_sample_sizes(config),
    )
    return Traced(graph=graph, architecture=description)


def _input_names(class_: Any, config: Any, wanted: Sequence[str] | None) -> tuple[str, ...]:
    taken = [name for name in _TEXT_INPUTS if name in inspect.signature(class_.forward).parameters]
    if "input_ids" not in taken:
        raise GraphError(f"{class_.__name__} does not take input_ids; only text models are traced for now")
    if wanted is not None:
        unknown = [name for name in wanted if name not in taken]
        if unknown:
            raise UsageError(f"{class_.__name__} takes no input {unknown[0]!r}", hint=f"it takes {', '.join(taken)}")
        return tuple(wanted)
    tokenizer = _tokenizer_inputs(config.model_type)
    if "token_type_ids" not in tokenizer and getattr(config, "type_vocab_size", 0) <= 1:
        taken = [name for name in taken if name != "token_type_ids"]
    order = [*tokenizer, *_TEXT_INPUTS]
    return tuple(sorted(taken, key=order.index))


def _sampling(name: str, config: Any) -> Sampling:
    if name == "attention_mask":
        return Sampling(role="mask")
    if name == "token_type_ids":
        return Sampling(high=max(int(getattr(config, "type_vocab_size", 2)), 1))
    return Sampling(role="ids", high=config.vocab_size, padding=config.pad_token_id or 0)


def _sample_sizes(config: Any) -> tuple[dict[str, int], ...]:
    """Two sets of extents. RoBERTa counts positions from 2, so two fewer than the config says are used anywhere."""
    limit = max(getattr(config, "max_position_embeddings", 512) - _RESERVED_POSITIONS, 1)
    return (
        {"batch": 3, "choices": 2, "sequence": min(17, limit)},
        {"batch": 1, "choices": 4, "sequence": min(9, limit)},
    )


def _tokenizer_inputs(model_type: str) -> list[str]:
    import transformers
    from transformers.models.auto.tokenization_auto import TOKENIZER_MAPPING_NAMES

    names = TOKENIZER_MAPPING_NAMES.get(model_type)
    tokenizer = getattr(transformers, names if isinstance(names, str) else "", None)
    return list(getattr(tokenizer, "model_input_names", ()))


def _traced_sizes(model: Any, dimensions: tuple[str, ...]) -> dict[str, int]:
    """Choose extents to trace at that the model has no other reason to have, so that a frozen one is recognised."""
    taken = {extent for tensor in (*model.parameters(), *model.buffers()) for extent in tensor.shape}
    taken.update(value for value in model.config.to_dict().values() if type(value) is int)
    free = [prime for prime in _PRIMES if prime not in taken]
    return dict(zip(dimensions, free, strict=False))


def _export(model: Any, names: Sequence[str], sizes: Mapping[str, int], opset: int | None) -> Any:
    try:
        import onnx_ir.passes.common as passes
        import torch
        from transformers.exporters import OnnxConfig, OnnxExporter
    except ImportError as error:
        raise MissingExtraError("torch", "exporting a graph") from error

    inputs = {name: torch.ones(tuple(sizes.values()), dtype=torch.int64, device="meta") for name in names}
    axes = dict.fromkeys(range(len(sizes)), torch.export.Dim.AUTO)
    options = OnnxConfig(
        dynamic=True, optimize=False, opset_version=opset, dynamic_shapes={name: dict(axes) for name in names}
    )
    with _silence() as printed:
        # torch.export runs the model's own Python code symbolically: it can fail with any exception there is.
        try:
            graph = OnnxExporter().export(model, inputs, config=options).program
        except Exception as error:
            _log.debug("export of %s failed: %s", type(model).__name__, printed.getvalue(), exc_info=True)
            raise GraphError(f"{type(model).__name__} could not be exported: {_first_line(error)}") from error
    if graph.functions:
        passes.InlinePass()(graph)
    return graph


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip(" \u001b[0m=-")]
    return f"{type(error).__name__}: {lines[0][:300]}" if lines else type(error).__name__


@contextlib.contextmanager
def _silence() -> Iterator[io.StringIO]:
    """Keep what the exporters print and warn of for the debug log."""
    printed = io.StringIO()
    noisy = [logging.getLogger(name) for name in ("torch", "transformers", "onnxscript")]
    levels = [logger.level for logger in noisy]
    try:
        for logger in noisy:
            logger.setLevel(logging.CRITICAL)
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield printed
    finally:
        for logger, level in zip(noisy, levels, strict=True):
            logger.setLevel(level)


def _name_dimensions(model: Any, dimensions: tuple[str, ...]) -> None:
    """Give the exporter's symbols (`s18`) the names of the dimensions they stand for, wherever they occur.

    Inputs are declared to agree on them, whether or not the trace found that out. Raises GraphError for a dimension
    that the export froze.
    """
    import onnx_ir

    words: dict[str, str] = {}
    for value in model.graph.inputs:
        for dimension, extent in zip(dimensions, value.shape, strict=True):
            symbol = extent.value if isinstance(extent, onnx_ir.SymbolicDim) else None
            if symbol is None:
                raise GraphError(f"the export froze the {dimension} dimension of {value.name} at {extent}")
            if words.setdefault(symbol, dimension) != dimension:
                raise GraphError(f"the export cannot tell {dimension} from {words[symbol]} in {value.name}")
    pattern = re.compile("|".join(rf"\b{re.escape(symbol)}\b" for symbol in words))
    values = [*model.graph.inputs, *(output for node in model.graph.all_nodes() for output in node.outputs)]
    for value in values:
        if value.shape is not None:
            value.shape = onnx_ir.Shape(
                pattern.sub(lambda match: words[match[0]], extent.value)
                if isinstance(extent, onnx_ir.SymbolicDim) and extent.value is not None
                else extent
                for extent in value.shape
            )


def _check_extents(model: Any, sizes: Mapping[str, int]) -> None:
    """Raise GraphError when a value somewhere has the very extent that a dimension had while it was traced.

    The exporter may declare an input dynamic and still have burnt its extent into the graph.
    """
    frozen = {extent: dimension for dimension, extent in sizes.items()}
    for node in model.graph.all_nodes():
        for value in node.outputs:
            for extent in value.shape or ():
                if isinstance(extent, int) and extent in frozen:
                    raise GraphError(f"the export froze the {frozen[extent]} dimension of {value.name} at {extent}")


def _strip(model: Any) -> None:
    """Remove what the exporter notes about its sources: stack traces, with the paths of this machine."""
    nodes = list(model.graph.all_nodes())
    values = [
        *model.graph.inputs,
        *model.graph.initializers.values(),
        *(each for node in nodes for each in node.outputs),
    ]
    for noted in (model, model.graph, *nodes, *values):
        noted.metadata_props.clear()
        noted.doc_string = None


def _attach_tensors(
    model: Any, source: Any, canonical: Mapping[str, str], ties: Mapping[str, str], buffers: Any
) -> tuple[str, ...]:
    """Make every initializer a reference to a checkpoint tensor, or a constant. Returns the names of the latter."""
    graph = model.graph
    declared = {name: (_dtype(tensor), tuple(tensor.shape)) for name, tensor in source.state_dict().items()}
    values: dict[str, Any] = {}
    computed: list[str] = []
    for name, value in list(graph.initializers.items()):
        if name in declared:
            _refer(graph, value, canonical[ties.get(name, name)], declared[name])
        elif value.const_value is None or _is_abstract(value.const_value):
            values = values or buffers()
            if name not in values:
                raise GraphError("is in no checkpoint, and cannot be computed from the config", tensor=name)
            _make_constant(value, name, values[name])
            computed.append(name)
    return tuple(computed)


def _is_abstract(tensor: Any) -> bool:
    return bool(getattr(getattr(tensor, "raw", None), "is_meta", False))


def _refer(graph: Any, value: Any, name: str, declaration: Declaration) -> None:
    import onnx_ir

    if value.name != name and name in graph.initializers:
        value.replace_all_uses_with(graph.initializers[name], replace_graph_outputs=True)
        del graph.initializers[value.name]
        return
    value.name = name
    dtype, shape = declaration
    value.const_value = onnx_ir.ExternalTensor(
        WEIGHTS_LOCATION,
        None,
        None,
        onnx_ir.DataType.from_numpy(dtype.numpy),
        shape=onnx_ir.Shape(shape),
        name=name,
    )


def _make_constant(value: Any, name: str, tensor: Any) -> None:
    import onnx_ir

    array = tensor.cpu().numpy()
    if tuple(array.shape) != tuple(value.shape) or onnx_ir.DataType.from_numpy(array.dtype) != value.dtype:
        raise GraphError(f"was computed as {array.dtype} {list(array.shape)}, not as the graph has it", tensor=name)
    value.const_value = onnx_ir.tensor(array, name=name)


def _declared(
    model: Any, canonical: Mapping[str, str], ties: Mapping[str, str]
) -> tuple[dict[str, Declaration], dict[str, Declaration]]:
    trained = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    parameters: dict[str, Declaration] = {}
    buffers: dict[str, Declaration] = {}
    for name, tensor in model.state_dict().items():
        if name not in ties:
            target = parameters if name in trained else buffers
            target[canonical[name]] = (_dtype(tensor), tuple(tensor.shape))
    return parameters, buffers


def _dtype(tensor: Any) -> DType:
    return DType(str(tensor.dtype).removeprefix("torch."))


def _ignored(model: Any) -> tuple[str, ...]:
    """The names transformers skips when loading, those of PreTrainedModel._adjust_missing_and_unexpected_keys too."""
    patterns = set(model._keys_to_ignore_on_load_unexpected or ())
    buffers = [name for name, _ in model.named_buffers()]
    if any(name.endswith("rotary_emb.inv_freq") for name in buffers):
        patterns.add(r"rotary_emb\.inv_freq")
    if any(name.endswith("position_ids") for name in buffers):
        patterns.add(r"(^|\.)position_ids$")
    return tuple(sorted(patterns))
