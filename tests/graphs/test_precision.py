"""Fourier transforms in onnxruntime: exact in what is written, and where an ONNX file is the source."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import converter
from converter.errors import VerificationError
from converter.formats.onnx import FORMAT

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
ir = pytest.importorskip("onnx_ir")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from converter.graphs.passes.precision import compute_exactly  # noqa: E402

LENGTH = 1000
"""Which onnxruntime's float32 is 1e-3 away at."""
EXACT = {"float16": 2e-3, "float32": 2e-6, "float64": 1e-7}
ELEMENTS = {"float16": TensorProto.FLOAT16, "float32": TensorProto.FLOAT, "float64": TensorProto.DOUBLE}


def constant(name: str, values: Any) -> Any:
    return numpy_helper.from_array(np.asarray(values), name)


def value(name: str, shape: list[Any], dtype: str = "float32") -> Any:
    return helper.make_tensor_value_info(name, ELEMENTS[dtype], shape)


def free(name: str, rank: int, dtype: str = "float32") -> Any:
    return value(name, [f"{name}_{axis}" for axis in range(rank)], dtype)


def model(
    nodes: list[Any], inputs: list[Any], outputs: list[Any], *constants: Any, opset: int = 20, **more: Any
) -> Any:
    graph = helper.make_graph(nodes, "g", inputs, outputs, list(constants))
    imports = [helper.make_opsetid("", opset), *more.pop("opsets", [])]
    return helper.make_model(graph, opset_imports=imports, ir_version=10, **more)


def numbers(*shape: int, dtype: str = "float32") -> Any:
    return np.random.default_rng(len(shape)).standard_normal(shape).astype(dtype)


def computed(made: Any, **inputs: Any) -> Any:
    session = onnxruntime.InferenceSession(made.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, inputs)[0]


def exact(made: Any, *, is_changed: bool = True) -> Any:
    """The model as the pass leaves it."""
    loaded = ir.from_proto(made)
    assert compute_exactly(loaded, FORMAT.inexact) is is_changed
    changed = ir.to_proto(loaded)
    onnx.checker.check_model(changed, full_check=True)
    return changed


def away(found: Any, expected: Any) -> float:
    """The largest difference from complex numbers, or real ones, in units of their scale."""
    wide = found.astype(np.float64)
    pairs = wide[..., 0] + 1j * wide[..., 1] if wide.shape[-1] == 2 else wide[..., 0]
    assert pairs.shape == expected.shape
    return float(np.abs(pairs - expected).max() / np.abs(expected).mean())


def complex_of(x: Any) -> Any:
    wide = x.astype(np.float64)
    return wide[..., 0] + 1j * wide[..., 1] if x.shape[-1] == 2 else wide[..., 0]


def fourier(x: Any, *inputs: str, constants: Any = (), more: Any = (), opset: int = 20, **how: Any) -> Any:
    """A model of one DFT; `inputs` come after x."""
    dtype = x.dtype.name
    node = helper.make_node("DFT", ["x", *inputs], ["y"], **how)
    given = [value("x", ["batch", *x.shape[1:]], dtype), *more]
    return model([node], given, [free("y", x.ndim, dtype)], *constants, opset=opset)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_what_onnxruntime_computes_inexactly_is_exact_and_of_its_type(dtype: str) -> None:
    x = numbers(2, LENGTH, 1, dtype=dtype)
    made = fourier(x)
    expected = np.fft.fft(complex_of(x))
    if dtype == "float32":
        assert away(computed(made, x=x), expected) > 100 * EXACT[dtype], "onnxruntime is exact: the pass can go"
    changed = exact(made)
    found = computed(changed, x=x)
    assert found.dtype == x.dtype
    assert away(found, expected) < EXACT[dtype]
    assert [each.name for each in changed.graph.output] == ["y"]
    assert changed.graph.output[0].type.tensor_type.elem_type == ELEMENTS[dtype]
    exact(changed, is_changed=False)


def test_what_is_exact_stays_as_it_is() -> None:
    wide, half = numbers(2, LENGTH, 1, dtype="float64"), constant("half", np.int64(512))
    exact(fourier(wide), is_changed=False)
    x = numbers(2, 512, 1)
    for made in (fourier(x), fourier(x, onesided=1), fourier(numbers(2, LENGTH, 1), "half", constants=[half])):
        exact(made, is_changed=False)
    along = constant("along", np.int64(0))
    exact(fourier(x, "", "along", constants=[along]))
    exact(fourier(numbers(2, 512, 2), inverse=1, onesided=1))


