"""Makes converter/dialects/tables/flax.json from what flax_dump wrote down.

    python -m tests.oracle.generate.flax FOLDER

in the environment that made FOLDER. Rows are per model type; names are those of classes with a head, and have the base
model's prefix on both sides. A name of Flax has no collection (`params`, `batch_stats`) in front.

`constants`  PyTorch's buffers that are in old checkpoints, and that Flax computes
`sinusoids`  PyTorch's parameters that Flax computes: kind, names, and the classes that save them
`lacks`      PyTorch class -> what its Flax class has no place for
`ties`       tied name -> owner, where Flax has both
`otherwise`  rows that go before the others when the config has this key and value
`parts`      what a model made of others calls them -> their keys in the config
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from converter.dialects.tables import exceptions
from tests.oracle.generate import table_file
from tests.oracle.generate.tensorflow import fixed, indices, rows_of, separated

_COUNTER = "num_batches_tracked"
_POSITIONS = ("embed_positions.weight", "position_embeddings.weight")


def dumps(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """Return what was written down, by model type."""
    found: dict[str, list[dict[str, Any]]] = {}
    for path in sorted(folder.glob("*/dump.json")):
        entry = json.loads(path.read_text())
        found.setdefault(entry["model_type"], []).append(entry)
    return found


def template(name: str, base: str, entry: Mapping[str, Any], literal: frozenset[str]) -> str:
    """Return a name of PyTorch with the indices of its lists as placeholders."""
    positions = sorted(indices(base + name, base, entry["containers"], literal))
    letters = dict(zip(positions, "nmkl", strict=False))
    parts = (base + name).split(".")
    return ".".join(f"{{{letters[place]}}}" if place in letters else part for place, part in enumerate(parts))


def model_of(model_type: str, entries: list[dict[str, Any]]) -> dict[str, Any]:
    """Return what the table says of one model type."""
    prefix = entries[0]["prefix"]
    has_prefix = any(name.startswith(f"{prefix}.") for entry in entries for name, _ in entry["mapping"].values())
    is_base = [has_prefix and entry["is_base"] and entry["torch_class"].endswith("Model") for entry in entries]
    bases = [f"{prefix}." if each else "" for each in is_base]
    literal = fixed(entries, bases)
    parts = exceptions("parts").get(model_type, {})
    samples = []
    constants: set[str] = set()
    sinusoids: set[str] = set()
    saving: set[str] = set()
    lacks: dict[str, set[str]] = {}
    ties: dict[str, str] = {}
    for entry, base in zip(entries, bases, strict=True):
        for path, (name, layout) in entry["mapping"].items():
            own = path.partition("/")[2] if path.split("/")[0] in ("params", "batch_stats") else path
            if own.split("/")[0] in parts:
                continue
            positions = indices(base + name, base, entry["containers"], literal)
            samples.append((base.replace(".", "/") + own, base + name, layout, positions))
        taken = {name for name, _ in entry["mapping"].values()}
        of_parts = tuple(f"{part}." for part in parts) or ("\0",)
        constants |= {
            template(name, base, entry, literal) for name in entry["constants"] if not name.startswith(of_parts)
        }
        for name in entry["saved"]:
            if name in taken or name.endswith(_COUNTER) or name.startswith(of_parts):
                continue
            if name.endswith(_POSITIONS):
                sinusoids.add(template(name, base, entry, literal))
                saving.add(entry["torch_class"])
            else:
                lacks.setdefault(entry["torch_class"], set()).add(template(name, base, entry, literal))
        ties |= {name: entry["ties"][name] for name in taken if name in entry["ties"]}
    two_way, aliases = separated(rows_of(samples))
    if aliases and model_type not in exceptions("otherwise"):
        raise ValueError(f"{model_type}: {aliases} are second names")
    known = {
        "constants": sorted(constants),
        "sinusoids": {
            "kind": exceptions("sinusoids")[model_type],
            "names": sorted(sinusoids),
            "classes": sorted(saving),
        }
        if sinusoids
        else {},
        "lacks": {name: sorted(templates) for name, templates in sorted(lacks.items())},
        "ties": ties,
        "parts": parts,
        "otherwise": [*exceptions("otherwise")[model_type], aliases] if aliases else [],
    }
    classes = sorted({entry["torch_class"] for entry in entries})
    return {
        "prefix": prefix if has_prefix else "",
        "classes": classes,
        **{key: value for key, value in known.items() if value},
        "rows": two_way,
    }


def versions() -> dict[str, str]:
    """Return the versions that the table was made with."""
    from importlib.metadata import version

    return {name: version(name) for name in ("transformers", "flax", "jax", "torch", "numpy")}


def main(folder: Path) -> None:
    """Write the table."""
    models = {model_type: model_of(model_type, entries) for model_type, entries in sorted(dumps(folder).items())}
    path = Path(__file__).parents[3] / "converter/dialects/tables/flax.json"
    table_file.write(path, {"versions": versions(), "models": models})
    rows: Iterable[Any] = (row for model in models.values() for row in model["rows"])
    print(f"{len(models)} model types, {sum(1 for _ in rows)} rows")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
