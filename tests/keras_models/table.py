"""Tables of models that come with Keras: `python -m tests.keras_models.table [--cache DIR] [NAME or pattern ...]`.

Every model of keras.applications from `.keras` to PyTorch and ONNX; one of each family also from the `.h5` and the
SavedModel of tf_keras, and to every target with a graph; recurrent layers in their variants from both frameworks. In
each cell is the largest difference of outputs to Keras's own, or what was refused. Cells that the cache has are not run
again.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from tests.oracle import environment

GRAPHS = ("model.onnx", "model", "model.pt2")
TARGETS = ("model.pth", *GRAPHS)
LIMIT = 1e-5
FAMILIES = (
    *("ConvNeXtTiny", "DenseNet121", "EfficientNetB0", "EfficientNetV2B0", "InceptionResNetV2", "InceptionV3"),
    *("MobileNet", "MobileNetV2", "MobileNetV3Small", "NASNetMobile", "ResNet50", "ResNet50V2", "VGG16", "Xception"),
)
OF_TF_KERAS = ("RegNetX002", "ResNetRS50")
"""Families that Keras 3 has no more."""
_MAKES = "import sys; from tests.keras_models import making; sys.stdout.write(' '.join(making.{what}({framework})))"
_CKCONV = "from converter.cli import main; main()"


@dataclass(frozen=True, order=True)
class Cell:
    """A framework, the name of a model, the file that it saved, and the file that it is converted to."""

    framework: str
    name: str
    file: str
    target: str


def _run(framework: str, *arguments: str, seconds: int = 1800) -> subprocess.CompletedProcess[str]:
    python = environment.PYTHON if framework == "tf_keras" else sys.executable
    own = {**os.environ, "PYTHONPATH": str(environment.ROOT), "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}
    own |= {"KERAS_BACKEND": "tensorflow", "TF_USE_LEGACY_KERAS": str(int(framework == "tf_keras"))}
    if framework == "keras":
        del own["TF_USE_LEGACY_KERAS"]
    return subprocess.run(
        [python, *arguments],
        cwd=environment.ROOT,
        env=own,
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )


def _names(framework: str, what: str) -> list[str]:
    made = f"import {framework}; " + _MAKES.format(what=what, framework=framework)
    return _run(framework, "-c", made).stdout.split()


def cells() -> list[Cell]:
    """Return every cell, in order."""
    found = []
    for name in _names("keras", "applications"):
        found += [
            Cell("keras", name, "model.keras", target) for target in (TARGETS if name in FAMILIES else TARGETS[:2])
        ]
    for name in (*FAMILIES, *OF_TF_KERAS):
        found += [Cell("tf_keras", name, file, target) for file in ("model.h5", "model") for target in TARGETS]
    for framework, file in (("keras", "model.keras"), ("tf_keras", "model.h5")):
        found += [Cell(framework, name, file, target) for name in _names(framework, "recurrent") for target in TARGETS]
    return found


def answer(cell: Cell, folder: Path) -> str:
    """Convert what a cell is about, and return its difference, the refusal, or what is wrong."""
    source = folder / cell.framework / cell.name
    if not (source / "outputs.npz").exists():
        made = _run(cell.framework, "-m", "tests.keras_models.making", cell.framework, str(source.parent), cell.name)
        if made.returncode:
            return f"WRONG: is not made: {made.stderr.strip().splitlines()[-1]}"
    target = folder / "targets" / cell.target
    target.parent.mkdir(exist_ok=True)
    given = [str(source / cell.file), str(target), "--overwrite", "--no-progress", "--optimizer", "drop"]
    done = _run("keras", "-c", _CKCONV, *given, *(["--to", "savedmodel"] if cell.target == "model" else []))
    if done.returncode:
        return f"refused: {done.stderr.strip().splitlines()[-1]}"
    judged = _run("keras", "-m", "tests.keras_models.judging", str(source), str(target))
    if judged.returncode:
        return f"WRONG: does not run: {judged.stderr.strip().splitlines()[-1]}"
    return judged.stdout if is_right(judged.stdout) else f"WRONG: {judged.stdout}"


def is_right(said: str) -> bool:
    """Whether a cell says neither what is wrong nor what was refused."""
    return said == "same numbers" or (said[0].isdigit() and float(said) <= LIMIT)


def answers(wanted: Iterable[Cell], folder: Path) -> dict[Cell, str]:
    """Return what became of each cell; what the folder has is taken from there."""
    folder.mkdir(parents=True, exist_ok=True)
    kept = folder / "answers.jsonl"
    known: dict[Cell, str] = {}
    for line in kept.read_text().splitlines() if kept.exists() else ():
        *cell, said = json.loads(line)
        known[Cell(*cell)] = said
    found = {}
    for cell in wanted:
        if cell not in known:
            known[cell] = answer(cell, folder)
            with kept.open("a") as opened:
                values = [cell.framework, cell.name, cell.file, cell.target, known[cell]]
                opened.write(json.dumps(values) + "\n")
        found[cell] = known[cell]
    return found


def table(found: dict[Cell, str]) -> str:
    """Return cells in Markdown, with the largest difference of each target."""
    lines = [f"| model | file | {' | '.join(TARGETS)} |", "|---" * (len(TARGETS) + 2) + "|"]
    for framework, name, file in dict.fromkeys((cell.framework, cell.name, cell.file) for cell in found):
        said = [found.get(Cell(framework, name, file, target), "") for target in TARGETS]
        lines.append(f"| {name} | {framework} {file} | {' | '.join(said)} |")
    numbers = [float(said) for said in found.values() if said[0].isdigit()]
    kinds = {kind: sum(said.startswith(kind) for said in found.values()) for kind in ("refused", "WRONG")}
    largest = f", the largest difference is {max(numbers):.1e}" if numbers else ""
    return "\n".join([*lines, "", f"{len(found)} cells: {kinds['refused']} refused, {kinds['WRONG']} wrong{largest}"])


def main(names: Sequence[str], cache: Path) -> int:
    wanted = [cell for cell in cells() if any(fnmatchcase(cell.name, name) for name in names or ["*"])]
    found = answers(wanted, cache.resolve())
    print(table(found))
    return sum(not is_right(said) for said in found.values())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.keras_models.table", description=__doc__)
    parser.add_argument("--cache", type=Path, default=Path("keras-models-cache"))
    parser.add_argument("names", nargs="*")
    given = parser.parse_args()
    sys.exit(bool(main(given.names, given.cache)))
