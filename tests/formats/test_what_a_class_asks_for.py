"""A folder of transformers is ok where its class finds what it asks for, and nothing is made up."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

import converter
from converter.errors import LossError
from tests.graphs.zoo import ZOO, Model

SIZES = {"vocab_size": 50, "hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
QUERY = "bert.encoder.layer.0.attention.self.query.weight"


@pytest.fixture
def saved(tmp_path: Path) -> Any:
    """Save a state dict beside the config of its class, and convert it."""
    torch.manual_seed(0)
    model = transformers.BertForSequenceClassification(transformers.BertConfig(**SIZES)).eval()
    model.config.save_pretrained(tmp_path)
    values = json.loads((tmp_path / "config.json").read_text())
    values["architectures"] = ["BertForSequenceClassification"]
    (tmp_path / "config.json").write_text(json.dumps(values))

    def convert(state: dict[str, torch.Tensor], **options: Any) -> Any:
        torch.save(state, tmp_path / "x.pth")
        report = converter.convert(tmp_path / "x.pth", tmp_path / "out", to="pretrained", overwrite=True, **options)
        return report, type(model).from_pretrained(tmp_path / "out", output_loading_info=True)[1]

    return dict(model.state_dict()), convert


def test_what_is_whole_is_found_whole(saved: Any) -> None:
    state, convert = saved
    wrapped = {name.replace("layer.0.", "layer.0._checkpoint_wrapped_module."): value for name, value in state.items()}
    for given in (state, wrapped, {f"module.{name}": value for name, value in state.items()}):
        report, told = convert(given)
        assert not any(told[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
        assert (report.counts["dropped"], report.counts["defaulted"]) == (0, 0)


def test_a_name_that_is_wrong(saved: Any) -> None:
    state, convert = saved
    wrong = {name.replace("layer.0.attention.self.query", "layer.0.attention.self.q"): v for name, v in state.items()}
    refused = (
        rf"tensor {QUERY}: is not in the source: BertForSequenceClassification would make it up, and has no "
        r"bert.encoder.layer.0.attention.self.q.bias, bert.encoder.layer.0.attention.self.q.weight; --allow-missing"
    )
    with pytest.raises(LossError, match=refused) as caught:
        convert(wrong)
    assert caught.value.exit_code == 3
    with pytest.raises(LossError, match=r"self\.q\.\w+: BertForSequenceClassification has no tensor of that name"):
        convert(wrong, allow_missing=("*.query.*",))
    report, told = convert(wrong, allow_missing=("*.query.*",), allow_dropped=("*.q.*",))
    assert QUERY in told["missing_keys"]
    assert not told["unexpected_keys"]
    assert (report.counts["defaulted"], report.counts["dropped"]) == (2, 2)


def test_a_tensor_that_is_not_there(saved: Any) -> None:
    state, convert = saved
    del state[QUERY]
    with pytest.raises(LossError, match=rf"tensor {QUERY}: is not in the source: .* would make it up; --allow-missing"):
        convert(state)


def test_a_tensor_of_another_shape(saved: Any) -> None:
    state, convert = saved
    state[QUERY] = torch.ones(16, 8)
    refused = (
        rf"tensor {QUERY}: is \[16, 8\], BertForSequenceClassification has \[8, 8\] \(hidden_size 8\); --allow-dropped"
    )
    with pytest.raises(LossError, match=refused) as caught:
        convert(state)
    assert caught.value.exit_code == 3
    with pytest.raises(LossError, match=rf"tensor {QUERY}: .* would make it up; --allow-missing"):
        convert(state, allow_dropped=(QUERY,))
    report, told = convert(state, allow_dropped=(QUERY,), allow_missing=(QUERY,))
    assert told["missing_keys"] == {QUERY}
    assert (report.counts["dropped"], report.counts["defaulted"]) == (1, 1)


def test_a_tie_of_which_the_other_name_is_stored(tmp_path: Path) -> None:
    config = transformers.GPT2Config(vocab_size=20, n_embd=8, n_layer=1, n_head=2, n_positions=9)
    model = transformers.GPT2LMHeadModel(config)
    state = {name: each for name, each in model.state_dict().items() if name != "transformer.wte.weight"}
    config.architectures = ["GPT2LMHeadModel"]
    config.save_pretrained(tmp_path)
    torch.save(state, tmp_path / "x.pth")
    converter.convert(tmp_path / "x.pth", tmp_path / "out", to="pretrained")
    told = type(model).from_pretrained(tmp_path / "out", output_loading_info=True)[1]
    assert not any(told[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))


def test_a_tie_that_transformers_4_owned_the_other_way_around(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = transformers.OpenAIGPTConfig(vocab_size=50, n_embd=8, n_layer=1, n_head=2, n_positions=9, num_labels=1)
    model = transformers.OpenAIGPTDoubleHeadsModel(config)
    state = dict(model.state_dict())
    del state["lm_head.weight"]
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "config.json").write_text(
        json.dumps({**config.to_dict(), "architectures": [type(model).__name__]})
    )
    torch.save(state, tmp_path / "old" / "pytorch_model.bin")
    report = converter.convert(tmp_path / "old", tmp_path / "new", to="pretrained")
    assert (report.counts["dropped"], report.counts["defaulted"]) == (0, 0)
    found, told = type(model).from_pretrained(tmp_path / "new", output_loading_info=True)
    assert not told["missing_keys"]
    assert torch.equal(found.lm_head.weight, model.lm_head.weight)


def test_a_model_with_adapters_inside(saved: Any) -> None:
    state, convert = saved
    inside = {f"base_model.model.{name}": value for name, value in state.items()}
    inside[f"base_model.model.{QUERY.replace('.weight', '.lora_A.default.weight')}"] = torch.ones(2, 8)
    with pytest.raises(LossError, match=r"is of a model of PEFT, .*; save what its merge_and_unload\(\) returns"):
        convert(inside)


def test_a_type_that_no_table_knows_is_carried_as_it_is(tmp_path: Path) -> None:
    torch.save({"w": torch.ones(2)}, tmp_path / "x.pth")
    (tmp_path / "config.json").write_text('{"model_type": "of-no-table", "architectures": ["X"]}')
    report = converter.convert(tmp_path / "x.pth", tmp_path / "out", to="pretrained")
    assert report.counts == {"mapped": 1, "tied": 0, "dropped": 0, "defaulted": 0}
    assert report.verdict.endswith("; loader not checked: no table knows of-no-table")
    assert report.as_dict()["loader_not_checked"] == "no table knows of-no-table"
    again = converter.verify(tmp_path / "x.pth", tmp_path / "out")
    assert again.verdict.endswith("; loader not checked: no table knows of-no-table")


@pytest.mark.parametrize("model", ZOO[::6], ids=lambda model: model.architecture)
def test_nothing_is_missing_of_a_model_that_is_whole(model: Model, tmp_path: Path) -> None:
    made = getattr(transformers, model.architecture)(transformers.AutoConfig.for_model(**model.config))
    made.save_pretrained(tmp_path / "model")
    report = converter.convert(tmp_path / "model", tmp_path / "out", to="pretrained", optimizer="drop")
    assert report.counts["defaulted"] == 0


def _beside_its_config(state: dict[str, torch.Tensor], config: Any, architecture: str, folder: Path) -> Path:
    config.architectures = [architecture]
    config.save_pretrained(folder)
    torch.save(state, folder / "x.pth")
    return folder / "x.pth"


def test_what_is_tied_is_missed_where_the_config_unties_it(tmp_path: Path) -> None:
    model = transformers.BertForMaskedLM(transformers.BertConfig(**SIZES, tie_word_embeddings=False))
    state, alias = dict(model.state_dict()), "cls.predictions.decoder.weight"
    del state[alias]
    source = _beside_its_config(state, model.config, "BertForMaskedLM", tmp_path)
    with pytest.raises(LossError, match=rf"tensor {alias}: is not in the source: BertForMaskedLM would make it up"):
        converter.convert(source, tmp_path / "out", to="pretrained")


def test_what_transformers_4_has_with_some_configs_is_missed_with_those(tmp_path: Path) -> None:
    model = transformers.ElectraForPreTraining(transformers.ElectraConfig(**SIZES, embedding_size=4))
    state, gone = dict(model.state_dict()), "electra.embeddings_project.weight"
    del state[gone]
    source = _beside_its_config(state, model.config, "ElectraForPreTraining", tmp_path)
    with pytest.raises(LossError, match=rf"tensor {gone}: is not in the source: ElectraForPreTraining would make it"):
        converter.convert(source, tmp_path / "out", to="pretrained")


def test_a_counter_of_batches_is_missed(tmp_path: Path) -> None:
    config = transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8], depths=[1], layer_type="basic")
    state = transformers.ResNetForImageClassification(config).state_dict()
    state = {name: each for name, each in state.items() if not name.endswith("num_batches_tracked")}
    source = _beside_its_config(state, config, "ResNetForImageClassification", tmp_path)
    with pytest.raises(LossError, match=r"num_batches_tracked: is not in the source: .*--allow-missing"):
        converter.convert(source, tmp_path / "out", to="pretrained")
    allowed = ("*.num_batches_tracked",)
    report = converter.convert(source, tmp_path / "out", to="pretrained", allow_missing=allowed)
    assert report.counts["defaulted"] > 0


SHARED = {
    "BertForMaskedLM": ("cls.predictions.decoder.bias",),
    "BartForConditionalGeneration": ("model.encoder.embed_tokens.weight", "model.decoder.embed_tokens.weight"),
}
"""What transformers 4 shares with another tensor also where the config does not tie, and saves once."""


@pytest.mark.parametrize("is_saved_once", [True, False])
@pytest.mark.parametrize("name", SHARED)
def test_what_is_shared_against_the_config_is_there_for_each(name: str, is_saved_once: bool, tmp_path: Path) -> None:
    """transformers 5 asks for a tensor of its own under each name."""
    untied = {"tie_word_embeddings": False}
    config = _bart(**untied) if name.startswith("Bart") else transformers.BertConfig(**SIZES, **untied)
    class_ = getattr(transformers, name)
    state = {each: torch.zeros_like(tensor) for each, tensor in class_(config).state_dict().items()}
    stored = {each: tensor for each, tensor in state.items() if not is_saved_once or each not in SHARED[name]}
    source = _beside_its_config(stored, config, name, tmp_path)
    report = converter.convert(source, tmp_path / "out", to="pretrained")
    assert report.counts["tied"] == (len(SHARED[name]) if is_saved_once else 0)
    told = class_.from_pretrained(tmp_path / "out", output_loading_info=True)[1]
    assert not any(told.values())


def _bart(**values: Any) -> transformers.BartConfig:
    of_a_half = {"layers": 1, "attention_heads": 2, "ffn_dim": 8}
    halves = {f"{half}_{key}": count for half in ("encoder", "decoder") for key, count in of_a_half.items()}
    return transformers.BartConfig(vocab_size=20, d_model=8, max_position_embeddings=12, **halves, **values)


@pytest.mark.parametrize("is_bart", [True, False])
def test_a_tied_head_tells_the_class_by_any_of_its_names(is_bart: bool, tmp_path: Path) -> None:
    """BART's loader does without the bias of its head, GPT-2's finds a base model that is not below its own name."""
    torch.manual_seed(0)
    if is_bart:
        model: Any = transformers.BartForConditionalGeneration(_bart())
        state = {name: each for name, each in model.state_dict().items() if name != "final_logits_bias"}
    else:
        model = transformers.GPT2LMHeadModel(transformers.GPT2Config(vocab_size=20, n_embd=8, n_layer=1, n_head=2))
        state = {name.removeprefix("transformer."): each for name, each in model.state_dict().items()}
    source = _beside_its_config(state, model.config, type(model).__name__, tmp_path)
    report = converter.convert(source, tmp_path / "out", to="pretrained")
    assert report.unchecked is None
    told = type(model).from_pretrained(tmp_path / "out", output_loading_info=True)[1]
    assert not any(told.values())
