"""The class of a checkpoint, told from names and shapes alone, against the classes transformers itself builds."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from converter.dialects.identity.classes import KnownClass, KnownType, known_type
from converter.dialects.identity.inference import Inference, infer_architecture
from converter.dialects.identity.sightings import Fit, fits, sightings
from converter.dialects.identity.ties import declared_ties
from converter.dialects.identity.transformers_4 import is_class_named
from converter.dialects.tables import tensorflow_table
from converter.errors import ArchitectureError, UsageError

_SIZES = {
    "vocab_size": 32,
    "embedding_size": 4,
    "hidden_size": 8,
    "dim": 8,
    "num_hidden_layers": 2,
    "n_layers": 2,
    "num_attention_heads": 2,
    "n_heads": 2,
    "intermediate_size": 16,
    "hidden_dim": 16,
    "max_position_embeddings": 16,
}
_TYPES = (
    *("bert", "roberta", "xlm-roberta", "distilbert", "albert", "electra"),
    *("camembert", "megatron-bert", "roformer", "roberta-prelayernorm"),
)
_FAMILIES = {name: known for name in _TYPES if (known := known_type(name)) is not None}
_CLASSES = [architecture for known in _FAMILIES.values() for architecture in known.classes]
_PREFIXES = ["", "model.", "module.model.", "0.auto_model."]


@dataclass(frozen=True)
class Shape:
    """The little that inference asks of a tensor."""

    shape: tuple[int, ...]


@dataclass(frozen=True)
class Sample:
    """One class of transformers: what its state dict and its config.json look like, and what it ties."""

    architecture: str
    tensors: Mapping[str, Shape]
    config: Mapping[str, Any]
    ties: Mapping[str, str]

    def config_less(self, *keys: str, **others: Any) -> dict[str, Any]:
        return {**{key: value for key, value in self.config.items() if key not in keys}, **others}

    def under(self, prefix: str) -> dict[str, Shape]:
        return {prefix + name: tensor for name, tensor in self.tensors.items()}


RECORDED = Path(__file__).with_name("classes_recorded.json")


@pytest.fixture(scope="module")
def samples() -> dict[str, Sample]:
    """Every class of every row, as it was recorded: `python -m tests.dialects.test_identity` does it."""
    found = {}
    for entry in json.loads(RECORDED.read_text("utf-8")).values():
        shapes = [(name, Shape(tuple(shape))) for name, shape in entry["tensors"]]
        for architecture, each in entry["classes"].items():
            tensors = dict(shapes[at] for at in each["tensors"])
            found[architecture] = Sample(architecture, tensors, each["config"], each["ties"])
    return found


def recorded(samples: Mapping[str, Sample]) -> dict[str, Any]:
    """Samples as JSON, each tensor of a model type once."""
    document: dict[str, Any] = {}
    for architecture, sample in samples.items():
        entry = document.setdefault(_row(architecture)[0].name, {"tensors": [], "classes": {}})
        for name, tensor in sample.tensors.items():
            if [name, list(tensor.shape)] not in entry["tensors"]:
                entry["tensors"].append([name, list(tensor.shape)])
        numbers = [entry["tensors"].index([name, list(tensor.shape)]) for name, tensor in sample.tensors.items()]
        config = {key: value for key, value in sample.config.items() if key != "transformers_version"}
        entry["classes"][architecture] = {"tensors": numbers, "config": config, "ties": dict(sample.ties)}
    return document


def built() -> dict[str, Sample]:
    """Every class of every row, built on the meta device."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    made = {}
    with torch.device("meta"):
        for architecture in _CLASSES:
            model_type, tasks = _row(architecture)[0].name, _row(architecture)[1].tasks
            labels = 3 if {"text-classification", "token-classification"} & {*tasks} else 2
            fields = transformers.AutoConfig.for_model(model_type).to_dict()
            sizes = {key: value for key, value in _SIZES.items() if key in fields}
            config = transformers.AutoConfig.for_model(
                model_type, **sizes, num_labels=labels, is_decoder="text-generation" in tasks
            )
            model = getattr(transformers, architecture)(config)
            model.config.architectures = [architecture]
            made[architecture] = Sample(
                architecture=architecture,
                tensors={name: Shape(tuple(tensor.shape)) for name, tensor in model.state_dict().items()},
                config=json.loads(model.config.to_json_string(use_diff=True)),
                ties=dict(model.all_tied_weights_keys),
            )
    return made


