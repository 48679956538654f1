"""Every format to every other and back, for every sample: equal on what both hold, and no loss that was not said."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

import converter
from converter.formats import Format, registry, written
from converter.model.checkpoint import Checkpoint
from converter.testing import SAMPLES, assert_same, destination_of, options_of, with_config

NAMES = list(written())


def sample_for(name: str, source: Format, target: Format) -> Checkpoint:
    """A sample, less the element types that one of the two cannot hold."""
    checkpoint = SAMPLES[name](source)
    held = {key: tensor for key, tensor in checkpoint.tensors.items() if tensor.dtype in target.dtypes}
    return replace(checkpoint, tensors=held)


@pytest.mark.parametrize("target", NAMES)
@pytest.mark.parametrize("source", NAMES)
@pytest.mark.parametrize("sample", SAMPLES)
def test_there_and_back(sample: str, source: str, target: str, tmp_path: Path) -> None:
    formats = {"first": registry()[source], "there": registry()[target], "back": registry()[source]}
    checkpoint = with_config(sample_for(sample, formats["first"], formats["there"]), formats["there"])
    paths = {}
    for step, format_ in formats.items():
        folder = tmp_path / step
        folder.mkdir()
        paths[step] = Path(destination_of(format_, os.fspath(folder)))
    common = {"durable": False, "config": None}
    config = tmp_path / "config.json"
    config.write_bytes(b'{"model_type": "none"}\n')
    first = with_config(checkpoint, formats["first"])
    converter.write(first, paths["first"], to=source, **options_of(formats["first"]))
    for here, there in (("first", "there"), ("there", "back")):
        format_ = formats[there]
        options = {**common, **options_of(format_), "config": config}
        report = converter.convert(paths[here], paths[there], to=format_.name, **options)
        assert report.counts["dropped"] == report.counts["defaulted"] == 0
        assert report.counts["mapped"] + report.counts["tied"] == len(checkpoint.names)
        assert report.verification.weights
    assert_same(checkpoint, converter.read(paths["back"]))


def test_no_pair_is_left_out(request: pytest.FixtureRequest) -> None:
    """All pairs of the ten formats; the number of cases is said, whatever is captured."""
    ten = {"dcp", "flax", "h5", "keras", "onnx", "pretrained", "pytorch", "safetensors", "savedmodel", "tf-checkpoint"}
    assert ten <= set(NAMES)
    cases = len(NAMES) ** 2 * len(SAMPLES)
    terminal = request.config.pluginmanager.get_plugin("terminalreporter")
    assert terminal is not None
    terminal.write_line(f"matrix: {len(NAMES)} x {len(NAMES)} formats, {len(SAMPLES)} samples, {cases} cases")
