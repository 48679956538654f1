"""What is asked of the program reaches the steps that do it, and what they have to say reaches the report."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from blake3 import blake3

import converter
from converter import program
from converter.errors import DestinationExistsError, Interrupted, LossError, UsageError, VerificationError
from converter.execution.mounted import PREFIX
from converter.execution.parallel import Workers
from converter.execution.workshop import LocalWorkshop
from converter.model.checkpoint import Checkpoint
from converter.model.tensor import ArrayTensor
from converter.observer import Observer
from converter.planning import Target, sandbox
from converter.proof import prove

ABSENT = "4194301"
"""A process that is not there: beyond the largest number that one can have."""
SHARDS: dict[str, Any] = {"to": "safetensors", "max_shard_size": "16"}


@pytest.fixture
def network() -> Checkpoint:
    """Three tensors, each large enough to be a shard of its own."""
    return Checkpoint(
        tensors={name: ArrayTensor.of(np.full(4, number, np.float32)) for number, name in enumerate("abc")}
    )


@pytest.fixture
def source(network: Checkpoint, tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    converter.write(network, tmp_path / "in" / "x.safetensors")
    return tmp_path / "in" / "x.safetensors"


@pytest.fixture
def workshops(monkeypatch: pytest.MonkeyPatch) -> list[LocalWorkshop]:
    """Every workshop that is set up from now on."""
    made: list[LocalWorkshop] = []

    def set_up(**given: Any) -> LocalWorkshop:
        made.append(LocalWorkshop(**given))
        return made[-1]

    monkeypatch.setattr(program, "LocalWorkshop", set_up)
    return made


@pytest.mark.parametrize("command", ["convert", "write", "verify"])
def test_how_the_work_is_done(
    command: str, source: Path, network: Checkpoint, workshops: list[LocalWorkshop], tmp_path: Path
) -> None:
    observer, target = Observer(), tmp_path / "y.safetensors"
    options: dict[str, Any] = {"jobs": 3, "max_memory": "300MiB", "timeout": 7.5, "observer": observer}
    match command:
        case "write":
            converter.write(network, target, **options)
        case "verify":
            converter.convert(source, target)
            converter.verify(source, target, **options)
        case _:
            converter.convert(source, target, **options)
    assert workshops[-1].workers == Workers(jobs=3, memory_bytes=300 << 20)
    assert workshops[-1].observer is observer
    assert workshops[-1].terms.timeout_seconds == 7.5
    assert workshops[-1].terms.limits.processor_seconds is not None
    assert workshops[-1].terms.limits.processor_seconds < 3600
    assert (target in workshops[-1].terms.reads) == (command == "verify")


@pytest.mark.parametrize("command", ["convert", "write", "verify"])
def test_a_sandbox_is_required_before_anything_is_read(
    command: str, source: Path, network: Checkpoint, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: list[bool] = []

    def refuse(options: converter.Options) -> None:
        asked.append(options.require_sandbox)
        raise UsageError("enough")

    monkeypatch.setattr(sandbox, "require_sandbox", refuse)
    given = network if command == "write" else source.with_name("missing")
    with pytest.raises(UsageError, match="enough"):
        getattr(converter, command)(given, tmp_path / "y.pth", require_sandbox=True)
    assert asked == [True]


@pytest.mark.parametrize("durable", [True, False])
def test_the_disk_is_waited_for_unless_it_need_not_be(
    durable: bool, source: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    flushed: list[int] = []
    monkeypatch.setattr(os, "fsync", flushed.append)
    converter.convert(source, tmp_path / "y.safetensors", durable=durable)
    assert bool(flushed) is durable


def test_interrupting_comes_too_late_between_the_proof_and_the_rename(
    source: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    steps: list[str] = []
    target = tmp_path / "y.safetensors"

    class Recording(Observer):
        def committing(self) -> None:
            steps.append("committing" if not target.exists() else "too late")

    def proven(*given: Any) -> Any:
        steps.append("proof")
        return prove(*given)

    monkeypatch.setattr(program, "prove", proven)
    converter.convert(source, target, observer=Recording())
    assert steps == ["proof", "committing"]


@pytest.mark.parametrize("overwrite", [True, False])
def test_what_appears_in_the_last_moment_stays_unless_it_may_go(
    overwrite: bool, source: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    target, check, calls = tmp_path / "y.safetensors", Target.check_replaceable, []

    def check_and_appear(self: Target, options: converter.Options) -> None:
        check(self, options)
        calls.append(options)
        if len(calls) == 2:
            target.write_text("of somebody else")

    monkeypatch.setattr(Target, "check_replaceable", check_and_appear)
    if overwrite:
        converter.convert(source, target, overwrite=True)
    else:
        with pytest.raises(DestinationExistsError, match="appeared while the output was made"):
            converter.convert(source, target)
    assert (target.read_bytes() == b"of somebody else") is not overwrite


def test_what_appears_while_the_output_is_made_is_looked_at(
    source: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    target = tmp_path / "y.safetensors"

    def appear(*given: Any) -> Any:
        target.mkdir()
        (target / "thesis.tex").write_text("years of work")
        return prove(*given)

    monkeypatch.setattr(program, "prove", appear)
    with pytest.raises(DestinationExistsError, match="is a folder, the output is a file"):
        converter.convert(source, target, overwrite=True)
    assert (target / "thesis.tex").exists()


@pytest.mark.parametrize("refused", [True, False], ids=["the source is another", "the options are others"])
def test_errors_of_verify_name_the_destination(
    refused: bool, source: Path, network: Checkpoint, tmp_path: Path
) -> None:
    converter.convert(source, tmp_path / "y.pth")
    other = Checkpoint(tensors={**network.tensors, "b": ArrayTensor.of(np.ones(4, np.float32) * 9)})
    converter.write(other, source, overwrite=True)
    with pytest.raises(VerificationError) as caught:
        converter.verify(source, tmp_path / "y.pth", **({} if refused else {"exclude": ["a"]}))
    assert caught.value.path == os.fspath(tmp_path / "y.pth")
    assert caught.value.report is not None


def provenance_of(path: Path) -> dict[str, Any]:
    """What a file of safetensors says of where it comes from."""
    data = path.read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    said: dict[str, Any] = json.loads(header["__metadata__"]["ckconv"])
    return said


def test_an_output_says_where_it_comes_from(source: Path, network: Checkpoint, tmp_path: Path) -> None:
    converter.convert(source, tmp_path / "y.safetensors", exclude=["a"])
    digits = blake3(source.read_bytes()).hexdigest()
    ledger = {"mapped": 2, "tied": 0, "dropped": 1, "defaulted": 0}
    assert provenance_of(tmp_path / "y.safetensors") == {
        "generator": f"ckconv {converter.__version__}",
        "options": {"to": "safetensors", "exclude": ["a"]},
        "source": {"name": "x.safetensors"},
        "source_hash": {"algorithm": "blake3", "hex": digits},
        "ledger": ledger,
    }
    converter.write(network, tmp_path / "z.safetensors")
    assert provenance_of(tmp_path / "z.safetensors")["source"] == {"name": ""}
    assert provenance_of(tmp_path / "z.safetensors")["source_hash"] == {"algorithm": "blake3", "hex": ""}


@pytest.mark.parametrize("command", ["convert", "verify"])
def test_an_error_of_a_source_names_it(
    command: str, source: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    converter.convert(source, tmp_path / "y.pth")

    def fail(*given: Any) -> None:
        raise LossError("is ambiguous", tensor="a")

    monkeypatch.setattr(program, "plan", fail)
    with pytest.raises(LossError, match="is ambiguous") as caught:
        getattr(converter, command)(source, tmp_path / "y.pth", **({"overwrite": True} if command == "convert" else {}))
    assert (caught.value.path, caught.value.tensor) == (os.fspath(source), "a")


def test_read_takes_the_config_that_it_is_given(source: Path, tmp_path: Path) -> None:
    (tmp_path / "other.json").write_text('{"model_type": "another"}')
    given = converter.read(source, config=tmp_path / "other.json")
    assert given.config is not None
    assert given.config.values == {"model_type": "another"}
    assert converter.read(source).config is None
    with pytest.raises(UsageError, match="takes no --tied"):
        converter.read(source, tied="once")


# going on from an earlier attempt


class Killed(Observer):
    """Ends a conversion when so many bytes are written."""

    def __init__(self, nbytes: int) -> None:
        self.left = nbytes

    def advance(self, nbytes: int) -> None:
        self.left -= nbytes
        if self.left < 0:
            raise Interrupted(15)


@pytest.fixture
def attempt(source: Path, tmp_path: Path) -> Callable[..., Path]:
    """Leave what a conversion leaves that is killed after its first shard, and return the folder."""

    def leave(**options: Any) -> Path:
        with pytest.raises(Interrupted):
            converter.convert(source, f"{tmp_path}/out/", resume=True, observer=Killed(16), **{**SHARDS, **options})
        (folder,) = tmp_path.glob(PREFIX + "*")
        assert len(list((folder / "output").iterdir())) == 2
        gone = folder.with_name(f"{PREFIX}{ABSENT}-0badcafe")
        return folder.rename(gone)

    return leave


def left(tmp_path: Path) -> list[str]:
    return [entry.name for entry in tmp_path.iterdir() if entry.name.startswith(PREFIX)]


def test_what_was_kept_is_said(attempt: Callable[..., Path], source: Path, tmp_path: Path) -> None:
    folder = attempt()
    first = next(iter(sorted((folder / "output").iterdir()))).stat().st_ino
    report = converter.convert(source, f"{tmp_path}/out/", resume=True, **SHARDS)
    assert report.warnings[-1] == "resumed: 1 of 4 files kept from an earlier attempt"
    assert (tmp_path / "out" / "model-00001-of-00003.safetensors").stat().st_ino == first
    assert not left(tmp_path)


@pytest.mark.parametrize(
    "other", [{"dtype": "float16"}, {"max_shard_size": "32"}, {"to": "dcp"}, {"version": "0.0.0"}], ids=repr
)
def test_another_request_is_another_attempt(
    other: dict[str, Any],
    attempt: Callable[..., Path],
    source: Path,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    attempt()
    version = other.pop("version", None)
    if version is not None:
        monkeypatch.setattr(program, "__version__", version)
    options = {**SHARDS, **other}
    if options["to"] != "safetensors":
        del options["max_shard_size"]
    report = converter.convert(source, f"{tmp_path}/out/", resume=True, **options)
    said = "started anew: an earlier attempt is not resumed, it was asked for something else"
    assert said in report.warnings
    assert not any(warning.startswith("resumed") for warning in report.warnings)
    assert not left(tmp_path)


def test_how_the_work_is_done_makes_no_other_attempt(
    attempt: Callable[..., Path], source: Path, tmp_path: Path
) -> None:
    attempt()
    report = converter.convert(source, f"{tmp_path}/out/", resume=True, jobs=2, verify="none", durable=False, **SHARDS)
    assert any(warning.startswith("resumed: 1 of 4") for warning in report.warnings)


def test_a_dry_run_leaves_an_earlier_attempt_as_it_was(
    attempt: Callable[..., Path], source: Path, tmp_path: Path
) -> None:
    folder = attempt()
    converter.convert(source, f"{tmp_path}/out/", resume=True, dry_run=True, **SHARDS)
    assert left(tmp_path) == [folder.name]
    report = converter.convert(source, f"{tmp_path}/out/", resume=True, **SHARDS)
    assert any(warning.startswith("resumed: 1 of 4") for warning in report.warnings)


def test_the_space_that_is_needed_is_less_by_what_is_kept(
    attempt: Callable[..., Path], source: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    needed: list[int] = []
    monkeypatch.setattr(program, "check_space", lambda folder, nbytes, destination: needed.append(nbytes))
    folder = attempt()
    found = sum(file.stat().st_size for file in (folder / "output").iterdir())
    report = converter.convert(source, f"{tmp_path}/out/", resume=True, **SHARDS)
    assert needed == [report.nbytes, report.nbytes - found]
    assert 0 < found < report.nbytes
