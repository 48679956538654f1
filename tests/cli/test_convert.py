"""`ckconv SRC DST`: what it prints, what it exits with, and that a failure leaves nothing behind."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import pickle
import pty
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors

import converter
from converter.cli.progress import human_bytes
from converter.errors import WriteError
from tests.conftest import ROOT, Ckconv


@pytest.fixture(scope="module")
def weights(squad_bert: Path, tmp_path_factory: pytest.TempPathFactory, ckconv: Ckconv) -> Path:
    """A safetensors file of the fixture, alone in its folder."""
    path = tmp_path_factory.mktemp("weights") / "model.safetensors"
    assert ckconv(squad_bert, path).returncode == 0
    return path


def entries(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


def test_the_verdict_is_the_last_line(squad_bert: Path, tmp_path: Path, ckconv: Ckconv) -> None:
    result = ckconv(squad_bert, tmp_path / "out.pth")
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.splitlines()[-1] == (
        "ok: 39 mapped, 0 tied, 0 dropped, 0 defaulted; optimizer carried; verified weights"
    )
    assert entries(tmp_path) == ["out.pth"]


def test_json_is_one_object(
    squad_bert: Path, tmp_path: Path, ckconv: Ckconv, expected: Callable[[Path], dict[str, Any]]
) -> None:
    result = ckconv(squad_bert, tmp_path / "out.safetensors", "--json")
    answer = json.loads(result.stdout)
    assert (answer["status"], answer["exit_code"]) == ("ok", 0)
    assert (answer["source"], answer["target"]) == (str(squad_bert), str(tmp_path / "out.safetensors"))
    assert answer["counts"] == {"mapped": 39, "tied": 0, "dropped": 0, "defaulted": 0}
    assert {line["name"]: line["target"] for line in answer["tensors"]} == {
        name: name for name in expected(squad_bert)["tensors"]
    }
    assert answer["optimizer"]["status"] == "dropped"
    assert answer["optimizer"]["algorithm"] == "adamw"
    assert answer["verification"]["weights"] is True


def test_a_dry_run_writes_nothing_and_says_the_same(squad_bert: Path, tmp_path: Path, ckconv: Ckconv) -> None:
    dry = ckconv(squad_bert, tmp_path / "out.safetensors", "--dry-run", "--json")
    assert dry.returncode == 0
    assert entries(tmp_path) == []
    real = json.loads(ckconv(squad_bert, tmp_path / "out.safetensors", "--json").stdout)
    planned = json.loads(dry.stdout)
    assert (planned["tensors"], planned["bytes"]) == (real["tensors"], real["bytes"])
    assert real["bytes"] == (tmp_path / "out.safetensors").stat().st_size


def test_a_folder_gets_config_and_tokenizer(squad_bert: Path, tmp_path: Path, ckconv: Ckconv) -> None:
    assert ckconv(squad_bert, f"{tmp_path}/out/", "--to", "safetensors").returncode == 0
    beside = ["config.json", "tokenizer.json", "tokenizer_config.json", "vocab.txt"]
    assert entries(tmp_path / "out") == sorted(["model.safetensors", *beside])
    for name in beside:
        assert (tmp_path / "out" / name).read_bytes() == (squad_bert.parent / name).read_bytes()


def test_include_exclude_and_dtype(squad_bert: Path, tmp_path: Path, ckconv: Ckconv) -> None:
    result = ckconv(
        squad_bert, tmp_path / "out.pth", "--include", "*.weight", "--exclude", "qa_*", "--dtype", "fp16", "--json"
    )
    answer = json.loads(result.stdout)
    kept = [line["name"] for line in answer["tensors"] if line["status"] == "mapped"]
    assert kept
    assert all(name.endswith(".weight") and not name.startswith("qa_") for name in kept)
    assert answer["counts"]["dropped"] == 39 - len(kept)
    shown = json.loads(ckconv("inspect", tmp_path / "out.pth", "--json").stdout)
    assert {tensor["dtype"] for tensor in shown["tensors"]} == {"float16"}
    assert shown["optimizer"]["algorithm"] == "adamw"


def test_overwrite_replaces_and_nothing_else_does(weights: Path, tmp_path: Path, ckconv: Ckconv) -> None:
    target = tmp_path / "out.safetensors"
    target.write_text("old")
    refused = ckconv(weights, target)
    assert refused.returncode == 6
    assert refused.stderr == f"ckconv: {target}: exists; --overwrite replaces it\n"
    assert target.read_text() == "old"
    assert ckconv(weights, target, "--overwrite").returncode == 0
    assert target.stat().st_size > 300_000


def test_a_source_is_never_its_own_destination(weights: Path, tmp_path: Path, ckconv: Ckconv) -> None:
    both = tmp_path / "x.safetensors"
    both.write_bytes(weights.read_bytes())
    result = ckconv(both, both, "--overwrite", "--dtype", "bf16")
    assert (result.returncode, "is the source itself" in result.stderr) == (2, True)
    assert both.read_bytes() == weights.read_bytes()


def test_nothing_that_was_read_is_the_destination(weights: Path, tmp_path: Path, ckconv: Ckconv) -> None:
    """config.json and what options name, though --overwrite is given; another file in that folder is replaced."""
    source, rules = tmp_path / "model.safetensors", tmp_path / "rules.json"
    source.write_bytes(weights.read_bytes())
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    rules.write_text('{"rules": [{"from": "qa_outputs.bias", "to": "outputs.bias"}]}')
    command = ("--to", "pytorch", "--overwrite", "--mapping", rules)
    for read in (tmp_path / "config.json", rules):
        before = read.read_bytes()
        result = ckconv(source, read, *command)
        assert (result.returncode, "which is read for this output" in result.stderr) == (2, True), result.stderr
        assert read.read_bytes() == before
    (tmp_path / "other.json").write_text("")
    result = ckconv(source, tmp_path / "other.json", *command)
    assert result.returncode == 0, result.stderr


class _Runs:
    def __reduce__(self) -> tuple[Any, ...]:
        return (os.system, ("touch executed",))


def malicious(folder: Path) -> Path:
    path = folder / "evil.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(_Runs(), protocol=2))
        archive.writestr("archive/version", "3\n")
    return path


def pointer(folder: Path) -> Path:
    path = folder / "lfs.pth"
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    return path


def wrong(folder: Path) -> Path:
    path = folder / "wrong.pth"
    path.write_text("this is not a checkpoint")
    return path


def truncated(folder: Path) -> Path:
    path = folder / "cut.pth"
    whole = Path(__file__).parents[2] / "fixtures" / "squad-bert" / "checkpoint.pth"
    path.write_bytes(whole.read_bytes()[:-100])
    return path


def missing(folder: Path) -> Path:
    return folder / "missing.pth"


FAILURES: dict[str, tuple[Callable[[Path], Path], list[str], int, str]] = {
    "wrong file": (wrong, ["out.safetensors"], 1, "is in no format that is known"),
    "truncated file": (truncated, ["out.safetensors"], 1, "is cut short"),
    "missing file": (missing, ["out.safetensors"], 1, "No such file"),
    "Git LFS pointer": (pointer, ["out.safetensors"], 1, "Git LFS pointer"),
    "malicious pickle": (malicious, ["out.safetensors"], 5, "system"),
}


@pytest.mark.parametrize("case", FAILURES)
def test_bad_sources(case: str, tmp_path: Path, ckconv: Ckconv) -> None:
    make, arguments, code, message = FAILURES[case]
    source = make(tmp_path)
    before = entries(tmp_path)
    result = ckconv(source, *arguments, cwd=tmp_path)
    assert result.returncode == code, result.stderr
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"ckconv: {source}: ")
    assert message in line
    assert entries(tmp_path) == before


USAGE: dict[str, tuple[list[str], int, str]] = {
    "unknown --to": (["out", "--to", "nonsense"], 2, "unknown format 'nonsense'; known: "),
    "no --to": (["out"], 2, "the name does not say the format; --to one of "),
    "unknown option": (["out.safetensors", "--nonsense"], 2, "No such option"),
    "an option of another format": (["out.safetensors", "--input-dtype", "int32"], 2, "takes no --input-dtype"),
    "unknown --dtype": (["out.safetensors", "--dtype", "int4"], 2, "unknown --dtype 'int4'"),
    "missing config": (["out", "--to", "pretrained"], 2, "config.json"),
    "missing config of a graph": (["out", "--to", "savedmodel"], 2, "--weights-only"),
    "missing parent": (["no/such/out.safetensors"], 1, "parent folder does not exist"),
    "nothing selected": (["out.safetensors", "--exclude", "*"], 3, "leave no tensor"),
    "a pattern of nothing": (
        ["out.safetensors", "--include", "nothing"],
        2,
        "--include 'nothing' is of no tensor; the ",
    ),
    "optimizer that must be kept": (["out.safetensors", "--optimizer", "sometimes"], 2, "--optimizer is one of"),
}


@pytest.mark.parametrize("case", USAGE)
def test_bad_requests(case: str, weights: Path, tmp_path: Path, ckconv: Ckconv) -> None:
    arguments, code, message = USAGE[case]
    result = ckconv(weights, *arguments, cwd=tmp_path)
    assert result.returncode == code, result.stderr
    (line,) = result.stderr.splitlines()
    assert message in line
    assert entries(tmp_path) == []


def test_state_that_must_be_kept_and_cannot_be(squad_bert: Path, tmp_path: Path, ckconv: Ckconv) -> None:
    result = ckconv(squad_bert, tmp_path / "x.safetensors", "--optimizer", "keep")
    assert (result.returncode, entries(tmp_path)) == (3, [])
    dropped = ckconv(squad_bert, tmp_path / "x.pth", "--optimizer", "drop")
    assert dropped.stdout.splitlines()[-1].endswith("optimizer dropped; verified weights")


def test_an_operator_without_a_lowering_is_named(tmp_path: Path, ckconv: Ckconv) -> None:
    """A vectoriser of n-grams, for which PyTorch has nothing."""
    onnx = pytest.importorskip("onnx")
    helper, types = onnx.helper, onnx.TensorProto
    counted = {"ngram_counts": [0], "ngram_indexes": [0], "pool_int64s": [1]}
    lengths = {"min_gram_length": 1, "max_gram_length": 1, "max_skip_count": 0}
    graph = helper.make_graph(
        [
            helper.make_node("TfIdfVectorizer", ["words"], ["h"], name="counting", mode="TF", **counted, **lengths),
            helper.make_node("MatMul", ["h", "fc.weight"], ["y"]),
        ],
        "graph",
        [helper.make_tensor_value_info("words", types.INT64, ["batch", 3])],
        [helper.make_tensor_value_info("y", types.FLOAT, ["batch", 2])],
        [helper.make_tensor("fc.weight", types.FLOAT, [1, 2], [1.0, 2.0])],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), tmp_path / "x.onnx")
    result = ckconv(tmp_path / "x.onnx", tmp_path / "x.pt2")
    assert result.returncode == 7, result.stdout + result.stderr
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"ckconv: {tmp_path}/x.onnx: no PyTorch lowering for ")
    assert "TfIdfVectorizer" in line
    assert "counting" in line
    assert entries(tmp_path) == ["x.onnx"]


def test_an_ambiguous_head_asks_for_the_task(tmp_path: Path, ckconv: Ckconv, xlm_roberta: Path) -> None:
    (tmp_path / "x.pth").write_bytes(xlm_roberta.read_bytes())
    config = json.loads((xlm_roberta.parent / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "model_type": "unheard-of", "architectures": None}))
    result = ckconv(tmp_path / "x.pth", tmp_path / "out", "--to", "savedmodel")
    assert result.returncode == 2
    (line,) = result.stderr.splitlines()
    assert all(help_ in line for help_ in ("--config", "--task", "--weights-only"))


def test_a_progress_bar_is_shown_on_a_terminal(weights: Path, tmp_path: Path) -> None:
    parent, child = pty.openpty()
    command = [sys.executable, "-m", "converter", os.fspath(weights), os.fspath(tmp_path / "out.safetensors")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=child, cwd=ROOT)
    os.close(child)
    shown = b""
    with contextlib.suppress(OSError):  # how a pseudo-terminal says that its other end is closed
        while data := os.read(parent, 65536):
            shown += data
    os.close(parent)
    assert process.stdout is not None
    assert process.stdout.read().decode().splitlines()[-1].startswith("ok: 39 mapped")
    assert process.wait() == 0
    assert b"writing" in shown or b"verifying" in shown


def test_a_full_disk_is_noticed_before_writing(weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)
    assert converter.convert(weights, tmp_path / "fits.safetensors").counts["mapped"] == 39
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    with pytest.raises(WriteError, match=r"needs \d+ bytes, the disk has 1000 free"):
        converter.convert(weights, tmp_path / "does-not.safetensors")
    assert entries(tmp_path) == ["fits.safetensors"]


def test_every_output_says_where_it_came_from(squad_bert: Path, tmp_path: Path) -> None:
    said = {"algorithm": "sha256", "hex": hashlib.sha256(squad_bert.read_bytes()).hexdigest()}
    report = converter.convert(squad_bert, tmp_path / "x.safetensors", source_hash="sha256")
    assert report.source_hash == said
    converter.convert(squad_bert, tmp_path / "x.pth", source_hash="sha256")
    with safetensors.safe_open(tmp_path / "x.safetensors", "np") as file:
        documents = [file.metadata()["ckconv"]]
    with zipfile.ZipFile(tmp_path / "x.pth") as archive:
        documents.append(archive.read("archive/ckconv.json").decode())
    for document in documents:
        provenance = json.loads(document)
        assert provenance["source"] == {"name": "checkpoint.pth"}
        assert provenance["source_hash"] == said
        assert provenance["ledger"] == {"mapped": 39, "tied": 0, "dropped": 0, "defaulted": 0}
        assert provenance["generator"].startswith("ckconv ")


def test_same_source_same_bytes(squad_bert: Path, tmp_path: Path, ckconv: Ckconv) -> None:
    for name in ("x.pth", "x.safetensors"):
        ckconv(squad_bert, tmp_path / name)
        ckconv(squad_bert, tmp_path / f"again-{name}")
        assert (tmp_path / name).read_bytes() == (tmp_path / f"again-{name}").read_bytes()


def test_failures_are_json_too(tmp_path: Path, ckconv: Ckconv) -> None:
    result = ckconv(wrong(tmp_path), tmp_path / "out.safetensors", "--json")
    answer = json.loads(result.stdout)
    assert (answer["status"], answer["exit_code"], result.returncode) == ("failed", 1, 1)
    assert answer["error"]["file"] == str(tmp_path / "wrong.pth")
    assert len(result.stderr.splitlines()) == 1


def test_names_cannot_write_on_the_terminal(tmp_path: Path, ckconv: Ckconv) -> None:
    name = "\x1b[31m\u202ered.pth"
    (tmp_path / name).write_text("not a checkpoint")
    result = ckconv(tmp_path / name, tmp_path / "out.safetensors")
    assert result.returncode == 1
    assert "\x1b" not in result.stderr
    assert "\\x1b[31m\\u202ered.pth" in result.stderr


def test_undecodable_names(weights: Path, tmp_path: Path, ckconv: Ckconv) -> None:
    name = os.fsdecode(b"caf\xe9.safetensors")
    (tmp_path / name).write_bytes(weights.read_bytes())
    assert ckconv(tmp_path / name, tmp_path / "out.safetensors").returncode == 0
    again = ckconv(tmp_path / name, tmp_path / "out.safetensors")
    assert (again.returncode, "exists" in again.stderr) == (6, True)


def test_a_zero_is_a_value(weights: Path, tmp_path: Path, ckconv: Ckconv) -> None:
    for command in ((weights, tmp_path / "out.safetensors"), ("verify", weights, weights)):
        result = ckconv(*command, "--timeout", "60")
        assert result.returncode == 0, result.stderr
        refused = ckconv(*command, "--timeout", "0")
        assert (refused.returncode, "--timeout is a number of seconds" in refused.stderr) == (2, True)


@pytest.mark.parametrize(
    ("nbytes", "shown"),
    [(0, "0 B"), (999, "999 B"), (999_499, "999 kB"), (999_500, "1 MB"), (5_040, "5.04 kB"), (2 * 10**18, "2e+03 PB")],
)
def test_sizes_have_three_digits(nbytes: int, shown: str) -> None:
    assert human_bytes(nbytes) == shown


def test_progress_is_silent_without_a_terminal(weights: Path, tmp_path: Path, ckconv: Ckconv) -> None:
    result = ckconv(weights, tmp_path / "out.safetensors", "--quiet")
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


def test_the_module_is_the_command(ckconv: Ckconv) -> None:
    from converter import __version__

    assert ckconv("--version").stdout == f"ckconv {__version__}\n"
    stream = io.StringIO(ckconv("formats", "--json").stdout)
    assert {"pytorch", "safetensors", "pretrained", "savedmodel"} <= {
        format_["name"] for format_ in json.load(stream)["formats"]
    }
