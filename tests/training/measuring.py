"""What 20 steps, a conversion and 20 more steps in the other framework differ by from 40 steps in one."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import converter
from tests.oracle import environment
from tests.training import torch_side

TORCH, KERAS_3, TF_KERAS = "torch", "Keras 3", "tf_keras"
ALGORITHMS = ("adamw", "sgd", "rmsprop")
_TIMEOUT_SECONDS = 900
_SUFFIXES = {TORCH: ".pth", KERAS_3: ".keras", TF_KERAS: ".h5"}
_UNSAID: Mapping[str, tuple[str, ...]] = {
    "adamw": ("weight_decay=0.05", "beta_1=0.9", "beta_2=0.999", "epsilon=1e-7"),
    "sgd": ("momentum=0.9", "nesterov=false"),
    "rmsprop": ("momentum=0.5", "rho=0.9", "epsilon=1e-7"),
}
"""What tf.train.Checkpoint does not save of an optimizer, as keras_side has it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """A model and an algorithm, from one framework to another; `epsilon` of a Keras target, as `--epsilon` has it."""

    kind: str
    algorithm: str
    source: str
    target: str
    epsilon: str = "stock"

    def __str__(self) -> str:
        exact = ", exact epsilon" if self.epsilon == "exact" else ""
        return f"{self.kind} {self.algorithm}, {self.source} -> {self.target}{exact}"

    @property
    def slug(self) -> str:
        """A name for the folder of this cell."""
        return "-".join((self.kind, self.algorithm, self.target.replace(" ", ""), self.epsilon))


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """The worst relative difference of a loss and the largest of a weight, and both when the moments are forgotten."""

    loss: float
    weight: float
    reset_loss: float
    reset_weight: float


def _kinds(framework: str) -> tuple[str, ...]:
    return ("mlp", "cnn", "bert" if framework == TF_KERAS else "encoder")


DIRECTIONS = ((KERAS_3, TORCH), (TF_KERAS, TORCH), (TORCH, KERAS_3), (TORCH, TF_KERAS))


def cells_of(source: str, target: str) -> list[Cell]:
    """Return the nine cells of a direction, and those with the exact epsilon where the target is of Keras."""
    other = target if source == TORCH else source
    cells = [
        Cell(kind=kind, algorithm=algorithm, source=source, target=target)
        for kind in _kinds(other)
        for algorithm in ALGORITHMS
    ]
    if source == TORCH:
        cells.append(Cell(kind=_kinds(other)[-1], algorithm="adamw", source=source, target=target, epsilon="exact"))
    return cells


def measured(cells: Sequence[Cell], folder: Path) -> dict[Cell, Figures]:
    """Train, convert and train on; all cells are of one direction. Raises CkconvError, AssertionError."""
    (source,) = {cell.source for cell in cells}
    (target,) = {cell.target for cell in cells}
    _train(cells, source, folder)
    if source == TORCH:
        do_jobs([{"do": "describe", "kind": kind, "folder": str(folder / kind)} for kind in _each_kind(cells)], target)
    for cell in cells:
        _convert(cell, folder)
    if target == TORCH:
        for cell in cells:
            for name in ("ended", "reset"):
                file = folder / cell.slug / "converted.pth"
                result = torch_side.resume(cell.kind, cell.algorithm, file, is_reset=name == "reset")
                np.savez(folder / cell.slug / f"{name}.npz", **result)
    else:
        jobs = [{"do": "resume", "kind": cell.kind, "algorithm": cell.algorithm} for cell in cells]
        for job, cell in zip(jobs, cells, strict=True):
            job |= {"source": str(_converted(cell, folder)), "folder": str(folder / cell.slug)}
        do_jobs(jobs, target)
    figures = {cell: _figures(_source_folder(cell, folder), folder / cell.slug) for cell in cells}
    for cell in cells:
        shutil.rmtree(folder / cell.slug, ignore_errors=True)
    return figures


