"""What classes of every modality take, from signature and config alone; and what caches are called."""

from __future__ import annotations

from typing import Any

import pytest

from converter.errors import GraphError
from converter.graphs.description.signature import Dimension
from converter.graphs.trace.caching import cache_of, with_past
from converter.graphs.trace.dimensions import checked_sizes, traced_sizes
from converter.graphs.trace.modalities import inputs_of
from converter.graphs.trace.model_building import abstract_model, model_class, model_config
from tests.graphs.zoo import OTHERS, ZOO

pytestmark = pytest.mark.framework

MODELS = {model.architecture: model for model in (*ZOO, *OTHERS)}
SHAPES: dict[str, dict[str, tuple[int | str, ...]]] = {
    "BertForMaskedLM": dict.fromkeys(("input_ids", "token_type_ids", "attention_mask"), ("batch", "sequence")),
    "GPT2LMHeadModel": dict.fromkeys(("input_ids", "attention_mask"), ("batch", "sequence")),
    "T5ForConditionalGeneration": {
        "input_ids": ("batch", "sequence"),
        "attention_mask": ("batch", "sequence"),
        "decoder_input_ids": ("batch", "decoder_sequence"),
    },
    "ViTForImageClassification": {"pixel_values": ("batch", 3, 30, 30)},
    "YolosForObjectDetection": {"pixel_values": ("batch", 3, 30, 36)},
    "VideoMAEForVideoClassification": {"pixel_values": ("batch", 4, 3, 30, 30)},
    "Wav2Vec2ForCTC": {"input_values": ("batch", "samples")},
    "WhisperForConditionalGeneration": {
        "input_features": ("batch", 8, 40),
        "decoder_input_ids": ("batch", "decoder_sequence"),
    },
    "ASTForAudioClassification": {"input_values": ("batch", 24, 16)},
    "Speech2TextForConditionalGeneration": {
        "input_features": ("batch", "frames", 8),
        "attention_mask": ("batch", "frames"),
        "decoder_input_ids": ("batch", "decoder_sequence"),
    },
    "CLIPModel": {
        "input_ids": ("batch", "sequence"),
        "attention_mask": ("batch", "sequence"),
        "pixel_values": ("image_batch", 3, 30, 30),
    },
    "LayoutLMModel": {
        **dict.fromkeys(("input_ids", "token_type_ids", "attention_mask"), ("batch", "sequence")),
        "bbox": ("batch", "sequence", 4),
    },
}


def _model(architecture: str, **changes: Any) -> Any:
    class_ = model_class(architecture)
    return abstract_model(class_, model_config(class_, {**MODELS[architecture].config, **changes}))


@pytest.mark.parametrize("class_name", SHAPES)
def test_inputs(class_name: str) -> None:
    taken = inputs_of(_model(class_name), None, has_any_size=False)
    assert {each.name: each.shape for each in taken.inputs} == SHAPES[class_name]
    named = {extent for each in taken.inputs for extent in each.shape if isinstance(extent, str)}
    assert {each.name for each in taken.dimensions} == named


def test_images_of_any_size() -> None:
    taken = inputs_of(_model("ResNetForImageClassification"), None, has_any_size=True)
    assert taken.inputs[0].shape == ("batch", 3, "height", "width")


def test_an_image_has_its_place_in_the_text() -> None:
    model = _model("LlavaForConditionalGeneration")
    ids = next(each for each in inputs_of(model, None, has_any_size=False).inputs if each.name == "input_ids")
    assert ids.sampling.leading == (49,) * 25
    assert 49 in ids.sampling.excluded


def test_a_class_that_needs_what_is_not_known() -> None:
    class_ = model_class("PatchTSTModel")
    model = abstract_model(class_, model_config(class_, {"model_type": "patchtst"}))
    with pytest.raises(GraphError, match="takes past_values, and nothing is known"):
        inputs_of(model, None, has_any_size=False)


def test_traced_extents_are_not_those_of_the_model_nor_those_that_are_checked() -> None:
    model = _model("BertForMaskedLM", hidden_size=11 * 2, intermediate_size=13)
    taken = inputs_of(model, None, has_any_size=False)
    first, second = (traced_sizes(model, taken.dimensions, attempt) for attempt in range(2))
    known = {extent for tensor in model.parameters() for extent in tensor.shape}
    for name, extent in first.items():
        assert extent not in known
        assert extent != second[name]
        assert all(extent != sizes[name] for sizes in checked_sizes(taken.dimensions))


def test_extents_stay_below_the_limit() -> None:
    dimension = Dimension(name="sequence", high=8)
    assert [sizes["sequence"] for sizes in checked_sizes([dimension])] == [8, 8, 8, 6, 1]
    assert traced_sizes(_model("BertForMaskedLM"), [dimension])["sequence"] <= 8


def test_a_cache() -> None:
    import torch

    model = _model("LlamaForCausalLM")
    taken = with_past(model, inputs_of(model, None, has_any_size=False))
    shapes = {each.name: each.shape for each in taken.inputs}
    assert shapes["attention_mask"] == ("batch", "past_sequence + sequence")
    assert shapes["past_key_values.0.key"] == shapes["past_key_values.0.value"] == ("batch", 1, "past_sequence", 8)
    tensors = {name: torch.zeros(2, 1, 3, 8) for name in shapes if name.startswith("past_key_values.")}
    assert cache_of({"input_ids": torch.zeros(1)}) is None
    assert cache_of(tensors).get_seq_length() == 3
    assert tensors == {}


@pytest.mark.parametrize("class_name", ["BertForMaskedLM", "MambaForCausalLM"])
def test_classes_without_such_a_cache(class_name: str) -> None:
    model = _model(class_name)
    with pytest.raises(GraphError, match="keeps no cache"):
        with_past(model, inputs_of(model, None, has_any_size=False))
