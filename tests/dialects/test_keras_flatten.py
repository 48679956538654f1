"""The trap of Flatten: Keras flattens maps with channels last, PyTorch with channels first."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import converter
from converter.dialects import canonical
from converter.dialects.keras import FLATTEN_ORDER, to_keras
from converter.errors import LossError
from converter.formats import NoOptions, by_name
from converter.model.checkpoint import Checkpoint
from tests.dialects.keras_zoo import randomised

keras = pytest.importorskip("keras")
torch = pytest.importorskip("torch")

IMAGE = (6, 5, 3)


def read(path: Path) -> Checkpoint:
    name = "keras" if path.name.endswith((".keras", ".weights.h5")) else "h5"
    return by_name(name).read(path, NoOptions())


def saved(model: Any, path: Path) -> Path:
    randomised(model)
    (model.save_weights if path.name.endswith(".weights.h5") else model.save)(path)
    return path


def sequential(*layers: Any) -> Any:
    return keras.Sequential([keras.Input(IMAGE), *layers])


def classifier() -> Any:
    k = keras.layers
    return sequential(
        k.Conv2D(4, 2, name="conv"),
        k.MaxPooling2D(2),
        k.Activation("relu"),
        k.Flatten(),
        k.Dropout(0.5),
        k.BatchNormalization(name="norm"),
        k.Dense(3, name="head"),
    )


def functional() -> Any:
    k = keras.layers
    base = keras.Sequential([keras.Input(IMAGE), k.Conv2D(4, 2, name="conv"), k.MaxPooling2D(2)], name="base")
    image = keras.Input(IMAGE)
    here = k.Flatten()(k.Activation("relu")(base(image)))
    return keras.Model(image, k.Dense(3, name="head")(k.BatchNormalization(name="norm")(here)))


def torch_classifier(conv: str) -> Any:
    nn = torch.nn
    return nn.Sequential(
        *(nn.Conv2d(3, 4, 2), nn.MaxPool2d(2), nn.ReLU(), nn.Flatten(), nn.BatchNorm1d(16, eps=1e-3), nn.Linear(16, 3))
    ), {conv: "0", "norm": "4", "head": "5"}


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.parametrize(("build", "conv"), [(classifier, "conv"), (functional, "base.conv")])
def test_rows_behind_a_flatten_are_permuted(build: Any, conv: str, suffix: str, tmp_path: Path) -> None:
    model = build()
    source = read(saved(model, tmp_path / f"model{suffix}"))
    checkpoint = canonical(source)
    module, places = torch_classifier(conv)
    state = {}
    for name, tensor in checkpoint.tensors.items():
        path, _, leaf = name.rpartition(".")
        state[f"{places[path]}.{leaf}"] = torch.from_numpy(np.array(tensor.numpy()))
    module.load_state_dict(state, strict=True)
    inputs = np.random.default_rng(0).normal(size=(2, *IMAGE)).astype("float32")
    with torch.no_grad():
        ours = module.eval()(torch.from_numpy(inputs).movedim(-1, 1)).numpy()
    assert np.abs(ours - np.asarray(model(inputs))).max() < 1e-5
    assert source.keras_config is not None
    back = to_keras(checkpoint, source.keras_config.values)
    assert len(back.tensors) == len(source.tensors)
    for name, tensor in source.tensors.items():  # Keras 3 puts a Sequential's own name before those in .h5
        same = next(key for key in back.tensors if f"/{name}".endswith(f"/{key}"))
        assert back.tensors[same].numpy().tobytes() == tensor.numpy().tobytes()


def test_no_config_is_a_loss_that_must_be_allowed(tmp_path: Path) -> None:
    model = classifier()
    told = canonical(read(saved(model, tmp_path / "model.keras")))
    assert not [line for line in told.lines if line.name == FLATTEN_ORDER]
    blind = canonical(read(saved(model, tmp_path / "model.weights.h5")))
    lines = [line for line in blind.lines if line.name == FLATTEN_ORDER]
    assert [line.is_refused_by_default for line in lines] == [True]
    assert "head/kernel" in lines[0].reason
    kept = np.asarray(model.get_layer("head").kernel).T
    assert np.array_equal(blind.tensors["head.weight"].numpy(), kept)


def test_an_order_that_merging_hides_is_a_loss_that_must_be_allowed(tmp_path: Path) -> None:
    k = keras.layers
    image = keras.Input(IMAGE)
    flat = k.Flatten()(k.Conv2D(4, 2)(image))
    model = keras.Model(image, k.Dense(3, name="head")(k.Concatenate()([flat, k.Flatten()(image)])))
    checkpoint = canonical(read(saved(model, tmp_path / "model.keras")))
    lines = [line for line in checkpoint.lines if line.name == FLATTEN_ORDER]
    assert [line.is_refused_by_default for line in lines] == [True]
    assert "head/kernel: behind a Flatten, whose map goes through Concatenate 'concatenate" in lines[0].reason


@pytest.mark.parametrize(
    ("shape", "middle"),
    [
        ((4, 6), lambda k: []),  # rows of an image without channels: the same order in both
        (IMAGE, lambda k: [k.Conv2D(4, 2), k.GlobalAveragePooling2D()]),
        ((7,), lambda k: [k.Dense(6), k.Reshape((2, 3))]),
        (IMAGE, lambda k: [k.Permute((3, 1, 2))]),  # PyTorch's own order
    ],
)
def test_what_is_in_one_order_stays(shape: tuple[int, ...], middle: Any, tmp_path: Path) -> None:
    k = keras.layers
    model = keras.Sequential([keras.Input(shape), *middle(k), k.Flatten(), k.Dense(3, name="head")])
    checkpoint = canonical(read(saved(model, tmp_path / "model.keras")))
    kernel = np.asarray(model.get_layer("head").kernel)
    assert np.array_equal(checkpoint.tensors["head.weight"].numpy(), kernel.T)
    assert not [line for line in checkpoint.lines if line.name == FLATTEN_ORDER]


@pytest.mark.parametrize("is_flattened", [False, True])
def test_a_map_whose_axes_are_permuted_keeps_its_order_with_a_note(is_flattened: bool, tmp_path: Path) -> None:
    k = keras.layers
    behind = [k.Flatten()] if is_flattened else []
    model = sequential(k.AveragePooling2D(2), k.Permute((1, 3, 2)), *behind, k.Dense(3, name="head"))
    checkpoint = canonical(read(saved(model, tmp_path / "model.keras")))
    assert not [line for line in checkpoint.lines if line.name == FLATTEN_ORDER]
    assert any("rows stay in Keras's order" in note for note in checkpoint.warnings) is is_flattened
    kernel = np.asarray(model.get_layer("head").kernel)
    assert np.array_equal(checkpoint.tensors["head.weight"].numpy(), kernel.T)


class Scaled(keras.layers.Layer):  # type: ignore[misc]
    def call(self, x: Any) -> Any:
        return 2 * x


@pytest.mark.parametrize(
    ("by", "middle"),
    [
        ("Reshape 'columns' to (5, 16)", lambda k: [k.Conv2D(4, 2), k.Reshape((5, 16), name="columns")]),
        ("Reshape 'columns' to (5, -1)", lambda k: [k.Conv2D(4, 2), k.Reshape((5, -1), name="columns")]),
        ("Scaled 'mine'", lambda k: [k.Conv2D(4, 2), Scaled(name="mine")]),
    ],
)
def test_an_order_that_the_config_says_is_kept_with_a_note(by: str, middle: Any, tmp_path: Path) -> None:
    k = keras.layers
    model = sequential(*middle(k), k.Dense(3, name="head"))
    checkpoint = canonical(read(saved(model, tmp_path / "model.keras")))
    assert not [line for line in checkpoint.lines if line.name == FLATTEN_ORDER]
    notes = [note for note in checkpoint.warnings if "rows stay in Keras's order" in note]
    assert len(notes) == 1
    assert f"in which {by} gives them" in notes[0]


def test_a_graph_of_the_source_has_its_own_order(tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    k = keras.layers
    image = keras.Input(IMAGE)
    flat = k.Flatten()(k.Conv2D(4, 2)(image))
    model = keras.Model(image, k.Dense(3, name="head")(k.Concatenate()([flat, k.Flatten()(image)])))
    path = saved(model, tmp_path / "model.keras")
    with pytest.raises(LossError, match="behind a Flatten, whose map goes through Concatenate"):
        converter.convert(path, tmp_path / "model.pth")
    converter.convert(path, tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"))
    images = np.random.default_rng(0).normal(size=(2, *IMAGE)).astype(np.float32)
    (found,) = session.run(None, {session.get_inputs()[0].name: images})
    np.testing.assert_allclose(found, model.predict(images, verbose=0), atol=1e-5)


def test_a_flatten_in_every_step_is_permuted(tmp_path: Path) -> None:
    k = keras.layers
    steps = k.TimeDistributed(k.Conv2D(4, 2)), k.TimeDistributed(k.Flatten()), k.LSTM(2, name="cell")
    model = keras.Sequential([keras.Input((3, *IMAGE)), *steps])
    checkpoint = canonical(read(saved(model, tmp_path / "model.keras")))
    assert not [line for line in checkpoint.lines if line.name == FLATTEN_ORDER]
    kernel = np.asarray(model.get_layer("cell").cell.kernel).T.reshape(8, 5, 4, 4).transpose(0, 3, 1, 2).reshape(8, -1)
    assert np.array_equal(checkpoint.tensors["cell.weight_ih_l0"].numpy(), kernel)


def test_what_is_flattened_and_made_a_map_again_is_a_map(tmp_path: Path) -> None:
    k = keras.layers
    model = sequential(k.Flatten(), k.Reshape(IMAGE), k.Dense(3, name="head"), k.Flatten(), k.Dense(2, name="last"))
    checkpoint = canonical(read(saved(model, tmp_path / "model.keras")))
    assert not [line for line in checkpoint.lines if line.name == FLATTEN_ORDER]
    kernel = np.asarray(model.get_layer("last").kernel).T.reshape(2, 30, 3).transpose(0, 2, 1).reshape(2, -1)
    assert np.array_equal(checkpoint.tensors["last.weight"].numpy(), kernel)


def test_sequences_behind_a_convolution_are_permuted(tmp_path: Path) -> None:
    k = keras.layers
    model = keras.Sequential([keras.Input((6, 3)), k.Conv1D(4, 2), k.Flatten(), k.Dense(3, name="head")])
    checkpoint = canonical(read(saved(model, tmp_path / "model.keras")))
    kernel = np.asarray(model.get_layer("head").kernel)
    expected = kernel.reshape(5, 4, 3).transpose(2, 1, 0).reshape(3, 20)
    assert np.array_equal(checkpoint.tensors["head.weight"].numpy(), expected)


VIDEO = (3, 6, 5, 3)
"""Three images."""


def torch_maps(inputs: Any, conv: Any) -> Any:
    """What nn.Flatten makes of each image of a video behind a convolution."""
    images = torch.from_numpy(inputs).reshape(-1, *inputs.shape[-3:]).movedim(-1, 1)
    return torch.relu(conv(images)).flatten(1)


def stepwise(*behind: Any) -> Any:
    k = keras.layers
    maps = [k.TimeDistributed(k.Conv2D(4, 2, activation="relu", name="conv"), name="convs")]
    return keras.Sequential([keras.Input(VIDEO), *maps, k.TimeDistributed(k.Flatten()), *behind])


def stepwise_model(*behind: Any) -> Any:
    k = keras.layers
    base = keras.Sequential([k.Conv2D(4, 2, activation="relu", name="conv"), k.Flatten()], name="base")
    return keras.Sequential([keras.Input(VIDEO), k.TimeDistributed(base, name="bases"), *behind])


def repeated(*behind: Any) -> Any:
    k = keras.layers
    return sequential(k.Conv2D(4, 2, activation="relu", name="conv"), k.Flatten(), k.RepeatVector(3), *behind)


def state_of(checkpoint: Checkpoint, module: str) -> dict[str, Any]:
    """The tensors of a module of the checkpoint, by the names inside it."""
    names = {name.rpartition(f"{module}.")[2]: name for name in checkpoint.tensors if f"{module}." in f".{name}"}
    return {leaf: torch.from_numpy(np.array(checkpoint.tensors[name].numpy())) for leaf, name in names.items()}


_RECURRENT = {
    "lstm": (lambda k: k.LSTM(5, name="rnn"), lambda size: torch.nn.LSTM(size, 5, batch_first=True)),
    "gru": (lambda k: k.GRU(5, name="rnn"), lambda size: torch.nn.GRU(size, 5, batch_first=True)),
    "simple": (lambda k: k.SimpleRNN(5, name="rnn"), lambda size: torch.nn.RNN(size, 5, batch_first=True)),
    "both ways": (
        lambda k: k.Bidirectional(k.LSTM(5, return_sequences=True), name="rnn"),
        lambda size: torch.nn.LSTM(size, 5, batch_first=True, bidirectional=True),
    ),
}


@pytest.mark.parametrize("kind", _RECURRENT)
@pytest.mark.parametrize("build", [stepwise, repeated])
def test_a_recurrent_layer_behind_a_flatten_takes_maps_as_torch_flattens_them(
    build: Any, kind: str, tmp_path: Path
) -> None:
    make, of_torch = _RECURRENT[kind]
    model = build(make(keras.layers))
    source = read(saved(model, tmp_path / "model.keras"))
    checkpoint = canonical(source)
    assert not [line for line in checkpoint.lines if line.name == FLATTEN_ORDER]
    conv, rnn = torch.nn.Conv2d(3, 4, 2), of_torch(80)
    conv.load_state_dict(state_of(checkpoint, "conv"))
    rnn.load_state_dict(state_of(checkpoint, "rnn"))
    inputs = np.random.default_rng(0).normal(size=(2, *model.input_shape[1:])).astype("float32")
    with torch.no_grad():
        maps = torch_maps(inputs, conv)
        steps = maps.reshape(2, 3, -1) if build is stepwise else maps[:, None].expand(-1, 3, -1)
        ours = rnn(steps)[0]
    theirs = np.asarray(model(inputs))
    assert np.abs((ours if theirs.ndim == 3 else ours[:, -1]).numpy() - theirs).max() < 1e-5
    assert source.keras_config is not None
    back = to_keras(checkpoint, source.keras_config.values)
    for name, tensor in source.tensors.items():
        assert back.tensors[name].numpy().tobytes() == tensor.numpy().tobytes()


@pytest.mark.parametrize("build", [stepwise, stepwise_model])
@pytest.mark.parametrize("is_timed", [False, True])
def test_a_dense_layer_behind_a_flatten_of_every_step(build: Any, is_timed: bool, tmp_path: Path) -> None:
    k = keras.layers
    head = k.Dense(3, name="head")
    model = build(k.TimeDistributed(head, name="heads") if is_timed else head)
    checkpoint = canonical(read(saved(model, tmp_path / "model.keras")))
    kernel = np.asarray(head.kernel)
    expected = kernel.reshape(20, 4, 3).transpose(2, 1, 0).reshape(3, 80)
    (name,) = [name for name in checkpoint.tensors if name.endswith("head.weight")]
    assert np.array_equal(checkpoint.tensors[name].numpy(), expected)


def test_an_attention_behind_a_flatten_of_every_step(tmp_path: Path) -> None:
    k = keras.layers
    video = keras.Input(VIDEO)
    flat = k.TimeDistributed(k.Flatten())(k.TimeDistributed(k.Conv2D(4, 2))(video))
    attention = k.MultiHeadAttention(num_heads=2, key_dim=3, name="attention")
    model = keras.Model(video, attention(flat, flat))
    checkpoint = canonical(read(saved(model, tmp_path / "model.keras")))
    for name in ("query", "key", "value"):
        kernel = np.asarray(getattr(attention, f"{name}_dense").kernel)
        expected = kernel.reshape(20, 4, 6).transpose(2, 1, 0).reshape(6, 80)
        assert np.array_equal(checkpoint.tensors[f"attention.{name}.weight"].numpy(), expected)
    out = np.asarray(attention.output_dense.kernel)
    assert np.array_equal(checkpoint.tensors["attention.attention_output.weight"].numpy(), out.reshape(6, 80).T)


def test_an_einsum_behind_a_flatten(tmp_path: Path) -> None:
    k = keras.layers
    layer = k.EinsumDense("btf,fo->bto", output_shape=(3, 6), name="head")
    checkpoint = canonical(read(saved(stepwise(layer), tmp_path / "model.keras")))
    expected = np.asarray(layer.kernel).reshape(20, 4, 6).transpose(2, 1, 0).reshape(6, 80)
    assert np.array_equal(checkpoint.tensors["head.weight"].numpy(), expected)


def test_a_layer_of_every_step_is_frozen_where_it_says_so(tmp_path: Path) -> None:
    k = keras.layers
    wrapped = k.TimeDistributed(k.Dense(3, name="head"), name="heads")
    model = stepwise(wrapped)
    wrapped.layer.trainable = False
    checkpoint = canonical(read(saved(model, tmp_path / "model.keras")))
    assert {name for name in checkpoint.frozen if "head" in name} == {"heads.head.weight", "heads.head.bias"}


def test_what_takes_a_flattened_map_in_no_way_that_is_known_must_be_allowed(tmp_path: Path) -> None:
    k = keras.layers
    layer = k.EinsumDense("bhwf,wfo->bho", output_shape=(3, 6), name="head")
    model = stepwise(k.Reshape((3, 2, 40)), layer)
    checkpoint = canonical(read(saved(model, tmp_path / "model.keras")))
    assert [line.is_refused_by_default for line in checkpoint.lines if line.name == FLATTEN_ORDER] == [True]


@pytest.mark.parametrize("is_bidirectional", [False, True])
def test_a_cell_of_its_own_behind_a_flatten_must_be_allowed(is_bidirectional: bool, tmp_path: Path) -> None:
    k = keras.layers
    layer = k.RNN(k.GRUCell(3), name="rnn")
    model = stepwise(k.Bidirectional(layer, name="both") if is_bidirectional else layer)
    checkpoint = canonical(read(saved(model, tmp_path / "model.keras")))
    (line,) = [line for line in checkpoint.lines if line.name == FLATTEN_ORDER]
    assert line.is_refused_by_default
    assert "/kernel" in line.reason
    assert "recurrent_kernel" not in line.reason


@pytest.mark.parametrize("suffix", [".h5", ".keras"])
def test_an_alpha_for_each_element_stays_as_it_is_stored(suffix: str, tmp_path: Path) -> None:
    """It is the default of Keras, and torch.nn.PReLU has no such."""
    k = keras.layers
    path = saved(sequential(k.Conv2D(4, 2), k.PReLU(name="own"), k.Flatten(), k.Dense(2)), tmp_path / f"model{suffix}")
    alpha = np.asarray(keras.saving.load_model(path, compile=False).get_layer("own").alpha)
    checkpoint = canonical(read(path))
    assert np.array_equal(checkpoint.tensors["own.alpha"].numpy(), alpha)
    assert any(
        "own/alpha" in note and "torch.nn.PReLU has one for each channel" in note for note in checkpoint.warnings
    )
    for other in ("back.keras", "back.h5"):
        converter.convert(path, tmp_path / other)
        again = keras.saving.load_model(tmp_path / other, compile=False)
        assert np.array_equal(np.asarray(again.get_layer("own").alpha), alpha)
