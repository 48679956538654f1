"""A decoder with its cache: names, dimensions, and that it goes on as torch does, in onnxruntime.

Of the decoders behind an encoder one is taken, another with every seed; CKCONV_ORACLE_FULL=1 takes all.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir
import pytest
from safetensors.numpy import load_file

from converter.graphs.description.sample_inputs import sample_inputs, sample_sizes
from converter.graphs.description.signature import Signature
from converter.graphs.run.arrays import read_sets, write_arrays
from converter.graphs.run.transformers import run
from converter.graphs.trace.transformers import trace
from tests.graphs.zoo import ZOO
from tests.slices import IS_FULL, SEED

MODELS = {model.architecture: model for model in ZOO}
MISTRAL = MODELS["MistralForCausalLM"]
BEHIND_ENCODERS = (
    "T5ForConditionalGeneration",
    "BartForConditionalGeneration",
    "MarianMTModel",
    "WhisperForConditionalGeneration",
)
STEPS = 6


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def _session(graph: Path) -> Any:
    """A session of a graph, with the weights that are saved beside it."""
    import onnxruntime

    model, weights = onnx_ir.load(graph), load_file(graph.with_name("model.safetensors"))
    for name, value in model.graph.initializers.items():
        if isinstance(value.const_value, onnx_ir.ExternalTensor):
            value.const_value = onnx_ir.tensor(weights[name], name=name)
    return onnxruntime.InferenceSession(onnx_ir.to_proto(model).SerializeToString())


def test_a_decoder_goes_on_from_what_it_returned(tmp_path: Path) -> None:
    import transformers

    config = {**MISTRAL.config, "num_hidden_layers": 2}
    transformers.MistralForCausalLM(transformers.MistralConfig(**config)).save_pretrained(tmp_path)
    graph = tmp_path / "graph.onnx"
    described = trace(
        config=str(tmp_path / "config.json"), architecture="MistralForCausalLM", graph=str(graph), with_cache=True
    )
    architecture = Signature.from_json(json.loads(json.dumps(described)))
    past = [f"past_key_values.{layer}.{kind}" for layer in range(2) for kind in ("key", "value")]
    assert [each.name for each in architecture.inputs] == ["input_ids", "attention_mask", *past]
    present = [name.replace("past_key_values", "present") for name in past]
    assert architecture.outputs == ("logits", *present)

    model = onnx_ir.load(graph)
    shapes = {value.name: [str(extent) for extent in value.shape] for value in model.graph.inputs}
    assert shapes["attention_mask"] == ["batch", "past_sequence + sequence"]
    assert shapes[past[0]] == ["batch", "1", "past_sequence", "8"]
    session = _session(graph)

    inputs = {
        f"{case}/{name}": array
        for case, sizes in enumerate(sample_sizes(architecture))
        for name, array in sample_inputs(architecture.inputs, seed=case, sizes=sizes).items()
    }
    write_arrays(str(tmp_path / "inputs.npz"), inputs)
    run(
        model=str(tmp_path),
        architecture="MistralForCausalLM",
        inputs=str(tmp_path / "inputs.npz"),
        outputs=str(tmp_path / "outputs.npz"),
    )
    expected = read_sets(str(tmp_path / "outputs.npz"))
    for case, arrays in read_sets(str(tmp_path / "inputs.npz")).items():
        for name, array in zip(architecture.outputs, session.run(list(architecture.outputs), arrays), strict=True):
            np.testing.assert_allclose(array, expected[case][name], atol=1e-5, err_msg=name)

    # Twelve tokens at once are the same as seven, and then five that go on from the seven.
    ids = np.random.default_rng(0).integers(3, 50, (2, 12))
    nothing = {name: np.zeros((2, 1, 0, 8), np.float32) for name in past}

    def step(part: np.ndarray, length: int, before: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        mask = np.ones((2, length), np.int64)
        outputs = session.run(list(architecture.outputs), {"input_ids": part, "attention_mask": mask, **before})
        return dict(zip(architecture.outputs, outputs, strict=True))

    whole, first = step(ids, 12, nothing), step(ids[:, :7], 7, nothing)
    second = step(ids[:, 7:], 12, {name: first[name.replace("past_key_values", "present")] for name in past})
    np.testing.assert_allclose(second["logits"], whole["logits"][:, 7:], atol=1e-5)


@pytest.mark.parametrize("class_name", BEHIND_ENCODERS if IS_FULL else [BEHIND_ENCODERS[SEED % len(BEHIND_ENCODERS)]])
def test_a_decoder_behind_an_encoder_writes_what_torch_writes(class_name: str, tmp_path: Path) -> None:
    """Token by token, from what it returned the step before."""
    import torch
    import transformers

    class_ = getattr(transformers, class_name)
    torch.manual_seed(SEED)
    source = class_(class_.config_class(**MODELS[class_name].config)).eval()
    with torch.no_grad():
        for parameter in source.parameters():
            if parameter.requires_grad:  # sinusoids have none
                parameter.add_(torch.randn_like(parameter) * 0.1)
    source.save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(MODELS[class_name].config))
    described = trace(
        config=str(tmp_path / "config.json"),
        architecture=class_name,
        graph=str(tmp_path / "graph.onnx"),
        with_cache=True,
    )
    architecture = Signature.from_json(json.loads(json.dumps(described)))
    past = [each for each in architecture.inputs if each.name.startswith("past_key_values.")]
    assert [each.name for each in past] == [f"past_key_values.0.decoder.{kind}" for kind in ("key", "value")]
    session, names = _session(tmp_path / "graph.onnx"), list(architecture.outputs)
    arrays = sample_inputs(architecture.inputs, seed=1, sizes=sample_sizes(architecture)[0])
    encoded = {name: array for name, array in arrays.items() if not name.startswith(("past_", "decoder_"))}
    before = {each.name: np.zeros((3, each.shape[1], 0, each.shape[3]), np.float32) for each in past}
    given = {name: torch.from_numpy(array) for name, array in encoded.items()}
    ids = np.full((3, 1), source.config.decoder_start_token_id, np.int64)
    written, cache = [ids], None
    for _ in range(STEPS):
        found = dict(zip(names, session.run(names, {**encoded, "decoder_input_ids": ids, **before}), strict=True))
        with torch.no_grad():
            expected = source(**given, decoder_input_ids=torch.from_numpy(ids), past_key_values=cache, use_cache=True)
        cache = expected.past_key_values
        np.testing.assert_allclose(found["logits"], expected.logits, atol=1e-5)
        before = {each.name: found[each.name.replace("past_key_values", "present")] for each in past}
        np.testing.assert_allclose(
            before["past_key_values.0.decoder.key"], cache.self_attention_cache.layers[0].keys, atol=1e-5
        )
        ids = found["logits"][:, -1:].argmax(-1)
        written.append(ids)
    whole = source(**given, decoder_input_ids=torch.from_numpy(np.concatenate(written[:-1], axis=1))).logits
    np.testing.assert_array_equal(np.concatenate(written[1:], axis=1), whole.argmax(-1))
