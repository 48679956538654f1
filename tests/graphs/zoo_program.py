"""The zoo through the lowering to PyTorch, a process of its own: `python -m tests.graphs.zoo_program FOLDER CLASS...`.

It makes a module of what `zoo_torch` left in FOLDER/CLASS, and a torch.export program of that, and leaves
`program.json`: how far the outputs of both and the module's gradients are from the class's own, what is wrong with
names, or what went wrong.
"""

from __future__ import annotations

import json
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import numpy as np

from converter.graphs.description.signature import Signature
from converter.graphs.run.arrays import read_sets
from tests.graphs.zoo_torch import difference


def examine(folder: Path) -> dict[str, Any]:
    """Return what is to be reported of the model in `folder`."""
    import onnx_ir
    import torch
    from safetensors.torch import load_file

    from converter.graphs.lower.torch.module import lower
    from converter.graphs.lower.torch.program import exported, samples

    described = Signature.from_json(json.loads((folder / "architecture.json").read_text()))
    tensors = load_file(folder / "model.safetensors")
    tensors = {name: tensors[name] for name in (*described.parameters, *described.buffers) if name in tensors}
    trained = [name for name in described.parameters if name in tensors]
    start = time.monotonic()
    module = lower(onnx_ir.load(folder / "graph.onnx"), tensors, trainable=trained)
    traced, dynamic = samples(described)
    program = exported(module, traced, dynamic).module()
    seconds = time.monotonic() - start
    expected = read_sets(str(folder / "outputs.npz"))
    inputs = read_sets(str(folder / "inputs.npz"))
    worst = {"module": 0.0, "program": 0.0}
    for number, arrays in inputs.items():
        given = {name: torch.from_numpy(array) for name, array in arrays.items()}
        for which, run in (("module", module), ("program", program)):
            with torch.no_grad():
                found = {name: value.numpy() for name, value in run(**given).items()}
            worst[which] = max(worst[which], difference(found, expected[number]))
    parameters = {name for name, _ in module.named_parameters()}
    wrong = sorted((set(module.state_dict()) ^ set(tensors)) | (parameters ^ set(trained)))
    return {
        "seconds": round(seconds, 1),
        **worst,
        "names": wrong,
        **_gradients(module, next(iter(inputs.values())), folder),
    }


def _gradients(module: Any, arrays: dict[str, Any], folder: Path) -> dict[str, Any]:
    import torch

    outputs = module(**{name: torch.from_numpy(array) for name, array in arrays.items()})
    sum((output**2).sum() for output in outputs.values() if output.requires_grad).backward()
    found = {name: each.grad.numpy() for name, each in module.named_parameters() if each.grad is not None}
    with np.load(folder / "gradients.npz") as archive:
        expected = dict(archive)
    largest = max((float(np.abs(each).max()) for each in expected.values() if each.size), default=0.0)
    worst = 0.0
    for name, value in expected.items():
        if name in found and value.size:
            scale = max(float(np.abs(value).max()), 1e-3 * largest, 1e-30)
            worst = max(worst, float(np.abs(found[name] - value).max()) / scale)
    return {"gradients": worst, "without_gradient": sorted(set(expected) - set(found))}


def main() -> None:
    """Examine each class named on the command line; a failure of one does not stop the next."""
    root = Path(sys.argv[1])
    for architecture in sys.argv[2:]:
        folder = root / architecture
        try:
            answer = examine(folder)
        except Exception as error:
            first = " ".join(str(error).split())
            answer = {"error": f"{type(error).__name__}: {first[:400]}", "trace": traceback.format_exc()}
        (folder / "program.json").write_text(json.dumps(answer))
        print(architecture, {k: v for k, v in answer.items() if k != "trace"}, flush=True)


if __name__ == "__main__":
    main()