def _each_kind(cells: Iterable[Cell]) -> list[str]:
    return list(dict.fromkeys(cell.kind for cell in cells))


def _source_folder(cell: Cell, folder: Path) -> Path:
    return folder / f"{cell.kind}-{cell.algorithm}"


def _converted(cell: Cell, folder: Path) -> Path:
    own = folder / cell.slug
    is_folder = cell.kind == "bert" and cell.target != TORCH
    return own / "model" if is_folder else own / f"converted{_SUFFIXES[cell.target]}"


def _train(cells: Sequence[Cell], source: str, folder: Path) -> None:
    pairs = dict.fromkeys((cell.kind, cell.algorithm, _source_folder(cell, folder)) for cell in cells)
    if source != TORCH:
        jobs = [{"do": "train", "kind": kind, "algorithm": one, "folder": str(own)} for kind, one, own in pairs]
        do_jobs(jobs, source)
        return
    for kind, algorithm, own in pairs:
        np.savez(own / "ended.npz", **torch_side.train(kind, algorithm, own))


def _convert(cell: Cell, folder: Path) -> None:
    """Convert as a user does: a model of transformers by its config.json, one of Keras by its own config."""
    own = _source_folder(cell, folder)
    destination = _converted(cell, folder)
    destination.parent.mkdir(parents=True, exist_ok=True)
    if cell.target == TORCH:
        is_checkpoint = cell.kind == "bert"
        file = own / ("checkpoint.index" if is_checkpoint else f"checkpoint{_SUFFIXES[cell.source]}")
        converter.convert(file, destination, hyperparameter=_UNSAID[cell.algorithm] if is_checkpoint else ())
    elif cell.kind == "bert":
        converter.convert(own / "checkpoint.pth", destination, to="pretrained", flavor="tf", epsilon=cell.epsilon)
    else:
        config = folder / cell.kind / "model.json"
        converter.convert(own / "checkpoint.pth", destination, config=config, epsilon=cell.epsilon)


def do_jobs(jobs: Sequence[Mapping[str, Any]], framework: str) -> None:
    """Have jobs done in a process of Keras 3 here, or of tf_keras in the second environment."""
    variables = {key: value for key, value in os.environ.items() if key != "TF_USE_LEGACY_KERAS"}
    variables |= {"CUDA_VISIBLE_DEVICES": "", "TF_CPP_MIN_LOG_LEVEL": "3", "HF_HUB_OFFLINE": "1"}
    python = sys.executable
    if framework == TF_KERAS:
        python, variables["TF_USE_LEGACY_KERAS"] = environment.PYTHON, "1"
    done = subprocess.run(
        [python, "-m", "tests.training.keras_side", json.dumps(jobs)],
        cwd=environment.ROOT,
        env=variables,
        capture_output=True,
        text=True,
        timeout=_TIMEOUT_SECONDS,
    )
    assert done.returncode == 0, done.stderr[-3000:]


def _figures(source: Path, own: Path) -> Figures:
    expected = dict(np.load(source / "ended.npz"))
    found = [dict(np.load(own / f"{name}.npz")) for name in ("ended", "reset")]
    (loss, weight), (reset_loss, reset_weight) = (differences(one, expected) for one in found)
    return Figures(loss=loss, weight=weight, reset_loss=reset_loss, reset_weight=reset_weight)


def differences(found: Mapping[str, Any], expected: Mapping[str, Any]) -> tuple[float, float]:
    """Return the worst relative difference of a loss, and the largest of a weight."""
    if found.keys() != expected.keys():
        raise AssertionError(f"other weights: {sorted(found.keys() ^ expected.keys())}")
    loss = np.max(np.abs(found["losses"] - expected["losses"]) / np.abs(expected["losses"]))
    weights = [np.max(np.abs(found[name] - expected[name])) for name in expected if name != "losses"]
    return float(loss), float(max(weights))
