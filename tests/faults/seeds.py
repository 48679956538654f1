"""What mutants are made of: small files of every format, each by the writer that the registry names or by torch.

Checksums catch almost every mutation of a zip archive or a table; so the content of some files is mutated first and
wrapped afterwards, checksums and all, to reach what lies behind them.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import converter
from converter import testing
from converter.encoding import zip as zip_archive
from converter.encoding.leveldb_table import build_table, read_table
from converter.encoding.zip import Record
from converter.execution.streaming import stream
from converter.formats import Format, registry
from converter.model.file import LocalFile
from converter.model.output import OutputFile

LARGEST_BYTES = 64 << 10
_SAMPLES = ("plain", "ties", "dtypes")


@dataclass(frozen=True, slots=True, kw_only=True)
class Seed:
    """A checkpoint at `root`, and the one file of it that is mutated; `wrap` makes the file of mutated `content`."""

    name: str
    format: str
    root: Path
    file: Path
    content: bytes
    wrap: Callable[[bytes], bytes] = bytes


def make_seeds(folder: Path, names: list[str]) -> list[Seed]:
    """Write the seeds of the formats called `names` into `folder`."""
    seeds: list[Seed] = []
    for name in names:
        for root in _written(registry()[name], folder / name):
            seeds += _of_files(name, root)
    return seeds


def _written(format_: Format, folder: Path) -> list[Path]:
    folder.mkdir(parents=True)
    roots = []
    config = folder / "config.json"
    config.write_text('{"model_type": "of-no-table", "hidden_size": 4}')
    for sample in _SAMPLES:
        path = Path(testing.destination_of(format_, str(folder / sample)))
        path.parent.mkdir()
        checkpoint = testing.SAMPLES[sample](format_)
        given: dict[str, Any] = {**testing.options_of(format_), "to": format_.name}
        if format_.name == "pretrained":
            given["config"] = config
        try:
            converter.write(checkpoint, path, **given)
        except converter.CkconvError:
            continue  # what a format cannot hold is for the conformance tests to judge
        roots.append(path)
    return roots + _special(format_, folder)


def _special(format_: Format, folder: Path) -> list[Path]:
    """Write what the samples do not show: legacy files, training state, shards, all that HDF5 can be."""
    if format_.name == "h5":
        return [_hierarchy(folder / f"{version}.h5", version) for version in ("earliest", "latest")]
    if format_.name not in ("pytorch", "pretrained", "safetensors"):
        return []
    trained = folder / "trained.pth"
    _train(trained, is_zip=True)
    match format_.name:
        case "pytorch":
            _train(folder / "legacy.pth", is_zip=False)
            return [trained, folder / "legacy.pth"]
        case "pretrained":
            options = {"to": "pretrained", "config": folder / "config.json", "max_shard_size": "100"}
            converter.convert(trained, folder / "trained", **options)
            return [folder / "trained"]
        case _:
            converter.convert(trained, f"{folder}/shards/", to="safetensors", max_shard_size="100")
            return [folder / "shards"]


def _hierarchy(path: Path, version: str) -> Path:
    """Write an HDF5 file in the structures of an old or a new version, with every way to store a dataset.

    It lists no layers: so every dataset is read.
    """
    import h5py
    import numpy as np

    compact = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    compact.set_layout(h5py.h5d.COMPACT)
    array = np.arange(60, dtype="f4").reshape(10, 6)
    with h5py.File(path, "w", libver=version, track_order=version == "latest") as file:
        for number in range(12):  # enough for groups and attributes to leave the object header
            group = file.create_group(f"layer{number}")
            group.attrs["weight_names"] = np.array([b"w:0"])
            group["w:0"] = array[number % 3]
        for number in range(12):
            file["layer0"].attrs[f"ckconv_{number}"] = "x" * number
        file.create_dataset("other/one chunk", data=array, chunks=(10, 6))
        file.create_dataset("other/fixed", data=array, chunks=(3, 4), compression="gzip", shuffle=True, fletcher32=True)
        file.create_dataset("other/growing", data=array, chunks=(3, 4), maxshape=(None, 6), compression="lzf")
        file.create_dataset("other/growing twice", data=array, chunks=(3, 4), maxshape=(None, None))
        file.create_dataset("other/compact", data=array[0], dcpl=compact)
        file.create_dataset("other/big-endian", data=array[0].astype(">f8"))
        file.create_dataset("other/partly", (9, 9), ">i4", chunks=(2, 2), fillvalue=7)[0, 0] = 1
        file.create_dataset("other/text", data=["a", "bc"])
        file["again"] = file["other/compact"]
    return path


def _train(path: Path, *, is_zip: bool) -> None:
    import argparse
    import collections

    import numpy as np
    import torch

    model = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.ones(4, 3)).sum().backward()
    optimizer.step()
    value = {
        "state_dict": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "epoch": 3,
        "args": argparse.Namespace(rate=1e-3, path="/tmp/x"),
        "history": collections.deque([1.5, 2.5]),
        "best": np.float64(0.5),
        "array": np.arange(6, dtype=">i4").reshape(2, 3),
        "parameter": torch.nn.Parameter(torch.ones(2, 2).t()),
        "seen": {1, 2, (3, "x")},
    }
    torch.save(value, path, _use_new_zipfile_serialization=is_zip)


def _of_files(name: str, root: Path) -> list[Seed]:
    files = sorted(file for file in root.rglob("*") if file.is_file()) if root.is_dir() else [root]
    found = []
    for file in files:
        content = file.read_bytes()
        if len(content) <= LARGEST_BYTES:
            title = f"{name}: {root.parent.name}/{file.relative_to(root.parent)}"
            seed = Seed(name=title, format=name, root=root, file=file, content=content)
            found += [seed, *_wrapped(seed)]
    return found


def _wrapped(seed: Seed) -> list[Seed]:
    if seed.content.startswith(b"PK\x03\x04"):
        return _zip_members(seed)
    if seed.file.suffix == ".index":
        return [_table(seed)]
    return []


def _zip_members(seed: Seed) -> list[Seed]:
    file = LocalFile(seed.file)
    try:
        members = zip_archive.read_members(file)
    except converter.CkconvError:
        return []  # several archives in a row, as torch.distributed writes them
    contents = {
        name: zip_archive.read_bytes(file, member, limit_bytes=LARGEST_BYTES) for name, member in members.items()
    }

    def wrap_as(changed: str) -> Callable[[bytes], bytes]:
        def wrap(content: bytes) -> bytes:
            records = [Record(name=name, content=data) for name, data in (contents | {changed: content}).items()]
            return _archive(records, seed.file.parent)

        return wrap

    return [
        Seed(
            name=f"{seed.name}, inside {name}",
            format=seed.format,
            root=seed.root,
            file=seed.file,
            content=content,
            wrap=wrap_as(name),
        )
        for name, content in contents.items()
        if name.endswith((".pkl", ".json", ".h5", "byteorder"))
    ]


def _archive(records: list[Record], folder: Path) -> bytes:
    path = folder / "archive.tmp"
    path.unlink(missing_ok=True)
    stream(OutputFile(name=path.name, pieces=zip_archive.archive(records)), folder)
    data = path.read_bytes()
    path.unlink()
    return data


def _table(seed: Seed) -> Seed:
    """The entries of a table, one after the other; a mutation of their lengths moves what follows."""
    entries = [(bytes(key), bytes(value)) for key, value in read_table(LocalFile(seed.file))]
    content = b"".join(struct.pack("<2H", len(key), len(value)) + key + value for key, value in entries)

    def wrap(content: bytes) -> bytes:
        data, entries = io.BytesIO(content), []
        while len(head := data.read(4)) == 4:
            key, value = (data.read(length) for length in struct.unpack("<2H", head))
            entries.append((key, value))
        return build_table(entries)

    title = f"{seed.name}, behind its checksums"
    return Seed(name=title, format=seed.format, root=seed.root, file=seed.file, content=content, wrap=wrap)
