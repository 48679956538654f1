"""Every class of the table is told from its tensors: built without weights, and asked for without its name.

A slice of the model types, seeded by CKCONV_ORACLE_SEED, and some always; all types with CKCONV_ORACLE_FULL=1.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

from converter.dialects.identity.classes import KnownClass, known_type
from converter.dialects.identity.inference import Inference, infer_architecture
from converter.dialects.tables import document
from converter.errors import ArchitectureError
from tests.oracle.generate.classes import built, usual_configs
from tests.slices import IS_FULL, SEED

_TYPES = sorted(document("classes")["models"])
_ENCODERS = (
    *("albert", "bert", "camembert", "distilbert", "electra", "megatron-bert", "roberta", "roberta-prelayernorm"),
    *("roformer", "xlm-roberta"),
)
_TENSORFLOWS = (
    *("blip_text_model", "blip_vision_model", "clip_text_model", "clip_vision_model", "data2vec-vision", "groupvit"),
    *("groupvit_text_model", "groupvit_vision_model", "idefics", "layoutlmv3", "lxmert", "roberta-prelayernorm", "sam"),
    *("sam_vision_model", "swiftformer", "tapas", "vit_mae"),
)
"""Types that only the tables of other frameworks' names had."""

_TYPES_OF_A_PART = 25
_DIFFERENT_INSIDE = {"PerceiverForImageClassificationLearned", "PerceiverForSequenceClassification"}
"""Classes that only the way in to the base model tells apart, whose names below the first component no table has."""


@dataclass(frozen=True)
class Shape:
    shape: tuple[int, ...]


def _chosen() -> list[str]:
    if IS_FULL:
        return _TYPES
    return sorted({*_ENCODERS, *_TENSORFLOWS, *random.Random(SEED).sample(_TYPES, _TYPES_OF_A_PART)})


@dataclass(frozen=True)
class Sample:
    """A class as one of its configs builds it: names and shapes of its files, and the config without its name."""

    known: KnownClass
    tensors: Mapping[str, Shape]
    config: Mapping[str, Any]


def _samples(model_type: str) -> list[Sample]:
    """Build the classes of a model type. Labels that the config says tell multiple choice from one label."""
    known = known_type(model_type)
    assert known is not None
    samples = []
    for each in known.classes.values():
        for config in usual_configs(model_type):
            labels = 3 if {"text-classification", "token-classification"} & {*each.tasks} else 2
            config.num_labels = labels
            if hasattr(config, "is_decoder") and "text-generation" in each.tasks and "fill-mask" not in each.tasks:
                config.is_decoder = True
            try:
                shapes = built(each.name, config).shapes
            except Exception:  # a class that this config does not build, the table was made of another
                continue
            values = {**json.loads(config.to_json_string()), "num_labels": labels}
            values.pop("architectures", None)
            tensors = {name: Shape(shape) for name, shape in shapes.items()}
            samples.append(Sample(known=each, tensors=tensors, config=values))
            break
    return samples


def _is_like(ours: Sample, other: Sample) -> bool:
    """Whether a file of ours may be one of the other's: it has the same names, or more that may be tied."""
    more = ours.tensors.keys() ^ other.tensors.keys()
    return ours.known is not other.known and all(name in other.known.ties for name in more)


def _told(sample: Sample) -> Inference | None:
    """Return what the tensors and the config tell without the class's name, None when they are of several."""
    try:
        return infer_architecture(sample.tensors, sample.config)
    except ArchitectureError as error:
        if "nothing says which" in error.message and sample.known.name in error.message:
            return None
        raise


@pytest.mark.parametrize("model_type", _chosen())
def test_every_class_is_told(model_type: str) -> None:
    """By its config where that names it; without the name too, but where another class has all the same names."""
    samples = _samples(model_type)
    assert samples
    for sample in samples:
        name = sample.known.name
        named = {**sample.config, "architectures": [name]}
        assert infer_architecture(sample.tensors, named) == Inference(architecture=name, basis="config")
        told = _told(sample)
        if told is not None:
            assert (told.architecture, told.prefix, told.basis) == (name, "", "head tensors")
        elif name not in _DIFFERENT_INSIDE:
            assert model_type not in _ENCODERS
            assert any(_is_like(sample, other) for other in samples), name
