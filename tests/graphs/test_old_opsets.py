"""ONNX files in operators before version 7: raised, and what onnx has stored of them computed in every framework."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import converter
from converter.errors import GraphError
from converter.graphs.passes.old_opsets import raise_old

onnx = pytest.importorskip("onnx")
onnx_ir = pytest.importorskip("onnx_ir")
onnxruntime = pytest.importorskip("onnxruntime")

STORED = Path(onnx.__file__).parent / "backend" / "test" / "data"
KINDS = ("pytorch-converted", "pytorch-operator", "simple")


def old_models() -> Iterator[Path]:
    """Models of onnx's own tests that are older than version 7, each with inputs and outputs beside it."""
    for kind in KINDS:
        for folder in sorted((STORED / kind).iterdir()):
            model = onnx.load(folder / "model.onnx")
            if min((each.version for each in model.opset_import if not each.domain), default=1) < 7:
                yield folder


OLD = list(old_models())


def arrays(folder: Path, kind: str) -> list[Any]:
    files = sorted((folder / "test_data_set_0").glob(f"{kind}_*.pb"), key=lambda file: int(file.stem.split("_")[1]))
    return [onnx.numpy_helper.to_array(onnx.TensorProto.FromString(file.read_bytes())) for file in files]


def raised(model: Any) -> Any:
    made = onnx_ir.from_proto(model)
    assert raise_old(made)
    made.ir_version = max(made.ir_version, 4)
    proto = onnx_ir.to_proto(made)
    onnx.checker.check_model(proto)
    return proto


def computed(model: Any, *given: Any) -> list[Any]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    content = model.SerializeToString()
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_inputs()]
    return list(session.run(None, dict(zip(names, given, strict=False))))


def test_there_are_many() -> None:
    assert len(OLD) > 100


@pytest.mark.parametrize("folder", OLD, ids=lambda folder: folder.name)
def test_what_onnx_has_stored(folder: Path) -> None:
    found = computed(raised(onnx.load(folder / "model.onnx")), *arrays(folder, "input"))
    for ours, theirs in zip(found, arrays(folder, "output"), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-5)


def model(node: Any, *values: Any, version: int = 6, gives: int = 1, rank: int | None = None) -> Any:
    """A node of the input x and of initializers."""
    helper = onnx.helper
    x, *others = values
    initializers = [onnx.numpy_helper.from_array(each, name) for name, each in zip(node.input[1:], others, strict=True)]
    graph = helper.make_graph(
        [node],
        "old",
        [helper.make_tensor_value_info("x", helper.np_dtype_to_tensor_dtype(x.dtype), list(x.shape))],
        [helper.make_tensor_value_info("y", gives, [None] * (rank or x.ndim))],
        initializers,
    )
    for each in initializers:
        graph.input.append(helper.make_tensor_value_info(each.name, each.data_type, each.dims))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", version)], ir_version=3)


RANDOM = np.random.default_rng(3)
IMAGE = RANDOM.normal(size=(2, 3, 4, 5)).astype(np.float32)
CHANNELS = np.array([0.5, 2, -1], np.float32)
ROWS = RANDOM.normal(size=(3, 4)).astype(np.float32)


def node(operator: str, *inputs: str, **attributes: Any) -> Any:
    return onnx.helper.make_node(operator, ["x", *inputs], ["y"], **attributes)


def normalised(*, spatial: bool = True) -> Any:
    shape = (3,) if spatial else IMAGE.shape[1:]
    scale, bias, mean = (RANDOM.normal(size=shape).astype(np.float32) for _ in range(3))
    variance = np.abs(RANDOM.normal(size=shape)).astype(np.float32) + 0.5
    values = [scale, bias, mean, variance]
    s, b, m, v = (each.reshape(-1, 1, 1) if spatial else each for each in values)
    return values, (IMAGE - m) / np.sqrt(v + 1e-5) * s + b


