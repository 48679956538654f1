"""The second environment: transformers 4.57.6 with TensorFlow and Flax, which writes what the tests here read.

CKCONV_ORACLE_PYTHON names its Python (tests/oracle/requirements.txt says what is in it); without it these tests are
not collected. CKCONV_ORACLE_FULL=1 builds every class, otherwise a part chosen by CKCONV_ORACLE_SEED.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]
PYTHON = os.environ.get("CKCONV_ORACLE_PYTHON", "")
FAMILIES_OF_A_PART = 5
"""Of the TensorFlow classes, each of one class or more."""


def run(module: str, *arguments: str, timeout_seconds: int) -> str:
    """Run a module of this repository in the second environment, offline; return what it printed."""
    environment = {
        **os.environ,
        "TF_USE_LEGACY_KERAS": "1",
        "HF_HUB_OFFLINE": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }
    done = subprocess.run(
        [PYTHON, "-m", module, *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=timeout_seconds,
        check=True,
    )
    return done.stdout
