"""The command `python -m tests.mutants`; see the package."""

from __future__ import annotations

import argparse
import importlib
import os
import pkgutil
import random
import shlex
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import tests.mutants as package
from tests.conftest import ROOT
from tests.mutants import Fault

_COPIED = (
    "converter",
    "tests",
    "fixtures",
    "pyproject.toml",
    "README.md",
    "CHANGELOG.md",
    "constraints.txt",
    "LICENSE",
)
_TESTS_FAILED = 1  # pytest's exit code; 2 says that collecting failed, 4 and 5 that there are no such tests
_LIMIT_SECONDS = 180
_WIDTH = 100


def areas() -> dict[str, tuple[Fault, ...]]:
    """Return the faults of each area: a module of this package with a constant FAULTS."""
    names = sorted(each.name for each in pkgutil.iter_modules(package.__path__) if each.name.startswith("of_"))
    return {name.removeprefix("of_"): importlib.import_module(f"{package.__name__}.{name}").FAULTS for name in names}


def planted(fault: Fault, root: Path) -> str:
    """Return the text of the module with the fault in it. Raises ValueError when there is no one place for it."""
    text = (root / "converter" / fault.module).read_text(encoding="utf-8")
    if fault.old == fault.new or text.count(fault.old) != 1:
        raise ValueError(f"{fault.module}: {fault.old!r} stands there {text.count(fault.old)} times")
    return text.replace(fault.old, fault.new)


class _Copies:
    """Copies of the tree, one for each worker, in which faults are planted and taken out again."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._free: list[Path] = []
        self._lock = threading.Lock()
        self._count = 0

    @contextmanager
    def one(self) -> Iterator[Path]:
        with self._lock:
            copy = self._free.pop() if self._free else None
            self._count += copy is None
            number = self._count
        if copy is None:
            copy = self._folder / str(number)
            for name in _COPIED:
                source = ROOT / name
                if source.is_dir():
                    shutil.copytree(source, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
                else:
                    copy.mkdir(exist_ok=True)
                    shutil.copy(source, copy / name)
        try:
            yield copy
        finally:
            with self._lock:
                self._free.append(copy)


def outcome(fault: Fault, copy: Path) -> str:
    """Return "caught", "survived", or what is wrong with the fault itself."""
    place = copy / "converter" / fault.module
    whole = place.read_text(encoding="utf-8")
    try:
        place.write_text(planted(fault, copy), encoding="utf-8")
        # Bytecode is told from its source by time and size: a fault of the same size within a second would not be seen.
        os.utime(place, ns=(0, random.Random(repr(fault)).randrange(10**18)))
        code = _run(fault.tests, copy)
    except ValueError as error:
        return f"not planted: {error}"
    except subprocess.TimeoutExpired:
        return "caught"
    finally:
        place.write_text(whole, encoding="utf-8")
    if code == _TESTS_FAILED:
        return "caught"
    return "survived" if code == 0 else f"pytest ends with {code}"


def _run(tests: str, copy: Path) -> int:
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *shlex.split(tests)]
    environment = {**os.environ, "PYTHONPATH": os.fspath(copy)}
    completed = subprocess.run(
        command, cwd=copy, env=environment, capture_output=True, timeout=_LIMIT_SECONDS, check=False
    )
    return completed.returncode


def main(arguments: Sequence[str] | None = None) -> int:
    """Plant faults and print what became of each. Returns 1 when one was not caught that should have been."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=package.__doc__)
    parser.add_argument("--area", choices=sorted(areas()), action="append")
    parser.add_argument("--only", default="")
    parser.add_argument("--seconds", type=float, default=float("inf"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--baseline", action="store_true", help="first run the named tests without any fault")
    given = parser.parse_args(arguments)
    chosen = [
        (area, fault)
        for area, faults in areas().items()
        for fault in faults
        if given.area in (None, [area]) or area in (given.area or ())
        if given.only in fault.module or given.only in fault.what
    ]
    if given.seconds != float("inf"):
        random.Random(given.seed).shuffle(chosen)
    counts: Counter[str] = Counter()
    bad = 0
    end = time.monotonic() + given.seconds
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder, ThreadPoolExecutor(given.workers) as pool:
        copies = _Copies(Path(folder))
        if given.baseline:
            for tests in sorted({fault.tests for _, fault in chosen}):
                with copies.one() as copy:
                    if _run(tests, copy) != 0:
                        print(f"fails without any fault: {tests}", flush=True)
                        bad += 1

        def planted_one(each: tuple[str, Fault]) -> str:
            if time.monotonic() > end:
                return "left out"
            with copies.one() as copy:
                return outcome(each[1], copy)

        for (area, fault), found in zip(chosen, pool.map(planted_one, chosen), strict=True):
            counts[found if found in ("caught", "survived", "left out") else "wrong"] += 1
            is_expected = found == ("caught" if fault.survives is None else "survived")
            if not is_expected and found != "left out":
                bad += 1
            if found != "left out" and (found != "caught" or not is_expected):
                said = f" ({fault.survives})" if fault.survives else ""
                print(f"{found}: {area}: {fault.module}: {fault.what}{said}"[: 2 * _WIDTH], flush=True)
    print(", ".join(f"{count} {name}" for name, count in sorted(counts.items())) + f" of {len(chosen)} faults")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
