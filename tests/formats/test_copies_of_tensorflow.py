"""A TensorFlow checkpoint to another: TensorFlow on the copy, with the program that wrote the source."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

import converter
from converter.encoding.object_graph import object_graph
from converter.encoding.tensor_bundle import read_bundle
from converter.errors import LossError, UsageError, VerificationError
from converter.report import OptimizerStatus
from tests.conftest import ROOT

VALUE = "/.ATTRIBUTES/VARIABLE_VALUE"
RNG = np.random.default_rng(5)
X, Y = RNG.normal(size=(16, 4)).astype(np.float32), RNG.normal(size=(16, 2)).astype(np.float32)


def keras_model() -> Any:
    import keras

    layers = [keras.Input((4,)), keras.layers.Dense(3, name="one"), keras.layers.BatchNormalization(name="norm")]
    model = keras.Sequential([*layers, keras.layers.Dense(2, name="two")])
    model.compile(keras.optimizers.Adam(0.01), "mse")
    return model


def trained(steps: int = 3) -> Any:
    model = keras_model()
    model.fit(X, Y, epochs=steps, batch_size=16, verbose=0)
    return model


def objects(model: Any, step: int) -> Any:
    return tf.train.Checkpoint(model=model, optimizer=model.optimizer, step=tf.Variable(step))


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A folder with the checkpoint of a model of Keras 3 in training, and the model."""
    folder, model = tmp_path_factory.mktemp("saved"), trained()
    objects(model, 3).save(str(folder / "model"))
    return folder, model


def keys(folder: Path) -> dict[str, list[int]]:
    return dict(tf.train.list_variables(str(folder)))


def test_what_made_it_goes_on_from_the_copy(saved: tuple[Path, Any], tmp_path: Path) -> None:
    folder, model = saved
    report = converter.convert(folder, tmp_path / "out", to="tf-checkpoint")
    assert (report.optimizer.status, report.optimizer.step, report.warnings) == (OptimizerStatus.CARRIED, 3, ())
    assert {line.status.value for line in report.lines} == {"mapped"}
    assert keys(tmp_path / "out") == keys(folder)
    found = trained(1)
    restored = objects(found, 0)
    restored.restore(tf.train.latest_checkpoint(str(tmp_path / "out"))).assert_consumed()
    assert int(restored.step) == 3
    for ours, theirs in zip(found.optimizer.variables, model.optimizer.variables, strict=True):
        np.testing.assert_array_equal(ours.numpy(), theirs.numpy())
    np.testing.assert_array_equal(found.predict(X, verbose=0), model.predict(X, verbose=0))
    assert converter.verify(folder, tmp_path / "out").verification.weights
    (tmp_path / "model.json").write_text(model.to_json())
    described = converter.convert(folder, tmp_path / "x", to="tf-checkpoint", config=tmp_path / "model.json")
    assert (described.warnings, described.settings) == ((), ())
    again = converter.convert(tmp_path / "out", tmp_path / "again", to="tf-checkpoint")
    assert again.counts == report.counts
    objects(trained(1), 0).restore(str(tmp_path / "again" / "ckpt")).assert_consumed()


def test_what_is_left_out_is_gone_with_its_state_and_nothing_else(saved: tuple[Path, Any], tmp_path: Path) -> None:
    folder, model = saved
    name = next(each for each in converter.read(folder).names if each.endswith("two/kernel"))
    converter.convert(folder, tmp_path / "out", to="tf-checkpoint", exclude=(name,))
    lost = keys(folder).keys() - keys(tmp_path / "out").keys()
    assert sorted(keys(folder)[key] for key in lost) == [[3, 2]] * 3, "the weight and its two moments"
    found = trained(1)
    kept = found.get_layer("two").kernel.numpy()
    objects(found, 0).restore(str(tmp_path / "out" / "ckpt")).assert_nontrivial_match()
    np.testing.assert_array_equal(found.get_layer("two").kernel.numpy(), kept)
    np.testing.assert_array_equal(found.get_layer("one").kernel.numpy(), model.get_layer("one").kernel.numpy())
    left = {node.key for node in object_graph(read_bundle(tmp_path / "out" / "ckpt"))}
    assert lost.isdisjoint(left), "no object asks for a value that is not there"


def test_an_optimizer_that_is_dropped_is_no_object_with_a_value(saved: tuple[Path, Any], tmp_path: Path) -> None:
    folder, model = saved
    report = converter.convert(folder, tmp_path / "out", to="tf-checkpoint", optimizer="drop")
    assert (report.optimizer.status, report.optimizer.reason) == (OptimizerStatus.DROPPED, "as asked")
    assert not any("_variables/" in key and "_trainable" not in key for key in keys(tmp_path / "out"))
    found = keras_model()
    tf.train.Checkpoint(model=found).restore(str(tmp_path / "out" / "ckpt")).assert_existing_objects_matched()
    np.testing.assert_array_equal(found.predict(X, verbose=0), model.predict(X, verbose=0))


