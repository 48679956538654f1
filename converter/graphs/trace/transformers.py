"""A transformers class, from its config alone, to an ONNX graph whose initializers name the checkpoint's tensors.

Source: transformers.exporters.OnnxExporter (transformers >= 5.20), a front end of torch.onnx.export(dynamo=True).
Exported unoptimised: the optimiser folds weights into constants of its own, and their names are lost.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from converter.errors import ArchitectureError, GraphError, MissingExtraError
from converter.graphs.description.sample_inputs import extents
from converter.graphs.description.signature import Declaration, Signature
from converter.graphs.failures import summary_of
from converter.graphs.trace.caching import PAST, PRESENT, cache_of, name_cache, with_past
from converter.graphs.trace.canonical_names import tied_names
from converter.graphs.trace.constants import constants_as_operations
from converter.graphs.trace.dimensions import (
    FrozenDimensionError,
    check_extents,
    name_dimensions,
    traced_sizes,
)
from converter.graphs.trace.initializers import attach_tensors, declarations
from converter.graphs.trace.lengths import check_algorithm, check_bounds
from converter.graphs.trace.modalities import Inputs, inputs_of, may_have_any_size
from converter.graphs.trace.model_building import (
    DEFAULT_SIZE_LIMIT_BYTES,
    abstract_model,
    computed_tensors,
    model_class,
    model_config,
    return_states,
    unsaved_parameters,
)
from converter.graphs.trace.module_paths import keep_module_paths
from converter.graphs.trace.padding_rows import note_padding_rows
from converter.graphs.trace.patches import exportable, padding_as_tensorflow, replaced
from converter.graphs.trace.saved_form import SavedForm, saved_form

_ATTEMPTS = 2
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Traced:
    """A graph (an onnx_ir.Model without weights) and what it is made of."""

    graph: Any
    signature: Signature


def trace(
    *,
    config: str,
    architecture: str,
    graph: str,
    opset: int | None = None,
    inputs: list[str] | None = None,
    max_parameters: int | None = None,
    with_cache: bool = False,
    padding_rows: bool = False,
    as_tensorflow: bool = False,
) -> dict[str, Any]:
    """Trace the class `architecture` built from the config.json at `config`; write the ONNX file `graph`.

    `inputs` restricts the graph's inputs to those, in that order; `max_parameters` caps the bytes of all parameters;
    `with_cache` makes it the form of a decoder that takes cached keys and values, and returns them; with
    `padding_rows` those of embeddings are not trained, as in PyTorch; `as_tensorflow` computes padding as TensorFlow's
    class did. Returns the Signature as JSON values.
    Raises ArchitectureError, GraphError, MissingExtraError, UsageError.
    """
    try:
        config_values = json.loads(Path(config).read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise ArchitectureError(f"the config cannot be read: {error}", path=config) from error
    if not isinstance(config_values, dict):
        raise ArchitectureError("the config is not a JSON object", path=config)
    traced = trace_model(
        config_values,
        architecture,
        opset,
        inputs=inputs,
        max_parameters=max_parameters,
        with_cache=with_cache,
        padding_rows=padding_rows,
        as_tensorflow=as_tensorflow,
    )
    import onnx_ir

    onnx_ir.save(traced.graph, graph)
    return traced.signature.to_json()


def trace_model(
    config_values: Mapping[str, Any],
    architecture: str,
    opset: int | None = None,
    *,
    inputs: Sequence[str] | None = None,
    max_parameters: int | None = None,
    with_cache: bool = False,
    padding_rows: bool = False,
    as_tensorflow: bool = False,
) -> Traced:
    """Trace a transformers class in this process. Raises as `trace` does.

    Attention maps and hidden states are outputs only `as_tensorflow`, if the config says so, as layers of Keras go by
    the places of outputs among all; caches only `with_cache`. Images have
    any size where the class computes with one and the export keeps it, else the size that the config says.
    """
    class_ = model_class(architecture)
    config = model_config(class_, config_values)
    if as_tensorflow:
        return_states(config, config_values)
    limit = DEFAULT_SIZE_LIMIT_BYTES if max_parameters is None else max_parameters
    model = abstract_model(class_, config, size_limit_bytes=limit)
    check_algorithm(model)
    with padding_as_tensorflow(model) if as_tensorflow else contextlib.nullcontext():
        model_inputs, graph = _cached(model, inputs, opset) if with_cache else _exported(model, inputs, opset)
    keep_module_paths(graph)
    if padding_rows:
        note_padding_rows(graph, model)
    form, ties = saved_form(model), tied_names(model)
    computed = attach_tensors(graph, model, form, ties, lambda: computed_tensors(class_, config))
    parameters, buffers = _declared(model, form, ties)
    declared = {each.name: each for each in model_inputs.inputs}
    description = Signature(
        title=architecture,
        parameters=parameters,
        buffers=buffers,
        ties={form.names[name]: form.names[owner] for name, owner in ties.items() if owner in form.names},
        computed=computed,
        ignored=ignored_names(model),
        inputs=tuple(declared[value.name] for value in graph.graph.inputs),
        outputs=tuple(value.name for value in graph.graph.outputs),
        dimensions=model_inputs.dimensions,
        thresholds=model_inputs.thresholds,
    )
    return Traced(graph=graph, signature=description)


def _exported(model: Any, wanted: Sequence[str] | None, opset: int | None) -> tuple[Inputs, Any]:
    """Export with images of any size, or else of one. An extent that looks frozen is looked at twice."""
    if may_have_any_size(model):
        model_inputs = inputs_of(model, wanted, has_any_size=True)
        try:
            return model_inputs, _dynamic(model, model_inputs, opset)
        except GraphError as error:
            _log.debug("images of any size: %s", error)
    model_inputs = inputs_of(model, wanted, has_any_size=False)
    return model_inputs, _dynamic(model, model_inputs, opset)


def _cached(model: Any, wanted: Sequence[str] | None, opset: int | None) -> tuple[Inputs, Any]:
    model_inputs = with_past(model, inputs_of(model, wanted, has_any_size=False))
    return model_inputs, _dynamic(model, model_inputs, opset)


def _dynamic(model: Any, model_inputs: Inputs, opset: int | None) -> Any:
    """Return the graph in which all dimensions vary that may."""
    for attempt in range(_ATTEMPTS):
        sizes = traced_sizes(model, model_inputs.dimensions, attempt)
        graph = _export(model, model_inputs, sizes, opset)
        name_dimensions(graph, model_inputs.inputs)
        try:
            check_extents(graph, sizes)
        except FrozenDimensionError:
            # A number that the model computes with may be the extent by chance: it is not twice.
            if attempt == _ATTEMPTS - 1:
                raise
        else:
            break
    return graph


def _export(model: Any, model_inputs: Inputs, sizes: Mapping[str, int], opset: int | None) -> Any:
    try:
        import onnx_ir.passes.common as passes
        import torch
        from transformers.exporters import OnnxConfig, OnnxExporter
    except ImportError as error:
        raise MissingExtraError("torch", "exporting a graph") from error

    inputs: dict[str, Any] = {}
    shapes: dict[str, Any] = {}
    for each in model_inputs.inputs:
        shape = extents(each, sizes)
        inputs[each.name] = torch.ones(shape, dtype=getattr(torch, each.dtype.value), device="meta")
        axes = [axis for axis, extent in enumerate(each.shape) if isinstance(extent, str)]
        shapes[each.name] = dict.fromkeys(axes, torch.export.Dim.AUTO)
    cache = cache_of(inputs)
    if cache is not None:
        inputs |= {PAST: cache, "use_cache": True}
        shapes[PAST] = [shapes.pop(each.name) for each in model_inputs.inputs if each.name not in inputs]
    options = OnnxConfig(dynamic=True, optimize=False, opset_version=opset, dynamic_shapes=shapes)
    with _silence() as printed:
        # torch.export runs the model's own Python code symbolically: it can fail with any exception there is.
        try:
            with constants_as_operations(), exportable(model), _kept_programs() as programs:
                graph = OnnxExporter().export(model, inputs, config=options).program
        except Exception as error:
            _log.debug("export of %s failed: %s", type(model).__name__, printed.getvalue(), exc_info=True)
            raise GraphError(f"{type(model).__name__} could not be exported: {summary_of(error)}") from error
    if cache is None:
        check_bounds(model, model_inputs.inputs, sizes, programs[-1])
    if graph.functions:
        passes.InlinePass()(graph)
    name_cache(graph)
    _keep_fields(graph)
    return graph


@contextlib.contextmanager
def _kept_programs() -> Iterator[list[Any]]:
    """Keep the programs that the exporter makes on its way to ONNX."""
    import torch

    programs: list[Any] = []
    export = torch.export.export

    def keeping(*arguments: Any, **keywords: Any) -> Any:
        programs.append(export(*arguments, **keywords))
        return programs[-1]

    with replaced(torch.export, "export", keeping):
        yield programs


def _keep_fields(model: Any) -> None:
    """Drop outputs that are fields of a field (`text_model_output.last_hidden_state`), where others are there."""
    outputs = model.graph.outputs
    kept = [
        value
        for value in outputs
        if value.name.startswith(f"{PRESENT}.") or all(part.isdigit() for part in value.name.split(".")[1:])
    ]
    if kept and len(kept) < len(outputs):
        import onnx_ir.passes.common as passes

        outputs[:] = kept
        passes.RemoveUnusedNodesPass()(model)


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


def _declared(
    model: Any, form: SavedForm, ties: Mapping[str, str]
) -> tuple[dict[str, Declaration], dict[str, Declaration]]:
    trained = {name for name, each in model.named_parameters(remove_duplicate=False) if each.requires_grad}
    parameters: dict[str, Declaration] = {}
    buffers: dict[str, Declaration] = {}
    unsaved = unsaved_parameters(model)
    for name, declaration in declarations(model).items():
        if name not in ties and name not in unsaved:
            target = parameters if name in trained else buffers
            for saved in form.saved_names(name):
                target[saved] = form.declared.get(saved, declaration)
    return parameters, buffers


def ignored_names(model: Any) -> tuple[str, ...]:
    """Return patterns of the names that transformers skips, as PreTrainedModel._adjust_missing_and_unexpected_keys."""
    patterns = set(model._keys_to_ignore_on_load_unexpected or ())
    buffers = [name for name, _ in model.named_buffers()]
    if any(name.endswith("rotary_emb.inv_freq") for name in buffers):
        patterns.add(r"rotary_emb\.inv_freq")
    if any(name.endswith("position_ids") for name in buffers):
        patterns.add(r"(^|\.)position_ids$")
    return tuple(sorted(patterns))
