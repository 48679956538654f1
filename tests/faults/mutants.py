"""Seeded mutation of small checkpoints of every format: a reader answers, or raises a CkconvError, and soon.

``python -m tests.faults.mutants --count 100000`` reads that many; ``--formats``, ``--seed`` and ``--keep FOLDER`` for
the mutants that were answered wrongly. Readers run in a process of their own, whose memory is limited and whose death
is noticed. A mutant depends on its seed and its number alone.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import converter
from converter.errors import CkconvError
from converter.formats import written
from converter.model.tensor import Tensor
from tests.conftest import ROOT
from tests.faults.seeds import Seed, make_seeds

LIMIT_SECONDS = 5
LIMIT_BYTES = 1 << 30
_BYTES = (0x00, 0x01, 0x7F, 0x80, 0xFF)
_WORDS = (0, 1, 2**15, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**62, 2**63 - 1, 2**63, 2**64 - 8, 2**64 - 1)


class _HangError(BaseException):
    """A reader took too long. Not an Exception: nothing on the way may catch it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wrong:
    """A mutant that a reader did not answer as it should have."""

    seed: str
    number: int
    what: str


def mutate(content: bytes, chance: random.Random) -> bytes:
    """Return `content` with one to four changes, most of them near its beginning or end, where structure is."""
    data = bytearray(content)
    for _ in range(chance.choice((1, 1, 1, 2, 4))):
        at = _place(len(data), chance)
        length = chance.choice((1, 2, 4, 8, 64, 512))
        match chance.randrange(11):
            case 0 | 1 if data:
                data[at] ^= 1 << chance.randrange(8)
            case 2 if data:
                data[at] = chance.choice(_BYTES)
            case 3 if data:
                data[at] = chance.randrange(256)
            case 4:
                word, form = chance.choice(_WORDS), chance.choice(("<Q", "<I", "<H", ">I", ">Q"))
                data[at : at + struct.calcsize(form)] = struct.pack(form, word % (1 << 8 * struct.calcsize(form)))
            case 5:
                del data[at : at + length]
            case 6:
                data[at:at] = data[at : at + length]
            case 7:
                source = _place(len(data), chance)
                data[at : at + length] = data[source : source + length]
            case 8:
                data[at:at] = chance.randbytes(min(length, 8))
            case 9 if chance.random() < 0.3:
                del data[at:]
            case _:
                _change_digits(data, at, chance)
    return bytes(data)


def _place(size: int, chance: random.Random) -> int:
    if size == 0:
        return 0
    near = chance.randrange(min(size, chance.choice((16, 64, 512, size))))
    return near if chance.random() < 0.7 else size - 1 - near


def _change_digits(data: bytearray, at: int, chance: random.Random) -> None:
    """Replace a number that is written out, as JSON does."""
    start = next((place for place in range(at, min(len(data), at + 256)) if chr(data[place]).isdigit()), None)
    if start is not None:
        end = start
        while end < len(data) and 48 <= data[end] <= 57:
            end += 1
        number = chance.choice(("-1", "0", "1e3", "1.5", "true", str(chance.choice(_WORDS)), "9" * 400))
        data[start:end] = number.encode()


def read_all(path: Path, format_name: str) -> None:
    """Read a checkpoint and every byte that it declares."""
    checkpoint = converter.read(path, from_format=format_name)
    for tensor in _tensors(checkpoint.tensors, checkpoint.extras, checkpoint.optimizer and checkpoint.optimizer.slots):
        for _ in tensor.chunks():
            pass


def _tensors(*values: Any) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif hasattr(value, "items"):
            yield from _tensors(*value.values())
        elif isinstance(value, list | tuple):
            yield from _tensors(*value)


def judge(seed: Seed, number: int, salt: int) -> tuple[str, str | None]:
    """Read one mutant: how it was answered, and what was wrong with that."""
    chance = random.Random(f"{salt} {seed.name} {number}")
    seed.file.write_bytes(seed.wrap(mutate(seed.content, chance)))
    began = time.monotonic()
    signal.setitimer(signal.ITIMER_REAL, LIMIT_SECONDS)
    try:
        read_all(seed.root, seed.format)
    except CkconvError as error:
        answer, wrong = type(error).__name__, None
        if len(str(error).splitlines()) != 1:
            wrong = f"a message of several lines: {error}"
        elif str(seed.root) not in str(error):
            wrong = f"a message that names no file: {error}"
    except BaseException as error:
        answer, wrong = "wrong", f"{type(error).__name__}: {error} at {_where(error)}"
    else:
        answer, wrong = "read", None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    seconds = time.monotonic() - began
    return answer, wrong or (f"took {seconds:.1f} s" if seconds > LIMIT_SECONDS else None)


