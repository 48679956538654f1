"""TensorFlow checkpoints: goldens from TensorFlow and Keras, and TensorFlow on ours."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

import converter
from converter.errors import CkconvError, LossError, ReadError, SafetyError, UsageError, WriteError
from converter.formats import NoOptions, Probe
from converter.formats.tf_checkpoint import FORMAT, read, sniff
from converter.model.checkpoint import Checkpoint
from converter.model.dtype import DType
from converter.model.ledger import Kind, no_weight
from converter.model.tensor import ArrayTensor, FileTensor
from tests.conftest import ROOT

tf = pytest.importorskip("tensorflow")

KERNEL = np.arange(6, dtype=np.float32).reshape(2, 3)
BIAS = np.array([1, 2, 3], ml_dtypes.bfloat16)
EXPECTED = {"net/kernel": KERNEL, "net/bias": BIAS}
Arrays = Mapping[str, np.ndarray[Any, Any]]


def module(**variables: Any) -> Any:
    made = tf.Module()
    for name, value in variables.items():
        setattr(made, name, tf.Variable(value, name=name) if isinstance(value, np.ndarray) else value)
    return made


@pytest.fixture(scope="module")
def object_based(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("object-based")
    net = module(k=tf.Variable(KERNEL, name="net/kernel"), b=tf.Variable(BIAS, name="net/bias"))
    root = tf.train.Checkpoint(net=net, again=net)
    manager = tf.train.CheckpointManager(root, str(folder), max_to_keep=3)
    manager.save()
    manager.save()
    return folder


@pytest.fixture
def copy(object_based: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(object_based, tmp_path / "copy"))


def assert_reads(path: Path, expected: Arrays = EXPECTED) -> Checkpoint:
    checkpoint = read(path, NoOptions())
    assert set(checkpoint.tensors) == set(expected)
    for name, array in expected.items():
        tensor = checkpoint.tensors[name]
        value = tensor.numpy()
        assert isinstance(tensor, FileTensor)
        assert (value.dtype, value.shape, value.tobytes()) == (array.dtype, array.shape, array.tobytes()), name
    return checkpoint


def assert_refused(path: Path, what: str, error: type[CkconvError] = ReadError) -> None:
    with pytest.raises(error, match=what) as caught:
        read(path, NoOptions())
    assert str(caught.value.path).startswith(str(path))


def test_whatever_part_of_it_is_named(object_based: Path) -> None:
    folder = assert_reads(object_based)
    assert folder.dialect == "tensorflow"
    assert folder.lines == (no_weight("save_counter", Kind.SAVES),)
    assert folder.warnings == ("of 2 checkpoints, ckpt-2 is read, the latest",)
    for name in ("ckpt-1", "ckpt-1.index", "ckpt-1.data-00000-of-00001"):
        assert assert_reads(object_based / name).warnings == ()


def test_names_that_say_too_little_give_way_to_paths(tmp_path: Path) -> None:
    shared = tf.Variable(KERNEL)
    layers = [tf.Variable([1.0]), tf.Variable([1.0]), shared, tf.Variable([2.0], name="own")]
    tf.train.Checkpoint(layers=layers, tied=module(weight=shared)).write(str(tmp_path / "x"))
    one = np.ones(1, np.float32)
    expected = {"layers/0": one, "layers/1": one, "layers/2": KERNEL, "own": 2 * one}
    assert assert_reads(tmp_path / "x", expected).lines == ()


def keras_model() -> Any:
    import keras

    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3), keras.layers.BatchNormalization()])
    model.compile(keras.optimizers.Adam(0.1), "mse")
    model.fit(np.ones((8, 4)), np.ones((8, 3)), verbose=0)
    return model


@pytest.mark.parametrize("name", ["optimizer", "trainer"])
def test_weights_whose_shortest_path_is_through_a_keras_optimizer(name: str, tmp_path: Path) -> None:
    model = keras_model()
    checkpoint = tf.train.Checkpoint(model=model, **{name: model.optimizer})
    checkpoint.write(str(tmp_path / "x"))
    keys = [key for key, _ in tf.train.list_variables(str(tmp_path / "x"))]
    assert f"{name}/_trainable_variables/0/.ATTRIBUTES/VARIABLE_VALUE" in keys  # else there is nothing to see here
    found = assert_reads(tmp_path / "x", {variable.path: variable.numpy() for variable in model.weights})
    assert found.lines == ()
    assert found.optimizer is not None
    assert found.optimizer.groups[0].parameters == tuple(variable.path for variable in model.trainable_variables)


def test_slots_of_older_optimizers(tmp_path: Path) -> None:
    value = "/.ATTRIBUTES/VARIABLE_VALUE"
    slot = f"net/k/.OPTIMIZER_SLOT/opt/m{value}"
    arrays = {
        f"net/k{value}": KERNEL,
        slot: KERNEL,
        f"opt/iter{value}": np.array(3),
        f"opt/learning_rate{value}": np.array(0.1),
    }
    names = list(arrays)
    tf.raw_ops.SaveV2(
        prefix=str(tmp_path / "x"), tensor_names=names, shape_and_slices=[""] * 4, tensors=list(arrays.values())
    )
    found = assert_reads(tmp_path / "x", {f"net/k{value}": KERNEL})
    assert {line.name for line in found.lines} == set(names) - {f"net/k{value}"}


def save_with_tensorflow_1(folder: Path, optimizer: Any) -> dict[str, Any]:
    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        weight = v1.get_variable("net/w", initializer=KERNEL)
        moving = v1.get_variable("net/w/average", initializer=KERNEL + 1)
        v1.get_variable("other/Adam", initializer=KERNEL)
        step = v1.train.get_or_create_global_step()
        train = optimizer.minimize(tf.reduce_sum(weight * weight), global_step=step, var_list=[weight])
        session.run(v1.global_variables_initializer())
        session.run(train)
        v1.train.Saver().save(session, str(folder / "model.ckpt"), global_step=step, write_meta_graph=False)
        return dict(zip(("net/w", "net/w/average"), session.run([weight, moving]), strict=True)) | {
            "other/Adam": KERNEL
        }


@pytest.mark.parametrize("name", ["Adam", "Momentum", "RMSProp", "Adagrad", "Adadelta", "Ftrl"])
def test_what_tensorflow_1_wrote(name: str, tmp_path: Path) -> None:
    arguments = {"Momentum": {"momentum": 0.9}, "RMSProp": {"centered": True}}.get(name, {})
    optimizer = getattr(tf.compat.v1.train, f"{name}Optimizer")(0.1, **arguments)
    expected = save_with_tensorflow_1(tmp_path, optimizer)
    found = assert_reads(tmp_path, expected)  # its state file holds an absolute path
    keys = {key for key, _ in tf.train.list_variables(str(tmp_path / "model.ckpt-1"))}
    assert {line.name for line in found.lines} == keys - set(expected)
    assert "global_step" in keys


def test_moments_of_bert(tmp_path: Path) -> None:
    names = ["bert/kernel", "bert/kernel/adam_m", "bert/kernel/adam_v", "bert/adam_m"]
    tf.raw_ops.SaveV2(prefix=str(tmp_path / "x"), tensor_names=names, shape_and_slices=[""] * 4, tensors=[KERNEL] * 4)
    found = assert_reads(tmp_path / "x", {"bert/kernel": KERNEL, "bert/adam_m": KERNEL})
    assert {line.name for line in found.lines} == set(names[1:3])


def test_variables_of_an_estimator_of_keras(tmp_path: Path) -> None:
    scalars = [f"training/Adagrad/{leaf}" for leaf in ("iter", "decay", "learning_rate")] + ["Adam_1/beta_1"]
    slots = ["training/Adagrad/dense/kernel/accumulator", "Adam_1/dense/kernel/m"]
    names = ["dense/kernel", "training/kernel", "Adam/kernel", "Adam/other/m", *slots, *scalars]
    values = [*[KERNEL] * (len(names) - len(scalars)), *[np.float32(1)] * len(scalars)]
    tf.raw_ops.SaveV2(
        prefix=str(tmp_path / "x"), tensor_names=names, shape_and_slices=[""] * len(names), tensors=values
    )
    found = assert_reads(tmp_path / "x", dict.fromkeys(names[:4], KERNEL))
    assert {line.name for line in found.lines} == {*slots, *scalars}
    report = converter.convert(tmp_path / "x.index", tmp_path / "x.pth")
    assert (report.optimizer.status, str(report.optimizer.reason)[:30]) == ("dropped", "the source says too little of ")


def version_1(folder: Path) -> dict[str, Any]:
    """A checkpoint of the format V1, with slots, a variable in three slices and numbers of other types."""
    v1 = tf.compat.v1
    random = np.random.default_rng(0)
    with tf.Graph().as_default(), v1.Session() as session:
        weight = v1.get_variable("net/w", initializer=KERNEL)
        thirds = v1.fixed_size_partitioner(3)
        v1.get_variable("net/split", (7, 2), initializer=v1.random_normal_initializer(), partitioner=thirds)
        v1.get_variable("net/count", initializer=np.array([1, -2, 3], np.int64))
        v1.get_variable("net/wide", initializer=random.normal(size=(2, 2)))
        v1.get_variable("net/zeros", initializer=np.zeros((3, 0), np.float32))
        step = v1.train.get_or_create_global_step()
        train = v1.train.AdamOptimizer(0.1).minimize(
            tf.reduce_sum(weight * weight), global_step=step, var_list=[weight]
        )
        session.run(v1.global_variables_initializer())
        session.run(train)
        v1.train.Saver(write_version=v1.train.SaverDef.V1).save(session, str(folder / "model.ckpt"))
        found = {each.op.name: session.run(each) for each in v1.global_variables()}
    parts = [found.pop(f"net/split/part_{number}") for number in range(3)]
    return {**found, "net/split": np.concatenate(parts)}


@pytest.mark.parametrize("place", [".", "model.ckpt"])
def test_what_tensorflow_wrote_in_the_format_v1(place: str, tmp_path: Path) -> None:
    expected = version_1(tmp_path)
    found = converter.read(tmp_path / place)
    beside = {line.name for line in found.lines}
    assert {name for name in expected if "Adam" in name or "power" in name or name == "global_step"} == beside
    assert set(found.tensors) == set(expected) - beside
    for name, tensor in found.tensors.items():
        assert np.array_equal(tensor.numpy(), expected[name]), name
        assert tensor.numpy().dtype == expected[name].dtype
    state = found.optimizer
    assert state is not None
    assert np.array_equal(state.slots["exp_avg"]["net/w"].numpy(), expected["net/w/Adam"])


@pytest.mark.parametrize("step", range(1, 12))
def test_a_file_of_the_format_v1_that_is_damaged_is_refused(step: int, tmp_path: Path) -> None:
    version_1(tmp_path)
    data = bytearray((tmp_path / "model.ckpt").read_bytes())
    data[len(data) * step // 12] ^= 0x55
    (tmp_path / "model.ckpt").write_bytes(data)
    with pytest.raises(CkconvError):
        converter.read(tmp_path / "model.ckpt", from_format="tf-checkpoint")


def test_text_is_a_loss_that_must_be_allowed(tmp_path: Path) -> None:
    tf.train.Checkpoint(w=tf.Variable(KERNEL, name="w"), t=tf.Variable("hello", name="t")).write(str(tmp_path / "x"))
    with pytest.raises(LossError, match="text"):
        converter.convert(tmp_path / "x.index", tmp_path / "x.safetensors")
    converter.convert(tmp_path / "x.index", tmp_path / "x.safetensors", allow_dropped=("t",))


def numbers(dtype: DType) -> ArrayTensor:
    return ArrayTensor.of(np.array([0, 1], dtype.numpy))


def test_tensorflow_opens_what_we_write(tmp_path: Path) -> None:
    tensors = {dtype.value: numbers(dtype) for dtype in FORMAT.dtypes}
    tensors |= {"a.b/c d\u202e": ArrayTensor.of(KERNEL), "scalar": ArrayTensor.of(np.array(3))}
    tensors |= {"empty": ArrayTensor.of(np.zeros((0, 4), np.float16))}
    converter.write(Checkpoint(tensors=tensors), tmp_path / "out", to="tf-checkpoint")
    assert sorted(os.listdir(tmp_path / "out")) == [
        "checkpoint", "ckconv.json", "ckpt.data-00000-of-00001", "ckpt.index",
    ]  # fmt: skip
    assert tf.train.latest_checkpoint(str(tmp_path / "out")) == str(tmp_path / "out" / "ckpt")
    reader = tf.train.load_checkpoint(str(tmp_path / "out"))
    assert set(reader.get_variable_to_shape_map()) == set(tensors)
    for name, tensor in tensors.items():
        assert reader.get_tensor(name).tobytes() == tensor.numpy().tobytes(), name
        assert list(reader.get_tensor(name).shape) == list(tensor.shape)


def test_names_ties_and_dialect_come_back(tmp_path: Path) -> None:
    odd = ["", "\0x", "_CHECKPOINTABLE_OBJECT_GRAPH", ".>y", "optimizer/x", "w/adam_m", "w", "global_step"]
    checkpoint = Checkpoint(
        tensors={name: ArrayTensor.of(np.full(2, number)) for number, name in enumerate(odd)},
        aliases={"tied": "w"},
        buffers=frozenset({"w/adam_m"}),
        frozen=frozenset({""}),
    )
    report = converter.write(checkpoint, tmp_path / "out", to="tf-checkpoint")
    assert report.counts == {"mapped": len(odd), "tied": 1, "dropped": 0, "defaulted": 0}
    again = converter.read(tmp_path / "out")
    assert {name: tensor.numpy()[0] for name, tensor in again.tensors.items()} == dict(
        zip(odd, range(len(odd)), strict=True)
    )
    assert (dict(again.aliases), again.buffers, again.frozen) == ({"tied": "w"}, {"w/adam_m"}, {""})
    assert again.dialect == "pytorch"


def test_a_name_that_is_no_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WriteError, match="not Unicode"):
        converter.write(Checkpoint(tensors={"\udc80": numbers(DType.INT8)}), tmp_path / "out", to="tf-checkpoint")
    assert list(tmp_path.iterdir()) == []


def test_config_and_tokenizer_go_along(squad_bert: Path, tmp_path: Path) -> None:
    converter.convert(squad_bert, tmp_path / "out", to="tf-checkpoint")
    assert (tmp_path / "out" / "config.json").read_bytes() == (squad_bert.parent / "config.json").read_bytes()
    converter.convert(tmp_path / "out", tmp_path / "back.safetensors")
    converter.convert(squad_bert, tmp_path / "straight.safetensors")
    back, straight = (converter.read(tmp_path / f"{name}.safetensors").tensors for name in ("back", "straight"))
    assert {n: t.numpy().tobytes() for n, t in back.items()} == {n: t.numpy().tobytes() for n, t in straight.items()}


def test_a_document_about_another_checkpoint_is_not_heeded(tmp_path: Path) -> None:
    converter.write(Checkpoint(tensors={"a": numbers(DType.INT8)}), tmp_path / "out", to="tf-checkpoint")
    tf.train.Checkpoint(w=tf.Variable(KERNEL, name="w")).write(str(tmp_path / "out" / "mine"))
    assert assert_reads(tmp_path / "out" / "mine", {"w": KERNEL}).dialect == "tensorflow"
    document = {"dialect": "pytorch", "prefix": "ckpt", "names": {"x": "y"}}
    (tmp_path / "out" / "ckconv.json").write_text(json.dumps(document))
    assert_refused(tmp_path / "out", "in the table of names, but not in the file")


@pytest.mark.parametrize(
    ("text", "error", "what"),
    [
        ("", ReadError, "names 0 latest"),
        ('model_checkpoint_path: "ckpt-1"\nmodel_checkpoint_path: "ckpt-2"', ReadError, "names 2 latest"),
        ("model_checkpoint_path: 3", ReadError, "is no text"),
        ("nonsense", ReadError, "is no field"),
        ('model_checkpoint_path: "ckpt-1" x', ReadError, "is no field"),
        ('model_checkpoint_path: "ckpt\\n1"', ReadError, "is no field"),
        ('model_checkpoint_path: "../ckpt-1"', SafetyError, "outside its folder"),
        ('model_checkpoint_path: "sub/ckpt-1"', SafetyError, "outside its folder"),
        ('model_checkpoint_path: ".."', SafetyError, "outside its folder"),
        ('model_checkpoint_path: ""', SafetyError, "outside its folder"),
        ('model_checkpoint_path: "/etc/ckpt-1"', SafetyError, "outside its folder"),
        ('model_checkpoint_path: "absent"', ReadError, "No such file"),
        ('model_checkpoint_path: "\xff"', ReadError, "not UTF-8"),
    ],
)
def test_lists_of_checkpoints_are_held_to_their_form(
    text: str, error: type[CkconvError], what: str, copy: Path
) -> None:
    (copy / "checkpoint").write_text('model_checkpoint_path: "ckpt-1"\nlast_preserved_timestamp: -1.5e3\n\n')
    assert_reads(copy)
    (copy / "checkpoint").write_bytes(text.encode("latin-1"))
    assert_refused(copy, what, error)


def test_folders_without_a_list(copy: Path) -> None:
    (copy / "checkpoint").unlink()
    assert_refused(copy, "several checkpoints: ckpt-1.index, ckpt-2.index")
    (copy / "ckpt-2.index").unlink()
    assert_reads(copy)
    (copy / "ckpt-1.data-00000-of-00001").unlink()
    assert_refused(copy, "which is not there")


@pytest.mark.parametrize("name", ["checkpoint", "ckpt-2.index", "ckpt-2.data-00000-of-00001"])
def test_links_that_leave_the_folder_are_refused(name: str, copy: Path, tmp_path: Path) -> None:
    assert_reads(copy)
    (copy / name).rename(tmp_path / "elsewhere")
    (copy / name).symlink_to(tmp_path / "elsewhere")
    assert_refused(copy, "link that leaves", SafetyError)


def test_sniff(object_based: Path, tmp_path: Path) -> None:
    for name in ("", "ckpt-1.index", "ckpt-1.data-00000-of-00001"):
        assert sniff(Probe(object_based / name))
    assert not sniff(Probe(object_based / "checkpoint"))
    (tmp_path / "x.data-00000-of-00001").write_bytes(b"\0\0\x01x")
    assert not sniff(Probe(tmp_path / "x.data-00000-of-00001"))
    assert not sniff(Probe(tmp_path))
    assert converter.read(object_based / "ckpt-1.data-00000-of-00001").dialect == "tensorflow"


def test_no_framework_is_imported(object_based: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from converter.formats import tf_checkpoint, NoOptions\n"
        "[t.numpy() for t in tf_checkpoint.read(Path(sys.argv[1]), NoOptions()).tensors.values()]\n"
        "print(sorted({'tensorflow', 'keras', 'torch', 'google.protobuf'} & set(sys.modules)))"
    )
    command = [sys.executable, "-c", program, str(object_based)]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "[]\n"


def test_a_prefix_is_a_source_for_the_whole_program(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tensors={"a.weight": ArrayTensor.of(np.arange(3, dtype=np.float32))})
    converter.write(checkpoint, tmp_path / "tf", to="tf-checkpoint")
    report = converter.convert(tmp_path / "tf" / "ckpt", tmp_path / "x.safetensors")
    assert (report.source_format, report.counts["mapped"]) == ("tf-checkpoint", 1)


def test_a_keras_model_without_objects_for_its_layers_is_arrays_alone(tmp_path: Path) -> None:
    """tf.train.Checkpoint would restore nothing of it, and say nothing."""
    source = ROOT / "fixtures" / "keras-encoders" / "numbers.h5"
    with pytest.raises(UsageError, match="restores a Keras model by its objects") as caught:
        converter.convert(source, tmp_path / "out", to="tf-checkpoint")
    assert "--to keras and --to h5 hold it" in str(caught.value)
    report = converter.convert(source, tmp_path / "out", to="tf-checkpoint", weights_only=True)
    assert report.counts["dropped"] == 0
    assert any(each.startswith("arrays alone: ") for each in report.warnings)
