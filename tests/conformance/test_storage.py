"""A kind of storage is one module: every format is read from it and written to it as from local files."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import converter
import converter.program
from converter import storage
from converter.entry_points import STORAGES
from converter.errors import (
    CkconvError,
    DestinationExistsError,
    ReadError,
    SafetyError,
    UsageError,
    VerificationError,
    WriteError,
)
from converter.formats import registry
from converter.formats import written as formats_written
from converter.model.file import local_copy
from converter.model.tensor import ArrayTensor
from converter.report.page import opened
from converter.testing import destination_of, options_of, plain, ties, with_config, written
from tests.conformance import memory_storage
from tests.conformance.memory_storage import FILES, READ, upload

EVERY = pytest.mark.parametrize("name", list(formats_written()))
AT = "memory://bucket/models"


@pytest.fixture(autouse=True)
def memory(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let `memory://` be known, as an installed package would."""
    points = [SimpleNamespace(name="memory", value="memory_storage:STORAGE", load=lambda: memory_storage.STORAGE)]
    monkeypatch.setattr(
        "converter.entry_points.metadata.entry_points", lambda *, group: points if group == STORAGES else []
    )
    storage.registry.cache_clear()
    FILES.clear()
    READ.clear()
    yield
    storage.registry.cache_clear()


def same(left: str | Path, right: str | Path) -> None:
    one, other = converter.read(left), converter.read(right)
    assert set(one.tensors) == set(other.tensors)
    assert (one.aliases, one.config, one.lines) == (other.aliases, other.config, other.lines)
    for name, tensor in one.tensors.items():
        np.testing.assert_array_equal(tensor.numpy(), other.tensors[name].numpy())


@EVERY
def test_a_checkpoint_is_read_as_from_a_local_file(name: str, tmp_path: Path) -> None:
    for made in (plain(), ties()):
        (tmp_path / f"{len(made.tensors)}").mkdir()
        path = written(made, registry()[name], tmp_path / f"{len(made.tensors)}")
        address = f"{AT}/{len(made.tensors)}/{path.name}"
        upload(path, address)
        same(address, path)


@EVERY
def test_a_checkpoint_is_written_as_to_a_local_file(name: str, tmp_path: Path) -> None:
    format_ = registry()[name]
    (tmp_path / "here").mkdir()
    here = written(plain(), format_, tmp_path / "here", durable=False)
    place = destination_of(format_, AT)
    report = converter.write(with_config(plain(), format_), place, to=name, **options_of(format_))
    assert report.target == place
    (tmp_path / "there").mkdir()
    copied = local_copy(storage.location_of(place), tmp_path / "there")
    files = {each.relative_to(here): each.read_bytes() for each in (here, *here.rglob("*")) if each.is_file()}
    assert files
    for file, content in files.items():
        if file.name != "fingerprint.pb":
            assert (copied / file).read_bytes() == content
    assert converter.verify(here, place, to=name, **options_of(format_)).counts["mapped"] == len(plain().tensors)


def test_headers_alone_are_read_before_tensors_are(tmp_path: Path) -> None:
    zeros = ArrayTensor.of(np.zeros(1 << 20, np.float32))
    converter.write(converter.Checkpoint(tensors={"a": zeros, "b": zeros}), tmp_path / "x.safetensors")
    upload(tmp_path / "x.safetensors", f"{AT}/x.safetensors")
    checkpoint = converter.read(f"{AT}/x.safetensors")
    assert sum(READ.values()) < 16 << 10
    checkpoint.tensors["a"].numpy()
    assert sum(READ.values()) < (4 << 20) + (16 << 10)


def test_config_and_tokenizer_beside_it_go_along(squad_bert: Path, tmp_path: Path) -> None:
    upload(squad_bert.parent, f"{AT}/squad")
    for destination in (f"{tmp_path}/here/", "memory://other/there/"):
        converter.convert(f"{AT}/squad/checkpoint.pth", destination, to="safetensors")
        there = destination.rstrip("/")
        same(f"{there}/model.safetensors", squad_bert)
    names = {file.rpartition("/")[2] for file in FILES if file.startswith("memory://other/there/")}
    assert names == set(os.listdir(tmp_path / "here"))
    assert "config.json" in names
    assert not any(file.startswith("memory://other/there/") and "ckconv-" in file for file in FILES)


def test_a_prefix_is_found_there_too(tmp_path: Path) -> None:
    path = written(plain(), registry()["tf-checkpoint"], tmp_path)
    upload(tmp_path, AT)
    assert f"{AT}/{path.name}/ckpt.index" in FILES
    same(f"{AT}/{path.name}/ckpt", path)


def test_what_is_there_stays_unless_asked_and_the_source_always(tmp_path: Path) -> None:
    upload(written(plain(), registry()["safetensors"], tmp_path), f"{AT}/x.safetensors")
    converter.convert(f"{AT}/x.safetensors", f"{AT}/y.pth")
    before = dict(FILES)
    with pytest.raises(DestinationExistsError):
        converter.convert(f"{AT}/x.safetensors", f"{AT}/y.pth")
    for own in (f"{AT}/x.safetensors", f"{AT}/x.safetensors/y.pth"):
        with pytest.raises((UsageError, DestinationExistsError)):
            converter.convert(f"{AT}/x.safetensors", own, overwrite=True)
    assert before == FILES
    converter.convert(f"{AT}/x.safetensors", f"{AT}/y.pth", overwrite=True)


