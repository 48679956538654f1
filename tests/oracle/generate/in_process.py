"""Makes converter/dialects/tables/in_process.json: names of transformers 5 in memory <-> the names that it saves.

    python -m tests.oracle.generate.in_process TABLE [model type ...]

in an environment with transformers 5 and torch. Every model class is built on the meta device, and transformers is
asked to bring its state dict to the form of its files; what it does with each tensor is recorded operation by
operation, so that nothing here knows a model. Each config is taken as it is by default, less most of its experts, and
with each switch flipped.
"""

from __future__ import annotations

import copy
import importlib
import inspect
import itertools
import os
import re
import signal
import sys
import warnings
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"

import torch
import transformers
import transformers.models
from torch.utils._python_dispatch import TorchDispatchMode
from transformers.core_model_loading import revert_weight_conversion

from tests.oracle.generate import table_file
from tests.oracle.generate.templates import Instance, solved

LETTERS = "nmkj"
EXPERT = "e"
_DIGITS = re.compile(r"\d+")
_LISTS = (torch.nn.ModuleList, torch.nn.ParameterList)
_SECONDS = 60
_FLIPS_LIMIT = 40
_EXPERTS = 8


@dataclass(frozen=True)
class Source:
    """Where a stored tensor comes from: `memory` names, and how they make it.

    `kind`   "rename"; "join" of several along `axis`; "split", part `part` of `parts` along `axis`, of item `item`
             where the items are stacked; "other" for what no row can say, `why` being the operations
    """

    kind: str
    memory: tuple[str, ...]
    axis: int | None = None
    part: int = 0
    parts: int = 1
    item: int | None = None
    why: str = ""


class Recorder(TorchDispatchMode):
    """Remembers how every tensor was made."""

    def __init__(self, named: Mapping[str, torch.Tensor]) -> None:
        super().__init__()
        self.made: dict[int, tuple[Any, ...]] = {id(tensor): ("input", name) for name, tensor in named.items()}
        self.kept: list[Any] = list(named.values())

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        taken = tuple(map(self._described, args))
        operation = str(function.overloadpacket).removeprefix("aten.")
        for index, tensor in enumerate(result if isinstance(result, list | tuple) else [result]):
            count = len(result) if isinstance(result, list | tuple) else 1
            self.made[id(tensor)] = (operation, taken, index, count)
            self.kept.append(tensor)
        return result

    def _described(self, value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            return self.made.get(id(value), ("unknown",))
        return tuple(map(self._described, value)) if isinstance(value, list | tuple) else value


def source_of(made: tuple[Any, ...]) -> Source:
    """Return what the operations that made a tensor amount to."""
    match made:
        case ("input", str(name)):
            return Source("rename", (name,))
        case ("cat", (tuple(parts), *axis), _, _) if all(part[0] == "input" for part in parts):
            return Source("join", tuple(part[1] for part in parts), axis=axis[0] if axis else 0)
        case ("squeeze" | "select", (("split", (inner, 1, *axis), item, _), 0), _, _) if not any(axis):
            return _item(inner, item, made)
        case ("unbind", (inner, *axis), item, _) if not any(axis) and inner[0] == "input":
            return _item(inner, item, made)
        case ("clone" | "split", _, _, _):
            return _chunk(made, None, made)
    return Source("other", _inputs(made), why=" of ".join(_operations(made)))


def _item(inner: tuple[Any, ...], item: int, made: tuple[Any, ...]) -> Source:
    return Source("split", (inner[1],), item=item) if inner[0] == "input" else _chunk(inner, item, made)


def _chunk(inner: tuple[Any, ...], item: int | None, made: tuple[Any, ...]) -> Source:
    while inner[0] == "clone":
        inner = inner[1][0]
    match inner:
        case ("split", (("input", str(name)), int(), *axis), part, parts):
            return Source("split", (name,), axis=axis[0] if axis else 0, part=part, parts=parts, item=item)
    return Source("other", _inputs(made), why=" of ".join(_operations(made)))


def _operations(made: Any) -> list[str]:
    if not isinstance(made, tuple) or not made or made[0] == "input":
        return []
    own = [made[0]] if isinstance(made[0], str) else []
    return own + list(dict.fromkeys(itertools.chain.from_iterable(map(_operations, made[1:] if own else made))))


def _inputs(made: Any) -> tuple[str, ...]:
    if isinstance(made, tuple) and made and made[0] == "input":
        return (made[1],)
    return tuple(itertools.chain.from_iterable(map(_inputs, made))) if isinstance(made, tuple) else ()


def model_classes() -> Iterator[Any]:
    """Yield every model class of transformers."""
    root = Path(transformers.models.__file__).parent
    for file in sorted(root.glob("*/modeling_*.py")):
        try:
            module = importlib.import_module(f"transformers.models.{file.parent.name}.{file.stem}")
        except ImportError:
            continue
        for name, value in vars(module).items():
            if inspect.isclass(value) and issubclass(value, transformers.PreTrainedModel):
                is_own = value.__module__ == module.__name__ and not name.endswith("PreTrainedModel")
                if is_own and value.config_class is not None:
                    yield value


@contextmanager
def limited(seconds: int) -> Iterator[None]:
    """Stop what takes too long. Raises TimeoutError."""

    def stop(*_: object) -> None:
        raise TimeoutError(f"takes more than {seconds} s")

    signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)


