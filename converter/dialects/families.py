"""Encoder families of transformers: which classes they have, and which layers tell those classes apart.

One row per family. Names and ties as transformers 5.23 declares them (`models/<family>/modeling_<family>.py`,
`_tied_weights_keys`); tests build every class and compare.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from converter.errors import UsageError

BASE_TASK = "feature-extraction"
MASKED_TASK = "fill-mask"
CAUSAL_TASK = "text-generation"
SEQUENCE_TASK = "text-classification"
CHOICE_TASK = "multiple-choice"

TASK_ALIASES: Mapping[str, str] = {
    "base": BASE_TASK,
    "causal-lm": CAUSAL_TASK,
    "masked-lm": MASKED_TASK,
    "ner": "token-classification",
    "pre-training": "pretraining",
    "sentiment-analysis": SEQUENCE_TASK,
    "sequence-classification": SEQUENCE_TASK,
}

POSITION_EMBEDDINGS = "embeddings.position_embeddings.weight"
"""Every base model here has them, and unlike the word embeddings nothing is tied to them."""

CLASS_SUFFIXES: Mapping[str, str] = {
    BASE_TASK: "Model",
    MASKED_TASK: "ForMaskedLM",
    CAUSAL_TASK: "ForCausalLM",
    SEQUENCE_TASK: "ForSequenceClassification",
    CHOICE_TASK: "ForMultipleChoice",
    "token-classification": "ForTokenClassification",
    "question-answering": "ForQuestionAnswering",
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


def task_named(name: str) -> str:
    """Return the task that `name` or its alias stands for. Raises UsageError for an unknown one."""
    task = TASK_ALIASES.get(name, name)
    if task not in CLASS_SUFFIXES:
        raise UsageError(f"unknown task {name!r}", hint=f"known: {', '.join(sorted({*CLASS_SUFFIXES, *TASK_ALIASES}))}")
    return task


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """What one class adds to its family's base model.

    `layers`      the layers (tensor names less their last component) that only classes with this head have
    `optional`    layers of the head that a file may leave out, because they are tied to others
    `has_pooler`  whether the class keeps the base model's pooler; files of other versions may differ
    `output`      the tensor with one row per label
    `suffix`      how the class name ends, where it is not what its task usually is called
    `ties`        tied name -> the name whose values it shares; ``{word}`` stands for the word embeddings
    """

    task: str
    layers: frozenset[str] = frozenset()
    optional: frozenset[str] = frozenset()
    has_pooler: bool = False
    output: str | None = None
    suffix: str = ""
    ties: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.task not in CLASS_SUFFIXES:
            raise ValueError(f"no task is called {self.task!r}")
        if self.output is not None and self.output.rpartition(".")[0] not in self.layers:
            raise ValueError(f"{self.output!r} is in no layer of the head")

    @property
    def class_suffix(self) -> str:
        """How the class name ends, after the family's stem."""
        return self.suffix or CLASS_SUFFIXES[self.task]


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """A model type: its classes are `stem` + the suffix of a head, its base model lives under `base_prefix`.

    `base_modules`  the first components of the base model's own names
    `pooler`        the base model's pooler layer, None where the family has none
    """

    model_type: str
    stem: str
    base_prefix: str
    base_modules: frozenset[str]
    pooler: str | None
    heads: tuple[Head, ...]

    def __post_init__(self) -> None:
        classes = [self.architecture(head) for head in self.heads]
        tasks = {head.task for head in self.heads}
        if len(set(classes)) != len(classes) or len(tasks) != len(classes):
            raise ValueError(f"{self.model_type}: two heads share a class or a task")
        if BASE_TASK not in tasks:
            raise ValueError(f"{self.model_type}: has no base model")

    def architecture(self, head: Head) -> str:
        """Return the class name of the family's model with `head`."""
        return self.stem + head.class_suffix

    @property
    def word_embeddings(self) -> str:
        """The name of the word embeddings in a class with a head."""
        return f"{self.base_prefix}.embeddings.word_embeddings.weight"


_QUESTION_ANSWERING = Head(task="question-answering", layers=frozenset({"qa_outputs"}), output="qa_outputs.weight")
_TOKENS = Head(task="token-classification", layers=frozenset({"classifier"}), output="classifier.weight")
_POOLED_CHOICE = Head(task=CHOICE_TASK, layers=frozenset({"classifier"}), has_pooler=True, output="classifier.weight")
_POOLED_SEQUENCE = Head(
    task=SEQUENCE_TASK, layers=frozenset({"classifier"}), has_pooler=True, output="classifier.weight"
)
_DENSE_SEQUENCE = Head(
    task=SEQUENCE_TASK,
    layers=frozenset({"classifier.dense", "classifier.out_proj"}),
    output="classifier.out_proj.weight",
)


def _language_model(task: str, *, dense: str, norm: str, decoder: str, bias: str | None, suffix: str = "") -> Head:
    """A head that predicts words: dense layer, norm, and a decoder tied to the word embeddings.

    `bias` is the layer whose own bias the decoder's is tied to, None where the decoder has its own.
    """
    ties = {f"{decoder}.weight": "{word}"}
    if bias is not None:
        ties[f"{decoder}.bias"] = f"{bias}.bias"
    return Head(
        task=task,
        layers=frozenset({dense, norm}),
        optional=frozenset({decoder} if bias is None else {decoder, bias}),
        ties=ties,
        suffix=suffix,
    )


