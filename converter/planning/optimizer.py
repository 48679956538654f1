"""Every decision on optimizer state: names and numbers that a file leaves open, order, and whether it is carried."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from converter.dialects.identity.inference import infer_architecture
from converter.dialects.optimizer.class_order import order_of_class
from converter.dialects.optimizer.keras_settings import TORCH
from converter.dialects.optimizer.numbering_conventions import ModuleOrder
from converter.dialects.optimizer.semantics import notes_on_state
from converter.dialects.optimizer.settings import NO_RATE
from converter.dialects.optimizer.tensorflow1 import is_complete
from converter.dialects.optimizer.torch_state import inferred_algorithm, named_state
from converter.dialects.optimizer.trainer import in_order, in_trainer_groups
from converter.dialects.transformers.heads import is_head
from converter.dialects.transformers.listings import places_inside
from converter.errors import ArchitectureError, GraphError, LossError, UsageError
from converter.formats import Format, ParameterOrder
from converter.model.checkpoint import Checkpoint, Dialect, Part
from converter.model.file import LocalFile, SourceFile
from converter.model.ledger import Kind, without
from converter.model.optimizer import NAMED, Convention, OptimizerState, StoredOptimizer
from converter.model.structure import State, places
from converter.options import OptimizerMode, Options
from converter.planning.copying import changed_states, pruned
from converter.report import OptimizerReport, OptimizerStatus

_ORDER_LIMIT_BYTES = 64 << 20
_IN_BUNDLES = frozenset({Kind.METRIC, Kind.OPTIMIZER, Kind.RANDOM, Kind.SAVES, Kind.STEPS, Kind.VALUE})
"""What the copy of a TensorFlow checkpoint has besides weights, and other targets have not."""
_CLASS = "class_name"
"""The hyperparameter that names the class of an optimizer, where its file does not."""
_CLASS_IS_KNOWN = f"--hyperparameter {_CLASS} is for files that do not say which optimizer they have state of"
_UNSAID = "the source says too little of it: its class, its settings or whose variables are whose"
_NAMES_CLASS = (
    f"--hyperparameter {_CLASS}=AdamW, or what it is, carries it, with another "
    "--hyperparameter learning_rate=VALUE where the file has no rate"
)


Step = Callable[[Checkpoint], Checkpoint]


def with_optimizer(
    checkpoint: Checkpoint, target: Format, options: Options, *, named: Step, adapted: Step
) -> tuple[Checkpoint, OptimizerReport]:
    """Return what `adapted` makes of what `named` makes of the checkpoint, and what became of its optimizer.

    `named` gives canonical names, before which numbered parameters have names of the source, and after which they are
    put in the groups and the order that `target` goes by; `adapted` gives what the target holds. Both move the state
    with the weights.

    Raises UsageError for an order or a hyperparameter that the state has no use for, LossError for state that must be
    kept and cannot be or whose parameters are ambiguous.
    """
    if options.optimizer is OptimizerMode.DROP or Part.OPTIMIZER not in target.holds:
        if options.optimizer is OptimizerMode.KEEP and _has_state(checkpoint):
            raise LossError(f"{target.name} does not hold optimizer state", hint="--optimizer auto drops it")
        planned = adapted(named(replace(checkpoint, optimizer=None, optimizer_stored=None)))
        return planned, _report(checkpoint, planned, target, options)
    if options.optimizer is OptimizerMode.KEEP and checkpoint.leaves_optimizer:
        raise LossError(f"optimizer state: {_UNSAID}", hint="--optimizer auto drops it")
    known = _settled(checkpoint, options)
    is_of_torch = known.optimizer is not None and known.optimizer.convention is Convention.TORCH
    usable = _usable(named(known), options, target)
    arranged = _arranged(usable, target, options, is_in_model_order=is_of_torch)
    planned = adapted(_with_basis(arranged))
    if usable.optimizer_stored is not None and (planned.listing is None or {*planned.names} != {*usable.names}):
        raise _unnamed(known)
    if planned.optimizer is not None:
        planned = replace(planned, warnings=(*planned.warnings, *notes_on_state(planned.optimizer)))
    elif options.optimizer is OptimizerMode.KEEP and arranged.optimizer is not None:
        hint = "--optimizer auto drops it"
        raise LossError(f"{target.name} does not hold optimizer state of this kind", hint=hint)
    return planned, _report(checkpoint, planned, target, options)


def with_optimizer_in_place(
    checkpoint: Checkpoint, target: Format, options: Options, *, selected: Step
) -> tuple[Checkpoint, OptimizerReport]:
    """Return what `selected` leaves of the checkpoint, nested as it was, and what became of its optimizer.

    An optimizer is copied as it is, its parameters in whatever order; but for hyperparameters that are asked for,
    parameters that are left out, and their names where the user says them. Raises LossError where the parameters would
    have to be known and are not.
    """
    has_state = next(places(checkpoint.structure, State), None) is not None
    has_none_left = not has_state or options.optimizer is OptimizerMode.DROP
    left = OptimizerReport(status=OptimizerStatus.DROPPED, reason="as asked") if has_state else OptimizerReport()
    if checkpoint.dialect == Dialect.TENSORFLOW:
        _check_stays(options)
        lost = {Kind.OPTIMIZER} if has_state and has_none_left else frozenset[Kind]()
        lines = tuple(line for line in checkpoint.lines if line.kind not in _IN_BUNDLES - lost)
        kept = replace(checkpoint, lines=lines, optimizer=None, optimizer_refused=None, optimizer_stored=None)
        planned = selected(kept)
        if has_none_left:
            return pruned(planned, lambda state: None), left
        return _with_variables(planned, checkpoint)
    checkpoint = replace(checkpoint, lines=without(checkpoint.lines, Kind.VALUE))
    if has_none_left:
        _settled(checkpoint, options)
        planned = selected(replace(checkpoint, optimizer=None))
        return pruned(planned, lambda state: None), left
    known = _settled(checkpoint, options)
    planned = selected(known)
    left_out = frozenset(checkpoint.names).difference(planned.names)
    if known.optimizer is None:
        if options.hyperparameter or left_out - checkpoint.buffers:
            _usable(known, options, target)
        basis = f"copied as it is: {known.optimizer_refused}"
        planned = replace(planned, optimizer_refused=None)
        return pruned(planned, lambda state: state), OptimizerReport(status=OptimizerStatus.CARRIED, basis=basis)
    state = known.optimizer
    report = _carried(state)
    if not (left_out or options.hyperparameter or options.param_order or options.trainable):
        return pruned(planned, lambda state: state), report
    asked = frozenset(_spelt(options.hyperparameters, state)) if options.hyperparameter else frozenset[str]()
    changed = changed_states(known, state, left_out, asked)
    return pruned(planned, lambda state: changed[id(state)]), report


def _check_stays(options: Options) -> None:
    """Raise UsageError for what would change the variables of an optimizer, which a copy has as they are."""
    for flag, value in (
        ("--hyperparameter", options.hyperparameter),
        ("--param-order", options.param_order),
        ("--trainable", options.trainable),
    ):
        if value:
            raise UsageError(f"{flag} changes nothing of a copy, whose optimizer stays as it is", hint="leave it out")


def _with_variables(planned: Checkpoint, source: Checkpoint) -> tuple[Checkpoint, OptimizerReport]:
    """Return the copy of a TensorFlow checkpoint with the variables of its optimizer, less those of what is left out.

    Raises LossError where parameters are left out and the state may be theirs.
    """
    left_out = frozenset(source.names).difference(planned.names)
    state = source.optimizer
    if state is None:
        if left_out:
            why = source.optimizer_unusable or "nothing tells which parameters it is of"
            raise LossError(f"optimizer state: {why}", hint="--optimizer drop copies the weights without it")
        report = OptimizerReport(status=OptimizerStatus.CARRIED, basis="copied as it is")
        return pruned(planned, lambda state: state), report
    gone = {id(held[name]) for held in state.slots.values() for name in left_out if name in held}
    return pruned(planned, lambda place: None if id(place.value) in gone else place), _carried(state)


def _carried(state: OptimizerState) -> OptimizerReport:
    return OptimizerReport(
        status=OptimizerStatus.CARRIED, algorithm=state.algorithm, step=state.step, basis=state.basis
    )


def _has_state(checkpoint: Checkpoint) -> bool:
    has_variables = checkpoint.optimizer_unusable is not None or checkpoint.leaves_optimizer
    return checkpoint.optimizer is not None or has_variables


def _settled(checkpoint: Checkpoint, options: Options) -> Checkpoint:
    """Return the checkpoint with names for an optimizer's numbered parameters, and the hyperparameters asked for.

    The order of the parameters is the user's, or, for the checkpoints of transformers.Trainer, that of the class that
    the config names, as its table says.
    """
    is_numbered = checkpoint.optimizer_numbered is not None
    has_order = options.param_order is not None or options.trainable is not None
    if has_order and not is_numbered and checkpoint.optimizer_stored is None:
        raise UsageError("--param-order and --trainable are for optimizers whose parameters are numbered")
    asked = options.hyperparameters
    if checkpoint.optimizer_stored is not None:
        checkpoint = _told(checkpoint, checkpoint.optimizer_stored, asked.pop(_CLASS, None), options)
    elif _CLASS in asked:
        raise UsageError(_CLASS_IS_KNOWN)
    elif has_order:
        checkpoint = _in_order_of_user(checkpoint, options)
    elif is_numbered and checkpoint.optimizer is None and checkpoint.config is not None:
        checkpoint = _by_architecture(checkpoint, options)
    checkpoint = _with_hyperparameters(checkpoint, asked)
    if checkpoint.optimizer is None or checkpoint.optimizer.convention is not Convention.TENSORFLOW_1:
        return checkpoint
    return _of_tensorflow_1(checkpoint, checkpoint.optimizer, options)


def _told(checkpoint: Checkpoint, stored: StoredOptimizer, class_name: str | None, options: Options) -> Checkpoint:
    """Return the checkpoint with state that Keras numbers, by the class, the order or the weights that are given."""
    if class_name is not None and stored.untold is None:
        raise UsageError(_CLASS_IS_KNOWN)
    order = None if options.param_order is None else _listed(LocalFile(options.param_order))
    frozen = frozenset[str]() if options.trainable is None else _untrained(checkpoint, options.trainable)
    inside = None if class_name is None and stored.untold is not None else places_inside(checkpoint)
    if class_name is None and order is None and options.trainable is None and inside is None:
        return checkpoint
    told = replace(checkpoint, optimizer=None, optimizer_refused=None)
    try:
        state = stored.named(class_name=class_name, order=order, frozen=frozen, inside=inside)
    except LossError as error:
        return replace(told, optimizer_refused=error.message_and_hint, optimizer_stored=replace(stored, untold=None))
    return replace(told, optimizer=state, lines=without(checkpoint.lines, Kind.OPTIMIZER))


def _usable(checkpoint: Checkpoint, options: Options, target: Format) -> Checkpoint:
    """Return the checkpoint, with a warning where its file does not even say of which optimizer it has state.

    Where nothing has to be known of it, as in a copy, it has state as it is stored, and only there.

    Raises LossError where it has state that neither its reader nor a translation can use, or that is to be kept.
    """
    stored, why = checkpoint.optimizer_stored, checkpoint.optimizer_unusable
    if checkpoint.optimizer is not None or why is None:
        return checkpoint if stored is None else replace(checkpoint, optimizer_stored=None)
    is_copy = checkpoint.listing is not None and checkpoint.listing.format == target.name
    if is_copy and stored is not None and not options.hyperparameter:
        return replace(checkpoint, optimizer_refused=None, lines=without(checkpoint.lines, Kind.OPTIMIZER))
    checkpoint = replace(checkpoint, optimizer_stored=None)
    untold = None if stored is None else stored.untold
    if untold is not None and options.optimizer is OptimizerMode.KEEP:
        hint = f"{_NAMES_CLASS}, --optimizer auto converts the weights without it"
        raise LossError(f"optimizer state: {untold}", hint=hint)
    if untold is not None:
        warning = f"optimizer state not carried: {untold}; {_NAMES_CLASS}"
        return replace(checkpoint, warnings=(*checkpoint.warnings, warning))
    raise _unnamed(replace(checkpoint, optimizer_stored=stored))


def _unnamed(checkpoint: Checkpoint) -> LossError:
    """Return the error for state whose parameters nobody can tell."""
    hint = "--optimizer drop converts the weights without it"
    if checkpoint.optimizer_numbered is not None or checkpoint.optimizer_stored is not None:
        hint = f"--param-order FILE or --trainable REGEX says which, by the names that ckconv inspect lists; {hint}"
    return LossError(f"optimizer state: {checkpoint.optimizer_unusable}", hint=hint)


def _of_tensorflow_1(checkpoint: Checkpoint, state: OptimizerState, options: Options) -> Checkpoint:
    """Return the checkpoint with its optimizer where its learning rate is known, which no file of TensorFlow 1 says.

    Else it stays behind, as those who convert released weights want it: its variables have ledger lines. Raises
    LossError where it is to be kept.
    """
    if is_complete(state):
        return replace(checkpoint, lines=without(checkpoint.lines, Kind.OPTIMIZER))
    why, hint = NO_RATE, "--hyperparameter learning_rate=VALUE carries it"
    if options.optimizer is OptimizerMode.KEEP:
        raise LossError(f"optimizer state: {why}", hint=hint)
    warning = f"optimizer state ({state.algorithm}) not carried: {why}; {hint}"
    return replace(checkpoint, optimizer=None, warnings=(*checkpoint.warnings, warning))


def _named(checkpoint: Checkpoint, **how: Any) -> Checkpoint:
    assert checkpoint.optimizer_numbered is not None
    try:
        state = named_state(checkpoint.optimizer_numbered, checkpoint, **how)
    except LossError as error:
        return replace(checkpoint, optimizer=None, optimizer_refused=error.message)
    return replace(checkpoint, optimizer=state, optimizer_refused=None)


def _in_order_of_user(checkpoint: Checkpoint, options: Options) -> Checkpoint:
    if options.param_order is not None:
        return _named(checkpoint, user_order=_listed(LocalFile(options.param_order)))
    assert options.trainable is not None
    named = _named(replace(checkpoint, frozen=_untrained(checkpoint, options.trainable)))
    return replace(named, frozen=checkpoint.frozen)


def _untrained(checkpoint: Checkpoint, trainable: str) -> frozenset[str]:
    """Return the names that the regular expression `trainable` is not found in."""
    try:
        pattern = re.compile(trainable)
    except re.error as error:
        raise UsageError(f"--trainable {trainable!r} is no regular expression: {error}") from error
    frozen = frozenset(name for name in checkpoint.tensors if pattern.search(name) is None)
    if len(frozen) == len(checkpoint.tensors):
        raise UsageError(f"--trainable {trainable!r} matches no tensor")
    return frozen


def _listed(file: SourceFile) -> tuple[str, ...]:
    """Return the names in a file: a JSON list, or one on each line."""
    if file.size > _ORDER_LIMIT_BYTES:
        raise UsageError(f"is a list of {file.size} bytes", path=file.path)
    try:
        text = file.read(0, file.size).decode("utf-8")
        names = json.loads(text) if text.lstrip().startswith("[") else text.split("\n")
    except ValueError as error:
        raise UsageError(f"is no list of names: {error}", path=file.path) from error
    if not all(isinstance(name, str) for name in names):
        raise UsageError("is no list of names", path=file.path)
    return tuple(name.strip() for name in names if name.strip())


def _by_architecture(checkpoint: Checkpoint, options: Options) -> Checkpoint:
    try:
        order = _order_of_class(checkpoint, options)
    except LossError as error:
        return replace(checkpoint, optimizer_refused=error.message)
    except _NO_CLASS as error:
        hint = "" if error.hint is None else f" ({error.hint})"
        why = f"{checkpoint.optimizer_refused}; {error.message}{hint}"
        return replace(checkpoint, optimizer_refused=why)
    return _named(checkpoint, order=order)


_NO_CLASS = (ArchitectureError, GraphError)


def _order_of_class(checkpoint: Checkpoint, options: Options) -> ModuleOrder:
    """Return the order in which the class that the config names, or the tensors tell, has its parameters.

    Raises LossError when it has one that the checkpoint lacks, and `_NO_CLASS` when no table says it.
    """
    assert checkpoint.config is not None
    inference = infer_architecture(checkpoint.by_name, checkpoint.config.values, task=options.task)
    return order_of_class(checkpoint, inference.architecture, inference.prefix)


def _arranged(checkpoint: Checkpoint, target: Format, options: Options, *, is_in_model_order: bool) -> Checkpoint:
    """Return the checkpoint with its optimizer's parameters in the groups and the order that `target` goes by.

    `checkpoint` has canonical names, and its optimizer torch's conventions; `is_in_model_order` says whether its
    groups keep the order of a model of torch, as an optimizer of torch does. What cannot be arranged is a warning.
    """
    state = checkpoint.optimizer
    if state is None or state.convention is not Convention.TORCH or target.parameters is ParameterOrder.NAMED:
        return checkpoint
    order = None
    config = checkpoint.config
    try:
        if not is_in_model_order and config is not None and config.model_type is not None:
            order = _order_of_class(checkpoint, options)
        if target.parameters is ParameterOrder.TRAINER:
            return replace(checkpoint, optimizer=in_trainer_groups(checkpoint, order))
        return checkpoint if order is None else replace(checkpoint, optimizer=in_order(state, order))
    except (LossError, *_NO_CLASS) as error:
        why = error.message if any(map(is_head, checkpoint.names)) else error  # no option gives a class other layers
        warning = f"the optimizer's parameters keep the source's order and groups, and torch goes by position: {why}"
        return replace(checkpoint, warnings=(*checkpoint.warnings, warning))


def _with_hyperparameters(checkpoint: Checkpoint, asked: Mapping[str, Any]) -> Checkpoint:
    state = checkpoint.optimizer
    if asked and state is None and checkpoint.optimizer_refused is None:
        stored = checkpoint.optimizer_stored
        if stored is not None and stored.untold is not None:
            raise UsageError(f"--hyperparameter alone does not do: {stored.untold}", hint=_NAMES_CLASS)
        raise UsageError("--hyperparameter is for the state of an optimizer, and there is none")
    if not asked or state is None:
        return checkpoint
    groups = tuple(
        replace(group, hyperparameters={**group.hyperparameters, **_spelt(asked, state)}) for group in state.groups
    )
    algorithm = state.algorithm
    if algorithm == "unknown":  # `decoupled_weight_decay` tells AdamW from Adam, where torch did not write it yet
        algorithm = inferred_algorithm([group.hyperparameters for group in groups], state.slots)
    return replace(checkpoint, optimizer=replace(state, groups=groups, algorithm=algorithm))


_KERAS = {"lr": "learning_rate", "eps": "epsilon", "alpha": "rho"}
_TORCH = {keras: torch for torch, keras in _KERAS.items()}


def _spelt(asked: Mapping[str, Any], state: OptimizerState) -> dict[str, Any]:
    """Return hyperparameters as the conventions of `state` call them; either framework's names may be given.

    Raises UsageError for one that is given by two names, and for one that no optimizer of torch.optim has.
    """
    for name, value in asked.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise UsageError(f"--hyperparameter {name} is {value}")
    is_of_torch = state.convention is Convention.TORCH
    pairs = list(_named_in_torch(asked, state) if is_of_torch else _named_in_keras(asked))
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(name for name, count in Counter(name for name, _ in pairs).items() if count > 1)
        raise UsageError(f"--hyperparameter gives {twice} by two names: {', '.join(asked)}")
    return found


def _named_in_torch(asked: Mapping[str, Any], state: OptimizerState) -> Iterator[tuple[str, Any]]:
    stated = frozenset[str]().union(*(group.hyperparameters for group in state.groups))
    for name, value in asked.items():
        own = name if name in stated else _TORCH.get(name, name)
        if own not in stated | TORCH:
            what = f"--hyperparameter {name}: neither the file nor PyTorch has it of {state.algorithm}"
            raise UsageError(what, hint=f"the file has {', '.join(sorted(stated))}")
        yield own, value


def _named_in_keras(asked: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in asked.items():
        if name != "betas":
            yield _KERAS.get(name, name), value
            continue
        if not isinstance(value, list | tuple) or len(value) != 2:
            raise UsageError("--hyperparameter betas is a list of two numbers")
        yield from zip(("beta_1", "beta_2"), value, strict=True)


def _report(source: Checkpoint, planned: Checkpoint, target: Format, options: Options) -> OptimizerReport:
    state = planned.optimizer or source.optimizer
    if state is None and not _has_state(source):
        return OptimizerReport()
    reason = f"{target.name} does not hold it"
    if options.optimizer is OptimizerMode.DROP:
        reason = "as asked"
    elif Part.OPTIMIZER in target.holds:
        reason = _UNSAID if source.leaves_optimizer else "what is written has no place for it"
    if state is not None and not is_complete(state) and Part.OPTIMIZER in target.holds:
        reason = NO_RATE
    if planned.optimizer_stored is not None:
        basis = f"copied as it is: {source.optimizer_unusable}"
        return OptimizerReport(status=OptimizerStatus.CARRIED, basis=basis)
    untold = None if source.optimizer_stored is None else source.optimizer_stored.untold
    if untold is not None and Part.OPTIMIZER in target.holds and options.optimizer is OptimizerMode.AUTO:
        reason = NO_RATE if _CLASS in options.hyperparameters else untold
    known = OptimizerReport(status=OptimizerStatus.DROPPED, reason=reason)
    if state is not None:
        known = replace(known, algorithm=state.algorithm, step=state.step, basis=state.basis)
    return known if planned.optimizer is None else replace(known, status=OptimizerStatus.CARRIED, reason=None)


def _with_basis(checkpoint: Checkpoint) -> Checkpoint:
    """Return the checkpoint with a warning of what the names of parameters rest on, unless the source names them."""
    state = checkpoint.optimizer
    if state is None or state.basis == NAMED:
        return checkpoint
    alike = 0
    for group in state.groups:
        shapes = Counter(checkpoint.tensor(name).shape for name in group.parameters if name in checkpoint)
        alike += sum(count for count in shapes.values() if count > 1)
    rests = f"; {alike} parameters of the same shape rest on order" if alike else ""
    warning = f"the optimizer's parameters: {state.basis}{rests}"
    return replace(checkpoint, warnings=(*checkpoint.warnings, warning))
