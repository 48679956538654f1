"""Mutants of pickles, each answered by the machine here, by ``torch.load(weights_only=True)`` and by Python's own.

``python -m tests.faults.pickle_oracle --count 100000`` reads that many. An answer is wrong where torch reads another
value, where Python's unpickler, whose globals call nothing, refuses what is read here or reads another value, and where
what comes out is no CkconvError, or late. What is refused here alone is counted by its reason.
"""

from __future__ import annotations

import argparse
import collections
import io
import math
import pickle
import pickletools
import random
import re
import signal
import time
import zipfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from converter.encoding.torch_file import View, ZipArchive
from converter.errors import CkconvError
from converter.model.file import SourceFile
from tests.faults.mutants import mutate

LIMIT_SECONDS = 5
_OPCODES = [ord(each.code) for each in pickletools.opcodes]


class _HangError(BaseException):
    pass


class InMemory(SourceFile):
    """A file that is in memory."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.path = Path("mutant.pth")
        self.size = len(data)

    @property
    def state(self) -> tuple[str | int, ...]:
        return ()

    def read_into(self, offset: int, buffer: memoryview) -> None:
        buffer[:] = self._data[offset : offset + len(buffer)]


@dataclass(frozen=True, slots=True)
class Seed:
    """A pickle, and the records of the archive that it is in."""

    name: str
    content: bytes
    records: dict[str, bytes] = field(default_factory=dict)

    def archived(self, content: bytes) -> bytes:
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w") as archive:
            archive.writestr("archive/data.pkl", content)
            for name, data in self.records.items():
                archive.writestr(name, data)
        return out.getvalue()


_VERSION = {"archive/version": b"3\n"}


def seeds() -> list[Seed]:
    """Return pickles of every protocol: of what torch saves, and of plain values."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.ones(4, 3)).sum().backward()
    optimizer.step()
    shared = torch.arange(6.0).reshape(2, 3)
    of_torch: dict[str, Any] = {
        "state dict": model.state_dict(),
        "training": {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 3, "names": ["a", "b"]},
        "views": {"whole": shared, "part": shared[:, 1:], "turned": shared.t(), "again": shared},
        "types": {
            str(dtype): torch.ones(3, dtype=dtype)
            for dtype in (torch.float16, torch.bfloat16, torch.int8, torch.int64, torch.bool, torch.complex64)
        },
        "parameters": {"w": torch.nn.Parameter(shared), "frozen": torch.nn.Parameter(shared, requires_grad=False)},
        "beside": {"w": shared, "size": torch.Size((2, 3)), "device": torch.device("cpu"), "type": torch.float16},
    }
    found = []
    for name, value in of_torch.items():
        for protocol in (2, 4):
            out = io.BytesIO()
            torch.save(value, out, pickle_protocol=protocol)
            with zipfile.ZipFile(out) as archive:
                records = {each: archive.read(each) for each in archive.namelist()}
            content = records.pop("archive/data.pkl")
            found.append(Seed(f"{name}, protocol {protocol}", content, records))
    plain = {
        "numbers": [0, -1, 255, 65536, 1 << 40, -(1 << 100), 1.5, -0.0, math.inf, True, None, 2j],
        "text": {"a": "é😀", "b": b"\x00\xff", "": "x" * 300, "tuple": (1, (2, (3, (4, 5)))), "list": [[[]], {}]},
        "shared": [collections.OrderedDict(a=[1], b=(2,)), {1, "x"}, frozenset((2,)), ["a"] * 3],
    }
    for name, value in plain.items():
        pickles = (pickle.dumps(value, number) for number in range(6))
        found += [Seed(f"{name}, protocol {at}", content, _VERSION) for at, content in enumerate(pickles)]
    return found


def mutated(content: bytes, chance: random.Random) -> bytes:
    """Return `content` with changes of bytes, or of whole operations."""
    return mutate(content, chance) if chance.random() < 0.4 else _rearranged(content, chance)


def _rearranged(content: bytes, chance: random.Random) -> bytes:
    starts = [position for _, _, position in pickletools.genops(content)]
    operations = [content[here:there] for here, there in zip(starts, [*starts[1:], len(content)], strict=True)]
    for _ in range(chance.choice((1, 1, 2, 3))):
        at, other = (chance.randrange(len(operations)) for _ in range(2))
        operation = operations[at]
        match chance.randrange(14):
            case 0 if len(operations) > 1:
                del operations[at]
            case 1:
                operations.insert(other, operation)
            case 2:
                operations[at], operations[other] = operations[other], operation
            case 3:
                operations[at] = bytes((chance.choice(_OPCODES),)) + operation[1:]
            case 4:
                operations[at] = operation[:-1] + bytes((operation[-1] ^ 1 << chance.randrange(8),))
            case 5:
                operations[at] = operations[other][:1] + operation[1:]
            case 6:
                operations.insert(at, bytes((chance.choice(_OPCODES),)))
            case _ if len(operation) > 1:
                place = chance.randrange(1, len(operation))
                changed = chance.choice((operation[place] ^ 1 << chance.randrange(8), chance.randrange(256)))
                operations[at] = operation[:place] + bytes((changed,)) + operation[place + 1 :]
    return b"".join(operations)


