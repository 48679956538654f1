"""The order of parameters by the table: what is listed, where ties go, and what is refused. No framework."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pytest

from converter.dialects.identity.parameters import class_parameters
from converter.dialects.optimizer.class_order import order_of_class
from converter.errors import ArchitectureError, GraphError, LossError
from converter.model.checkpoint import Checkpoint, Config
from converter.model.tensor import ArrayTensor

ONE = ArrayTensor.of(np.zeros((), np.float32))


def pairs(*modules: str) -> list[str]:
    return [f"{module}.{leaf}" for module in modules for leaf in ("weight", "bias")]


def bert_layer(number: int) -> list[str]:
    inside = (
        *(f"attention.self.{part}" for part in ("query", "key", "value")),
        *("attention.output.dense", "attention.output.LayerNorm"),
        *("intermediate.dense", "output.dense", "output.LayerNorm"),
    )
    return pairs(*(f"encoder.layer.{number}.{each}" for each in inside))


def bert(layers: int = 1, *, pooler: bool = True) -> list[str]:
    tables = [f"embeddings.{each}_embeddings.weight" for each in ("word", "position", "token_type")]
    inside = [name for number in range(layers) for name in bert_layer(number)]
    return [*tables, *pairs("embeddings.LayerNorm"), *inside, *(pairs("pooler.dense") if pooler else ())]


def below(prefix: str, names: Iterable[str]) -> list[str]:
    return [prefix + name for name in names]


CLASSIFIER = [*below("bert.", bert(11)), *pairs("classifier")]


def checkpoint(names: Iterable[str], model_type: str = "bert", aliases: Mapping[str, str] | None = None) -> Checkpoint:
    """Names in the order in which files of safetensors have them."""
    config = Config(values={"model_type": model_type}, raw=b"{}")
    return Checkpoint(tensors=dict.fromkeys(sorted(names), ONE), config=config, aliases=dict(aliases or {}))


def listed(names: Iterable[str], architecture: str, prefix: str = "", **more: Any) -> list[str]:
    return list(order_of_class(checkpoint(names, **more), architecture, prefix).names)


def test_parameters_are_in_the_order_of_the_class_and_layers_by_number() -> None:
    assert listed(CLASSIFIER, "BertForSequenceClassification") == CLASSIFIER
    assert sorted(CLASSIFIER) != CLASSIFIER


def test_a_class_with_a_head_and_its_base_model_have_one_order() -> None:
    assert listed(bert(2), "BertModel") == bert(2)
    assert listed(below("model.", bert(2)), "BertModel", "model.") == below("model.", bert(2))


def test_what_is_none_of_the_classs_parameters_is_not_listed() -> None:
    """The class for questions has no pooler; a file may, and an optimizer of that class never had it."""
    names = [*below("bert.", bert()), *pairs("qa_outputs")]
    without = [name for name in names if "pooler" not in name]
    for more in (["bert.embeddings.position_ids"], ["mine.weight"], ["classifier.weight"], ["bert.pooler.mine"]):
        assert listed([*names, *more], "BertForQuestionAnswering") == without
    assert listed([*CLASSIFIER, "bert.mine.weight"], "BertForSequenceClassification") == CLASSIFIER


def test_layer_norms_are_told_whatever_they_are_called() -> None:
    block = ("ln_1", "attn.c_attn", "attn.c_proj", "ln_2", "mlp.c_fc", "mlp.c_proj")
    names = ["wte.weight", "wpe.weight", *pairs(*(f"h.0.{each}" for each in block), "ln_f")]
    for prefix in ("", "transformer."):
        order = order_of_class(checkpoint(below(prefix, names), "gpt2"), "GPT2Model", prefix)
        assert list(order.names) == below(prefix, names)
        assert order.layer_norms == set(below(prefix, pairs("h.0.ln_1", "h.0.ln_2", "ln_f")))


TIED, OWNER = "cls.predictions.decoder.weight", "bert.embeddings.word_embeddings.weight"
MASKED = [
    *below("bert.", bert(pooler=False)),
    "cls.predictions.bias",
    *pairs("cls.predictions.transform.dense", "cls.predictions.transform.LayerNorm"),
]


def test_a_parameter_of_several_names_comes_where_the_first_of_them_does() -> None:
    assert listed(MASKED, "BertForMaskedLM") == MASKED
    assert listed([*MASKED, TIED], "BertForMaskedLM") == MASKED
    other = [TIED if name == OWNER else name for name in MASKED]
    assert listed(other, "BertForMaskedLM") == other
    assert listed(MASKED, "BertForMaskedLM", aliases={TIED: OWNER}) == MASKED
    swapped = listed(other, "BertForMaskedLM", aliases={OWNER: TIED})
    assert swapped == other


def test_a_config_that_ties_nothing_has_both() -> None:
    source = checkpoint([*MASKED, TIED, "cls.predictions.decoder.bias"])
    assert source.config is not None
    untied = Config(values={**source.config.values, "tie_word_embeddings": False}, raw=b"{}")
    source = Checkpoint(tensors=source.tensors, config=untied)
    assert [name for name in order_of_class(source, "BertForMaskedLM").names if name not in MASKED][:1] == [TIED]


@pytest.mark.parametrize("gone", ["bert.embeddings.LayerNorm.bias", "bert.encoder.layer.0.output.dense.bias"])
def test_a_parameter_that_is_not_among_the_weights_is_named(gone: str) -> None:
    for left_out in (gone, gone.rpartition(".")[0]):
        names = [name for name in CLASSIFIER if name != left_out and not name.startswith(f"{left_out}.")]
        with pytest.raises(LossError, match=r"BertForSequenceClassification has a parameter .*, which is not among"):
            listed(names, "BertForSequenceClassification")


def test_a_base_model_is_not_asked_for_heads() -> None:
    with pytest.raises(LossError, match=r"has a parameter 'qa_outputs.weight'"):
        listed(below("bert.", bert()), "BertForQuestionAnswering")
    assert listed(bert(), "BertModel") == bert()


def test_classes_that_no_table_knows_have_no_order() -> None:
    for architecture, model_type in (("BertForMine", "bert"), ("BertModel", "mine"), ("GPT2Model", "bert")):
        with pytest.raises(ArchitectureError, match="no table knows the order of the parameters"):
            listed(bert(), architecture, model_type=model_type)


def test_weights_that_are_no_parameters_as_they_are_saved_are_refused() -> None:
    experts = [f"model.layers.0.mlp.experts.{number}.up_proj.weight" for number in range(2)]
    with pytest.raises(GraphError, match="is stored in another form than the model computes with"):
        listed(["model.norm.weight", *experts], "Qwen2MoeForCausalLM", model_type="qwen2_moe")


def test_a_slip_in_the_table_is_no_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = {"home": "", "has": ["a"], "lacks": [], "ties": {}, "always": []}
    for slip in ({**entry, "odd": 1}, {"lacks": []}):
        models = {"own": [{"tree": {"a": 0}, "apart": [], "classes": {"OwnModel": slip}}]}
        monkeypatch.setattr("converter.dialects.identity.parameters.document", lambda _, m=models: {"models": m})
        class_parameters.cache_clear()
        with pytest.raises(ValueError, match=r"parameters.json, own"):
            class_parameters("own", "OwnModel")
    class_parameters.cache_clear()
