"""Copies of TensorFlow checkpoints, for `load_weights` and tf.train.Checkpoint of tf_keras (the second environment)."""

from __future__ import annotations

from pathlib import Path

import converter
from converter.report import OptimizerStatus
from tests.oracle import environment

_PROGRAM = "tests.oracle.tf_keras_checkpoints"


def test_what_tf_keras_saved_it_restores_from_the_copy(tmp_path: Path) -> None:
    environment.run(_PROGRAM, "save", str(tmp_path), timeout_seconds=300)
    for source in sorted(tmp_path.iterdir()):
        report = converter.convert(source, tmp_path / f"{source.name}-copy", to="tf-checkpoint")
        assert report.optimizer.status is OptimizerStatus.CARRIED, source.name
        assert {line.status.value for line in report.lines} == {"mapped"}, source.name
    assert environment.run(_PROGRAM, "load", str(tmp_path), timeout_seconds=300).endswith("restored\n")
