"""Small configs of every model type of transformers 4.57.6 that has Flax classes, in two variants.

As in tensorflow_configs: the first variant has the defaults of the config class, the second flips what adds, removes
or unties tensors, and has other numbers of layers. Types that TensorFlow has too share its configs where Flax can
build them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tests.oracle.generate import tensorflow_configs as shared

Pair = tuple[Mapping[str, Any], Mapping[str, Any]]

_BERT = shared.CONFIGS["bert"][0]
_BART = shared.CONFIGS["bart"][0]
_T5 = shared.CONFIGS["t5"][0]
_VIT = shared.CONFIGS["vit"][0]
_LLAMA = shared.CONFIGS["mistral"][0]
_CROSS = {"is_decoder": True, "add_cross_attention": True}
_UNTIED = {"num_hidden_layers": 3, "tie_word_embeddings": False, "num_labels": 5}
_SPEECH = {**shared.values("wav2vec2", 1), "use_weighted_layer_sum": False}

CONFIGS: Mapping[str, Pair] = {
    "albert": (shared.CONFIGS["albert"][0], {"num_hidden_layers": 3, "tie_word_embeddings": False}),
    "bart": (_BART, {"encoder_layers": 3, "decoder_layers": 2, "tie_word_embeddings": False, "num_labels": 5}),
    "beit": (
        {**_VIT, "vocab_size": 61, "use_mask_token": True, "use_absolute_position_embeddings": True},
        {
            "num_hidden_layers": 3,
            "use_relative_position_bias": True,
            "use_absolute_position_embeddings": False,
            "use_mean_pooling": False,
            "layer_scale_init_value": 0.0,
            "num_labels": 5,
        },
    ),
    "bert": (_BERT, _UNTIED),
    "big_bird": (
        {**_BERT, "attention_type": "original_full", "max_position_embeddings": 64},
        {**_UNTIED, "rescale_embeddings": True},
    ),
    "blenderbot": (_BART, {"encoder_layers": 3, "decoder_layers": 2, "tie_word_embeddings": False}),
    "blenderbot-small": (_BART, {"encoder_layers": 3, "decoder_layers": 2, "tie_word_embeddings": False}),
    "bloom": (
        {"vocab_size": 61, "hidden_size": 12, "n_layer": 2, "n_head": 3, "bos_token_id": 1, "eos_token_id": 2},
        {"n_layer": 3, "apply_residual_connection_post_layernorm": True, "tie_word_embeddings": False},
    ),
    "clip": (
        {**shared.CONFIGS["clip"][0]},
        {
            "text_config": {**shared.CONFIGS["clip"][1]["text_config"]},
            "vision_config": {**shared.CONFIGS["clip"][1]["vision_config"]},
        },
    ),
    "dinov2": (
        {**_VIT, "mlp_ratio": 2},
        {"num_hidden_layers": 3, "use_swiglu_ffn": True, "qkv_bias": False, "num_labels": 5},
    ),
    "distilbert": shared.CONFIGS["distilbert"],
    "electra": (
        shared.CONFIGS["electra"][0],
        {"num_hidden_layers": 3, "embedding_size": 12, "summary_use_proj": False, "tie_word_embeddings": False},
    ),
    "gemma": ({**_LLAMA, "head_dim": 4}, {"num_hidden_layers": 3, "num_key_value_heads": 4}),
    "gpt2": (shared.CONFIGS["gpt2"][0], {"n_layer": 3, "add_cross_attention": True, "tie_word_embeddings": False}),
    "gpt_neo": (
        {
            "vocab_size": 61,
            "hidden_size": 12,
            "num_layers": 2,
            "num_heads": 3,
            "intermediate_size": 20,
            "max_position_embeddings": 37,
            "window_size": 4,
            "attention_types": [[["global", "local"], 1]],
            "bos_token_id": 1,
            "eos_token_id": 2,
        },
        {"num_layers": 3, "attention_types": [[["local"], 3]], "tie_word_embeddings": False},
    ),
    "gptj": (shared.CONFIGS["gptj"][0], {"n_layer": 3, "rotary_dim": 2}),
    "llama": (_LLAMA, {"num_hidden_layers": 3, "tie_word_embeddings": True}),
    "longt5": (
        {**_T5, "local_radius": 3, "global_block_size": 4},
        {
            "num_layers": 3,
            "num_decoder_layers": 2,
            "encoder_attention_type": "transient-global",
            "feed_forward_proj": "gated-gelu",
            "tie_word_embeddings": False,
        },
    ),
    "marian": (
        shared.CONFIGS["marian"][0],
        {"encoder_layers": 3, "decoder_layers": 2, "scale_embedding": True, "tie_word_embeddings": False},
    ),
    "mbart": (_BART, {"encoder_layers": 3, "decoder_layers": 2, "tie_word_embeddings": False, "num_labels": 5}),
    "mistral": (_LLAMA, {"num_hidden_layers": 3, "tie_word_embeddings": True}),
    "mt5": shared.CONFIGS["mt5"],
    "opt": (
        shared.CONFIGS["opt"][0],
        {"num_hidden_layers": 3, "word_embed_proj_dim": 8, "tie_word_embeddings": False},
    ),
    "pegasus": (_BART, {"encoder_layers": 3, "decoder_layers": 2, "tie_word_embeddings": False}),
    "regnet": (shared.CONFIGS["regnet"][0], {"depths": [2, 1, 3, 1], "groups_width": 2, "num_labels": 5}),
    "resnet": shared.CONFIGS["resnet"],
    "roberta": (_BERT, _UNTIED),
    "roberta-prelayernorm": (_BERT, _UNTIED),
    "roformer": (
        {**_BERT, "hidden_size": 24, "embedding_size": 24},
        {"num_hidden_layers": 3, "rotary_value": True, "tie_word_embeddings": False, "num_labels": 5},
    ),
    "t5": shared.CONFIGS["t5"],
    "vit": shared.CONFIGS["vit"],
    "wav2vec2": (
        _SPEECH,
        {
            "num_hidden_layers": 3,
            "conv_bias": False,
            "num_codevectors_per_group": 8,
            "add_adapter": True,
            "num_adapter_layers": 2,
        },
    ),
    "whisper": (
        shared.CONFIGS["whisper"][0],
        {"encoder_layers": 3, "decoder_layers": 2, "tie_word_embeddings": False, "num_labels": 5},
    ),
    "xglm": (shared.CONFIGS["xglm"][0], {"num_layers": 3, "tie_word_embeddings": False}),
    "xlm-roberta": (_BERT, _UNTIED),
}

CROSS_ATTENTION: frozenset[str] = frozenset(
    {"bert", "big_bird", "electra", "roberta", "roberta-prelayernorm", "xlm-roberta"}
)
"""Types whose causal class is built with cross-attention in the second variant; their other classes refuse it."""

Composite = tuple[str, tuple[str, str], tuple[str, str], Mapping[str, Any]]
COMPOSITES: Mapping[str, tuple[Composite, Composite]] = {
    "encoder-decoder": (
        ("FlaxEncoderDecoderModel", ("bert", "encoder"), ("bert", "decoder"), {}),
        ("FlaxEncoderDecoderModel", ("bert", "encoder"), ("gpt2", "decoder"), {"wide": True}),
    ),
    "speech-encoder-decoder": (
        ("FlaxSpeechEncoderDecoderModel", ("wav2vec2", "encoder"), ("bert", "decoder"), {}),
        ("FlaxSpeechEncoderDecoderModel", ("wav2vec2", "encoder"), ("gpt2", "decoder"), {"adapter": True}),
    ),
    "vision-encoder-decoder": (
        ("FlaxVisionEncoderDecoderModel", ("vit", "encoder"), ("gpt2", "decoder"), {}),
        ("FlaxVisionEncoderDecoderModel", ("beit", "encoder"), ("bert", "decoder"), {"wide": True}),
    ),
    "vision-text-dual-encoder": (
        ("FlaxVisionTextDualEncoderModel", ("vit", "vision_config"), ("bert", "text_config"), {}),
        ("FlaxVisionTextDualEncoderModel", ("clip_vision_model", "vision_config"), ("albert", "text_config"), {}),
    ),
}
"""Model types made of two others: class, the parts with their keys in the config, and what is special in a variant."""


def values(model_type: str, variant: int) -> dict[str, Any]:
    """Return the arguments of the config of a variant, 0 or 1."""
    first, second = CONFIGS[model_type]
    return dict(first) if variant == 0 else {**first, **second}