@dataclass(frozen=True)
class Built:
    """A model on the meta device: stored name -> its source, and which paths of modules are lists."""

    stored: Mapping[str, Source]
    lists: frozenset[str]


def built(class_: Any, config: Any) -> Built:
    """Build a model and see what becomes of its state dict."""
    with limited(_SECONDS):
        with torch.device("meta"):
            model = class_._from_config(config)
        named = {name: torch.empty(tuple(t.shape), device="meta") for name, t in model.state_dict().items()}
        with Recorder(named) as recorder:
            stored = revert_weight_conversion(model, dict(named))
        lists = frozenset(path for path, module in model.named_modules() if isinstance(module, _LISTS))
        sources = {name: source_of(recorder.made[id(tensor)]) for name, tensor in stored.items()}
        return Built(stored=sources, lists=lists)


def small(config_class: Any) -> Any:
    """Return the default config with fewer experts, where it takes that; else as it is."""
    default = config_class()
    counts = {
        key: _EXPERTS
        for key, value in vars(default).items()
        if type(value) is int and value > _EXPERTS and re.fullmatch(r"(num|n)_[a-z_]*experts", key)
    }
    try:
        return config_class(**counts)
    except (ValueError, TypeError, IndexError, KeyError):
        return default


def flipped(config: Any) -> Iterator[Any]:
    """Yield the config with each of its switches flipped, and those of the configs in it."""
    found = [((), key) for key, value in vars(config).items() if isinstance(value, bool)]
    for part, inner in vars(config).items():
        if isinstance(inner, transformers.PreTrainedConfig):
            found += [((part,), key) for key, value in vars(inner).items() if isinstance(value, bool)]
    for path, key in found[:_FLIPS_LIMIT]:
        if key.startswith("_") or key.startswith(("output_", "return_", "use_cache")):
            continue
        changed = copy.deepcopy(config)
        holder = getattr(changed, path[0]) if path else changed
        setattr(holder, key, not getattr(holder, key))
        yield changed


def template_of(name: str, lists: frozenset[str]) -> tuple[str, tuple[str, ...]]:
    """Return the name with {n}, {m} ... for the indices of lists, and these indices."""
    parts, indices = name.split("."), []
    for position, part in enumerate(parts):
        if part.isdigit() and ".".join(name.split(".")[:position]) in lists:
            parts[position] = "{" + LETTERS[len(indices)] + "}"
            indices.append(part)
    return ".".join(parts), tuple(indices)


@dataclass
class Rows:
    """What the table says of a class: renamed tensors, and those that are packed on one side."""

    renamed: dict[str, str]
    packed: list[tuple[str, str, tuple[str, ...], int | None, bool]]
    left_out: dict[str, str]
    moved: dict[str, str]
    stays: list[str]


def stays_of(renamed: Mapping[str, str], others: Sequence[str]) -> list[str]:
    """Return the shortest paths below which no name changes, and names that do not where one beside them does."""
    changed = [memory for memory, hub in renamed.items() if memory != hub] + list(others)
    busy = {".".join(name.split(".")[:count]) for name in changed for count in range(1, name.count(".") + 2)}
    found: dict[str, None] = {}
    for memory, hub in renamed.items():
        if memory == hub:
            parts = memory.split(".")
            paths = (".".join(parts[:count]) for count in range(1, len(parts) + 1))
            found[next((path for path in paths if path not in busy), memory)] = None
    return list(found)


