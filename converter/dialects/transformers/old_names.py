"""Names of tensors in files of old releases of transformers and torch, brought to those that are saved today.

transformers 4.57 (modeling_utils.py, _fix_state_dict_key_on_load) reads the same: normalisations of models ported from
TensorFlow, and the two tensors of torch.nn.utils.weight_norm before it was a parametrization (torch 2.0).
"""

from __future__ import annotations

from dataclasses import replace

from converter.model.checkpoint import Checkpoint

_ENDINGS = {
    "LayerNorm.gamma": "LayerNorm.weight",
    "LayerNorm.beta": "LayerNorm.bias",
    "weight_g": "parametrizations.weight.original0",
    "weight_v": "parametrizations.weight.original1",
}


def renewed(checkpoint: Checkpoint) -> Checkpoint:
    """Return the checkpoint with the names of today, and a warning that says so; nothing changes without a model type.

    Raises ReadError when a file has a tensor under both names.
    """
    if checkpoint.config is None or checkpoint.config.model_type is None:
        return checkpoint
    old = [name for name in checkpoint.names if _new_name(name) != name]
    if not old:
        return checkpoint
    warning = (
        f"{len(old)} names are those of an old release, such as {old[0]}: here as save_pretrained writes them today"
    )
    renamed = checkpoint.with_names(_new_name)
    return replace(renamed, warnings=(*renamed.warnings, warning))


def _new_name(name: str) -> str:
    for old, new in _ENDINGS.items():
        if f".{name}".endswith(f".{old}"):
            return name.removesuffix(old) + new
    return name
