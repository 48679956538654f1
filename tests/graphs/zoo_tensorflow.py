"""The TensorFlow half of the zoo, a process of its own: `python -m tests.graphs.zoo_tensorflow FOLDER CLASS...`.

It builds the SavedModel of what `zoo_torch` left in FOLDER/CLASS, opens it with TensorFlow alone, and leaves
`tensorflow.json`: how far outputs and gradients are from torch, and what is wrong with names.
"""

from __future__ import annotations

import json
import shutil
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
    import tensorflow as tf

    from converter.formats.savedmodel import variable_name
    from converter.graphs.lower.tensorflow.saved_model import build

    described = Signature.from_json(json.loads((folder / "architecture.json").read_text()))
    start, saved = time.monotonic(), folder / "saved"
    shutil.rmtree(saved, ignore_errors=True)
    build(
        graph=str(folder / "graph.onnx"),
        weights=str(folder / "model.safetensors"),
        folder=str(saved),
        trainable=list(described.parameters),
        names={name: variable_name(name) for name in (*described.parameters, *described.buffers)},
    )
    seconds = time.monotonic() - start
    model = tf.saved_model.load(str(saved))
    expected = read_sets(str(folder / "outputs.npz"))
    inputs = read_sets(str(folder / "inputs.npz"))
    worst = 0.0
    for number, arrays in inputs.items():
        found = model.signatures["serving_default"](**{name: tf.constant(array) for name, array in arrays.items()})
        worst = max(worst, difference({name: value.numpy() for name, value in found.items()}, expected[number]))
    answer = {"seconds": round(seconds, 1), "outputs": worst, "names": _wrong_names(model, described)}
    shutil.rmtree(saved)
    return {**answer, **_gradients(model, next(iter(inputs.values())), folder)}


def _wrong_names(model: Any, described: Signature) -> list[str]:
    """Return the variables that are not called as a tensor of the checkpoint, and the tensors without a variable."""
    from converter.formats.savedmodel import variable_name

    found = {variable.name.removesuffix(":0") for variable in model.variables}
    trainable = {variable.name.removesuffix(":0") for variable in model.trainable_variables}
    wanted = set(map(variable_name, described.parameters))
    return sorted((found ^ (wanted | set(map(variable_name, described.buffers)))) | (trainable ^ wanted))


def _gradients(model: Any, inputs: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Compare gradients with torch's: which there are, and by how much they differ at most, in units of their scale.

    Some are zero but for rounding (keys have biases that a softmax does not see): they count by the largest there is.
    """
    import tensorflow as tf

    variables = list(model.trainable_variables)
    with tf.GradientTape() as tape:
        outputs = [output for output in model(**inputs).values() if output.dtype.is_floating]
        loss = tf.add_n([tf.reduce_sum(tf.square(output)) for output in outputs])
    gradients = tape.gradient(loss, variables)
    found = {
        variable.name.removesuffix(":0"): tf.convert_to_tensor(gradient).numpy()
        for variable, gradient in zip(variables, gradients, strict=True)
        if gradient is not None
    }
    with np.load(folder / "gradients.npz") as archive:
        expected = dict(archive)
    largest = max((float(np.abs(each).max()) for each in expected.values() if each.size), default=0.0)
    worst, worst_name = 0.0, ""
    for name, value in expected.items():
        if name in found and value.size:
            scale = max(float(np.abs(value).max()), 1e-3 * largest, 1e-30)
            each = float(np.abs(found[name] - value).max()) / scale
            if not each <= worst:
                worst, worst_name = each, name
    return {
        "gradients": worst,
        "gradient_name": worst_name,
        "gradient_count": len(expected),
        "without_gradient": sorted(set(expected) - set(found)),
    }


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
        (folder / "tensorflow.json.part").write_text(json.dumps(answer))
        (folder / "tensorflow.json.part").rename(folder / "tensorflow.json")
        print(architecture, {k: v for k, v in answer.items() if k != "trace"}, flush=True)


if __name__ == "__main__":
    main()
