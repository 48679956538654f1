"""What a class ties is in each target as the loader of that target wants it: each is loaded strictly."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
import transformers
from torch.distributed import checkpoint as dcp

import converter
from converter.model.checkpoint import Checkpoint, Config
from converter.model.ledger import Status
from converter.model.tensor import ArrayTensor

SIZES = {"vocab_size": 50, "hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
HALVES = {
    **{f"{half}_{what}": 2 for half in ("encoder", "decoder") for what in ("layers", "attention_heads")},
    **{"vocab_size": 50, "d_model": 8, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16},
}
T5 = {"vocab_size": 50, "d_model": 8, "d_kv": 4, "d_ff": 16, "num_layers": 2, "num_heads": 2}
GPT2 = {"vocab_size": 50, "n_embd": 8, "n_layer": 2, "n_head": 2}
MODELS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "gpt2": ("GPT2LMHeadModel", "GPT2Config", GPT2),
    "bert": ("BertForMaskedLM", "BertConfig", SIZES),
    "pretraining": ("BertForPreTraining", "BertConfig", SIZES),
    "albert": ("AlbertForMaskedLM", "AlbertConfig", {**SIZES, "embedding_size": 8}),
    "llama": ("LlamaForCausalLM", "LlamaConfig", {**SIZES, "tie_word_embeddings": True}),
    "llama untied": ("LlamaForCausalLM", "LlamaConfig", {**SIZES, "tie_word_embeddings": False}),
    "bart": ("BartForConditionalGeneration", "BartConfig", HALVES),
    "bart, a head": ("BartForSequenceClassification", "BartConfig", HALVES),
    "t5": ("T5ForConditionalGeneration", "T5Config", T5),
    "t5 encoder": ("T5EncoderModel", "T5Config", T5),
    "marian": ("MarianMTModel", "MarianConfig", {**HALVES, "pad_token_id": 49, "max_position_embeddings": 12}),
}


def model_of(name: str) -> Any:
    torch.manual_seed(0)
    class_name, config_name, values = MODELS[name]
    return getattr(transformers, class_name)(getattr(transformers, config_name)(**values)).eval()


@pytest.fixture(params=MODELS)
def saved(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Any, Path]:
    model = model_of(request.param)
    model.save_pretrained(tmp_path / "model")
    return model, tmp_path / "model"


def check(model: Any, another: Any) -> None:
    expected, found = model.state_dict(), another.state_dict()
    assert list(found) == list(expected)
    for name, value in expected.items():
        assert torch.equal(found[name], value), name


def test_a_file_of_torch(saved: tuple[Any, Path], tmp_path: Path) -> None:
    model, folder = saved
    report = converter.convert(folder, tmp_path / "x.pth")
    found = torch.load(tmp_path / "x.pth", weights_only=True)
    another = type(model)(model.config)
    another.load_state_dict(found, strict=True)
    check(model, another)
    stored = {value.untyped_storage().data_ptr() for value in found.values()}
    assert len(stored) == len({value.untyped_storage().data_ptr() for value in model.state_dict().values()})
    assert report.counts["tied"] == len(found) - len(stored)
    source = safetensors.torch.load_file(folder / "model.safetensors")
    assert all(line.name in source for line in report.lines if line.status is Status.TIED)


def test_a_distributed_checkpoint(saved: tuple[Any, Path], tmp_path: Path) -> None:
    model, folder = saved
    converter.convert(folder, tmp_path / "x", to="dcp")
    another = type(model)(model.config)
    state = {name: torch.zeros_like(value) for name, value in model.state_dict().items()}
    dcp.load(state, checkpoint_id=tmp_path / "x", no_dist=True)
    another.load_state_dict(state, strict=True)
    check(model, another)


def test_safetensors(saved: tuple[Any, Path], tmp_path: Path) -> None:
    """It holds no storages that names share: every name that the source has, with a tensor of its own."""
    model, folder = saved
    converter.convert(folder, tmp_path / "x.pth")
    converter.convert(tmp_path / "x.pth", tmp_path / "x.safetensors")
    another = type(model)(model.config)
    another.load_state_dict(safetensors.torch.load_file(tmp_path / "x.safetensors"), strict=True)
    check(model, another)


def test_a_folder_of_transformers(saved: tuple[Any, Path], tmp_path: Path) -> None:
    model, folder = saved
    converter.convert(folder, tmp_path / "x.pth")
    converter.convert(tmp_path / "x.pth", tmp_path / "x", to="pretrained", config=folder / "config.json")
    another, told = type(model).from_pretrained(tmp_path / "x", output_loading_info=True)
    assert not any(told[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    check(model, another)
    (once,) = (tmp_path / "x").glob("*.safetensors")
    held, theirs = (set(safetensors.torch.load_file(each)) for each in (once, folder / once.name))
    assert held - set(model._keys_to_ignore_on_save or ()) == theirs  # a state dict has what a class computes, too


# what is stored, and what the config says


def config(architecture: str, model_type: str, **values: Any) -> Config:
    found = {"architectures": [architecture], "model_type": model_type, **values}
    return Config(values=found, raw=json.dumps(found).encode())


def names_of(tensors: dict[str, Any], config_: Config | None, folder: Path) -> dict[str, Any]:
    checkpoint = Checkpoint(tensors=tensors, config=config_)
    converter.write(checkpoint, folder / "x.pth", overwrite=True)
    found = converter.read(folder / "x.pth")
    return dict(found.aliases)


def body(model: str) -> dict[str, Any]:
    """The tensors that a file of a model has, and no tied name."""
    state = model_of(model).state_dict()
    owners: dict[int, str] = {}
    for name, value in state.items():
        owners.setdefault(value.untyped_storage().data_ptr(), name)
    return {name: ArrayTensor.of(np.ones(tuple(state[name].shape), np.float32)) for name in owners.values()}


CASES: dict[str, tuple[Callable[[], dict[str, Any]], Config | None, set[str]]] = {
    "a config that says nothing of ties": (lambda: body("gpt2"), config("GPT2LMHeadModel", "gpt2"), {"lm_head.weight"}),
    "untied": (lambda: body("llama untied"), config("LlamaForCausalLM", "llama"), set()),
    "a base model": (
        lambda: {n.removeprefix("transformer."): t for n, t in body("gpt2").items()},
        config("GPT2Model", "gpt2"),
        set(),
    ),
    "no config": (lambda: body("gpt2"), None, set()),
    "a type that no table knows": (lambda: body("gpt2"), config("X", "of-no-table", tie_word_embeddings=True), set()),
    "behind a prefix": (
        lambda: {f"model.{name}": held for name, held in body("gpt2").items()},
        config("GPT2LMHeadModel", "gpt2", tie_word_embeddings=True),
        {"model.lm_head.weight"},
    ),
    "only the other name is stored": (
        lambda: {n.replace("transformer.wte.weight", "lm_head.weight"): t for n, t in body("gpt2").items()},
        config("GPT2LMHeadModel", "gpt2", tie_word_embeddings=True),
        {"transformer.wte.weight"},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_which_names_are_added(case: str, tmp_path: Path) -> None:
    make, config_, expected = CASES[case]
    found = names_of(make(), config_, tmp_path)
    assert set(found) == expected
