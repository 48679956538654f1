"""What the config of a transformers model is to say that its file does not: `--config-value NAME=VALUE`, `--task`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from converter.dialects.identity.inference import infer_architecture
from converter.dialects.identity.settings import is_setting, is_type
from converter.errors import ArchitectureError, UsageError
from converter.model.checkpoint import Checkpoint, Part
from converter.options import MODEL_TYPE, Options

_OPTION, _TASK = "--config-value", "--task"


def with_task(checkpoint: Checkpoint, holds: frozenset[Part], options: Options) -> Checkpoint:
    """Return the checkpoint, which has canonical names, with the class for the task that was asked for in its config.

    Raises UsageError for an unknown task, ArchitectureError where the tensors are of another class.
    """
    config = checkpoint.config
    if options.task is None or config is None or Part.CONFIG not in holds:
        return checkpoint
    architecture = infer_architecture(checkpoint.by_name, config.values, task=options.task).architecture
    corrected = config.with_values({"architectures": [architecture]})
    told = infer_architecture(checkpoint.by_name, corrected.values).architecture
    if told != architecture:
        raise ArchitectureError(f"{_TASK} {options.task} asks for {architecture}, and the tensors are those of {told}")
    if corrected.raw == config.raw:
        return checkpoint
    warning = f"config.json: architectures is now {architecture}, as {_TASK} says"
    return replace(checkpoint, config=corrected, warnings=(*checkpoint.warnings, warning))


def with_model_type(checkpoint: Checkpoint, options: Options) -> Checkpoint:
    """Return the checkpoint with the model type that was asked for in a config that says none, and a warning.

    Raises UsageError where it says one, and for one that no table knows.
    """
    config, told = checkpoint.config, options.config_values.get(MODEL_TYPE)
    if told is None or config is None:
        return checkpoint
    if config.model_type is not None:
        raise UsageError(f"{_OPTION} cannot change {MODEL_TYPE}: config.json says it")
    if not isinstance(told, str) or not is_type(told):
        raise UsageError(f"{_OPTION}: no table knows the model type {told!r}")
    warning = f"config.json: {MODEL_TYPE} is {json.dumps(told)}, as {_OPTION} says"
    return replace(checkpoint, config=config.with_values({MODEL_TYPE: told}), warnings=(*checkpoint.warnings, warning))


def with_config_values(checkpoint: Checkpoint, options: Options) -> Checkpoint:
    """Return the checkpoint with the values that were asked for in its config, and a warning of each.

    Raises UsageError for a name that neither the config nor its class has, by the table of its model type;
    ArchitectureError where no table knows that.
    """
    config = checkpoint.config
    asked = {name: value for name, value in options.config_values.items() if name != MODEL_TYPE}
    if not asked or config is None:
        return checkpoint
    new = [name for name in asked if not _has(config.values, name.split("."))]
    for name in new:
        if not is_setting(config.values, name):
            raise UsageError(f"{_OPTION}: {name!r} is neither in config.json nor known to its class")
    values: dict[str, Any] = dict(config.values)
    warnings = []
    for name, value in asked.items():
        path = name.split(".")
        was = f" and was {json.dumps(_at(config.values, path))}" if name not in new else ""
        values = _changed(values, path, value)
        warnings.append(f"config.json: {name} is {json.dumps(value)}{was}, as {_OPTION} says")
    return replace(checkpoint, config=config.with_values(values), warnings=(*checkpoint.warnings, *warnings))


def _has(values: Any, path: list[str]) -> bool:
    *above, last = path
    part = _at(values, above)
    return isinstance(part, Mapping) and last in part


def _at(values: Any, path: list[str]) -> Any:
    for name in path:
        values = values.get(name) if isinstance(values, Mapping) else None
    return values


def _changed(values: Mapping[str, Any], path: list[str], value: Any) -> dict[str, Any]:
    first, *rest = path
    return {**values, first: _changed(values.get(first) or {}, rest, value) if rest else value}