def test_what_is_recorded_is_what_transformers_builds() -> None:
    assert recorded(built()) == json.loads(RECORDED.read_text("utf-8"))


def test_rows_are_complete() -> None:
    """Every class that transformers has for these model types is in the table."""
    transformers = pytest.importorskip("transformers")
    assert list(_FAMILIES) == list(_TYPES)
    for known in _FAMILIES.values():
        module = getattr(transformers.models, known.name.replace("-", "_"))
        modeling = getattr(module, f"modeling_{known.name.replace('-', '_')}")
        classes = {name for name in modeling.__all__ if re.search("For[A-Z]|LMHeadModel$|(?<!PreTrained)Model$", name)}
        assert classes == known.classes.keys()


def test_base_prefixes_are_those_of_transformers() -> None:
    transformers = pytest.importorskip("transformers")
    for known in _FAMILIES.values():
        for each in known.classes.values():
            assert each.is_base or each.prefix == getattr(transformers, each.name).base_model_prefix


@pytest.mark.parametrize("architecture", _CLASSES)
def test_config_is_right_when_the_head_agrees(samples: dict[str, Sample], architecture: str) -> None:
    sample = samples[architecture]
    assert infer_architecture(sample.tensors, sample.config) == Inference(architecture=architecture, basis="config")


@pytest.mark.parametrize("prefix", _PREFIXES)
@pytest.mark.parametrize("architecture", _CLASSES)
def test_class_comes_from_the_head(samples: dict[str, Sample], architecture: str, prefix: str) -> None:
    """Without `architectures`. A config that states its labels tells multiple choice from one label."""
    sample = samples[architecture]
    config = sample.config_less("architectures", num_labels=len(sample.config.get("id2label", "ab")))
    found = infer_architecture(sample.under(prefix), config)
    assert (found.architecture, found.basis, found.prefix) == (architecture, "head tensors", prefix)
    stripped = {name.removeprefix(found.prefix) for name in sample.under(prefix)}
    assert stripped == set(sample.tensors)


@pytest.mark.parametrize("architecture", _CLASSES)
def test_a_wrong_config_is_overruled(samples: dict[str, Sample], architecture: str) -> None:
    """Whichever other class of the family the config names, unless its tensors are the same."""
    sample = samples[architecture]
    known, _ = _row(architecture)
    layers = {each.name: (each.layers, each.optional_layers) for each in known.classes.values()}
    for other in layers:
        if layers[other] != layers[architecture]:
            config = sample.config_less(num_labels=len(sample.config.get("id2label", "ab")), architectures=[other])
            found = infer_architecture(sample.tensors, config)
            assert (found.architecture, found.basis) == (architecture, "head tensors"), other
            assert found.note is not None
            assert other in found.note


@pytest.mark.parametrize("architecture", _CLASSES)
def test_task_overrules(samples: dict[str, Sample], architecture: str) -> None:
    sample = samples[architecture]
    _, known = _row(architecture)
    config = sample.config_less(architectures=["BertForSomethingElse"])
    found = infer_architecture(sample.tensors, config, task=known.tasks[0])
    assert found == Inference(architecture=architecture, basis="task")


@pytest.mark.parametrize("architecture", _CLASSES)
def test_ties_are_those_of_transformers(samples: dict[str, Sample], architecture: str) -> None:
    sample = samples[architecture]
    assert declared_ties(sample.tensors, sample.config, architecture) == sample.ties
    under_a_prefix = {"model." + alias: "model." + owner for alias, owner in sample.ties.items()}
    assert declared_ties(sample.under("model."), sample.config, architecture) == under_a_prefix
    assert declared_ties(sample.tensors, sample.config_less(tie_word_embeddings=False), architecture) == {}


