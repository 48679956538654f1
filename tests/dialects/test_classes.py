"""The class of a model of any known type, told from the names of its tensors, its config and the task."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from converter.dialects.architecture import Inference, infer_architecture
from converter.dialects.classes import class_for_task, classes_of
from converter.dialects.families import FAMILIES, TASK_ALIASES, task_named
from converter.dialects.transformers.tables import document
from converter.errors import ArchitectureError, UsageError

TYPES = sorted(set(document("classes")["models"]) - set(FAMILIES))


@dataclass(frozen=True)
class Shape:
    shape: tuple[int, ...] = (2, 2)


def _names(class_name: str, model_type: str, *, outer: str = "") -> list[str]:
    found = next(each for each in classes_of(model_type) if each.name == class_name)
    below = [f"{found.prefix}.{first}" for first in found.base]
    return [f"{outer}{first}.0.weight" for first in (*below, *found.head)]


def _inferred(names: list[str], config: dict[str, Any], task: str | None = None) -> Inference:
    return infer_architecture({name: Shape() for name in names}, config, task=task)


@pytest.mark.parametrize("model_type", TYPES)
def test_every_class_is_told(model_type: str) -> None:
    """By its names where they are like no other's; with the class in the config always."""
    for each in classes_of(model_type):
        names = _names(each.name, model_type)
        named = {"model_type": model_type, "architectures": [each.name]}
        assert _inferred(names, named) == Inference(architecture=each.name, basis="config")
        alone = _alone(names, model_type)
        assert alone in (each.name, None)


def _alone(names: list[str], model_type: str) -> str | None:
    """Return the class that names alone tell, None where they are of several."""
    try:
        found = _inferred(names, {"model_type": model_type})
    except ArchitectureError:
        return None
    assert found.basis == "head tensors"
    return found.architecture


@pytest.mark.parametrize(
    ("model_type", "class_name"),
    [
        ("vit", "ViTForImageClassification"),
        ("gpt2", "GPT2LMHeadModel"),
        ("wav2vec2", "Wav2Vec2ForCTC"),
        ("clip", "CLIPModel"),
        ("mixtral", "MixtralForCausalLM"),
        ("whisper", "WhisperForConditionalGeneration"),
        ("resnet", "ResNetForImageClassification"),
    ],
)
@pytest.mark.parametrize("outer", ["", "module.", "model."])
def test_names_alone_are_enough_for_most(model_type: str, class_name: str, outer: str) -> None:
    found = _inferred(_names(class_name, model_type, outer=outer), {"model_type": model_type})
    assert found == Inference(architecture=class_name, basis="head tensors", prefix=outer)


def test_a_config_that_says_another_class_is_noted() -> None:
    config = {"model_type": "vit", "architectures": ["ViTForImageClassification"]}
    names = _names("ViTForMaskedImageModeling", "vit")
    assert _inferred(_names("ViTForImageClassification", "vit"), config).note is None
    found = _inferred(names, config)
    assert found.architecture == "ViTForMaskedImageModeling"
    assert found.note == "config.json says ViTForImageClassification, the tensors are ViTForMaskedImageModeling's"


def test_a_base_model_inside_a_class_with_a_head() -> None:
    names = [f"vit.{name}" for name in _names("ViTModel", "vit")]
    config = {"model_type": "vit", "architectures": ["ViTModel"]}
    assert _inferred(names, config) == Inference(architecture="ViTModel", basis="config", prefix="vit.")


def test_a_task() -> None:
    names = _names("Wav2Vec2ForSequenceClassification", "wav2vec2")
    found = _inferred(names, {"model_type": "wav2vec2"}, task="audio-classification")
    assert found == Inference(architecture="Wav2Vec2ForSequenceClassification", basis="task")
    with pytest.raises(ArchitectureError, match="no class for question-answering"):
        _inferred(names, {"model_type": "wav2vec2"}, task="question-answering")
    with pytest.raises(UsageError, match="unknown task"):
        _inferred(names, {"model_type": "wav2vec2"}, task="guessing")


def test_names_of_no_class() -> None:
    names = _names("ViTForImageClassification", "vit")
    assert _inferred(names, {"model_type": "vit"}).architecture == "ViTForImageClassification"
    with pytest.raises(ArchitectureError, match="of no class of model type 'vit'"):
        _inferred(names[1:], {"model_type": "vit"})


def test_every_task_has_a_name() -> None:
    for model_type in TYPES:
        for task in {task for each in classes_of(model_type) for task in each.tasks}:
            assert task_named(task) == task
            assert task not in TASK_ALIASES


def test_several_classes_for_one_task() -> None:
    assert class_for_task("vit", "image-classification") == "ViTForImageClassification"
    assert class_for_task("vit", "text-generation") is None
