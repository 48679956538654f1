"""Files that people have of the last ten years of Keras, TensorFlow, ONNX and Flax, each as its framework wrote it.

fixtures/field has them; arrays `*_io.npz` are what the framework itself computed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import converter
from converter.report import Report

FIELD = Path(__file__).parents[2] / "fixtures" / "field"


@dataclass(frozen=True, kw_only=True)
class Case:
    """A file, and what has to be true of it: `io` what it computes, `notes` what the report says.

    `options` are those of `convert`; `mapped` is how many tensors there are.
    """

    file: str
    mapped: int
    io: str | None = None
    tolerance: float = 1e-6
    notes: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)


CASES = {
    "a PReLU for each element": Case(file="prelu.h5", mapped=3, notes=("an alpha for each element",)),
    "a Reshape behind a convolution": Case(
        file="conv_reshape.keras", mapped=4, notes=("in which Reshape 'reshape' to (6, 16) gives them",)
    ),
    "the same in HDF5": Case(file="conv_reshape.h5", mapped=4, notes=("rows stay in Keras's order",)),
    "a ConvNeXt": Case(file="convnext.keras", mapped=56),
    "a crop of forty steps": Case(file="crop.h5", mapped=2),
    "recurrent layers of other kinds": Case(
        file="rnn_variants.keras",
        mapped=9,
        notes=("activation relu: torch.nn.LSTM has no such", "go_backwards: torch.nn.LSTM has no such"),
    ),
    "a hard sigmoid": Case(file="hs.h5", mapped=3, notes=("lstm_1: recurrent_activation hard_sigmoid",)),
    "CuDNN": Case(file="cudnnlstm.h5", mapped=4, io="expected.npz"),
    "mixed precision, HDF5": Case(file="mp.h5", mapped=4, io="mp_io.npz", tolerance=2e-3),
    "mixed precision, archive": Case(file="mp.keras", mapped=4, io="mp_io.npz", tolerance=2e-3),
    "weights and JSON": Case(file="plain.h5", mapped=7, io="plain_io.npz", options={"config": FIELD / "plain.json"}),
    "an optimizer of no names": Case(file="keras20_names.h5", mapped=4, io="legacy_adam_io.npz"),
    "an optimizer of old names": Case(file="legacy_adam.h5", mapped=4, io="legacy_adam_io.npz"),
    "slots of an old Adam": Case(file="legacy_adam_sm", mapped=4, io="legacy_adam_io.npz"),
    "slots of an old SGD": Case(file="legacy_sgd_sm", mapped=4, io="legacy_sgd_io.npz"),
    "an LSTM of Keras 2": Case(file="lstm_sm", mapped=5, io="lstm_io.npz"),
    "a Saver of TensorFlow 1": Case(file="tf1_with_saver", mapped=2, io="tf1_saver_io.npz"),
    "simple_save of TensorFlow 1": Case(file="tf1_simple_save", mapped=2, io="tf1_saver_io.npz"),
    "a frozen graph": Case(file="frozen.pb", mapped=2, io="tf1_io.npz"),
    "an index compressed with Snappy": Case(file="snappy_sm", mapped=4),
    "two signatures": Case(file="mod_named", mapped=1, options={"signature": "embed"}),
    "ONNX with constants alone": Case(file="all_const.onnx", mapped=3),
    "ONNX with constants and an initializer": Case(file="mixed_const.onnx", mapped=3),
    "an input called 0": Case(file="digit.onnx", mapped=1),
    "an input of int32": Case(file="int32_input.onnx", mapped=1),
    "operators of version 6": Case(file="opset6_batchnorm.onnx", mapped=5),
    "an Upsample of version 6": Case(file="upsample_op6.onnx", mapped=1),
    "scales in an initializer": Case(file="resize_scales_initializer.onnx", mapped=1),
    "a checkpoint of the format V1": Case(file="v1_checkpoint", mapped=2),
    "the file of one": Case(file="v1_checkpoint/model.ckpt", mapped=2),
    "a TrainState of Flax": Case(file="state.msgpack", mapped=10, notes=("the source says too little of it",)),
}
WITHOUT_GRAPH = (
    *("a TrainState of Flax", "a checkpoint of the format V1", "the file of one"),
    "recurrent layers of other kinds",  # it goes backwards and forwards at once, which no input of one shape does
)


def said(report: Report) -> str:
    return "\n".join([*report.warnings, *(str(each.note) for each in report.settings), str(report.optimizer.reason)])


@pytest.mark.parametrize("name", CASES)
def test_every_weight_is_there(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    options = {key: value for key, value in case.options.items() if key != "signature"}
    report = converter.convert(FIELD / case.file, tmp_path / "out.pth", **options)
    assert report.counts["mapped"] == case.mapped
    for note in case.notes:
        assert note in said(report), said(report)


@pytest.mark.parametrize("name", [name for name in CASES if name not in WITHOUT_GRAPH])
def test_the_graph_computes_what_it_did(name: str, tmp_path: Path) -> None:
    pytest.importorskip("tensorflow")
    runtime = pytest.importorskip("onnxruntime")
    case = CASES[name]
    report = converter.convert(FIELD / case.file, tmp_path / "out.onnx", **case.options)
    assert report.verification.outputs
    if case.io is None:
        return
    session = runtime.InferenceSession(str(tmp_path / "out.onnx"))
    with np.load(FIELD / case.io) as arrays:
        inputs, expected = arrays["x0" if "x0" in arrays else "x"], arrays["y0" if "y0" in arrays else "y"]
    (found,) = session.run(None, {session.get_inputs()[0].name: inputs})
    np.testing.assert_allclose(found, expected, atol=case.tolerance)


@pytest.mark.parametrize("target", ["pt2", "savedmodel"])
@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.file.endswith(".onnx")])
def test_graphs_of_onnx_become_those_of_other_frameworks(name: str, target: str, tmp_path: Path) -> None:
    pytest.importorskip("torch" if target == "pt2" else "tensorflow")
    report = converter.convert(FIELD / CASES[name].file, tmp_path / f"out.{target}", to=target)
    assert report.verification.outputs


def test_an_optimizer_of_no_names_is_that_of_old_names(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    states = []
    for name in ("keras20_names.h5", "legacy_adam.h5"):
        converter.convert(FIELD / name, tmp_path / f"{name}.pth")
        states.append(torch.load(tmp_path / f"{name}.pth")["optimizer_state_dict"])
    ours, theirs = states
    assert ours["param_groups"] == theirs["param_groups"]
    for index, slots in theirs["state"].items():
        for key, value in slots.items():
            assert torch.equal(ours["state"][index][key], value)


def hard_sigmoid(x: Any) -> Any:
    """Of Keras 1 and 2; Keras 3 has another under the same name."""
    return np.clip(0.2 * x + 0.5, 0, 1)


def test_a_hard_sigmoid_is_that_of_its_keras(tmp_path: Path) -> None:
    pytest.importorskip("tensorflow")
    runtime = pytest.importorskip("onnxruntime")
    converter.convert(FIELD / "hs.h5", tmp_path / "out.onnx")
    kernel, recurrent, bias = (each.numpy() for each in converter.read(FIELD / "hs.h5").tensors.values())
    units = recurrent.shape[0]
    steps = np.random.default_rng(0).normal(size=(2, 6, kernel.shape[0])).astype(np.float32) * 3
    state = memory = np.zeros((2, units), np.float32)
    for step in steps.transpose(1, 0, 2):
        entry, forget, candidate, output = np.split(step @ kernel + state @ recurrent + bias, 4, axis=1)
        memory = hard_sigmoid(forget) * memory + hard_sigmoid(entry) * np.tanh(candidate)
        state = hard_sigmoid(output) * np.tanh(memory)
    session = runtime.InferenceSession(str(tmp_path / "out.onnx"))
    (found,) = session.run(None, {session.get_inputs()[0].name: steps})
    np.testing.assert_allclose(found, state, atol=1e-6)
