"""What a traced graph is made of, and what is refused; sample inputs. In this process, where torch is."""

from __future__ import annotations

import json
import logging
import re
import resource
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir
import pytest

from converter.errors import ArchitectureError, GraphError, UsageError
from converter.graphs.description.signature import Signature
from converter.graphs.failures import summary_of
from converter.graphs.run.arrays import reason_of
from converter.graphs.trace import model_building
from converter.graphs.trace.canonical_names import canonical_names, tied_names
from converter.graphs.trace.model_building import abstract_model, computed_tensors, model_class, model_config
from converter.graphs.trace.transformers import Traced, trace, trace_model
from converter.model.dtype import DType

BERT: dict[str, Any] = {
    "model_type": "bert",
    "vocab_size": 50,
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 40,
    "num_labels": 3,
}


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("TRANSFORMERS_OFFLINE", "1")


@pytest.fixture(scope="module")
def masked_language_model() -> Traced:
    return trace_model(BERT, "BertForMaskedLM")


def test_a_graph_of_references_and_constants(masked_language_model: Traced) -> None:
    described, graph = masked_language_model.signature, masked_language_model.graph.graph
    external = {
        name: value.const_value
        for name, value in graph.initializers.items()
        if isinstance(value.const_value, onnx_ir.ExternalTensor)
    }
    assert set(external) == set(described.parameters)
    for name, tensor in external.items():
        assert (tensor.location, tensor.name) == ("weights", name)
        assert (DType.of(tensor.dtype.numpy()), tuple(tensor.shape)) == described.parameters[name]
    assert set(graph.initializers) - set(external) == set(described.computed) == {"bert.embeddings.position_ids"}
    constant = graph.initializers["bert.embeddings.position_ids"].const_value.numpy()
    np.testing.assert_array_equal(constant, np.arange(40)[None, :])


def test_ties_inputs_and_outputs(masked_language_model: Traced) -> None:
    described = masked_language_model.signature
    assert described.ties == {
        "cls.predictions.decoder.weight": "bert.embeddings.word_embeddings.weight",
        "cls.predictions.decoder.bias": "cls.predictions.bias",
    }
    assert [each.name for each in described.inputs] == ["input_ids", "token_type_ids", "attention_mask"]
    assert {(each.dtype, each.shape) for each in described.inputs} == {(DType.INT64, ("batch", "sequence"))}
    assert described.outputs == ("logits",)
    logits = masked_language_model.graph.graph.outputs[0]
    assert [str(extent) for extent in logits.shape] == ["batch", "sequence", "50"]
    assert any(re.search(pattern, "bert.embeddings.position_ids") for pattern in described.ignored)


def test_the_description_survives_json(masked_language_model: Traced) -> None:
    described = masked_language_model.signature
    assert Signature.from_json(json.loads(json.dumps(described.to_json()))) == described
    with pytest.raises(GraphError, match="float31"):
        Signature.from_json({**described.to_json(), "parameters": {"x": ["float31", []]}})


def test_the_file_holds_no_weights(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({**BERT, "vocab_size": 5000}))
    target = tmp_path / "graph.onnx"
    described = trace(
        config=str(tmp_path / "config.json"),
        architecture="BertForSequenceClassification",
        graph=str(target),
        opset=18,
        inputs=["input_ids", "attention_mask"],
    )
    assert [each["name"] for each in described["inputs"]] == ["input_ids", "attention_mask"]
    assert described["parameters"]["bert.embeddings.word_embeddings.weight"] == ["float32", [5000, 16]]
    model = onnx.load(target, load_external_data=False)
    assert model.opset_import[0].version == 18
    assert target.stat().st_size < 5000 * 16 * 4
    for machine_path in (b"site-packages", str(Path.cwd()).encode(), b"/lib/python"):
        assert machine_path not in target.read_bytes()
    assert list(tmp_path.glob("*.data")) == []


def test_an_export_is_silent(capfd: pytest.CaptureFixture[str]) -> None:
    logging.getLogger("transformers").setLevel(logging.WARNING)
    capfd.readouterr()
    trace_model({**BERT, "output_hidden_states": True}, "BertModel")
    assert capfd.readouterr() == ("", "")


def test_what_a_config_must_not_decide_is_removed() -> None:
    class_ = model_class("BertModel")
    hostile = {
        **BERT,
        "auto_map": {"AutoModel": "evil--model.Model"},
        "_attn_implementation_internal": "evil/kernel",
        "attn_implementation": "evil/kernel",
        "quantization_config": {"quant_method": "gptq"},
        "dtype": "float16",
    }
    config = model_config(class_, hostile)
    assert "evil" not in json.dumps(config.to_dict(), default=str)
    assert not hasattr(config, "quantization_config")
    assert {parameter.dtype for parameter in abstract_model(class_, config).parameters()} == {_float32()}


def _float32() -> Any:
    import torch

    return torch.float32


@pytest.mark.parametrize("name", ["NoSuchModel", "BertConfig", "AutoModel", "pipeline", "__name__", "PreTrainedModel"])
def test_a_class_outside_the_registry(name: str) -> None:
    assert model_class("BertModel").__name__ == "BertModel"
    with pytest.raises(ArchitectureError, match="not a model class"):
        model_class(name)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "gpt2"}, "model type"),
        ({"hidden_size": 15}, "cannot be built"),
        ({"hidden_size": "wide"}, "cannot be built"),
        ({"hidden_act": "no_such_function"}, "cannot be built"),
        ({"vocab_size": 1 << 45}, "more parameters"),
        ({"num_hidden_layers": 1 << 40}, "more modules"),
        ({"max_position_embeddings": 1 << 33}, "more buffers"),
    ],
)
def test_a_config_that_does_not_build(change: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_building, "_MODULE_LIMIT", 500)
    class_ = model_class("BertModel")
    abstract_model(class_, model_config(class_, BERT))
    with pytest.raises(ArchitectureError, match=message) as caught:
        abstract_model(class_, model_config(class_, {**BERT, **change}))
    assert "\n" not in str(caught.value)


