"""A dilated convolution of Keras is one operator, also where the length varies and begins where a crop ends."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import converter

keras = pytest.importorskip("keras")
pytest.importorskip("tensorflow")
pytest.importorskip("tf2onnx")
pytestmark = pytest.mark.framework


@pytest.mark.parametrize("target", ["onnx", "pt2"])
def test_lengths_begin_where_the_source_runs(target: str, tmp_path: Path) -> None:
    given = keras.Input((None, 4), name="x")
    inner = keras.layers.Conv1D(8, 11, dilation_rate=4, padding="same", activation="relu")(given)
    outer = keras.layers.Conv1D(3, 1)(keras.layers.Cropping1D(40)(inner))
    model = keras.Model(given, outer)
    model.save(tmp_path / "m.keras")
    report = converter.convert(tmp_path / "m.keras", tmp_path / f"m.{target}")
    assert report.verification.outputs
    notes = (*report.warnings, *report.verification.notes)
    assert any("the source runs where x_1 is 81 or more" in each for each in notes)
    for length in (81, 82, 131):
        values = np.random.default_rng(length).normal(size=(2, length, 4)).astype(np.float32)
        if target == "onnx":
            import onnxruntime

            session = onnxruntime.InferenceSession(tmp_path / "m.onnx")
            (found,) = session.run(None, {"x": values})
        else:
            import torch

            (result,) = torch.export.load(tmp_path / "m.pt2").module()(x=torch.tensor(values)).values()
            found = result.detach().numpy()
        np.testing.assert_allclose(found, model.predict(values, verbose=0), atol=2e-5)
