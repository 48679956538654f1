"""Resumes: how far a run that goes on in another framework is from one that stayed, beside one that forgot its moments.

Run with `python -m tests.benchmarks.resume [SOURCE TARGET]`; tf_keras needs CKCONV_ORACLE_PYTHON.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from tests.oracle import environment
from tests.training.measuring import DIRECTIONS, TF_KERAS, Figures, cells_of, measured


def row(figures: Figures) -> str:
    carried = f"{figures.loss:9.1e} {figures.weight:9.1e}"
    return f"{carried}  reset {figures.reset_loss:9.1e} {figures.reset_weight:9.1e}"


def main() -> None:
    print("                                                 loss (relative), weights (absolute)")
    for source, target in DIRECTIONS:
        is_asked = sys.argv[1:] in ([], [source, target])
        if not is_asked or (TF_KERAS in (source, target) and not environment.PYTHON):
            continue
        with tempfile.TemporaryDirectory() as folder:
            for cell, figures in measured(cells_of(source, target), Path(folder)).items():
                print(f"{cell!s:48} {row(figures)}", flush=True)


if __name__ == "__main__":
    main()
