"""`--model pkg.module:factory`: a user's own module gives the graph, the checkpoint its weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import converter
from converter.errors import ArchitectureError, GraphError, LossError, UsageError
from converter.graphs.declared_inputs import parse_inputs
from converter.model.dtype import DType
from tests.conftest import ROOT, Ckconv

torch = pytest.importorskip("torch")
onnxruntime = pytest.importorskip("onnxruntime")

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


def convert(tmp_path: Path, factory: str, inputs: str, **options: Any) -> Any:
    """A conversion that ends before anything is written."""
    given = {"model": f"tests.graphs.user_models:{factory}", "inputs": inputs, "dry_run": True, **options}
    return converter.convert(tmp_path / "x.pth", tmp_path / "y.onnx", **given)


def test_names_and_shapes_are_held_against_the_module(tagger: Any, tmp_path: Path) -> None:
    assert convert(tmp_path, "Tagger", INPUTS).counts["mapped"] == 10
    state = tagger.state_dict()
    torch.save({f"model.{name}": tensor for name, tensor in state.items()}, tmp_path / "x.pth")
    assert convert(tmp_path, "Tagger", INPUTS).counts["mapped"] == 10
    torch.save({**state, "extra": torch.ones(1)}, tmp_path / "x.pth")
    with pytest.raises(LossError, match="Tagger has no such tensor"):
        convert(tmp_path, "Tagger", INPUTS)
    torch.save({**state, "scale": torch.ones(2)}, tmp_path / "x.pth")
    with pytest.raises(ArchitectureError, match=r"has shape \[2\]"):
        convert(tmp_path, "Tagger", INPUTS)


def test_a_model_that_does_not_fit_is_refused_by_what_is_wrong(tagger: Any, tmp_path: Path) -> None:
    for factory, inputs, expected in (
        ("number", INPUTS, "returns a int"),
        ("failing", INPUTS, "no weights at hand"),
        ("missing", INPUTS, "no attribute 'missing'"),
        ("Tagger", "words:int64[batch]", "forward takes no 'words'"),
        ("Tagger", "ids:int64[batch,seq,more]", "the model does not take"),
    ):
        with pytest.raises(UsageError, match=expected):
            convert(tmp_path, factory, inputs)
    with pytest.raises(UsageError, match="--model needs --inputs"):
        converter.convert(tmp_path / "x.pth", tmp_path / "y.onnx", model="tests.graphs.user_models:Tagger")


def test_an_export_that_froze_a_dimension_says_so(tmp_path: Path) -> None:
    from tests.graphs.user_models import Frozen

    torch.save(Frozen().state_dict(), tmp_path / "x.pth")
    convert(tmp_path, "Frozen", "x:float32[4,3]")
    with pytest.raises(GraphError, match="froze the rows dimension"):
        convert(tmp_path, "Frozen", "x:float32[rows,3]")


def test_inputs_as_text() -> None:
    first, second, third = parse_inputs("a:int64[batch, seq],b : float32[2,3],\n c:bool[]")
    assert (first.name, first.dtype, first.shape) == ("a", DType.INT64, ("batch", "seq"))
    assert (second.shape, third.dtype, third.shape) == ((2, 3), DType.BOOL, ())
    for wrong in ("", "a", "a:int64", "a:int[1]", "a:int64[-1]", "a:int64[x y]", "a:int64[1],", "a:int64[1]a:int64[1]"):
        with pytest.raises(UsageError):
            parse_inputs(wrong)
    with pytest.raises(UsageError, match="twice"):
        parse_inputs("a:int64[1],a:int64[1]")
