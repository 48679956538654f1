"""The zoo: tiny models of many architectures and modalities, each a class of transformers and a config, no weights.

`python -m tests.graphs.zoo_report` says what becomes of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

_TEXT: dict[str, Any] = {
    "vocab_size": 50,
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 40,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_DECODER: dict[str, Any] = {**_TEXT, "num_key_value_heads": 1, "head_dim": 8}
_FAIRSEQ: dict[str, Any] = {
    "vocab_size": 50,
    "d_model": 16,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 24,
    "decoder_ffn_dim": 24,
    "max_position_embeddings": 40,
    "pad_token_id": 1,
    "bos_token_id": 0,
    "eos_token_id": 2,
    "decoder_start_token_id": 2,
    "forced_eos_token_id": None,
}
_T5: dict[str, Any] = {
    "vocab_size": 50,
    "d_model": 16,
    "d_kv": 8,
    "d_ff": 24,
    "num_layers": 1,
    "num_heads": 2,
    "decoder_start_token_id": 0,
}
_VISION: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "image_size": 30,
    "patch_size": 6,
}
_LABELS: dict[str, Any] = {"num_labels": 5}
_WAVE: dict[str, Any] = {
    "vocab_size": 20,
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "conv_dim": [8, 8],
    "conv_stride": [4, 2],
    "conv_kernel": [8, 3],
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 2,
    "num_feat_extract_layers": 2,
    "pad_token_id": 0,
}
_CLIP_TEXT: dict[str, Any] = {**_TEXT, "max_position_embeddings": 24, "projection_dim": 12}
_CLIP_VISION: dict[str, Any] = {**_VISION, "projection_dim": 12}
_DUAL: dict[str, Any] = {"text_config": _CLIP_TEXT, "vision_config": _CLIP_VISION, "projection_dim": 12}
_STAGES: dict[str, Any] = {"depths": [1, 1, 1, 1], "hidden_sizes": [8, 8, 16, 16]}


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A class and what its config says; `why_not` is the reason why it cannot have a graph, where it is known."""

    architecture: str
    config: dict[str, Any]
    why_not: str | None = None

    @property
    def model_type(self) -> str:
        """The architecture, as transformers counts them."""
        found: str = self.config["model_type"]
        return found


def _model(
    architecture: str, model_type: str, *parts: dict[str, Any], why_not: str | None = None, **changes: Any
) -> Model:
    config: dict[str, Any] = {"model_type": model_type}
    for part in (*parts, changes):
        config |= part
    return Model(architecture=architecture, config={**config, "architectures": [architecture]}, why_not=why_not)