@pytest.mark.parametrize(
    ("model_type", "architecture", "config", "is_tied"),
    [
        ("bert", "BertForMaskedLM", {}, True),
        ("bert", "BertForMaskedLM", {"tie_word_embeddings": False}, False),
        ("bert", "BertForMaskedLM", {"text_config": {"tie_word_embeddings": True}}, False),
        ("bert", "BertForMaskedLM", {"text_config": {}}, True),
        ("arcee", "ArceeForCausalLM", {}, False),
        ("arcee", "ArceeForCausalLM", {"text_config": {}}, False),
        ("arcee", "ArceeForCausalLM", {"tie_word_embeddings": True}, True),
        ("arcee", "ArceeForCausalLM", {"text_config": {"tie_word_embeddings": True}}, False),
    ],
)
def test_whether_a_config_ties(model_type: str, architecture: str, config: dict[str, Any], is_tied: bool) -> None:
    """What it says itself goes first, then what a part of it says, which is for the part, then the type's default."""
    known = known_type(model_type)
    assert known is not None
    each = known.classes[architecture]
    names = [name for pair in each.ties.items() for name in pair]
    names += [f"{each.prefix}.{part}.x.weight" for part in each.base]
    names += [f"{each.prefix}.{known.anchor}"] if known.anchor else []
    tensors = dict.fromkeys(names, Shape((2, 2)))
    found = declared_ties(tensors, {"model_type": model_type, **config}, architecture)
    assert found == (dict(each.ties) if is_tied else {})


def test_owners_are_what_transformers_writes(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    safetensors = pytest.importorskip("safetensors")
    for architecture in ["BertForPreTraining", "AlbertForMaskedLM", "ElectraForMaskedLM", "DistilBertForMaskedLM"]:
        known, _ = _row(architecture)
        fields = transformers.AutoConfig.for_model(known.name).to_dict()
        sizes = {key: value for key, value in _SIZES.items() if key in fields}
        model = getattr(transformers, architecture)(transformers.AutoConfig.for_model(known.name, **sizes))
        state = model.state_dict()
        ties = declared_ties(state, json.loads(model.config.to_json_string()), architecture)
        assert ties
        model.save_pretrained(tmp_path / architecture)
        with safetensors.safe_open(tmp_path / architecture / "model.safetensors", "pt") as file:
            assert set(file.keys()) == set(state) - set(ties)
        assert all(torch.equal(state[alias], state[owner]) for alias, owner in ties.items())


def test_a_tie_needs_both_names_in_one_shape(samples: dict[str, Sample]) -> None:
    sample = samples["BertForMaskedLM"]
    decoder, owner = "cls.predictions.decoder.weight", "bert.embeddings.word_embeddings.weight"
    assert declared_ties(sample.tensors, sample.config, sample.architecture)[decoder] == owner
    without = {name: tensor for name, tensor in sample.tensors.items() if name != decoder}
    assert decoder not in declared_ties(without, sample.config, sample.architecture)
    resized = {**sample.tensors, decoder: Shape((33, 8))}
    assert decoder not in declared_ties(resized, sample.config, sample.architecture)
    assert declared_ties(sample.tensors, sample.config, "LlamaForCausalLM") == {}


@pytest.mark.parametrize("architecture", ["BertForMaskedLM", "AlbertForPreTraining", "DistilBertForMaskedLM"])
def test_tied_names_may_be_missing(samples: dict[str, Sample], architecture: str) -> None:
    """As in a safetensors file, where ties are stored once."""
    sample = samples[architecture]
    stored = {name: tensor for name, tensor in sample.tensors.items() if name not in sample.ties}
    assert len(stored) < len(sample.tensors)
    assert infer_architecture(stored, sample.config_less("architectures")).architecture == architecture


def test_old_names(samples: dict[str, Sample]) -> None:
    sample = samples["BertForMaskedLM"]
    old = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): tensor
        for name, tensor in sample.tensors.items()
    }
    assert set(old) != set(sample.tensors)
    assert infer_architecture(old, sample.config_less("architectures")).architecture == "BertForMaskedLM"


@pytest.mark.parametrize(
    "architecture", ["BertForQuestionAnswering", "RobertaForMaskedLM", "XLMRobertaForTokenClassification"]
)
def test_an_extra_pooler(samples: dict[str, Sample], architecture: str) -> None:
    sample = samples[architecture]
    base = _row(architecture)[1].prefix
    pooled = {**sample.tensors, f"{base}.pooler.dense.weight": Shape((8, 8)), f"{base}.pooler.dense.bias": Shape((8,))}
    for config in (sample.config, sample.config_less("architectures")):
        assert infer_architecture(pooled, config).architecture == architecture


