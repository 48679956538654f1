"""Values of transformers' configs past which a model computes in another way: windows, blocks, distances, positions.

The names are those of every integer attribute of the configuration classes of transformers 5.23 that `NAMED_SO` finds;
a test holds the installed transformers against the two tables.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from converter.graphs.description.signature import Dimension, Signature, Threshold

NAMED_SO = re.compile(
    r"window|block|chunk|distance|local|bucket|stride|original_max|clamp|radius|landmark|segment_means|segment_len"
    r"|context|max_relative|relative_position|index_topk|left_|right_|fifo|cache_len|horizon|lookback|dilat|lag_|lags_"
)
"""What the names of config attributes that are such lengths contain."""

OF_TOKENS = frozenset(
    (
        "attention_chunk_size", "attention_window", "attention_window_size", "block_size", "chunk_size", "clamp_len",
        "context_length", "conv_window", "global_block_size", "index_block_size", "index_topk", "keep_window_size",
        "local_attention", "local_attention_window_len", "local_attn_chunk_length", "local_radius",
        "local_transformer_stride", "lsh_attn_chunk_length", "mamba_chunk_size", "max_bucket_distance",
        "max_relative_positions", "num_buckets", "num_landmarks", "original_max_position_embeddings",
        "position_bias_max_distance", "position_bias_num_buckets", "position_buckets",
        "relative_attention_max_distance", "relative_attention_num_buckets", "relative_max_distance",
        "segment_means_seq_len", "sliding_window",
        "sliding_window_size", "window_size",
    )
)  # fmt: skip
"""Attributes that count tokens. A list of them has one for each layer."""

OF_FRAMES = frozenset(
    (
        "attention_chunk_size", "attention_context_left", "attention_context_right", "bias_max_distance",
        "chunk_left_context", "chunk_length", "chunk_right_context", "chunk_size", "conf_attention_chunk_size",
        "conf_attention_context_left", "conf_attention_context_right", "context_size", "conv_chunksize",
        "encoder_max_relative_position", "fifo_length", "left_chunk", "left_max_position_embeddings",
        "max_bucket_distance", "n_window", "n_window_infer", "num_buckets", "right_max_position_embeddings",
        "sliding_window", "sliding_windows", "speaker_cache_length", "speech_encoder_chunk_size",
    )
)  # fmt: skip
"""Attributes that count frames of sound."""

NONE: Mapping[str, tuple[str, ...]] = {
    "counts layers, blocks of layers, channels or experts": (
        "aff_block_r", "block_ffn_dim_multiplier", "block_multiple_of", "block_repeats", "block_sizes",
        "blocks_per_stage", "c2f_num_blocks", "csp_num_blocks", "fullatt_block_indexes", "global_attention_blocks",
        "intraclass_block_config", "intraclass_block_number", "kernel_predictor_num_blocks", "local_layer_ids",
        "max_window_layers", "mtp_local_layer_ids", "n_attn_blocks", "n_layers_per_attn_res_block", "num_block_repeats",
        "num_blocks", "num_blocks_per_group", "num_encoder_blocks", "num_local_experts", "num_mel_attn_blocks",
        "num_mem_blocks", "num_res_blocks", "num_resnet_blocks", "num_self_attends_per_block", "num_upscale_blocks",
        "prefix_dense_sliding_window_pattern", "residual_block_indices", "sliding_window_pattern", "stage_num_blocks",
        "window_block_indices",
    ),
    "is of images, which have one size in a graph, or of convolutions, which are the same at any": (
        "border_removal_distance", "common_stride", "dilated_kernel_size", "down_stride", "encoder_stride",
        "feat_strides", "feature_strides", "focal_windows", "fpn_stride", "frequency_stride", "hidden_stride",
        "kv_aggregation_stride", "mask_downsampler_stride", "mask_downsampler_total_stride", "nms_radius",
        "num_windows", "output_stride", "patch_stride", "pretrained_window_sizes", "q_aggregation_stride",
        "query_stride", "spatial_pool_stride", "stage_downsample_strides", "stage_stride", "stem_stride",
        "stem_strides", "stride", "stride_kv", "stride_q", "strides", "time_stride", "window_kernel_size",
        "window_positional_embedding_background_size", "window_size_per_stage",
    ),
    "strides and dilates convolutions over sound, which are the same at any length": (
        "adapter_stride", "adaptor_stride", "block_dilations", "conv_stride", "dilation_growth_rate", "enc_dilations",
        "latent_stride", "resblock_kernel_sizes", "resblock_stride_sizes", "sscp_conv_stride_size",
        "subsampling_conv_stride", "tdnn_dilation", "wavenet_dilation_rate",
    ),
    "is multiplied with another one that is in a table": (
        "block_per_row", "index_local_blocks", "index_topk_blocks", "initial_prior_diagonal_n_blocks",
        "initial_prior_first_n_blocks", "local_num_chunks_after", "local_num_chunks_before", "lsh_num_chunks_after",
        "lsh_num_chunks_before", "num_random_blocks", "speech_encoder_left_chunk_num",
    ),
    "cuts work into pieces and leaves its result as it is": (
        "chunk_size_lm_head", "max_inference_chunksize", "outer_product_chunk_size",
    ),
    "is of raw sound or of a processor, which is no input of a graph": (
        "acoustic_tokenizer_chunk_size", "audio_chunk_size", "chunk_length_s", "seconds_per_chunk",
    ),
    "is the one length of an input": ("horizon_length", "lags_sequence", "text_encoder_context_length"),
    "is a probability": ("local_attention_probs_dropout_prob",),
    "is of the values of ids, not of how many there are": ("num_hash_buckets",),
}  # fmt: skip
"""Attributes with such a name that are none, by the reason why."""

_LAYER_TYPES = {"sliding_window": "sliding", "attention_chunk_size": "chunked"}
_ROPE = ("rope_parameters", "rope_scaling")
_ORIGINAL = "original_max_position_embeddings"
_GROWING = "dynamic"
_MOST_OF_ONE_CONFIG = 64
_OF_TEXT = frozenset(("text_config", "encoder", "decoder", "language_config", "llm_config"))
"""Attributes under which composite models keep the config of their text model."""
_TEXT_RANK = 2
_ENDLESS = 1 << 40
"""A number from here on is no length of a text: it says that there is no limit."""


def thresholds(config: Any, names: frozenset[str]) -> dict[str, int]:
    """Return those of the attributes `names` that a config has: what to call it -> the largest length not past it.

    Rotary positions that are scaled have theirs in a dict of their own. One that a layer type switches on counts where
    a layer is of that type.
    """
    return _thresholds(config.to_dict(), names)


def of_source(signature: Signature, config: Mapping[str, Any]) -> Signature:
    """Return the signature of a source's own graph with the lengths of text that the config.json beside it names.

    No class says which dimension has them. Where ids or masks go in, each that is behind the batch is one: they go past
    a length together.
    """
    if signature.thresholds:
        return signature
    counts = _counts_of_text(config)
    names = _names_of_lengths(signature) if counts else []
    known = {each.name for each in signature.dimensions}
    return replace(
        signature,
        dimensions=(*signature.dimensions, *(Dimension(name=each) for each in names if each not in known)),
        thresholds=tuple(
            Threshold(name=name, dimension=each, count=count) for each in names for name, count in counts.items()
        ),
    )


def _counts_of_text(config: Mapping[str, Any]) -> dict[str, int]:
    """Return the thresholds of a config and of its text models; where both name one, the config's own."""
    parts = [config, *(value for key, value in config.items() if key in _OF_TEXT and isinstance(value, Mapping))]
    return {name: count for part in reversed(parts) for name, count in _thresholds(part, OF_TOKENS).items()}


