"""The model tests of ONNX (onnx.backend.test) as files: each is converted and run by its own names in the target.

    python -m tests.graphs.model_suite [--only PATTERN] [--to savedmodel|pt2]

Small graphs, those that early versions of PyTorch exported (opset 6, inputs called "0") with the outputs that they
recorded, and the nine well-known image models whose weights are made in the graph, against onnxruntime. Prints a table;
exit 1 for anything that is neither right nor excluded, and for an exclusion that is none.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np

import converter
from converter.errors import CkconvError

TARGETS = ("savedmodel", "pt2")
KINDS = ("simple", "pytorch-converted", "pytorch-operator", "light")
TOLERANCE = 1e-4
EXCLUDED = {
    "test_gradient_of_*": "asks for derivatives (ai.onnx.preview.training), which onnxruntime does not compute either",
    "test_strnorm_*": "tensors of text",
    "test_sequence_model8 savedmodel": "its Split has an input that the opset it says has no place for",
    "light_bvlc_alexnet savedmodel": "the model that is 4 KB of constants takes more than the limit of memory to build",
}
Arrays = Mapping[str, Any]


@dataclass(frozen=True)
class Case:
    """A file with inputs and the outputs that are expected, both by name."""

    name: str
    path: Path
    inputs: Arrays
    outputs: Arrays


def _data() -> Path:
    import onnx.backend.test

    return Path(onnx.backend.test.__file__).parent / "data"


def paths() -> list[Path]:
    """Return the files of all models."""
    found = []
    for kind in KINDS:
        pattern = "*.onnx" if kind == "light" else "*/model.onnx"
        found += sorted((_data() / kind).glob(pattern))
    return found


def name_of(path: Path) -> str:
    return path.stem if path.parent.name == "light" else path.parent.name


def case_of(path: Path) -> Case:
    """Read the inputs and outputs of a model; of one of the image models they are made."""
    import onnx

    graph = onnx.load(path).graph
    held = {each.name for each in graph.initializer}
    inputs = [each for each in graph.input if each.name not in held]
    if path.parent.name == "light":
        import onnxruntime

        fed = {each.name: _drawn(each) for each in inputs}
        names = [each.name for each in graph.output]
        outputs = dict(zip(names, onnxruntime.InferenceSession(path).run(names, fed), strict=True))
        return Case(name_of(path), path, fed, outputs)
    read = {kind: list(_values(path.parent / "test_data_set_0", kind)) for kind in ("input", "output")}
    given = {each.name: value for each, value in zip(inputs, read["input"], strict=False)}
    return Case(
        name_of(path), path, given, dict(zip((each.name for each in graph.output), read["output"], strict=True))
    )


def _drawn(value: Any) -> Any:
    extents = [extent.dim_value or 1 for extent in value.type.tensor_type.shape.dim]
    return np.random.default_rng(0).random(extents, np.float32)


def _values(folder: Path, kind: str) -> Iterator[Any]:
    import onnx

    for number in range(len(list(folder.glob(f"{kind}_*.pb")))):
        read = onnx.TensorProto()
        read.ParseFromString((folder / f"{kind}_{number}.pb").read_bytes())
        yield onnx.numpy_helper.to_array(read)


def savedmodel(path: Path, inputs: Arrays) -> Arrays:
    import tensorflow as tf

    serve = tf.saved_model.load(str(path)).signatures["serving_default"]
    return {name: each.numpy() for name, each in serve(**{name: tf.constant(x) for name, x in inputs.items()}).items()}


def pt2(path: Path, inputs: Arrays) -> Arrays:
    import torch

    extra = {"ckconv.json": ""}
    program = torch.export.load(str(path), extra_files=extra).module()
    called = json.loads(extra["ckconv.json"]).get("inputs", {})
    with torch.no_grad():
        found = program(**{called.get(name, name): torch.tensor(value) for name, value in inputs.items()})
    return {name: each.numpy() for name, each in found.items()}


RUN = {"savedmodel": savedmodel, "pt2": pt2}


def wrong_with(case: Case, target: str, folder: Path) -> str:
    """Convert and run a case; return what is wrong, "" for nothing."""
    written = folder / {"savedmodel": "model", "pt2": "model.pt2"}[target]
    try:
        converter.convert(case.path, written, to=target, overwrite=True, durable=False)
        found = RUN[target](written, case.inputs)
    except CkconvError as error:
        return f"exit {error.exit_code}: {error.message}"
    except Exception as error:  # what a framework raises is the outcome of this case
        return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    if set(found) != set(case.outputs):
        return f"outputs {sorted(found)}, expected {sorted(case.outputs)}"
    for name, wanted in case.outputs.items():
        got = found[name]
        if (got.shape, got.dtype) != (wanted.shape, wanted.dtype):
            return f"output {name} is {got.dtype}{list(got.shape)}, expected {wanted.dtype}{list(wanted.shape)}"
        if not np.allclose(got, wanted, rtol=TOLERANCE, atol=_atol(wanted), equal_nan=True):
            return f"output {name} differs by {np.abs(got - wanted).max():.1e}"
    return ""


def _atol(wanted: Any) -> float:
    finite = np.abs(wanted[np.isfinite(wanted)])
    return TOLERANCE * max(float(finite.max(initial=0)), float(np.finfo(np.float32).tiny))


def results(chosen: list[Path], targets: tuple[str, ...] = TARGETS) -> Iterator[tuple[str, str, str]]:
    """Yield name, target and what is wrong of each."""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for path in chosen:
            try:
                case = case_of(path)
            except Exception as error:  # inputs of another kind than tensors
                yield from ((name_of(path), target, f"is not read: {type(error).__name__}") for target in targets)
                continue
            yield from ((case.name, target, wrong_with(case, target, Path(folder))) for target in targets)


def is_excluded(name: str, target: str) -> bool:
    return any(fnmatchcase(f"{name} {target}", f"{pattern}*") for pattern in EXCLUDED)


def main(only: str, targets: tuple[str, ...]) -> int:
    """Print the table; return how many rows are otherwise than they should be."""
    counts = {"right": 0, "excluded": 0}
    others = 0
    print("| model | target | result |\n|---|---|---|")
    for name, target, wrong in results([path for path in paths() if fnmatchcase(name_of(path), only)], targets):
        is_expected = bool(wrong) == is_excluded(name, target)
        counts["excluded" if wrong else "right"] += is_expected
        others += not is_expected
        if wrong or not is_expected:
            print(f"| {name} | {target} | {wrong or 'passes, and is excluded'} |", flush=True)
    print(f"\n{counts['right']} right, {counts['excluded']} excluded, {others} otherwise")
    return others


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.graphs.model_suite", description=__doc__)
    parser.add_argument("--only", default="*")
    parser.add_argument("--to", choices=TARGETS)
    asked = parser.parse_args()
    sys.exit(bool(main(asked.only, (asked.to,) if asked.to else TARGETS)))