def moved_of(renamed: Mapping[str, str]) -> dict[str, str]:
    """Return the paths under which every name keeps what follows, memory -> hub, less those that stay and those inside.

    What another config adds below such a path goes the same way.
    """
    found: dict[str, set[str | None]] = defaultdict(set)
    for memory, hub in renamed.items():
        parts = memory.split(".")
        for count in range(1, len(parts)):
            before, after = ".".join(parts[:count]), "." + ".".join(parts[count:])
            if "{" not in before:
                found[before].add(hub.removesuffix(after) if hub.endswith(after) else None)
    single = {before: next(iter(hubs)) for before, hubs in sorted(found.items()) if len(hubs) == 1}
    moved: dict[str, str] = {}
    for before, hub in single.items():
        if hub is not None and hub != before and not any(before.startswith(f"{outer}.") for outer in moved):
            moved[before] = hub
    return moved


def rows_of(models: Sequence[Built]) -> Rows:
    """Return the rows of a class, from its models."""
    kinds: dict[tuple[Any, ...], dict[tuple[Any, ...], Instance]] = defaultdict(dict)
    left_out: dict[str, str] = {}
    for model in models:
        for hub, source in model.stored.items():
            templates, found = zip(*(template_of(name, model.lists) for name in source.memory), strict=True)
            if source.kind == "other" or len(set(found)) != 1:
                left_out.update(dict.fromkeys(templates, source.why or "parts of several layers are joined"))
                continue
            indices = dict(zip(LETTERS, found[0], strict=False))
            if source.item is not None:
                indices[EXPERT] = str(source.item)
            is_stacked = source.item is not None
            signature = (source.kind, templates, source.axis, source.part, source.parts, is_stacked)
            kinds[signature][(*sorted(indices.items()), hub)] = (templates, indices, hub)
    renamed: dict[str, str] = {}
    joined: list[tuple[str, str, tuple[str, ...], int | None, bool]] = []
    parts: dict[tuple[Any, ...], dict[int, str]] = defaultdict(dict)
    for (kind, templates, axis, part, count, is_stacked), instances in kinds.items():
        try:
            solutions = solved(list(instances.values()), kept=EXPERT)
        except ValueError as error:
            left_out.update(dict.fromkeys(templates, str(error)))
            continue
        for memory, hub in solutions:
            if kind == "rename":
                renamed[memory[0]] = hub
            elif kind == "join":
                joined.append(("hub", hub, memory, axis, False))
            else:
                parts[memory[0], axis, count, is_stacked][part] = hub
    for (whole, axis, count, is_stacked), held in parts.items():
        if sorted(held) == list(range(count)):
            joined.append(("process", whole, tuple(held[part] for part in range(count)), axis, is_stacked))
        else:
            left_out[whole] = "stored in parts that have no names of their own"
    changed = {memory: hub for memory, hub in renamed.items() if memory != hub}
    in_memory = [name for side, whole, parts, _, _ in joined for name in ((whole,) if side == "process" else parts)]
    stays = stays_of(renamed, [*in_memory, *left_out])
    return Rows(renamed=changed, packed=joined, left_out=left_out, moved=moved_of(renamed), stays=stays)


def without_prefix(rows: Rows, prefix: str) -> Rows | None:
    """Return the rows less a prefix that all have on both sides, None when they have not."""
    names = [*rows.renamed, *rows.renamed.values(), *rows.left_out, *rows.moved, *rows.moved.values()]
    names += [name for _, whole, parts, _, _ in rows.packed for name in (whole, *parts)]
    if not all(name.startswith(prefix) for name in names):
        return None
    size = len(prefix)
    return Rows(
        renamed={memory[size:]: hub[size:] for memory, hub in rows.renamed.items()},
        packed=[
            (side, whole[size:], tuple(part[size:] for part in parts), axis, is_stacked)
            for side, whole, parts, axis, is_stacked in rows.packed
        ],
        left_out={name[size:]: why for name, why in rows.left_out.items()},
        moved={memory[size:]: hub[size:] for memory, hub in rows.moved.items()},
        stays=[path[size:] for path in rows.stays if path.startswith(prefix)],
    )


