"""Sources made, converted and judged in processes of their own; answers are kept in a file of JSON lines."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tests.migrations.sources import SOURCES, TARGETS, Source
from tests.oracle import environment

ROOT = environment.ROOT
_ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": str(ROOT),
    "HF_HUB_OFFLINE": "1",
    "CUDA_VISIBLE_DEVICES": "",
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "KERAS_BACKEND": "tensorflow",
}
_CKCONV = "from converter.cli import main; main()"
_TRIES = 4


@dataclass(frozen=True, kw_only=True)
class Try:
    """One command, the line that it ended in, and all that it printed."""

    options: list[str]
    code: int
    said: str
    seconds: float
    told: str = ""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """What became of one source and one target."""

    source: str
    target: str
    tries: list[Try] = field(default_factory=list)
    difference: float | None = None
    wrong: str | None = None

    @property
    def is_refused(self) -> bool:
        return self.tries[-1].code != 0

    @property
    def is_wrong(self) -> bool:
        off = self.difference
        return not self.is_refused and (self.wrong is not None or off is None or off > SOURCES[self.source].right)

    def __str__(self) -> str:
        times = f" x{len(self.tries)}" if len(self.tries) > 1 else ""
        if self.is_refused:
            return f"refused{times}: {self.tries[-1].said}"
        if self.wrong is not None:
            return f"WRONG{times}: {self.wrong}"
        return f"{'WRONG: ' if self.is_wrong else ''}{self.difference:.1e}{times}"


def _of_json(text: str) -> Cell:
    values = json.loads(text)
    return Cell(**{**values, "tries": [Try(**each) for each in values["tries"]]})


class Cache:
    """A folder of sources and answers, which a later run goes on from."""

    def __init__(self, folder: Path, *, is_training: bool = False) -> None:
        self.folder = folder.resolve()
        self.sources = self.folder / "sources"
        self.is_training = is_training
        self._answers = self.folder / ("trained.jsonl" if is_training else "cells.jsonl")
        self._targets = self.folder / ("trained" if is_training else "targets")
        self.sources.mkdir(parents=True, exist_ok=True)

    def cells(self) -> dict[tuple[str, str], Cell]:
        """Every cell that was judged; of one that was judged again, the last answer."""
        lines = self._answers.read_text().splitlines() if self._answers.exists() else []
        return {(cell.source, cell.target): cell for cell in map(_of_json, lines)}

    def keep(self, cell: Cell) -> None:
        with self._answers.open("a") as answers:
            answers.write(json.dumps(asdict(cell)) + "\n")

    def make(self, names: Iterable[str]) -> None:
        """Make the sources that are not there, those of one framework in one process."""
        missing = [SOURCES[name] for name in names if not (self.sources / name / "after.npz").exists()]
        for maker in sorted({source.maker for source in missing}):
            groups = sorted({source.group for source in missing if source.maker == maker})
            _run(maker == "tensorflow", f"tests.migrations.make_{maker}", str(self.sources), *groups)

    def converted(self, name: str, target: str) -> Cell:
        """Convert as the source's author would; give what is at hand when a refusal asks for it."""
        source = SOURCES[name]
        to = self._targets / name / target
        given: list[str] = []
        unsaid = {"--hyperparameter": source.hyperparameters} if self.is_training else {"--optimizer": "drop"}
        at_hand = {**source.at_hand, **unsaid}
        tries = []
        while len(tries) < _TRIES:
            shutil.rmtree(to, ignore_errors=True)
            to.mkdir(parents=True)
            tries.append(self._convert(source, target, given))
            is_done = tries[-1].code == 0 and not (self.is_training and "optimizer dropped" in tries[-1].said)
            named = [option for option in at_hand if re.search(rf"{option}\b(?!-)", tries[-1].told)]
            if is_done or not named:
                break
            values = at_hand.pop(named[0]).split()
            given = [*given, *(each for value in values for each in (named[0], value))]
        return Cell(source=name, target=target, tries=tries)

    def place(self, source: Source, target: str) -> Path:
        names = {"pytorch": "model.pth", "safetensors": "model.safetensors", "onnx": "model.onnx", "pt2": "model.pt2"}
        names |= {"h5": source.h5, "keras": "model.keras"}
        return self._targets / source.name / target / names.get(target, "model")

    def _convert(self, source: Source, target: str, given: Sequence[str]) -> Try:
        format_ = {"tf": ["--to", "pretrained", "--flavor", "tf"]}.get(target, ["--to", target])
        to = format_ if target in ("pretrained", "savedmodel", "tf") else []
        options = [*to, *given]
        begun = time.monotonic()
        place = self.place(source, target)
        done = subprocess.run(
            [sys.executable, "-c", _CKCONV, source.path, str(place), "--no-progress", *options],
            cwd=self.sources / source.name,
            env=_ENVIRONMENT,
            capture_output=True,
            text=True,
            check=False,
            timeout=900,
        )
        ended = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1]
        return Try(
            options=options,
            code=done.returncode,
            said=ended.replace(str(place), "DST"),
            told=done.stderr + done.stdout,
            seconds=round(time.monotonic() - begun, 2),
        )

    def judge(self, cells: Sequence[Cell]) -> list[Cell]:
        """Load what was written in its framework, all of one environment in one process."""
        judged = []
        for is_apart in (False, True):
            of_one = [cell for cell in cells if not cell.is_refused and _is_apart(cell) == is_apart]
            tasks = [
                {
                    "source": cell.source,
                    "target": cell.target,
                    "folder": str(self.sources / cell.source),
                    "expected": "after.npz" if self.is_training else "expected.npz",
                    "path": str(self.place(SOURCES[cell.source], cell.target)),
                }
                for cell in of_one
            ]
            if not tasks:
                continue
            module = (
                f"tests.migrations.{'train' if self.is_training else 'judge'}_{'tensorflow' if is_apart else 'here'}"
            )
            said = _run(is_apart, module, given="\n".join(map(json.dumps, tasks)))
            answers = {(each["source"], each["target"]): each for each in map(json.loads, said.splitlines())}
            for cell in of_one:
                answer = answers[cell.source, cell.target]
                judged.append(
                    Cell(
                        source=cell.source,
                        target=cell.target,
                        tries=cell.tries,
                        difference=answer.get("difference"),
                        wrong=answer.get("wrong"),
                    )
                )
        return [cell for cell in cells if cell.is_refused] + judged