def _names_of_lengths(signature: Signature) -> list[str]:
    """Return the dimensions behind the batch that may be the length of a text; none where no input is ids or a mask."""
    if not any(not each.dtype.is_floating and len(each.shape) == _TEXT_RANK for each in signature.inputs):
        return []
    second = [each.shape[1] for each in signature.inputs if _TEXT_RANK <= len(each.shape) <= _TEXT_RANK + 1]
    return [name for name in dict.fromkeys(second) if isinstance(name, str) and name.isidentifier()]


def _thresholds(values: Mapping[str, Any], names: frozenset[str]) -> dict[str, int]:
    found: dict[str, int] = {}
    for name in sorted(names & values.keys()):
        needed = _LAYER_TYPES.get(name, "")
        kinds = values.get("layer_types")
        if isinstance(kinds, list | tuple) and kinds and not any(needed in str(each) for each in kinds):
            continue
        lengths = {each: each for each in _lengths(_integers(values[name]))[:_MOST_OF_ONE_CONFIG]}
        if name == "block_size" and type(values.get("num_random_blocks")) is int:
            lengths = {each: (5 + 2 * values["num_random_blocks"]) * each for each in lengths}
        found.update({f"{name} {each}": length for each, length in lengths.items()})
    for rope in _ROPE:
        found.update({f"{_ORIGINAL} {each}": each for each in _lengths(_integers_at(values.get(rope), _ORIGINAL))})
    return found


def _lengths(found: Iterable[int]) -> list[int]:
    return sorted({each for each in found if 0 < each < _ENDLESS})


def has_growing_positions(config: Any) -> bool:
    """Whether rotary positions are computed anew for a text that is longer than all positions the config has."""
    values = config.to_dict()
    return any(_GROWING in _strings(values.get(rope)) for rope in _ROPE)


def _integers(value: Any) -> Iterator[int]:
    if type(value) is int:
        yield value
    elif isinstance(value, (list, tuple)):
        for each in value:
            yield from _integers(each)


def _integers_at(value: Any, key: str) -> Iterator[int]:
    if isinstance(value, Mapping):
        yield from _integers(value.get(key))
        for each in value.values():
            yield from _integers_at(each, key)


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from _strings(each)
