"""Coverage-guided fuzzing of one reader: only a CkconvError may come out of it, soon, and in bounded memory.

``pip install atheris``, then ``python -m tests.faults.coverage_guided pickle -max_total_time=300``: one of pickle, zip,
json, msgpack, protobuf, leveldb, safetensors, or any format that is one file; then options of libFuzzer. An input that
does harm is written to the current folder, as ``crash-...``, ``timeout-...`` or ``oom-...``.

Inputs start from the same files as the seeded mutants. Wherever bytes come from, ``SEEDS`` says: format and ending.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

LIMITS = ("-timeout=5", "-rss_limit_mb=1536", "-max_len=65536")
SEEDS = {
    "pickle": ("pytorch", ".pkl"),
    "zip": ("pytorch", ".pth"),
    "json": ("pretrained", ".json"),
    "msgpack": ("flax", ".msgpack"),
    "protobuf": ("onnx", ".onnx"),
    "leveldb": ("tf-checkpoint", ".index"),
    "safetensors": ("safetensors", ".safetensors"),
}


def reader_of(name: str) -> Callable[[Path], object]:
    """Return what reads a file: an encoding whole, or a format with every tensor."""
    from converter.encoding import json, leveldb_table, msgpack, protobuf
    from converter.encoding import zip as zip_archive
    from converter.encoding.pickle import PLAIN, Machine, MemoryBytes
    from converter.model.file import LocalFile
    from tests.faults.mutants import read_all

    def unzip(path: Path) -> None:
        file = LocalFile(path)
        for member in zip_archive.read_members(file).values():
            zip_archive.read_bytes(file, member, limit_bytes=1 << 24)

    def parse(data: memoryview, depth: int = 0) -> None:
        for _, _, value in protobuf.fields(data):
            if isinstance(value, memoryview) and depth < 4:
                try:
                    parse(value, depth + 1)
                except protobuf.ReadError:
                    continue  # text, not a message

    encodings: dict[str, Callable[[Path], object]] = {
        "pickle": lambda path: Machine(
            MemoryBytes(path.read_bytes()), path=path, constructors=PLAIN, persistent=lambda identity: None
        ).load(),
        "zip": unzip,
        "json": lambda path: json.loads(path.read_bytes(), path=path, what="it"),
        "msgpack": lambda path: msgpack.read(LocalFile(path)),
        "protobuf": lambda path: parse(memoryview(path.read_bytes())),
        "leveldb": lambda path: list(leveldb_table.read_table(LocalFile(path))),
    }
    return encodings.get(name, lambda path: read_all(path, name))


def write_corpus(name: str, folder: Path) -> int:
    """Write what fuzzing starts from; return how many files that is."""
    from tests.faults.seeds import make_seeds

    format_name, ending = SEEDS.get(name, (name, ""))
    (folder / "corpus").mkdir()
    seeds = make_seeds(folder / "seeds", [format_name])
    contents = {
        seed.content for seed in seeds if seed.name.endswith(ending) or (ending == ".index" and ".index" in seed.name)
    }
    for number, content in enumerate(sorted(contents)):
        (folder / "corpus" / str(number)).write_bytes(content)
    return len(contents)


def main() -> None:
    """Run from the command line, until libFuzzer ends."""
    import atheris

    name, *options = sys.argv[1:]
    with atheris.instrument_imports(include=["converter"]):
        import converter

        read = reader_of(name)
    with tempfile.TemporaryDirectory(prefix="fuzzing-") as folder:
        print(f"{write_corpus(name, Path(folder))} files to start from")
        descriptor = os.memfd_create("input")
        path = Path(f"/proc/self/fd/{descriptor}")

        def judge(data: bytes) -> None:
            os.truncate(descriptor, 0)
            os.pwrite(descriptor, data, 0)
            try:
                read(path)
            except converter.CkconvError as error:
                if len(str(error).splitlines()) != 1:
                    raise ValueError("a message of several lines") from error

        process = os.fork()
        if process != 0:  # libFuzzer ends its process where it stands; the folder is for this one to remove
            sys.exit(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]))
        atheris.Setup([sys.argv[0], *LIMITS, *options, f"{folder}/corpus"], judge)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
