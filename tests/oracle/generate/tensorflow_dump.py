"""Builds every TensorFlow model small and writes down what it is made of, for the scripts that make tables and tests.

    TF_USE_LEGACY_KERAS=1 python -m tests.oracle.generate.tensorflow_dump FOLDER [family ...]

makes FOLDER/<class>.<variant>/ with tf_model.h5, config.json, expected.safetensors (what the PyTorch class saves) and
dump.json: the groups of the file, variables and PyTorch's tensors in order with shapes, ties, and which tensor each
variable is, told by its values. FOLDER/failed.json says what could not be built, and why.
"""

from __future__ import annotations

import copy
import hashlib
import importlib.metadata
import itertools
import json
import shutil
import sys
import tempfile
import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tests.oracle.generate import tensorflow_models as models

_AXES = {0: "", 1: "n", 2: "i o", 3: "x i o", 4: "y x i o", 5: "z y x i o"}
_STANDARD = {2: (1, 0), 3: (2, 1, 0), 4: (3, 2, 0, 1), 5: (4, 3, 0, 1, 2)}


def pattern(theirs: np.ndarray, ours: np.ndarray, name: str) -> str | None:
    """Return how one array becomes the other, "" when they are alike; None when it cannot be said in a pattern."""
    rank = theirs.ndim
    axes = _AXES[rank].split()
    orders = [
        tuple(range(rank)),
        *([_STANDARD[rank]] if rank in _STANDARD else []),
        *itertools.permutations(range(rank)),
    ]
    if "kernel" in name.rpartition("/")[2]:
        orders = [*orders[1:], orders[0]]
    for order in orders:
        turned = theirs.transpose(order)
        if turned.shape == ours.shape and np.array_equal(turned, ours):
            is_same = order == tuple(range(rank))
            return "" if is_same else f"{' '.join(axes)} -> {' '.join(axes[axis] for axis in order)}"
    for order in orders:
        turned = theirs.transpose(order)
        if np.array_equal(turned.ravel(), ours.ravel()):
            return _with_ones(theirs.shape, order, ours.shape, axes)
    return None


def _with_ones(before: tuple[int, ...], order: tuple[int, ...], after: tuple[int, ...], axes: list[str]) -> str | None:
    """Return the pattern of two shapes that differ in axes of one element."""
    named = ["1" if extent == 1 else axis for extent, axis in zip(before, axes, strict=True)]
    waiting = [named[axis] for axis in order if named[axis] != "1"]
    if len(waiting) != sum(extent != 1 for extent in after):
        return None
    right = [waiting.pop(0) if extent != 1 else "1" for extent in after]
    return f"{' '.join(named)} -> {' '.join(right)}".rstrip()


def fingerprint(array: np.ndarray) -> str:
    """Return what is the same for all arrangements of the same values."""
    is_float = np.issubdtype(array.dtype, np.floating)
    flat = np.sort(np.ascontiguousarray(array if is_float else array.astype(np.int64)).ravel())
    return f"{flat.size} {hashlib.sha256(flat.tobytes()).hexdigest()}"


def mapping(
    variables: Mapping[str, np.ndarray], tensors: Mapping[str, np.ndarray]
) -> dict[str, list[list[str | None]]]:
    """Return variable -> [[tensor, pattern], ...] of all tensors that hold its values."""
    by_values: dict[str, list[str]] = {}
    for name, array in tensors.items():
        by_values.setdefault(fingerprint(array), []).append(name)
    found = {}
    for name, array in variables.items():
        same = by_values.get(fingerprint(array), [])
        found[name] = [[other, pattern(array, tensors[other], name)] for other in same]
    return found


def groups(path: Path) -> list[tuple[str, list[str]]]:
    """Return the layers of an HDF5 file in order, each with the names of its weights in order."""
    import h5py

    with h5py.File(path) as file:
        layers = [name.decode() if isinstance(name, bytes) else name for name in file.attrs["layer_names"]]
        return [
            (layer, [name.decode() if isinstance(name, bytes) else name for name in file[layer].attrs["weight_names"]])
            for layer in layers
        ]


def containers(torch_model: Any) -> dict[str, list[str]]:
    """Return the path of every list of modules -> the classes of its items."""
    import torch

    kinds = (torch.nn.ModuleList, torch.nn.Sequential, torch.nn.ParameterList)
    return {
        path: [type(module).__name__, *(type(item).__name__ for item in module.children())]
        for path, module in torch_model.named_modules()
        if isinstance(module, kinds)
    }


def ties(torch_model: Any, saved: set[str]) -> dict[str, str]:
    """Return the names that save_pretrained leaves out -> the name that it keeps of the same tensor."""
    places: dict[tuple[Any, ...], list[str]] = {}
    for name, tensor in torch_model.state_dict(keep_vars=True).items():
        places.setdefault((tensor.data_ptr(), tuple(tensor.shape), tensor.stride()), []).append(name)
    found = {}
    for names in places.values():
        kept = [name for name in names if name in saved]
        found.update({name: kept[0] for name in names if kept and name not in saved})
    return found


