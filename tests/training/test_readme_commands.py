"""What README's "Training goes on" tells a user to type: each command and the lines after it, as they stand there."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import ROOT, Ckconv
from tests.oracle.environment import PYTHON
from tests.training import torch_side
from tests.training.measuring import KERAS_3, do_jobs

pytest.importorskip("torch")
pytest.importorskip("keras")

_SECTION = (ROOT / "README.md").read_text().partition("## Training goes on")[2].partition("\n## ")[0]
_PAIRS = re.findall(r"^```\n(ckconv .*?)^```\n.*?^```py\n(.*?)^```", _SECTION, re.DOTALL | re.MULTILINE)
COMMANDS = {command.strip(): lines for command, lines in _PAIRS}

TO_KERAS = "ckconv checkpoint.pth model.keras --config model.json"
TO_TORCH = "ckconv model.keras checkpoint.pth"
TO_TRAINER = "ckconv checkpoint.pth checkpoint-20/ --to pretrained --train-batch-size 16"
TO_TFBERT = "ckconv checkpoint.pth model/ --to pretrained --flavor tf"


def test_every_command_is_run_here() -> None:
    assert list(COMMANDS) == [TO_KERAS, TO_TORCH, TO_TRAINER, TO_TFBERT]


def losses_after(
    command: str, ckconv: Ckconv, folder: Path, *, before: str, after: str, python: str = ""
) -> list[float]:
    """Run the command and its lines in `folder`, between lines that a user has; return the `losses` these leave."""
    done = ckconv(*command.split()[1:], cwd=folder)
    assert done.returncode == 0, done.stderr
    script = "\n".join([textwrap.dedent(before), COMMANDS[command], textwrap.dedent(after), "print(list(losses))"])
    environment = {key: value for key, value in os.environ.items() if key != "TF_USE_LEGACY_KERAS"}
    environment |= {"PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1"}
    if python:
        environment["TF_USE_LEGACY_KERAS"] = "1"
    run = subprocess.run(
        [python or sys.executable, "-c", script], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    found: list[float] = json.loads(run.stdout.splitlines()[-1])
    return found


def check(found: list[float], expected: list[float]) -> None:
    assert len(found) == len(expected)
    np.testing.assert_allclose(found, expected, rtol=2e-5)


def test_keras_3_goes_on(ckconv: Ckconv, tmp_path: Path) -> None:
    expected = torch_side.train("mlp", "adamw", tmp_path)["losses"]
    do_jobs([{"do": "describe", "kind": "mlp", "folder": str(tmp_path)}], KERAS_3)
    before = """
        import keras
        from tests.training.batches import batches
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        losses = []
        def fit(model, *_):
            for inputs, labels in batches("mlp", is_resumed=True):
                history = model.train(inputs["x"], labels, batch_size=16, shuffle=False, verbose=0)
                losses.extend(history.history["loss"])
        keras.Model.train, keras.Model.fit = keras.Model.fit, fit
    """
    check(losses_after(TO_KERAS, ckconv, tmp_path, before=before, after=""), expected)


def test_torch_goes_on(ckconv: Ckconv, tmp_path: Path) -> None:
    do_jobs([{"do": "train", "kind": "mlp", "algorithm": "adamw", "folder": str(tmp_path)}], KERAS_3)
    (tmp_path / "checkpoint.keras").rename(tmp_path / "model.keras")
    before = """
        import torch
        from tests.training.batches import batches
        from tests.training.torch_side import MODELS, OPTIMIZERS, steps
        model = MODELS["mlp"]()
        optimizer = OPTIMIZERS["adamw"](model.parameters())
    """
    after = 'losses = steps(model, optimizer, batches("mlp", is_resumed=True))'
    expected = np.load(tmp_path / "ended.npz")["losses"]
    check(losses_after(TO_TORCH, ckconv, tmp_path, before=before, after=after), expected)


def test_trainer_goes_on(ckconv: Ckconv, tmp_path: Path) -> None:
    expected = torch_side.train("bert", "adamw", tmp_path)["losses"]
    before = """
        from tests.training.trainer_side import trainer_of
        trainer = trainer_of("out", rate=0.001)
    """
    after = "losses = trainer.losses()"
    check(losses_after(TO_TRAINER, ckconv, tmp_path, before=before, after=after), expected)


@pytest.mark.skipif(not PYTHON, reason="CKCONV_ORACLE_PYTHON names no second environment")
def test_a_tensorflow_class_of_transformers_goes_on(ckconv: Ckconv, tmp_path: Path) -> None:
    expected = torch_side.train("bert", "adamw", tmp_path)["losses"]
    before = """
        import json
        import tensorflow as tf
        import tf_keras
        from transformers import TFBertForSequenceClassification
    """
    after = """
        from tests.training.batches import batches
        from tests.training.keras_side import bert_steps
        losses = bert_steps(model, optimizer, batches("bert", is_resumed=True))
    """
    found = losses_after(TO_TFBERT, ckconv, tmp_path, before=before, after=after, python=PYTHON)
    check(found, expected)
