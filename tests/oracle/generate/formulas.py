"""Fits the simplest formula over the settings of a config, and over indices of lists, that is right of all rows seen.

A row is a config, with the numbers in a name (`i0`, `i1` ...); formulas are Python expressions of what
`converter.dialects.identity.formulas` evaluates.
"""

from __future__ import annotations

import ast
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from converter.dialects.identity.formulas import names_of

Row = tuple[Mapping[str, Any], tuple[int, ...]]
"""The settings of a config, and the numbers in a name."""

_PAIRS_LIMIT = 50
_CONSTANTS = (1, 2, 3, 4, 8)


_PLACE = re.compile(r"i\d")
_SIZE = re.compile(r"(?:^|_)(?:num|n)_|_(?:dim|dims|size|sizes|layers|heads|channels|rank)$")
_LARGEST_FACTOR, _LARGEST_TERM = 8, 3


def is_plausible(formula: str) -> bool:
    """Whether a formula is one that the code of a model could have: of few samples many more are right.

    A line goes through any two points, ``16*hidden_size-176``: numbers that are added are small, and so are factors;
    no two settings are subtracted from each other. No size tells cases apart; numbers that choose an item may be any.
    """
    waiting: list[ast.AST] = [ast.parse(formula, mode="eval").body]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.BinOp):
            numbers = [abs(value) for each in (node.left, node.right) if (value := _number(each)) is not None]
            is_difference = isinstance(node.op, ast.Sub) and _number(node.right) is None
            largest = _LARGEST_FACTOR if isinstance(node.op, ast.Mult | ast.FloorDiv) else _LARGEST_TERM
            if is_difference or any(number > largest for number in numbers):
                return False
        if isinstance(node, ast.IfExp) and any((_number(each) or 0) > _LARGEST_FACTOR for each in ast.walk(node.test)):
            return False
        skipped = {id(node.test)} if isinstance(node, ast.IfExp) else set()
        skipped |= {id(node.slice)} if isinstance(node, ast.Subscript) else set()
        waiting += [each for each in ast.iter_child_nodes(node) if id(each) not in skipped]
    return True


def is_size(setting: str) -> bool:
    """Whether a setting is a size or a number of something by its name: nothing by default, it may make any tensor."""
    return _SIZE.search(setting) is not None


def is_plausible_count(formula: str) -> bool:
    """Whether a list could have as many items: a setting, an entry of one or its length, and a few more or fewer."""
    settings = [name for name in names_of(formula) if not _PLACE.fullmatch(name)]
    has_cases = any(isinstance(node, ast.IfExp) for node in ast.walk(ast.parse(formula)))
    return len(settings) <= 1 and not has_cases and is_plausible(formula)


def _number(node: ast.AST) -> int | None:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, int) else None