@pytest.mark.parametrize(
    "architecture", ["BertModel", "XLMRobertaModel", "AlbertModel", "BertForSequenceClassification"]
)
def test_a_missing_pooler(samples: dict[str, Sample], architecture: str) -> None:
    sample = samples[architecture]
    bare = {name: tensor for name, tensor in sample.tensors.items() if "pooler" not in name}
    assert len(bare) < len(sample.tensors)
    assert infer_architecture(bare, sample.config).architecture == architecture
    if architecture.endswith("Model"):
        assert infer_architecture(bare, sample.config_less("architectures")).architecture == architecture


def test_the_pooler_decides_and_the_note_says_so(samples: dict[str, Sample]) -> None:
    sample = samples["BertForSequenceClassification"]
    found = infer_architecture(sample.tensors, sample.config_less("architectures"))
    assert found.architecture == sample.architecture
    assert found.note is not None
    assert "BertForTokenClassification" in found.note


def test_all_that_told_a_class_is_in_the_note(samples: dict[str, Sample]) -> None:
    sample = samples["BertForMultipleChoice"]
    found = infer_architecture(sample.tensors, sample.config_less("architectures", "id2label", num_labels=1))
    assert found.architecture == "BertForSequenceClassification"
    assert found.note == (
        "a pooler is there, which tells it from BertForTokenClassification; "
        "the config's number of labels tells it from BertForMultipleChoice"
    )


@pytest.mark.parametrize("model_type", ["canine", "deit"])
def test_a_pooler_is_never_missed_where_nothing_anchors_a_base_model(model_type: str) -> None:
    known = known_type(model_type)
    assert known is not None
    assert not known.anchor
    each = next(each for each in known.classes.values() if "pooler" in each.base)
    before = f"{each.prefix}." if each.prefix else ""
    head = [name.replace("#", "0") for name in each.head]
    for base, missing in ((each.base, 0), (each.base - {"pooler"}, 0), (each.base - {"pooler", min(each.base)}, 1)):
        names = [*(f"{before}{part}.weight" for part in base), *head]
        best = min((fit for fit in fits(known, names, is_tied=False) if fit.known is each), key=lambda fit: fit.rank)
        assert len(best.missing) == missing


@pytest.mark.parametrize("prefix", _PREFIXES)
@pytest.mark.parametrize("known", _FAMILIES.values(), ids=_FAMILIES)
def test_a_base_model_inside_its_prefix(samples: dict[str, Sample], known: KnownType, prefix: str) -> None:
    (base,) = known.for_task("feature-extraction")
    sample = samples[base.name]
    whole = f"{prefix}{known.prefixes[0]}."
    found = infer_architecture(sample.under(whole), sample.config_less("architectures"))
    assert found == Inference(architecture=sample.architecture, basis="head tensors", prefix=whole)


def test_a_pretraining_file_that_says_masked_language_model(samples: dict[str, Sample]) -> None:
    """As bert-base-uncased does: the class that keeps every tensor is the right one."""
    sample = samples["BertForPreTraining"]
    found = infer_architecture(sample.tensors, sample.config_less(architectures=["BertForMaskedLM"]))
    assert found.architecture == "BertForPreTraining"
    asked = infer_architecture(sample.tensors, sample.config, task="masked-lm")
    assert asked.architecture == "BertForMaskedLM"
    assert asked.note == "BertForMaskedLM has no cls.seq_relationship"


@pytest.mark.parametrize("stem", ["Bert", "Albert", "DistilBert", "MegatronBert"])
@pytest.mark.parametrize(
    ("hint", "suffix"),
    [
        ({"num_labels": 1}, "ForSequenceClassification"),
        ({"id2label": {"0": "score"}}, "ForSequenceClassification"),
        ({"problem_type": "regression"}, "ForSequenceClassification"),
        ({"id2label": {"0": "a", "1": "b"}}, "ForMultipleChoice"),
        ({}, None),
        ({"id2label": None}, None),
    ],
)
def test_one_row(samples: dict[str, Sample], stem: str, hint: dict[str, Any], suffix: str | None) -> None:
    """Multiple choice, or sequence classification with one label: only the config can tell."""
    sample = samples[f"{stem}ForMultipleChoice"]
    config = sample.config_less("architectures", "id2label", "label2id", **hint)
    if suffix is not None:
        told = infer_architecture(sample.tensors, config)
        assert told.architecture == stem + suffix
        other = "Sequence" if suffix == "ForMultipleChoice" else "Multiple"
        is_by_labels = "problem_type" not in hint
        assert (f"number of labels tells it from {stem}For{other}" in str(told.note)) == is_by_labels
        return
    assert infer_architecture(sample.tensors, {**config, "num_labels": 1}).architecture.startswith(stem)
    with pytest.raises(ArchitectureError, match="ForMultipleChoice") as caught:
        infer_architecture(sample.tensors, config)
    assert f"{stem}ForSequenceClassification" in str(caught.value)
    assert "--task" in str(caught.value)


