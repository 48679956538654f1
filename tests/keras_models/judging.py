"""How far a target is off: `python -m tests.keras_models.judging SOURCE TARGET`, a folder of `making` and a file.

A target with a graph is run by what it is for. Of weights alone every number is held against the source's, bit for
bit: layouts and gates have another order in PyTorch, and a bias of its own may be zero.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

Inputs = Mapping[str, np.ndarray]


def onnx(path: Path, inputs: Inputs) -> list[np.ndarray]:
    import onnxruntime

    return list(map(np.asarray, onnxruntime.InferenceSession(str(path)).run(None, dict(inputs))))


def savedmodel(path: Path, inputs: Inputs) -> list[np.ndarray]:
    import tensorflow as tf

    serve = tf.saved_model.load(str(path)).signatures["serving_default"]
    return [each.numpy() for each in serve(**{name: tf.constant(value) for name, value in inputs.items()}).values()]


def pt2(path: Path, inputs: Inputs) -> list[np.ndarray]:
    """Names that are none of Python's are called otherwise; which, the file says."""
    import torch

    extra = {"ckconv.json": ""}
    program = torch.export.load(str(path), extra_files=extra).module()
    called = json.loads(extra["ckconv.json"]).get("inputs", {})
    with torch.no_grad():
        found = program(**{called.get(name, name): torch.tensor(value) for name, value in inputs.items()})
    return [each.numpy() for each in (found.values() if isinstance(found, dict) else (found,))]


def numbers_lost(path: Path, weights: Sequence[np.ndarray]) -> str:
    """Return what is wrong with the numbers in a file of PyTorch, "" where all are there and no others."""
    import torch

    read = torch.load(path, weights_only=True)
    found = [each.numpy() for each in read.get("model_state_dict", read).values() if each.is_floating_point()]
    held, wanted = (_bits(arrays) for arrays in (found, weights))
    return "" if np.array_equal(held, wanted) else f"{len(held)} numbers, the source has {len(wanted)}"


def _bits(arrays: Sequence[np.ndarray]) -> np.ndarray:
    flat = [each.astype(np.float32).ravel() for each in arrays if np.issubdtype(each.dtype, np.floating)]
    bits = np.sort(np.concatenate(flat).view(np.uint32)) if flat else np.zeros(0, np.uint32)
    return bits[bits != 0]


def difference(outputs: Sequence[np.ndarray], found: Sequence[np.ndarray]) -> float:
    """How far outputs are off at the most, in terms of the largest; each is held against the nearest of its shape."""
    off = 0.0
    for wanted in outputs:
        scale = max(1.0, float(np.abs(wanted).max()))
        alike = [each for each in found if each.shape == wanted.shape]
        own = min((float(np.abs(each - wanted).max()) / scale for each in alike), default=np.inf)
        off = max(off, np.inf if np.isnan(own) else own)
    return off


def read(source: Path, name: str) -> Inputs:
    """Return the arrays of a file beside a source."""
    with np.load(source / f"{name}.npz") as arrays:
        return dict(arrays)


def judged(source: Path, target: Path) -> str:
    """Return a difference, or for weights alone "same numbers" or what is wrong with them."""
    if target.suffix == ".pth":
        return numbers_lost(target, list(read(source, "weights").values())) or "same numbers"
    run = {".onnx": onnx, ".pt2": pt2, "": savedmodel}[target.suffix]
    return f"{difference(list(read(source, 'outputs').values()), run(target, read(source, 'inputs'))):.1e}"


if __name__ == "__main__":
    sys.stdout.write(judged(*map(Path, sys.argv[1:])))
