"""Builds every Flax model small and writes down what it is made of, for the table's script and for tests.

    python -m tests.oracle.generate.flax_dump FOLDER [family ...]

makes FOLDER/<class>.<variant>/ with flax_model.msgpack, config.json, expected.safetensors (what the PyTorch class
saves), inputs.npz, outputs.npz (of Flax) and dump.json. FOLDER/failed.json says what could not be built, and why.
"""

from __future__ import annotations

import inspect
import json
import shutil
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tests.oracle.generate import flax_models as models
from tests.oracle.generate.tensorflow_dump import containers, ties

_STEPS = 7


def inputs_of(model: Any) -> dict[str, np.ndarray]:
    """Return small inputs of the first kind that a model takes."""
    generator = np.random.default_rng(0)
    names = set(inspect.signature(type(model).__call__).parameters)
    family, config = model.config.model_type, model.config
    tokens = generator.integers(3, 50, (2, _STEPS)).astype(np.int32)
    if type(model).__name__.endswith("MultipleChoice"):
        tokens = tokens[:, None].repeat(2, axis=1)
    if getattr(config, "eos_token_id", None) is not None:
        tokens[..., -1] = config.eos_token_id
    given: dict[str, np.ndarray] = {}
    if "token_type_ids" in names and "decoder_input_ids" not in names:  # Flax's ELECTRA has ones by default
        given["token_type_ids"] = np.zeros_like(tokens)
    if "pixel_values" in names:
        vision = next((getattr(config, key) for key in ("vision_config", "encoder") if hasattr(config, key)), config)
        size = getattr(vision, "image_size", 64)
        given["pixel_values"] = generator.normal(0.0, 1.0, (2, 3, size, size)).astype(np.float32)
    if "input_features" in names:
        frames = 2 * config.max_source_positions
        given["input_features"] = generator.normal(0.0, 1.0, (2, config.num_mel_bins, frames)).astype(np.float32)
    if "input_values" in names or family == "speech-encoder-decoder":
        key = "input_values" if "input_values" in names else "inputs"
        given[key] = generator.normal(0.0, 1.0, (2, 400)).astype(np.float32)
    if "input_ids" in names:
        given["input_ids"] = tokens
    if "decoder_input_ids" in names:
        given["decoder_input_ids"] = tokens[:, ::-1].copy()
    return given


def flax_outputs(model: Any, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the outputs of a Flax model by name."""
    import jax.numpy as jnp

    found = model(**{key: jnp.asarray(value) for key, value in inputs.items()}, return_dict=True)
    return {key: np.asarray(value, np.float32) for key, value in found.items() if hasattr(value, "shape")}


def torch_outputs(model: Any, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the outputs of a PyTorch model by name."""
    import torch

    known = inspect.signature(type(model).forward).parameters
    given: dict[str, Any] = {
        key: torch.from_numpy(value.astype(np.int64) if value.dtype == np.int32 else value)
        for key, value in inputs.items()
        if key in known
    }
    if "use_cache" in known:  # BART's decoder alone makes a cache of as many layers as an encoder would have
        given["use_cache"] = False
    with torch.no_grad():
        found = model(**given, return_dict=True)
    return {key: value.numpy() for key, value in found.items() if isinstance(value, torch.Tensor)}


def difference(ours: Mapping[str, np.ndarray], theirs: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Return the largest difference of each output that both have in one shape, relative to its largest value."""
    found = {}
    for key in ours.keys() & theirs.keys():
        if ours[key].shape == theirs[key].shape:
            scale = max(1.0, float(np.abs(theirs[key]).max()))
            found[key] = float(np.abs(ours[key] - theirs[key]).max()) / scale
    return dict(sorted(found.items()))


def dump(class_name: str, family: str, model_class: Any, variant: int, folder: Path) -> None:
    """Write down one model."""
    from safetensors.numpy import load_file

    model = models.build(class_name, family, model_class, variant)
    pair = models.in_torch(model)
    with tempfile.TemporaryDirectory() as scratch:
        pair.torch.save_pretrained(scratch, max_shard_size="10GB")
        shutil.copy(Path(scratch) / "model.safetensors", folder / "expected.safetensors")
    model.save_pretrained(folder)
    saved = load_file(folder / "expected.safetensors")
    try:
        inputs = inputs_of(model)
        theirs = flax_outputs(model, inputs)
        np.savez(folder / "inputs.npz", **inputs)
        np.savez(folder / "outputs.npz", **theirs)
        outputs: Any = difference(torch_outputs(pair.torch, inputs), theirs)
    except Exception as error:  # a model that cannot be run is a result, too
        outputs = f"{type(error).__name__}: {str(error)[:200]}"
    state = pair.torch.state_dict()
    constants = {name for name, _ in pair.torch.named_buffers()} - set(state)
    document = {
        "class": class_name,
        "torch_class": type(pair.torch).__name__,
        "family": family,
        "model_type": model.config.model_type,
        "variant": variant,
        "prefix": type(pair.torch).base_model_prefix,
        "is_base": not hasattr(pair.torch, type(pair.torch).base_model_prefix),
        "leaves": {"/".join(path): list(leaf.shape) for path, leaf in models.flat(model.params).items()},
        "state": {name: list(tensor.shape) for name, tensor in state.items()},
        "saved": sorted(saved),
        "ties": ties(pair.torch, set(saved)),
        "containers": containers(pair.torch),
        "constants": sorted(constants),
        "mapping": {"/".join(path): list(row) for path, row in pair.mapping.items()},
        "left": ["/".join(path) for path in pair.left],
        "missing": pair.missing,
        "loader": pair.loader,
        "outputs": outputs,
    }
    (folder / "dump.json").write_text(json.dumps(document, indent=1))
    print("ok", class_name, variant, pair.loader, outputs, flush=True)


def main(folder: Path, families: list[str]) -> None:
    """Write down every model of some families, or of all."""
    failed_file = folder / "failed.json"
    for class_name, family, model_class, variant in models.variants():
        own = folder / f"{class_name}.{variant}"
        if (own / "dump.json").exists() or (families and family not in families and class_name not in families):
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
            print("FAILED", class_name, variant, failed[f"{class_name}.{variant}"], flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
