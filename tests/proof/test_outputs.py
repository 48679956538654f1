"""What is made of the outputs of source and target: the processes that compute them are stood in for here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converter.errors import GraphError, UnprovenError, UsageError, VerificationError
from converter.execution.workshop import LocalWorkshop
from converter.formats import registry
from converter.graphs.description.cases import Budget, sample_cases
from converter.graphs.description.signature import GraphInput, Signature
from converter.graphs.description.traced import Reference, TracedGraph
from converter.graphs.run.arrays import read_sets, write_arrays, write_sets
from converter.model.checkpoint import Checkpoint
from converter.model.child_function import Call, child_function
from converter.model.dtype import DType
from converter.model.output import Output
from converter.model.tensor import ArrayTensor
from converter.options import Options
from converter.proof.outputs import verify_foreign_outputs, verify_outputs
from converter.report import Verification

SIGNATURE = Signature(
    title="x",
    parameters={},
    inputs=(GraphInput(name="x", dtype=DType.FLOAT32, shape=("n", 50)),),
    outputs=("y",),
)


@child_function("comparing outputs: the source")
def run_source(*, model: str, inputs: str, outputs: str, nudge: str | None = None) -> Any:
    raise AssertionError("nothing is run here")


@child_function("comparing outputs: the target")
def run_target(*, model: str, inputs: str, outputs: str, canary: str = "", since: float = 0.0) -> Any:
    raise AssertionError("nothing is run here")


REFERENCE, TARGET = run_source.address, run_target.address
Computed = Callable[[Mapping[str, Any]], Mapping[str, Any]]


def same(arrays: Mapping[str, Any]) -> Mapping[str, Any]:
    return {"y": arrays["x"] + 3}


def off(by: float) -> Computed:
    """The same but for the first element."""

    def compute(arrays: Mapping[str, Any]) -> Mapping[str, Any]:
        outputs = same(arrays)["y"].copy()
        outputs.reshape(-1)[0] += by
        return {"y": outputs}

    return compute


class Runs:
    """What each side computes, what the runners answer, and the calls that were made."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.computed: dict[str, Computed] = {REFERENCE: same, TARGET: same}
        self.answers: dict[str, dict[str, Any]] = {REFERENCE: {}, TARGET: {}}
        self.again: Computed = same
        self.nudged: Computed = same
        self.canary: list[tuple[str, Computed]] = []
        self.takes_weights = False
        self.rounded: dict[str, str] = {}
        self.at_once: list[int] = []
        self.calls: list[Call[Any]] = []
        self.workshop = LocalWorkshop(folder=folder, scratch=folder)

        def call_all(_: LocalWorkshop, calls: Sequence[Call[Any]], *, at_once: int = 1) -> list[Any]:
            self.at_once.append(at_once)
            return [self.answer(each) for each in calls]

        monkeypatch.setattr(LocalWorkshop, "call_all", call_all)

    def answer(self, call: Call[Any]) -> dict[str, Any]:
        self.calls.append(call)
        given, sets = call.arguments, read_sets(call.arguments["inputs"])
        is_again = call.address == REFERENCE and any(each.address == REFERENCE for each in self.calls[:-1])
        compute = (self.nudged if "nudge" in given else self.again) if is_again else self.computed[call.address]
        answer = {"failed": {}, **self.answers[call.address]}
        kept = {name: arrays for name, arrays in sets.items() if name not in answer.get("failed", {})}
        write_sets(given["outputs"], {name: compute(arrays) for name, arrays in kept.items()})
        if call.address == TARGET and self.canary:
            case = min(kept, key=lambda name: kept[name]["x"].size)
            changed = {f"{number}/y": change(kept[case])["y"] for number, (_, change) in enumerate(self.canary)}
            write_arrays(given["canary"], changed)
            tried = [group for group, _ in self.canary]
            told = {"case": case, "tried": tried, "failed": [], "not_tried": 1, "reason": None}
            answer["canary"] = {**told, **answer.get("canary", {})}
        return answer

    def verified(self, memory: int = 1 << 28, **options: Any) -> Verification:
        self.calls.clear()
        self.at_once.clear()
        graph = TracedGraph(
            file=self.folder / "graph.onnx",
            signature=SIGNATURE,
            reference=Reference(runner=run_source, model=self.folder, takes_weights=self.takes_weights),
            rounded=self.rounded,
        )
        tensors = {"w": ArrayTensor.of(np.zeros(20 << 20, np.uint8))}
        given = Options(max_memory=memory, **options)
        return verify_outputs(Checkpoint(tensors=tensors, graph=graph), Path("out"), run_target, given, self.workshop)


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Runs:
    return Runs(tmp_path, monkeypatch)


