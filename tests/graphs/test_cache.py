"""A decoder with its cache: names, dimensions, and that it goes on as torch does, in onnxruntime."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx_ir
import pytest
from safetensors.numpy import load_file

from converter.graphs.architecture import Architecture
from converter.graphs.inputs import sample_inputs, sample_sizes
from converter.graphs.run.arrays import read_inputs
from converter.graphs.run.transformers import run
from converter.graphs.trace.transformers import trace
from tests.graphs.zoo import ZOO

MISTRAL = next(model for model in ZOO if model.architecture == "MistralForCausalLM")


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def test_a_decoder_goes_on_from_what_it_returned(tmp_path: Path) -> None:
    import onnxruntime
    import transformers

    config = {**MISTRAL.config, "num_hidden_layers": 2}
    transformers.MistralForCausalLM(transformers.MistralConfig(**config)).save_pretrained(tmp_path)
    graph = tmp_path / "graph.onnx"
    described = trace(
        config=str(tmp_path / "config.json"), architecture="MistralForCausalLM", graph=str(graph), with_cache=True
    )
    architecture = Architecture.from_json(json.loads(json.dumps(described)))
    past = [f"past_key_values.{layer}.{kind}" for layer in range(2) for kind in ("key", "value")]
    assert [each.name for each in architecture.inputs] == ["input_ids", "attention_mask", *past]
    present = [name.replace("past_key_values", "present") for name in past]
    assert architecture.outputs == ("logits", *present)

    model, weights = onnx_ir.load(graph), load_file(tmp_path / "model.safetensors")
    shapes = {value.name: [str(extent) for extent in value.shape] for value in model.graph.inputs}
    assert shapes["attention_mask"] == ["batch", "past_sequence + sequence"]
    assert shapes[past[0]] == ["batch", "1", "past_sequence", "8"]
    for name, value in model.graph.initializers.items():
        if isinstance(value.const_value, onnx_ir.ExternalTensor):
            value.const_value = onnx_ir.tensor(weights[name], name=name)
    session = onnxruntime.InferenceSession(onnx_ir.to_proto(model).SerializeToString())

    inputs = {
        f"{case}/{name}": array
        for case, sizes in enumerate(sample_sizes(architecture))
        for name, array in sample_inputs(architecture.inputs, seed=case, sizes=sizes).items()
    }
    np.savez(tmp_path / "inputs.npz", **inputs)
    run(
        model=str(tmp_path),
        architecture="MistralForCausalLM",
        inputs=str(tmp_path / "inputs.npz"),
        outputs=str(tmp_path / "outputs.npz"),
    )
    expected = read_inputs(str(tmp_path / "outputs.npz"))
    for case, arrays in read_inputs(str(tmp_path / "inputs.npz")).items():
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
