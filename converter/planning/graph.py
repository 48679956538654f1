"""Giving a checkpoint the graph of its class, or its own."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from functools import partial
from pathlib import Path

from converter.dialects.identity.holdings import as_loaded
from converter.dialects.identity.inference import infer_architecture
from converter.dialects.transformers.heads import is_head
from converter.encoding.folder import CONFIG_NAME
from converter.errors import (
    WITHOUT_GRAPH,
    ArchitectureError,
    GraphError,
    LimitError,
    LossError,
    MissingExtraError,
    UsageError,
)
from converter.execution.child import require
from converter.execution.workshop import LocalWorkshop
from converter.formats import Format
from converter.graphs import calls
from converter.graphs.description.declared_inputs import parse_inputs
from converter.graphs.description.given_shapes import with_shapes
from converter.graphs.description.keras_source import check
from converter.graphs.description.signature import Signature
from converter.graphs.description.source import GraphSource
from converter.graphs.description.traced import Reference, TracedGraph
from converter.graphs.fitting.fitting import Fitted, fitted_to_class, fitted_to_source
from converter.graphs.trace.thresholds import of_source
from converter.model.checkpoint import Checkpoint, Dialect
from converter.model.file import local_copy
from converter.model.ledger import Kind, without
from converter.options import Options
from converter.planning.encoders import model_inside, with_encoder
from converter.planning.extents import failures, that_it_takes
from converter.planning.tracing import trace_class

_GRAPH_NAME = "graph.onnx"
_MODULE_NAME = "module.json"
_EXPORTED_OPSETS = range(18, 26)


def with_graph(
    planned: Checkpoint, source: Checkpoint, target: Format, options: Options, workshop: LocalWorkshop
) -> Checkpoint:
    """Return what the target is to hold with a graph, its tensors those that the graph names.

    `planned` is what dialect and selection made of `source`. The graph is the source's own; where it has none, or one
    that cannot be used, or a cache is asked for, that of the transformers class which its config and names tell.
    `--model` comes before both: who names a model means it. What the runtime of `target` computes inexactly is in
    double precision.

    Raises ArchitectureError when nothing tells one, LossError when tensors and signature do not fit,
    MissingExtraError without the frameworks that tracing needs, GraphError when the model cannot be exported,
    SafetyError for a graph that a checkpoint has no business having, whatever its config says.
    """
    if options.model is not None:
        return _from_module(replace(planned, graph=None), options.model, target, options, workshop)
    graph = GraphSource.of(source)
    if graph is not None and not options.with_cache:
        try:
            return _from_source(planned, source, graph, target, options, workshop)
        except LimitError:
            raise
        except (ArchitectureError, GraphError, MissingExtraError) as error:
            if planned.config is None or graph.trace.takes("encoder"):
                raise  # the class that a config.json tells is but a layer of such a model
            warning = f"the source's own graph is not used: {error.message}"
            planned = replace(planned, warnings=(*planned.warnings, warning))
    is_of_torch = source.dialect == Dialect.PYTORCH
    return _from_config(replace(planned, graph=None), target, options, workshop, padding_rows=is_of_torch)


def _from_source(
    planned: Checkpoint,
    source: Checkpoint,
    graph: GraphSource,
    target: Format,
    options: Options,
    workshop: LocalWorkshop,
) -> Checkpoint:
    if options.signature is not None:
        graph = graph.with_signature(options.signature)
    if options.custom_objects:
        graph = graph.with_custom_objects(options.custom_objects, os.getcwd())
    inside = model_inside(graph, source)
    check(graph, None if inside is None else {"layer": inside.layer, "class_name": inside.class_name})
    require(graph.extra, "reading the graph of the source")
    workshop.observer.stage("reading the graph")
    file = workshop.scratch / _GRAPH_NAME
    model = local_copy(graph.model, workshop.scratch)
    _start_ahead(target, workshop)
    graph, notes = with_encoder(graph, planned, source, _exported_opset(options), workshop)
    answer = workshop.call(graph.trace, model=os.fspath(model), graph=os.fspath(file))
    signature = with_shapes(Signature.from_json(answer), options.shapes)
    lines = without(planned.lines, Kind.ORDER)
    planned = replace(planned, warnings=(*planned.warnings, *notes, *signature.notes), lines=lines)
    if planned.config is not None:
        signature = of_source(signature, planned.config.values)
    if options.include or options.exclude:
        _check_nothing_left_out(planned, source, signature)
    if target.is_traced:
        found = that_it_takes(signature, partial(failures, graph.reference, model, workshop))
        signature = signature if found is None else found[0]
        planned = planned if found is None else replace(planned, warnings=(*planned.warnings, found[1]))
    fitted = fitted_to_source(planned, source, signature)
    reference = Reference(runner=graph.reference, model=model, takes_weights=False)
    return _attached(fitted, file, reference, target, options, workshop)


def _start_ahead(target: Format, workshop: LocalWorkshop) -> None:
    """Have what comes after the graph is traced imported meanwhile."""
    for function in (calls.prepare, target.runner):
        if function is not None:
            workshop.start_ahead(function)


def _check_nothing_left_out(planned: Checkpoint, source: Checkpoint, signature: Signature) -> None:
    there = set(map(planned.origin, planned.names))
    for name in (*signature.parameters, *signature.buffers):
        if name in source and source.origin(name) not in there:
            raise LossError("was left out, and the graph uses it", tensor=name, hint=WITHOUT_GRAPH)


def _from_config(
    checkpoint: Checkpoint, target: Format, options: Options, workshop: LocalWorkshop, *, padding_rows: bool
) -> Checkpoint:
    config = checkpoint.config
    if config is None:
        raise ArchitectureError(
            "no config.json says which model this is, and the source has no graph of its own",
            hint="--config FILE names a model of transformers, --model pkg.module:factory with --inputs one of your "
            "own, --weights-only writes no graph",
        )
    require("torch", "tracing a model")
    around = [name for name in checkpoint.names if is_head(name)]
    if around:
        raise ArchitectureError(
            "is outside the model of transformers, and nothing says what is computed with it",
            tensor=around[0],
            hint="--config FILE with what to_json() or get_config() of the whole Keras model returned, "
            f"{WITHOUT_GRAPH}",
        )
    inference = infer_architecture(checkpoint.by_name, config.values, task=options.task)
    if inference.prefix:
        checkpoint = checkpoint.with_names(lambda name: name.removeprefix(inference.prefix))
    config = config.with_values({"architectures": [inference.architecture]})
    config_file = workshop.scratch / CONFIG_NAME
    config_file.write_bytes(config.raw)
    file = workshop.scratch / _GRAPH_NAME
    _start_ahead(target, workshop)
    signature = trace_class(
        inference.architecture,
        config=config_file,
        graph=file,
        opset=_exported_opset(options),
        with_cache=options.with_cache,
        padding_rows=padding_rows,
        workshop=workshop,
    )
    signature = with_shapes(signature, options.shapes)
    note = () if inference.note is None else (inference.note,)
    wanted = {**signature.parameters, **signature.buffers, **signature.ties}
    checkpoint = as_loaded(checkpoint, config.values, inference.architecture, wanted)
    named = replace(checkpoint, config=config, warnings=(*checkpoint.warnings, *note))
    fitted = fitted_to_class(named, signature)
    runner = calls.run_transformers.with_arguments(architecture=inference.architecture)
    reference = Reference(runner=runner, model=workshop.scratch, takes_weights=True)
    return _attached(fitted, file, reference, target, options, workshop)


def _from_module(
    checkpoint: Checkpoint, factory: str, target: Format, options: Options, workshop: LocalWorkshop
) -> Checkpoint:
    declared = options.declared_inputs
    if declared is None:
        raise UsageError("--model needs --inputs", hint='such as --inputs "input_ids:int64[batch,seq]"')
    inputs = parse_inputs(declared)
    require("torch", "tracing a model")
    workshop.observer.stage(f"tracing {factory}")
    file, place = workshop.scratch / _GRAPH_NAME, {"factory": factory, "folder": os.getcwd()}
    answer = workshop.call(
        calls.trace_user_module,
        **place,
        inputs=[each.to_json() for each in inputs],
        graph=os.fspath(file),
        opset=_exported_opset(options),
    )
    (workshop.scratch / _MODULE_NAME).write_text(json.dumps(place))
    signature = with_shapes(Signature.from_json(answer), options.shapes)
    fitted = fitted_to_class(_without_prefix(checkpoint, signature), signature)
    reference = Reference(runner=calls.run_user_module, model=workshop.scratch, takes_weights=True)
    return _attached(fitted, file, reference, target, options, workshop)


def _exported_opset(options: Options) -> int | None:
    """Return what to ask of torch's exporter, which fails beyond those opsets; the graph is converted afterwards."""
    return options.opset if options.opset in _EXPORTED_OPSETS else None


