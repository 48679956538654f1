"""Which attributes the config of a transformers model has, whether its file says them or not."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from converter.graphs.trace.model_building import config_of_type


def unknown(*, config: str, names: Sequence[str]) -> list[str]:
    """Return those `names`, dotted where they are of a part, that the class of the config.json at `config` has not.

    Raises ArchitectureError for a config that does not build, or of a model that transformers does not know.
    """
    built = config_of_type(json.loads(Path(config).read_bytes()))
    missing = []
    for name in names:
        *path, last = name.split(".")
        part = built
        for each in path:
            part = getattr(part, each, None)
        known = vars(part) if hasattr(part, "to_diff_dict") else part if isinstance(part, dict) else {}
        if last not in known:
            missing.append(name)
    return missing
