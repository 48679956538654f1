"""Every source: who makes it, what the user has, and what is judged."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

TARGETS = ("pretrained", "pytorch", "safetensors", "savedmodel", "onnx", "pt2", "h5", "keras", "tf")
WEIGHTS_ALONE = ("pretrained", "pytorch", "safetensors", "h5", "keras", "tf")
"""Targets for which no graph is traced."""

_CONFIG = {"--config": "hf_config"}


@dataclass(frozen=True)
class Source:
    """One way of saving one model.

    `path` is SRC, in the folder of the source's name; `at_hand` are options whose values its author has, given when a
    refusal asks for them. `model` is the class of transformers, `head` what computes the outputs from its states.
    """

    name: str
    path: str
    maker: str
    group: str
    model: str = ""
    head: str = ""
    at_hand: dict[str, str] = field(default_factory=dict)
    is_whole: bool = False
    """Whether it holds a Keras model with its config, which `load_model` opens."""
    h5: str = "model.h5"
    """The name of its own kind of HDF5 file."""
    optimizer: str = "Adam"
    """What it was trained with, at a rate of 1e-3."""
    right: float = 1e-5
    """How far the outputs of a right cell are off at the most: as far as float16 is, of a model that computes in it."""
    trains_in: tuple[str, ...] = ()
    """Targets in which training goes on: PyTorch's, and its own framework's; none where it has no optimizer."""

    @property
    def hyperparameters(self) -> str:
        """What a file without them is told by its author."""
        decay = {"Adam": "", "AdamW": " weight_decay=0.004"}[self.optimizer]
        return f"class_name={self.optimizer} learning_rate=0.001 beta_1=0.9 beta_2=0.999 epsilon=1e-7{decay}"


_TRAINS_IN: dict[str, tuple[str, ...]] = {
    "dir": ("pytorch", "h5", "keras"),
    "h5": ("pytorch", "h5"),
    "keras": ("pytorch", "keras"),
    "weights_v3": ("pytorch", "h5"),
    "checkpoint": ("pytorch",),
}
"""By the way of saving a model of tf_keras; `save_weights` to HDF5 saves no optimizer."""


def _of(maker: str, group: str, model: str = "", head: str = "", optimizer: str = "Adam") -> dict[str, str]:
    return {"maker": maker, "group": group, "model": model, "head": head, "optimizer": optimizer}


def _xlm_roberta() -> list[Source]:
    of = _of("tensorflow", "xlm_roberta", "XLMRobertaForSequenceClassification")
    return [
        Source("xlmr_weights", "weights.h5", at_hand=_CONFIG, **of),
        Source("xlmr_pretrained", "model", **of),
        Source("xlmr_export", "export", at_hand=_CONFIG, trains_in=("pytorch", "tf"), **of),
        Source("xlmr_dir", "model", trains_in=("pytorch", "tf"), **of),
        Source("xlmr_pretrained_saved_model", "model/saved_model/1", **of),
        Source("xlmr_keras", "model.keras", at_hand=_CONFIG, is_whole=True, trains_in=("pytorch", "tf"), **of),
        Source("xlmr_checkpoint", "checkpoint/weights", at_hand=_CONFIG, trains_in=("pytorch", "tf"), **of),
    ]


def _functional(group: str, model: str, head: str, ways: str, optimizer: str = "Adam") -> list[Source]:
    of = _of("tensorflow", group, model, head, optimizer)
    paths = {
        "dir": "model",
        "h5": "model.h5",
        "keras": "model.keras",
        "weights": "weights.h5",
        "weights_v3": "model.weights.h5",
        "checkpoint": "checkpoint/weights",
    }
    return [
        Source(
            f"{group}_{way}",
            paths[way],
            at_hand={"--config": "model.json"} if way == "weights_v3" else _CONFIG,
            is_whole=way in ("dir", "h5", "keras"),
            h5="model.weights.h5" if way == "weights_v3" else "model.h5",
            right=1e-2 if group == "mixed" else 1e-5,
            trains_in=() if group == "mixed" else _TRAINS_IN.get(way, ()),
            **of,
        )
        for way in ways.split()
    ]


def _siamese() -> list[Source]:
    own = {**_CONFIG, "--custom-objects": "tests.migrations.siamese_layers:SimilarityLayer"}
    of = _of("tensorflow", "siamese", "BertModel", "siamese_similarity")
    whole = {"dir": "model", "h5": "model.h5", "keras": "model.keras"}
    made = [
        Source(f"siamese_{way}", path, at_hand=own, is_whole=True, trains_in=_TRAINS_IN[way], **of)
        for way, path in whole.items()
    ]
    for way, config in (("get_config", "get_config.json"), ("to_json", "to_json.json")):
        made.append(Source(f"siamese_{way}", "weights.h5", at_hand={**own, "--config": config}, **of))
    plain = _of("tensorflow", "siamese_plain", "BertModel", "siamese")
    made += [
        Source(f"siamese_plain_{way}", whole[way], at_hand=_CONFIG, is_whole=True, trains_in=_TRAINS_IN[way], **plain)
        for way in whole
    ]
    return [*made, Source("siamese_encoder", "model", **_of("tensorflow", "siamese", "BertModel", "encoder"))]


def _squad() -> list[Source]:
    of = _of("torch", "squad", "BertForQuestionAnswering", optimizer="AdamW")
    trains: dict[str, Any] = {"trains_in": ("pytorch", "tf")}
    odd = ("vocab", "object", "dict", "init")
    return [
        *(Source(f"squad_{form}", "squad.pth", at_hand=_CONFIG, **trains, **of) for form in odd),
        Source("squad_beside", "squad.pth", **trains, **of),
        Source("squad_three_keys", "squad.pth", at_hand={"--config-value": "num_attention_heads=8"}, **trains, **of),
        Source("squad_tensorflow", "model", **_of("tensorflow", "squad", "BertForQuestionAnswering")),
    ]


def _keras3() -> list[Source]:
    numbers = _of("keras3", "numbers", optimizer="AdamW")
    names, weights = "SimilarityLayer,CosineSimilarity", "model.weights.h5"
    own = {"--custom-objects": f"tests.migrations.keras3_layers:{names}"}
    archive: dict[str, Any] = {"is_whole": True, "trains_in": ("pytorch", "keras")}
    of_weights: dict[str, Any] = {"h5": weights, "trains_in": ("pytorch", "h5")}
    found = [
        Source("keras3_keras", "model.keras", **archive, **numbers),
        Source("keras3_h5", "model.h5", **archive, **numbers),
        Source("keras3_weights", weights, at_hand={"--config": "model.json"}, **of_weights, **numbers),
        Source("keras3_export", "model", **numbers),
    ]
    for group in ("siamese_lambda", "siamese_own"):
        of = _of("keras3", group)
        config = {**own, "--config": "get_config.json"}
        found.append(Source(f"keras3_{group}_keras", "model.keras", at_hand=own, **archive, **of))
        found.append(Source(f"keras3_{group}_json", weights, at_hand=config, **of_weights, **of))
    return found


SOURCES = {
    source.name: source
    for source in [
        *_xlm_roberta(),
        *_functional("classifier", "BertModel", "first", "dir h5 keras weights weights_v3 checkpoint"),
        *_functional("numbers", "BertModel", "first", "dir h5 keras weights"),
        *_functional("mixed", "BertModel", "first", "dir h5 keras"),
        *_functional("sigmoid", "XLMRobertaModel", "first", "dir h5 keras weights", "AdamW"),
        *_functional("softmax", "XLMRobertaModel", "first", "dir h5 keras", "AdamW"),
        *_functional("pooling", "XLMRobertaModel", "mean", "dir h5 keras weights", "AdamW"),
        *_squad(),
        *_siamese(),
        *_keras3(),
    ]
}
