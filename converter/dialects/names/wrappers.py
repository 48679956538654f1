"""Names as the model itself gives them, without what torch's wrappers add: parallel, compiled, checkpointed modules."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from converter.model.checkpoint import Checkpoint

INSIDE = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
"""What torch.compile, FullyShardedDataParallel and checkpoint_wrapper call the module inside, wherever that is."""
PARALLEL = "module"
"""What DataParallel and DistributedDataParallel, which are around a whole model, call it."""


def unwrapped(checkpoint: Checkpoint) -> Checkpoint:
    """Return the checkpoint with wrapper prefixes stripped from its names, and a warning that says so.

    ``_orig_mod.`` and the like go wherever they are; ``module.`` goes from the front, and only when every name of a
    model carries it. Names stay as they are where stripping would make two of them one. Lightning's ``model.`` stays.
    """
    of_models = frozenset(name for names in checkpoint.models.values() for name in names)
    stripped = _without_wrappers("", tuple(name for name in checkpoint.names if name not in of_models))
    for model, names in checkpoint.models.items():
        prefix = f"{model}." if all(name.startswith(f"{model}.") for name in names) else ""
        stripped |= _without_wrappers(prefix, names)
    changed = sum(old != new for old, new in stripped.items())
    if not changed or len(set(stripped.values())) != len(stripped):
        return checkpoint
    found = [f"{each}." for each in (PARALLEL, *INSIDE) if any(_lost(*pair, each) for pair in stripped.items())]
    line = f"stripped the wrapper prefix {' and '.join(found)} from {changed} names"
    renamed = checkpoint.with_names(stripped.__getitem__)
    return replace(renamed, warnings=(*renamed.warnings, line))


def _without_wrappers(prefix: str, names: Iterable[str]) -> dict[str, str]:
    """Return name -> name without wrappers, for names that all begin with `prefix`, which stays."""
    start = len(prefix)
    parts = {name: [part for part in name[start:].split(".")[:-1] if part not in INSIDE] for name in names}
    while parts and all(modules[:1] == [PARALLEL] for modules in parts.values()):
        parts = {name: modules[1:] for name, modules in parts.items()}
    return {name: prefix + ".".join([*modules, name.rpartition(".")[2]]) for name, modules in parts.items()}


def _lost(old: str, new: str, prefix: str) -> bool:
    return old.split(".").count(prefix) > new.split(".").count(prefix)
