"""Every layer of the table, computed by Keras and, with the converted weights, by PyTorch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converter.dialects import canonical
from converter.dialects.keras import to_keras
from converter.formats import NoOptions, by_name
from converter.model.checkpoint import Checkpoint
from converter.model.ledger import Status
from converter.model.tensor import ArrayTensor
from tests.dialects.keras_zoo import CASES, Case, inputs_of, randomised

keras = pytest.importorskip("keras")
torch = pytest.importorskip("torch")


def built(case: Case) -> Any:
    layer = case.layer(keras.layers)
    layer.name = "layer"
    if isinstance(layer, keras.layers.MultiHeadAttention):
        inputs = keras.Input(case.shape[1:], batch_size=case.shape[0])
        return randomised(keras.Model(inputs, layer(inputs, inputs)))
    inputs = keras.Input(case.shape[1:], batch_size=case.shape[0], dtype="int32" if case.is_integer else "float32")
    return randomised(keras.Model(inputs, layer(inputs)))


def read(path: Path) -> Checkpoint:
    name = "keras" if path.name.endswith((".keras", ".weights.h5")) else "h5"
    return by_name(name).read(path, NoOptions())


def loaded(case: Case, checkpoint: Checkpoint) -> Any:
    module = case.module(torch.nn)
    state = {
        name.removeprefix("layer."): torch.from_numpy(np.array(tensor.numpy()))
        for name, tensor in checkpoint.tensors.items()
    }
    module.load_state_dict(state, strict=True)
    return module.eval()


def difference(case: Case, module: Any, model: Any) -> float:
    inputs = inputs_of(case)
    with torch.no_grad():
        ours = case.run(module, torch.from_numpy(inputs)).numpy()
    theirs = np.asarray(model(inputs))
    assert ours.shape == theirs.shape
    return float(np.abs(ours - theirs).max())


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("suffix", [".keras", ".weights.h5", ".h5"])
def test_torch_computes_what_keras_does(name: str, suffix: str, tmp_path: Path) -> None:
    case, path = CASES[name], tmp_path / f"model{suffix}"
    model = built(case)
    (model.save_weights if suffix == ".weights.h5" else model.save)(path)
    if suffix == ".weights.h5" and not case.is_told_by_names:
        assert any("layout as stored" in line for line in canonical(read(path)).warnings)
        return
    checkpoint = canonical(read(path))
    module = loaded(case, checkpoint)
    assert difference(case, module, model) < 1e-5
    with torch.no_grad():  # the comparison must notice a weight that is wrong
        next(iter(module.state_dict().values())).view(-1)[0] += 0.1
    if not case.is_integer:
        assert difference(case, module, model) > 1e-5


@pytest.mark.parametrize("name", CASES)
def test_back_is_bit_for_bit(name: str, tmp_path: Path) -> None:
    model = built(CASES[name])
    model.save(tmp_path / "model.keras")
    source = read(tmp_path / "model.keras")
    assert source.keras_config is not None
    back = to_keras(canonical(source), source.keras_config.values)
    assert set(back.tensors) == set(source.tensors)
    for key, tensor in source.tensors.items():
        assert back.tensors[key].numpy().tobytes() == tensor.numpy().tobytes(), key
        assert back.tensors[key].shape == tensor.shape
    assert not [line for line in back.lines if line.is_refused_by_default]


def test_two_biases_become_one_and_the_loss_is_told(tmp_path: Path) -> None:
    case = CASES["lstm"]
    model = built(case)
    model.save(tmp_path / "model.keras")
    source = canonical(read(tmp_path / "model.keras"))
    assert [line.target for line in source.lines if line.status is Status.DEFAULTED] == ["layer.bias_hh_l0"]
    module = case.module(torch.nn)
    tensors = {f"layer.{key}": ArrayTensor.of(value.numpy()) for key, value in module.state_dict().items()}
    assert source.keras_config is not None
    back = to_keras(Checkpoint(tensors=tensors, keras_config=source.keras_config), source.keras_config.values)
    model.set_weights([tensor.numpy() for tensor in back.tensors.values()])
    assert difference(case, module, model) < 1e-5
    assert [line.name for line in back.lines if line.status is Status.DROPPED] == ["layer.bias_hh_l0"]


def test_gru_that_resets_before_is_left_as_stored(tmp_path: Path) -> None:
    inputs = keras.Input((5, 3))
    model = keras.Model(inputs, keras.layers.GRU(4, reset_after=False, name="layer")(inputs))
    for suffix in (".keras", ".weights.h5", ".h5"):
        (model.save_weights if suffix == ".weights.h5" else model.save)(tmp_path / f"m{suffix}")
        checkpoint = canonical(read(tmp_path / f"m{suffix}"))
        assert any(line.startswith("layout as stored: ") for line in checkpoint.warnings)
        assert checkpoint.dialect == "generic"
