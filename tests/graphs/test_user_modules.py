"""`--model pkg.module:factory`: a user's own module gives the graph, the checkpoint its weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import converter
from converter.errors import ArchitectureError, GraphError, LossError, UsageError
from converter.graphs.description.declared_inputs import parse_inputs
from converter.graphs.description.signature import Signature
from converter.graphs.fitting.fitting import fitted_to_class
from converter.graphs.lower.registry import Registry
from converter.graphs.lower.steps import steps_of
from converter.graphs.trace.user_module import trace
from converter.model.checkpoint import Checkpoint
from converter.model.dtype import DType
from converter.model.tensor import ArrayTensor
from tests.conftest import ROOT, Ckconv

torch = pytest.importorskip("torch")
onnxruntime = pytest.importorskip("onnxruntime")

pytestmark = pytest.mark.one_in(2)

TIED = np.full((10, 6), 7, np.float32)
INPUTS = "ids:int64[batch,seq],mask:float32[batch,seq]"


@pytest.fixture
def tagger(tmp_path: Path) -> Any:
    """The module with weights of its own, saved as a state dict in x.pth."""
    from tests.graphs.user_models import Tagger

    torch.manual_seed(0)
    model = Tagger()
    with torch.no_grad():
        for tensor in (*model.parameters(), model.norm.running_mean, model.norm.running_var):
            tensor.uniform_(0.1, 1)
    torch.save(model.state_dict(), tmp_path / "x.pth")
    return model.eval()


def test_a_module_found_in_the_current_folder(tagger: Any, ckconv: Ckconv, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text((ROOT / "tests" / "graphs" / "user_models.py").read_text())
    command = ["x.pth", "y.onnx", "--model", "mine:tagger", "--inputs", INPUTS]
    result = ckconv(*command, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "verified outputs" in result.stdout
    session = onnxruntime.InferenceSession(str(tmp_path / "y.onnx"))
    ids, mask = np.array([[1, 2, 3, 4], [5, 6, 7, 8]]), np.ones((2, 4), np.float32)
    logits, pooled = session.run(["logits", "pooled"], {"ids": ids, "mask": mask})
    expected = tagger(torch.from_numpy(ids), torch.from_numpy(mask))
    np.testing.assert_allclose(logits, expected["logits"].detach(), atol=1e-5)
    np.testing.assert_allclose(pooled, expected["pooled"].detach(), atol=1e-5)
    again = converter.read(tmp_path / "y.onnx")
    assert set(again.names) == set(tagger.state_dict())
    assert again.aliases == {"head.weight": "embedding.weight"}
    assert {"norm.running_mean", "scale"} <= again.buffers


def test_a_query_without_keys_is_attended_to_as_torch_does(tmp_path: Path) -> None:
    """A row that is all padding: the exporter of torch attends to all of it, exit 4 for any encoder inside."""
    from tests.graphs.user_models import Attentive

    model = Attentive().eval()
    torch.save(model.state_dict(), tmp_path / "x.pth")
    inputs = "ids:int64[batch,seq],attention_mask:int64[batch,seq]"
    report = converter.convert(
        tmp_path / "x.pth", tmp_path / "y.onnx", model="tests.graphs.user_models:Attentive", inputs=inputs
    )
    assert report.verification.outputs
    ids, mask = np.array([[1, 2, 3], [4, 5, 6]]), np.array([[1, 1, 0], [0, 0, 0]])
    found = onnxruntime.InferenceSession(str(tmp_path / "y.onnx")).run(None, {"ids": ids, "attention_mask": mask})
    for value, wanted in zip(found, model(torch.from_numpy(ids), torch.from_numpy(mask)).values(), strict=True):
        np.testing.assert_allclose(value, wanted.detach(), atol=1e-6)


def test_an_opset_that_there_is_no_way_to_is_named(tagger: Any, tmp_path: Path) -> None:
    options = {"model": "tests.graphs.user_models:Tagger", "inputs": INPUTS, "verify": "weights"}
    report = converter.convert(tmp_path / "x.pth", tmp_path / "y.onnx", **options, opset=18)
    assert report.counts["mapped"] == 9
    for opset in (3, 99):
        with pytest.raises(UsageError, match=f"--opset is a number from 7 to 28, not {opset}"):
            converter.convert(tmp_path / "x.pth", tmp_path / f"{opset}.onnx", **options, opset=opset)


def traced(tmp_path: Path, factory: str, inputs: str) -> Signature:
    """What a module of this folder is made of; its graph is in `graph.onnx`."""
    declared = [each.to_json() for each in parse_inputs(inputs)]
    settings = {"folder": str(ROOT), "inputs": declared, "graph": str(tmp_path / "graph.onnx"), "opset": None}
    return Signature.from_json(trace(factory=f"tests.graphs.user_models:{factory}", **settings))


def test_names_and_shapes_are_held_against_the_module(tagger: Any, tmp_path: Path) -> None:
    architecture = traced(tmp_path, "Tagger", INPUTS)
    tensors = {name: ArrayTensor.of(tensor.numpy()) for name, tensor in tagger.state_dict().items()}
    fitted = fitted_to_class(Checkpoint(tensors=tensors), architecture)
    assert (fitted.checkpoint.aliases, fitted.checkpoint.lines) == ({"head.weight": "embedding.weight"}, ())
    one, half = ArrayTensor.of(np.ones(1, np.float32)), ArrayTensor.of(np.ones(1, np.float16))
    (line,) = fitted_to_class(Checkpoint(tensors={**tensors, "extra": one}), architecture).checkpoint.lines
    assert (line.name, line.is_refused_by_default) == ("extra", True)
    (line,) = fitted_to_class(Checkpoint(tensors=without(tensors, "scale")), architecture).checkpoint.lines
    assert (line.target, line.is_refused_by_default) == ("scale", True)
    assert fitted_to_class(Checkpoint(tensors={**tensors, "scale": half}), architecture).stored["scale"].name == "scale"
    with pytest.raises(ArchitectureError, match=r"has shape \[4\]"):
        fitted_to_class(Checkpoint(tensors={**tensors, "scale": ArrayTensor.of(np.ones(4))}), architecture)
    with pytest.raises(LossError, match="ties"):
        fitted_to_class(Checkpoint(tensors={**tensors, "head.weight": ArrayTensor.of(TIED)}), architecture)


def without(tensors: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: tensor for key, tensor in tensors.items() if key != name}


def test_what_a_trainer_puts_before_names_is_stripped(tagger: Any, tmp_path: Path) -> None:
    torch.save({f"model.{name}": tensor for name, tensor in tagger.state_dict().items()}, tmp_path / "x.pth")
    options = {"model": "tests.graphs.user_models:Tagger", "inputs": INPUTS, "dry_run": True}
    report = converter.convert(tmp_path / "x.pth", tmp_path / "y.onnx", **options)
    assert (report.counts["mapped"], report.counts["tied"]) == (9, 1)


@pytest.mark.parametrize(
    ("target", "built_by"), [("out/", "TensorFlow"), ("out.pt2", "PyTorch"), ("out.onnx", None), ("out.npz", None)]
)
def test_a_dry_run_says_how_large_the_output_is_as_far_as_that_is_known(
    target: str, built_by: str | None, tagger: Any, tmp_path: Path
) -> None:
    torch.save(tagger.state_dict(), tmp_path / "x.pth")
    options: dict[str, Any] = {"model": "tests.graphs.user_models:Tagger", "inputs": INPUTS, "verify": "weights"}
    options = {"to": "savedmodel" if target.endswith("/") else None, **({} if target == "out.npz" else options)}
    dry, real = (
        converter.convert(tmp_path / "x.pth", f"{tmp_path}/{target}", dry_run=is_dry, **options)
        for is_dry in (True, False)
    )
    written = tmp_path / target
    files = [path for path in written.rglob("*") if path.is_file()] if written.is_dir() else [written]
    assert (real.built_by, real.nbytes) == (None, sum(path.stat().st_size for path in files))
    assert dry.built_by == built_by
    assert dry.nbytes == real.nbytes if built_by is None else dry.nbytes < real.nbytes


def test_a_model_that_does_not_fit_is_refused_by_what_is_wrong(tagger: Any, tmp_path: Path) -> None:
    for factory, inputs, expected in (
        ("number", INPUTS, "returns a int"),
        ("failing", INPUTS, "no weights at hand"),
        ("missing", INPUTS, "no attribute 'missing'"),
        ("Tagger", "words:int64[batch]", "forward takes no 'words'"),
        ("Tagger", "ids:int64[batch,seq,more]", "the model does not take"),
    ):
        with pytest.raises(UsageError, match=expected):
            traced(tmp_path, factory, inputs)
    with pytest.raises(UsageError, match="--model needs --inputs"):
        converter.convert(tmp_path / "x.pth", tmp_path / "y.onnx", model="tests.graphs.user_models:Tagger")


def test_an_export_that_froze_a_dimension_says_so(tmp_path: Path) -> None:
    assert traced(tmp_path, "Frozen", "x:float32[4,3]").outputs == ("output",)
    with pytest.raises(GraphError, match="froze the rows dimension"):
        traced(tmp_path, "Frozen", "x:float32[rows,3]")


def test_nodes_say_which_module_they_are_of(tmp_path: Path) -> None:
    import onnx_ir

    traced(tmp_path, "Tagger", INPUTS)
    nodes = list(onnx_ir.load(tmp_path / "graph.onnx").graph)
    assert next(node for node in nodes if node.op_type == "Gelu").metadata_props == {"module": "body.1"}
    with pytest.raises(GraphError, match=r"no such lowering for .* node node_embedding of embedding\)"):
        steps_of(onnx_ir.load(tmp_path / "graph.onnx"), Registry(), "such")


def test_inputs_as_text() -> None:
    first, second, third = parse_inputs("a:int64[batch, seq],b : float32[2,3],\n c:bool[]")
    assert (first.name, first.dtype, first.shape) == ("a", DType.INT64, ("batch", "seq"))
    assert (second.shape, third.dtype, third.shape) == ((2, 3), DType.BOOL, ())
    for wrong in ("", "a", "a:int64", "a:int[1]", "a:int64[-1]", "a:int64[x y]", "a:int64[1],", "a:int64[1]a:int64[1]"):
        with pytest.raises(UsageError):
            parse_inputs(wrong)
    with pytest.raises(UsageError, match="twice"):
        parse_inputs("a:int64[1],a:int64[1]")
