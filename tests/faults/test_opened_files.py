"""What a conversion of weights opens: the source and siblings of fixed names, and the destination; nothing else."""

from __future__ import annotations

import os
import shutil
import site
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

import converter
from converter.encoding.folder import ASSET_NAMES, CONFIG_NAME
from tests.conftest import ROOT
from tests.faults.conversions import write_source
from tests.faults.opened import Access, accesses

SYSTEM = ("/usr", "/lib", "/lib64", "/bin", "/etc", "/proc", "/sys", "/dev")
DECOYS = ("training_args.bin", "modeling.py", "secret.txt", "other.pth", "vocab.pkl", ".env", "converter.py")
KERAS_MODEL = ROOT / "fixtures" / "names" / "bert_func_savedmodel"
CONVERSIONS = {
    "pytorch to safetensors": ("pytorch", "x.safetensors", []),
    "pytorch to pytorch": ("pytorch", "x.pth", []),
    "pytorch to pretrained": ("pytorch", "x", ["--to", "pretrained"]),
    "h5 to safetensors": ("h5", "x.safetensors", []),
    "h5 to keras": ("h5", "x.weights.h5", ["--weights-only"]),
    "savedmodel to safetensors": ("savedmodel", "x.safetensors", []),
    "a model's savedmodel to pretrained": ("of a model", "x", ["--to", "pretrained"]),
    "savedmodel to shards": ("savedmodel", "x/", ["--to", "safetensors", "--max-shard-size", "1KB"]),
}


def is_inside(path: Path, folders: Iterable[str | Path]) -> bool:
    return any(path.is_relative_to(folder) or path.is_relative_to(os.path.realpath(folder)) for folder in folders)


def strangers(found: Iterable[Access], source: Path, destination: Path) -> list[Access]:
    """Return what of `found` has no business being touched."""
    python = {sys.prefix, sys.base_prefix, sys.exec_prefix, *site.getsitepackages(), site.getusersitepackages()}
    readable = {*SYSTEM, *python, ROOT / "converter", source, destination}
    beside = source.parent.parent if source.parts[-2:] == ("saved_model", "1") else source.parent
    exact = {beside / name for name in (CONFIG_NAME, *ASSET_NAMES)} | {destination.parent, ROOT, beside}
    wrong = []
    for access in found:
        inside = (
            access.path.relative_to(destination.parent).parts if is_inside(access.path, [destination.parent]) else ()
        )
        is_staged = bool(inside) and inside[0].startswith(".ckconv-")
        is_ours = is_staged or is_inside(access.path, [destination]) or access.path == Path(os.devnull)
        if not (is_ours or (not access.is_write and (is_inside(access.path, readable) or access.path in exact))):
            wrong.append(access)
    return wrong


@pytest.fixture
def source_of(squad_bert: Path, tmp_path: Path) -> dict[str, Path]:
    """A source of each format, among files that nobody asked for."""
    sources = {"pytorch": tmp_path / "pytorch" / "checkpoint.pth", "savedmodel": tmp_path / "saved" / "model"}
    sources["h5"] = tmp_path / "hdf5" / "x.h5"
    sources["of a model"] = tmp_path / "of" / "saved_model" / "1"
    for path in sources.values():
        path.parent.mkdir(parents=True)
    shutil.copy(squad_bert, sources["pytorch"])
    small = write_source(tmp_path / "saved" / "small.safetensors", mebibytes=1)
    converter.convert(small, sources["savedmodel"], to="savedmodel", weights_only=True)
    converter.convert(small, sources["h5"], weights_only=True)
    shutil.copytree(KERAS_MODEL / "saved_model", sources["of a model"])
    shutil.copy(KERAS_MODEL / CONFIG_NAME, tmp_path / "of")
    (tmp_path / "of" / "vocab.txt").write_text("[PAD]\n")
    parents = [path.parent for path in sources.values()]
    for folder in (*parents, tmp_path / "of", sources["savedmodel"], sources["of a model"]):
        for name in DECOYS:
            (folder / name).write_text("raise SystemExit('opened')")
    for name in (CONFIG_NAME, "vocab.txt", "tokenizer.json"):
        if (squad_bert.parent / name).exists():
            shutil.copy(squad_bert.parent / name, sources["pytorch"].parent / name)
    return sources


@pytest.mark.parametrize("conversion", CONVERSIONS)
def test_only_what_must_be_opened_is(conversion: str, source_of: dict[str, Path], tmp_path: Path) -> None:
    kind, entry, options = CONVERSIONS[conversion]
    source, out, logs = source_of[kind], tmp_path / "out", tmp_path / "logs"
    out.mkdir()
    logs.mkdir()
    command = [sys.executable, "-m", "converter", os.fspath(source), f"{out}/{entry}", "--quiet", *options]
    found = list(accesses(command, logs))
    destination = out / entry.rstrip("/")
    assert strangers(found, source, destination) == []
    decoys = [access for access in found if access.path.name in DECOYS]
    assert decoys == []
    read = {access.path for access in found if not access.is_write}
    written = {access.path for access in found if access.is_write}
    assert any(is_inside(path, [source]) for path in read)
    assert destination in written


def test_what_is_opened_elsewhere_is_noticed(tmp_path: Path) -> None:
    program = (
        "import os, sys\n"
        "open('decoy').read()\n"
        "folder = os.open('.', os.O_RDONLY)\n"
        "os.open('created', os.O_WRONLY | os.O_CREAT, dir_fd=folder)\n"
        "os.rename(os.path.abspath('created'), os.path.abspath('renamed'))\n"
        "os.system('cat decoy > shell')\n"
    )
    for name in ("work", "logs"):
        (tmp_path / name).mkdir()
    (tmp_path / "work" / "decoy").write_text("x")
    command = ["env", "--chdir", f"{tmp_path}/work", sys.executable, "-c", program]
    found = strangers(accesses(command, tmp_path / "logs"), tmp_path / "source" / "x", tmp_path / "out" / "x")
    seen = {(access.path.name, access.is_write) for access in found if access.path.parent == tmp_path / "work"}
    assert seen >= {("decoy", False), ("created", True), ("renamed", True), ("shell", True)}