def test_nothing_is_put_there_that_was_not_verified(tmp_path: Path) -> None:
    path = written(plain(), registry()["safetensors"], tmp_path)
    with pytest.raises(WriteError, match="is full"):
        converter.convert(path, f"{AT}/full", to="dcp")
    assert not FILES
    upload(path, f"{AT}/x.safetensors")
    whole = FILES[f"{AT}/x.safetensors"]
    FILES[f"{AT}/x.safetensors"] = whole[:-4] + b"\1\2\3\4"
    with pytest.raises(VerificationError):
        converter.verify(path, f"{AT}/x.safetensors")


@pytest.mark.parametrize("name", ["../other", "/etc/passwd", "a/../../b", "memory://bucket/secret"])
def test_no_file_leads_out_of_its_folder(name: str) -> None:
    FILES[f"{AT}/model.safetensors.index.json"] = b'{"weight_map": {"w": "%s"}}' % name.encode()
    FILES[f"{AT}/config.json"] = b"{}"
    with pytest.raises(SafetyError):
        converter.read(AT)


def test_files_appear_in_the_order_in_which_they_name_one_another(monkeypatch: pytest.MonkeyPatch) -> None:
    orders = []
    monkeypatch.setattr(memory_storage.MemoryPlace, "put", lambda self, staged, names: orders.append(list(names)))
    for to in ("dcp", "savedmodel"):
        converter.write(plain(), f"{AT}/{to}", to=to, **options_of(registry()[to]))
    assert orders[0][-1] == ".metadata"
    assert orders[1].index("variables/variables.index") < orders[1].index("saved_model.pb")


def test_a_folder_that_appears_meanwhile_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    FILES[f"{AT}/there/notes.txt"] = b"mine"
    with pytest.raises(DestinationExistsError):
        converter.write(plain(), f"{AT}/there", to="dcp")
    prove = converter.program.prove

    def late(*arguments: Any, **options: Any) -> Any:
        FILES[f"{AT}/new/notes.txt"] = b"mine"
        return prove(*arguments, **options)

    monkeypatch.setattr("converter.program.prove", late)
    with pytest.raises(DestinationExistsError):
        converter.write(plain(), f"{AT}/new", to="dcp")
    assert {f"{AT}/{name}/notes.txt": b"mine" for name in ("there", "new")} == FILES


def test_places_are_one_by_their_address_and_schemes_by_any_case(squad_bert: Path, tmp_path: Path) -> None:
    upload(squad_bert, "memory://x.pth")
    assert storage.location_of("MEMORY://x.pth") == storage.location_of("memory://x.pth")
    assert storage.location_of("memory://x.pth") not in (None, Path("memory://x.pth"), "memory://x.pth")
    for source, destination in (
        ("MEMORY://x.pth", "memory://x.pth"),
        ("memory://x.pth", "memory://"),
        ("memory://", "memory://y"),
    ):
        with pytest.raises(UsageError, match=r"source|cannot be a destination"):
            converter.convert(source, destination, to="safetensors", overwrite=True)
    assert isinstance(storage.location_of("a/x://b"), Path)


@pytest.mark.parametrize("name", ["..", ".", ""])
def test_no_file_is_copied_out_of_its_folder(name: str, tmp_path: Path) -> None:
    FILES[f"{AT}/x/{name}/y"] = b"y"
    with pytest.raises(SafetyError, match="which cannot be the name of a file"):
        local_copy(storage.location_of(f"{AT}/x"), tmp_path)
    assert [each.name for each in tmp_path.rglob("*") if each.is_file()] == []


def test_a_report_goes_beside_no_address(squad_bert: Path, tmp_path: Path) -> None:
    """What goes to another storage is no local folder of that name, and the report is written."""
    with opened(str(tmp_path / "r.json"), source=str(squad_bert), target=f"{AT}/x.pth", overwrite=False) as report:
        assert report is not None
        report.write(converter.convert(squad_bert, f"{AT}/x.pth"))
    assert (tmp_path / "r.json").exists()


@pytest.mark.parametrize(
    ("address", "error"),
    [
        ("memory://nobody/x.pth", ReadError),
        ("s3://bucket/x.pth", UsageError),
        ("S3://bucket/x.pth", UsageError),
    ],
)
def test_addresses_that_cannot_be_read(address: str, error: type[CkconvError]) -> None:
    with pytest.raises(error) as caught:
        converter.read(address)
    assert str(caught.value).startswith(address)


def test_a_folder_that_is_called_like_an_address_is_local(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "memory:").mkdir()
    path = written(plain(), registry()["safetensors"], tmp_path / "memory:")
    same(Path("memory:/x.safetensors"), path)


def test_a_library_that_wants_a_descriptor_gets_one_of_the_same_bytes() -> None:
    FILES[f"{AT}/x"] = bytes(range(256)) * 4096
    file = storage.location_of(f"{AT}/x").open()  # type: ignore[union-attr]
    descriptor = file.fileno()
    assert file.fileno() == descriptor
    assert os.pread(descriptor, 1 << 21, 0) == FILES[f"{AT}/x"]
    assert os.fstat(descriptor).st_nlink == 0
    del file
    with pytest.raises(OSError, match="descriptor"):
        os.fstat(descriptor)


def test_two_kinds_of_one_scheme_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    points = [SimpleNamespace(name=name, value="x", load=lambda: memory_storage.STORAGE) for name in "ab"]
    monkeypatch.setattr("converter.entry_points.metadata.entry_points", lambda *, group: points)
    storage.registry.cache_clear()
    with pytest.raises(UsageError, match="two storages are called 'memory'"):
        storage.registry()