# Python's own, where a global calls nothing


class _Stub:
    """What a call of a global makes: what it was called with, and what it was given."""

    of = ("", "")

    def __new__(cls, *arguments: Any, **keywords: Any) -> Any:
        made = object.__new__(cls)
        made.arguments, made.keywords, made.given = arguments, keywords, []
        return made

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        self.given.append(state)

    def __setitem__(self, key: Any, value: Any) -> None:
        self.given.append((key, value))

    def append(self, value: Any) -> None:
        self.given.append(value)

    def add(self, value: Any) -> None:
        self.given.append(value)

    def extend(self, values: Any) -> None:
        self.given.extend(values)


def _encoded(text: Any, encoding: Any = "utf-8") -> bytes:
    return str(text).encode(encoding, "surrogatepass" if encoding == "utf-8" else "strict")


_REAL: dict[tuple[str, str], Any] = {
    ("_codecs", "encode"): _encoded,
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("__builtin__", "set"): set,
    ("builtins", "set"): set,
    ("__builtin__", "frozenset"): frozenset,
    ("builtins", "frozenset"): frozenset,
    ("__builtin__", "complex"): complex,
    ("builtins", "complex"): complex,
}


class _Inert(pickle._Unpickler):  # type: ignore[name-defined] # the one in Python: no limit of C's is in it
    """Python's unpickler, less what is no matter of values: torch looks at no frames either."""

    dispatch: ClassVar[dict[int, Any]] = {
        **pickle._Unpickler.dispatch,  # type: ignore[attr-defined]
        pickle.FRAME[0]: lambda self: self.read(8),
    }

    def __init__(self, data: bytes) -> None:
        super().__init__(io.BytesIO(data), encoding="utf-8", errors="surrogateescape", fix_imports=False)
        self._classes: dict[tuple[str, str], Any] = {}

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _REAL:
            return _REAL[module, name]
        if (module, name) not in self._classes:
            self._classes[module, name] = type("Stub", (_Stub,), {"of": (module, name)})
        return self._classes[module, name]

    def persistent_load(self, identity: Any) -> Any:
        return _Stub(identity)


# comparing


_SCALARS = (str, bytes, int, float, complex, bool, type(None))


class Comparison:
    """Compares values that two readers made; where they could only be of different kinds, that is no difference."""

    def __init__(self) -> None:
        self._seen: set[tuple[int, int]] = set()

    def difference(self, ours: Any, theirs: Any, depth: int = 0) -> str | None:
        """Say how two values differ, None where they do not."""
        pair = (id(ours), id(theirs))
        if pair in self._seen or depth > 200:
            return None
        self._seen.add(pair)
        if isinstance(theirs, torch.Tensor):
            return self._of_tensors(ours, theirs)
        if isinstance(theirs, _SCALARS):
            return None if _is_same(ours, theirs) else f"{ours!r:.60} and {theirs!r:.60}"
        if isinstance(theirs, dict):
            return self._of_dicts(ours, theirs, depth)
        if isinstance(theirs, list | tuple):
            kind = list if isinstance(theirs, list) else tuple
            if not isinstance(ours, kind) or len(ours) != len(theirs):
                return f"{ours!r:.60} and {theirs!r:.60}"
            found = (self.difference(mine, other, depth + 1) for mine, other in zip(ours, theirs, strict=True))
            return next((each for each in found if each is not None), None)
        if isinstance(theirs, set | frozenset):
            is_same = isinstance(ours, set | frozenset) and len(ours) == len(theirs)
            return None if is_same else f"{ours!r:.60} and {theirs!r:.60}"
        return None

    def _of_dicts(self, ours: Any, theirs: dict[Any, Any], depth: int) -> str | None:
        if not isinstance(ours, dict) or len(ours) != len(theirs):
            return f"{ours!r:.60} and {theirs!r:.60}"
        for mine, other in zip(ours.items(), theirs.items(), strict=True):
            for left, right in zip(mine, other, strict=True):
                found = self.difference(left, right, depth + 1)
                if found is not None:
                    return found
        return None

    @staticmethod
    def _of_tensors(ours: Any, theirs: torch.Tensor) -> str | None:
        if not isinstance(ours, View):
            return f"{ours!r:.60} and a tensor"
        if ours.problem is not None:  # which reading it would say
            return None
        tensor = ours.tensor()
        expected = theirs.detach().resolve_conj().resolve_neg().contiguous()
        if tensor.dtype.value != str(expected.dtype).removeprefix("torch.") or tensor.shape != tuple(expected.shape):
            return f"{tensor.dtype.value}{tensor.shape} and {expected.dtype}{tuple(expected.shape)}"
        is_same = tensor.numpy().tobytes() == expected.flatten().view(torch.uint8).numpy().tobytes()
        return None if is_same else "other values of a tensor"


