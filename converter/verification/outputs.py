"""Proof of a graph: reference and target run on the same inputs, each in a process of its own, and are compared."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from converter.encoding import safetensors
from converter.errors import VerificationError
from converter.execution.child import Call
from converter.execution.workshop import LocalWorkshop
from converter.formats import Format
from converter.graphs.architecture import Architecture
from converter.graphs.inputs import sample_inputs, sample_sizes
from converter.graphs.traced import TracedGraph
from converter.model.checkpoint import Checkpoint
from converter.model.output import Output
from converter.model.tensor import Array
from converter.options import Options
from converter.report import Verification
from converter.verification.comparing import RELATIVE_TOLERANCE, compare_outputs

_SAMPLE_SEED = 20180611


def verify_outputs(
    checkpoint: Checkpoint, staged: Path, runner: str, options: Options, workshop: LocalWorkshop
) -> Verification:
    """Run the reference and the `staged` target, on the same inputs at two shapes that were not traced.

    `runner` is the ``package.module:function`` that runs the target. Raises VerificationError when an output is
    out of tolerance.
    """
    graph: TracedGraph = checkpoint.graph
    reference = graph.reference
    workshop.observer.stage("comparing outputs")
    inputs = workshop.scratch / "inputs.npz"
    _write_inputs(inputs, graph.architecture)
    if reference.takes_weights and not (reference.model / safetensors.FILE_NAME).exists():
        workshop.stream(safetensors.files(checkpoint.tensors, {}, None)[0], reference.model)

    def run(function: str, model: Path, outputs: Path, arguments: Mapping[str, Any]) -> Call:
        given = {
            "model": os.fspath(model),
            "architecture": graph.architecture.architecture,
            "inputs": os.fspath(inputs),
            "outputs": os.fspath(outputs),
        }
        return Call(function=function, arguments={**given, **arguments})

    ours, theirs = (workshop.scratch / f"outputs-{name}.npz" for name in ("target", "reference"))
    # Each holds the weights: both at once only where these are small.
    workshop.call_all(
        [run(reference.runner, reference.model, theirs, reference.arguments), run(runner, staged, ours, {})],
        at_once=2 if checkpoint.nbytes <= options.memory_bytes else 1,
    )
    expected, found = load_outputs(theirs), load_outputs(ours)
    rtol = options.rtol
    if not reference.takes_weights and options.atol is rtol is None:
        rtol = _cast_tolerance(options)
    largest, tolerance = compare_outputs(expected, found, path=staged, atol=options.atol, rtol=rtol)
    return Verification(weights=True, outputs=True, max_abs=largest, tolerance=tolerance)


def verify_foreign_outputs(
    checkpoint: Checkpoint, output: Output, found: Path, target: Format, options: Options, workshop: LocalWorkshop
) -> Verification:
    """As `verify_outputs`, for a target that may come from elsewhere: its framework does not load it.

    Where nothing else can run it, the program is made anew and is run in its place. Raises VerificationError too when
    the two are not the same.
    """
    if target.foreign_runner is not None:
        return verify_outputs(checkpoint, found, target.foreign_runner, options, workshop)
    if target.runner is None or target.is_same_program is None or output.build is None:
        return Verification(weights=True, reason=f"{target.name} files from elsewhere are not run")
    workshop.observer.stage("building")
    made = workshop.scratch / "made-anew"
    made.mkdir()
    output.build(replace(workshop, folder=made))
    if not target.is_same_program(found, made):
        raise VerificationError(
            "holds another program than is made of the source here, and one from elsewhere is not run",
            path=found,
            hint="--verify weights compares the weights alone",
        )
    return verify_outputs(checkpoint, made, target.runner, options, workshop)


def _cast_tolerance(options: Options) -> float | None:
    """Return what a cast that was asked for may cost, where the reference runs with the weights before it."""
    dtype = options.target_dtype()
    return None if dtype is None else RELATIVE_TOLERANCE.get(dtype.value)


def _write_inputs(path: Path, architecture: Architecture) -> None:
    arrays = {
        f"{case}/{name}": array
        for case, sizes in enumerate(sample_sizes(architecture))
        for name, array in sample_inputs(architecture.inputs, seed=_SAMPLE_SEED + case, sizes=sizes).items()
    }
    np.savez(path, **arrays)


def load_outputs(path: Path) -> dict[str, Array]:
    """Return the arrays of an .npz that a child process wrote."""
    with np.load(path, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}
