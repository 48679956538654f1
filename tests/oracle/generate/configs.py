"""Makes converter/dialects/tables/configs.json: which settings the config of a model type has, said in a file or not.

    python -m tests.oracle.generate.configs TABLE [model type ...]

in an environment with transformers 5. Settings that all have are in `every`; `parts` are those that are
configs of a model type, `maps` those that are other maps, and what is in them.
"""

from __future__ import annotations

import os
import sys
import warnings
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"

import transformers

from tests.oracle.generate import table_file


def every() -> set[str]:
    """Return the settings of a config that says nothing."""
    return {*vars(transformers.PreTrainedConfig())}


def config_of(model_type: str) -> dict[str, Any]:
    """Return the settings of a model type, less those that all have, and what is in those that have more inside."""
    values = vars(transformers.CONFIG_MAPPING[model_type]())
    parts, maps = {}, {}
    for key, value in values.items():
        if isinstance(value, transformers.PreTrainedConfig) and value.model_type in transformers.CONFIG_MAPPING:
            parts[key] = value.model_type
        elif isinstance(value, transformers.PreTrainedConfig):
            maps[key] = sorted(vars(value).keys() - every())
        elif isinstance(value, dict) and value and key not in every():
            maps[key] = sorted(map(str, value))
    return {"keys": sorted(values.keys() - every()), "parts": parts, "maps": maps}


def main(table: Path, model_types: list[str]) -> None:
    """Write the table; print what could not be built."""
    warnings.simplefilter("ignore")
    transformers.logging.set_verbosity_error()
    models = {}
    for model_type in sorted(model_types or transformers.CONFIG_MAPPING):
        try:
            models[model_type] = config_of(model_type)
        except Exception as error:  # a config that does not build by default
            print(f"{model_type}: {type(error).__name__}: {error}".splitlines()[0][:200], file=sys.stderr)
    table_file.write(
        table, {"versions": {"transformers": transformers.__version__}, "every": sorted(every()), "models": models}
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