@pytest.mark.parametrize("opset", [17, 20])
@pytest.mark.parametrize("is_inverse", [False, True])
def test_along_another_axis(opset: int, is_inverse: bool) -> None:
    x = numbers(2, 3, LENGTH, 2)
    how: dict[str, Any] = {"inverse": int(is_inverse)}
    if opset == 17:
        made = fourier(x, axis=2, opset=17, **how)
    else:
        made = fourier(x, "", "axis", constants=[constant("axis", np.int64(2))], **how)
    expected = (np.fft.ifft if is_inverse else np.fft.fft)(complex_of(x))
    assert away(computed(exact(made), x=x), expected) < EXACT["float32"]


@pytest.mark.parametrize("is_computed", [False, True])
def test_of_a_length_that_is_given(is_computed: bool) -> None:
    x = numbers(2, 1024, 1)
    more = [helper.make_tensor_value_info("length", TensorProto.INT64, [])] if is_computed else []
    constants = [] if is_computed else [constant("length", np.int64(LENGTH))]
    made = fourier(x, "length", more=more, constants=constants, onesided=1)
    given = {"length": np.array(LENGTH)} if is_computed else {}
    found = computed(exact(made), x=x, **given)
    assert away(found, np.fft.rfft(complex_of(x), LENGTH)) < EXACT["float32"]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("has_window", [False, True])
def test_frames_under_a_window(has_window: bool, dtype: str) -> None:
    x, step, length = numbers(2, 3000, 1, dtype=dtype), constant("step", np.int64(300)), constant("length", LENGTH)
    window = numbers(LENGTH, dtype=dtype) ** 2
    node = helper.make_node("STFT", ["x", "step", "window" if has_window else "", "length"], ["y"])
    constants = [step, length, *([constant("window", window)] if has_window else [])]
    made = model([node], [value("x", ["n", 3000, 1], dtype)], [free("y", 4, dtype)], *constants)
    frames = np.stack([x[:, at : at + LENGTH, 0] for at in range(0, 2001, 300)], 1).astype(np.float64)
    expected = np.fft.rfft(frames * window if has_window else frames)
    found = computed(exact(made, is_changed=dtype == "float32"), x=x)
    assert found.dtype == x.dtype
    assert away(found, expected) < EXACT[dtype]


@pytest.mark.parametrize(("length", "is_changed"), [(512, False), (500, True)])
def test_frames_as_long_as_their_window(length: int, is_changed: bool) -> None:
    node = helper.make_node("STFT", ["x", "step", "window"], ["y"])
    constants = [constant("step", np.int64(100)), constant("window", numbers(length))]
    exact(model([node], [value("x", ["n", "time", 1])], [free("y", 4)], *constants), is_changed=is_changed)


def test_inside_branches_and_loops() -> None:
    x = numbers(2, LENGTH, 2)
    shape = ["n", LENGTH, 2]

    def inner(name: str, source: str, *inputs: Any) -> Any:
        node = helper.make_node("DFT", [source], [f"{name}_y"])
        return helper.make_graph([node], name, list(inputs), [value(f"{name}_y", shape)])

    body = helper.make_graph(
        [helper.make_node("Identity", ["going"], ["goes"]), helper.make_node("DFT", ["before"], ["after"], inverse=1)],
        "body",
        [
            helper.make_tensor_value_info("step", TensorProto.INT64, []),
            helper.make_tensor_value_info("going", TensorProto.BOOL, []),
            value("before", shape),
        ],
        [helper.make_tensor_value_info("goes", TensorProto.BOOL, []), value("after", shape)],
    )
    nodes = [
        helper.make_node("If", ["yes"], ["branch"], then_branch=inner("then", "x"), else_branch=inner("else", "x")),
        helper.make_node("Loop", ["twice", "always", "branch"], ["y"], body=body),
    ]
    constants = [constant("twice", np.int64(2)), constant("always", np.array(True))]
    yes = helper.make_tensor_value_info("yes", TensorProto.BOOL, [])
    made = model(nodes, [value("x", shape), yes], [value("y", shape)], *constants)
    changed = exact(made)
    kinds = [node.op_type for node in ir.from_proto(changed).graph.all_nodes()]
    assert kinds.count("Cast") == 2 * kinds.count("DFT") == 6
    expected = np.fft.ifft(np.fft.ifft(np.fft.fft(complex_of(x))))
    for yes_or_no in (True, False):
        assert away(computed(changed, x=x, yes=np.array(yes_or_no)), expected) < EXACT["float32"]


