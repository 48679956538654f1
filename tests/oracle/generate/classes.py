"""Makes converter/dialects/tables/classes.json: which classes a model type has, and which names tell them apart.

    python -m tests.oracle.generate.classes TABLE

in an environment with transformers 5 and torch. Every class that transformers lists for a task and whose model type is
in the zoo is built on the meta device from the zoo's config; of the names that save_pretrained would write, the first
components are kept, of the base model and of all else.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"

import transformers
from transformers.models.auto import modeling_auto

from converter.dialects.classes import TASKS
from converter.errors import CkconvError
from converter.graphs.trace.canonical_names import tied_names
from converter.graphs.trace.model_building import abstract_model, model_class, model_config
from converter.graphs.trace.saved_form import saved_form
from tests.graphs.zoo import OTHERS, ZOO
from tests.oracle.generate import table_file


def listed(model_type: str) -> Mapping[str, list[str]]:
    """Return class -> its tasks, for all that transformers lists for a model type."""
    found: dict[str, list[str]] = {}
    for task, mappings in TASKS.items():
        for mapping in mappings:
            names = getattr(modeling_auto, mapping, {}).get(model_type, ())
            for name in (names,) if isinstance(names, str) else names:
                tasks = found.setdefault(name, [])
                if task not in tasks:
                    tasks.append(task)
    return found


def entry(class_name: str, config: Mapping[str, Any], tasks: list[str]) -> dict[str, Any]:
    """Return what the table says of a class."""
    class_ = model_class(class_name)
    model = abstract_model(class_, model_config(class_, config))
    form = saved_form(model)
    tied = {saved for name in tied_names(model) for saved in form.saved_names(name)}
    tied |= {name for name in model.all_tied_weights_keys if name in form.names.values()}
    names = {saved for name in model.state_dict() for saved in form.saved_names(name)}
    prefix = model.base_model_prefix
    has_base = bool(prefix) and hasattr(model, prefix) and any(name.startswith(f"{prefix}.") for name in names)
    head = {name for name in names if not (has_base and name.startswith(f"{prefix}."))}
    optional = sorted(set(map(_first, head & tied)) - set(map(_first, head - tied)))
    base = sorted({_first(name.removeprefix(f"{prefix}.")) for name in names - head}) if has_base else []
    return {
        "tasks": tasks,
        "prefix": prefix if has_base else "",
        "base": base,
        "head": sorted(set(map(_first, head)) - set(optional)),
        "optional": optional,
    }


def _first(name: str) -> str:
    return name.partition(".")[0]


def models() -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield model type and classes."""
    configs = {model.model_type: model.config for model in (*OTHERS, *ZOO)}
    for model_type, config in sorted(configs.items()):
        classes: dict[str, Any] = {}
        for name, tasks in sorted(listed(model_type).items()):
            try:
                classes[name] = entry(name, {**config, "architectures": [name]}, tasks)
            except (CkconvError, AttributeError) as error:
                print(f"{name}: {error}", file=sys.stderr)
        yield model_type, {"classes": classes}


def main() -> None:
    """Write the table."""
    warnings.simplefilter("ignore")
    versions = {"transformers": transformers.__version__}
    table_file.write(Path(sys.argv[1]), {"versions": versions, "models": dict(models())})


if __name__ == "__main__":
    main()
