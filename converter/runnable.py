"""Giving a checkpoint the graph of its architecture, and proving that a written graph computes the same."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np

from converter.dialects.architecture import config_with, infer_architecture
from converter.encoding import safetensors
from converter.encoding.folder import CONFIG_NAME
from converter.errors import ArchitectureError, LossError
from converter.execution.child import require
from converter.execution.workshop import LocalWorkshop
from converter.graphs.architecture import Architecture, Declaration
from converter.graphs.inputs import sample_inputs, sample_sizes
from converter.graphs.traced import TracedGraph
from converter.model.checkpoint import Checkpoint
from converter.model.ledger import LedgerLine, defaulted, dropped
from converter.model.tensor import Array, ArrayTensor, Tensor, is_equal
from converter.options import Options
from converter.report import Verification
from converter.verification import compare_outputs, load_outputs

_SAMPLE_SEED = 20180611
_TRACE = "converter.graphs.trace.transformers:trace"
_REFERENCE = "converter.graphs.run.transformers:run"


def with_graph(checkpoint: Checkpoint, options: Options, workshop: LocalWorkshop) -> Checkpoint:
    """Return the checkpoint with a graph, its tensors those of the architecture that its config and names tell.

    Raises ArchitectureError when they do not tell one, LossError when tensors and architecture do not fit,
    MissingExtraError without torch and transformers, GraphError when the model cannot be exported.
    """
    given = checkpoint.config
    if given is None:
        raise ArchitectureError(
            "no config.json says which model this is",
            hint="--config FILE names one, --weights-only writes no graph, a transformers folder brings its own",
        )
    require("torch", "tracing a model")
    inference = infer_architecture(checkpoint.tensors, given.values, task=options.task)
    if inference.prefix:
        checkpoint = checkpoint.with_names(lambda name: name.removeprefix(inference.prefix))
    config = config_with(given, architectures=[inference.architecture])
    config_file = workshop.scratch / CONFIG_NAME
    config_file.write_bytes(config.raw)
    graph_file = workshop.scratch / "graph.onnx"
    workshop.observer.stage(f"tracing {inference.architecture}")
    answer = workshop.call(_TRACE, config=str(config_file), architecture=inference.architecture, graph=str(graph_file))
    architecture = Architecture.from_json(answer)
    note = () if inference.note is None else (inference.note,)
    fitted = _fitted(replace(checkpoint, config=config), architecture)
    return replace(
        fitted,
        graph=TracedGraph(file=graph_file, architecture=architecture),
        warnings=(*fitted.warnings, *note),
    )


def _fitted(checkpoint: Checkpoint, architecture: Architecture) -> Checkpoint:
    """Return the tensors that `architecture` has, tied as it ties them; every other one is a line."""
    declared = {**architecture.parameters, **architecture.buffers}
    tensors: dict[str, Tensor] = {}
    lines: list[LedgerLine] = []
    for name, declaration in declared.items():
        tensors[name] = _filling(checkpoint, architecture, name, declaration, lines)
    aliases = {alias: owner for alias, owner in architecture.ties.items() if alias in checkpoint.names}
    for name in checkpoint.names:
        if name not in tensors and name not in aliases:
            lines.append(_left_over(checkpoint.origin(name), name, architecture))
    return replace(
        checkpoint,
        tensors=tensors,
        aliases=aliases,
        buffers=frozenset(architecture.buffers),
        lines=(*checkpoint.lines, *lines),
    )


def _filling(
    checkpoint: Checkpoint, architecture: Architecture, name: str, declaration: Declaration, lines: list[LedgerLine]
) -> Tensor:
    tied = [alias for alias, owner in architecture.ties.items() if owner == name]
    sources = [candidate for candidate in (name, *tied) if candidate in checkpoint.names]
    dtype, shape = declaration
    if not sources:
        reason = f"{architecture.architecture} has it, the checkpoint does not; filled with zeros"
        lines.append(defaulted(name, reason, is_refused_by_default=True))
        return ArrayTensor.of(np.zeros(shape, dtype.numpy))
    tensor = checkpoint.tensor(sources[0])
    if tensor.shape != shape:
        raise ArchitectureError(
            f"has shape {list(tensor.shape)}, {architecture.architecture} built from the config has {list(shape)}",
            tensor=sources[0],
        )
    for other in sources[1:]:
        if not is_equal(checkpoint.tensor(other), tensor):
            raise LossError(f"differs from {sources[0]}, which {architecture.architecture} ties it to", tensor=other)
    return tensor


def _left_over(origin: str, name: str, architecture: Architecture) -> LedgerLine:
    if name in architecture.computed:
        return dropped(origin, "computed from the config")
    if any(re.search(pattern, name) for pattern in architecture.ignored):
        return dropped(origin, "transformers skips it when it loads this class")
    reason = f"{architecture.architecture} has no such tensor"
    return dropped(origin, reason, is_refused_by_default=True)


def verify_outputs(
    checkpoint: Checkpoint, staged: Path, runner: str, options: Options, workshop: LocalWorkshop
) -> Verification:
    """Run the source in torch and the `staged` target, on the same inputs at two shapes that were not traced.

    `runner` is the ``package.module:function`` that runs the target. Raises VerificationError when an output is
    out of tolerance.
    """
    graph: TracedGraph = checkpoint.graph
    workshop.observer.stage("comparing outputs")
    inputs = workshop.scratch / "inputs.npz"
    _write_inputs(inputs, graph.architecture)
    if not (workshop.scratch / safetensors.FILE_NAME).exists():
        workshop.stream(safetensors.files(checkpoint.tensors, {}, None)[0], workshop.scratch)

    def run(function: str, model: Path) -> dict[str, Array]:
        outputs = workshop.scratch / f"outputs-{model.name}.npz"
        workshop.call(
            function,
            model=str(model),
            architecture=graph.architecture.architecture,
            inputs=str(inputs),
            outputs=str(outputs),
        )
        return load_outputs(outputs)

    with ThreadPoolExecutor(max_workers=2) as pool:
        reference, found = pool.map(run, (_REFERENCE, runner), (workshop.scratch, staged))
    largest, tolerance = compare_outputs(reference, found, path=staged, atol=options.atol, rtol=options.rtol)
    return Verification(weights=True, outputs=True, max_abs=largest, tolerance=tolerance)


def _write_inputs(path: Path, architecture: Architecture) -> None:
    arrays = {
        f"{case}/{name}": array
        for case, sizes in enumerate(sample_sizes(architecture))
        for name, array in sample_inputs(architecture.inputs, seed=_SAMPLE_SEED + case, sizes=sizes).items()
    }
    np.savez(path, **arrays)