def test_weights_are_cast_and_moments_are_not(saved: tuple[Path, Any], tmp_path: Path) -> None:
    folder, _ = saved
    converter.convert(folder, tmp_path / "out", to="tf-checkpoint", dtype="float16")
    before, after = (tf.train.load_checkpoint(str(each)) for each in (folder, tmp_path / "out"))
    weights = [key for key, _ in tf.train.list_variables(str(folder)) if "_operations" in key or "_trainable" in key]
    for key in keys(folder):
        expected = before.get_tensor(key)
        is_cast = key in weights and np.asarray(expected).dtype == np.float32
        found = after.get_tensor(key)
        if key != "_CHECKPOINTABLE_OBJECT_GRAPH":
            np.testing.assert_array_equal(found, expected.astype(np.float16) if is_cast else expected)


def test_text_and_variables_of_one_name_go_along(tmp_path: Path) -> None:
    class Words(tf.train.experimental.PythonState):  # type: ignore[misc]
        text = "a\n\u00e9"

        def serialize(self) -> str:
            return self.text

        def deserialize(self, value: bytes) -> None:
            self.text = value.decode()

    def made(start: float) -> Any:
        layers = [tf.Variable([start]), tf.Variable([start + 1]), tf.Variable([start + 2], name="own")]
        return tf.train.Checkpoint(layers=layers, words=Words())

    source = made(1.0)
    source.words.text = "b\u00e9\n" * 200
    source.write(str(tmp_path / "x"))
    report = converter.convert(tmp_path / "x.index", tmp_path / "out", to="tf-checkpoint")
    assert report.counts["mapped"] == 3
    found = made(0.0)
    found.read(str(tmp_path / "out" / "ckpt")).assert_consumed()
    assert [each.numpy().tolist() for each in found.layers] == [[1.0], [2.0], [3.0]]
    assert found.words.text == source.words.text
    converter.convert(tmp_path / "x.index", tmp_path / "one", to="tf-checkpoint", exclude=("layers/0",))
    assert converter.read(tmp_path / "one").names == ("layers/1", "own"), "as it is called beside another of its name"
    with pytest.raises(LossError, match="text, not numbers"):
        converter.convert(tmp_path / "x.index", tmp_path / "x.safetensors")


def test_names_of_tensorflow_1_stay(tmp_path: Path) -> None:
    source = ROOT / "fixtures" / "tf1" / "bert" / "model.ckpt"
    report = converter.convert(source.with_name("model.ckpt.index"), tmp_path / "out", to="tf-checkpoint")
    assert report.optimizer.status is OptimizerStatus.CARRIED
    assert {line.status.value for line in report.lines} == {"mapped"}
    assert keys(tmp_path / "out") == keys(source)
    before, after = (tf.train.load_checkpoint(str(each)) for each in (source, tmp_path / "out" / "ckpt"))
    for key in keys(source):
        np.testing.assert_array_equal(after.get_tensor(key), before.get_tensor(key))
    translated = converter.convert(source.with_name("model.ckpt.index"), tmp_path / "x.safetensors")
    assert translated.optimizer.status is OptimizerStatus.DROPPED


@pytest.mark.parametrize("option", [{"hyperparameter": ("lr=1",)}, {"trainable": "."}, {"param_order": Path("x")}])
def test_what_would_change_the_state_of_a_copy_is_refused(
    option: dict[str, Any], saved: tuple[Path, Any], tmp_path: Path
) -> None:
    flag = f"--{next(iter(option)).replace('_', '-')}"
    with pytest.raises(UsageError, match=f"{flag} changes nothing of a copy, whose optimizer stays as it is"):
        converter.convert(saved[0], tmp_path / "out", to="tf-checkpoint", **option)


def test_state_of_unknown_parameters_stays_whole_or_goes(tmp_path: Path) -> None:
    names = [f"net/a{VALUE}", f"net/b{VALUE}", f"opt/iter{VALUE}", f"opt/learning_rate{VALUE}", f"opt/odd{VALUE}"]
    arrays = [np.ones(2, np.float32), np.ones(3, np.float32), np.array(3), np.array(0.1), np.ones(5, np.float32)]
    tf.raw_ops.SaveV2(
        prefix=str(tmp_path / "x"), tensor_names=names, shape_and_slices=[""] * len(names), tensors=arrays
    )
    source = tmp_path / "x.index"
    converter.convert(source, tmp_path / "out", to="tf-checkpoint")
    assert keys(tmp_path / "out") == keys(tmp_path / "x")
    with pytest.raises(LossError, match="optimizer state: nothing tells which parameters it is of") as caught:
        converter.convert(source, tmp_path / "one", to="tf-checkpoint", exclude=(names[0],))
    assert caught.value.hint == "--optimizer drop copies the weights without it"
    converter.convert(source, tmp_path / "one", to="tf-checkpoint", exclude=(names[0],), optimizer="drop")
    assert list(keys(tmp_path / "one")) == [names[1]]


def test_a_copy_that_was_changed_is_no_copy(saved: tuple[Path, Any], tmp_path: Path) -> None:
    folder, model = saved
    converter.convert(folder, tmp_path / "out", to="tf-checkpoint")
    assert converter.verify(folder, tmp_path / "out").verification.weights
    other = tmp_path / "other"
    objects(model, 4).save(str(other / "model"))
    with pytest.raises(VerificationError, match=r"differ|is not what the source has there"):
        converter.verify(other, tmp_path / "out")
