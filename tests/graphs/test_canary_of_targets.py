"""The canary of every kind of target, and the nudge of every kind of source: what does nothing is listed."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import converter
from converter.graphs.run.arrays import read_arrays, write_sets
from tests.graphs.canaries import with_canary

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402

TARGETS: dict[str, dict[str, Any]] = {
    "onnx": {},
    "pt2": {},
    "savedmodel": {"layout": "pytorch"},
    "kernels": {"to": "savedmodel", "layout": "tensorflow"},
}
RUNNERS = {
    "onnx": ("onnxruntime", "_FedWeights"),
    "pt2": ("torch_export", "ModuleWeights"),
    "savedmodel": ("saved_model", "_Variables"),
    "kernels": ("saved_model", "_Variables"),
}
"""The module that runs a target, and its class of weights."""
X = np.random.default_rng(5).standard_normal((6, 5)).astype(np.float32)
GROUPS = {"layers.*.weight", "layers.*.bias", "out.weight", "spare.weight", "factor"}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Linear layers, and a weight that a factor of zero keeps from the output."""
    random = np.random.default_rng(1)
    weights = {"spare.weight": random.standard_normal(3), "factor": np.zeros(1)}
    nodes, last = [], "x"
    for number in range(2):
        layer = f"layers.{number}"
        weights |= {f"{layer}.weight": random.standard_normal((5, 5)), f"{layer}.bias": random.standard_normal(5)}
        inputs = [last, f"{layer}.weight", f"{layer}.bias"]
        last = f"h{number}"
        nodes += [
            helper.make_node("Gemm", inputs, [f"sum{number}"], transB=1),
            helper.make_node("Tanh", [f"sum{number}"], [last]),
        ]
    weights["out.weight"] = random.standard_normal((3, 5))
    nodes += [
        helper.make_node("Gemm", [last, "out.weight"], ["out"], transB=1),
        helper.make_node("Mul", ["spare.weight", "factor"], ["nothing"]),
        helper.make_node("Add", ["out", "nothing"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "layers",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 5])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3])],
        [numpy_helper.from_array(array.astype(np.float32), name) for name, array in weights.items()],
    )
    path = tmp_path_factory.mktemp("source") / "in.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)
    return path


@pytest.fixture(scope="module")
def converted(source: Path) -> Callable[[str], tuple[Path, Any]]:
    """The target of a kind and the report of it, made when they are first asked for."""
    made: dict[str, tuple[Path, Any]] = {}

    def convert(kind: str) -> tuple[Path, Any]:
        if kind not in made:
            pytest.importorskip({"pt2": "torch", "onnx": "onnx"}.get(kind, "tensorflow"))
            target = source.with_name(f"out-{kind}.{kind}")
            options = {"to": kind, **TARGETS[kind]}
            made[kind] = target, converter.convert(source, target, **options)
        return made[kind]

    return convert


def _called(group: str, kind: str) -> str:
    """The name of a group in a target of a kind."""
    is_kernel = kind == "kernels" and group in ("layers.*.weight", "out.weight")
    return group.replace(".weight", ".kernel") if is_kernel else group


@pytest.mark.parametrize("kind", TARGETS)
def test_a_weight_that_no_output_shows_is_listed_in_the_report(
    kind: str, converted: Callable[[str], tuple[Path, Any]]
) -> None:
    canary = converted(kind)[1].verification.canary
    assert (canary.tried, canary.noticed, canary.not_tried) == (5, 4, 0)
    assert canary.unnoticed == ("spare.weight",)


@pytest.mark.parametrize("kind", TARGETS)
def test_a_change_that_does_not_reach_the_weights_is_listed(
    kind: str,
    converted: Callable[[str], tuple[Path, Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    file, _ = converted(kind)
    module = importlib.import_module(f"converter.graphs.run.{RUNNERS[kind][0]}")
    weights = getattr(module, RUNNERS[kind][1])
    assert _unnoticed(module, file, tmp_path) == (
        {_called(group, kind) for group in GROUPS},
        {"spare.weight"},
    )
    write, group = weights.write, _called("layers.*.weight", kind)
    lost = {group.replace("*", "0"), group.replace("*", "1")}

    def losing(self: Any, name: str, values: Any) -> None:
        if name not in lost:
            write(self, name, values)

    monkeypatch.setattr(weights, "write", losing)
    assert _unnoticed(module, file, tmp_path)[1] == {"spare.weight", group}


def _unnoticed(module: Any, file: Path, folder: Path) -> tuple[set[str], set[str]]:
    """Run a target with its canary: the groups that were tried, and those that no output shows."""
    write_sets(str(folder / "inputs.npz"), {"0": {"x": X}})
    answer, _, unnoticed = with_canary(module.run, file, folder)
    assert (answer["case"], answer["failed"], answer["reason"]) == ("0", [], None)
    return set(answer["tried"]), unnoticed


def _keras(folder: Path) -> Path:
    keras = pytest.importorskip("keras")
    model = keras.Sequential([keras.layers.Input((5,)), keras.layers.Dense(4, "tanh"), keras.layers.Dense(3)])
    model.save(folder / "in.keras")
    return folder / "in.keras"


@pytest.mark.parametrize(
    ("kind", "runner"), [("onnx", "onnxruntime"), ("savedmodel", "foreign_saved_model"), ("keras", "keras")]
)
def test_a_source_is_run_with_its_weights_rounded_elsewhere(
    kind: str,
    runner: str,
    converted: Callable[[str], tuple[Path, Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    file = _keras(tmp_path) if kind == "keras" else converted(kind)[0]
    graph = converter.read(file).graph
    module = importlib.import_module(f"converter.graphs.run.{runner}")
    (name,) = (each["name"] for each in module_inputs(graph, tmp_path))
    write_sets(str(tmp_path / "inputs.npz"), {"0": {name: X}})

    def outputs(**more: Any) -> Any:
        arguments = {"inputs": str(tmp_path / "inputs.npz"), "outputs": str(tmp_path / "outputs.npz")}
        graph.reference(model=str(graph.model), **arguments, **more)
        (array,) = read_arrays(str(tmp_path / "outputs.npz")).values()
        return array

    expected, moved = outputs(), outputs(nudge="float64")
    distance = np.abs(moved - expected).max() / np.abs(expected).mean()
    assert 1e-9 < distance < 1e-5
    monkeypatch.setattr(module, "nudged", lambda values, *_, **__: values)
    np.testing.assert_array_equal(outputs(nudge="float64"), expected)


def module_inputs(graph: Any, folder: Path) -> Any:
    return graph.trace(model=str(graph.model), graph=str(folder / "graph.onnx"))["inputs"]


def test_a_module_has_its_weights_rounded_elsewhere() -> None:
    torch = pytest.importorskip("torch")
    from converter.graphs.run.module_weights import ModuleWeights

    model = torch.nn.Sequential(torch.nn.Linear(5, 40), torch.nn.Linear(40, 5))
    before = {name: each.detach().clone() for name, each in model.state_dict().items()}
    ModuleWeights(model).nudge("float64")
    for name, each in model.state_dict().items():
        moved = (each - before[name]).abs()
        assert moved.max() > 0
        assert (moved <= 2.4e-7 * before[name].abs()).all()