def merged(first: Rows, second: Rows) -> Rows | None:
    """Return rows that both classes can use, None when they contradict each other."""
    both = {**first.renamed, **second.renamed}
    hubs = list(both.values())
    if len(set(hubs)) != len(hubs) or any(first.renamed.get(key, hub) != hub for key, hub in second.renamed.items()):
        return None
    if any(_stays(name, two) for one, two in ((first, second), (second, first)) for name in one.renamed):
        return None
    if any(first.moved.get(key, hub) != hub for key, hub in second.moved.items()):
        return None
    packed = {row[1]: row for row in (*first.packed, *second.packed)}
    if any(packed[row[1]] != row for row in (*first.packed, *second.packed)):
        return None
    return Rows(
        renamed=both,
        packed=list(packed.values()),
        left_out={**first.left_out, **second.left_out},
        moved={**first.moved, **second.moved},
        stays=list(dict.fromkeys([*first.stays, *second.stays])),
    )


def variants_of(classes: Mapping[str, tuple[str, Rows]]) -> list[dict[str, Any]]:
    """Return the entry of a model type: classes that share rows together, each with what stands before its names."""
    found: list[tuple[dict[str, str], Rows]] = []
    for name, (base, rows) in sorted(classes.items(), key=lambda item: len(item[0])):
        for prefix in dict.fromkeys((f"{base}.", "model.", "")):
            bare = without_prefix(rows, prefix)
            if bare is not None and any(k for k in (*bare.renamed, *(row[1] for row in bare.packed))):
                break
        else:
            prefix, bare = "", rows
        for variant in found:
            if (together := merged(variant[1], bare)) is not None and _shares(variant[1], bare):
                found[found.index(variant)] = ({**variant[0], name: prefix}, together)
                break
        else:
            found.append(({name: prefix}, bare))
    return [
        {
            "classes": names,
            "rows": [[memory, hub, None] for memory, hub in rows.renamed.items() if not _is_moved(memory, hub, rows)],
            "packed": [[side, axis, is_stacked, whole, *parts] for side, whole, parts, axis, is_stacked in rows.packed],
            "moved": rows.moved,
            "stays": rows.stays,
            "left_out": rows.left_out,
        }
        for names, rows in found
    ]


def _stays(name: str, rows: Rows) -> bool:
    return any(name == path or name.startswith(f"{path}.") for path in rows.stays)


def _is_moved(memory: str, hub: str, rows: Rows) -> bool:
    """Whether a path that moves says it already."""
    return any(
        memory.startswith(f"{before}.") and hub == after + memory.removeprefix(before)
        for before, after in rows.moved.items()
    )


def _shares(first: Rows, second: Rows) -> bool:
    own, its = ({*rows.renamed, *(row[1] for row in rows.packed)} for rows in (first, second))
    return bool(own & its)


def switched(class_: Any, config: Any) -> Iterator[Built]:
    """Yield the model with each switch of its config flipped, as far as it can be built so."""
    for other in flipped(config):
        try:
            yield built(class_, other)
        except Exception:  # a switch that this model has not
            continue


def main(table: Path, model_types: list[str]) -> None:
    """Write the table; print what could not be built."""
    warnings.filterwarnings("ignore")
    transformers.logging.set_verbosity_error()
    found: dict[str, dict[str, tuple[str, Rows]]] = defaultdict(dict)
    counts = {"classes": 0, "not built": 0, "with other names": 0}
    for class_ in model_classes():
        if model_types and class_.config_class.model_type not in model_types:
            continue
        counts["classes"] += 1
        try:
            config = small(class_.config_class)
            model = built(class_, config)
        except Exception as error:  # whatever a model raises, it is a result
            counts["not built"] += 1
            print("not built:", class_.__name__, type(error).__name__, str(error).splitlines()[:1], flush=True)
            continue
        if all(source == Source("rename", (hub,)) for hub, source in model.stored.items()):
            continue
        counts["with other names"] += 1
        models = [model, *switched(class_, config)]
        rows = rows_of(models)
        for name, why in rows.left_out.items():
            print("left out:", class_.__name__, name, why, flush=True)
        found[config.model_type][class_.__name__] = (class_.base_model_prefix, rows)
    models_found = {model_type: {"variants": variants_of(classes)} for model_type, classes in sorted(found.items())}
    versions = {"transformers": transformers.__version__, "torch": torch.__version__}
    table_file.write(table, {"versions": versions, "models": models_found})
    print(counts, flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
