"""The torch half of the zoo, a process of its own: `python -m tests.graphs.zoo_torch FOLDER CLASS...`.

For each model it leaves FOLDER/CLASS: what save_pretrained writes (random weights), the traced graph and its
description, the sets of inputs that a verification compares on, torch's outputs for them, gradients for the first, and
`torch.json`, which is written last: how far onnxruntime is from torch, or what went wrong.
"""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Any

os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1")

from tests.graphs.zoo import OTHERS, ZOO, Model

MODELS = {model.architecture: model for model in (*ZOO, *OTHERS)}


def prepare(model: Model, folder: Path) -> dict[str, Any]:
    """Write everything that the TensorFlow half needs into `folder`; return what is to be reported."""
    import numpy as np
    import torch

    from converter.graphs.description.cases import sample_cases
    from converter.graphs.description.signature import Signature
    from converter.graphs.run.arrays import write_arrays
    from converter.graphs.run.transformers import named_tensors
    from converter.graphs.trace.model_building import model_class, model_config
    from converter.graphs.trace.transformers import trace

    torch.manual_seed(1)
    class_ = model_class(model.architecture)
    source = class_(model_config(class_, model.config)).eval()
    _disturb(source)
    source.save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps(model.config))

    start = time.monotonic()
    described = trace(
        config=str(folder / "config.json"), architecture=model.architecture, graph=str(folder / "graph.onnx")
    )
    seconds = time.monotonic() - start
    (folder / "architecture.json").write_text(json.dumps(described))
    architecture = Signature.from_json(described)

    inputs: dict[str, Any] = {}
    results: dict[str, Any] = {}
    left_out: dict[str, str] = {}
    for case in sample_cases(architecture).cases:
        try:
            outputs = named_tensors(source(**{name: torch.from_numpy(array) for name, array in case.arrays.items()}))
        except (IndexError, RuntimeError, ValueError) as error:
            left_out[case.name] = str(error)
            continue
        if not results:
            trained = [output for output in outputs.values() if output.requires_grad]
            if trained:
                sum((output**2).sum() for output in trained).backward()
        inputs.update({f"{case.name}/{name}": array for name, array in case.arrays.items()})
        results.update({f"{case.name}/{name}": output.detach().numpy() for name, output in outputs.items()})
    write_arrays(str(folder / "inputs.npz"), inputs)
    write_arrays(str(folder / "outputs.npz"), results)
    np.savez(folder / "gradients.npz", **_gradients(source, described["ties"]))
    return {"seconds": round(seconds, 1), "left_out": left_out, "onnx": _difference(folder)}


def _disturb(source: Any) -> None:
    """Give every parameter, and the statistics of normalisations, values that are not those of a fresh model."""
    import torch

    from converter.graphs.trace.model_building import unsaved_parameters

    with torch.no_grad():
        for name, parameter in source.named_parameters():
            if parameter.requires_grad and name not in unsaved_parameters(source):
                parameter.add_(torch.randn_like(parameter) * 0.1)
        for name, buffer in source.named_buffers():
            if name.endswith(("running_mean", "running_var")):
                buffer.add_(torch.rand_like(buffer) * 0.5)
    for module in source.modules():
        name = type(module).__name__
        is_of_positions = any(word in name for word in ("Sinusoidal", "Positional"))  # they number by the padding
        if (isinstance(module, torch.nn.Embedding) or name == "QuantEmbedding") and not is_of_positions:
            # Keeps gradients from the padding row, which is no part of the computation that a graph describes.
            module.padding_idx = None


def _gradients(source: Any, ties: dict[str, str]) -> dict[str, Any]:
    """Return the gradients in the form in which save_pretrained writes the parameters they are of."""
    import torch
    from transformers.core_model_loading import revert_weight_conversion

    found = {
        name: torch.full_like(parameter, torch.nan) if parameter.grad is None else parameter.grad
        for name, parameter in source.named_parameters(remove_duplicate=False)
    }
    saved = revert_weight_conversion(source, found)
    return {ties.get(name, name): each.numpy() for name, each in saved.items() if not each.isnan().any()}


