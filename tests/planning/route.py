"""The way of a checkpoint through the modules of converter/, counted: ``python -m tests.planning.route SRC DST``.

A visit is a call from one module of converter/ into another, a climb one into a layer above the caller's by the import
contract of pyproject.toml: what was handed down is called from below.
"""

from __future__ import annotations

import inspect
import os
import re
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import converter
from tests.conftest import ROOT

_HOUSE = os.fspath(ROOT / "converter") + os.sep


def layers() -> list[tuple[str, ...]]:
    """Return the layers of the import contract, the uppermost first; modules of one stand side by side."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    listed = re.search(r'"Imports run downwards only".*?layers = \[(.*?)\]', text, re.DOTALL)
    assert listed is not None
    return [tuple(layer.split(" | ")) for layer in re.findall(r'"([^"]+)"', listed[1])]


@dataclass
class Route:
    """What was counted: (caller, callee) -> calls, of visits and of climbs."""

    visits: Counter[tuple[str, str]] = field(default_factory=Counter)
    climbs: Counter[tuple[str, str]] = field(default_factory=Counter)

    def of(self, package: str) -> int:
        """Return how many visits were of modules of a package, from outside of the one that was called."""
        return sum(count for (_, callee), count in self.visits.items() if f"{callee}.".startswith(f"{package}."))


class _Profile:
    def __init__(self) -> None:
        self.route = Route()
        self._layers = layers()
        self._ranks: dict[str, int] = {}

    def __call__(self, frame: FrameType, event: str, argument: Any) -> None:
        if event != "call" or not frame.f_code.co_filename.startswith(_HOUSE) or _is_inner(frame):
            return
        caller = frame.f_back
        while caller is not None and not caller.f_code.co_filename.startswith(_HOUSE):
            caller = caller.f_back
        if caller is None or caller.f_code.co_filename == frame.f_code.co_filename:
            return
        pair = (_module(caller), _module(frame))
        self.route.visits[pair] += 1
        if 0 <= self._rank(pair[1]) < self._rank(pair[0]):
            self.route.climbs[pair] += 1

    def _rank(self, module: str) -> int:
        if module not in self._ranks:
            found = [
                number
                for number, layer in enumerate(self._layers)
                if any(f"{module}.".startswith(f"{each}.") for each in layer)
            ]
            self._ranks[module] = found[0] if found else -1
        return self._ranks[module]


def _is_inner(frame: FrameType) -> bool:
    """Whether a call is a step of one that was counted: a generator that goes on, a comprehension, a lambda."""
    goes_on = bool(frame.f_code.co_flags & inspect.CO_GENERATOR) and frame.f_lasti > 0
    return goes_on or frame.f_code.co_name.startswith("<")


def _module(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", ""))


def counted(source: Path, target: Path, **options: Any) -> Route:
    """Convert, and return the way that the checkpoint went."""
    profile = _Profile()
    sys.setprofile(profile)
    try:
        converter.convert(source, target, **options)
    finally:
        sys.setprofile(None)
    return profile.route


if __name__ == "__main__":
    route = counted(Path(sys.argv[1]), Path(sys.argv[2]), **({"to": sys.argv[4]} if len(sys.argv) > 4 else {}))
    for name, counts in (("visits", route.visits), ("climbs", route.climbs)):
        print(f"{name}: {sum(counts.values())}, pairs of modules {len(counts)}")
        for (caller, callee), count in counts.most_common(12 if name == "visits" else 40):
            print(f"  {count:6} {caller} -> {callee}")
    for package in ("converter.planning", "converter.planning.optimizer"):
        print(f"visits of {package}: {route.of(package)}")
