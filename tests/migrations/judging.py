"""What both environments judge by: the largest difference of outputs, heads by hand, and answers line by line."""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tests.migrations.saving import expected
from tests.migrations.sources import SOURCES, Source

Arrays = Mapping[str, np.ndarray]
States = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""What an encoder makes of ids and their mask."""


class WrongError(Exception):
    """What was written opens nowhere, or is not what it should be."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """A target that was written, beside its source's inputs and outputs."""

    source: Source
    folder: Path
    target: str
    path: Path
    inputs: Arrays
    outputs: Arrays

    @property
    def text(self) -> tuple[np.ndarray, np.ndarray]:
        """Ids and mask of the first text."""
        ids, mask = ("input_a", "mask_a") if "input_a" in self.inputs else ("input_ids", "attention_mask")
        return self.inputs[ids], self.inputs[mask]


Judge = Callable[[Case], Arrays]
_LONG = 160


def largest_difference(case: Case, got: Arrays) -> float:
    """How far the outputs are off at the most; all of the source's are there, by name or because each is the one."""
    if case.source.head == "encoder" and "last_hidden_state" in got:
        got = {"encoder": got["last_hidden_state"]}
    whole = {name: value for name, value in case.outputs.items() if name != "encoder"}
    wanted = {"encoder": case.outputs["encoder"]} if set(got) == {"encoder"} else whole
    if len(wanted) == len(got) == 1:
        got = dict(zip(wanted, got.values(), strict=True))
    off = []
    for name, value in wanted.items():
        if name not in got:
            raise WrongError(f"no output {name}, there are {', '.join(got)}")
        if got[name].shape != value.shape:
            raise WrongError(f"output {name} of shape {got[name].shape} for {value.shape}")
        difference = np.abs(got[name].astype(np.float64) - value)
        off.append(float(np.nan_to_num(difference, nan=np.inf).max()))
    return max(off)


def _softmax(values: np.ndarray) -> np.ndarray:
    powers = np.exp(values - values.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def _cosine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    a, b = (each / np.linalg.norm(each, axis=-1, keepdims=True) for each in (a, b))
    return -(a * b).sum(-1)


def _dense(heads: Arrays, x: np.ndarray) -> np.ndarray:
    """A Dense of its two tensors, whose name says the layout: PyTorch's `weight` or Keras's `kernel`."""
    matrices = [(name, value) for name, value in heads.items() if value.ndim == 2]
    vectors = [value for value in heads.values() if value.ndim == 1]
    if len(matrices) != 1 or len(vectors) != 1:
        raise WrongError(f"one Dense is expected among the heads {sorted(heads)}")
    name, matrix = matrices[0]
    matrix = matrix if name.endswith("kernel") else matrix.T
    if matrix.shape[0] != x.shape[-1]:
        raise WrongError(f"{name} has shape {list(matrices[0][1].shape)}")
    return x @ matrix + vectors[0]


def outputs_with_heads(case: Case, states: States, heads: Arrays) -> Arrays:
    """What a functional model computes, of its encoder and what is outside it."""
    head, inputs = case.source.head, case.inputs
    if head == "encoder":
        return {"encoder": states(*case.text)}
    if head.startswith("siamese"):
        pair = [states(inputs[f"input_{each}"], inputs[f"mask_{each}"])[:, 0] for each in "ab"]
        if head == "siamese_similarity":
            pair = [np.maximum(_dense(heads, each), 0) for each in pair]
        return {"": _cosine(*pair)}
    found = states(*case.text)
    state = found.mean(1) if head == "mean" else found[:, 0]
    if "numerical_features" in inputs:
        state = np.concatenate([state, inputs["numerical_features"]], 1)
    values = _dense(heads, state)
    return {"": 1 / (1 + np.exp(-values)) if values.shape[1] == 1 else _softmax(values)}


def answer(judges: Mapping[str, Judge]) -> None:
    """Judge what standard input lists as JSON lines; print a line each: a difference, or what is wrong."""
    for line in sys.stdin:
        task = json.loads(line)
        said: dict[str, Any] = {"source": task["source"], "target": task["target"]}
        try:
            said["difference"] = _judged(judges, task)
        except WrongError as error:
            said["wrong"] = str(error)[:_LONG]
        except Exception as error:
            said["wrong"] = f"{type(error).__name__}: {' '.join(str(error).split())[:_LONG]}"
            print(traceback.format_exc(), file=sys.stderr)
        print(json.dumps(said), flush=True)


def _judged(judges: Mapping[str, Judge], task: Mapping[str, str]) -> float:
    source, folder = SOURCES[task["source"]], Path(task["folder"])
    inputs, outputs = expected(folder, task["expected"])
    case = Case(
        source=source,
        folder=folder,
        target=task["target"],
        path=Path(task["path"]),
        inputs=inputs,
        outputs=outputs,
    )
    return largest_difference(case, judges[task["target"]](case))
