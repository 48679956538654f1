"""What is decided of optimizer state: who names its parameters, what it is asked for, whether it goes. No framework."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converter.dialects.identity.inference import Inference
from converter.dialects.optimizer.numbering_conventions import ModuleOrder
from converter.errors import ArchitectureError, CkconvError, LossError, UsageError
from converter.formats import registry
from converter.model.checkpoint import Checkpoint, Config
from converter.model.ledger import Kind, no_weight
from converter.model.optimizer import Convention, OptimizerState, ParameterGroup
from converter.model.tensor import ArrayTensor
from converter.options import Options
from converter.planning import optimizer as planning
from converter.planning.optimizer import Step, with_optimizer
from converter.report import OptimizerReport

SHAPES: dict[str, tuple[int, ...]] = {"bert.a.weight": (2, 2), "bert.a.bias": (2,), "bert.b.weight": (2, 2)}
NAMES = tuple(SHAPES)
CONFIG = Config(values={"model_type": "own", "architectures": ["OwnModel"]}, raw=b"{}")
GROUP = ParameterGroup(parameters=NAMES, hyperparameters={"lr": 0.1, "weight_decay": 0.0})
STATE = OptimizerState(algorithm="adamw", step=3, groups=(GROUP,))
WEIGHTS = Checkpoint(tensors={name: ArrayTensor.of(np.zeros(shape, np.float32)) for name, shape in SHAPES.items()})
TRAINED = replace(WEIGHTS, optimizer=STATE)
NUMBERED = {"state": {}, "param_groups": [{"lr": 0.1, "params": [0, 1, 2]}]}
PTH, FOLDER, DCP, TENSORS = (registry()[name] for name in ("pytorch", "pretrained", "dcp", "safetensors"))


class Asked(list[tuple[str, str]]):
    """Which classes the table was asked for, and below which prefix; `order` and `norms` are what it answers."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__()
        self.order: tuple[str, ...] = NAMES[::-1]
        self.norms: frozenset[str] = frozenset()
        self.fails: CkconvError | None = None

        def order_of_class(_: Checkpoint, architecture: str, prefix: str = "") -> ModuleOrder:
            self.append((architecture, prefix))
            if self.fails is not None:
                raise self.fails
            return ModuleOrder(names=self.order, layer_norms=self.norms)

        monkeypatch.setattr(planning, "order_of_class", order_of_class)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    return Asked(monkeypatch)


def groups(checkpoint: Checkpoint) -> list[tuple[str, ...]]:
    assert checkpoint.optimizer is not None, checkpoint.optimizer_refused
    return [group.parameters for group in checkpoint.optimizer.groups]


def as_it_is(checkpoint: Checkpoint) -> Checkpoint:
    return checkpoint


def through(
    source: Checkpoint, target: Any, named: Step = as_it_is, adapted: Step = as_it_is, **options: Any
) -> Checkpoint:
    return with_optimizer(source, target, Options(**options), named=named, adapted=adapted)[0]


def reported(source: Checkpoint, planned: Checkpoint, target: Any, options: Options) -> OptimizerReport:
    return with_optimizer(source, target, options, named=as_it_is, adapted=lambda _: planned)[1]


# names for numbers


def numbered(**more: Any) -> Checkpoint:
    return replace(WEIGHTS, optimizer_numbered=NUMBERED, optimizer_refused="numbered", config=CONFIG, **more)


def test_the_class_of_the_config_names_parameters_that_are_only_numbered(asked: Asked) -> None:
    made = through(numbered(), PTH)
    assert groups(made) == [NAMES[::-1]]
    assert (made.optimizer_refused, asked) == (None, [("OwnModel", "")])


def test_no_class_is_looked_up_where_it_decides_nothing(asked: Asked) -> None:
    named = replace(numbered(optimizer=STATE), optimizer_refused=None)
    assert groups(through(named, PTH)) == [NAMES]
    unknown = replace(numbered(), config=None)
    with pytest.raises(LossError, match="optimizer state: numbered"):
        through(unknown, PTH)
    assert through(numbered(), PTH, optimizer="drop").optimizer is None
    assert through(numbered(), TENSORS).optimizer is None
    assert asked == []