def _is_same(ours: Any, theirs: Any) -> bool:
    if isinstance(theirs, str) and isinstance(ours, bytes):  # of Python 2, text where it can be
        return theirs.encode("utf-8", "surrogateescape") == ours
    if isinstance(theirs, complex) and isinstance(ours, complex):
        return _is_same(ours.real, theirs.real) and _is_same(ours.imag, theirs.imag)
    if isinstance(theirs, float) and isinstance(ours, float):
        return np.float64(ours).tobytes() == np.float64(theirs).tobytes() or (math.isnan(ours) and math.isnan(theirs))
    return type(ours) is type(theirs) and bool(ours == theirs)


def _views(value: Any, seen: set[int]) -> list[View]:
    """Return the tensors in a value: their bounds are looked at when they are made."""
    if id(value) in seen:
        return []
    seen.add(id(value))
    match value:
        case View():
            return [value]
        case dict():
            return [view for pair in value.items() for each in pair for view in _views(each, seen)]
        case list() | tuple():
            return [view for each in value for view in _views(each, seen)]
    return []


# judging


def _ours(content: bytes) -> Any:
    value = ZipArchive(InMemory(content)).load()
    for view in _views(value, set()):
        if view.problem is None:
            view.tensor().numpy()
    return value


def _answer(read: Callable[[], Any]) -> tuple[Any, BaseException | None]:
    try:
        return read(), None
    except Exception as error:
        return None, error


def judge(seed: Seed, number: int, salt: int = 0) -> tuple[str, str | None]:
    """Read one mutant: how it was answered, and what was wrong with that."""
    content = mutated(seed.content, random.Random(f"{salt} {seed.name} {number}"))
    archived = seed.archived(content)
    began = time.monotonic()
    signal.setitimer(signal.ITIMER_REAL, LIMIT_SECONDS)
    try:
        ours, refused = _answer(lambda: _ours(archived))
    except _HangError:
        return "wrong", f"more than {LIMIT_SECONDS} s"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    if time.monotonic() - began > LIMIT_SECONDS:
        return "wrong", "took too long"
    if refused is not None and not isinstance(refused, CkconvError):
        return "wrong", f"{type(refused).__name__}: {refused}"
    by_torch, torch_refused = _answer(lambda: torch.load(io.BytesIO(archived), weights_only=True))
    if torch_refused is None and refused is not None:
        return f"refused here alone: {_reason(refused)}", None
    if refused is not None:
        return "refused", None
    if torch_refused is None:
        found = Comparison().difference(ours, by_torch)
        return "read as torch does", None if found is None else f"torch reads something else: {found}"
    by_python, python_refused = _answer(_Inert(content).load)
    if python_refused is not None:
        return "read here alone", f"Python refuses it: {type(python_refused).__name__}: {python_refused}"
    found = Comparison().difference(ours, by_python)
    return "read as Python does", None if found is None else f"Python reads something else: {found}"


def _reason(error: BaseException) -> str:
    return re.sub(r"\d+|'[^']*'|b'.*'|\(at byte.*", "N", getattr(error, "message", str(error)))[:70]


def run(count: int, *, first: int = 0, salt: int = 0) -> tuple[Counter[str], list[str]]:
    """Judge `count` mutants from the `first`, in turn of every seed: the answers, and what was wrong."""
    before = signal.signal(signal.SIGALRM, _hang)
    answers: Counter[str] = Counter()
    wrongs: list[str] = []
    every = seeds()
    try:
        for seed in every:
            assert _answer(lambda seed=seed: _ours(seed.archived(seed.content)))[1] is None, seed.name
        for number in range(first, first + count):
            seed = every[number % len(every)]
            answer, wrong = judge(seed, number, salt)
            answers[answer] += 1
            if wrong is not None:
                wrongs.append(f"{seed.name}, {number}: {wrong}")
    finally:
        signal.signal(signal.SIGALRM, before)
    return answers, wrongs


def _hang(number: int, frame: object) -> None:
    raise _HangError


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    answers, wrongs = run(arguments.count, salt=arguments.seed)
    for answer, times in answers.most_common():
        print(f"{times:8} {answer}")
    for wrong in wrongs:
        print(f"wrong: {wrong}")
    print(f"{answers.total()} mutants, {len(wrongs)} answered wrongly")
    return 1 if wrongs else 0


if __name__ == "__main__":
    raise SystemExit(main())