def test_the_word_embeddings_may_be_the_alias(samples: dict[str, Sample]) -> None:
    """XLM-RoBERTa registers its head first, so a reader may make the decoder's weight the owner."""
    sample = samples["XLMRobertaForMaskedLM"]
    assert next(iter(sample.tensors)).startswith("lm_head")
    owners = {name: tensor for name, tensor in sample.tensors.items() if "word_embeddings" not in name}
    assert len(owners) < len(sample.tensors)
    assert infer_architecture(owners, sample.config_less("architectures")).architecture == sample.architecture


def test_two_models_side_by_side(samples: dict[str, Sample]) -> None:
    sample = samples["BertForQuestionAnswering"]
    assert infer_architecture(sample.under("student."), sample.config).prefix == "student."
    with pytest.raises(ArchitectureError, match="exactly one"):
        infer_architecture({**sample.under("student."), **sample.under("teacher.")}, sample.config)


def test_two_heads_at_once(samples: dict[str, Sample]) -> None:
    sample = samples["BertForSequenceClassification"]
    config = sample.config_less("architectures")
    assert infer_architecture(sample.tensors, config).architecture == "BertForSequenceClassification"
    both = {**sample.tensors, "qa_outputs.weight": Shape((2, 8)), "qa_outputs.bias": Shape((2,))}
    with pytest.raises(ArchitectureError, match="BertForQuestionAnswering"):
        infer_architecture(both, config)
    named = infer_architecture(both, sample.config)
    assert named.architecture == "BertForSequenceClassification"
    assert named.note == "BertForSequenceClassification has no qa_outputs"


@pytest.mark.parametrize(
    "change",
    [
        lambda tensors: {**tensors, "fc.weight": Shape((3, 8))},
        lambda tensors: {**tensors, "classifier.dense.weight": Shape((8, 8))},
        lambda tensors: (
            {"net." + name: tensor for name, tensor in tensors.items()} | {"qa_outputs.weight": Shape((2, 8))}
        ),
        lambda tensors: {name: tensor for name, tensor in tensors.items() if "position_embeddings" not in name},
        lambda tensors: {**tensors, "teacher.embeddings.position_embeddings.weight": Shape((16, 8))},
        lambda tensors: {},
    ],
    ids=["custom head", "half a head", "head outside the prefix", "no embeddings", "two models", "nothing"],
)
def test_what_no_class_has(
    samples: dict[str, Sample], change: Callable[[Mapping[str, Shape]], Mapping[str, Shape]]
) -> None:
    sample = samples["BertModel"]
    assert infer_architecture(sample.tensors, sample.config).architecture == "BertModel"
    with pytest.raises(ArchitectureError) as caught:
        infer_architecture(change(sample.tensors), sample.config)
    assert caught.value.exit_code == 2
    assert all(help_ in str(caught.value) for help_ in ("--config", "'architectures'", "--task", "--weights-only"))
    assert infer_architecture(change(sample.tensors), sample.config, task="base").architecture == "BertModel"


def test_a_class_that_a_config_names_may_lack_some_of_its_head(samples: dict[str, Sample]) -> None:
    """Where no other class has a place for what is there; configs of some types leave layers out."""
    sample = samples["RobertaForSequenceClassification"]
    half = {name: tensor for name, tensor in sample.tensors.items() if "out_proj" not in name}
    found = infer_architecture(half, sample.config)
    assert (found.architecture, found.basis) == (sample.architecture, "config")
    assert found.note == "the checkpoint has no classifier.out_proj"
    for config in (sample.config_less("architectures"), sample.config_less(architectures=["RobertaModel"])):
        with pytest.raises(ArchitectureError, match=r"no class of the roberta family has classifier\.dense"):
            infer_architecture(half, config)