class Numbers:
    """The numbers that rows have, by the expression of each."""

    def __init__(self, rows: Sequence[Row], keys: Sequence[str]) -> None:
        self.count = len(rows)
        self.found: dict[str, np.ndarray] = {}
        self.floats: dict[str, np.ndarray] = {}
        for key in keys:
            self._add_setting(key, [flat.get(key) for flat, _ in rows], rows)
        for depth in range(min((len(index) for _, index in rows), default=0)):
            self._add(f"i{depth}", [index[depth] for _, index in rows])
            self._add(f"2**i{depth}", [2 ** min(index[depth], 40) for _, index in rows])
        self._levels: dict[bytes, str] | None = None
        self._matrix: tuple[list[str], np.ndarray] | None = None
        self._positive: np.ndarray | None = None

    def _add(self, text: str, values: Sequence[Any]) -> None:
        if all(isinstance(value, int) for value in values):
            with_values = np.array([int(value) for value in values], dtype=np.int64)
            if text not in self.found:
                self.found[text] = with_values

    def _add_setting(self, key: str, values: Sequence[Any], rows: Sequence[Row]) -> None:
        if all(isinstance(value, int | float) for value in values):
            if all(isinstance(value, int) for value in values):
                self._add(key, values)
            else:
                self.floats[key] = np.array(values, dtype=np.float64)
        if not all(isinstance(value, list) and value for value in values):
            return
        self._add(f"len({key})", [len(value) for value in values])
        if not all(isinstance(each, int | float) for value in values for each in value):
            return
        for position in (0, 1, 2, 3, -1, -2):
            self._add_entry(f"{key}[{position}]", values, [position] * len(values))
        self._add(f"sum({key})", [sum(value) for value in values])
        for depth in range(min((len(index) for _, index in rows), default=0)):
            for offset in (0, 1, -1):
                places = [index[depth] + offset for _, index in rows]
                if min(places) >= 0:
                    sign = f"{offset:+d}" if offset else ""
                    self._add_entry(f"{key}[i{depth}{sign}]", values, places)
            for back in (1, 2):
                self._add_entry(f"{key}[-i{depth}-{back}]", values, [-index[depth] - back for _, index in rows])

    def _add_entry(self, text: str, values: Sequence[list[Any]], places: Sequence[int]) -> None:
        if all(-len(value) <= place < len(value) for value, place in zip(values, places, strict=True)):
            entries = [value[place] for value, place in zip(values, places, strict=True)]
            if any(isinstance(entry, float) for entry in entries):
                self.floats[text] = np.array(entries, dtype=np.float64)
            else:
                self._add(text, entries)

    def formula(self, target: Sequence[int]) -> str | None:
        """Return the simplest formula for a number of each row, None where there is none that a model could have."""
        found = self._formula(target)
        return found if found is None or is_plausible(found) else None

    def _formula(self, target: Sequence[int]) -> str | None:
        wanted = np.array(target, dtype=np.int64)
        if (wanted == wanted[0]).all():
            return str(int(wanted[0]))
        for text, vector in self.found.items():
            if (made := _linear(text, vector, wanted)) is not None:
                return made
        return self._of_two(wanted) or self._of_more(wanted)

    def _of_two(self, wanted: np.ndarray) -> str | None:
        known = self._level()
        if (found := known.get(wanted.tobytes())) is not None:
            return found
        texts, matrix = self._all()
        if not texts:
            return None
        differences = wanted - matrix
        for row in np.flatnonzero((differences == differences[:, :1]).all(axis=1))[:1]:
            return f"{texts[row]}{int(differences[row, 0]):+d}"
        for factor in (2, 3, 4, 5, 6, 8, 16):
            for row in np.flatnonzero((matrix * factor == wanted).all(axis=1))[:1]:
                return f"{factor}*({texts[row]})"
            for row in np.flatnonzero((matrix // factor == wanted).all(axis=1))[:1]:
                return f"({texts[row]})//{factor}"
        return None

    def _of_more(self, wanted: np.ndarray) -> str | None:
        known = self._level()
        texts, matrix = self._all()
        for shift in (0, -1, 1, -2, 2):
            left = wanted + shift
            after = f"{-shift:+d}" if shift else ""
            for text, vector in zip(texts, matrix, strict=True):
                if (other := known.get((left - vector).tobytes())) is not None:
                    return f"{text}+({other}){after}"
            for row in self._divisors(left):
                if (other := known.get((left // matrix[row]).tobytes())) is not None:
                    return f"({texts[row]})*({other}){after}"
            for text, vector in self.found.items():
                if (other := known.get((left + vector).tobytes())) is not None:
                    return f"({other})-{text}{after}"
                if (vector > 0).all() and (other := known.get((left * vector).tobytes())) is not None:
                    return f"({other})//{text}{after}"
        return None

    def _divisors(self, wanted: np.ndarray) -> list[int]:
        """Return which numbers divide others everywhere, less 1."""
        matrix = self._all()[1]
        if self._positive is None:
            self._positive = np.flatnonzero((matrix > 0).all(axis=1) & (matrix > 1).any(axis=1))
        found: list[int] = self._positive[~(wanted % matrix[self._positive]).any(axis=1)].tolist()
        return found

    def _level(self) -> dict[bytes, str]:
        if self._levels is None:
            self._levels = {}
            for text, vector in self._pairs():
                self._levels.setdefault(vector.tobytes(), text)
        return self._levels

    def _all(self) -> tuple[list[str], np.ndarray]:
        if self._matrix is None:
            known = self._level()
            rows = [np.frombuffer(each, dtype=np.int64) for each in known]
            self._matrix = (list(known.values()), np.array(rows).reshape(len(rows), self.count))
        return self._matrix

    def _pairs(self) -> Iterator[tuple[str, np.ndarray]]:
        singles = list(self.found.items())[:_PAIRS_LIMIT]
        yield from singles
        for text, vector in singles:
            for constant in _CONSTANTS[1:]:
                yield f"{constant}*{text}", vector * constant
                yield f"{text}//{constant}", vector // constant
        for text, vector in singles:
            for other, factors in self.floats.items():
                yield f"int({text}*{other})", (vector * factors).astype(np.int64)
        for text, factors in self.floats.items():
            yield f"int({text})", factors.astype(np.int64)
        for (left, one), (right, two) in itertools.combinations(singles, 2):
            yield f"{left}*{right}", one * two
            yield f"({left}+{right})", one + two
            yield f"({left}-{right})", one - two
            yield f"({right}-{left})", two - one
            if (two > 0).all():
                yield f"{left}//{right}", one // two
            if (one > 0).all():
                yield f"{right}//{left}", two // one
        for text, vector in singles:
            yield f"{text}*{text}", vector * vector


def _linear(text: str, vector: np.ndarray, wanted: np.ndarray) -> str | None:
    """Return `wanted` as a constant times a number, plus or by another constant; None where it is none."""
    if (vector == wanted).all():
        return text
    differs = np.flatnonzero(vector != vector[0])
    if not len(differs):
        return None
    step, rise = int(vector[differs[0]] - vector[0]), int(wanted[differs[0]] - wanted[0])
    if rise and rise % step == 0 and rise // step > 0:
        factor = rise // step
        shift = int(wanted[0] - factor * vector[0])
        if (factor * vector + shift == wanted).all():
            times = text if factor == 1 else f"{factor}*{text}"
            return times if not shift else f"{times}{shift:+d}"
    if wanted[0] > 0 and (wanted > 0).all():
        for divisor in {int(vector[0] // wanted[0]), int(vector[-1] // wanted[-1])}:
            if divisor > 1 and (vector // divisor == wanted).all():
                return f"{text}//{divisor}"
    return None


class Conditions:
    """What is true of rows and what is not, as bits of a number, by the expression of each."""

    def __init__(self, rows: Sequence[Row], keys: Sequence[str]) -> None:
        self.count = len(rows)
        self.found: dict[int, str] = {}
        held = {key: [flat.get(key) for flat, _ in rows] for key in keys}
        numbers = {key: values for key, values in held.items() if all(type(value) is int for value in values)}
        for depth in range(min((len(index) for _, index in rows), default=0)):
            self._add_index(f"i{depth}", [index[depth] for _, index in rows], numbers)
        for key, values in held.items():
            self._add_setting(key, values)
            if all(isinstance(value, list) for value in values):
                self._add_list(key, values, rows)
        for (left, one), (right, two) in itertools.islice(itertools.combinations(numbers.items(), 2), 1500):
            self._add(f"{left} != {right}", [a != b for a, b in zip(one, two, strict=True)])
            self._add(f"{left} < {right}", [a < b for a, b in zip(one, two, strict=True)])
            self._add(f"{left} > {right}", [a > b for a, b in zip(one, two, strict=True)])

    def _add(self, text: str, values: Sequence[bool]) -> None:
        bits = sum(1 << place for place, value in enumerate(values) if value)
        if bits and bits != (1 << self.count) - 1:
            self.found.setdefault(bits, text)
            self.found.setdefault(bits ^ ((1 << self.count) - 1), f"not ({text})" if " " in text else f"not {text}")

    def _add_setting(self, key: str, values: Sequence[Any]) -> None:
        self._add(key, [bool(value) for value in values])
        self._add(f"{key} == None", [value is None for value in values])
        plain = {repr(value): value for value in values if isinstance(value, str)}
        if len(plain) <= 8:
            for text, value in plain.items():
                self._add(f"{key} == {text}", [type(each) is type(value) and each == value for each in values])
        if all(isinstance(value, int | float) for value in values):
            for bound in (0, 1):
                self._add(f"{key} > {bound}", [value > bound for value in values])

    def _add_list(self, key: str, values: Sequence[list[Any]], rows: Sequence[Row]) -> None:
        for length in range(8):
            self._add(f"len({key}) > {length}", [len(value) > length for value in values])
        words = {word for value in values for word in value if isinstance(word, str)}
        for word in sorted(words):
            self._add(f"{word!r} in {key}", [word in value for value in values])
        for depth in range(min((len(index) for _, index in rows), default=0)):
            places = [index[depth] for _, index in rows]
            pairs = list(zip(values, places, strict=True))
            self._add(f"i{depth} in {key}", [place in value for value, place in pairs])
            self._add(f"i{depth} < len({key})-1", [place < len(value) - 1 for value, place in pairs])
            if not all(0 <= place < len(value) for value, place in pairs):
                continue
            self._add(f"{key}[i{depth}]", [bool(value[place]) for value, place in pairs])
            seen = {repr(value[place]): value[place] for value, place in pairs if isinstance(value[place], str)}
            for text, one in list(seen.items())[:8]:
                self._add(f"{key}[i{depth}] == {text}", [value[place] == one for value, place in pairs])
            if all(isinstance(each, int) for value in values for each in value):
                self._add(f"{key}[i{depth}] > 1", [value[place] > 1 for value, place in pairs])
                if all(place >= 1 for place in places):
                    self._add(f"{key}[i{depth}] != {key}[i{depth}-1]", [v[p] != v[p - 1] for v, p in pairs])

    def _add_index(self, name: str, places: Sequence[int], numbers: Mapping[str, Sequence[int]]) -> None:
        for value in range(6):
            self._add(f"{name} == {value}", [place == value for place in places])
            self._add(f"{name} > {value}", [place > value for place in places])
        for step in (2, 3, 4):
            for rest in range(step):
                self._add(f"{name} % {step} == {rest}", [place % step == rest for place in places])
        for key, values in numbers.items():
            pairs = list(zip(places, values, strict=True))
            self._add(f"{name} < {key}", [place < value for place, value in pairs])
            self._add(f"{name} == {key}-1", [place == value - 1 for place, value in pairs])
            if all(value > 0 for value in values):
                self._add(f"{name} % {key} == 0", [place % value == 0 for place, value in pairs])
                self._add(f"({name}+1) % {key} == 0", [(place + 1) % value == 0 for place, value in pairs])
                self._add(f"{name} % {key} == {key}-1", [place % value == value - 1 for place, value in pairs])

    def formula(self, truths: Sequence[bool]) -> str | None:
        """Return the simplest condition that is true of just these rows, None where there is none."""
        wanted = sum(1 << place for place, value in enumerate(truths) if value)
        if wanted in self.found:
            return self.found[wanted]
        return self._joined(wanted)

    def _joined(self, wanted: int) -> str | None:
        wider = [bits for bits in self.found if bits & wanted == wanted]
        for one, two in itertools.combinations(wider, 2):
            if one & two == wanted:
                return f"({self.found[one]}) and ({self.found[two]})"
        narrower = [bits for bits in self.found if bits & wanted == bits]
        for one, two in itertools.combinations(narrower, 2):
            if one | two == wanted:
                return f"({self.found[one]}) or ({self.found[two]})"
        for one, two, three in itertools.combinations(wider[:60], 3):
            if one & two & three == wanted:
                return f"({self.found[one]}) and ({self.found[two]}) and ({self.found[three]})"
        return None
