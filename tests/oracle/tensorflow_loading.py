"""Loads what was written for TensorFlow's classes with transformers 4.57.6, beside what it makes of PyTorch's weights.

    TF_USE_LEGACY_KERAS=1 python -m tests.oracle.tensorflow_loading SOURCES WRITTEN REPORT [pattern]

Both folders have <class>.<variant>/ folders: what the PyTorch class saved, and what was written of it, a folder of
`--flavor tf` or a TensorFlow checkpoint. REPORT gets one line of JSON for each: class, variant, the keys that are
missing or unexpected, the largest difference of an output, or the error.
"""

from __future__ import annotations

import copy
import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np

from tests.oracle.generate.tensorflow_models import complete


def loaded(class_name: str, folder: Path) -> tuple[Any, dict[str, list[str]]]:
    """Return the TensorFlow model of a folder and what its loader says, as in a process that made no other model."""
    import tf_keras
    import transformers

    tf_keras.backend.clear_session()
    if (folder / "ckpt.index").exists():
        return restored(getattr(transformers, class_name), folder), {"missing": [], "unexpected": []}
    model, told = getattr(transformers, class_name).from_pretrained(folder, output_loading_info=True)
    return model, {key: sorted(map(str, told[f"{key}_keys"])) for key in ("missing", "unexpected")}


def restored(model_class: Any, folder: Path) -> Any:
    """Return a model with all that a TensorFlow checkpoint has, which is all of the model. Raises AssertionError."""
    import tensorflow

    model = model_class(model_class.config_class.from_pretrained(folder))
    model.build_in_name_scope()
    with suppress(Exception):  # some parts are built by a call alone, and some variants cannot take the dummy inputs
        model(model.dummy_inputs, training=False)
    for variable in model.weights:
        if variable.dtype.is_floating:
            variable.assign(tensorflow.fill(variable.shape, float("nan")))
    tensorflow.train.Checkpoint(model).restore(str(folder / "ckpt")).assert_consumed()
    return model


def referenced(class_name: str, source: Path, config: Any = None) -> tuple[Any, list[str]]:
    """Return the TensorFlow model that transformers makes of PyTorch's weights, and which variables it does not find.

    `config` is that of the weights unless another is given.
    """
    import transformers
    from transformers.modeling_tf_pytorch_utils import load_pytorch_weights_in_tf2_model

    torch_model = getattr(transformers, class_name[2:]).from_pretrained(source)
    made = getattr(transformers, class_name)(torch_model.config if config is None else config)
    made.build_in_name_scope()
    made, told = load_pytorch_weights_in_tf2_model(
        made,
        torch_model.state_dict(),
        tf_inputs={},
        allow_missing_keys=True,
        output_loading_info=True,
        tf_to_pt_weight_rename=getattr(made, "tf_to_pt_weight_rename", None),
    )
    complete(made, torch_model.state_dict())
    return made, list(told["missing_keys"])


def difference(class_name: str, model: Any, source: Path) -> tuple[float, str]:
    """Return how far a model is from the one that transformers itself makes of PyTorch's weights, and in what.

    That is in the outputs, relative to the largest value; in the variables where the class cannot run its own example.
    """
    reference, missing = referenced(class_name, source, copy.deepcopy(model.config))
    try:
        inputs = example_inputs(model)  # random in some classes, so the same for both
        outputs, expected = (_outputs(each, inputs) for each in (model, reference))
    except Exception:  # the example inputs of several classes are not their own
        outputs, expected = ([v.numpy() for v in each.weights if not missing] for each in (model, reference))
        return _largest(outputs, expected), "variables"
    return _largest(outputs, expected), "outputs"


def example_inputs(model: Any) -> dict[str, Any]:
    """Return what a model takes: the class's own example, or, of RAG, documents that a retriever would have found."""
    import tensorflow

    if model.config.model_type != "rag":
        return dict(model.dummy_inputs)
    documents, length = 2 * model.config.n_docs, 7
    return {
        "input_ids": tensorflow.constant([[3, 4, 5], [6, 7, 8]]),
        "decoder_input_ids": tensorflow.constant([[2, 9, 10, 11], [2, 12, 13, 14]]),
        "context_input_ids": tensorflow.reshape(tensorflow.range(3, 3 + documents * length), (documents, length)),
        "context_attention_mask": tensorflow.ones((documents, length), tensorflow.int32),
        "doc_scores": tensorflow.constant([[0.5, -0.25], [1.5, 0.75]]),
    }


def _outputs(model: Any, inputs: Mapping[str, Any]) -> list[np.ndarray[Any, Any]]:
    import tensorflow

    tensorflow.random.set_seed(0)  # classes that mask at random do so in evaluation, too
    outputs = [*_arrays(model(dict(inputs), training=False))]
    if model.config.model_type == "rag":  # which leaves its encoder of questions to the retriever
        outputs += _arrays(model.question_encoder(inputs["input_ids"], training=False))
    return outputs


def _arrays(value: Any) -> Iterator[np.ndarray[Any, Any]]:
    if isinstance(value, Mapping):
        value = tuple(value.values())
    if isinstance(value, (tuple, list)):
        for item in value:
            yield from _arrays(item)
    elif hasattr(value, "numpy") and value.dtype.is_floating:
        yield value.numpy()


def _largest(ours: list[np.ndarray[Any, Any]], theirs: list[np.ndarray[Any, Any]]) -> float:
    """Return the largest difference. Raises ValueError when there is nothing to compare, or it is not alike."""
    if not ours or [each.shape for each in ours] != [each.shape for each in theirs]:
        raise ValueError("nothing that can be compared")
    pairs = [(a, b) for a, b in zip(ours, theirs, strict=True) if a.size]
    return max(float(np.max(np.abs(a - b)) / max(1.0, float(np.max(np.abs(b))))) for a, b in pairs)


def checked(name: str, source: Path, written: Path) -> dict[str, Any]:
    """Return the line of one model."""
    class_name, _, variant = name.rpartition(".")
    line: dict[str, Any] = {"class": class_name, "variant": int(variant)}
    try:
        model, told = loaded(class_name, written)
    except Exception as error:  # a result, too
        return {**line, "error": f"load: {type(error).__name__}: {str(error)[:300]}"}
    line |= told
    try:
        line["difference"], line["in"] = difference(class_name, model, source)
    except Exception as error:
        line["error"] = f"outputs: {type(error).__name__}: {str(error)[:300]}"
    return line


def main(sources: Path, written: Path, report: Path, pattern: str = "*") -> None:
    """Write the report."""
    with report.open("w") as file:
        for folder in sorted(written.iterdir()):
            if fnmatchcase(folder.name, pattern):
                print(json.dumps(checked(folder.name, sources / folder.name, folder)), file=file, flush=True)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:4]), *sys.argv[4:5])
