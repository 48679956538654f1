from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

import converter
from converter.errors import CkconvError, ReadError, SafetyError
from converter.formats import NoOptions, Probe
from converter.formats.savedmodel import FORMAT, read, sniff
from converter.model.checkpoint import Checkpoint
from converter.model.ledger import Kind, Status, dropped, no_weight

tf = pytest.importorskip("tensorflow")

KERNEL = np.arange(6, dtype=np.float32).reshape(2, 3)
BIAS = np.array([1, 2, 3], ml_dtypes.bfloat16)


def module(**variables: Any) -> Any:
    """A tf.Module with a submodule or variable per attribute; arrays become variables named as their attribute."""
    made = tf.Module()
    for name, value in variables.items():
        setattr(made, name, tf.Variable(value, name=name) if isinstance(value, np.ndarray) else value)
    return made


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "plain"
    root = module(
        dense=module(k=tf.Variable(KERNEL, name="net/dense/kernel"), b=tf.Variable(BIAS, name="net/dense/bias")),
        seen=tf.Variable(np.int64(5), name="seen", trainable=False),
    )
    tf.saved_model.save(root, str(path))
    return path


EXPECTED = {"net/dense/kernel": KERNEL, "net/dense/bias": BIAS, "seen": np.array(5)}


@pytest.fixture
def copy(plain: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(plain, tmp_path / "model"))


def assert_reads(path: Path, expected: Mapping[str, np.ndarray[Any, Any]] = EXPECTED) -> Checkpoint:
    checkpoint = read(path, NoOptions())
    assert set(checkpoint.tensors) == set(expected)
    for name, array in expected.items():
        value = checkpoint.tensors[name].numpy()
        assert (value.dtype, value.shape, value.tobytes()) == (array.dtype, array.shape, array.tobytes()), name
    return checkpoint


def assert_refused(path: Path, what: str, error: type[CkconvError] = ReadError) -> None:
    with pytest.raises(error, match=what) as caught:
        read(path, NoOptions())
    assert str(caught.value.path).startswith(str(path))


def test_variables_by_full_name(plain: Path) -> None:
    checkpoint = assert_reads(plain)
    assert (checkpoint.dialect, checkpoint.lines, checkpoint.config) == ("tensorflow", (), None)
    assert dict(checkpoint.assets) == {}


def test_every_type_that_the_format_declares(tmp_path: Path) -> None:
    arrays = {dtype.value: np.array([0, 1], dtype.numpy) for dtype in FORMAT.dtypes}
    tf.saved_model.save(module(**arrays), str(tmp_path / "model"))
    assert_reads(tmp_path / "model", arrays)


def test_name_based_models_of_tensorflow_1(tmp_path: Path) -> None:
    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        v1.get_variable("fc/kernel", initializer=KERNEL, use_resource=False)
        v1.get_variable("optimizer_steps", initializer=np.int64(3), use_resource=False)
        session.run(v1.global_variables_initializer())
        builder = v1.saved_model.Builder(str(tmp_path / "model"))
        builder.add_meta_graph_and_variables(session, ["serve"])
        builder.save()
    assert_reads(tmp_path / "model", {"fc/kernel": KERNEL, "optimizer_steps": np.array(3)})


def test_keras_exports_that_store_variables_twice(tmp_path: Path) -> None:
    import keras

    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3), keras.layers.BatchNormalization()])
    model.layers[0].set_weights([np.arange(12, dtype=np.float32).reshape(4, 3), np.ones(3, np.float32)])
    model.export(str(tmp_path / "model"), verbose=False)
    checkpoint = assert_reads(
        tmp_path / "model", {variable.value.name.removesuffix(":0"): variable.numpy() for variable in model.weights}
    )
    assert len(checkpoint.tensors) == 6
    assert {line.status for line in checkpoint.lines} == {Status.TIED}
    assert {line.target for line in checkpoint.lines} == set(checkpoint.tensors)


def test_variables_that_share_a_name_go_by_their_paths(tmp_path: Path) -> None:
    for name, second in [("two", "b"), ("one", "a")]:
        root = module(x=tf.Variable([1.0], name="a"), y=tf.Variable([2.0], name=second), z=tf.Variable(3.0, name="c"))
        tf.saved_model.save(root, str(tmp_path / name))
    held = {"x": np.array([1], np.float32), "y": np.array([2], np.float32), "c": np.float32(3)}
    assert_reads(tmp_path / "one", held)
    assert_reads(tmp_path / "two", {{"x": "a", "y": "b"}.get(name, name): value for name, value in held.items()})