SPATIAL, FLAT = normalised(), normalised(spatial=False)
CASES: dict[str, Callable[[], tuple[Any, Any]]] = {
    "Add along an axis": lambda: (
        model(node("Add", "w", broadcast=1, axis=1), IMAGE, ROWS),
        IMAGE + ROWS[:, :, None],
    ),
    "Mul along a negative axis": lambda: (
        model(node("Mul", "w", broadcast=1, axis=-3), IMAGE, CHANNELS),
        IMAGE * CHANNELS[:, None, None],
    ),
    "Sub of the last axes": lambda: (
        model(node("Sub", "w", broadcast=1), IMAGE, IMAGE[0, 0]),
        IMAGE - IMAGE[0, 0],
    ),
    "Div in place": lambda: (
        model(node("Div", "w", broadcast=1, axis=1, consumed_inputs=[0, 0]), IMAGE, CHANNELS, version=1),
        IMAGE / CHANNELS[:, None, None],
    ),
    "Pow of a number": lambda: (
        model(node("Pow", "w", broadcast=1, axis=0), np.abs(IMAGE), np.array([2.0, 3.0], np.float32)),
        np.abs(IMAGE) ** np.array([2, 3])[:, None, None, None],
    ),
    "Less along an axis": lambda: (
        model(node("Less", "w", broadcast=1, axis=1), IMAGE, CHANNELS, gives=9),
        np.less(IMAGE, CHANNELS[:, None, None]),
    ),
    "Gemm": lambda: (
        model(node("Gemm", "w", "b", broadcast=1), ROWS, ROWS.T.copy(), CHANNELS),
        ROWS @ ROWS.T + CHANNELS,
    ),
    "PRelu of channels": lambda: (
        model(node("PRelu", "w"), IMAGE, CHANNELS),
        np.where(IMAGE < 0, IMAGE * CHANNELS[:, None, None], IMAGE),
    ),
    "PRelu of all": lambda: (
        model(node("PRelu", "w"), IMAGE, np.array([0.5], np.float32)),
        np.where(IMAGE < 0, IMAGE * 0.5, IMAGE),
    ),
    "BatchNormalization": lambda: (
        model(
            node("BatchNormalization", *"sbmv", is_test=1, consumed_inputs=[0] * 5), IMAGE, *SPATIAL[0], version=1
        ),
        SPATIAL[1],
    ),
    "BatchNormalization of places": lambda: (
        model(node("BatchNormalization", *"sbmv", is_test=1, spatial=0), IMAGE, *FLAT[0]),
        FLAT[1],
    ),
    "Dropout": lambda: (model(node("Dropout", is_test=0, ratio=0.5), IMAGE), IMAGE),
    "Upsample": lambda: (
        model(node("Upsample", height_scale=2.0, width_scale=3.0, mode="nearest"), IMAGE, version=1),
        IMAGE.repeat(2, 2).repeat(3, 3),
    ),
    "Cast": lambda: (model(node("Cast", to="INT32"), IMAGE * 9, version=1, gives=6), (IMAGE * 9).astype(np.int32)),
    "Concat": lambda: (model(node("Concat", "w"), ROWS, ROWS, version=1), np.concatenate([ROWS, ROWS], 1)),
    "Reshape": lambda: (model(node("Reshape", shape=[0, -1]), IMAGE, version=1, rank=2), IMAGE.reshape(2, -1)),
    "Pad": lambda: (
        model(node("Pad", paddings=[0, 1, 2, 0], mode="constant", value=1.0), ROWS, version=1),
        np.pad(ROWS, ((0, 2), (1, 0)), constant_values=1),
    ),
    "Tile": lambda: (
        model(node("Tile", "t", "a"), ROWS, np.array([3], np.int64), np.array([1], np.int64), version=1),
        np.tile(ROWS, (1, 3)),
    ),
    "Split": lambda: (model(node("Split", "l", axis=0), ROWS, np.array([3], np.int64), version=1), ROWS),
    "LpPool": lambda: (
        model(node("LpPool", kernel_shape=[1, 1], p=2.0), IMAGE, version=1),
        np.abs(IMAGE),
    ),
    "Selu": lambda: (
        model(node("Selu"), ROWS, version=1),
        1.0507 * np.where(ROWS < 0, 1.6732 * (np.exp(ROWS) - 1), ROWS),
    ),
    "Max": lambda: (model(node("Max", "w"), ROWS, ROWS[::-1].copy()), np.maximum(ROWS, ROWS[::-1])),
    "Softmax": lambda: (
        model(node("Softmax", axis=1), IMAGE),
        (np.exp(IMAGE) / np.exp(IMAGE).sum((1, 2, 3), keepdims=True)),
    ),
}  # fmt: skip


