"""What the second environment builds, once for all tests here."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from tests.oracle import environment
from tests.oracle.generate.tensorflow_configs import COMPOSITES, CONFIGS
from tests.slices import IS_FULL, SEED


@pytest.fixture(scope="session")
def tensorflow_dumps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of tests.oracle.generate.tensorflow_dump: every TensorFlow class, or those of some families.

    CKCONV_ORACLE_TENSORFLOW names one that was made before.
    """
    given = os.environ.get("CKCONV_ORACLE_TENSORFLOW")
    if given is not None:
        return Path(given)
    folder = tmp_path_factory.mktemp("tensorflow")
    families = sorted({*CONFIGS, *COMPOSITES})
    if not IS_FULL:
        chosen = random.Random(SEED).sample(families, environment.FAMILIES_OF_A_PART)
        print(f"\nof {len(families)} families: {', '.join(sorted(chosen))}")
        families = chosen
    environment.run("tests.oracle.generate.tensorflow_dump", str(folder), *families, timeout_seconds=5000)
    return folder
