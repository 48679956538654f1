"""What a class saves is told from its config, without torch."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from converter.dialects.identity.formulas import UnknownError, names_of, value_of
from converter.dialects.identity.holdings import as_loaded
from converter.dialects.identity.shapes import Shapes, UncheckedError, shapes_of
from converter.dialects.tables import document
from converter.model.checkpoint import Checkpoint
from converter.model.tensor import ArrayTensor
from tests.oracle.generate.formulas import is_plausible, is_plausible_count
from tests.slices import IS_FULL, SEED

BERT = {"model_type": "bert", "hidden_size": 8, "num_hidden_layers": 2, "intermediate_size": 6, "vocab_size": 9}
_TYPES = sorted(document("shapes")["models"])
_TYPES_OF_A_PART = 60


def shape(shapes: Shapes, name: str) -> tuple[int | None, ...] | None:
    return shapes.slots[name].shape


def test_shapes_come_from_the_config() -> None:
    found = shapes_of(BERT, "BertForQuestionAnswering", ())
    assert shape(found, "bert.embeddings.word_embeddings.weight") == (9, 8)
    assert shape(found, "bert.encoder.layer.1.intermediate.dense.weight") == (6, 8)
    assert shape(found, "bert.embeddings.position_embeddings.weight") == (512, 8)
    assert "bert.encoder.layer.2.intermediate.dense.weight" not in found.slots
    assert "bert.pooler.dense.weight" not in found.slots
    assert all(slot.is_required for slot in found.slots.values())
    assert found.told("bert.embeddings.word_embeddings.weight") == "[9, 8] (hidden_size 8, vocab_size 9)"


def test_what_a_switch_adds() -> None:
    name = "bert.encoder.layer.0.crossattention.self.query.weight"
    assert name not in shapes_of(BERT, "BertLMHeadModel", ()).slots
    assert shape(shapes_of({**BERT, "is_decoder": True, "add_cross_attention": True}, "BertLMHeadModel", ()), name)


def test_labels_are_counted() -> None:
    labels = {"id2label": {"0": "a", "1": "b", "2": "c"}}
    assert shape(shapes_of({**BERT, **labels}, "BertForSequenceClassification", ()), "classifier.weight") == (3, 8)


def test_a_tie_need_not_be_stored() -> None:
    name = "cls.predictions.decoder.weight"
    for is_tied in (True, False):
        found = shapes_of({**BERT, "tie_word_embeddings": is_tied}, "BertForMaskedLM", ())
        assert found.slots[name].is_required is not is_tied


def test_other_names_of_a_setting() -> None:
    config = {"model_type": "gpt2", "hidden_size": 6, "n_layer": 1}
    assert shape(shapes_of(config, "GPT2Model", ()), "h.0.mlp.c_proj.weight") == (24, 6)


def test_names_that_every_loader_renames() -> None:
    old, new = "encoder.layer.0.output.LayerNorm.gamma", "encoder.layer.0.output.LayerNorm.weight"
    assert shapes_of(BERT, "BertModel", ()).read_as([old]) == {old: (new,)}
    esm = {**BERT, "model_type": "esm", "num_attention_heads": 2}
    old, new = "encoder.layer.0.LayerNorm.gamma", "encoder.layer.0.LayerNorm.weight"
    assert shapes_of(esm, "EsmModel", ()).read_as([new]) == {new: (old,)}


def test_a_part_that_says_little_is_not_the_part_by_default() -> None:
    name = "vision_tower.embeddings.class_embedding"
    config = {"model_type": "llava", "text_config": {"model_type": "llama"}}
    assert shape(shapes_of(config, "LlavaForConditionalGeneration", ()), name) == (1024,)
    said = {**config, "vision_config": {"model_type": "clip_vision_model"}}
    assert shape(shapes_of(said, "LlavaForConditionalGeneration", ()), name) == (768,)


@pytest.mark.parametrize(
    ("config", "architecture", "reason"),
    [
        ({"model_type": "of-no-table"}, "X", "of-no-table"),
        ({"model_type": "bert"}, "BertForFlying", "BertForFlying"),
        ({"model_type": "bert", "auto_map": {"AutoModel": "x.Y"}}, "BertModel", "bert with auto_map"),
        (
            {"model_type": "llava", "text_config": {"model_type": "of-no-table"}},
            "LlavaForConditionalGeneration",
            'llava with text_config.model_type "of-no-table"',
        ),
    ],
)
def test_what_no_table_knows(config: Mapping[str, Any], architecture: str, reason: str) -> None:
    with pytest.raises(UncheckedError, match=f"^{reason}$"):
        shapes_of(config, architecture, ())


@pytest.mark.parametrize("value", [10**30, -1, "many", [2], {}, True, 2.5])
def test_a_config_may_say_anything(value: Any) -> None:
    for key in ("hidden_size", "num_hidden_layers", "vocab_size"):
        found = shapes_of({**BERT, key: value}, "BertModel", ("encoder.layer.3.output.dense.weight",))
        assert len(found.slots) < 2000


@pytest.mark.parametrize("model_type", _TYPES if IS_FULL else random.Random(SEED).sample(_TYPES, _TYPES_OF_A_PART))
def test_every_class_has_tensors_by_default(model_type: str) -> None:
    for architecture in document("shapes")["models"][model_type]["classes"]:
        found = shapes_of({"model_type": model_type}, architecture, ())
        assert all(
            slot.shape is None or all(dim is None or dim >= 0 for dim in slot.shape) for slot in found.slots.values()
        )


@pytest.mark.parametrize(
    ("formula", "value"),
    [
        ("a*b+1", 7),
        ("sizes[i0-1]", 5),
        ("sizes[-1]//2", 3),
        ("(a) if kind == 'x' else (b)", 2),
        ("(a > 1) and (b > 4)", False),
        ("(a > 1) or (b > 4)", True),
        ("not none", True),
        ("int(a*ratio)", 5),
        ("sum(sizes)+len(sizes)+2**i0", 15),
        ("'y' in words", True),
        ("inner.size % 4 == 3", True),
    ],
)
def test_a_formula(formula: str, value: Any) -> None:
    settings = {"a": 2, "b": 3, "sizes": [5, 6], "i0": 1, "kind": "x", "none": None, "ratio": 2.5, "words": ["y"]}
    assert value_of(formula, {**settings, "inner.size": 7}.__getitem__) == value


@pytest.mark.parametrize("formula", ["a[0]", "a//0", "words+1", "sizes[9]", "2**a", "a*a"])
def test_a_formula_of_something_else(formula: str) -> None:
    with pytest.raises(UnknownError):
        value_of(formula, {"a": 1 << 40, "sizes": [1], "words": "x"}.__getitem__)


def test_names_in_a_formula() -> None:
    assert names_of("text_config.hidden_size*2+len(sizes)") == {"text_config.hidden_size", "sizes"}


@pytest.mark.parametrize(
    ("formula", "is_one"),
    [
        ("hidden_size", True),
        ("4*hidden_size", True),
        ("hidden_size//num_attention_heads*num_key_value_heads", True),
        ("2*window_size-1", True),
        ("hidden_sizes[-1]", True),
        ("1024", True),
        ("(num_channels) if i0 == 0 else (embed_dim[i0-1])", True),
        ("16*hidden_size-176", False),
        ("hidden_size+1024", False),
        ("128*depths[i0]", False),
        ("(hidden_size-num_attention_heads)+32", False),
        ("(4) if hidden_size == 256 else (5)", False),
    ],
)
def test_which_formulas_the_code_of_a_model_could_have(formula: str, is_one: bool) -> None:
    assert is_plausible(formula) is is_one
    assert is_plausible_count(formula) is (is_one and "if" not in formula and "//num_attention_heads" not in formula)


def test_a_size_that_nothing_is_known_of_is_not_checked() -> None:
    falcon = {"model_type": "falcon", "num_ln_in_parallel_attn": 1, "new_decoder_architecture": True}
    with pytest.raises(UncheckedError, match="falcon with num_ln_in_parallel_attn 1"):
        shapes_of(falcon, "FalconForCausalLM", ())
    del falcon["num_ln_in_parallel_attn"]
    assert "transformer.h.0.ln_attn.weight" in shapes_of(falcon, "FalconForCausalLM", ()).slots


def test_no_formula_of_the_table_is_one_that_no_model_could_have() -> None:
    wrong = []
    for model_type in _TYPES:
        entry = document("shapes")["models"][model_type]
        waiting = [*entry.get("parts", ()), *(each["tree"] for each in entry["classes"].values())]
        while waiting:
            tree = waiting.pop()
            if isinstance(tree, Mapping):
                waiting += tree.values()
                counts = (key[1:].split(":", 2)[2] for key in tree if key.startswith("#"))
                wrong += [each for each in map(_count, counts) if each != "_" and not is_plausible_count(each)]
            elif isinstance(tree, str) and tree not in ("", "*") and "[" not in tree:
                wrong += [each for each in tree.split(",") if each != "_" and not is_plausible(each)]
    assert wrong == []


def _count(key: str) -> str:
    return key.partition("~")[0].partition("?")[0].rstrip("/")


ESM = {"model_type": "esm", "num_hidden_layers": 2, "hidden_size": 4, "num_attention_heads": 2, "vocab_size": 5}


def esm(*names: str) -> Checkpoint:
    return Checkpoint(tensors={name: ArrayTensor.of(np.ones(1, np.float32)) for name in names})


def test_names_that_the_loader_takes_for_others_are_those_of_the_class() -> None:
    wanted = {"esm.encoder.layer.*.attention.self.rotary_embeddings.inv_freq": 0, "a.LayerNorm.weight": 0, "b": 0}
    layers = [f"esm.encoder.layer.{layer}.attention.self.rotary_embeddings.inv_freq" for layer in range(2)]
    source = esm(*layers, "a.LayerNorm.gamma", "b", "c")
    found = as_loaded(source, ESM, "EsmForMaskedLM", wanted)
    assert set(found.tensors) == {*wanted, "c"}
    assert [(line.name, line.reason, line.is_refused_by_default) for line in found.lines] == [
        (layers[1], "EsmForMaskedLM has it once", False)
    ]
    other = replace(source, tensors={**source.tensors, layers[1]: ArrayTensor.of(np.zeros(1, np.float32))})
    assert layers[1] in as_loaded(other, ESM, "EsmForMaskedLM", wanted), "one that differs is not the same"
    assert as_loaded(source, {"model_type": "new"}, "NewModel", wanted) is source