def test_what_is_alike_is_proven_and_what_is_not_is_refused(runs: Runs) -> None:
    found = runs.verified()
    assert (found.outputs, found.weights, found.is_unproven, found.data) == (True, True, False, None)
    runs.computed[TARGET] = off(0.01)
    with pytest.raises(VerificationError, match=r"'y' differs by 0\.01"):
        runs.verified()


def test_both_sides_are_in_memory_at_once_only_where_it_is_for_both(runs: Runs) -> None:
    runs.verified()
    assert set(runs.at_once) == {2}
    runs.verified(memory=(20 << 20) - 1)
    assert set(runs.at_once) == {1}


def test_an_output_is_held_to_the_type_that_is_computed_in(runs: Runs) -> None:
    runs.computed[TARGET] = off(0.005)
    with pytest.raises(VerificationError, match="'y' differs"):
        runs.verified()
    runs.rounded = {"y": "float16", "z": "bfloat16"}
    (found,) = runs.verified().per_output
    assert (found.dtype, found.computed_in) == ("float32", "float16")
    runs.computed[TARGET], runs.nudged = off(0.5), off(0.001)
    with pytest.raises(VerificationError, match="'y' differs"):
        runs.verified()
    assert [call.arguments.get("nudge") for call in runs.calls if call.address == REFERENCE][-1] == "bfloat16"


def test_rounding_is_an_excuse_that_is_looked_for_where_no_tolerance_was_asked_for(runs: Runs) -> None:
    runs.computed[TARGET], runs.nudged = off(0.002), off(0.001)
    assert runs.verified().outputs
    nudges = [call.arguments.get("nudge") for call in runs.calls if call.address == REFERENCE]
    assert nudges == [None, None, "float64"]
    for asked in ({"atol": 1e-4}, {"rtol": 1e-5}):
        with pytest.raises(VerificationError, match="'y' differs"):
            runs.verified(**asked)
        assert len(runs.calls) == 2
    runs.computed[TARGET] = off(0.005)
    with pytest.raises(VerificationError, match="'y' differs"):
        runs.verified()


def test_a_cast_that_was_asked_for_is_an_excuse_where_the_source_runs_without_it(runs: Runs) -> None:
    """A reference that takes weights gets those of the target, whose type has cost both the same."""
    (runs.folder / "model.safetensors").touch()
    runs.computed[TARGET] = off(0.02)
    assert runs.verified(dtype="float16").outputs
    for options in ({}, {"dtype": "float32"}, {"dtype": "float16", "rtol": 1e-5}, {"dtype": "float16", "atol": 1e-5}):
        with pytest.raises(VerificationError, match="'y' differs"):
            runs.verified(**options)
    runs.takes_weights = True
    with pytest.raises(VerificationError, match="'y' differs"):
        runs.verified(dtype="float16")


def test_integers_that_rounding_changes_prove_nothing(runs: Runs) -> None:
    def counted(by: int) -> Computed:
        def compute(arrays: Mapping[str, Any]) -> Mapping[str, Any]:
            numbers = np.arange(arrays["x"].size)
            numbers[0] += by
            return {"y": numbers}

        return compute

    runs.computed = {REFERENCE: counted(0), TARGET: counted(1)}
    runs.again, runs.nudged = counted(0), counted(0)
    with pytest.raises(VerificationError, match="'y' differs"):
        runs.verified()
    runs.nudged = counted(2)
    found = runs.verified()
    assert (found.outputs, found.is_unproven, found.reason) == (False, True, "'y' (rounding alone changes it)")
    with pytest.raises(UnprovenError, match="rounding alone changes it"):
        runs.verified(verify="outputs")