def state_of(torch_model: Any) -> dict[str, np.ndarray]:
    """Return the state dict as arrays."""
    return {name: tensor.detach().numpy() for name, tensor in torch_model.state_dict().items()}


def is_tied(config: Any) -> bool:
    """Whether a config ties word embeddings."""
    return bool(getattr(config, "tie_word_embeddings", True))


def is_tied_by_default(config_class: Any) -> bool:
    """Whether a config ties word embeddings that does not say so; those of composites need their parts."""
    return is_tied(object() if config_class.has_no_defaults_at_init else config_class())


def ties_when_tied(torch_model: Any) -> dict[str, str]:
    """Return the ties that the class has when its config ties word embeddings."""
    config = copy.deepcopy(torch_model.config)
    config.tie_word_embeddings = True
    tied = type(torch_model)(config)
    with tempfile.TemporaryDirectory() as scratch:
        from safetensors.numpy import load_file

        try:
            tied.save_pretrained(scratch, max_shard_size="10GB")
        except RuntimeError:  # ties that the class cannot save
            return {}
        return ties(tied, set(load_file(Path(scratch) / "model.safetensors")))


def retie(torch_model: Any, could_tie: Mapping[str, str], found: Mapping[str, list[Any]]) -> dict[str, str]:
    """Give untied tensors that no variable holds the values of what TensorFlow ties them to; return which ones."""
    state = torch_model.state_dict()
    held = {name for same in found.values() for name, _ in same}
    always = {alias: owner for alias, owner in could_tie.items() if alias not in held and owner in held}
    for alias, owner in always.items():
        if state[alias].shape == state[owner].shape:
            state[alias].copy_(state[owner])
    return always


def dump(class_name: str, family: str, model_class: Any, variant: int, folder: Path) -> None:
    """Write down one model."""
    from safetensors.numpy import load_file

    pair = models.build(class_name, family, model_class, variant)
    model = pair.tensorflow
    variables = {variable.name: variable.numpy() for variable in model.weights}
    could_tie = ties_when_tied(pair.torch)
    always_tied = retie(pair.torch, could_tie, mapping(variables, state_of(pair.torch)))
    state = state_of(pair.torch)
    with tempfile.TemporaryDirectory() as scratch:
        pair.torch.save_pretrained(scratch, max_shard_size="10GB")
        weights = Path(scratch) / "model.safetensors"
        tensors = load_file(weights)
        model.save_pretrained(folder)
        shutil.copy(weights, folder / "expected.safetensors")
    document = {
        "class": class_name,
        "torch_class": class_name[2:],
        "family": family,
        "model_type": model.config.model_type,
        "variant": variant,
        "is_tied": is_tied(model.config),
        "tied_by_default": is_tied_by_default(type(model.config)),
        "prefix": type(pair.torch).base_model_prefix,
        "tensorflow_prefix": model_class.base_model_prefix,
        "is_base": not hasattr(pair.torch, type(pair.torch).base_model_prefix),
        "layers": groups(folder / "tf_model.h5"),
        "variables": {name: list(array.shape) for name, array in variables.items()},
        "state": {name: list(array.shape) for name, array in state.items()},
        "dtypes": {name: str(array.dtype) for name, array in state.items()},
        "saved": sorted(tensors),
        "ties": ties(pair.torch, set(tensors)),
        "could_tie": could_tie,
        "always_tied": always_tied,
        "containers": containers(pair.torch),
        "missing": pair.missing,
        "unused": pair.unused,
        "mapping": mapping(variables, state),
    }
    (folder / "dump.json").write_text(json.dumps(document, indent=1))


def versions() -> dict[str, str]:
    """Return what the models were built with."""
    packages = ("transformers", "tensorflow", "tf_keras", "torch")
    return {package: importlib.metadata.version(package) for package in packages}


def _wanted(families: list[str]) -> Iterator[tuple[str, str, Any, int]]:
    return (entry for entry in models.variants() if not families or entry[1] in families)


def main(folder: Path, families: list[str]) -> None:
    """Write down every model of some families, or of all."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "versions.json").write_text(json.dumps(versions()))
    failed_file = folder / "failed.json"
    for class_name, family, model_class, variant in _wanted(families):
        own = folder / f"{class_name}.{variant}"
        if (own / "dump.json").exists():
            continue
        shutil.rmtree(own, ignore_errors=True)
        own.mkdir(parents=True)
        try:
            dump(class_name, family, model_class, variant, own)
        except Exception as error:  # what cannot be built is a result, too
            shutil.rmtree(own)
            failed = json.loads(failed_file.read_text()) if failed_file.exists() else {}
            failed[f"{class_name}.{variant}"] = f"{type(error).__name__}: {str(error)[:300]}"
            failed_file.write_text(json.dumps(failed, indent=1))
            traceback.print_exc(limit=-3)
            print("FAILED", class_name, variant, flush=True)
        else:
            print("ok", class_name, variant, flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
