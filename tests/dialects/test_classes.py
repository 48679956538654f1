"""The class of a model of any known type, told from the names of its tensors, its config and the task."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from converter.dialects.identity import classes
from converter.dialects.identity.classes import KnownClass, KnownType, known_type, layer_of, template_of, type_with
from converter.dialects.identity.inference import Inference, infer_architecture
from converter.dialects.identity.tasks import TASK_ALIASES, task_named
from converter.dialects.tables import document
from converter.errors import ArchitectureError, UsageError

TYPES = sorted(document("classes")["models"])


@dataclass(frozen=True)
class Shape:
    shape: tuple[int, ...] = (2, 2)


def _known(model_type: str) -> KnownType:
    known = known_type(model_type)
    assert known is not None
    return known


def _names(class_name: str, model_type: str, *, outer: str = "") -> list[str]:
    known = _known(model_type)
    found = known.classes[class_name]
    before = f"{found.prefix}." if found.prefix else ""
    anchor = [before + known.anchor] if known.anchor else []
    below = [f"{before}{first}.0.weight" for first in (*found.base, *found.base_optional)]
    head = [*(name.replace("#", "0") for name in found.head), *(f"{layer}.weight" for layer in found.tells)]
    return [outer + name for name in (*below, *anchor, *head)]


def _inferred(names: list[str], config: dict[str, Any], task: str | None = None) -> Inference:
    return infer_architecture({name: Shape() for name in names}, config, task=task)


@pytest.mark.parametrize("model_type", TYPES)
def test_every_class_is_told(model_type: str) -> None:
    """By its names where they are like no other's; with the class in the config always."""
    for each in _known(model_type).classes.values():
        names = _names(each.name, model_type)
        named = {"model_type": model_type, "architectures": [each.name]}
        assert _inferred(names, named) == Inference(architecture=each.name, basis="config")
        assert _alone(each, model_type, names) in (each.name, None)


def _alone(known: KnownClass, model_type: str, names: list[str]) -> str | None:
    """Return the class that names and one row of choices tell, None where they are of several."""
    tensors = {name: Shape((1, 2) if name == known.output else (2, 2)) for name in names}
    is_decoder = "text-generation" in known.tasks and "fill-mask" not in known.tasks
    try:
        found = infer_architecture(tensors, {"model_type": model_type, "is_decoder": is_decoder})
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
        for task in {task for each in _known(model_type).classes.values() for task in each.tasks}:
            assert task_named(task) == task
            assert task not in TASK_ALIASES


def test_several_classes_for_one_task() -> None:
    """Which of them it is the config can say, the task cannot."""
    assert [each.name for each in _known("vit").for_task("image-classification")] == ["ViTForImageClassification"]
    assert _known("vit").for_task("text-generation") == []
    several = _known("deit").for_task("image-classification")
    names = _names(several[0].name, "deit")
    with pytest.raises(ArchitectureError, match=" and ".join(each.name for each in several)):
        _inferred(names, {"model_type": "deit"}, task="image-classification")


@pytest.mark.parametrize(
    ("name", "template", "layer"),
    [
        ("classifier.weight", "classifier.weight", "classifier"),
        ("final_logits_bias", "final_logits_bias", "final_logits_bias"),
        ("cls.predictions.bias", "cls.predictions.bias", "cls.predictions"),
        ("decoder.10.weight", "decoder.#.weight", "decoder"),
        ("neck.layers.0.fc1.1.bias", "neck.layers.#.fc1.#.bias", "neck.layers"),
        ("conv1.weight", "conv1.weight", "conv1"),
    ],
)
def test_layers_of_names(name: str, template: str, layer: str) -> None:
    assert (template_of(name), layer_of(name), layer_of(template)) == (template, layer, layer)


@pytest.mark.parametrize("change", [{"surprise": 1}, {"anchor": None}])
def test_a_slip_in_the_table_is_said(monkeypatch: pytest.MonkeyPatch, change: dict[str, Any]) -> None:
    entry = {
        key: value for key, value in {**document("classes")["models"]["vit"], **change}.items() if value is not None
    }
    monkeypatch.setattr(classes, "document", lambda _: {"models": {"vit": entry}})
    known_type.cache_clear()
    with pytest.raises(ValueError, match=r"classes\.json, vit"):
        known_type("vit")
    known_type.cache_clear()


def test_a_bias_tells() -> None:
    """Llama classifies tokens by a layer with a bias, and sequences by one without."""
    names = _names("LlamaForTokenClassification", "llama")
    assert _inferred(names, {"model_type": "llama"}).architecture == "LlamaForTokenClassification"
    names.remove("score.bias")
    assert _inferred(names, {"model_type": "llama"}).architecture == "LlamaForSequenceClassification"


def test_the_type_of_a_class() -> None:
    assert type_with("ViTForImageClassification") == "vit"
    assert type_with("ViTForTelepathy") is None