def test_what_is_no_weight_is_a_ledger_line(tmp_path: Path) -> None:
    metrics = [module(total=np.zeros(())), module(count=np.zeros(()))]
    moments = [tf.Variable(KERNEL, name="Adam/m/w"), tf.Variable(KERNEL, name="Adam/v/w")]
    root = module(
        w=KERNEL,
        total=np.ones(1),
        words=tf.Variable("hello", name="words"),
        optimizer=module(_variables=moments),
        keras_api=module(metrics=metrics),
        save_counter=np.array(2),
    )
    tf.saved_model.save(root, str(tmp_path / "model"))
    checkpoint = assert_reads(tmp_path / "model", {"w": KERNEL, "total": np.ones(1)})
    assert set(checkpoint.lines) == {
        no_weight("Adam/m/w", Kind.OPTIMIZER),
        no_weight("Adam/v/w", Kind.OPTIMIZER),
        no_weight("keras_api/metrics/0/total", Kind.METRIC),
        no_weight("count", Kind.METRIC),
        replace(dropped("words", "text, not numbers", is_refused_by_default=True), kind=Kind.VALUE),
        no_weight("save_counter", Kind.SAVES),
    }


def test_slots_of_older_optimizers_are_ledger_lines(copy: Path) -> None:
    assert_reads(copy)
    key = "w/.OPTIMIZER_SLOT/optimizer/m/.ATTRIBUTES/VARIABLE_VALUE"
    tf.raw_ops.SaveV2(
        prefix=str(copy / "variables" / "variables"),
        tensor_names=["w", key],
        shape_and_slices=["", ""],
        tensors=[KERNEL, KERNEL],
    )
    checkpoint = assert_reads(copy, {"w": KERNEL})
    assert checkpoint.lines == (no_weight(key, Kind.OPTIMIZER),)


def with_extra(path: Path, **documents: Any) -> Path:
    folder = path / "assets.extra"
    folder.mkdir(exist_ok=True)
    for name, value in documents.items():
        (folder / name.replace("__", ".")).write_text(json.dumps(value))
    return path


def test_config_tokenizer_and_our_own_document_come_back(copy: Path) -> None:
    document = {
        "generator": "ckconv",
        "dialect": "pytorch",
        "names": {"net/dense/kernel": "net.dense[0].weight"},
        "ties": {"tied.weight": "net.dense[0].weight"},
        "buffers": ["seen"],
        "frozen": ["net/dense/bias"],
    }
    with_extra(copy, config__json={"model_type": "bert"}, tokenizer__json={}, other__json={}, ckconv__json=document)
    checkpoint = assert_reads(copy, {"net.dense[0].weight": KERNEL, "net/dense/bias": BIAS, "seen": np.array(5)})
    assert checkpoint.dialect == "pytorch"
    assert dict(checkpoint.aliases) == {"tied.weight": "net.dense[0].weight"}
    assert (checkpoint.buffers, checkpoint.frozen) == ({"seen"}, {"net/dense/bias"})
    assert checkpoint.origin("net.dense[0].weight") == "net/dense/kernel"
    assert checkpoint.config is not None
    assert checkpoint.config.values == {"model_type": "bert"}
    assert set(checkpoint.assets) == {"tokenizer.json"}


@pytest.mark.parametrize(
    ("document", "what"),
    [
        ([], "dialect"),
        ({}, "dialect"),
        ({"dialect": "klingon"}, "dialect"),
        ({"dialect": ["pytorch"]}, "dialect"),
        ({"dialect": "pytorch", "names": ["x"]}, "does not map names to names"),
        ({"dialect": "pytorch", "names": {"seen": 3}}, "does not map names to names"),
        ({"dialect": "pytorch", "names": {"absent": "x"}}, "in the table of names, but not in the file"),
        ({"dialect": "pytorch", "names": {"seen": "net/dense/bias"}}, "would both be named"),
        ({"dialect": "pytorch", "ties": {"x": "absent"}}, "cannot be tied"),
        ({"dialect": "pytorch", "ties": {"seen": "net/dense/bias"}}, "cannot be tied"),
        ({"dialect": "pytorch", "buffers": "seen"}, "lists names"),
        ({"dialect": "pytorch", "buffers": ["absent"]}, "lists names"),
        ({"dialect": "pytorch", "buffers": [["seen"]]}, "lists names"),
        ({"dialect": "pytorch", "frozen": ["absent"]}, "lists names"),
        ({"dialect": "pytorch", "kernels": {"net/dense/kernel": 1}}, "lists names"),
        ({"dialect": "pytorch", "kernels": ["absent"]}, "lists names"),
        ({"dialect": "pytorch", "kernels": ["net/dense/bias"]}, "has 1 axes instead of 2 or more"),
    ],
)
def test_documents_that_do_not_fit_are_refused(document: Any, what: str, copy: Path) -> None:
    assert_reads(with_extra(copy, ckconv__json={"dialect": "pytorch"}))
    assert_refused(with_extra(copy, ckconv__json=document), what)


