"""What becomes of the zoo: `python -m tests.graphs.zoo_report [--full] [--seed N] [--workers N] [CLASS ...]`.

Every model is traced and run by torch in one process, built and run by TensorFlow in another. A table, and the
failures by name, with the reason. Without --full and names a part of the zoo, chosen by the seed.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.graphs.zoo import OTHERS, ZOO, Model

ROOT = Path(__file__).parents[2]
SHARE = 12
TOLERANCE = 1e-4
GRADIENT_TOLERANCE = 2e-2
"""Of a parameter's own scale: sums of squares over whole outputs, in float32, by two frameworks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What became of a model; a field is None where nothing is wrong."""

    model: Model
    onnx: str | None
    saved_model: str | None
    figures: str

    @property
    def is_good(self) -> bool:
        """Whether ONNX and SavedModel are both as they should be."""
        return self.onnx is None and self.saved_model is None


def part(seed: int) -> list[Model]:
    """Return the twelfth of the zoo that is the seed's turn; twelve seeds in a row have all of it."""
    order = list(ZOO)
    random.Random(20180611).shuffle(order)
    return order[seed % SHARE :: SHARE]


def examine(models: Sequence[Model], folder: Path, workers: int = 1) -> list[Result]:
    """Run both halves for each model, in `workers` pairs of processes, one after the other."""
    shares = [models[worker::workers] for worker in range(workers)]

    def run(share: Sequence[Model]) -> None:
        names = [model.architecture for model in share]
        run_half("zoo_torch", names, folder)
        run_half("zoo_tensorflow", [name for name in names if "error" not in _read(folder, name, "torch")], folder)

    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(run, shares))
    return [result(model, folder) for model in models]


def run_half(half: str, names: Sequence[str], folder: Path) -> None:
    """Run one half for each model in turn. One that ends its process is noted, the next ones have another process."""
    answer = half.removeprefix("zoo_")
    for name in names:
        (folder / name / f"{answer}.json").unlink(missing_ok=True)
    waiting = list(names)
    while waiting:
        ended = subprocess.run(
            [sys.executable, "-m", f"tests.graphs.{half}", os.fspath(folder), *waiting],
            cwd=ROOT,
            env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=False,
        )
        waiting = [name for name in waiting if not (folder / name / f"{answer}.json").exists()]
        if waiting:
            died = folder / waiting.pop(0)
            died.mkdir(parents=True, exist_ok=True)
            (died / f"{answer}.json").write_text(json.dumps({"error": f"the process died ({ended.returncode})"}))


def _read(folder: Path, architecture: str, half: str) -> dict[str, Any]:
    file = folder / architecture / f"{half}.json"
    found: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {"error": "the process died"}
    return found


def result(model: Model, folder: Path) -> Result:
    """Read what both halves left of a model in `folder`."""
    torch, tensorflow = (_read(folder, model.architecture, half) for half in ("torch", "tensorflow"))
    if "error" in torch:
        return Result(model=model, onnx=torch["error"], saved_model="has no graph", figures="")
    onnx = None if torch["onnx"] <= TOLERANCE else f"outputs differ by {torch['onnx']:.1e}"
    figures = f"onnx {torch['onnx']:.1e}"
    if "error" in tensorflow:
        return Result(model=model, onnx=onnx, saved_model=tensorflow["error"], figures=figures)
    figures += f", SavedModel {tensorflow['outputs']:.1e}, gradients of {tensorflow['gradient_count']}"
    figures += f" {tensorflow['gradients']:.1e}"
    return Result(model=model, onnx=onnx, saved_model=_wrong(tensorflow), figures=figures)


def _wrong(found: dict[str, Any]) -> str | None:
    if not found["outputs"] <= TOLERANCE:
        return f"outputs differ by {found['outputs']:.1e}"
    if found["names"]:
        return f"variables are not the checkpoint's: {', '.join(found['names'][:3])}"
    if found["without_gradient"]:
        return f"no gradient for {', '.join(found['without_gradient'][:3])}"
    if not found["gradients"] <= GRADIENT_TOLERANCE:
        return f"gradients of {found['gradient_name']} differ by {found['gradients']:.1e}"
    return None


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="*", metavar="CLASS")
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument(
        "--folder", type=Path, help="where to leave the files, and to take those of an earlier run from"
    )
    arguments = parser.parse_args()
    models = list(ZOO) if arguments.full else part(arguments.seed)
    if arguments.names:
        models = [model for model in (*ZOO, *OTHERS) if model.architecture in arguments.names]
    folder = arguments.folder or Path(tempfile.mkdtemp(prefix="zoo-"))
    try:
        done = [model for model in models if (folder / model.architecture / "tensorflow.json").exists()]
        examine([model for model in models if model not in done], folder, arguments.workers)
        results = [result(model, folder) for model in models]
    finally:
        if arguments.folder is None:
            shutil.rmtree(folder, ignore_errors=True)
    for each in results:
        print(f"{'ok  ' if each.is_good else 'FAIL'} {each.model.architecture:46} {each.figures}")
    _summary(results)
    sys.exit(any(not each.is_good and each.model.why_not is None for each in results))


def _summary(results: Sequence[Result]) -> None:
    print()
    for each in results:
        for kind, wrong in (("ONNX", each.onnx), ("SavedModel", each.saved_model)):
            if wrong is not None:
                known = "" if each.model.why_not is None else f" [{each.model.why_not}]"
                print(f"{each.model.architecture}: {kind}: {wrong}{known}")
    types = len({each.model.model_type for each in results})
    onnx = sum(each.onnx is None for each in results)
    saved = sum(each.saved_model is None for each in results)
    print(f"{len(results)} models of {types} architectures: ONNX {onnx}, SavedModel {saved}")
    print(f"left out: {len(ZOO) - len(results)}")


if __name__ == "__main__":
    main()
