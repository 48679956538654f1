"""Several files in one process, for strace to look at.

``python -m tests.faults.several WHAT FOLDER VERIFY SOURCE ...``: WHAT is the format to convert to, or "run"; then the
graph of a SavedModel is run in a child process, as the comparison of outputs runs it. A line of JSON tells how each
ended: its exit code, and what `ckconv` would say. Output is in FOLDER.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import converter
from converter.errors import CkconvError, GraphError
from converter.execution import child
from converter.execution.child import Terms
from converter.graphs.calls import run_foreign_saved_model
from converter.graphs.run.arrays import write_arrays
from converter.graphs.trace.tensorflow.serving import serve
from tests.faults.traced import Account, trace

TIMEOUT_SECONDS = 300
RUN = "run"
_DAY_SECONDS = 86_400


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a file ended."""

    source: Path
    code: int
    said: str


def treated(what: str, sources: list[Path], folder: Path, *, verify: str = "auto") -> tuple[Account, list[Ended]]:
    """Convert or run every source, within `folder`; return what all of it did, and how each ended: in one line."""
    (folder / "out").mkdir(parents=True)
    command = [sys.executable, "-m", "tests.faults.several", what, str(folder / "out"), verify, *map(str, sources)]
    account = trace(command, folder / "log", limit_seconds=_DAY_SECONDS)
    assert account.code == 0, account.errors[-3000:]
    ended = [
        Ended(source=Path(source), code=code, said=said)
        for source, code, said in map(json.loads, account.output.splitlines())
    ]
    assert [each.source for each in ended] == sources
    assert [each for each in ended if len(each.said.splitlines()) > 1] == []
    account.assert_nothing_outside(folder / "out")
    return account, ended


def _treat(what: str, source: Path, folder: Path, verify: str) -> None:
    if what == RUN:
        shapes = {port.name: port.shape or () for port in serve(source).inputs}
        ones = {f"0/{name}": np.ones([min(each or 2, 64) for each in shape], "f4") for name, shape in shapes.items()}
        write_arrays(str(folder / "inputs.npz"), ones)
        given = {"model": source, "inputs": folder / "inputs.npz", "outputs": folder / "outputs.npz"}
        arguments = {name: os.fspath(path) for name, path in given.items()}
        terms = Terms(reads=(source,), timeout_seconds=TIMEOUT_SECONDS)
        (answer,) = child.call_all([run_foreign_saved_model.call(**arguments)], folder, terms=terms)
        if answer["failed"]:
            raise GraphError(next(iter(answer["failed"].values())))
        return
    try:
        converter.convert(source, folder / "target", to=what, verify=verify, timeout=TIMEOUT_SECONDS)
    except CkconvError:
        assert not list(folder.iterdir()), source
        raise


def _main(what: str, out: str, verify: str, *sources: str) -> None:
    for number, source in enumerate(sources):
        folder = Path(out, str(number))
        folder.mkdir()
        code, said = 0, ""
        try:
            _treat(what, Path(source), folder, verify)
        except CkconvError as error:
            code, said = error.exit_code, str(error)
        print(json.dumps((source, code, said)), flush=True)


if __name__ == "__main__":
    _main(*sys.argv[1:])