def test_why_a_class_gives_no_order_is_why_state_is_refused(asked: Asked) -> None:
    asked.fails = LossError("OwnModel has a parameter 'new.a', which is not among the weights")
    with pytest.raises(LossError, match=r"optimizer state: OwnModel has a parameter 'new\.a'"):
        through(numbered(), PTH)
    asked.fails = ArchitectureError("no table knows it", hint="name its class")
    with pytest.raises(LossError, match=r"optimizer state: numbered; no table knows it \(name its class\)"):
        through(numbered(), PTH)


def test_a_class_that_cannot_be_told_leaves_what_was_said_and_why(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise ArchitectureError("nothing says which class", hint="give --task")

    monkeypatch.setattr(planning, "infer_architecture", fail)
    with pytest.raises(LossError, match=r"optimizer state: numbered; nothing says which class \(give --task\)"):
        through(numbered(), PTH)


def test_what_a_user_says_of_numbers_is_for_numbers(asked: Asked, tmp_path: Path) -> None:
    listed = tmp_path / "order"
    listed.write_text("\n".join(NAMES[::-1]))
    for given in ({"param_order": listed}, {"trainable": "."}):
        with pytest.raises(UsageError, match="are for optimizers whose parameters are numbered"):
            through(TRAINED, PTH, **given)
    assert groups(through(numbered(), PTH, param_order=listed)) == [NAMES[::-1]]
    assert asked == []


# order


PLACED = replace(TRAINED, config=CONFIG)


def arranged(source: Checkpoint, target: Any, *, is_in_model_order: bool = False, **options: Any) -> Checkpoint:
    """Let an optimizer's parameters be arranged; those that are in no order of torch become torch's with the names."""
    of_keras = replace(TRAINED, optimizer=replace(STATE, convention=Convention.KERAS))
    read = source if is_in_model_order or source.optimizer is None else of_keras
    return through(read, target, named=lambda _: source, **options)


def test_a_target_that_goes_by_number_gets_the_order_of_the_class(asked: Asked) -> None:
    assert groups(arranged(PLACED, PTH)) == [NAMES[::-1]]
    assert groups(arranged(PLACED, FOLDER)) == [(NAMES[2], NAMES[0]), (NAMES[1],)]
    assert len(asked) == 2


def test_names_of_the_class_have_the_checkpoints_prefix(asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    """And so have those of its LayerNorms, which do not decay whatever they are called."""
    told = Inference(architecture="OwnModel", basis="config", prefix="bert.")
    monkeypatch.setattr(planning, "infer_architecture", lambda *_, **__: told)
    asked.norms = frozenset({"bert.b.weight"})
    assert groups(arranged(PLACED, FOLDER)) == [(NAMES[0],), (NAMES[2], NAMES[1])]
    assert groups(through(numbered(), PTH)) == [(NAMES[2], NAMES[1], NAMES[0])]
    assert set(asked) == {("OwnModel", "bert.")}


def test_an_order_that_is_there_or_that_nobody_goes_by_is_not_asked_for(asked: Asked) -> None:
    assert groups(arranged(PLACED, PTH, is_in_model_order=True)) == [NAMES]
    assert groups(arranged(PLACED, FOLDER, is_in_model_order=True)) == [(NAMES[0], NAMES[2]), (NAMES[1],)]
    assert arranged(PLACED, DCP).optimizer is PLACED.optimizer
    of_no_class = replace(TRAINED, config=Config(values={}, raw=b"{}"))
    for source in (TRAINED, of_no_class):
        assert arranged(source, PTH).optimizer is source.optimizer
    of_keras = replace(PLACED, optimizer=replace(STATE, convention=Convention.KERAS))
    assert arranged(of_keras, PTH).optimizer is of_keras.optimizer
    assert through(PLACED, PTH, optimizer="drop").optimizer is None
    assert through(PLACED, TENSORS).optimizer is None
    assert arranged(replace(PLACED, optimizer=None), PTH).optimizer is None
    assert asked == []


def test_what_cannot_be_arranged_stays_and_is_said(asked: Asked) -> None:
    asked.fails = LossError("OwnModel has a parameter 'gone', which is not among the weights")
    for target in (PTH, FOLDER):
        made = arranged(PLACED, target)
        assert made.optimizer == PLACED.optimizer
        (said,) = made.warnings
        assert "keep the source's order and groups, and torch goes by position" in said
        assert "a parameter 'gone'" in said
    parts = (replace(GROUP, parameters=NAMES[:1]), ParameterGroup(parameters=NAMES[1:], hyperparameters={"lr": 1}))
    differ = replace(STATE, groups=parts)
    made = arranged(replace(TRAINED, optimizer=differ), FOLDER)
    assert "which Trainer has in one group, have different hyperparameters" in made.warnings[0]


# hyperparameters


@pytest.mark.parametrize("convention", [Convention.KERAS, Convention.KERAS_LEGACY])
def test_names_of_pytorch_are_those_of_keras_there(convention: Convention) -> None:
    state = replace(STATE, algorithm="rmsprop", convention=convention)
    given = ("lr=0.5", "eps=0.25", "alpha=0.75", "momentum=0.125")
    made = through(replace(WEIGHTS, optimizer=state), DCP, hyperparameter=given)
    assert made.optimizer is not None
    assert made.optimizer.groups[0].hyperparameters == {
        **GROUP.hyperparameters,
        **{"learning_rate": 0.5, "epsilon": 0.25, "rho": 0.75, "momentum": 0.125},
    }


def test_names_of_keras_are_those_of_pytorch_there() -> None:
    given = ("learning_rate=0.5", "epsilon=0.25", "rho=0.75")
    made = through(TRAINED, DCP, hyperparameter=given)
    assert made.optimizer is not None
    assert made.optimizer.groups[0].hyperparameters == {"lr": 0.5, "weight_decay": 0.0, "eps": 0.25, "alpha": 0.75}
    own = replace(STATE, groups=(replace(GROUP, hyperparameters={"lr": 0.1, "rho": 0.9}),))  # Adadelta calls it so
    made = through(replace(WEIGHTS, optimizer=own), DCP, hyperparameter=given)
    assert made.optimizer is not None
    assert made.optimizer.groups[0].hyperparameters == {"lr": 0.5, "eps": 0.25, "rho": 0.75}


def test_state_of_tensorflow_1_stays_behind_without_a_rate_and_is_said_to() -> None:
    lines = (no_weight("a/Adam", Kind.OPTIMIZER), no_weight("save", Kind.SAVES))
    group = replace(GROUP, hyperparameters={})
    state = replace(STATE, groups=(group,), convention=Convention.TENSORFLOW_1)
    source = replace(WEIGHTS, optimizer=state, lines=lines)
    left = through(source, DCP)
    assert (left.optimizer, left.lines) == (None, lines)
    assert "optimizer state (adamw) not carried: the file does not say its learning rate" in left.warnings[0]
    with pytest.raises(LossError, match="does not say its learning rate"):
        through(source, DCP, optimizer="keep")
    for mode in ("auto", "keep"):
        carried = through(source, DCP, optimizer=mode, hyperparameter=("lr=0.5",))
        assert (carried.optimizer is not None, carried.lines, carried.warnings) == (True, lines[1:], ())


# whether it goes


def test_state_that_is_to_be_kept_is_kept_or_an_error() -> None:
    assert through(TRAINED, DCP, optimizer="keep").optimizer is STATE
    with pytest.raises(LossError, match="safetensors does not hold optimizer state") as caught:
        through(TRAINED, TENSORS, optimizer="keep")
    assert caught.value.hint == "--optimizer auto drops it"
    assert through(TRAINED, TENSORS).optimizer is None
    assert through(WEIGHTS, TENSORS, optimizer="keep").optimizer is None
    with pytest.raises(LossError, match="dcp does not hold optimizer state of this kind") as caught:
        through(TRAINED, DCP, adapted=lambda _: WEIGHTS, optimizer="keep")
    assert caught.value.hint == "--optimizer auto drops it"
    assert through(TRAINED, DCP, adapted=lambda _: WEIGHTS) is WEIGHTS
    assert through(WEIGHTS, DCP, optimizer="keep") is WEIGHTS


def test_state_that_is_not_wanted_is_neither_named_nor_translated() -> None:
    seen: list[Checkpoint] = []

    def named(checkpoint: Checkpoint) -> Checkpoint:
        seen.append(checkpoint)
        return checkpoint

    assert through(TRAINED, TENSORS, named, named).optimizer is None
    assert through(TRAINED, DCP, named, named, optimizer="drop").optimizer is None
    assert [checkpoint.optimizer for checkpoint in seen] == [None] * 4


def test_what_an_optimizer_did_besides_is_said_once_it_is_the_targets() -> None:
    clipped = replace(TRAINED, optimizer=replace(STATE, beside={"clipnorm": 1.0}), warnings=("before",))
    made = through(clipped, DCP)
    assert made.warnings == ("before", "clipnorm 1.0 not carried: in PyTorch the training loop clips gradients")


@pytest.mark.parametrize("is_numbered", [False, True])
def test_state_that_cannot_be_used_is_an_error_that_says_what_helps(is_numbered: bool) -> None:
    source = replace(WEIGHTS, optimizer_refused="it is odd", optimizer_numbered=NUMBERED if is_numbered else None)
    with pytest.raises(LossError, match="optimizer state: it is odd") as caught:
        through(source, DCP)
    assert "--optimizer drop converts the weights without it" in str(caught.value.hint)
    assert ("--param-order FILE or --trainable REGEX says which" in str(caught.value.hint)) == is_numbered
    assert through(source, DCP, optimizer="drop").optimizer is None
    assert through(source, TENSORS).optimizer is None
    with pytest.raises(LossError, match="safetensors does not hold"):
        through(source, TENSORS, optimizer="keep")


def test_what_a_report_says_of_it(asked: Asked) -> None:
    incomplete = replace(STATE, convention=Convention.TENSORFLOW_1)
    refused = replace(WEIGHTS, optimizer_refused="it is odd")
    drop = Options(optimizer="drop")
    rows: list[tuple[Checkpoint, Checkpoint, Any, Options, tuple[str, str | None, str | None]]] = [
        (WEIGHTS, WEIGHTS, DCP, Options(), ("absent", None, None)),
        (WEIGHTS, WEIGHTS, TENSORS, drop, ("absent", None, None)),
        (TRAINED, TRAINED, DCP, Options(), ("carried", "adamw", None)),
        (TRAINED, WEIGHTS, DCP, drop, ("dropped", "adamw", "as asked")),
        (TRAINED, WEIGHTS, TENSORS, Options(), ("dropped", "adamw", "safetensors does not hold it")),
        (refused, WEIGHTS, DCP, drop, ("dropped", None, "as asked")),
        (refused, WEIGHTS, TENSORS, Options(), ("dropped", None, "safetensors does not hold it")),
        (
            replace(WEIGHTS, optimizer=incomplete),
            WEIGHTS,
            DCP,
            Options(),
            ("dropped", "adamw", "the file does not say its learning rate"),
        ),
        (
            replace(WEIGHTS, optimizer=incomplete),
            WEIGHTS,
            TENSORS,
            Options(),
            ("dropped", "adamw", "safetensors does not hold it"),
        ),
        (numbered(), TRAINED, PTH, Options(), ("carried", "adamw", None)),
    ]
    for source, planned, target, options, expected in rows:
        made = reported(source, planned, target, options)
        assert (made.status.value, made.algorithm, made.reason) == expected
        assert (made.step, made.basis) == ((None, None) if expected[1] is None else (3, "named"))
