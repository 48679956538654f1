"""Models that compute otherwise where a text is long: refused, or with a graph that is right on both sides."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
import transformers

from converter.errors import GraphError
from converter.graphs.description.signature import GraphInput
from converter.graphs.trace.lengths import check_algorithm, check_bounds
from converter.graphs.trace.model_building import abstract_model, model_class, model_config
from converter.graphs.trace.transformers import trace_model
from converter.model.dtype import DType
from tests.conftest import Ckconv
from tests.graphs.zoo import _DECODER, _FAIRSEQ, _TEXT
from tests.slices import IS_FULL, SEED

_BIGBIRD = {**_TEXT, "sep_token_id": 2, "block_size": 4, "num_random_blocks": 1, "max_position_embeddings": 120}
_SCALING = {"rope_type": "longrope", "rope_theta": 10000.0, "original_max_position_embeddings": 24}
_FACTORS = {"short_factor": [1.0] * 4, "long_factor": [3.0, 5.0, 7.0, 9.0]}
# class, its config, and lengths on both sides of what changes with them
_CHANGING: dict[str, tuple[str, dict[str, Any], tuple[int, ...]]] = {
    "longrope": (
        "Phi3ForCausalLM",
        {**_DECODER, "max_position_embeddings": 96, "rope_parameters": {**_SCALING, **_FACTORS}}
        | {"original_max_position_embeddings": 24},
        (23, 24, 25, 39),
    ),
    "sliding window": ("MistralForCausalLM", {**_DECODER, "sliding_window": 5}, (4, 5, 6, 31)),
    "sliding and full": ("Gemma3ForCausalLM", {**_DECODER, "num_hidden_layers": 6, "sliding_window": 5}, (5, 6, 31)),
    "local and global": (
        "GPTNeoForCausalLM",
        {
            "vocab_size": 50,
            "hidden_size": 16,
            "num_layers": 2,
            "attention_types": [[["global", "local"], 1]],
            "num_heads": 2,
            "window_size": 5,
            "max_position_embeddings": 40,
            "intermediate_size": 24,
        },
        (4, 5, 6, 31),
    ),
    "windows with padding": ("LongformerModel", {**_TEXT, "attention_window": 8}, (7, 8, 9, 16, 31)),
    "blocks with padding": (
        "PegasusXForConditionalGeneration",
        {**_FAIRSEQ, "block_size": 4, "num_global_tokens": 3},
        (3, 4, 5, 8, 31),
    ),
    "relative buckets": (
        "T5ForConditionalGeneration",
        {"vocab_size": 50, "d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 1, "num_heads": 2}
        | {"relative_attention_num_buckets": 8, "relative_attention_max_distance": 10, "decoder_start_token_id": 0},
        (4, 9, 10, 11, 31),
    ),
}
_DRAWN = sorted(_CHANGING)[SEED % len(_CHANGING) :][:1]


def saved(folder: Path, class_: str, config: dict[str, Any]) -> Path:
    """Save a model of random weights, large enough that attention decides what comes out."""
    torch.manual_seed(0)
    owner = getattr(transformers, class_)
    model = owner(owner.config_class.from_dict(config)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, 0.5)
    model.save_pretrained(folder)
    return folder


def outputs(folder: Path, class_: str, feed: dict[str, Any], **changes: Any) -> Any:
    model = getattr(transformers, class_).from_pretrained(folder, **changes).eval()
    with torch.no_grad():
        return model(**{name: torch.tensor(value) for name, value in feed.items()})[0].numpy()


def fed(session: Any, length: int) -> dict[str, Any]:
    ids = np.random.default_rng(length).integers(3, 50, (2, length))
    names = [value.name for value in session.get_inputs()]
    return {
        name: np.ones_like(ids) if "mask" in name else np.zeros_like(ids) if "type" in name else ids for name in names
    }


def test_sparse_attention_is_refused_and_full_attention_is_not(tmp_path: Path, ckconv: Ckconv) -> None:
    source = saved(tmp_path / "bird", "BigBirdForMaskedLM", _BIGBIRD)
    refused = ckconv(source, tmp_path / "bird.onnx")
    assert refused.returncode == 7, refused.stderr
    assert "--config-value attention_type=original_full" in refused.stderr
    assert len(refused.stderr.splitlines()) == 1
    full = ckconv(source, f"{tmp_path}/out/", "--to", "onnx", "--config-value", "attention_type=original_full")
    assert full.returncode == 0, full.stderr
    said = 'note: config.json: attention_type is "original_full" and was "block_sparse", as --config-value says'
    assert said in full.stdout.splitlines()
    assert json.loads((tmp_path / "out" / "config.json").read_text())["attention_type"] == "original_full"
    session = onnxruntime.InferenceSession(tmp_path / "out" / "model.onnx")
    for length in (9, 28, 29, 100):  # from (5 + 2 x 1) x 4 tokens on, block_sparse would be another algorithm
        feed = fed(session, length)
        expected = outputs(source, "BigBirdForMaskedLM", feed, attention_type="original_full")
        np.testing.assert_allclose(session.run(None, feed)[0], expected, rtol=1e-3, atol=1e-4)
    sparse = outputs(source, "BigBirdForMaskedLM", feed)
    assert np.abs(sparse - expected).max() > 0.05 * np.abs(expected).max()  # so that refusing was right


@pytest.mark.parametrize(
    ("class_", "config", "name"),
    [
        ("BigBirdForQuestionAnswering", {**_BIGBIRD, "model_type": "big_bird"}, "attention_type"),
        (
            "BigBirdPegasusForConditionalGeneration",
            {**_FAIRSEQ, "model_type": "bigbird_pegasus", "block_size": 4, "num_random_blocks": 1},
            "attention_type",
        ),
        (
            "EncoderDecoderModel",
            {
                "model_type": "encoder-decoder",
                "encoder": {**_BIGBIRD, "model_type": "big_bird"},
                "decoder": {**_TEXT, "model_type": "bert", "is_decoder": True, "add_cross_attention": True},
            },
            "encoder.attention_type",
        ),
    ],
)
def test_every_model_with_sparse_attention_is_refused(class_: str, config: dict[str, Any], name: str) -> None:
    with pytest.raises(GraphError, match="block_sparse attention for long texts") as caught:
        trace_model(config, class_)
    assert caught.value.hint is not None
    assert f"--config-value {name}=original_full" in caught.value.hint
    *path, last = name.split(".")
    part = config
    for each in path:
        part = part[each]
    part[last] = "original_full"
    found = model_class(class_)
    check_algorithm(abstract_model(found, model_config(found, config)))


class Branching(torch.nn.Module):
    """Adds up its input, and from `limit` on something else; beyond its table it fails."""

    def __init__(self, limit: int | None, table: int) -> None:
        super().__init__()
        self.limit = limit
        self.register_buffer("table", torch.zeros(table, device="meta"))

    def forward(self, x: Any) -> Any:
        length = x.shape[1]
        if self.limit is not None and length > self.limit:
            return x.cumsum(1) * 2 + self.table[:length]
        return x.cumsum(1) + self.table[:length]


@pytest.mark.parametrize(
    ("limit", "table", "is_refused"), [(None, 99, False), (21, 99, True), (99, 99, False), (21, 21, False)]
)
def test_a_branch_on_the_length_is_noticed(limit: int | None, table: int, is_refused: bool) -> None:
    model = Branching(limit, table)
    inputs = [GraphInput(name="x", dtype=DType.FLOAT32, shape=("batch", "sequence"))]
    sizes = {"batch": 3, "sequence": 13}
    given = {"x": torch.ones((3, 13), device="meta")}
    dynamic = {"x": dict.fromkeys((0, 1), torch.export.Dim.AUTO)}
    program = torch.export.export(model, (), given, dynamic_shapes=dynamic)
    if is_refused:
        with pytest.raises(GraphError, match="computes something else where sequence is more than 21"):
            check_bounds(model, inputs, sizes, program)
    else:
        check_bounds(model, inputs, sizes, program)


@pytest.mark.parametrize("name", sorted(_CHANGING) if IS_FULL else _DRAWN)
def test_graphs_are_right_beyond_what_changes_with_length(
    name: str, tmp_path: Path, ckconv: Ckconv, tell: Callable[[str], None]
) -> None:
    class_, config, lengths = _CHANGING[name]
    tell(f"lengths: {name}; CKCONV_ORACLE_FULL=1 tries all {len(_CHANGING)}")
    source = saved(tmp_path / "model", class_, config)
    result = ckconv(source, tmp_path / "model.onnx")
    assert result.returncode == 0, result.stderr
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    for length in lengths:
        feed = fed(session, length)
        found, expected = session.run(None, feed)[0], outputs(source, class_, feed)
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max(), err_msg=f"{length}")