def test_kernels_are_read_as_weights(copy: Path) -> None:
    document = {"dialect": "pytorch", "names": {"net/dense/kernel": "dense.weight"}, "kernels": ["dense.weight"]}
    with_extra(copy, ckconv__json=document)
    assert_reads(copy, {"dense.weight": KERNEL.T, "net/dense/bias": BIAS, "seen": np.array(5)})


def test_document_that_is_no_json_is_refused(copy: Path) -> None:
    assert_reads(with_extra(copy, ckconv__json={"dialect": "generic"}))
    (copy / "assets.extra" / "ckconv.json").write_text('{"dialect": "generic", "dialect": "pytorch"}')
    assert_refused(copy, "dialect.*twice")


def test_the_graph_is_not_opened(copy: Path) -> None:
    assert_reads(copy)
    (copy / "saved_model.pb").write_bytes(b"\x08\x01\x12\x64" + b"\xff" * 100)  # its one message is no message
    assert_reads(copy)
    (copy / "saved_model.pb").write_bytes(b"\x08\x01\x12\x64" + b"\xff" * 99)
    assert_refused(copy, "cut short")


def test_missing_parts_are_named(copy: Path) -> None:
    assert_reads(copy)
    (copy / "saved_model.pb").rename(copy / "saved_model.pbtxt")
    assert_refused(copy, "text form")
    (copy / "saved_model.pbtxt").rename(copy / "saved_model.pb")
    assert_reads(copy)
    (copy / "variables" / "variables.data-00000-of-00001").unlink()
    assert_refused(copy, "which is not there")
    shutil.rmtree(copy / "variables")
    assert_refused(copy, "without variables")


@pytest.mark.parametrize("name", ["saved_model.pb", "variables", "variables/variables.index", "assets.extra"])
def test_links_that_leave_the_folder_are_refused(name: str, copy: Path, tmp_path: Path) -> None:
    assert_reads(with_extra(copy, config__json={}))
    (copy / name).rename(tmp_path / "elsewhere")
    (copy / name).symlink_to(tmp_path / "elsewhere")
    assert_refused(copy, "link", SafetyError)


def test_the_graph_must_be_a_file(copy: Path) -> None:
    assert_reads(copy)
    (copy / "saved_model.pb").unlink()
    (copy / "saved_model.pb").mkdir()
    assert_refused(copy, "regular file")


def test_sniff(plain: Path, tmp_path: Path) -> None:
    assert sniff(Probe(plain))
    assert not sniff(Probe(plain / "variables"))
    assert not sniff(Probe(plain / "saved_model.pb"))
    (tmp_path / "saved_model.pbtxt").touch()
    assert sniff(Probe(tmp_path))


def test_no_framework_is_imported(plain: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from converter.formats import savedmodel, NoOptions\n"
        "[t.numpy() for t in savedmodel.read(Path(sys.argv[1]), NoOptions()).tensors.values()]\n"
        "print(sorted({'tensorflow', 'keras', 'torch', 'google.protobuf'} & set(sys.modules)))"
    )
    command = [sys.executable, "-c", program, str(plain)]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "[]\n"


def test_the_only_version_of_a_saved_model_is_the_one(tmp_path: Path) -> None:
    """TensorFlow Serving numbers versions in folders, and has nothing else in that of the model."""
    source, folder = Path(__file__).parents[2] / "fixtures" / "field" / "snappy_sm", tmp_path / "model"
    shutil.copytree(source, folder / "1")
    assert list(converter.read(folder).tensors) == list(converter.read(source).tensors)
    shutil.copytree(source, folder / "12")
    with pytest.raises(ReadError) as raised:
        converter.read(folder)
    assert (raised.value.message, raised.value.hint) == (
        "holds versions 1, 12 of a SavedModel",
        f"give one: {folder / '12'} is the newest",
    )
    (folder / "12" / "saved_model.pb").unlink()
    assert list(converter.read(folder).tensors) == list(converter.read(source).tensors)
    (folder / "notes").write_bytes(b"")
    with pytest.raises(ReadError, match="holds no checkpoint that any format knows"):
        converter.read(folder)
