"""Where a checkpoint is read from and written to, and which files come along. No framework."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import converter
from converter.errors import (
    ArchitectureError,
    LossError,
    ReadError,
    UnknownFormatError,
    UsageError,
    VerificationError,
    WriteError,
)
from converter.execution.publish import Destination
from converter.formats import registry
from converter.formats import written as formats_written
from converter.model.checkpoint import Checkpoint, Config, Part
from converter.model.tensor import ArrayTensor
from converter.options import Options
from converter.planning.config_values import with_task
from converter.planning.needs import check_needs
from converter.planning.target import Target
from tests.conftest import ROOT, Ckconv


def array(size: int, start: float = 0) -> ArrayTensor:
    return ArrayTensor.of(np.arange(start, start + size, dtype=np.float32))


NETWORK = Checkpoint(tensors={"a": array(300), "b": array(300, 1), "c": array(2, 2)})
BESIDE = {"config.json": '{"model_type": "none"}', "vocab.txt": "word\n", "unknown.txt": "not of a checkpoint"}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A file of safetensors in a folder that has a config, a vocabulary and something else."""
    folder = tmp_path / "source"
    folder.mkdir()
    converter.write(NETWORK, folder / "model.safetensors")
    for name, text in BESIDE.items():
        (folder / name).write_text(text)
    return folder / "model.safetensors"