def test_sets_of_inputs_cost_a_part_of_the_time_that_there_is(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    budgets: list[Budget] = []

    def chosen(signature: Signature, budget: Budget) -> Any:
        budgets.append(budget)
        return sample_cases(signature, budget)

    monkeypatch.setattr("converter.proof.outputs.sample_cases", chosen)
    for options in ({}, {"verify": "outputs"}, {"timeout": 40}, {"timeout": 40, "verify": "outputs"}):
        runs.verified(**options)
    usual = Budget()
    assert [each.seconds for each in budgets] == [usual.seconds, 120, 5, 5]
    assert [each.nbytes for each in budgets] == [usual.nbytes, 4 << 30] * 2


def test_a_source_that_differs_from_itself_has_no_such_excuse(runs: Runs) -> None:
    runs.computed[TARGET] = runs.again = runs.nudged = off(0.002)
    with pytest.raises(VerificationError, match="the source differs from itself, too, when it runs again"):
        runs.verified()


def test_nor_has_one_that_does_not_run_any_more(runs: Runs) -> None:
    runs.computed[TARGET] = off(0.002)
    for side in ("again", "nudged"):
        setattr(runs, side, lambda _: {})
        with pytest.raises(VerificationError, match=r"'y' differs by 0\.002 at \[0, 0\] on 3 x 50, more"):
            runs.verified()
        setattr(runs, side, same)


def test_a_source_that_runs_on_some_sets_is_compared_on_these(runs: Runs) -> None:
    (first, *_) = read_sets_of(runs)
    runs.answers[REFERENCE] = {"failed": {first: "it is too wide"}}
    runs.answers[TARGET] = {"failed": {first: "it is, too"}}
    assert f"outputs not compared on {first}: the source does not run there: it is too wide" in runs.verified().left_out
    runs.answers[REFERENCE] = {}
    with pytest.raises(VerificationError, match=r"does not run on .*, where the source does: it is, too"):
        runs.verified()
    every = dict.fromkeys(read_sets_of(runs), "never")
    runs.answers = {REFERENCE: {"failed": every}, TARGET: {"failed": every}}
    with pytest.raises(GraphError, match="the source does not run: never"):
        runs.verified()


def read_sets_of(runs: Runs) -> list[str]:
    answers, runs.answers = runs.answers, {REFERENCE: {}, TARGET: {}}
    runs.verified()
    runs.answers = answers
    return list(read_sets(runs.calls[0].arguments["inputs"]))


def test_a_users_own_sets_must_all_run(runs: Runs, tmp_path: Path) -> None:
    np.savez(
        tmp_path / "own.npz", **{name: np.ones((2, 50), np.float32) * at for at, name in enumerate(("a/x", "b/x"))}
    )
    runs.computed = dict.fromkeys((REFERENCE, TARGET), lambda given: {"y": given["x"] + np.arange(50)})
    found = runs.verified(inputs=str(tmp_path / "own.npz"))
    assert (found.outputs, found.data, found.beyond) == (True, "own.npz", None)
    runs.answers[REFERENCE] = {"failed": {"b": "no"}}
    with pytest.raises(UsageError, match="outputs not compared on b: the source does not run there: no"):
        runs.verified(inputs=str(tmp_path / "own.npz"))


def test_a_users_own_sets_are_those_that_are_run_and_no_others(runs: Runs, tmp_path: Path) -> None:
    own = tmp_path / "own.npz"
    np.savez(own, x=np.arange(100, dtype=np.float32).reshape(2, 50))
    seen: list[Any] = []

    def noted(arrays: Mapping[str, Any]) -> Mapping[str, Any]:
        seen.append(arrays["x"])
        return same(arrays)

    runs.computed = {REFERENCE: noted, TARGET: noted}
    found = runs.verified(inputs=str(own))
    assert (found.outputs, found.data, found.beyond) == (True, "own.npz", None)
    assert len(seen) == 2
    assert all(np.array_equal(each, np.arange(100).reshape(2, 50)) for each in seen)
    seen.clear()
    assert (runs.verified().data, len(seen) > 2) == (None, True)


def test_what_the_canary_says(runs: Runs) -> None:
    runs.canary = [("seen", off(1)), ("unseen", same)]
    found = runs.verified(verify="outputs").canary
    assert found is not None
    assert (found.tried, found.noticed, found.not_tried, found.unnoticed) == (2, 1, 1, ("unseen",))
    runs.answers[TARGET] = {"canary": {"failed": [1]}}
    found = runs.verified().canary
    assert found is not None
    assert (found.noticed, found.unnoticed) == (2, ())


def test_outputs_that_show_no_weight_are_not_proven(runs: Runs) -> None:
    runs.canary = [("a", same), ("b", same)]
    found = runs.verified()
    assert (found.outputs, found.is_unproven) == (False, True)
    assert found.reason == "they do not change with any of 2 groups of weights"
    with pytest.raises(UnprovenError, match="they do not change with any of 2 groups of weights"):
        runs.verified(verify="outputs")


def test_a_canary_that_there_was_no_time_for_says_nothing_of_outputs(runs: Runs) -> None:
    runs.canary = [("w", same)]
    runs.answers[TARGET]["canary"] = {"tried": [], "not_tried": 1, "reason": "no time"}
    for verify in ("auto", "outputs"):
        found = runs.verified(verify=verify)
        assert (found.outputs, found.is_unproven) == (True, False)
        assert found.canary is not None
        assert (found.canary.tried, found.canary.not_tried, found.canary.reason) == (0, 1, "no time")


def test_a_set_on_which_nothing_could_have_failed_notices_nothing(runs: Runs) -> None:
    """The canary's set is the smallest; of one row, here, the output is constant."""

    def constant(arrays: Mapping[str, Any]) -> Mapping[str, Any]:
        is_small = arrays["x"].size == min(
            each["x"].size for each in read_sets(str(runs.folder / "inputs.npz")).values()
        )
        return {"y": np.full((2, 2), 7, np.float32) if is_small else arrays["x"]}

    runs.computed = dict.fromkeys((REFERENCE, TARGET), constant)
    runs.canary = [("a", constant)]
    found = runs.verified().canary
    assert found is not None
    assert found.unnoticed == ("a",)


@pytest.mark.parametrize("verify", ["auto", "outputs"])
def test_one_of_two_outputs_that_proves_nothing(verify: str, runs: Runs) -> None:
    runs.computed = dict.fromkeys((REFERENCE, TARGET), lambda given: {"y": given["x"], "z": np.zeros(4, np.float32)})
    if verify == "auto":
        found = runs.verified(verify=verify)
        assert (found.outputs, [each.name for each in found.per_output if each.reason]) == (True, ["z"])
    else:
        with pytest.raises(UnprovenError, match=r"outputs not proven: 'z' \(constant\)"):
            runs.verified(verify=verify)


def test_what_comes_from_elsewhere_is_run_by_whom_nothing_of_it_harms(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[tuple[Path, Any]] = []

    def verified(_: Checkpoint, staged: Path, runner: Any, *__: Any) -> Verification:
        ran.append((staged, runner))
        return Verification(outputs=True)

    monkeypatch.setattr("converter.proof.outputs.verify_outputs", verified)
    found, made = tmp_path / "found", tmp_path / "made-anew"
    workshop = LocalWorkshop(folder=tmp_path, scratch=tmp_path)

    def foreign(target: Any, **options: Any) -> Verification:
        output = Output(files=(), names={}, build=lambda _: None)
        given = Options(**options)
        if made.exists():
            made.rmdir()
        return verify_foreign_outputs(Checkpoint(tensors={}), output, found, target, given, workshop)

    savedmodel, program = registry()["savedmodel"], registry()["pt2"]
    foreign(savedmodel)
    assert ran.pop() == (found, savedmodel.foreign_runner)
    assert savedmodel.foreign_runner != savedmodel.runner
    foreign(replace(program, is_same_program=lambda *_: True))
    assert ran.pop() == (made, program.runner)
    with pytest.raises(VerificationError, match="holds another program than ckconv makes of the source") as caught:
        foreign(replace(program, is_same_program=lambda *_: False))
    assert (caught.value.path, caught.value.hint) == (str(found), "--verify weights compares the weights alone")
    nobody = replace(program, is_same_program=None)
    assert foreign(nobody).reason == "pt2 files from elsewhere are not run"
    with pytest.raises(UsageError, match=r"--inputs own\.npz: pt2 files from elsewhere are not run"):
        foreign(nobody, inputs="own.npz")
    assert ran == []
