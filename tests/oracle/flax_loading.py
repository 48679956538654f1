"""Loads converted Flax folders with transformers 4.57.6 and says what it made of them, in JSON.

    python -m tests.oracle.flax_loading DUMPS CONVERTED

DUMPS is what tests.oracle.generate.flax_dump wrote; CONVERTED holds <class>.<variant>/<kind>/, folders to load. Prints
{"<class>.<variant>": {"<kind>": {"missing": [...], "unexpected": [...], "outputs": {...}}}}; a failure is a string.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from tests.oracle.complaints import told_of
from tests.oracle.generate import flax_models as models
from tests.oracle.generate.flax_dump import difference, flax_outputs


def loaded(model_class: Any, folder: Path, dump: Path) -> dict[str, Any]:
    """Return which leaves a class misses or does not know in a folder, and how far its outputs are off."""
    from flax.traverse_util import flatten_dict

    model, said = told_of(model_class, folder)
    with np.load(dump / "inputs.npz") as inputs, np.load(dump / "outputs.npz") as outputs:
        found = difference(flax_outputs(model, dict(inputs)), dict(outputs))
    expected = json.loads((dump / "dump.json").read_text())["leaves"]
    names = {"/".join(path) for path in flatten_dict(model.params)}
    return {"said": said, "leaves": sorted(names ^ set(expected)), "outputs": found}


def main(dumps: Path, converted: Path) -> None:
    """Print what became of every folder."""
    models.allow_old_names()
    known = models.classes()
    report: dict[str, Any] = {}
    for folder in sorted(path for path in converted.iterdir() if path.is_dir()):
        model_class = known[folder.name.partition(".")[0]][1]
        for kind in sorted(path for path in folder.iterdir() if (path / "config.json").exists()):
            try:
                result: Any = loaded(model_class, kind, dumps / folder.name)
            except Exception as error:  # whatever transformers raises, it is a result
                result = f"{type(error).__name__}: {str(error)[:300]}"
            report.setdefault(folder.name, {})[kind.name] = result
    print(json.dumps(report))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