TEXT_ENCODERS = (
    _model("BertForMaskedLM", "bert", _TEXT),
    _model("RobertaForSequenceClassification", "roberta", _TEXT, _LABELS, pad_token_id=1),
    _model("XLMRobertaForTokenClassification", "xlm-roberta", _TEXT, _LABELS, pad_token_id=1),
    _model(
        "DistilBertForQuestionAnswering",
        "distilbert",
        vocab_size=50,
        dim=16,
        n_layers=1,
        n_heads=2,
        hidden_dim=24,
        max_position_embeddings=40,
    ),
    _model("AlbertForMaskedLM", "albert", _TEXT, embedding_size=8),
    _model("ElectraForPreTraining", "electra", _TEXT, embedding_size=8),
    _model("DebertaV2ForMaskedLM", "deberta-v2", _TEXT, relative_attention=True, pos_att_type=["p2c", "c2p"]),
    _model("DebertaModel", "deberta", _TEXT, relative_attention=True, pos_att_type=["p2c", "c2p"]),
    _model("MPNetForMaskedLM", "mpnet", _TEXT, pad_token_id=1),
    _model(
        "FlaubertWithLMHeadModel", "flaubert", n_words=50, emb_dim=16, n_layers=1, n_heads=2, max_position_embeddings=40
    ),
    _model("XLNetModel", "xlnet", vocab_size=50, d_model=16, n_layer=1, n_head=2, d_inner=24),
    _model(
        "SqueezeBertModel",
        "squeezebert",
        _TEXT,
        embedding_size=16,
        q_groups=2,
        k_groups=2,
        v_groups=2,
        post_attention_groups=1,
        intermediate_groups=2,
        output_groups=2,
    ),
    _model(
        "MobileBertForMaskedLM", "mobilebert", _TEXT, embedding_size=16, intra_bottleneck_size=8, true_hidden_size=8
    ),
    _model("ConvBertModel", "convbert", _TEXT, embedding_size=16, conv_kernel_size=3, head_ratio=1),
    _model("FNetModel", "fnet", _TEXT, tpu_short_seq_length=40),
    _model("RoFormerModel", "roformer", _TEXT, embedding_size=16),
    _model("IBertModel", "ibert", _TEXT, pad_token_id=1),
    # As published ones are; with fewer landmarks transformers 5.23 itself fails at padding (its mask is for all pairs).
    _model("NystromformerModel", "nystromformer", _TEXT, num_landmarks=16, segment_means_seq_len=16),
    _model(
        "ModernBertForMaskedLM",
        "modernbert",
        _TEXT,
        num_hidden_layers=2,
        global_attn_every_n_layers=2,
        local_attention=8,
    ),
    _model("NomicBertModel", "nomic_bert", _TEXT),
    _model("EsmForMaskedLM", "esm", _TEXT, pad_token_id=1, mask_token_id=4, position_embedding_type="rotary"),
    _model("LayoutLMModel", "layoutlm", _TEXT, max_2d_position_embeddings=64),
)
DECODERS = (
    _model(
        "GPT2LMHeadModel",
        "gpt2",
        vocab_size=50,
        n_embd=16,
        n_layer=1,
        n_head=2,
        n_positions=40,
        bos_token_id=1,
        eos_token_id=1,
    ),
    _model(
        "GPTNeoForCausalLM",
        "gpt_neo",
        vocab_size=50,
        hidden_size=16,
        num_layers=2,
        num_heads=2,
        attention_types=[[["global", "local"], 1]],
        window_size=4,
        max_position_embeddings=40,
        bos_token_id=1,
        eos_token_id=1,
    ),
    _model("GPTNeoXForCausalLM", "gpt_neox", _TEXT),
    _model(
        "GPTJForCausalLM",
        "gptj",
        vocab_size=50,
        n_embd=16,
        n_layer=1,
        n_head=2,
        n_positions=40,
        rotary_dim=4,
        bos_token_id=1,
        eos_token_id=1,
    ),
    _model(
        "GPTBigCodeForCausalLM",
        "gpt_bigcode",
        vocab_size=50,
        n_embd=16,
        n_layer=1,
        n_head=2,
        n_positions=40,
        bos_token_id=1,
        eos_token_id=1,
    ),
    _model("BloomForCausalLM", "bloom", vocab_size=50, hidden_size=16, n_layer=1, n_head=2),
    _model("OPTForCausalLM", "opt", _TEXT, ffn_dim=24, word_embed_proj_dim=16, pad_token_id=1),
    _model(
        "XGLMForCausalLM",
        "xglm",
        vocab_size=50,
        d_model=16,
        ffn_dim=24,
        num_layers=1,
        attention_heads=2,
        max_position_embeddings=40,
    ),
    _model("LlamaForCausalLM", "llama", _DECODER),
    _model("MistralForCausalLM", "mistral", _DECODER, sliding_window=8),
    _model("Qwen2ForCausalLM", "qwen2", _DECODER),
    _model("Qwen3ForCausalLM", "qwen3", _DECODER),
    _model("Gemma2ForCausalLM", "gemma2", _DECODER, num_hidden_layers=2, sliding_window=8, query_pre_attn_scalar=8),
    _model("PhiForCausalLM", "phi", _TEXT),
    _model("Phi3ForCausalLM", "phi3", _DECODER),
    _model("FalconForCausalLM", "falcon", _TEXT),
    _model("MptForCausalLM", "mpt", vocab_size=50, d_model=16, n_heads=2, n_layers=1, max_seq_len=40),
    _model("MixtralForCausalLM", "mixtral", _DECODER, num_local_experts=4, num_experts_per_tok=2),
    _model(
        "Qwen2MoeForCausalLM",
        "qwen2_moe",
        _DECODER,
        num_experts=4,
        num_experts_per_tok=2,
        moe_intermediate_size=8,
        shared_expert_intermediate_size=8,
    ),
)
ENCODER_DECODERS = (
    _model("T5ForConditionalGeneration", "t5", _T5),
    _model("UMT5ForConditionalGeneration", "umt5", _T5),
    _model("BartForConditionalGeneration", "bart", _FAIRSEQ),
    _model("MBartForConditionalGeneration", "mbart", _FAIRSEQ),
    _model("MarianMTModel", "marian", _FAIRSEQ, pad_token_id=49, decoder_start_token_id=49),
    _model("PegasusForConditionalGeneration", "pegasus", _FAIRSEQ, pad_token_id=0),
    _model(
        "LEDForConditionalGeneration",
        "led",
        _FAIRSEQ,
        max_encoder_position_embeddings=40,
        max_decoder_position_embeddings=40,
        attention_window=8,
    ),
    _model("M2M100ForConditionalGeneration", "m2m_100", _FAIRSEQ),
    _model(
        "ProphetNetForConditionalGeneration",
        "prophetnet",
        vocab_size=50,
        hidden_size=16,
        encoder_ffn_dim=24,
        decoder_ffn_dim=24,
        num_encoder_layers=1,
        num_decoder_layers=1,
        num_encoder_attention_heads=2,
        num_decoder_attention_heads=2,
        max_position_embeddings=40,
        num_buckets=8,
        relative_max_distance=16,
    ),
)
VISION = (
    _model("ViTForImageClassification", "vit", _VISION, _LABELS),
    _model("DeiTForImageClassification", "deit", _VISION, _LABELS),
    _model("BeitForImageClassification", "beit", _VISION, _LABELS, vocab_size=50, use_relative_position_bias=True),
    _model("Dinov2Model", "dinov2", _VISION, mlp_ratio=2),
    _model(
        "SwinForImageClassification",
        "swin",
        _LABELS,
        image_size=32,
        patch_size=2,
        embed_dim=8,
        depths=[1, 1],
        num_heads=[2, 2],
        window_size=4,
    ),
    _model("ConvNextForImageClassification", "convnext", _LABELS, _STAGES),
    _model("ResNetForImageClassification", "resnet", _LABELS, _STAGES, embedding_size=8),
    _model("RegNetForImageClassification", "regnet", _LABELS, _STAGES, embedding_size=8, groups_width=4),
    _model(
        "SegformerForSemanticSegmentation",
        "segformer",
        _LABELS,
        _STAGES,
        num_attention_heads=[1, 1, 2, 2],
        decoder_hidden_size=16,
    ),
    _model("MobileNetV1ForImageClassification", "mobilenet_v1", _LABELS, depth_multiplier=0.25, min_depth=4),
    _model("MobileNetV2ForImageClassification", "mobilenet_v2", _LABELS, depth_multiplier=0.25, min_depth=4),
    _model(
        "MobileViTForImageClassification",
        "mobilevit",
        _LABELS,
        image_size=64,
        patch_size=2,
        hidden_sizes=[8, 8, 8],
        neck_hidden_sizes=[8, 8, 8, 8, 8, 8, 16],
        num_attention_heads=2,
    ),
    _model(
        "EfficientNetForImageClassification",
        "efficientnet",
        _LABELS,
        image_size=64,
        in_channels=[8, 8],
        out_channels=[8, 8],
        kernel_sizes=[3, 3],
        strides=[1, 2],
        num_block_repeats=[1, 1],
        expand_ratios=[1, 2],
        hidden_dim=128,
        width_coefficient=0.1,
        depth_coefficient=1.0,
        depthwise_padding=[],
    ),
    _model(
        "PoolFormerForImageClassification",
        "poolformer",
        _LABELS,
        depths=[1, 1],
        hidden_sizes=[8, 16],
        num_encoder_blocks=2,
        patch_sizes=[7, 3],
        strides=[4, 2],
        padding=[2, 1],
    ),
    _model(
        "LevitForImageClassification",
        "levit",
        _LABELS,
        image_size=64,
        hidden_sizes=[16, 16, 16],
        num_attention_heads=[2, 2, 2],
        depths=[1, 1, 1],
        key_dim=[8, 8, 8],
    ),
    _model("CvtForImageClassification", "cvt", _LABELS, embed_dim=[8, 8, 16], num_heads=[1, 1, 2], depth=[1, 2, 3]),
    _model(
        "PvtForImageClassification",
        "pvt",
        _LABELS,
        image_size=64,
        hidden_sizes=[8, 8, 16, 16],
        depths=[1, 1, 1, 1],
        num_attention_heads=[1, 1, 2, 2],
    ),
    _model(
        "YolosForObjectDetection",
        "yolos",
        _VISION,
        _LABELS,
        num_hidden_layers=2,
        image_size=[30, 36],
        num_detection_tokens=5,
    ),
    _model(
        "DPTForDepthEstimation",
        "dpt",
        _VISION,
        image_size=32,
        patch_size=8,
        num_hidden_layers=4,
        backbone_out_indices=[0, 1, 2, 3],
        neck_hidden_sizes=[8, 8, 8, 8],
        fusion_hidden_size=8,
        is_hybrid=False,
    ),
    _model("VideoMAEForVideoClassification", "videomae", _VISION, _LABELS, num_frames=4),
    _model(
        "DetrForObjectDetection",
        "detr",
        _LABELS,
        d_model=16,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=24,
        decoder_ffn_dim=24,
        num_queries=5,
        use_timm_backbone=False,
        use_pretrained_backbone=False,
        backbone=None,
        backbone_config={"model_type": "resnet", **_STAGES, "embedding_size": 8, "out_features": ["stage4"]},
    ),
)
AUDIO = (
    _model("Wav2Vec2ForCTC", "wav2vec2", _WAVE),
    _model("HubertForCTC", "hubert", _WAVE),
    _model("WavLMForCTC", "wavlm", _WAVE, num_buckets=8, max_bucket_distance=16),
    _model("Data2VecAudioModel", "data2vec-audio", _WAVE),
    _model("SEWForCTC", "sew", _WAVE, squeeze_factor=2),
    _model(
        "WhisperForConditionalGeneration",
        "whisper",
        _FAIRSEQ,
        num_mel_bins=8,
        max_source_positions=20,
        max_target_positions=24,
        suppress_tokens=None,
        begin_suppress_tokens=None,
    ),
    _model(
        "ASTForAudioClassification",
        "audio-spectrogram-transformer",
        _VISION,
        _LABELS,
        num_mel_bins=16,
        max_length=24,
        frequency_stride=4,
        time_stride=4,
    ),
    _model(
        "Speech2TextForConditionalGeneration",
        "speech_to_text",
        _FAIRSEQ,
        input_feat_per_channel=8,
        conv_channels=12,
        num_conv_layers=2,
        max_source_positions=80,
        max_target_positions=24,
    ),
)
DUALS = (
    _model("CLIPModel", "clip", _DUAL),
    _model("SiglipModel", "siglip", _DUAL),
    _model("ChineseCLIPModel", "chinese_clip", _DUAL),
    _model(
        "BlipForConditionalGeneration",
        "blip",
        _DUAL,
        text_config={**_CLIP_TEXT, "encoder_hidden_size": 16},
        image_text_hidden_size=12,
    ),
    _model("ViltForQuestionAnswering", "vilt", _TEXT, _LABELS, image_size=30, patch_size=6),
    _model(
        "VisionEncoderDecoderModel",
        "vision-encoder-decoder",
        encoder={"model_type": "vit", **_VISION},
        decoder={
            "model_type": "gpt2",
            "vocab_size": 50,
            "n_embd": 16,
            "n_layer": 1,
            "n_head": 2,
            "n_positions": 40,
            "is_decoder": True,
            "add_cross_attention": True,
        },
        decoder_start_token_id=1,
        pad_token_id=0,
    ),
    _model(
        "LlavaForConditionalGeneration",
        "llava",
        text_config={"model_type": "llama", **_DECODER},
        vision_config={"model_type": "clip_vision_model", **_VISION},
        image_token_index=49,
        vision_feature_layer=-1,
    ),
)
OTHERS = (
    _model(
        "FSMTForConditionalGeneration",
        "fsmt",
        _FAIRSEQ,
        langs=["en", "de"],
        src_vocab_size=50,
        tgt_vocab_size=50,
        tie_word_embeddings=False,
    ),
    _model(
        "CanineModel",
        "canine",
        _TEXT,
        why_not="it attends in chunks, a Python loop as long as the sequence, which the export freezes",
        num_hash_functions=2,
        num_hash_buckets=16,
        local_transformer_stride=8,
    ),
    _model("LongformerModel", "longformer", _TEXT, attention_window=8),
    _model("FunnelModel", "funnel", vocab_size=50, block_sizes=[1, 1], d_model=16, n_head=2, d_head=8, d_inner=24),
    _model(
        "MambaForCausalLM", "mamba", vocab_size=50, hidden_size=16, num_hidden_layers=1, state_size=4, time_step_rank=2
    ),
    _model("CamembertForMaskedLM", "camembert", _TEXT, pad_token_id=1),
    _model("XLMModel", "xlm", n_words=50, emb_dim=16, n_layers=1, n_heads=2, max_position_embeddings=40),
    _model("MegatronBertModel", "megatron-bert", _TEXT),
    _model("ErnieModel", "ernie", _TEXT),
    _model("RemBertModel", "rembert", _TEXT, input_embedding_size=8, output_embedding_size=8),
    _model("DPRQuestionEncoder", "dpr", _TEXT, projection_dim=0),
    _model("T5EncoderModel", "t5", _T5),
    _model("BigBirdModel", "big_bird", _TEXT, block_size=4, num_random_blocks=1, attention_type="original_full"),
    _model("OpenAIGPTLMHeadModel", "openai-gpt", vocab_size=50, n_embd=16, n_layer=1, n_head=2, n_positions=40),
    _model("CTRLModel", "ctrl", vocab_size=50, n_embd=16, dff=24, n_layer=1, n_head=2, n_positions=40),
    _model("GemmaForCausalLM", "gemma", _DECODER),
    _model("StableLmForCausalLM", "stablelm", _DECODER),
    _model("CohereForCausalLM", "cohere", _DECODER),
    _model("OlmoForCausalLM", "olmo", _DECODER),
    _model("GraniteForCausalLM", "granite", _DECODER),
    _model("OlmoeForCausalLM", "olmoe", _DECODER, num_experts=4, num_experts_per_tok=2),
    _model("MT5ForConditionalGeneration", "mt5", _T5),
    _model("LongT5Model", "longt5", _T5, local_radius=4, encoder_attention_type="local"),
    _model(
        "SwitchTransformersForConditionalGeneration",
        "switch_transformers",
        _T5,
        num_experts=2,
        num_sparse_encoder_layers=1,
        num_sparse_decoder_layers=1,
    ),
    _model("BlenderbotForConditionalGeneration", "blenderbot", _FAIRSEQ),
    _model("BlenderbotSmallForConditionalGeneration", "blenderbot-small", _FAIRSEQ),
    _model("BigBirdPegasusForConditionalGeneration", "bigbird_pegasus", _FAIRSEQ, attention_type="original_full"),
    _model(
        "Swinv2Model",
        "swinv2",
        image_size=32,
        patch_size=2,
        embed_dim=8,
        depths=[1, 1],
        num_heads=[2, 2],
        window_size=4,
    ),
    _model("ConvNextV2ForImageClassification", "convnextv2", _LABELS, _STAGES),
    _model("ViTMSNModel", "vit_msn", _VISION),
    _model("UniSpeechForCTC", "unispeech", _WAVE),
    _model("Wav2Vec2ConformerForCTC", "wav2vec2-conformer", _WAVE, position_embeddings_type="rotary"),
    _model("AltCLIPModel", "altclip", _DUAL, text_config={**_CLIP_TEXT, "project_dim": 12, "pad_token_id": 1}),
)
"""More architectures, not all of which have a graph: `zoo_report` takes them by name, the table of classes has them.

The loops and the conditions
on data of Mamba, Funnel, Longformer and FSMT are patched (converter.graphs.trace.patches).
"""
ZOO = (*TEXT_ENCODERS, *DECODERS, *ENCODER_DECODERS, *VISION, *AUDIO, *DUALS)
