"""`ckconv verify` takes the options that decided a target from what that says of itself, but for code and files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import converter
from converter.encoding import safetensors
from converter.errors import UsageError, VerificationError
from converter.formats import no_provenance, written
from converter.model.checkpoint import Checkpoint
from converter.model.tensor import ArrayTensor
from tests.conftest import Ckconv

PLAIN: dict[str, dict[str, Any]] = {
    "x.pth": {},
    "x.safetensors": {},
    "shards/": {"to": "safetensors", "max_shard_size": "100KB"},
    "folder": {"to": "pretrained"},
    "bin": {"to": "pretrained", "flavor": "bin"},
    "tf": {"to": "pretrained", "flavor": "tf"},
    "flax": {"to": "pretrained", "flavor": "flax", "max_shard_size": "100KB"},
    "x.h5": {"weights_only": True},
    "x.weights.h5": {"weights_only": True},
    "x.msgpack": {},
    "saved": {"to": "savedmodel", "weights_only": True},
    "dcp": {"to": "dcp"},
    "checkpoint": {"to": "tf-checkpoint"},
    "x.onnx": {"weights_only": True},
    "x.pt2": {"weights_only": True, "state_dict": False},
}
"""A target of every format that has a place for what it says of itself, and options of that."""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    arrays = {name: ArrayTensor.of(np.full((2, 3), number, np.float32)) for number, name in enumerate("abc")}
    converter.write(Checkpoint(tensors=arrays), tmp_path / "source.pth")
    return tmp_path / "source.pth"


def written_with(options: Any, folder: Path) -> Path:
    """A file like what `source` converts to, that says it was made with `options`."""
    places = {name: [24 * at, 24 * at + 24] for at, name in enumerate("abc")}
    header = {name: {"dtype": "F32", "shape": [2, 3], "data_offsets": place} for name, place in places.items()}
    data = b"".join(np.full((2, 3), number, np.float32).tobytes() for number in range(3))
    said = json.dumps({"options": options})
    text = json.dumps({"__metadata__": {"format": "pt", safetensors.PROVENANCE_KEY: said}, **header}).encode()
    path = folder / "said.safetensors"
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


@pytest.mark.one_in(3)
@pytest.mark.parametrize("target", PLAIN)
def test_options_are_taken_from_the_target(target: str, squad_bert: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"dtype": "float16", **PLAIN[target]}
    if options.get("to") != "pretrained" and not target.endswith(".h5"):  # whose class would miss it
        options["exclude"] = ("qa_outputs.bias",)
    destination = f"{tmp_path}/{target}"
    converter.convert(squad_bert, destination, **options)
    report = converter.verify(squad_bert, destination)
    (note,) = report.made_with
    assert "says that it was made with" in note
    assert "--dtype float16" in note
    assert ("--exclude qa_outputs.bias" in note) is ("exclude" in options)
    assert ("--no-state-dict" in note) is (target == "x.pt2")
    assert report.verification.weights
    with pytest.raises(VerificationError):
        converter.verify(squad_bert, destination, dtype="float32")


def test_every_format_with_a_place_is_among_them() -> None:
    without = {name for name, format_ in written().items() if format_.provenance is no_provenance}
    tried = {options.get("to") for options in PLAIN.values()} - {None}
    tried |= {"pytorch", "safetensors", "h5", "keras", "flax", "onnx", "pt2"}
    assert without == {"npz"}
    assert tried == written().keys() - without


def test_a_target_without_a_place_needs_them_again(source: Path, tmp_path: Path, ckconv: Ckconv) -> None:
    converter.convert(source, tmp_path / "x.npz", dtype="float16")
    refused = ckconv("verify", source, tmp_path / "x.npz")
    assert refused.returncode == 4
    assert "x.npz does not say with which options it was made: give them again" in refused.stderr
    assert ckconv("verify", source, tmp_path / "x.npz", "--dtype", "float16").returncode == 0


def test_what_was_taken_is_said(source: Path, tmp_path: Path, ckconv: Ckconv) -> None:
    converter.convert(source, tmp_path / "x.pth", exclude=("b*",))
    done = ckconv("verify", source, tmp_path / "x.pth")
    assert done.stdout.splitlines()[0] == "note: x.pth says that it was made with --exclude 'b*'"
    answer = json.loads(ckconv("verify", source, tmp_path / "x.pth", "--json").stdout)
    assert answer["made_with"] == ["x.pth says that it was made with --exclude 'b*'"]


def test_files_are_recorded_by_digest_and_asked_for(source: Path, tmp_path: Path, ckconv: Ckconv) -> None:
    def mapping(name: str, to: str) -> Path:
        (tmp_path / name).write_text(json.dumps({"rules": [{"from": "a", "to": to}]}))
        return tmp_path / name

    rules = mapping("secret-name.json", "first")
    converter.convert(source, tmp_path / "x.safetensors", mapping=rules)
    assert b"secret-name" not in (tmp_path / "x.safetensors").read_bytes()
    missing = ckconv("verify", source, tmp_path / "x.safetensors")
    assert missing.returncode == 2
    assert "was made with --mapping, and files are taken from the command line alone; give --mapping again" in (
        missing.stderr
    )
    moved = rules.rename(tmp_path / "moved.json")
    assert ckconv("verify", source, tmp_path / "x.safetensors", "--mapping", moved).returncode == 0
    other = ckconv("verify", source, tmp_path / "x.safetensors", "--mapping", mapping("other.json", "second"))
    assert other.returncode == 4
    assert "--mapping is another than x.safetensors was made with, by its SHA-256" in other.stderr
    moved.write_text(moved.read_text() + "\n")
    same = ckconv("verify", source, tmp_path / "x.safetensors", "--mapping", moved)
    assert same.returncode == 0
    assert same.stdout.startswith("note: --mapping is another than x.safetensors was made with, by its SHA-256\n")


def test_a_config_is_one_of_them(squad_bert: Path, tmp_path: Path, ckconv: Ckconv) -> None:
    (tmp_path / "apart.pth").write_bytes(squad_bert.read_bytes())
    folder = squad_bert.parent
    converter.convert(tmp_path / "apart.pth", tmp_path / "out", to="pretrained", config=folder, tokenizer=folder)
    missing = ckconv("verify", tmp_path / "apart.pth", tmp_path / "out")
    assert (missing.returncode, "was made with --config" in missing.stderr) == (2, True)
    missing = ckconv("verify", tmp_path / "apart.pth", tmp_path / "out", "--config", folder / "config.json")
    assert (missing.returncode, "was made with --tokenizer" in missing.stderr) == (2, True)
    given = ("--config", folder / "config.json", "--tokenizer", folder)
    done = ckconv("verify", tmp_path / "apart.pth", tmp_path / "out", *given)
    assert done.returncode == 0, done.stderr
    assert "is another" not in done.stdout


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"model": "os:system"}, "with --model os:system, and code is taken"),
        ({"custom_objects": ["os:system"]}, "with --custom-objects os:system, and code is taken"),
        ({"mapping": {"sha256": "0" * 64}}, "with --mapping, and files are taken"),
        ({"mapping": "/etc/passwd"}, "an option that there is not: mapping"),
        ({"include": {"sha256": "0" * 64}}, "with --include, and what is so long is taken"),
        ({"trainable": "(a*)*b"}, "and an expression that may take long is taken"),
        ({"trainable": "a*a*a*a*b"}, "and an expression that may take long is taken"),
        ({"trainable": 5}, "an option that there is not: trainable"),
        ({"include": "a"}, "an option that there is not: include"),
        ({"include": [1]}, "an option that there is not: include"),
        ({"include": ["a" * 2000]}, "an option that there is not: include"),
        ({"weights_only": 1}, "an option that there is not: weights_only"),
        ({"overwrite": True}, "an option that there is not: overwrite"),
        ({"jobs": 100}, "an option that there is not: jobs"),
        ({"verify": "none"}, "an option that there is not: verify"),
        ({"observer": "x"}, "an option that there is not: observer"),
        ({"flavor": "tf"}, "an option that there is not: flavor"),
        ([], "says nothing that could be options"),
        ({"dtype": "int64"}, "unknown --dtype 'int64'"),
    ],
)
def test_a_hostile_record_decides_nothing(options: Any, what: str, source: Path, tmp_path: Path) -> None:
    assert converter.verify(source, written_with({}, tmp_path)).verification.weights
    with pytest.raises(UsageError) as caught:
        converter.verify(source, written_with(options, tmp_path))
    assert what in str(caught.value)


def test_long_options_are_recorded_by_digest(source: Path, tmp_path: Path) -> None:
    patterns = [f"nothing.like.this.{number}" for number in range(100)]
    converter.convert(source, tmp_path / "x.safetensors", exclude=["a"], allow_dropped=patterns)
    with pytest.raises(UsageError, match="was made with --allow-dropped"):
        converter.verify(source, tmp_path / "x.safetensors")
    report = converter.verify(source, tmp_path / "x.safetensors", allow_dropped=patterns)
    assert report.made_with == ("x.safetensors says that it was made with --exclude a",)