def test_a_layer_beside_a_head_is_noted(samples: dict[str, Sample]) -> None:
    sample = samples["BertForQuestionAnswering"]
    weighted = {**sample.tensors, "loss.weight": Shape((2,))}
    for config in (sample.config, sample.config_less("architectures")):
        found = infer_architecture(weighted, config)
        assert found.architecture == "BertForQuestionAnswering"
        assert found.note == "BertForQuestionAnswering has no loss"


def test_a_model_type_that_no_table_knows() -> None:
    tensors = {"model.embed_tokens.weight": Shape((32, 8))}
    config = {"model_type": "hyperllama", "architectures": ["HyperLlamaForCausalLM"]}
    assert infer_architecture(tensors, config) == Inference(architecture="HyperLlamaForCausalLM", basis="config")
    asked = infer_architecture(tensors, config, task="sequence-classification")
    assert asked == Inference(architecture="HyperLlamaForSequenceClassification", basis="task")


@pytest.mark.parametrize("prefix", ["", "model."])
def test_a_class_that_its_table_has_the_name_of_alone_is_believed(prefix: str) -> None:
    known = known_type("bart")
    assert known is not None
    assert "BartEncoder" in known.others
    layers = [f"{part}.layers.0.fc1.weight" for part in ("encoder", "decoder")]
    tensors = {prefix + name: Shape((2, 2)) for name in ("shared.weight", *layers)}
    assert infer_architecture(tensors, {"model_type": "bart"}).architecture == "BartModel"
    config = {"model_type": "bart", "architectures": ["BartEncoder"]}
    assert infer_architecture(tensors, config) == Inference(architecture="BartEncoder", basis="config")
    assert infer_architecture(tensors, config, task="feature-extraction").architecture == "BartModel"


@pytest.mark.parametrize("model_type", ["hyperllama", "llama"])
@pytest.mark.parametrize("architectures", [None, [], [7], "LlamaModel", ["os.system('x')"], ["../Llama"], ["L" * 101]])
def test_an_unknown_model_type_needs_a_plausible_class(model_type: str, architectures: Any) -> None:
    tensors = {"model.embed_tokens.weight": Shape((32, 8))}
    assert infer_architecture(tensors, {"model_type": model_type, "architectures": ["LlamaModel"]}).note is None
    with pytest.raises(ArchitectureError) as caught:
        infer_architecture(tensors, {"model_type": model_type, "architectures": architectures})
    assert all(help_ in str(caught.value) for help_ in ("--config", "'architectures'", "--task", "--weights-only"))


def test_a_config_without_model_type(samples: dict[str, Sample]) -> None:
    sample = samples["BertForQuestionAnswering"]
    config = sample.config_less("model_type")
    assert infer_architecture(sample.tensors, config).architecture == sample.architecture
    wrong = {**config, "architectures": ["BertForMaskedLM"]}
    assert infer_architecture(sample.tensors, wrong).architecture == sample.architecture
    with pytest.raises(ArchitectureError, match="no model type"):
        infer_architecture(sample.tensors, {})


def test_tasks(samples: dict[str, Sample]) -> None:
    sample = samples["DistilBertModel"]
    found = infer_architecture(sample.tensors, sample.config, task="question-answering")
    assert found.architecture == "DistilBertForQuestionAnswering"
    assert found.note == "the checkpoint has no qa_outputs; the base model's names lack 'distilbert'"
    with pytest.raises(ArchitectureError, match="no class for next-sentence-prediction") as caught:
        infer_architecture(sample.tensors, sample.config, task="next-sentence-prediction")
    assert caught.value.hint == (
        "it has feature-extraction, fill-mask, multiple-choice, pretraining, question-answering, "
        "text-classification, token-classification"
    )
    with pytest.raises(UsageError, match="unknown task") as unknown:
        infer_architecture(sample.tensors, sample.config, task="telepathy")
    assert str(unknown.value.hint).startswith("known: audio-classification, audio-frame-classification, ")
    assert "ner, next-sentence-prediction, object-detection" in str(unknown.value.hint)


def _row(architecture: str) -> tuple[KnownType, KnownClass]:
    return next((known, known.classes[architecture]) for known in _FAMILIES.values() if architecture in known.classes)