def given_x(made: Any) -> Any:
    dims = [each.dim_value for each in made.graph.input[0].type.tensor_type.shape.dim]
    if dims == list(ROWS.shape):
        return ROWS
    return {"Pow": np.abs(IMAGE), "Cast": IMAGE * 9}.get(made.graph.node[0].op_type, IMAGE)


@pytest.mark.parametrize("case", CASES)
def test_each_change(case: str) -> None:
    made, expected = CASES[case]()
    (found,) = computed(raised(made), given_x(made))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("target", ["x.pt2", "savedmodel"])
@pytest.mark.parametrize("case", ["Add along an axis", "PRelu of channels", "BatchNormalization of places", "Upsample"])
def test_to_other_frameworks(case: str, target: str, tmp_path: Path) -> None:
    pytest.importorskip("tensorflow" if target == "savedmodel" else "torch")
    made, _ = CASES[case]()
    onnx.save(made, tmp_path / "x.onnx")
    to = target if target == "savedmodel" else None
    report = converter.convert(tmp_path / "x.onnx", tmp_path / target, to=to)
    assert report.verification.outputs, report.verification.reason
    assert report.counts["mapped"] == len(made.graph.initializer)


@pytest.mark.parametrize("opset", [None, 17])
def test_to_onnx(opset: int | None, tmp_path: Path) -> None:
    made, expected = CASES["BatchNormalization"]()
    onnx.save(made, tmp_path / "x.onnx")
    report = converter.convert(tmp_path / "x.onnx", tmp_path / "y.onnx", opset=opset)
    assert report.verification.outputs
    written = onnx.load(tmp_path / "y.onnx")
    assert written.opset_import[0].version == (opset or 7)
    np.testing.assert_allclose(computed(written, IMAGE)[0], expected, rtol=1e-4, atol=1e-5)


def test_what_is_in_training_is_refused(tmp_path: Path) -> None:
    made, _ = CASES["BatchNormalization"]()
    onnx.save(made, tmp_path / "x.onnx")
    converter.convert(tmp_path / "x.onnx", tmp_path / "y.onnx", dry_run=True)
    for attribute in made.graph.node[0].attribute:
        if attribute.name == "is_test":
            attribute.i = 0
    onnx.save(made, tmp_path / "x.onnx")
    with pytest.raises(GraphError, match="normalises by its own batch"):
        converter.convert(tmp_path / "x.onnx", tmp_path / "y.onnx", dry_run=True)


def test_axes_of_what_has_no_shape_are_refused() -> None:
    made, _ = CASES["Add along an axis"]()
    made.graph.input[0].type.tensor_type.ClearField("shape")
    with pytest.raises(GraphError, match="of an unknown shape"):
        raise_old(onnx_ir.from_proto(made))


@pytest.mark.parametrize("target", ["x.pt2", "savedmodel", "y.onnx"])
def test_a_model_without_parameters_is_its_graph(target: str, tmp_path: Path) -> None:
    pytest.importorskip({"x.pt2": "torch", "savedmodel": "tensorflow"}.get(target, "onnx"))
    made, _ = CASES["Upsample"]()
    onnx.save(made, tmp_path / "x.onnx")
    to = target if target == "savedmodel" else None
    report = converter.convert(tmp_path / "x.onnx", tmp_path / target, to=to)
    assert report.verification.outputs, report.verification.reason
    assert os.path.exists(tmp_path / target)
    assert converter.verify(tmp_path / "x.onnx", tmp_path / target, to=to).verification.outputs
    with pytest.raises(converter.errors.ReadError, match="holds no tensor"):
        converter.convert(tmp_path / "x.onnx", tmp_path / "x.safetensors")
