"""What transformers.Trainer keeps beside a model's weights: `optimizer.pt`, `scheduler.pt` and `trainer_state.json`.

Layout: transformers.Trainer._save_optimizer_and_scheduler and TrainerState, versions 4.57 and 5.23. Beside a TensorFlow
model an optimizer is one of tf_keras: `optimizer.json`, which `tf_keras.optimizers.deserialize` takes, and a checkpoint
`optimizer`, which `tf.train.Checkpoint(optimizer=...)` restores.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np

from converter.dialects.optimizer.flavors import KerasFlavor
from converter.dialects.optimizer.keras_files import SAVE_COUNTER, recorded, with_named_state
from converter.dialects.optimizer.objects import add_optimizer
from converter.dialects.optimizer.torch_state import is_optimizer_state, named_state, state_dict
from converter.dialects.optimizer.trainer import constant_schedule, for_groups
from converter.encoding import json as strict_json
from converter.encoding.folder import open_inside
from converter.encoding.object_graph import ObjectTree
from converter.encoding.tensor_bundle import bundle_files, read_bundle
from converter.encoding.torch_file import Walk, archive_of, torch_file
from converter.errors import CkconvError, LossError, ReadError, SafetyError, UsageError
from converter.model.checkpoint import Checkpoint, Part
from converter.model.file import Location
from converter.model.ledger import LedgerLine, dropped
from converter.model.optimizer import Convention, OptimizerState
from converter.model.output import OutputFile
from converter.model.tensor import ArrayTensor, tensor_names

OPTIMIZER_NAME, SCHEDULER_NAME, STATE_NAME = "optimizer.pt", "scheduler.pt", "trainer_state.json"
RANDOM_NAME, SCALER_NAME = "rng_state.pth", "scaler.pt"
KERAS_NAME, _BUNDLE, _INDEX_NAME = "optimizer.json", "optimizer", "optimizer.index"
FILE_NAMES = (
    OPTIMIZER_NAME,
    SCHEDULER_NAME,
    STATE_NAME,
    RANDOM_NAME,
    SCALER_NAME,
    KERAS_NAME,
    _INDEX_NAME,
    f"{_BUNDLE}.data-?????-of-?????",
)
_PICKLES = (OPTIMIZER_NAME, SCHEDULER_NAME, RANDOM_NAME, SCALER_NAME)
_BESIDE = {"rng_state": RANDOM_NAME, "scaler_state_dict": SCALER_NAME}
"""What is carried as it is, and only if it can be: key in the extras -> file."""
_NOT_READ = ("training_args.bin",)
_UNREADABLE = (ReadError, SafetyError, LossError)
_STATE_LIMIT_BYTES = 256 << 20
_BATCH_SIZE = 8
"""Trainer's default. It cannot resume without one, and transformers 4 takes it from the state."""
_NO_PLACE = "a pretrained folder has no place for it"


