"""What stands for a framework in a child process: a program that has the child called, and what the child does.

Run as ``python -m tests.faults.framework FUNCTION DESTINATION``.
"""

from __future__ import annotations

import importlib
import signal
import sys
import time
from pathlib import Path

from converter.cli import _interrupt
from converter.errors import CkconvError
from converter.execution.child import Terms
from converter.execution.publish import staging
from converter.execution.workshop import LocalWorkshop
from converter.model.child_function import child_function


def work(*, folder: str) -> None:
    """Write for a minute."""
    for number in range(6000):
        Path(folder, f"{number}").write_bytes(bytes(1000))
        time.sleep(0.01)


def fill(*, folder: str) -> None:
    """Write until the disk is full, and say so as a framework does: with an exception of its own."""
    try:
        while True:
            Path(folder, f"{time.monotonic_ns()}").write_bytes(bytes(1000))
    except OSError as error:
        raise RuntimeError(f"{folder}; {error.strerror} [Op:SaveV2]") from None


FUNCTIONS = {
    f"{function.__name__}{way}": child_function(function.__name__, imports=imports)(function)
    for function in (work, fill)
    for way, imports in (("", ()), ("-forked", ("csv",)))
}


def main(function: str, destination: Path) -> int:
    """Call a function of this module in a child process and publish what it writes."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    try:
        with staging(destination) as stage:
            terms = Terms(writes=(stage.output,))
            workshop = LocalWorkshop(folder=stage.output, scratch=stage.scratch, terms=terms)
            functions = importlib.import_module("tests.faults.framework").FUNCTIONS  # this module is called __main__
            workshop.call(functions[function], folder=str(stage.output))
            stage.publish(stage.output, overwrite=True)
    except CkconvError as error:
        error.path = str(destination)
        print(f"ckconv: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], Path(sys.argv[2])))