def _with(head: Head, *, task: str, layers: frozenset[str]) -> Head:
    """Another head that has all of `head`, `layers` besides, and the pooler."""
    return Head(task=task, layers=head.layers | layers, optional=head.optional, ties=head.ties, has_pooler=True)


def _bert_predictions(task: str, suffix: str = "") -> Head:
    return _language_model(
        task,
        dense="cls.predictions.transform.dense",
        norm="cls.predictions.transform.LayerNorm",
        decoder="cls.predictions.decoder",
        bias="cls.predictions",
        suffix=suffix,
    )


def _roberta_predictions(task: str) -> Head:
    return _language_model(
        task, dense="lm_head.dense", norm="lm_head.layer_norm", decoder="lm_head.decoder", bias="lm_head"
    )


def _electra_predictions(task: str) -> Head:
    return _language_model(
        task,
        dense="generator_predictions.dense",
        norm="generator_predictions.LayerNorm",
        decoder="generator_lm_head",
        bias=None,
    )


_ALBERT_PREDICTIONS = _language_model(
    MASKED_TASK,
    dense="predictions.dense",
    norm="predictions.LayerNorm",
    decoder="predictions.decoder",
    bias="predictions",
)
_DISTILBERT_CLASSIFIER = frozenset({"pre_classifier", "classifier"})
_BERT_MODULES = frozenset({"embeddings", "encoder", "pooler"})


def _roberta(model_type: str, stem: str) -> Family:
    return Family(
        model_type=model_type,
        stem=stem,
        base_prefix="roberta",
        base_modules=_BERT_MODULES,
        pooler="pooler.dense",
        heads=(
            Head(task=BASE_TASK, has_pooler=True),
            _roberta_predictions(MASKED_TASK),
            _roberta_predictions(CAUSAL_TASK),
            _DENSE_SEQUENCE,
            _POOLED_CHOICE,
            _TOKENS,
            _QUESTION_ANSWERING,
        ),
    )


_ROWS = (
    Family(
        model_type="bert",
        stem="Bert",
        base_prefix="bert",
        base_modules=_BERT_MODULES,
        pooler="pooler.dense",
        heads=(
            Head(task=BASE_TASK, has_pooler=True),
            _bert_predictions(MASKED_TASK),
            _bert_predictions(CAUSAL_TASK, suffix="LMHeadModel"),
            _with(_bert_predictions(MASKED_TASK), task="pretraining", layers=frozenset({"cls.seq_relationship"})),
            Head(task="next-sentence-prediction", layers=frozenset({"cls.seq_relationship"}), has_pooler=True),
            _POOLED_SEQUENCE,
            _POOLED_CHOICE,
            _TOKENS,
            _QUESTION_ANSWERING,
        ),
    ),
    _roberta("roberta", "Roberta"),
    _roberta("xlm-roberta", "XLMRoberta"),
    Family(
        model_type="distilbert",
        stem="DistilBert",
        base_prefix="distilbert",
        base_modules=frozenset({"embeddings", "transformer"}),
        pooler=None,
        heads=(
            Head(task=BASE_TASK),
            _language_model(
                MASKED_TASK,
                dense="vocab_transform",
                norm="vocab_layer_norm",
                decoder="vocab_projector",
                bias=None,
            ),
            Head(task=SEQUENCE_TASK, layers=_DISTILBERT_CLASSIFIER, output="classifier.weight"),
            Head(task=CHOICE_TASK, layers=_DISTILBERT_CLASSIFIER, output="classifier.weight"),
            _TOKENS,
            _QUESTION_ANSWERING,
        ),
    ),
    Family(
        model_type="albert",
        stem="Albert",
        base_prefix="albert",
        base_modules=_BERT_MODULES,
        pooler="pooler",
        heads=(
            Head(task=BASE_TASK, has_pooler=True),
            _ALBERT_PREDICTIONS,
            _with(_ALBERT_PREDICTIONS, task="pretraining", layers=frozenset({"sop_classifier.classifier"})),
            _POOLED_SEQUENCE,
            _POOLED_CHOICE,
            _TOKENS,
            _QUESTION_ANSWERING,
        ),
    ),
    Family(
        model_type="electra",
        stem="Electra",
        base_prefix="electra",
        base_modules=frozenset({"embeddings", "embeddings_project", "encoder"}),
        pooler=None,
        heads=(
            Head(task=BASE_TASK),
            _electra_predictions(MASKED_TASK),
            _electra_predictions(CAUSAL_TASK),
            Head(
                task="pretraining",
                layers=frozenset({"discriminator_predictions.dense", "discriminator_predictions.dense_prediction"}),
            ),
            _DENSE_SEQUENCE,
            Head(
                task=CHOICE_TASK,
                layers=frozenset({"sequence_summary.summary", "classifier"}),
                output="classifier.weight",
            ),
            _TOKENS,
            _QUESTION_ANSWERING,
        ),
    ),
)

FAMILIES: Mapping[str, Family] = {family.model_type: family for family in _ROWS}