def entries(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


# the place


@pytest.mark.parametrize(
    ("name", "to", "format_"),
    [
        ("x.safetensors", None, "safetensors"),
        ("x.PTH", None, "pytorch"),
        ("x.pth", "safetensors", "safetensors"),
        ("x.weights.h5", None, "keras"),
        ("x.h5", None, "h5"),
        ("x", "dcp", "dcp"),
        ("x.pth.tar", None, "pytorch"),
    ],
)
def test_which_format_a_destination_gets(name: str, to: str | None, format_: str, source: Path, tmp_path: Path) -> None:
    report = converter.convert(source, tmp_path / name, to=to, weights_only=True)
    assert (report.target_format, report.source_format) == (format_, "safetensors")
    assert (report.source, report.target) == (str(source), str(tmp_path / name))
    assert converter.diff(source, tmp_path / name).is_same


def test_a_name_that_says_nothing_asks_for_a_format(source: Path, tmp_path: Path) -> None:
    with pytest.raises(UnknownFormatError, match="does not say the format") as caught:
        converter.convert(source, tmp_path / "x")
    assert caught.value.path == str(tmp_path / "x")
    assert caught.value.hint == f"--to one of {', '.join(formats_written())}"


@pytest.mark.parametrize(("to", "name"), [("keras", "model.keras"), ("h5", "tf_model.h5")])
def test_a_config_that_is_in_the_file_is_neither_put_beside_it_nor_missed(to: str, name: str, tmp_path: Path) -> None:
    model = ROOT / "fixtures" / "graphs" / "cnn.keras"
    converter.convert(model, f"{tmp_path}/out/", to=to)
    assert entries(tmp_path / "out") == {name}
    assert not any("config" in each for each in converter.convert(model, tmp_path / name, to=to).warnings)


def test_a_keras_model_without_a_model_of_transformers_is_told_what_holds_it(tmp_path: Path) -> None:
    with pytest.raises(ArchitectureError, match="the layers of this Keras model are none; --to safetensors"):
        converter.convert(ROOT / "fixtures" / "graphs" / "cnn.keras", tmp_path / "out", to="pretrained")


def test_a_folder_gets_what_belongs_to_a_model_and_a_file_cannot(source: Path, tmp_path: Path) -> None:
    report = converter.convert(source, f"{tmp_path}/out/", to="safetensors")
    assert entries(tmp_path / "out") == {"model.safetensors", "config.json", "vocab.txt"}
    for name in ("config.json", "vocab.txt"):
        assert (tmp_path / "out" / name).read_text() == BESIDE[name]
    assert not any("not carried" in each for each in report.warnings)
    report = converter.convert(source, tmp_path / "out.safetensors")
    assert "config.json, vocab.txt not carried: the output is one file; end DST with / for a folder" in report.warnings
    (tmp_path / "alone").mkdir()
    alone = tmp_path / "alone" / "x.safetensors"
    alone.write_bytes(source.read_bytes())
    assert not converter.convert(alone, tmp_path / "y.safetensors").warnings


def test_of_what_is_there_nothing_is_said_to_be_left_behind(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.safetensors"
    assert any("config.json, vocab.txt not carried" in each for each in converter.convert(source, out).warnings)
    assert converter.verify(source, out).warnings == ()


def test_an_empty_folder_is_filled_and_a_full_one_stays(source: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    converter.convert(source, tmp_path / "empty", to="safetensors")
    assert "model.safetensors" in entries(tmp_path / "empty")
    with pytest.raises(converter.errors.DestinationExistsError):
        converter.convert(source, f"{tmp_path}/empty/", to="safetensors")
    converter.convert(source, f"{tmp_path}/empty/", to="safetensors", overwrite=True)
    (tmp_path / "empty" / "thesis.tex").write_text("mine")
    with pytest.raises(converter.errors.DestinationExistsError, match=r"thesis\.tex"):
        converter.convert(source, f"{tmp_path}/empty/", to="safetensors", overwrite=True)
    assert (tmp_path / "empty" / "thesis.tex").read_text() == "mine"


def test_several_files_are_a_folder(source: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"the output is several files \(model-00001") as caught:
        converter.convert(source, tmp_path / "x.safetensors", max_shard_size="1KB")
    assert caught.value.hint == "end DST with / for a folder"
    assert caught.value.path == str(tmp_path / "x.safetensors")
    converter.convert(source, f"{tmp_path}/x/", to="safetensors", max_shard_size="1300B")
    assert len([name for name in entries(tmp_path / "x") if name.endswith(".safetensors")]) == 2
    assert converter.diff(source, tmp_path / "x").is_same
    assert converter.verify(source, tmp_path / "x", max_shard_size="1300B").verification.weights


def test_options_of_a_writer_are_those_given_then_those_of_the_name(source: Path, tmp_path: Path) -> None:
    """By its name a file is a .pt2 alone; a folder has a model.pth beside it, unless asked otherwise."""
    only = {"to": "pt2", "weights_only": True}
    converter.convert(source, f"{tmp_path}/both/", **only)
    assert {"model.pt2", "model.pth"} <= entries(tmp_path / "both")
    converter.convert(source, f"{tmp_path}/one/", state_dict=False, **only)
    assert "model.pth" not in entries(tmp_path / "one")
    converter.convert(source, tmp_path / "x.pt2", **only)
    with pytest.raises(UsageError, match="several files"):
        converter.convert(source, tmp_path / "y.pt2", state_dict=True, **only)
    with pytest.raises(UsageError, match="format pt2 takes no --max-shard-size"):
        converter.convert(source, tmp_path / "y.pt2", max_shard_size="1KB", **only)


def test_a_dry_run_says_what_a_run_does(source: Path, tmp_path: Path) -> None:
    dry = converter.convert(source, tmp_path / "x.pth", dry_run=True)
    real = converter.convert(source, tmp_path / "x.pth")
    assert (dry.is_dry_run, real.is_dry_run) == (True, False)
    assert replace(real, is_dry_run=True, verification=dry.verification, source_hash=None) == dry
    assert real.nbytes == (tmp_path / "x.pth").stat().st_size
    with pytest.raises(LossError):
        converter.convert(source, tmp_path / "y.pth", dry_run=True, exclude=("*",))


def test_errors_about_the_output_name_the_destination(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not the staged file, which is gone by then; and they say what was known of the tensors."""
    converter.convert(source, tmp_path / "x.safetensors")
    other = tmp_path / "other.safetensors"
    converter.write(replace(NETWORK, tensors={**NETWORK.tensors, "c": array(2, 9)}), other)
    with pytest.raises(VerificationError) as caught:
        converter.verify(source, other)
    assert (caught.value.path, caught.value.tensor) == (str(other), "c")
    assert caught.value.report.counts["mapped"] == 3

    def fails(*arguments: Any, **options: Any) -> None:
        raise WriteError("no", path="staged")

    monkeypatch.setattr("converter.program.check_space", fails)
    with pytest.raises(WriteError) as failed:
        converter.convert(source, tmp_path / "y.safetensors")
    assert failed.value.path == str(tmp_path / "y.safetensors")
    assert failed.value.report.counts["mapped"] == 3


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "vocab.txt"])
def test_nothing_that_is_read_is_written_over(name: str, source: Path, tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    before = (source.parent / name).read_bytes()
    with pytest.raises(UsageError, match=r"is the source itself|which is read for this output"):
        converter.convert(source, source.parent / name, to="safetensors", overwrite=True)
    assert (source.parent / name).read_bytes() == before


@pytest.mark.parametrize("content", [b"", b"no checkpoint"])
def test_a_source_that_is_its_own_destination_is_not_even_read(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.pth").write_bytes(content)
    with pytest.raises(UsageError, match="is the source itself"):
        converter.convert(tmp_path / "x.pth", tmp_path / "x.pth", overwrite=True)
    assert (tmp_path / "x.pth").read_bytes() == content


@pytest.mark.parametrize("place", ["m/saved_model/1", "m/saved_model", "m"])
def test_nor_is_a_config_above(place: str, tmp_path: Path) -> None:
    (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
    converter.write(NETWORK, tmp_path / place, to="tf-checkpoint")
    config = tmp_path / place / ".." / "config.json"
    config.write_text("{}")
    for above in (config, tmp_path / "m" / "config.json"):
        above.write_text("{}")
        with pytest.raises(UsageError, match=r"which is read for this output|inside one another"):
            converter.convert(tmp_path / place, above.resolve(), to="safetensors", overwrite=True)
        assert above.read_text() == "{}"


@pytest.mark.parametrize("option", ["config", "mapping", "param_order"])
def test_nor_is_what_an_option_names(option: str, source: Path, tmp_path: Path) -> None:
    given = tmp_path / "given.json"
    given.write_text('{"rules": [{"from": "a", "to": "z"}]}')
    with pytest.raises(UsageError, match="which is read for this output"):
        converter.convert(source, given, to="pytorch", overwrite=True, **{option: given})


# the source


def test_a_config_that_is_given_goes_before_the_one_beside(source: Path, tmp_path: Path) -> None:
    given = tmp_path / "given.json"
    given.write_text('{"model_type": "other"}')
    for options, expected in (({}, "none"), ({"config": given}, "other")):
        checkpoint = converter.read(source, **options)
        assert checkpoint.config is not None
        assert checkpoint.config.values == {"model_type": expected}
        assert set(checkpoint.assets) == {"vocab.txt"}
    given.write_text("[]")
    with pytest.raises(ReadError, match="is not a JSON object") as caught:
        converter.read(source, config=given)
    assert caught.value.path == str(given)


def test_a_config_may_be_given_by_its_folder_and_its_tokenizer_goes_along(source: Path, tmp_path: Path) -> None:
    given = tmp_path / "hf_config"
    given.mkdir()
    (given / "config.json").write_text('{"model_type": "other"}')
    (given / "tokenizer.json").write_text("{}")
    checkpoint = converter.read(source, config=given)
    assert checkpoint.config is not None
    assert checkpoint.config.values == {"model_type": "other"}
    assert set(checkpoint.assets) == {"vocab.txt"}, "what is beside SRC goes before"
    (source.parent / "vocab.txt").unlink()
    assert set(converter.read(source, config=given / "config.json").assets) == {"tokenizer.json"}
    (given / "config.json").unlink()
    with pytest.raises(ReadError, match="No such file") as caught:
        converter.read(source, config=given)
    assert caught.value.path == str(given / "config.json")


def test_a_tokenizer_that_is_given_goes_along_instead_of_the_one_beside(tmp_path: Path) -> None:
    config = Config(
        values={"model_type": "unknown", "vocab_size": 3}, raw=b'{"model_type": "unknown", "vocab_size": 3}'
    )
    converter.write(replace(NETWORK, config=config), tmp_path / "source", to="pretrained")
    source, given = tmp_path / "source", tmp_path / "tokenizer"
    given.mkdir()
    (given / "vocab.txt").write_text("a\nb\n")
    without = converter.convert(source, tmp_path / "without", to="pretrained")
    assert any("no tokenizer went along" in warning for warning in without.warnings)
    (source / "tokenizer.json").write_text("{}")
    (source / "generation_config.json").write_text("{}")
    report = converter.convert(source, tmp_path / "with", to="pretrained", tokenizer=given)
    assert not any("tokenizer" in warning for warning in report.warnings)
    assert {"vocab.txt", "generation_config.json"} <= {file.name for file in (tmp_path / "with").iterdir()}
    assert not (tmp_path / "with" / "tokenizer.json").exists()
    for nowhere in (tmp_path, tmp_path / "no"):
        with pytest.raises(UsageError, match="--tokenizer: no folder with files of a tokenizer"):
            converter.convert(source, tmp_path / "x", to="pretrained", tokenizer=nowhere)


def test_a_config_that_is_given_is_of_the_version_that_it_states_itself(tmp_path: Path) -> None:
    """Not of that of the file: which optimizer Keras has, and what its layers do, goes by it."""
    source = ROOT / "fixtures" / "keras" / "model.h5"
    stated = converter.read(source).metadata
    assert "keras_version" in stated
    given = tmp_path / "given.json"
    given.write_text(json.dumps({"class_name": "Sequential", "config": {"name": "s", "layers": []}}))
    metadata = converter.read(source, config=given).metadata
    assert metadata == {key: value for key, value in stated.items() if key != "keras_version"}


@pytest.mark.parametrize(
    ("more", "class_name"), [({"input_layers": [], "output_layers": []}, "Functional"), ({}, "Sequential")]
)
def test_what_get_config_returns_is_a_config_of_keras(source: Path, more: dict[str, Any], class_name: str) -> None:
    """It is no config.json of transformers, and never written as one."""
    returned = {"name": "m", "layers": [{"class_name": "Dense", "config": {"name": "d", "units": 1}}], **more}
    (source.parent / "config.json").write_text(json.dumps(returned))
    checkpoint = converter.read(source)
    assert checkpoint.config is None
    assert checkpoint.keras_config is not None
    assert checkpoint.keras_config.values == {"class_name": class_name, "config": returned}
    assert json.loads(checkpoint.keras_config.raw) == checkpoint.keras_config.values
    for other in ({"layers": 3}, {"layers": [1]}, {"layers": []}, {"class_name": "X"}):
        (source.parent / "config.json").write_text(json.dumps({**returned, **other}))
        assert converter.read(source).keras_config is None, other


def test_a_config_of_keras_is_one_of_keras(source: Path) -> None:
    keras = {"class_name": "Sequential", "config": {"name": "s", "layers": []}}
    (source.parent / "config.json").write_text(json.dumps(keras))
    checkpoint = converter.read(source)
    assert checkpoint.config is None
    assert checkpoint.keras_config is not None
    assert checkpoint.keras_config.values == keras


def test_what_to_json_says_of_a_class_of_ones_own_is_not_published_as_of_transformers(tmp_path: Path) -> None:
    """`to_json` of a subclassed model of tf_keras lists no layers; a folder made with it would open nowhere."""
    weights = tmp_path / "weights.safetensors"
    converter.write(NETWORK, weights)
    given = tmp_path / "model.json"
    given.write_text(json.dumps({"model_type": "own"}))
    converter.convert(weights, tmp_path / "fine", to="pretrained", config=given)
    given.write_text(json.dumps({"class_name": "Own", "config": {}, "backend": "tensorflow"}))
    with pytest.raises(
        ArchitectureError, match=r"needs a config\.json of transformers, .* lists no layers; --config FILE"
    ):
        converter.convert(weights, tmp_path / "out", to="pretrained", config=given)


@pytest.mark.parametrize("given", [{"model": "a.b:c"}, {"with_cache": True}, {"opset": 18}])
def test_options_of_graphs_are_for_targets_that_have_one(given: dict[str, Any], tmp_path: Path) -> None:
    (option,) = given
    said = f"--{option.replace('_', '-')} decides nothing of a target that has no graph"
    for name, more in (("x.pth", {}), ("folder", {"to": "savedmodel", "weights_only": True})):
        converter.write(NETWORK, tmp_path / name, **more)
        with pytest.raises(UsageError, match=said):
            converter.write(NETWORK, tmp_path / name, overwrite=True, **more, **given)


@pytest.mark.parametrize("to", ["dcp", "pretrained", "savedmodel", "tf-checkpoint"])
def test_a_config_of_keras_in_a_folder_of_another_format_is_one_of_keras(to: str, tmp_path: Path) -> None:
    own = Config(values={"model_type": "own", "architectures": ["Own"]}, raw=b"{}")
    options = {"weights_only": True} if to == "savedmodel" else {}
    converter.write(replace(NETWORK, config=own), tmp_path / "folder", to=to, **options)
    (place,) = (tmp_path / "folder").rglob("config.json")
    for values, is_keras in (
        ({"class_name": "Sequential", "config": {"name": "s", "layers": []}}, True),
        ({"class_name": "Own", "config": {}}, True),
        ({"class_name": "Own"}, False),
        ({"class_name": "Own", "config": {}, "model_type": "own"}, False),
        ({"model_type": "own"}, False),
    ):
        place.write_text(json.dumps(values))
        checkpoint = converter.read(tmp_path / "folder", from_format=to)
        held = checkpoint.keras_config if is_keras else checkpoint.config
        assert held is not None
        assert held.values == values
        assert (checkpoint.config if is_keras else checkpoint.keras_config) is None


LEVELS = [
    ("m/saved_model/1", "m", {"model_type": "bert"}, True),
    ("m/saved_model/12", "m", {"model_type": "bert"}, True),
    ("m/other/1", "m", {"model_type": "bert"}, False),
    ("m/saved_model/x", "m", {"model_type": "bert"}, False),
    ("m/saved_model/x", "m/saved_model", {"model_type": "bert"}, True),
    ("m/saved_model/1", "m", {"model_type": 1}, False),
    ("m/saved_model/1", "m", {"class_name": "x"}, False),
    ("m/checkpoint", "m", {"model_type": "bert"}, True),
    ("m/deep/checkpoint", "m", {"model_type": "bert"}, False),
]


@pytest.mark.parametrize(("place", "config", "values", "is_found"), LEVELS)
def test_where_a_config_may_be(place: str, config: str, values: dict[str, Any], is_found: bool, tmp_path: Path) -> None:
    """save_pretrained puts a SavedModel at saved_model/1 and its config above; a folder's own goes before it."""
    folder = tmp_path / place
    folder.parent.mkdir(parents=True)
    converter.write(NETWORK, folder, to="tf-checkpoint")
    (folder / "ckconv.json").unlink()  # what says that these are names of torch
    (tmp_path / config / "config.json").write_text(json.dumps(values))
    checkpoint = converter.read(folder)
    assert checkpoint.dialect == "tensorflow"
    assert (checkpoint.config is not None) == is_found
    (folder / "config.json").write_text('{"model_type": "own"}')
    own = converter.read(folder).config
    assert own is not None
    assert own.values == {"model_type": "own"}


@pytest.mark.parametrize("place", ["m/saved_model/1", "m/checkpoint"])
def test_no_other_dialect_looks_above_for_a_config(place: str, tmp_path: Path) -> None:
    (tmp_path / place).mkdir(parents=True)
    converter.write(NETWORK, tmp_path / place / "x.safetensors")
    (tmp_path / "m" / "config.json").write_text('{"model_type": "bert"}')
    assert converter.read(tmp_path / place).config is None


def test_a_folder_is_of_the_format_whose_file_it_has(source: Path) -> None:
    (source.parent / "config.json").unlink()
    folder = source.parent
    assert converter.read(folder).names == ("a", "b", "c")
    assert converter.read(folder, from_format="safetensors").names == ("a", "b", "c")
    for wrong in ("dcp", "pytorch"):
        with pytest.raises(converter.errors.CkconvError):
            converter.read(folder, from_format=wrong)
    with pytest.raises(UnknownFormatError, match="unknown format 'nonsense'"):
        converter.read(source, from_format="nonsense")


def test_options_of_readers_and_writers_go_to_who_takes_them(source: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="format safetensors takes no --nonsense"):
        converter.read(source, nonsense=1)
    with pytest.raises(UsageError, match="format pytorch takes no --nonsense"):
        converter.convert(source, tmp_path / "x.pth", nonsense=1)
    converter.convert(source, tmp_path / "x.pth")
    with pytest.raises(UsageError, match="format pytorch takes no --nonsense"):
        converter.verify(source, tmp_path / "x.pth", to="pytorch", nonsense=1)


def test_more_than_is_stored_is_no_source(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Limits are those of converter.model.size_limits; here they are nothing, that a small file is beyond them."""
    assert converter.read(source).names
    monkeypatch.setattr("converter.model.size_limits.FREE_BYTES", 0)
    monkeypatch.setattr("converter.model.size_limits.RATIO_LIMIT", 0)
    with pytest.raises(ReadError, match="declares 2408 bytes in all") as caught:
        converter.read(source)
    assert caught.value.path == str(source)


# what decides nothing


def test_inputs_are_for_targets_that_run(source: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--inputs: no such file") as caught:
        converter.convert(source, tmp_path / "x.onnx", inputs=tmp_path / "gone.npz")
    assert caught.value.path == str(tmp_path / "gone.npz")
    np.savez(tmp_path / "there.npz", x=np.zeros(1))
    for to, more in (("safetensors", {}), ("onnx", {"weights_only": True})):
        with pytest.raises(UsageError, match=r"--inputs .*there\.npz needs a target that runs"):
            converter.convert(source, tmp_path / "x", to=to, inputs=tmp_path / "there.npz", **more)


def test_a_target_that_runs_needs_its_framework(source: Path, tmp_path: Path, ckconv: Ckconv) -> None:
    result = ckconv(source, tmp_path / "x", "--to", "savedmodel", without_frameworks=True)
    assert (result.returncode, result.stdout) == (2, "")
    assert "writing a savedmodel that runs" in result.stderr
    assert not (tmp_path / "x").exists()
    assert (
        ckconv(source, tmp_path / "x", "--to", "savedmodel", "--weights-only", without_frameworks=True).returncode == 0
    )


CONFIG = Config(values={"model_type": "none", "a": 1}, raw=b"{}")
WITH_CONFIG = replace(NETWORK, config=CONFIG)
RUNS = frozenset({Part.WEIGHTS, Part.GRAPH})
HAS_CONFIG = frozenset({Part.WEIGHTS, Part.CONFIG})
BOTH = RUNS | HAS_CONFIG
VALUES: list[tuple[Checkpoint, frozenset[Part], dict[str, Any], str | None]] = [
    (WITH_CONFIG, RUNS, {}, None),
    (WITH_CONFIG, HAS_CONFIG, {}, None),
    (WITH_CONFIG, BOTH, {"weights_only": True}, None),
    (WITH_CONFIG, RUNS, {"weights_only": True}, "decides nothing"),
    (WITH_CONFIG, frozenset({Part.WEIGHTS}), {}, "decides nothing"),
    (NETWORK, BOTH, {}, "there is none"),
    (replace(NETWORK, config=Config(values={"model_type": 1}, raw=b"{}")), BOTH, {}, "has no model_type"),
    (WITH_CONFIG, RUNS, {"model": "a:b"}, "or that of --model"),
    (replace(WITH_CONFIG, graph=object()), BOTH, {}, "the source's own graph"),
    (replace(WITH_CONFIG, graph=object()), BOTH, {"with_cache": True}, None),
    (replace(WITH_CONFIG, graph=object()), HAS_CONFIG, {}, None),
]


def flag(option: str) -> str:
    return f"--{option.replace('_', '-')}"


def check_config(checkpoint: Checkpoint, holds: frozenset[Part], **options: Any) -> None:
    """Check options for a format that holds these parts, and runs where a graph is among them."""
    onnx = registry()["onnx"]
    format_ = replace(onnx, holds=holds, runner=onnx.runner if Part.GRAPH in holds else None)
    target = Target(format=format_, place=Destination.of("x.onnx"), is_folder=False).with_options({})
    check_needs(checkpoint, target, Options(**options))


@pytest.mark.parametrize("given", [{"config_value": ("a=2",)}, {"task": "masked-lm"}], ids=["value", "task"])
@pytest.mark.parametrize(("checkpoint", "holds", "options", "why"), VALUES)
def test_where_another_value_in_the_config_decides_something(
    checkpoint: Checkpoint,
    holds: frozenset[Part],
    options: dict[str, Any],
    why: str | None,
    given: dict[str, Any],
) -> None:
    if why is None:
        check_config(checkpoint, holds, **given, **options)
        return
    with pytest.raises(UsageError, match=f"{flag(next(iter(given)))} .*{why}"):
        check_config(checkpoint, holds, **given, **options)


def test_a_task_may_say_in_which_order_parameters_are() -> None:
    numbered = replace(WITH_CONFIG, optimizer_numbered={})
    holds = frozenset({Part.WEIGHTS, Part.OPTIMIZER})
    check_config(numbered, holds, task="masked-lm")
    for held, more in ((frozenset({Part.WEIGHTS}), {}), (holds, {"optimizer": "drop"})):
        with pytest.raises(UsageError, match="--task decides nothing"):
            check_config(numbered, held, task="masked-lm", **more)


def test_a_folder_of_another_class_than_the_task_asks_for_is_refused(squad_bert: Path, tmp_path: Path) -> None:
    report = converter.convert(squad_bert, tmp_path / "x", to="pretrained", task="question-answering")
    assert not any("--task" in each for each in report.warnings)
    with pytest.raises(ArchitectureError, match="BertForTokenClassification, and the tensors are those of BertForQ"):
        converter.convert(squad_bert, tmp_path / "y", to="pretrained", task="token-classification")
    with pytest.raises(UsageError, match="unknown task"):
        converter.convert(squad_bert, tmp_path / "y", to="pretrained", task="foo")


def test_a_config_that_names_no_class_gets_that_of_the_task(squad_bert: Path) -> None:
    read = converter.read(squad_bert)
    assert read.config is not None
    given = replace(read, config=Config(values={"model_type": "bert"}, raw=b"{}"))
    asked = Options(task="question-answering")
    made = with_task(given, HAS_CONFIG, asked)
    assert made.config is not None
    assert made.config.values["architectures"] == ["BertForQuestionAnswering"]
    assert made.warnings == ("config.json: architectures is now BertForQuestionAnswering, as --task says",)
    assert with_task(given, RUNS, asked) is given
    assert with_task(made, HAS_CONFIG, asked) is made


def test_values_of_a_part_leave_the_rest_of_it(source: Path, tmp_path: Path) -> None:
    config = {"model_type": "none", "vision": {"size": 1, "depth": {"n": 2}}, "size": 3}
    (source.parent / "config.json").write_text(json.dumps(config))
    given = ("vision.size=4", "vision.depth.n=5")
    report = converter.convert(source, tmp_path / "x", to="dcp", config_value=given)
    made = json.loads((tmp_path / "x" / "config.json").read_text())
    assert made == {"model_type": "none", "vision": {"size": 4, "depth": {"n": 5}}, "size": 3}
    assert "config.json: vision.depth.n is 5 and was 2, as --config-value says" in report.warnings


def test_wrappers_go_unless_the_target_keeps_names(tmp_path: Path) -> None:
    """`module.` is of DataParallel, not of the model; the ledger has the source's names."""
    wrapped = NETWORK.with_names(lambda name: f"module.{name}")
    for to in ("safetensors", "pytorch"):
        report = converter.write(replace(wrapped, origins={}), tmp_path / to, to=to)
        assert [line.name for line in report.lines] == ["module.a", "module.b", "module.c"]
        assert [line.target for line in report.lines] == ["a", "b", "c"]
        assert any("stripped the wrapper prefix" in each for each in report.warnings)


def test_a_file_of_the_source_is_named_where_nothing_else_is(source: Path, tmp_path: Path) -> None:
    with pytest.raises(LossError) as caught:
        converter.convert(source, tmp_path / "x.pth", exclude=("*",))
    assert caught.value.path == str(source)
    with pytest.raises(converter.errors.CkconvError) as refused:
        converter.convert(source, tmp_path / "x.pth", mapping=tmp_path / "gone.json")
    assert refused.value.path == str(tmp_path / "gone.json")


def test_a_found_target_is_called_by_its_whole_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sub").mkdir()
    monkeypatch.chdir(tmp_path / "sub")
    converter.write(Checkpoint(tensors={"w": ArrayTensor.of(np.ones(3, np.float32))}), "../x.safetensors")
    report = converter.verify("../x.safetensors", "../sub/../x.safetensors")
    assert report.target == str(tmp_path / "x.safetensors")