def read(checkpoint: Checkpoint, folder: Location, entries: Iterable[str]) -> Checkpoint:
    """Return `checkpoint` with the training state that `folder` holds.

    A file that is not what its name says, or would run code, is `unread`: targets that take nothing of it go without.
    """
    present = frozenset(entries)
    extras: dict[str, Any] = {}
    unread: dict[Part, CkconvError] = {}
    left = [name for name in _NOT_READ if name in present]
    walk = Walk(stored_bytes=sum(_size(folder, name) for name in _PICKLES if name in present))

    @contextmanager
    def reading(name: str, part: Part) -> Iterator[None]:
        try:
            yield
        except _UNREADABLE as error:
            error.hint = error.hint or "the file of the weights by itself is converted without it"
            unread.setdefault(part, error)
            left.append(f"{name} ({error.message})")

    if STATE_NAME in present:
        with reading(STATE_NAME, Part.EXTRAS):
            extras |= _read_state(folder)
    if SCHEDULER_NAME in present:
        with reading(SCHEDULER_NAME, Part.EXTRAS):
            extras["scheduler_state_dict"] = _load(folder, SCHEDULER_NAME, walk)
    for key, name in _BESIDE.items():
        if name in present:
            try:
                extras[key] = _load(folder, name, walk)
            except _UNREADABLE:
                left.append(name)
    checkpoint = replace(checkpoint, extras=extras)
    if OPTIMIZER_NAME in present:
        with reading(OPTIMIZER_NAME, Part.OPTIMIZER):
            checkpoint = _with_optimizer(checkpoint, folder, walk)
    elif {KERAS_NAME, _INDEX_NAME} <= present:
        with reading(KERAS_NAME, Part.OPTIMIZER):
            checkpoint = _with_keras_optimizer(checkpoint, folder)
    if Part.OPTIMIZER in unread:
        checkpoint = replace(checkpoint, optimizer_refused=unread[Part.OPTIMIZER].message)
    warnings = (f"{', '.join(left)} not carried",) if left else ()
    return replace(
        checkpoint,
        unread=unread,
        lines=(*checkpoint.lines, *walk.lines),
        warnings=(*checkpoint.warnings, *warnings),
    )


def _with_optimizer(checkpoint: Checkpoint, folder: Location, walk: Walk) -> Checkpoint:
    state = _load(folder, OPTIMIZER_NAME, walk)
    if not is_optimizer_state(state):
        raise ReadError("is no optimizer's state_dict()", path=folder / OPTIMIZER_NAME)
    try:
        return replace(checkpoint, optimizer=named_state(state, checkpoint, is_in_module_order=False))
    except LossError as error:
        return replace(checkpoint, optimizer_refused=error.message, optimizer_numbered=state)


def _size(folder: Location, name: str) -> int:
    try:
        return open_inside(folder, name).size
    except _UNREADABLE:
        return 0


def _with_keras_optimizer(checkpoint: Checkpoint, folder: Location) -> Checkpoint:
    file = open_inside(folder, KERAS_NAME)
    if file.size > _STATE_LIMIT_BYTES:
        raise ReadError(
            f"is an optimizer of {file.size} bytes, and at most {_STATE_LIMIT_BYTES} are read", path=file.path
        )
    document = strict_json.loads(file.read(0, file.size), path=file.path, what="optimizer")
    return with_named_state(checkpoint, read_bundle(folder / _BUNDLE), document)


def _load(folder: Location, name: str, walk: Walk) -> Any:
    file = open_inside(folder, name)
    try:
        return walk.plain(archive_of(file).load(), name)
    except _UNREADABLE as error:
        error.path = error.path or str(file.path)
        raise


def _read_state(folder: Location) -> dict[str, Any]:
    file = open_inside(folder, STATE_NAME)
    if file.size > _STATE_LIMIT_BYTES:
        raise ReadError(f"is a state of {file.size} bytes, and at most {_STATE_LIMIT_BYTES} are read", path=file.path)
    state = strict_json.loads(file.read(0, file.size), path=file.path, what="state")
    if not isinstance(state, dict):
        raise ReadError("is not a JSON object", path=file.path)
    known = {key: state[key] for key in ("epoch", "global_step") if isinstance(state.get(key), int | float)}
    return {**known, "trainer_state": state}