def test_output_embeddings_may_be_missing_where_the_config_ties_them() -> None:
    names = dict.fromkeys(("model.embed_tokens.weight", "model.layers.0.mlp.down_proj.weight", "model.norm.weight"))
    config = {"model_type": "mistral", "architectures": ["MistralForCausalLM"], "tie_word_embeddings": True}
    tied = infer_architecture(names, config)  # type: ignore[arg-type]
    assert (tied.architecture, tied.prefix) == ("MistralForCausalLM", "")
    untied = infer_architecture(names, {**config, "tie_word_embeddings": False})  # type: ignore[arg-type]
    assert (untied.architecture, untied.prefix) == ("MistralModel", "model.")


def test_names_of_very_many_components_are_not_tried_at_each() -> None:
    known = known_type("gpt2")
    assert known is not None
    assert not known.anchor
    deep = len(list(sightings(known, ("a." * 10_000 + "weight",))))
    assert deep == len(list(sightings(known, ("a." * 10 + "weight",)))) > len(list(sightings(known, ("a.b.weight",))))


def test_a_class_that_lacks_nothing_fits_better_than_one_that_has_nothing_over() -> None:
    """Then what has less left over, then what has its base model below the name that it is to have."""
    known = known_type("bert")
    assert known is not None
    names = ("bert.embeddings.position_embeddings.weight", "classifier.weight")
    plain = next(fit for fit in fits(known, names, is_tied=False) if fit.known.name == "BertForTokenClassification")
    none, one, three = (frozenset(f"layer{number}" for number in range(count)) for count in (0, 1, 3))

    def fit(missing: frozenset[str], left_over: frozenset[str], *, has_prefix: bool = True) -> Fit:
        sighting = plain.sighting if has_prefix else replace(plain.sighting, base_prefix="")
        return replace(plain, missing=missing, left_over=left_over, sighting=sighting)

    better_first = [fit(none, none), fit(none, none, has_prefix=False), fit(none, three), fit(one, none)]
    assert [each.rank for each in better_first] == sorted(each.rank for each in better_first)
    assert len({each.rank for each in better_first}) == 4


@pytest.mark.parametrize(("model_type", "architecture"), [("bert", "BertForMaskedLM"), ("resnet", "ResNetModel")])
def test_names_are_just_those_of_the_class_that_a_config_names(model_type: str, architecture: str) -> None:
    """TensorFlow's tables have no counters of batches, and need none of what is tied."""
    table = tensorflow_table(model_type)
    assert table is not None
    known = table.classes[architecture]
    numbers = dict.fromkeys("nmk", "0")
    needed = [row.canonical.text.format(**numbers) for row in table.rows.all if known.needs(row.canonical.text)]
    names = [name.removeprefix(f"{table.prefix}.") for name in needed] if known.is_base else needed
    config = {"model_type": model_type, "architectures": [known.name]}
    assert is_class_named(names, config)
    assert not is_class_named(names[1:], config)
    assert not is_class_named([*names, "other.weight"], config)
    assert is_class_named([*names, *known.ties, "x.num_batches_tracked"], config)
    assert not is_class_named(names, {**config, "architectures": ["Other"]})


def test_what_a_base_model_has_is_known_of_classes_that_have_one_inside_alone() -> None:
    for model_type, modules in (
        ("altclip_text_model", {"embeddings", "encoder"}),
        ("colqwen2", {"language_model", "visual"}),
    ):
        known = known_type(model_type)
        assert known is not None
        assert not any(each.is_base for each in known.classes.values())
        assert known.modules >= modules


@pytest.mark.parametrize("named", ["../Mistral", "os.system('x')", "L" * 101, ""])
def test_a_class_of_no_plausible_name_is_not_believed_whatever_the_tensors(named: str) -> None:
    """Where nothing anchors a base model, layers that no class has may be those of a class that no table knows."""
    names = dict.fromkeys(("model.embed_tokens.weight", "model.layers.0.x.weight", "model.norm.weight", "own.weight"))
    config = {"model_type": "mistral", "architectures": ["MistralOwnModel"]}
    assert infer_architecture(names, config).architecture == "MistralOwnModel"  # type: ignore[arg-type]
    with pytest.raises(ArchitectureError, match="no class of the mistral family has own"):
        infer_architecture(names, {**config, "architectures": [named]})  # type: ignore[arg-type]


if __name__ == "__main__":
    RECORDED.write_text(json.dumps(recorded(built()), separators=(",", ":")) + "\n", "utf-8")