def test_one_transform_after_another() -> None:
    x = numbers(300, 700, 1)
    nodes = [
        helper.make_node("DFT", ["x", "", "last"], ["rows"]),
        helper.make_node("DFT", ["rows", "", "first"], ["y"]),
    ]
    constants = [constant("last", np.int64(-2)), constant("first", np.int64(0))]
    made = model(nodes, [value("x", ["n", 700, 1])], [free("y", 3), free("rows", 3)], *constants)
    assert away(computed(exact(made), x=x), np.fft.fft2(complex_of(x))) < EXACT["float32"]


def with_function(**more: Any) -> Any:
    """A function of the model's own that transforms."""
    node = helper.make_node("DFT", ["a"], ["b"])
    function = helper.make_function("own", "Transform", ["a"], ["b"], [node], [helper.make_opsetid("", 20)])
    shape = ["n", LENGTH, 2]
    call = helper.make_node("Transform", ["x"], ["z"], domain="own")
    nodes = [call, helper.make_node("Mul", ["z", "weight"], ["y"])]
    opsets = [helper.make_opsetid("own", 1)]
    weight = constant("weight", numbers(LENGTH, 2))
    return model(nodes, [value("x", shape)], [value("y", shape)], weight, functions=[function], opsets=opsets)


def test_inside_functions() -> None:
    x, weight = numbers(2, LENGTH, 2), numbers(LENGTH, 2).astype(np.float64)
    found = computed(exact(with_function()), x=x).astype(np.float64) / weight
    assert away(found, np.fft.fft(complex_of(x))) < 1e-5


def test_an_operator_that_nothing_is_known_of() -> None:
    with pytest.raises(ValueError, match="no way is known to compute Erf exactly"):
        compute_exactly(ir.from_proto(with_function()), ["DFT", "Erf"])


def with_transform(scale: float = 1.0) -> Any:
    """A transform, and a number that is part of the program."""
    nodes = [
        helper.make_node("DFT", ["x"], ["z"]),
        helper.make_node("Constant", [], ["scale"], value_float=scale),
        helper.make_node("Mul", ["z", "scale"], ["scaled"]),
        helper.make_node("Mul", ["scaled", "weight"], ["y"]),
    ]
    shape = ["n", LENGTH, 2]
    return model(nodes, [value("x", shape)], [value("y", shape)], constant("weight", numbers(LENGTH, 2)))


def test_a_file_is_converted_to_one_that_is_exact(tmp_path: Path) -> None:
    onnx.save(with_function(), tmp_path / "x.onnx")
    report = converter.convert(tmp_path / "x.onnx", tmp_path / "y.onnx", verify="outputs")
    assert report.verification.max_abs < 1e-4
    kinds = [node.op_type for node in onnx.load(tmp_path / "y.onnx").graph.node]
    assert kinds == ["Cast", "DFT", "Cast", "Mul"]


def test_a_right_saved_model_of_a_file_is_proven_and_a_wrong_one_refused(tmp_path: Path) -> None:
    pytest.importorskip("tensorflow")
    source = tmp_path / "x.onnx"
    onnx.save(with_transform(), source, save_as_external_data=True, location="x.data", size_threshold=0)
    report = converter.convert(source, tmp_path / "saved", to="savedmodel", verify="outputs")
    assert report.verification.outputs
    assert report.verification.canary.noticed == 1
    onnx.save(with_transform(1.0001), tmp_path / "other.onnx")
    with pytest.raises(VerificationError, match="output 'y' differs"):
        converter.verify(tmp_path / "other.onnx", tmp_path / "saved", verify="outputs")


def test_a_model_that_transforms_is_converted(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.FNetConfig(vocab_size=100, hidden_size=768, num_hidden_layers=2, intermediate_size=64)
    transformers.FNetForMaskedLM(config).save_pretrained(tmp_path / "fnet")
    report = converter.convert(tmp_path / "fnet", tmp_path / "out.onnx", verify="outputs")
    assert report.verdict.startswith("ok")
    assert report.verification.outputs
