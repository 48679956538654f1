"""Small configs of every model type of transformers 4.57.6 that has TensorFlow classes, in two variants.

The first variant has the defaults of the config class; the second flips what adds, removes or unties tensors, and
has other numbers of layers, so that list indices can be told from numbers that belong to a name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_BERT = {
    "vocab_size": 61,
    "hidden_size": 12,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 20,
    "max_position_embeddings": 37,
    "type_vocab_size": 2,
}
_DECODER = {"is_decoder": True, "add_cross_attention": True}
_BART = {
    "vocab_size": 61,
    "d_model": 12,
    "encoder_layers": 2,
    "decoder_layers": 3,
    "encoder_attention_heads": 3,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 20,
    "decoder_ffn_dim": 22,
    "max_position_embeddings": 37,
    "pad_token_id": 1,
    "bos_token_id": 0,
    "eos_token_id": 2,
    "decoder_start_token_id": 2,
    "forced_eos_token_id": None,
}
_BART_FLIPPED = {
    "encoder_layers": 3,
    "decoder_layers": 2,
    "scale_embedding": True,
    "tie_word_embeddings": False,
}
_GPT2 = {
    "vocab_size": 61,
    "n_embd": 12,
    "n_layer": 2,
    "n_head": 3,
    "n_positions": 37,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_VIT = {
    "hidden_size": 12,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 20,
    "image_size": 16,
    "patch_size": 4,
    "num_channels": 3,
}
_T5 = {
    "vocab_size": 61,
    "d_model": 12,
    "d_kv": 5,
    "d_ff": 20,
    "num_layers": 2,
    "num_decoder_layers": 3,
    "num_heads": 3,
    "relative_attention_num_buckets": 8,
    "decoder_start_token_id": 0,
}
_SPEECH = {
    "vocab_size": 33,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 20,
    "conv_dim": (8, 8, 8),
    "conv_kernel": (10, 3, 3),
    "conv_stride": (5, 2, 2),
    "num_feat_extract_layers": 3,
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 4,
    "classifier_proj_size": 10,
}
_SPEECH_FLIPPED = {
    "num_hidden_layers": 3,
    "feat_extract_norm": "layer",
    "do_stable_layer_norm": True,
    "conv_bias": True,
    "conv_dim": (8, 8, 8, 8),
    "conv_kernel": (10, 3, 3, 2),
    "conv_stride": (5, 2, 2, 2),
    "num_feat_extract_layers": 4,
    "use_weighted_layer_sum": True,
}
_CLIP_TEXT = {
    "vocab_size": 61,
    "hidden_size": 12,
    "intermediate_size": 20,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "max_position_embeddings": 37,
    "projection_dim": 10,
    "bos_token_id": 0,
    "eos_token_id": 2,
    "pad_token_id": 1,
}
_CLIP_VISION = {**_VIT, "projection_dim": 10}
_XLM = {
    "initializer_range": 0.02,
    "vocab_size": 61,
    "emb_dim": 12,
    "n_layers": 2,
    "n_heads": 3,
    "max_position_embeddings": 37,
    "pad_index": 2,
}
_XLM_FLIPPED = {
    "n_layers": 3,
    "n_langs": 3,
    "use_lang_emb": True,
    "sinusoidal_embeddings": False,
    "summary_type": "mean",
    "tie_word_embeddings": False,
}

Pair = tuple[Mapping[str, Any], Mapping[str, Any]]
"""What the first variant sets, and what the second sets besides."""

CONFIGS: Mapping[str, Pair] = {
    "albert": (
        {**_BERT, "embedding_size": 8},
        {"num_hidden_layers": 4, "num_hidden_groups": 2, "inner_group_num": 2, "tie_word_embeddings": False},
    ),
    "bart": (_BART, {**_BART_FLIPPED, "num_labels": 5}),
    "bert": (_BERT, {**_DECODER, "num_hidden_layers": 3, "tie_word_embeddings": False, "num_labels": 5}),
    "blenderbot": (_BART, _BART_FLIPPED),
    "blenderbot-small": (_BART, _BART_FLIPPED),
    "blip": (
        {
            "text_config": {**_CLIP_TEXT, "encoder_hidden_size": 12, "bos_token_id": 59, "sep_token_id": 60},
            "vision_config": _CLIP_VISION,
            "projection_dim": 10,
            "image_text_hidden_size": 14,
        },
        {
            "text_config": {
                **_CLIP_TEXT,
                "encoder_hidden_size": 12,
                "num_hidden_layers": 3,
                "bos_token_id": 59,
                "sep_token_id": 60,
            },
            "vision_config": {**_CLIP_VISION, "num_hidden_layers": 4},
            "tie_word_embeddings": False,
        },
    ),
    "camembert": (_BERT, {**_DECODER, "num_hidden_layers": 3, "tie_word_embeddings": False}),
    "clip": (
        {"text_config": _CLIP_TEXT, "vision_config": _CLIP_VISION, "projection_dim": 10},
        {
            "text_config": {**_CLIP_TEXT, "num_hidden_layers": 3},
            "vision_config": {**_CLIP_VISION, "num_hidden_layers": 4},
        },
    ),
    "convbert": (
        {**_BERT, "embedding_size": 12, "num_attention_heads": 4, "conv_kernel_size": 3, "hidden_size": 16},
        {"embedding_size": 16, "num_hidden_layers": 3, "num_groups": 2, "tie_word_embeddings": False},
    ),
    "convnext": (
        {"hidden_sizes": [4, 6, 8, 10], "depths": [1, 2, 1, 2], "image_size": 32},
        {"depths": [2, 1, 3, 1], "layer_scale_init_value": 0.0, "num_labels": 5},
    ),
    "convnextv2": (
        {"hidden_sizes": [4, 6, 8, 10], "depths": [1, 2, 1, 2], "image_size": 32},
        {"depths": [2, 1, 3, 1], "num_labels": 5},
    ),
    "ctrl": (
        {"vocab_size": 61, "n_embd": 12, "n_layer": 2, "n_head": 3, "n_positions": 37, "dff": 20, "pad_token_id": 1},
        {"n_layer": 3, "tie_word_embeddings": False},
    ),
    "cvt": (
        {"embed_dim": [8, 12, 16], "num_heads": [1, 2, 4], "depth": [1, 2, 3], "image_size": 32},
        {
            "depth": [2, 3, 4],
            "cls_token": [False, False, True],
            "qkv_projection_method": ["dw_bn", "dw_bn", "avg"],
            "qkv_bias": [False, True, True],
        },
    ),
    "data2vec-vision": (
        {**_VIT, "num_hidden_layers": 4, "out_indices": [0, 1, 2, 3]},
        {
            "num_hidden_layers": 5,
            "use_mask_token": True,
            "use_absolute_position_embeddings": True,
            "use_relative_position_bias": True,
            "use_mean_pooling": False,
            "layer_scale_init_value": 0.0,
            "use_auxiliary_head": False,
        },
    ),
    "deberta": (
        {
            **_BERT,
            "relative_attention": True,
            "max_relative_positions": 8,
            "position_biased_input": False,
            "pos_att_type": ["p2c", "c2p"],
            "type_vocab_size": 0,
            "embedding_size": 8,
            "pooler_hidden_size": 12,
        },
        {
            "num_hidden_layers": 3,
            "relative_attention": False,
            "position_biased_input": True,
            "pos_att_type": [],
            "type_vocab_size": 2,
            "talking_head": False,
            "embedding_size": 12,
            "tie_word_embeddings": False,
        },
    ),
    "deberta-v2": (
        {
            **_BERT,
            "relative_attention": True,
            "max_relative_positions": 16,
            "position_buckets": 8,
            "norm_rel_ebd": "layer_norm",
            "share_att_key": True,
            "position_biased_input": False,
            "pos_att_type": ["p2c", "c2p"],
            "type_vocab_size": 0,
            "embedding_size": 8,
            "pooler_hidden_size": 12,
            "conv_kernel_size": 3,
            "conv_act": "gelu",
        },
        {
            "num_hidden_layers": 3,
            "share_att_key": False,
            "position_biased_input": True,
            "norm_rel_ebd": "none",
            "conv_kernel_size": 0,
            "type_vocab_size": 2,
            "embedding_size": 12,
            "tie_word_embeddings": False,
        },
    ),
    "deit": ({**_VIT, "encoder_stride": 4}, {"num_hidden_layers": 3, "num_labels": 5}),
    "distilbert": (
        {"vocab_size": 61, "dim": 12, "n_layers": 2, "n_heads": 3, "hidden_dim": 20, "max_position_embeddings": 37},
        {"n_layers": 3, "sinusoidal_pos_embds": True, "tie_word_embeddings": False},
    ),
    "dpr": (_BERT, {"num_hidden_layers": 3}),
    "electra": (
        {**_BERT, "embedding_size": 8},
        {
            **_DECODER,
            "num_hidden_layers": 3,
            "embedding_size": 12,
            "summary_use_proj": False,
            "tie_word_embeddings": False,
        },
    ),
    "esm": (
        {**_BERT, "pad_token_id": 1, "mask_token_id": 60, "emb_layer_norm_before": False, "token_dropout": True},
        {
            **_DECODER,
            "num_hidden_layers": 3,
            "hidden_size": 24,
            "position_embedding_type": "rotary",
            "emb_layer_norm_before": True,
            "tie_word_embeddings": False,
        },
    ),
    "flaubert": (_XLM, {**_XLM_FLIPPED, "pre_norm": True, "asm": False}),
    "funnel": (
        {"vocab_size": 61, "d_model": 12, "n_head": 3, "d_head": 4, "d_inner": 20, "block_sizes": [1, 2, 1]},
        {
            "block_sizes": [2, 1],
            "block_repeats": [1, 2],
            "num_decoder_layers": 3,
            "separate_cls": False,
            "attention_type": "factorized",
            "tie_word_embeddings": False,
        },
    ),
    "gpt2": (
        _GPT2,
        {"n_layer": 3, "add_cross_attention": True, "tie_word_embeddings": False, "summary_use_proj": False},
    ),
    "gptj": ({**_GPT2, "rotary_dim": 4}, {"n_layer": 3, "rotary_dim": 2, "tie_word_embeddings": True}),
    "groupvit": (
        {
            "text_config": _CLIP_TEXT,
            "vision_config": {
                **{key: value for key, value in _VIT.items() if key != "num_hidden_layers"},
                "depths": [2, 1, 2],
                "num_group_tokens": [4, 3, 0],
                "num_output_groups": [4, 3, 3],
            },
            "projection_dim": 10,
            "projection_intermediate_dim": 14,
        },
        {
            "text_config": {**_CLIP_TEXT, "num_hidden_layers": 3},
            "vision_config": {
                **{key: value for key, value in _VIT.items() if key != "num_hidden_layers"},
                "depths": [1, 3, 1],
                "num_group_tokens": [4, 3, 0],
                "num_output_groups": [4, 3, 3],
            },
        },
    ),
    "hubert": (_SPEECH, {**_SPEECH_FLIPPED, "feat_proj_layer_norm": True}),
    "idefics": (
        {
            "vocab_size": 61,
            "additional_vocab_size": 3,
            "hidden_size": 16,
            "intermediate_size": 20,
            "num_hidden_layers": 4,
            "num_attention_heads": 2,
            "cross_layer_interval": 2,
            "tie_word_embeddings": False,
            "vision_config": {
                "embed_dim": 12,
                "image_size": 30,
                "patch_size": 15,
                "intermediate_size": 20,
                "num_hidden_layers": 2,
                "num_attention_heads": 3,
            },
            "perceiver_config": {
                "use_resampler": True,
                "resampler_depth": 2,
                "resampler_n_latents": 4,
                "resampler_n_heads": 2,
                "resampler_head_dim": 6,
                "qk_layer_norms_perceiver": True,
            },
        },
        {
            "num_hidden_layers": 3,
            "cross_layer_interval": 1,
            "qk_layer_norms": True,
            "additional_vocab_size": 0,
            "perceiver_config": {"use_resampler": False},
        },
    ),
    "layoutlm": (_BERT, {"num_hidden_layers": 3, "tie_word_embeddings": False}),
    "layoutlmv3": (
        {
            **_BERT,
            "coordinate_size": 2,
            "shape_size": 2,
            "input_size": 16,
            "patch_size": 8,
            "max_2d_position_embeddings": 40,
            "rel_pos_bins": 8,
            "rel_2d_pos_bins": 8,
        },
        {
            "num_hidden_layers": 3,
            "has_relative_attention_bias": False,
            "has_spatial_attention_bias": False,
            "visual_embed": False,
        },
    ),
    "led": (
        {
            **{key: value for key, value in _BART.items() if key != "max_position_embeddings"},
            "max_encoder_position_embeddings": 37,
            "max_decoder_position_embeddings": 41,
            "attention_window": 4,
            "encoder_attention_heads": 2,
        },
        {"encoder_layers": 3, "decoder_layers": 2, "tie_word_embeddings": False},
    ),
    "longformer": ({**_BERT, "attention_window": 4}, {"num_hidden_layers": 3, "tie_word_embeddings": False}),
    "lxmert": (
        {
            **{key: value for key, value in _BERT.items() if key != "num_hidden_layers"},
            "l_layers": 2,
            "x_layers": 3,
            "r_layers": 4,
            "visual_feat_dim": 9,
            "visual_pos_dim": 4,
            "num_qa_labels": 7,
            "num_object_labels": 6,
            "num_attr_labels": 5,
        },
        {"l_layers": 3, "x_layers": 2, "r_layers": 1, "task_qa": False, "visual_attr_loss": False},
    ),
    "marian": (
        {**_BART, "pad_token_id": 58, "eos_token_id": 0, "decoder_start_token_id": 58},
        {
            **_BART_FLIPPED,
            "tie_word_embeddings": True,
        },
    ),
    "mbart": (_BART, _BART_FLIPPED),
    "mistral": (
        {
            "vocab_size": 61,
            "hidden_size": 16,
            "intermediate_size": 20,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 37,
        },
        {"num_hidden_layers": 3, "tie_word_embeddings": True},
    ),
    "mobilebert": (
        {**_BERT, "hidden_size": 16, "embedding_size": 8, "intra_bottleneck_size": 8, "num_attention_heads": 2},
        {
            "num_hidden_layers": 3,
            "normalization_type": "layer_norm",
            "use_bottleneck_attention": True,
            "key_query_shared_bottleneck": False,
            "num_feedforward_networks": 2,
            "classifier_activation": True,
            "trigram_input": False,
            "embedding_size": 16,
            "tie_word_embeddings": False,
        },
    ),
    "mobilevit": (
        {
            "image_size": 64,
            "hidden_sizes": [8, 12, 16],
            "neck_hidden_sizes": [4, 6, 8, 10, 12, 14, 20],
            "num_attention_heads": 2,
            "expand_ratio": 2.0,
        },
        {"num_labels": 5, "qkv_bias": False},
    ),
    "mpnet": ({**_BERT, "relative_attention_num_buckets": 8}, {"num_hidden_layers": 3, "tie_word_embeddings": False}),
    "mt5": (_T5, {"num_layers": 3, "num_decoder_layers": 2, "feed_forward_proj": "relu", "tie_word_embeddings": True}),
    "openai-gpt": (_GPT2, {"n_layer": 3, "tie_word_embeddings": False, "summary_use_proj": False}),
    "opt": (
        {
            "vocab_size": 61,
            "hidden_size": 12,
            "num_hidden_layers": 2,
            "num_attention_heads": 3,
            "ffn_dim": 20,
            "max_position_embeddings": 37,
        },
        {"num_hidden_layers": 3, "word_embed_proj_dim": 8, "do_layer_norm_before": False, "tie_word_embeddings": False},
    ),
    "pegasus": (_BART, _BART_FLIPPED),
    "regnet": (
        {"embedding_size": 8, "hidden_sizes": [8, 12, 16, 20], "depths": [1, 2, 1, 2], "groups_width": 4},
        {"depths": [2, 1, 3, 1], "layer_type": "x", "num_labels": 5},
    ),
    "rembert": (
        {**_BERT, "input_embedding_size": 8, "output_embedding_size": 10},
        {**_DECODER, "num_hidden_layers": 3, "tie_word_embeddings": False},
    ),
    "resnet": (
        {"embedding_size": 8, "hidden_sizes": [8, 12, 16, 20], "depths": [1, 2, 1, 2]},
        {"depths": [2, 1, 3, 1], "layer_type": "basic", "downsample_in_first_stage": True, "num_labels": 5},
    ),
    "roberta": (_BERT, {**_DECODER, "num_hidden_layers": 3, "tie_word_embeddings": False}),
    "roberta-prelayernorm": (_BERT, {**_DECODER, "num_hidden_layers": 3, "tie_word_embeddings": False}),
    "roformer": (
        {**_BERT, "hidden_size": 24, "embedding_size": 8},
        {"num_hidden_layers": 3, "rotary_value": True, "embedding_size": 24, "tie_word_embeddings": False},
    ),
    "sam": (
        {
            "vision_config": {
                "hidden_size": 12,
                "output_channels": 8,
                "num_hidden_layers": 2,
                "num_attention_heads": 3,
                "image_size": 32,
                "patch_size": 8,
                "mlp_dim": 20,
                "window_size": 2,
                "global_attn_indexes": [1],
                "num_pos_feats": 4,
            },
            "prompt_encoder_config": {
                "hidden_size": 8,
                "image_size": 32,
                "patch_size": 8,
                "mask_input_channels": 4,
            },
            "mask_decoder_config": {
                "hidden_size": 8,
                "mlp_dim": 20,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "iou_head_hidden_dim": 10,
            },
        },
        {
            "vision_config": {
                "hidden_size": 12,
                "output_channels": 8,
                "num_hidden_layers": 3,
                "num_attention_heads": 3,
                "image_size": 32,
                "patch_size": 8,
                "mlp_dim": 20,
                "window_size": 2,
                "global_attn_indexes": [0, 2],
                "num_pos_feats": 4,
                "use_rel_pos": False,
                "use_abs_pos": False,
                "qkv_bias": False,
            },
            "mask_decoder_config": {
                "hidden_size": 8,
                "mlp_dim": 20,
                "num_hidden_layers": 3,
                "num_attention_heads": 2,
                "iou_head_hidden_dim": 10,
                "iou_head_depth": 4,
            },
        },
    ),
    "segformer": (
        {
            "hidden_sizes": [4, 8, 12, 16],
            "depths": [1, 2, 1, 2],
            "num_attention_heads": [1, 2, 2, 4],
            "decoder_hidden_size": 10,
            "image_size": 32,
        },
        {"depths": [2, 1, 3, 1], "sr_ratios": [1, 1, 2, 1], "reshape_last_stage": False},
    ),
    "speech_to_text": (
        {
            **{key: value for key, value in _BART.items() if key != "max_position_embeddings"},
            "max_source_positions": 50,
            "max_target_positions": 37,
            "input_feat_per_channel": 6,
            "conv_channels": 10,
            "num_conv_layers": 2,
        },
        {**_BART_FLIPPED, "num_conv_layers": 3, "conv_kernel_sizes": (5, 5, 5)},
    ),
    "swiftformer": (
        {"embed_dims": [8, 12, 16, 20], "depths": [1, 2, 1, 2], "image_size": 64},
        {"depths": [2, 1, 3, 1], "num_labels": 5},
    ),
    "swin": (
        {
            "embed_dim": 8,
            "depths": [2, 1, 2],
            "num_heads": [1, 2, 4],
            "window_size": 2,
            "image_size": 32,
            "patch_size": 2,
            "encoder_stride": 8,
        },
        {"depths": [1, 3, 1], "qkv_bias": False, "num_labels": 5},
    ),
    "t5": (
        _T5,
        {"num_layers": 3, "num_decoder_layers": 2, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False},
    ),
    "tapas": (
        {**_BERT, "type_vocab_sizes": [3, 16, 16, 2, 16, 16, 10], "num_aggregation_labels": 4, "num_labels": 3},
        {"num_hidden_layers": 3, "tie_word_embeddings": False, "num_aggregation_labels": 0},
    ),
    "vit": (_VIT, {"num_hidden_layers": 3, "num_labels": 5}),
    "vit_mae": (
        {
            **_VIT,
            "decoder_hidden_size": 8,
            "decoder_num_hidden_layers": 3,
            "decoder_num_attention_heads": 2,
            "decoder_intermediate_size": 14,
        },
        {"num_hidden_layers": 3, "decoder_num_hidden_layers": 2},
    ),
    "wav2vec2": (_SPEECH, _SPEECH_FLIPPED),
    "whisper": (
        {
            **{key: value for key, value in _BART.items() if key != "max_position_embeddings"},
            "max_source_positions": 20,
            "max_target_positions": 37,
            "num_mel_bins": 8,
            "suppress_tokens": None,
            "begin_suppress_tokens": None,
        },
        {**_BART_FLIPPED},
    ),
    "xglm": (
        {
            "vocab_size": 61,
            "d_model": 12,
            "num_layers": 2,
            "attention_heads": 3,
            "ffn_dim": 20,
            "max_position_embeddings": 37,
        },
        {"num_layers": 3, "add_cross_attention": True, "tie_word_embeddings": False},
    ),
    "xlm": (_XLM, {**_XLM_FLIPPED, "asm": False, "causal": False}),
    "xlm-roberta": (_BERT, {**_DECODER, "num_hidden_layers": 3, "tie_word_embeddings": False}),
    "xlnet": (
        {"vocab_size": 61, "d_model": 12, "n_layer": 2, "n_head": 3, "d_inner": 20},
        {"n_layer": 3, "summary_type": "mean", "summary_use_proj": False, "tie_word_embeddings": False},
    ),
}

Part = tuple[str, Mapping[str, Any]]

_CROSS = {"is_decoder": True, "add_cross_attention": True, "bos_token_id": 1, "eos_token_id": 2}
COMPOSITES: Mapping[str, tuple[Mapping[str, Part], Mapping[str, Part]]] = {
    "encoder-decoder": (
        {"encoder": ("bert", {}), "decoder": ("bert", _CROSS)},
        {"encoder": ("roberta", {"num_hidden_layers": 3}), "decoder": ("gpt2", {**_CROSS, "n_embd": 18})},
    ),
    "vision-encoder-decoder": (
        {"encoder": ("vit", {}), "decoder": ("gpt2", _CROSS)},
        {
            "encoder": ("vit", {"num_hidden_layers": 3}),
            "decoder": ("roberta", {**_CROSS, "hidden_size": 18}),
        },
    ),
    "vision-text-dual-encoder": (
        {"vision_config": ("vit", {}), "text_config": ("bert", {})},
        {"vision_config": ("clip_vision_model", {}), "text_config": ("roberta", {"num_hidden_layers": 3})},
    ),
    "rag": (
        {"question_encoder": ("dpr", {"projection_dim": 0}), "generator": ("bart", {})},
        {"question_encoder": ("bert", {}), "generator": ("bart", {"encoder_layers": 3, "decoder_layers": 1})},
    ),
}
"""Model types made of two others: the key of each part in the config -> its type, and what is special of its config."""

_AROUND: Mapping[str, Mapping[str, Any]] = {
    "rag": {"n_docs": 2},
    "vision-text-dual-encoder": {"projection_dim": 10},
    "encoder-decoder": {"decoder_start_token_id": 1, "pad_token_id": 0},
    "vision-encoder-decoder": {"decoder_start_token_id": 1, "pad_token_id": 0},
}


def values(model_type: str, variant: int) -> dict[str, Any]:
    """Return the arguments of the config of a variant, 0 or 1."""
    if model_type in COMPOSITES:
        parts = {key: _part(*part) for key, part in COMPOSITES[model_type][variant].items()}
        return {**parts, **_AROUND[model_type]}
    first, second = CONFIGS[model_type]
    return dict(first) if variant == 0 else {**first, **second}


def _part(model_type: str, special: Mapping[str, Any]) -> dict[str, Any]:
    given = values("clip", 0)["vision_config"] if model_type == "clip_vision_model" else values(model_type, 0)
    return {**given, **special, "model_type": model_type}