def _without_prefix(checkpoint: Checkpoint, signature: Signature) -> Checkpoint:
    """Return the checkpoint without what stands before each of the signature's names, as Lightning's ``model.``."""
    declared = [*signature.parameters, *signature.buffers]
    names = set(checkpoint.names)
    if not declared or declared[0] in names:
        return checkpoint
    prefixes = [name.removesuffix(declared[0]) for name in checkpoint.names if name.endswith(f".{declared[0]}")]
    prefix = next((each for each in prefixes if all(each + name in names for name in declared)), "")
    return checkpoint.with_names(lambda name: name.removeprefix(prefix)) if prefix else checkpoint


def _attached(
    fitted: Fitted, file: Path, reference: Reference, target: Format, options: Options, workshop: LocalWorkshop
) -> Checkpoint:
    """Return the checkpoint with the graph in `file`, made to agree with its tensors."""
    signature = fitted.signature
    prepared = workshop.call(
        calls.prepare,
        graph=os.fspath(file),
        stored={name: each.to_json() for name, each in fitted.stored.items()},
        declared=[*signature.parameters, *signature.buffers],
        names=list(fitted.checkpoint.tensors),
        shapes={each.name: list(each.shape) for each in signature.inputs} if options.shape else {},
        opset=options.opset,
        inexact=list(target.inexact),
    )
    graph = TracedGraph(
        file=file,
        signature=signature,
        reference=reference,
        kernels=frozenset(prepared["kernels"]),
        rounded=prepared["rounded"],
        activations=prepared["activations"],
    )
    return replace(fitted.checkpoint, graph=graph)
