"""The padding row of an embedding gets no gradient where PyTorch gives it none, and one where TensorFlow does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import Ckconv

torch = pytest.importorskip("torch")
tf = pytest.importorskip("tensorflow")

_IDS = np.array([[2, 5, 7, 0, 0]], np.int64)
_INPUTS = {"input_ids": _IDS, "attention_mask": np.array(_IDS > 0, np.int64), "token_type_ids": np.zeros_like(_IDS)}
_TABLE = "bert.embeddings.word_embeddings.weight"


def _is_trained(gradient: Any) -> list[bool]:
    return [bool(np.abs(gradient[row]).max() > 0) for row in (0, 2, 5, 7, 11)]


def _of_saved_model(folder: Path) -> list[bool]:
    model = tf.saved_model.load(folder)
    with tf.GradientTape() as tape:
        outputs = model(**{name: tf.constant(value) for name, value in _INPUTS.items()})
        loss = tf.add_n([tf.reduce_sum(each**2) for each in outputs.values()])
    table = next(each for each in model.trainable_variables if each.name.startswith(_TABLE))
    return _is_trained(tf.convert_to_tensor(tape.gradient(loss, table)).numpy())


@pytest.mark.parametrize("dialect", ["pytorch", "tf"])
def test_a_saved_model_trains_the_padding_row_as_its_source_does(
    ckconv: Ckconv, squad_bert: Path, tmp_path: Path, dialect: str
) -> None:
    source = squad_bert
    if dialect == "tf":
        source = tmp_path / "model"
        done = ckconv(squad_bert, f"{source}/", "--to", "pretrained", "--flavor", "tf", "--optimizer", "drop")
        assert done.returncode == 0, done.stderr
    done = ckconv(source, f"{tmp_path}/out/", "--to", "savedmodel", "--optimizer", "drop")
    assert done.returncode == 0, done.stderr
    assert _of_saved_model(tmp_path / "out") == [dialect == "tf", True, True, True, False]


def test_a_program_of_torch_does_not_train_the_padding_row(ckconv: Ckconv, squad_bert: Path, tmp_path: Path) -> None:
    done = ckconv(squad_bert, tmp_path / "model.pt2", "--optimizer", "drop")
    assert done.returncode == 0, done.stderr
    module = torch.export.load(tmp_path / "model.pt2").module()
    outputs = module(**{name: torch.tensor(value) for name, value in _INPUTS.items()})
    sum((each**2).sum() for each in outputs.values()).backward()
    assert _is_trained(module.get_parameter(_TABLE).grad.numpy()) == [False, True, True, True, False]