def files(
    checkpoint: Checkpoint, train_batch_size: int | None
) -> tuple[tuple[OutputFile, ...], tuple[LedgerLine, ...], tuple[str, ...]]:
    """Lay out the training state of `checkpoint`; what Trainer has no place for is lines and warnings.

    `train_batch_size` is that of a device, which Trainer has to know: None for what the source says, or its default.
    """
    extras = dict(checkpoint.extras)
    outputs: list[OutputFile] = []
    state = checkpoint.optimizer
    is_of_torch = state is not None and state.convention is Convention.TORCH
    if state is not None and is_of_torch:
        outputs.append(OutputFile(name=OPTIMIZER_NAME, pieces=torch_file(state_dict(state))))
    elif state is not None:
        outputs += _keras_files(state)
    scheduler, assumed, notes = _scheduler(checkpoint, extras.pop("scheduler_state_dict", None))
    if scheduler is not None:
        outputs.append(OutputFile(name=SCHEDULER_NAME, pieces=torch_file(scheduler)))
    for key, name in _BESIDE.items():
        if key in extras:
            outputs.append(OutputFile(name=name, pieces=torch_file(extras.pop(key))))
    trainer_state, more = _state(checkpoint, extras, train_batch_size)
    assumed = (*assumed, *more)
    if assumed:
        notes = (*notes, f"should transformers' Trainer go on from there, it is assumed: {'; '.join(assumed)}")
    if trainer_state:
        text = json.dumps(trainer_state, indent=2, sort_keys=True) + "\n"
        outputs.append(OutputFile(name=STATE_NAME, pieces=(text.encode("ascii"),)))
    left = (name for key, value in extras.items() for name in tensor_names(key, value))
    lines = tuple(dropped(name, _NO_PLACE) for name in left)
    if extras:
        notes = (*notes, f"{', '.join(extras)} not carried: {_NO_PLACE}")
    return tuple(outputs), lines, notes


def _keras_files(state: OptimizerState) -> tuple[OutputFile, ...]:
    tree = ObjectTree()
    tensors = add_optimizer(tree, tree.child(0, "optimizer"), state, KerasFlavor.TF_KERAS, {})
    counter = tree.set_variable(tree.child(0, SAVE_COUNTER), SAVE_COUNTER, SAVE_COUNTER)
    tensors[counter] = ArrayTensor.of(np.asarray(1, np.int64))
    text = json.dumps(recorded(state), indent=2, sort_keys=True) + "\n"
    return (*bundle_files(_BUNDLE, tensors, tree.serialized()), OutputFile(name=KERAS_NAME, pieces=(text.encode(),)))


def _scheduler(checkpoint: Checkpoint, scheduler: Any) -> tuple[Any, tuple[str, ...], tuple[str, ...]]:
    """Return what scheduler.pt holds, what is assumed, and notes: Trainer reads optimizer.pt only beside one."""
    state = checkpoint.optimizer
    if state is None or state.convention is not Convention.TORCH:
        return scheduler, (), ()
    if scheduler is None:
        return constant_schedule(state), ("a constant learning rate",), ()
    fitted = for_groups(scheduler, len(state.groups)) if isinstance(scheduler, Mapping) else None
    if fitted is None:
        note = f"scheduler.pt is for other groups than the {len(state.groups)} of optimizer.pt"
        return scheduler, (), (note,)
    return fitted, (), ()


def _state(
    checkpoint: Checkpoint, extras: dict[str, Any], train_batch_size: int | None
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Take out of `extras` what TrainerState holds; return it, and what is assumed."""
    kept = extras.pop("trainer_state", None)
    state: dict[str, Any] = dict(kept) if isinstance(kept, Mapping) else {}
    epoch, step = extras.pop("epoch", None), extras.pop("global_step", None)
    is_keras = checkpoint.optimizer is not None and checkpoint.optimizer.convention is not Convention.TORCH
    if step is None and checkpoint.optimizer is not None and not is_keras:
        step = checkpoint.optimizer.step
    if isinstance(epoch, int | float):
        state["epoch"] = float(epoch)
    if isinstance(step, int):
        state["global_step"] = step
    if not state or is_keras:
        if train_batch_size is not None:
            raise UsageError("--train-batch-size is for training that Trainer goes on with, and none goes along")
        return state, ()
    assumed = () if "logging_steps" in state else ("logging, evaluation and saving every 500 steps",)
    if train_batch_size is not None:
        state["train_batch_size"] = train_batch_size
    elif not isinstance(state.get("train_batch_size"), int):
        state["train_batch_size"] = _BATCH_SIZE
        assumed = (*assumed, f"a batch size of {_BATCH_SIZE} (--train-batch-size sets another)")
    return state, assumed
