"""What of a checkpoint goes into a target: names asked for, element types, training state."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Any

from converter.dialects.names.operations import parse
from converter.dialects.names.rules import Rule, RuleTable
from converter.encoding import json as strict_json
from converter.errors import LossError, UsageError, escape
from converter.formats import Format
from converter.model.checkpoint import Checkpoint, Part
from converter.model.dtype import DType
from converter.model.file import LocalFile, SourceFile
from converter.model.ledger import Kind, LedgerLine, dropped
from converter.model.tensor import Cast, ComputedTensor, Tensor, tensor_names
from converter.options import OptimizerMode, Options
from converter.planning.target import Target

_MAPPING_LIMIT_BYTES = 64 << 20
_GLOB = re.compile(r"\[.*?\]|[*?]")
_ALIKE = 3
"""How many names are said of a pattern that is of none."""


def check_read(checkpoint: Checkpoint, target: Format, options: Options) -> None:
    """Raise the error of a file beside the weights that could not be read, where `target` takes what it holds."""
    for part, error in checkpoint.unread.items():
        asked = options.optimizer if part is Part.OPTIMIZER else OptimizerMode.AUTO
        if asked is OptimizerMode.KEEP or (part in target.holds and asked is not OptimizerMode.DROP):
            raise error


def selected(checkpoint: Checkpoint, target: Format, options: Options) -> Checkpoint:
    """Return what `target` is to hold; all else is in `lines` and `warnings`."""
    chosen = _named(_mapped(checkpoint, options), options)
    return _with_extras(_cast(chosen, target, options), target)


def _mapped(checkpoint: Checkpoint, options: Options) -> Checkpoint:
    if options.mapping is None:
        return checkpoint
    table = _read_mapping(LocalFile(options.mapping))
    try:
        is_forward = table.is_forward(checkpoint.names)
    except UsageError as error:
        raise UsageError(error.message, path=options.mapping) from error
    mapped = table.apply(checkpoint, is_forward=is_forward)
    unused = (f"no tensor is of the rule {rule}" for rule in table.unused(checkpoint.names, is_forward=is_forward))
    return replace(mapped, warnings=(*mapped.warnings, *unused))


def _read_mapping(file: SourceFile) -> RuleTable:
    if file.size > _MAPPING_LIMIT_BYTES:
        raise UsageError(
            f"is a mapping of {file.size} bytes, and at most {_MAPPING_LIMIT_BYTES} are read", path=file.path
        )
    document = strict_json.loads(file.read(0, file.size), path=file.path, what="mapping")
    rules = document.get("rules") if isinstance(document, dict) else None
    try:
        if not isinstance(rules, list):
            raise UsageError('is not {"rules": [{"from": ..., "to": ..., "layout": ...}]}')
        return RuleTable(rules=tuple(map(_rule, rules)))
    except UsageError as error:
        raise UsageError(error.message, path=file.path) from error


def _rule(value: Any) -> Rule:
    is_rule = isinstance(value, dict) and {"from", "to"} <= value.keys() <= {"from", "to", "layout"}
    parts = [_texts(part) for part in value.values()] if is_rule else [()]
    if not all(parts):
        raise UsageError(f"{value!r} is no rule: it needs from and to, a name each or a list, and may have layout")
    left, right = _texts(value["from"]), _texts(value["to"])
    steps = _texts(value.get("layout", "as is"))
    operations = (operation for step in steps for operation in parse(step, max(len(left), len(right))))
    return Rule(left, right, tuple(operations))


def _texts(value: Any) -> tuple[str, ...]:
    """Return a text or a list of them as a tuple, an empty one for anything else."""
    texts = value if isinstance(value, list) else [value]
    return tuple(texts) if all(isinstance(text, str) for text in texts) else ()


def _named(checkpoint: Checkpoint, options: Options) -> Checkpoint:
    if not options.include and not options.exclude:
        return checkpoint
    _check_patterns(checkpoint, options)
    wanted = [name for name in checkpoint.names if _is_wanted(name, options)]
    if not wanted:
        raise LossError("--include and --exclude leave no tensor")
    unwanted = frozenset(checkpoint.names).difference(wanted)
    lines = (_left_out(line, options) if line.kind is Kind.UNHELD else line for line in checkpoint.lines)
    return replace(
        checkpoint.without_state_of(unwanted).of_names(wanted),
        lines=(
            *lines,
            *(dropped(checkpoint.origin(name), "left out as asked") for name in checkpoint.names if name in unwanted),
        ),
    )


def _check_patterns(checkpoint: Checkpoint, options: Options) -> None:
    """Raise UsageError for a pattern that no name of a tensor is of, nor of what is not carried, with those like it."""
    told = [line.name for line in checkpoint.lines if line.name is not None]
    names = [*checkpoint.names, *told, *(name.removeprefix("module.") for name in told)]
    for option, patterns in (("--include", options.include), ("--exclude", options.exclude)):
        for pattern in patterns:
            if any(fnmatchcase(name, pattern) for name in names):
                continue
            alike = get_close_matches(_GLOB.sub("", pattern), checkpoint.names, n=_ALIKE, cutoff=0.0)
            hint = f"the names most like it are {', '.join(map(escape, alike))}" if alike else None
            raise UsageError(f"{option} {pattern!r} is of no tensor", hint=hint)


def _is_wanted(name: str, options: Options) -> bool:
    is_included = not options.include or any(fnmatchcase(name, pattern) for pattern in options.include)
    return is_included and not any(fnmatchcase(name, pattern) for pattern in options.exclude)


def _left_out(line: LedgerLine, options: Options) -> LedgerLine:
    """Return the line of a tensor that cannot be held as that of one left out, where it is."""
    name = line.name or ""
    is_wanted = _is_wanted(name, options) and _is_wanted(name.removeprefix("module."), options)
    return line if is_wanted else dropped(name, "left out as asked")


def check_one_class(checkpoint: Checkpoint, target: Target, options: Options) -> None:
    """Raise LossError where several models would go into what holds the weights of one class."""
    wanted = {
        model: names for model, names in checkpoint.models.items() if any(_is_wanted(name, options) for name in names)
    }
    if len(wanted) > 1 and options.mapping is None and target.is_of_one_class(checkpoint, options):
        listed = ", ".join(map(escape, wanted))
        hint = f"--select {escape(next(iter(wanted)))} takes one"
        raise LossError(f"has {len(wanted)} models ({listed}), and {target.format.name} holds one", hint=hint)


def _cast(checkpoint: Checkpoint, target: Format, options: Options) -> Checkpoint:
    asked = options.target_dtype()
    casts: Counter[tuple[DType, DType]] = Counter()
    tensors: dict[str, Tensor] = {}
    for name, tensor in checkpoint.tensors.items():
        dtype = asked if asked is not None and tensor.dtype.is_floating else tensor.dtype
        if dtype not in target.dtypes:
            dtype = _held_instead(dtype, target, name)
        casts[tensor.dtype, dtype] += 1
        tensors[name] = tensor.cast(dtype)
    warnings = tuple(
        f"{count} tensors cast from {old.value} to {new.value}" for (old, new), count in casts.items() if old is not new
    )
    config = checkpoint.config
    if config is not None and asked is not None:
        config = config.with_dtype(asked.value)
    return replace(checkpoint, tensors=tensors, config=config, warnings=(*checkpoint.warnings, *warnings))


def cast_losses(checkpoint: Checkpoint) -> tuple[str, ...]:
    """Say how many values casts made infinite or subnormal. Call it when the tensors have been written."""
    operations = [tensor.operation for tensor in checkpoint.tensors.values() if isinstance(tensor, ComputedTensor)]
    tallies = [operation.tally for operation in operations if isinstance(operation, Cast)]
    overflowed = sum(tally.overflowed for tally in tallies)
    subnormal = sum(tally.subnormal for tally in tallies)
    counts = {"overflowed to infinity": overflowed, "became zero or subnormal": subnormal}
    return tuple(f"{count} values {what}" for what, count in counts.items() if count)


def _held_instead(dtype: DType, target: Format, name: str) -> DType:
    if dtype.is_floating and dtype.itemsize == 1 and DType.FLOAT32 in target.dtypes:
        return DType.FLOAT32  # holds every 8-bit value exactly
    raise LossError(f"is {dtype.value}, which {target.name} cannot hold", tensor=name, hint="--dtype casts")


def _with_extras(checkpoint: Checkpoint, target: Format) -> Checkpoint:
    if not checkpoint.extras or Part.EXTRAS in target.holds:
        return checkpoint
    lines: list[LedgerLine] = []
    for key, value in checkpoint.extras.items():
        lines += [dropped(name, f"{target.name} holds no training state") for name in tensor_names(key, value)]
    left = (f"{key} but for its weights" if _has_model(checkpoint, key) else key for key in checkpoint.extras)
    warning = f"{', '.join(left)} not carried: {target.name} holds no training state"
    return replace(checkpoint, extras={}, lines=(*checkpoint.lines, *lines), warnings=(*checkpoint.warnings, warning))


def _has_model(checkpoint: Checkpoint, key: str) -> bool:
    return any(model == key or model.startswith(f"{key}.") for model in checkpoint.models)
