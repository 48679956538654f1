"""What the targets' own loaders make of converted models, in strict mode: a table of models by targets.

    CKCONV_ORACLE_PYTHON=... python -m tests.oracle.loaders [class ...]

Twelve classes of transformers with ties, heads, decoders and buffers are saved by `save_pretrained` and converted to
every format. A cell is `ok` where nothing is missing, unexpected or of another shape, and every value is the source's;
where a target runs, what it computes is within 1e-4 of what the class of PyTorch does. What is wrong is listed below
the table, and the exit code is 1.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from torch.distributed.checkpoint.api import CheckpointException
from transformers.core_model_loading import revert_weight_conversion

import converter
from converter.errors import CkconvError
from tests.graphs.zoo import ZOO
from tests.oracle import environment

os.environ["HF_HUB_OFFLINE"] = "1"

CLASSES = (
    *("BertForMaskedLM", "RobertaForSequenceClassification", "DistilBertForQuestionAnswering", "AlbertForMaskedLM"),
    *("ElectraForPreTraining", "GPT2LMHeadModel", "OPTForCausalLM", "T5ForConditionalGeneration"),
    *("BartForConditionalGeneration", "MarianMTModel", "ViTForImageClassification", "ResNetForImageClassification"),
)
FILES = {
    "pytorch": "x.pth",
    "safetensors": "x.safetensors",
    "npz": "x.npz",
    "dcp": "dcp/",
    "pretrained": "pretrained/",
    "onnx": "x.onnx",
    "pt2": "x.pt2",
    "savedmodel": "savedmodel/",
    "tf-checkpoint": "tf-checkpoint/",
    "pretrained --flavor tf": "tf/",
    "pretrained --flavor flax": "flax/",
    "flax": "x.msgpack",
    "h5": "x.h5",
    "keras": "x.weights.h5",
}
TOLERANCE = 1e-4
RUN = ("onnx", "pt2", "savedmodel")
"""Targets that compute."""

State = Mapping[str, torch.Tensor]


def _in_files(model: Any) -> dict[str, torch.Tensor]:
    """Return the state dict under the names that tensors have in files: transformers 5 has others in memory of some."""
    return dict(revert_weight_conversion(model, model.state_dict()))


def _is_renamed(model: Any) -> bool:
    return set(_in_files(model)) != set(model.state_dict())


def _renamed(model: Any, state: State) -> Any:
    """Return a model of tensors that are called as in files, which `from_pretrained` renames and finds whole."""
    made, told = type(model).from_pretrained(
        None, config=model.config, state_dict=dict(state), output_loading_info=True
    )
    amiss = {key: sorted(found)[:3] for key, found in told.items() if found}
    if amiss:
        raise ValueError(str(amiss))
    return made.eval()


def _strictly(model: Any, state: State) -> Any:
    """Return a model of the class that `model` is of with a state dict, as `load_state_dict` takes it."""
    if _is_renamed(model):
        return _renamed(model, state)
    made = type(model)(model.config).eval()
    made.load_state_dict(dict(state), strict=True)
    return made


def _unlike(model: Any, made: Any) -> str:
    """Return which tensors of two models differ."""
    theirs = made.state_dict()
    wrong = [name for name, each in model.state_dict().items() if not torch.equal(each, theirs[name])]
    return f"other values: {wrong[:3]}" if wrong else ""


def pytorch(model: Any, path: Path) -> str:
    """Load a state dict."""
    return _unlike(model, _strictly(model, torch.load(path, weights_only=True)))


def _as_a_file(model: Any, held: State) -> str:
    """Load tensors by name as files of the class hold them: what is tied once, and not what the class computes."""
    if _is_renamed(model):
        return _unlike(model, _renamed(model, held))
    made = type(model)(model.config).eval()
    told = made.load_state_dict(dict(held), strict=False)
    made.tie_weights()
    left_out = {*made.all_tied_weights_keys, *(made._keys_to_ignore_on_save or ())}
    lacking = sorted(set(told.missing_keys) - left_out)
    return f"missing {lacking[:3]}" if lacking else str(told.unexpected_keys or _unlike(model, made))


def safetensors(model: Any, path: Path) -> str:
    """Open a file of safetensors."""
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        return _as_a_file(model, {name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118, it is no dict


def npz(model: Any, path: Path) -> str:
    """Load arrays."""
    with np.load(path, allow_pickle=False) as file:
        return _as_a_file(model, {name: torch.from_numpy(file[name]) for name in file.files})


def dcp(model: Any, path: Path) -> str:
    """Load a checkpoint of torch.distributed into a state dict, which has to name all that is there."""
    import torch.distributed.checkpoint as distributed

    state = {name: torch.zeros_like(each) for name, each in _in_files(model).items()}
    stored = set(distributed.FileSystemReader(path).read_metadata().state_dict_metadata)
    distributed.load(state, checkpoint_id=path, no_dist=True)
    if stored != set(state):
        return f"unexpected {sorted(stored - set(state))[:3]}"
    return _unlike(model, _strictly(model, state))


def pretrained(model: Any, path: Path) -> str:
    """Load a folder."""
    made, told = type(model).from_pretrained(path, output_loading_info=True)
    return str({key: sorted(found)[:3] for key, found in told.items() if found} or _unlike(model, made) or "")


def _inputs(model: Any, names: Mapping[str, str]) -> dict[str, np.ndarray[Any, Any]]:
    """Return something for each input, by name -> element type."""
    size = getattr(model.config, "image_size", 32)
    made: dict[str, np.ndarray[Any, Any]] = {}
    generator = np.random.default_rng(5)
    for name, dtype in names.items():
        if name == "pixel_values":
            made[name] = generator.random((2, 3, size, size), np.float32)
        elif "mask" in name:
            made[name] = np.ones((2, 6), dtype)
        elif "token_type" in name:
            made[name] = np.zeros((2, 6), dtype)
        else:
            made[name] = generator.integers(5, 45, (2, 6)).astype(dtype)
    return made


def _off(model: Any, inputs: Mapping[str, np.ndarray[Any, Any]], found: Mapping[str, Any]) -> str:
    """Return how far outputs are off those of the class."""
    with torch.no_grad():
        given = {name: torch.from_numpy(each) for name, each in inputs.items()}
        own = model(**{name: each.long() if each.dtype == torch.int32 else each for name, each in given.items()})
    off = {
        name: float(np.abs(np.asarray(each) - own[name].numpy()).max()) for name, each in found.items() if name in own
    }
    if not off:
        return f"none of its outputs is one of the class: {sorted(found)}"
    wrong = {name: each for name, each in off.items() if each > TOLERANCE}
    return f"off by {wrong}" if wrong else ""


def onnx(model: Any, path: Path) -> str:
    """Run a graph."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path))
    types = {
        each.name: {"tensor(float)": "float32", "tensor(int32)": "int32"}.get(each.type, "int64")
        for each in session.get_inputs()
    }
    inputs = _inputs(model, types)
    names = [each.name for each in session.get_outputs()]
    return _off(model, inputs, dict(zip(names, session.run(None, inputs), strict=True)))


