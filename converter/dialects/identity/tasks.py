"""The tasks that classes of transformers are for: what they are called, and how the class of each is usually called."""

from __future__ import annotations

from collections.abc import Mapping

from converter.errors import UsageError

BASE_TASK = "feature-extraction"
MASKED_TASK = "fill-mask"
CAUSAL_TASK = "text-generation"
SEQUENCE_TASK = "text-classification"
CHOICE_TASK = "multiple-choice"
TOKEN_TASK = "token-classification"
ANSWER_TASK = "question-answering"

TASK_ALIASES: Mapping[str, str] = {
    "base": BASE_TASK,
    "causal-lm": CAUSAL_TASK,
    "masked-lm": MASKED_TASK,
    "ner": TOKEN_TASK,
    "pre-training": "pretraining",
    "sentiment-analysis": SEQUENCE_TASK,
    "sequence-classification": SEQUENCE_TASK,
}

CLASS_SUFFIXES: Mapping[str, str] = {
    BASE_TASK: "Model",
    MASKED_TASK: "ForMaskedLM",
    CAUSAL_TASK: "ForCausalLM",
    SEQUENCE_TASK: "ForSequenceClassification",
    CHOICE_TASK: "ForMultipleChoice",
    TOKEN_TASK: "ForTokenClassification",
    ANSWER_TASK: "ForQuestionAnswering",
    "table-question-answering": "ForQuestionAnswering",
    "document-question-answering": "ForQuestionAnswering",
    "next-sentence-prediction": "ForNextSentencePrediction",
    "pretraining": "ForPreTraining",
    "text2text-generation": "ForConditionalGeneration",
    "image-classification": "ForImageClassification",
    "image-segmentation": "ForSemanticSegmentation",
    "object-detection": "ForObjectDetection",
    "depth-estimation": "ForDepthEstimation",
    "masked-image-modeling": "ForMaskedImageModeling",
    "video-classification": "ForVideoClassification",
    "automatic-speech-recognition": "ForCTC",
    "audio-classification": "ForAudioClassification",
    "audio-frame-classification": "ForAudioFrameClassification",
    "audio-xvector": "ForXVector",
    "zero-shot-image-classification": "Model",
    "visual-question-answering": "ForQuestionAnswering",
    "image-text-to-text": "ForConditionalGeneration",
}

LISTS: Mapping[str, tuple[str, ...]] = {
    BASE_TASK: ("MODEL_MAPPING_NAMES",),
    MASKED_TASK: ("MODEL_FOR_MASKED_LM_MAPPING_NAMES",),
    CAUSAL_TASK: ("MODEL_FOR_CAUSAL_LM_MAPPING_NAMES",),
    "text2text-generation": ("MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES",),
    SEQUENCE_TASK: ("MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES",),
    CHOICE_TASK: ("MODEL_FOR_MULTIPLE_CHOICE_MAPPING_NAMES",),
    TOKEN_TASK: ("MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES",),
    ANSWER_TASK: ("MODEL_FOR_QUESTION_ANSWERING_MAPPING_NAMES",),
    "table-question-answering": ("MODEL_FOR_TABLE_QUESTION_ANSWERING_MAPPING_NAMES",),
    "document-question-answering": ("MODEL_FOR_DOCUMENT_QUESTION_ANSWERING_MAPPING_NAMES",),
    "next-sentence-prediction": ("MODEL_FOR_NEXT_SENTENCE_PREDICTION_MAPPING_NAMES",),
    "pretraining": ("MODEL_FOR_PRETRAINING_MAPPING_NAMES",),
    "image-classification": ("MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES",),
    "image-segmentation": (
        "MODEL_FOR_SEMANTIC_SEGMENTATION_MAPPING_NAMES",
        "MODEL_FOR_IMAGE_SEGMENTATION_MAPPING_NAMES",
    ),
    "object-detection": ("MODEL_FOR_OBJECT_DETECTION_MAPPING_NAMES",),
    "depth-estimation": ("MODEL_FOR_DEPTH_ESTIMATION_MAPPING_NAMES",),
    "masked-image-modeling": ("MODEL_FOR_MASKED_IMAGE_MODELING_MAPPING_NAMES",),
    "video-classification": ("MODEL_FOR_VIDEO_CLASSIFICATION_MAPPING_NAMES",),
    "automatic-speech-recognition": (
        "MODEL_FOR_CTC_MAPPING_NAMES",
        "MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING_NAMES",
    ),
    "audio-classification": ("MODEL_FOR_AUDIO_CLASSIFICATION_MAPPING_NAMES",),
    "audio-frame-classification": ("MODEL_FOR_AUDIO_FRAME_CLASSIFICATION_MAPPING_NAMES",),
    "audio-xvector": ("MODEL_FOR_AUDIO_XVECTOR_MAPPING_NAMES",),
    "zero-shot-image-classification": ("MODEL_FOR_ZERO_SHOT_IMAGE_CLASSIFICATION_MAPPING_NAMES",),
    "visual-question-answering": ("MODEL_FOR_VISUAL_QUESTION_ANSWERING_MAPPING_NAMES",),
    "image-text-to-text": ("MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES",),
}
"""Task -> the lists of transformers.models.auto.modeling_auto that have its classes; the table was made from them."""


def task_named(name: str) -> str:
    """Return the task that `name` or its alias stands for. Raises UsageError for an unknown one."""
    task = TASK_ALIASES.get(name, name)
    if task not in CLASS_SUFFIXES:
        raise UsageError(f"unknown task {name!r}", hint=f"known: {', '.join(sorted({*CLASS_SUFFIXES, *TASK_ALIASES}))}")
    return task
