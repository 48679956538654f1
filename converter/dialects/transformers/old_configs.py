"""Checkpoints of transformers 5 as transformers 4, which has the TensorFlow and Flax classes, reads their configs.

configuration_mistral.py: `rope_theta` (4.57.6) is in `rope_parameters` (5.23). Without it 4.57.6 takes its default.
configuration_t5.py and those of its kind: 5.23 says `tie_word_embeddings: true` of every model, and says in
`scale_decoder_outputs` what 4.57.6 says there; MT5 never scales. 4.57.6 scales what it ties, and takes no head then.
modeling_esm.py: 5.23 has rotary frequencies once, which its save_pretrained calls `encoder.layer.*.`, 4.57.6 in each
layer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from converter.model.checkpoint import Checkpoint, Config

_ROTARY, _BASE, _TIED = "rope_parameters", "rope_theta", "tie_word_embeddings"
_FREQUENCIES = "rotary_embeddings.inv_freq"
_HEAD, _SHARED, _WITH_HEAD = "lm_head.weight", "shared.weight", "ForConditionalGeneration"


def with_old_keys(config: Config) -> tuple[Config, tuple[str, ...]]:
    """Return a config that transformers 4 reads as transformers 5 does, and what has changed."""
    values = config.values
    warnings: tuple[str, ...] = ()
    rotary = values.get(_ROTARY)
    base = rotary.get(_BASE) if isinstance(rotary, Mapping) else None
    if _BASE not in values and isinstance(base, (int, float)) and not isinstance(base, bool):
        config = config.with_values({"rope_theta": base})
        warnings = (f"config.json: {_BASE} is now {base}, which transformers 4 reads",)
    if _is_untied_before(values):
        config = config.with_values({"tie_word_embeddings": False})
        warnings = (*warnings, f"config.json: {_TIED} is now false, as transformers 4 says of a head without a scale")
    return config, warnings


def of_old_release(checkpoint: Checkpoint) -> Checkpoint:
    """Return a checkpoint whose config transformers 4 reads as it is meant; a head that is no longer tied is there."""
    if checkpoint.config is None:
        return checkpoint
    checkpoint = _with_frequencies_of_layers(checkpoint, checkpoint.config)
    assert checkpoint.config is not None
    config, warnings = with_old_keys(checkpoint.config)
    if not warnings:
        return checkpoint
    renamed = replace(checkpoint, config=config, warnings=(*checkpoint.warnings, *warnings))
    match config.values.get("architectures"):
        case [str(architecture), *_] if architecture.endswith(_WITH_HEAD):
            is_missing = _HEAD not in checkpoint and _SHARED in checkpoint.tensors
        case _:
            is_missing = False
    if is_missing and _is_untied_before(checkpoint.config.values):
        return replace(renamed, tensors={**renamed.tensors, _HEAD: renamed.tensors[_SHARED]})
    return renamed


def _with_frequencies_of_layers(checkpoint: Checkpoint, config: Config) -> Checkpoint:
    """Return a checkpoint with the rotary frequencies of an ESM under the name of each layer."""
    stem = "esm." if any(name.startswith("esm.") for name in checkpoint.names) else ""
    of_layers = f"{stem}encoder.layer.{{}}.attention.self.{_FREQUENCIES}"
    once = (stem + _FREQUENCIES, of_layers.format("*"))
    before = next((name for name in once if name in checkpoint.tensors), None)
    layers = config.values.get("num_hidden_layers")
    if (
        config.model_type != "esm"
        or before is None
        or type(layers) is not int
        or not 0 < layers <= len(checkpoint.names)
    ):
        return checkpoint
    names = [of_layers.format(layer) for layer in range(layers)]
    first, *others = names
    renamed = checkpoint.with_names(lambda name: first if name == before else name)
    origin = checkpoint.origin(before)
    return replace(
        renamed,
        aliases={**renamed.aliases, **dict.fromkeys(others, first)},
        origins={**renamed.origins, **dict.fromkeys(names, origin)},
    )


def _is_untied_before(values: Mapping[str, Any]) -> bool:
    if values.get(_TIED) is not True:
        return False
    if values.get("model_type") == "mt5":
        return str(values.get("transformers_version", "")).startswith("5.")
    return values.get("model_type") in ("t5", "longt5") and values.get("scale_decoder_outputs") is False