def pt2(model: Any, path: Path) -> str:
    """Run a program of torch.export."""
    program = torch.export.load(path)
    names = list(program.call_spec.in_spec.child(1).context)
    inputs = _inputs(model, dict.fromkeys(names, "int64"))
    found = program.module()(**{name: torch.from_numpy(each) for name, each in inputs.items()})
    return _off(model, inputs, {name: each.detach().numpy() for name, each in found.items()})


def savedmodel(model: Any, path: Path) -> str:
    """Run what a SavedModel serves."""
    import tensorflow as tf

    serve = tf.saved_model.load(str(path)).signatures["serving_default"]
    types = {name: each.dtype.name for name, each in serve.structured_input_signature[1].items()}
    inputs = _inputs(model, types)
    found = serve(**{name: tf.constant(each) for name, each in inputs.items()})
    return _off(model, inputs, {name: each.numpy() for name, each in found.items()})


HERE: Mapping[str, Callable[[Any, Path], str]] = {
    "pytorch": pytorch,
    "safetensors": safetensors,
    "npz": npz,
    "dcp": dcp,
    "pretrained": pretrained,
    "onnx": onnx,
    "pt2": pt2,
    "savedmodel": savedmodel,
}


def saved(name: str, folder: Path) -> Any:
    """Save a model of a class with values that no initializer makes; return it."""
    model = next(each for each in ZOO if each.architecture == name)
    torch.manual_seed(7)
    made = getattr(transformers, name)(transformers.AutoConfig.for_model(**model.config)).eval()
    with torch.no_grad():
        for each in made.parameters():
            each.add_(torch.randn_like(each) * 0.02)
        for each in made.buffers():
            if each.is_floating_point():
                each.add_(torch.rand_like(each) * 0.1)
    made.save_pretrained(folder)
    return type(made).from_pretrained(folder).eval()


def converted(source: Path, target: str, path: Path) -> str:
    """Convert a folder; return what is wrong."""
    kind, _, flavor = target.partition(" --flavor ")
    options = {"flavor": flavor} if flavor else {}
    try:
        report = converter.convert(source, path, to=kind, durable=False, **options)
    except CkconvError as error:
        return f"refused: {error}"
    return "" if report.verification.weights else "not verified"


def problems(names: Iterable[str], targets: Collection[str], scratch: Path) -> dict[tuple[str, str], str]:
    """Return what is wrong with which class and target."""
    wrong: dict[tuple[str, str], str] = {}
    jobs = []
    for name in names:
        folder = scratch / name
        model = saved(name, folder / "source")
        for target in targets:
            path = folder / FILES[target]
            problem = converted(folder / "source", target, path)
            if not problem and target in HERE:
                try:
                    problem = HERE[target](model, path)
                except (Exception, CheckpointException) as error:  # whatever a loader raises
                    problem = f"{type(error).__name__}: {str(error)[:300]}"
            elif not problem:
                jobs.append({"class": name, "target": target, "path": str(path), "source": str(folder / "source")})
            wrong |= {(name, target): problem} if problem else {}
    asked = scratch / "jobs.json"
    asked.write_text(json.dumps(jobs))
    told = environment.run("tests.oracle.other_loaders", str(asked), timeout_seconds=3000)
    found = {(each["job"]["class"], each["job"]["target"]): each["problem"] for each in _lines(told)}
    for job in jobs:
        key = (job["class"], job["target"])
        wrong |= {key: found.get(key, "not told")} if found.get(key, "not told") else {}
    return wrong


def _lines(told: str) -> Iterator[dict[str, Any]]:
    yield from (json.loads(line) for line in told.splitlines() if line.startswith("{"))


def main(names: tuple[str, ...]) -> int:
    """Print the table; return the exit code."""
    with tempfile.TemporaryDirectory() as scratch:
        wrong = problems(names, FILES, Path(scratch))
    print(f"| class | {' | '.join(FILES)} |\n|---|{'---|' * len(FILES)}")
    for name in names:
        cells = ["wrong" if (name, target) in wrong else "ok" for target in FILES]
        print(f"| {name} | {' | '.join(cells)} |")
    count = len(names) * len(FILES)
    print(f"\n{count - len(wrong)} of {count} loaded whole")
    for (name, target), problem in wrong.items():
        print(f"- {name} -> {target}: {problem}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(tuple(sys.argv[1:]) or CLASSES))