def _is_apart(cell: Cell) -> bool:
    """Whether the second environment judges it."""
    return cell.target == "tf" or (cell.target in ("h5", "keras") and SOURCES[cell.source].maker != "keras3")


def _run(is_apart: bool, module: str, *arguments: str, given: str = "") -> str:
    python = environment.PYTHON if is_apart else sys.executable
    variables = {**_ENVIRONMENT, **({"TF_USE_LEGACY_KERAS": "1"} if is_apart else {})}
    done = subprocess.run(
        [python, "-m", module, *arguments],
        cwd=ROOT,
        env=variables,
        input=given,
        capture_output=True,
        text=True,
        check=False,
        timeout=3000,
    )
    if done.returncode:
        raise RuntimeError(f"{module}: {done.stderr[-3000:]}")
    return done.stdout


def run(cache: Cache, cells: Sequence[tuple[str, str]], seconds: float, at_once: int = 24) -> list[Cell]:
    """Convert and judge, a few at once, until there is no time left."""
    begun = time.monotonic()
    done: list[Cell] = []
    cache.make(dict.fromkeys(source for source, _ in cells))
    for start in range(0, len(cells), at_once):
        part = [cache.converted(*cell) for cell in cells[start : start + at_once]]
        for cell in cache.judge(part):
            cache.keep(cell)
            done.append(cell)
        if time.monotonic() - begun > seconds:
            break
    return done


def chosen(sources: Iterable[str], targets: Iterable[str]) -> list[tuple[str, str]]:
    """Cells by target, as one judge's frameworks are then loaded once."""
    names = list(sources)
    return [(source, target) for target in TARGETS if target in set(targets) for source in names]
