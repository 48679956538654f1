"""Quantised checkpoints are told by a method's whole set of tensors or by their config, and are copied or refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import converter
from converter.dialects.quantised import quantisation_of
from converter.errors import LossError
from converter.model.checkpoint import Checkpoint, Config
from converter.model.dtype import DType
from converter.model.tensor import ArrayTensor

I32, U32, I8, U8 = DType.INT32, DType.UINT32, DType.INT8, DType.UINT8
F8, F16, F32 = DType.FLOAT8_E4M3FN, DType.FLOAT16, DType.FLOAT32

STORED: dict[str, dict[str, DType]] = {
    "fp8 with scales": {"weight": F8, "weight_scale_inv": F32},
    "fp8 with scales, of Mistral": {"weight": F8, "qscale_weight": F32},
    "GPTQ or AWQ": {"qweight": I32, "qzeros": I32, "scales": F16},
    "GPTQ": {"qweight": I32, "g_idx": I32, "scales": F16},
    "compressed-tensors": {"weight_packed": I32, "weight_scale": F16, "weight_shape": DType.INT64},
    "compressed-tensors, nvfp4": {"weight_packed": U8, "weight_scale": F8, "weight_global_scale": F32},
    "int8 or fp8 with scales": {"weight": I8, "weight_scale": F16},
    "bitsandbytes in 4 bits": {"weight": U8, "weight.absmax": U8, "weight.quant_map": F32},
    "bitsandbytes in 8 bits": {"weight": I8, "SCB": F32},
    "MLX": {"weight": U32, "scales": F16},
    "MLX, mxfp4": {"weight": U32, "scales": U8},
    "quanto": {"weight._data": I8, "weight._scale": F32},
    "fp8 with scales, of DeepSeek": {"weight": F8, "scale": F32},
    "fp8 with scales, of ComfyUI": {"weight": F8, "scale_weight": F32},
    "MXFP4, of gpt-oss": {"blocks": U8, "scales": U8},
    "torchao, tiled": {"_weight_qdata": I32, "_weight_scale_and_zero": F32},
    "EETQ": {"weight": I8, "weight_scales": F16},
    "HQQ": {"W_q": U8, "scale": F16, "zero": F16},
    "AQLM": {"codes": I8, "codebooks": F16, "scales": F16},
    "VPTQ": {"indices": DType.INT16, "centroids.weight": F16},
    "QuIP#": {"Qidxs": DType.INT64, "SU": F16, "SV": F16},
    "Marlin": {"B": I32, "s": F16},
}
PLAIN: dict[str, dict[str, DType]] = {
    "a name of a scale, of weights that are numbers": {"weight": F32, "weight_scale_inv": F32},
    "codes without scales": {"weight": I8},
    "scales and biases of a model that calls them so": {"weight": F32, "scales": F32, "biases": F32},
    "counts beside a weight": {"weight": F32, "SCB": F32},
    "words without zeros": {"qweight": I32, "scales": F16},
    "zeros that are numbers": {"qweight": I32, "qzeros": F32, "scales": F16},
    "maps of numbers": {"weight": F32, "weight.absmax": F32, "weight.quant_map": F32},
    "packed in floats": {"weight_packed": F32, "weight_scale": F32},
    "a table of indices beside centroids of another kind": {"indices": I32, "centroids": F32},
    "a scale beside weights that are numbers": {"weight": F16, "scale": F32, "scale_weight": F32},
    "codes of a tokenizer of sound": {"codes": I32, "codebooks": F32},
}


def checkpoint(parts: dict[str, DType], config: Any = None) -> Checkpoint:
    tensors = {
        f"model.layers.0.proj.{end}": ArrayTensor(dtype=dtype, shape=(2,), array=np.zeros(2, dtype.numpy))
        for end, dtype in parts.items()
    }
    return Checkpoint(tensors=tensors, config=None if config is None else Config(values=config, raw=b"{}"))


@pytest.mark.parametrize("method", STORED)
def test_a_method_is_told_by_its_whole_set(method: str) -> None:
    said = quantisation_of(checkpoint(STORED[method]))
    assert said is not None
    assert said.startswith(method.partition(",")[0])
    for end in list(STORED[method])[: 2 if "weight" in STORED[method] else 3]:
        if end not in ("weight_shape", "weight_global_scale"):
            assert (
                quantisation_of(checkpoint({key: kind for key, kind in STORED[method].items() if key != end})) is None
            )


def test_blocks_of_experts_and_data_of_torchao_are_codes() -> None:
    experts = {"gate_up_proj_blocks": U8, "gate_up_proj_scales": U8}
    assert "MXFP4" in (quantisation_of(checkpoint(experts)) or "")
    assert "torchao" in (quantisation_of(checkpoint({"_weight_qdata": I8, "_weight_scale": F32})) or "")


@pytest.mark.parametrize("what", PLAIN)
def test_a_name_alone_says_nothing(what: str) -> None:
    assert quantisation_of(checkpoint(PLAIN[what])) is None


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"quantization_config": {"quant_method": "awq"}}, "awq, as its config says"),
        ({"text_config": {"quantization_config": {"quant_method": "fp8"}}}, "fp8, as its config says"),
        ({"llm_config": {"compression_config": {"quant_method": "sparseml"}}}, "sparseml, as its config says"),
        ({"quantization": {"bits": 4, "group_size": 64}}, "MLX, as its config says"),
        ({"quantization_config": None, "quantization": {"bits": 4}}, None),
    ],
)
def test_a_config_says_its_method(config: dict[str, Any], said: str | None) -> None:
    assert quantisation_of(checkpoint({"weight": F32}, config)) == said


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model of one layer in the form of GPTQ."""
    folder = tmp_path / "model"
    folder.mkdir()
    codes = {"qweight": np.int32, "qzeros": np.int32, "scales": np.float16, "g_idx": np.int32}
    arrays = {f"model.layers.0.mlp.up_proj.{end}": np.arange(4, dtype=kind) for end, kind in codes.items()}
    arrays["model.norm.weight"] = np.ones(4, np.float16)
    save_file(arrays, folder / "model.safetensors", metadata={"format": "pt"})
    settings = {"quant_method": "gptq", "bits": 4}
    config = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "quantization_config": settings}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize("flavor", ["safetensors", "bin"])
def test_a_copy_keeps_codes_scales_and_config(folder: Path, tmp_path: Path, flavor: str) -> None:
    converter.convert(folder, tmp_path / "copy", to="pretrained", flavor=flavor)
    assert (tmp_path / "copy" / "config.json").read_bytes() == (folder / "config.json").read_bytes()
    before = load_file(folder / "model.safetensors")
    after = converter.read(tmp_path / "copy").tensors
    assert after.keys() == before.keys()
    for name, tensor in after.items():
        np.testing.assert_array_equal(tensor.numpy(), before[name])


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("x.pth", {}),
        ("x.safetensors", {}),
        ("x.onnx", {"weights_only": True}),
        ("x/", {"to": "pretrained", "dtype": "float32"}),
        ("x/", {"to": "pretrained", "flavor": "flax"}),
        ("x/", {"to": "tf-checkpoint"}),
    ],
)
def test_any_other_target_is_refused_by_the_name_of_the_method(
    folder: Path, tmp_path: Path, name: str, options: dict[str, Any]
) -> None:
    with pytest.raises(LossError, match=r"is quantised \(gptq, as its config says\)"):
        converter.convert(folder, tmp_path / name, **options)
    assert not (tmp_path / name).exists()