def test_a_failure_is_what_went_wrong() -> None:
    from torch.onnx import errors

    wrapped = errors.OnnxExporterError("Failed. \x1b[96mThis is step 2/3\x1b[0m, report it")
    wrapped.__cause__ = AttributeError("'SymInt' object has no attribute 'unsqueeze'\n\nWhile executing %scan")
    assert summary_of(wrapped) == "AttributeError: 'SymInt' object has no attribute 'unsqueeze'"
    of_keras = "Exception encountered when calling Dense.call().\n\n\x1b[1mno such axis\x1b[0m\n\nArguments received"
    assert summary_of(ValueError(of_keras)) == "ValueError: no such axis"
    assert summary_of(ValueError("\x1b[96m====\x1b[0m\nno\x1b[0m")) == "ValueError: no"
    of_autograph = (
        'Exception encountered when calling layer "gain" (type Gain).\n\nin user code:\n\n    File "own.py", line 3, '
        "in call  *\n        return tf.matmul(x)\n\n    TypeError: one: argument\n\n\nCall arguments received by layer"
    )
    assert summary_of(TypeError(of_autograph)) == "TypeError: one: argument"
    assert reason_of(ValueError(of_keras)) == "no such axis"
    assert reason_of(ValueError("\x1b[1mno\x1b[0m\nwhy")) == "no why"


def test_a_cap_on_parameters() -> None:
    class_ = model_class("BertModel")
    config = model_config(class_, BERT)
    assert abstract_model(class_, config, size_limit_bytes=1 << 20) is not None
    with pytest.raises(ArchitectureError, match="more parameters"):
        abstract_model(class_, config, size_limit_bytes=1 << 10)


@pytest.mark.parametrize("content", ["", "[1]", '"text"', "[" * 100_000])
def test_a_config_that_is_not_an_object(content: str, tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(content)
    with pytest.raises(ArchitectureError, match="config"):
        trace(config=str(path), architecture="BertModel", graph=str(tmp_path / "graph.onnx"))


def test_an_input_the_class_does_not_take() -> None:
    with pytest.raises(UsageError, match="pixel_values"):
        trace_model(BERT, "BertModel", inputs=["input_ids", "pixel_values"])
    with pytest.raises(GraphError, match="nothing is known"):
        trace_model({"model_type": "informer", "prediction_length": 4}, "InformerModel")


def test_a_failing_export_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    class_ = model_class("BertModel")

    def forward(self: Any, input_ids: Any = None, attention_mask: Any = None) -> Any:
        return {"logits": input_ids.float() * input_ids.sum().item().bit_length()}

    monkeypatch.setattr(class_, "forward", forward)
    with pytest.raises(GraphError, match="BertModel could not be exported") as caught:
        trace_model(BERT, "BertModel")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("axis", "dimension"), [(0, "batch"), (1, "sequence")])
def test_a_frozen_dimension_is_named(axis: int, dimension: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch
    from transformers.modeling_outputs import BaseModelOutput

    def forward(self: Any, input_ids: Any = None) -> Any:
        extent = next(number for number in range(100) if input_ids.shape[axis] == number)
        return BaseModelOutput(last_hidden_state=input_ids.float() * torch.tensor(float(extent)))

    monkeypatch.setattr(model_class("BertModel"), "forward", forward)
    with pytest.raises(GraphError, match=f"froze the {dimension} dimension"):
        trace_model(BERT, "BertModel", inputs=["input_ids"])


def test_renamed_tensors_have_the_names_of_the_file(tmp_path: Path) -> None:
    from safetensors import safe_open
    from transformers import ViTConfig, ViTForImageClassification

    config = ViTConfig(hidden_size=12, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8)
    model = ViTForImageClassification(config)
    model.save_pretrained(tmp_path)
    with safe_open(tmp_path / "model.safetensors", "numpy") as stored:
        names = canonical_names(model)
        assert set(names.values()) == set(stored.keys())
        renamed = {name: file_name for name, file_name in names.items() if name != file_name}
        assert renamed
        for name, tensor in model.state_dict().items():
            np.testing.assert_array_equal(stored.get_tensor(names[name]), tensor.numpy())


def test_a_tensor_stored_in_another_form_is_named() -> None:
    import transformers

    config = transformers.MixtralConfig(
        vocab_size=10,
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        num_local_experts=2,
    )
    model = abstract_model(transformers.MixtralForCausalLM, config)
    with pytest.raises(GraphError, match="another form") as caught:
        canonical_names(model)
    assert "experts" in str(caught.value.tensor)


def test_untied_models_have_no_ties() -> None:
    class_ = model_class("BertForMaskedLM")
    tied = tied_names(abstract_model(class_, model_config(class_, BERT)))
    untied = tied_names(abstract_model(class_, model_config(class_, {**BERT, "tie_word_embeddings": False})))
    assert "cls.predictions.decoder.weight" in tied
    assert "cls.predictions.decoder.weight" not in untied


def test_buffers_are_computed_without_allocating_parameters() -> None:
    class_ = model_class("LlamaForCausalLM")
    values = {
        "model_type": "llama",
        "vocab_size": 1 << 26,
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 16,
    }
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    buffers = computed_tensors(class_, model_config(class_, values))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < (1 << 29) >> 10
    frequencies = buffers["model.rotary_emb.inv_freq"].numpy()
    np.testing.assert_allclose(frequencies, 10000.0 ** (-np.arange(0, 8, 2) / 8), rtol=1e-6)