def _difference(folder: Path) -> float:
    """Run the graph in onnxruntime, as ONNX files get it, with the weights of the file; return how far it is."""
    import numpy as np
    import onnx_ir
    import onnxruntime
    from safetensors.numpy import load_file

    from converter.formats.onnx import FORMAT
    from converter.graphs.passes.precision import compute_exactly
    from converter.graphs.run.arrays import read_sets

    model, weights = onnx_ir.load(folder / "graph.onnx"), load_file(folder / "model.safetensors")
    for name, value in model.graph.initializers.items():
        if isinstance(value.const_value, onnx_ir.ExternalTensor):
            value.const_value = onnx_ir.tensor(weights[name], name=name)
    compute_exactly(model, FORMAT.inexact)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(onnx_ir.to_proto(model).SerializeToString(), options)
    names = [each.name for each in session.get_outputs()]
    worst, expected = 0.0, read_sets(str(folder / "outputs.npz"))
    _check_power(expected)
    for number, arrays in read_sets(str(folder / "inputs.npz")).items():
        found = dict(zip(names, session.run(names, arrays), strict=True))
        worst = max(worst, difference(found, expected[number]))
    assert np.isfinite(worst)
    return worst


def _check_power(outputs: dict[str, dict[str, Any]]) -> None:
    """Raise UnprovenError where the program would say of right outputs that they, or one of them, prove nothing."""
    from converter.errors import UnprovenError
    from converter.proof.comparing import compare_outputs, unproven_reason

    told = {f"{case}/{name}": array for case, arrays in outputs.items() for name, array in arrays.items()}
    unproven = compare_outputs(told, told, path=Path(), atol=None, rtol=None).unproven
    if unproven:
        raise UnprovenError(unproven_reason(unproven))


def difference(found: dict[str, Any], expected: dict[str, Any]) -> float:
    """Return the largest difference in units of an output's scale. Raises AssertionError where they are not alike.

    Raises VerificationError where the program's own comparison takes them for different. That one set alone proves
    nothing (a text of one token) is no matter: the program judges all of them together.
    """
    import numpy as np

    from converter.errors import UnprovenError
    from converter.proof.comparing import compare_outputs

    assert set(found) == set(expected), f"outputs {sorted(found)}, torch has {sorted(expected)}"
    worst = 0.0
    for name, value in expected.items():
        each = np.asarray(found[name])
        assert each.shape == value.shape, f"{name} has shape {each.shape}, in torch {value.shape}"
        assert np.isfinite(value).all() == np.isfinite(each).all(), f"{name} is not finite"
        if value.size and np.isfinite(value).all():
            scale = max(float(np.abs(value).max()), 1e-3)
            worst = max(worst, float(np.abs(each.astype(np.float64) - value.astype(np.float64)).max()) / scale)
    ours, theirs = ({f"0/{name}": np.asarray(each) for name, each in side.items()} for side in (expected, found))
    with suppress(UnprovenError):
        compare_outputs(ours, theirs, path=Path(), atol=None, rtol=None)
    return worst


def main() -> None:
    """Prepare each class named on the command line; a failure of one does not stop the next."""
    root = Path(sys.argv[1])
    for architecture in sys.argv[2:]:
        folder = root / architecture
        folder.mkdir(parents=True, exist_ok=True)
        try:
            answer = prepare(MODELS[architecture], folder)
        except Exception as error:
            first = next(iter(str(error).splitlines()), "")
            answer = {"error": f"{type(error).__name__}: {first[:400]}", "trace": traceback.format_exc()}
        (folder / "torch.json.part").write_text(json.dumps(answer))
        (folder / "torch.json.part").rename(folder / "torch.json")
        print(architecture, {k: v for k, v in answer.items() if k != "trace"}, flush=True)


if __name__ == "__main__":
    main()