def _where(error: BaseException) -> str:
    trace, where = error.__traceback__, ""
    while trace is not None:
        name = trace.tb_frame.f_code.co_filename
        where = f"{Path(name).name}:{trace.tb_lineno}" if "converter" in name else where
        trace = trace.tb_next
    return where


def work(arguments: argparse.Namespace) -> None:
    """Read mutants `first` to `count`, in turn of every seed; the first line on stdout lists the seeds' names."""
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        seeds = make_seeds(Path(folder), arguments.formats)
        for seed in seeds:
            read_all(seed.root, seed.format)  # a reader that always fails would survive everything
        signal.signal(signal.SIGALRM, _hang)
        resource.setrlimit(resource.RLIMIT_DATA, (_data_bytes() + LIMIT_BYTES,) * 2)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        answers: Counter[str] = Counter()
        progress = os.open(arguments.progress, os.O_WRONLY)
        ends = time.monotonic() + arguments.seconds
        for number in range(arguments.first, arguments.count):
            seed = seeds[number % len(seeds)]
            os.pwrite(progress, f"{number} {seed.name}".ljust(500).encode(), 0)
            answer, wrong = judge(seed, number, arguments.seed)
            answers[f"{seed.format} {answer}"] += 1
            if wrong is not None:
                print(json.dumps({"seed": seed.name, "number": number, "what": wrong}), flush=True)
                if arguments.keep:
                    _keep(seed, number, Path(arguments.keep))
            seed.file.write_bytes(seed.wrap(seed.content))
            if time.monotonic() > ends:
                break
        print(json.dumps({"answers": answers, "next": number + 1}), flush=True)


def _hang(number: int, frame: object) -> None:
    raise _HangError(f"more than {LIMIT_SECONDS} s")


def _data_bytes() -> int:
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) << 10 for line in status.splitlines() if line.startswith("VmData"))


def _keep(seed: Seed, number: int, folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    (shutil.copytree if seed.root.is_dir() else shutil.copy)(seed.root, folder / f"{number}-{seed.root.name}")


def run(
    formats: list[str], *, count: int, seed: int = 0, seconds: float = 1e9, keep: str = ""
) -> tuple[Counter[str], list[Wrong]]:
    """Read `count` mutants, or as many as `seconds` allow: how they were answered, and what was wrong."""
    answers: Counter[str] = Counter()
    wrongs: list[Wrong] = []
    first, ends = 0, time.monotonic() + seconds
    with tempfile.NamedTemporaryFile(prefix="mutants-") as progress:
        while first < count and time.monotonic() < ends:
            options = ["--count", str(count), "--first", str(first), "--seed", str(seed), "--progress", progress.name]
            options += ["--formats", *formats, "--seconds", str(ends - time.monotonic()), "--keep", keep]
            process = subprocess.run(
                [sys.executable, "-m", "tests.faults.mutants", *options],
                stdout=subprocess.PIPE,
                text=True,
                cwd=ROOT,
                check=False,
            )
            lines = [json.loads(line) for line in process.stdout.splitlines()]
            wrongs += [Wrong(**line) for line in lines if "what" in line]
            if process.returncode == 0:
                answers.update(lines[-1]["answers"])
                first = count if time.monotonic() > ends else lines[-1]["next"]
                continue
            reached, _, name = Path(progress.name).read_text().rstrip().partition(" ")
            if not reached:
                raise AssertionError(f"the seeds of {formats} cannot be made or read: see above")
            wrongs.append(Wrong(seed=name, number=int(reached), what=f"the process died with {process.returncode}"))
            first = int(reached) + 1
    return answers, wrongs


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=100_000, help="how many mutants")
    parser.add_argument("--seed", type=int, default=0, help="another number, other mutants")
    parser.add_argument("--seconds", type=float, default=1e9, help="stop after so long")
    parser.add_argument("--formats", nargs="*", default=list(written()), help="by default all")
    parser.add_argument("--keep", default="", help="a folder for the mutants that were answered wrongly")
    parser.add_argument("--first", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--progress", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.progress:
        work(arguments)
        return 0
    answers, wrongs = run(
        arguments.formats, count=arguments.count, seed=arguments.seed, seconds=arguments.seconds, keep=arguments.keep
    )
    for wrong in wrongs:
        print(f"mutant {wrong.number} of {wrong.seed}: {wrong.what}")
    for answer, number in sorted(answers.items()):
        print(f"{number:8} {answer}")
    print(f"{answers.total()} mutants read, {len(wrongs)} answered wrongly")
    return 1 if wrongs else 0


if __name__ == "__main__":
    sys.exit(main())
