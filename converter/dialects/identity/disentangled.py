"""What the tensors of a DeBERTa tell of its relative positions, which no formula of `tables/shapes.json` says.

transformers/models/deberta and deberta_v2 (5.23): how many distances there are is half the rows of their embeddings.
In the second, these are buckets of distances or distances themselves, and what is computed of them may have no weights.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

_DISTANCES = "encoder.rel_embeddings.weight"
_OF_DISTANCES = "2*max_relative_positions,hidden_size"
_OF_BOTH = {"embeddings.embed_proj.weight": "hidden_size,embedding_size"}
_TALKING = "attention.self.head_logits_proj.weight"
_FORMULAS: Mapping[str, Mapping[str, str]] = {
    "deberta": {
        **_OF_BOTH,
        _DISTANCES: _OF_DISTANCES,
        _TALKING: "num_attention_heads,num_attention_heads",
    },
    "deberta-v2": {**_OF_BOTH, "encoder.conv.conv.weight": "hidden_size,_,conv_kernel_size"},
}
"""Model type -> end of a name -> the formulas of its shape."""
SETTINGS: Mapping[str, frozenset[str]] = {
    "deberta": frozenset({"embedding_size", "talking_head"}),
    "deberta-v2": frozenset(
        {"embedding_size", "position_buckets", "norm_rel_ebd", "share_att_key", "conv_kernel_size", "conv_act"}
    ),
}
"""Model type -> settings that the classes look for, and that their configs do not declare."""
_PROJECTIONS = {"deberta": ("pos_proj", "pos_q_proj"), "deberta-v2": ("pos_key_proj", "pos_query_proj")}
_KINDS = ("c2p", "p2c")


def formulas(model_type: str | None, config: Mapping[str, Any]) -> Mapping[str, str]:
    """Return end of a name -> the formulas of its shape, of what the table does not know."""
    found = _FORMULAS.get(str(model_type), {})
    buckets = config.get("position_buckets")
    if model_type == "deberta-v2" and isinstance(buckets, int) and buckets < 1:
        return {**found, _DISTANCES: _OF_DISTANCES}
    return found


def told_by_names(model_type: str | None, names: Iterable[str]) -> dict[str, Any]:
    """Return what the presence of tensors says of the settings of a model."""
    names = list(names)
    found: dict[str, Any] = {}
    if model_type == "deberta" and any(name.endswith(_TALKING) for name in names):
        found["talking_head"] = True
    if model_type not in _PROJECTIONS or not any(name.endswith(_DISTANCES) for name in names):
        return found
    found["relative_attention"] = True
    there = [any(f".{each}." in name for name in names) for each in _PROJECTIONS[model_type]]
    kinds = [kind for kind, is_there in zip(_KINDS, there, strict=True) if is_there]
    if model_type == "deberta":
        return {**found, "pos_att_type": kinds}
    if any(name.endswith("encoder.LayerNorm.weight") for name in names):
        found["norm_rel_ebd"] = "layer_norm"
    return {**found, "share_att_key": False, "pos_att_type": kinds} if kinds else {**found, "share_att_key": True}


def untold(model_type: str | None, values: Mapping[str, Any]) -> list[str]:
    """Return the settings of relative positions that neither a config nor any tensor says."""
    if model_type != "deberta-v2" or not values.get("relative_attention"):
        return []
    asked = [] if "pos_att_type" in values else ["pos_att_type"]
    if "max_relative_positions" in values:
        return asked
    if "position_buckets" not in values:
        asked.append("position_buckets")
    return asked if "max_position_embeddings" in values else [*asked, "max_position_embeddings"]
