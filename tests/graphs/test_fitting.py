"""Tensors and a graph that are to agree, and what carries sets of arrays to who runs it: by hand, and no framework."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from converter.errors import ArchitectureError, GraphError, LossError, UsageError
from converter.graphs.description.declared_inputs import parse_inputs
from converter.graphs.description.signature import Dimension, GraphInput, Role, Sampling, Signature, Threshold
from converter.graphs.fitting.fitting import Stored, fitted_to_class, fitted_to_source
from converter.graphs.fitting.layout_steps import LayoutStep, derives_from, steps_back
from converter.graphs.run.arrays import read_arrays, read_sets, run_sets, write_sets
from converter.graphs.run.canary import perturbed, try_groups
from converter.model.checkpoint import Checkpoint
from converter.model.dtype import DType
from converter.model.file import LocalFile, SourceFile
from converter.model.ledger import dropped
from converter.model.optimizer import OptimizerState, ParameterGroup
from converter.model.tensor import ArrayTensor, FileTensor, Tensor, concat
from tests.graphs.canaries import Arrays

F32, F16 = DType.FLOAT32, DType.FLOAT16


def tensor(*shape: int, start: float = 0) -> Tensor:
    return ArrayTensor.of(np.arange(start, start + np.prod(shape, dtype=int), dtype=np.float32).reshape(shape))


ARCHITECTURE = Signature(
    title="Model",
    parameters={"embed": (F32, (4, 3)), "head": (F32, (3,))},
    buffers={"mean": (F32, (2,))},
    ties={"decoder": "embed", "other": "embed"},
    computed=("position_ids",),
    ignored=(r"\.rotary\.",),
)
TENSORS = {"embed": tensor(4, 3), "head": tensor(3, start=50), "mean": tensor(2, start=90)}


def state(*parameters: str) -> OptimizerState:
    return OptimizerState(
        algorithm="sgd",
        step=1,
        groups=(ParameterGroup(parameters=parameters, hyperparameters={"lr": 0.1}),),
        slots={"momentum_buffer": {name: tensor(2) for name in parameters}},
    )


def of_class(**tensors: Tensor | None) -> Any:
    given = {**TENSORS, **tensors}
    return fitted_to_class(
        Checkpoint(tensors={name: each for name, each in given.items() if each is not None}), ARCHITECTURE
    )


def test_a_checkpoint_that_fits_its_class_stays_as_it_is() -> None:
    fitted = of_class()
    assert dict(fitted.checkpoint.tensors) == TENSORS
    assert (fitted.checkpoint.aliases, fitted.checkpoint.lines, fitted.stored) == ({}, (), {})
    assert fitted.checkpoint.buffers == {"mean"}


def test_ties_are_those_of_the_class_where_the_checkpoint_has_both() -> None:
    fitted = of_class(decoder=tensor(4, 3))
    assert fitted.checkpoint.aliases == {"decoder": "embed"}
    assert set(fitted.checkpoint.tensors) == set(TENSORS)
    assert fitted.checkpoint.lines == ()
    alone = of_class(embed=None, other=tensor(4, 3))
    np.testing.assert_array_equal(alone.checkpoint.tensors["embed"].numpy(), TENSORS["embed"].numpy())
    assert alone.checkpoint.aliases == {"other": "embed"}
    with pytest.raises(LossError, match="differs from embed, which Model ties it to") as caught:
        of_class(decoder=tensor(4, 3), other=tensor(4, 3, start=1))
    assert caught.value.tensor == "other"
    with pytest.raises(LossError, match="differs from embed") as caught:
        of_class(decoder=tensor(4, 3, start=1))
    assert caught.value.tensor == "decoder"


def test_what_a_class_lacks_or_has_besides_is_a_line() -> None:
    fitted = of_class(head=None)
    (line,) = fitted.checkpoint.lines
    assert (line.target, line.name, line.is_refused_by_default) == ("head", None, True)
    assert fitted.checkpoint.tensors["head"].numpy().tolist() == [0, 0, 0]
    extras = {"position_ids": False, "layer.rotary.freq": False, "rotary.freq": True, "more": True}
    lines = of_class(**{name: tensor(1) for name in extras}).checkpoint.lines
    assert {line.name: line.is_refused_by_default for line in lines} == extras


@pytest.mark.parametrize("shape", [(3, 4), (12,), (4, 3, 1), (4, 2)])
def test_another_shape_is_another_class(shape: tuple[int, ...]) -> None:
    with pytest.raises(ArchitectureError, match="Model has") as caught:
        of_class(embed=tensor(*shape))
    assert caught.value.tensor == "embed"


def test_another_element_type_is_stored_and_cast_in_the_graph() -> None:
    fitted = of_class(head=tensor(3, start=50).cast(F16))
    assert fitted.stored == {"head": Stored(name="head", dtype=F16, shape=(3,))}
    assert fitted.stored["head"].to_json() == {"name": "head", "dtype": "float16", "shape": [3], "steps": []}


def test_state_goes_by_the_owner_of_a_tie_and_without_what_is_left_out() -> None:
    checkpoint = Checkpoint(
        tensors={**TENSORS, "decoder": tensor(4, 3), "more": tensor(1)}, optimizer=state("decoder", "head", "more")
    )
    fitted = fitted_to_class(checkpoint, ARCHITECTURE).checkpoint.optimizer
    assert fitted is not None
    assert fitted.groups[0].parameters == ("embed", "head")
    assert set(fitted.slots["momentum_buffer"]) == {"embed", "head"}


# a source's own graph

SOURCE = Checkpoint(
    tensors={"w": tensor(2, 3), "b": tensor(3, start=50), "n": tensor(4, start=90)},
    buffers=frozenset({"n"}),
    frozen=frozenset({"b"}),
    lines=(dropped("table", "no tensor"), dropped("gone", "no place")),
)
OWN = Signature(
    title="own",
    parameters={"w": (F32, (2, 3)), "b": (F32, (3,))},
    buffers={"n": (F32, (4,))},
    computed=("table",),
)


def test_what_was_moved_says_how_to_move_it_back() -> None:
    planned = replace(
        SOURCE,
        tensors={
            "layer.weight": SOURCE.tensors["w"].transpose((1, 0)).cast(F16),
            "b": SOURCE.tensors["b"],
            "norm": SOURCE.tensors["n"].reshape((2, 2)),
        },
        origins={"layer.weight": "w", "norm": "n"},
        buffers=frozenset(),
    )
    fitted = fitted_to_source(planned, SOURCE, OWN)
    assert fitted.stored == {
        "w": Stored(name="layer.weight", dtype=F16, shape=(3, 2), steps=(LayoutStep(kind="transpose", values=(1, 0)),)),
        "n": Stored(name="norm", dtype=F32, shape=(2, 2), steps=(LayoutStep(kind="reshape", values=(4,)),)),
    }
    assert fitted.signature.parameters == {"layer.weight": (F16, (3, 2)), "b": (F32, (3,))}
    assert fitted.signature.buffers == {"norm": (F32, (2, 2))}
    assert fitted.checkpoint.buffers == {"norm"}
    assert [(line.name, line.reason) for line in fitted.checkpoint.lines] == [
        ("table", "no tensor of its own: a constant of the graph"),
        ("gone", "no place"),
    ]


def test_a_name_that_became_a_tie_is_the_tensor_that_it_is_tied_to() -> None:
    source = Checkpoint(tensors={"w": tensor(2, 3)}, aliases={"again": "w"})
    planned = replace(
        source,
        tensors={"embed": source.tensors["w"]},
        aliases={"decoder": "embed"},
        origins={"embed": "w", "decoder": "again"},
    )
    graph = Signature(title="own", parameters={"again": (F32, (2, 3))}, buffers={})
    fitted = fitted_to_source(planned, source, graph)
    assert fitted.stored == {"again": Stored(name="embed", dtype=F32, shape=(2, 3))}
    assert fitted.signature.parameters == {"embed": (F32, (2, 3))}


@pytest.mark.parametrize(
    "declared",
    [{"w": (F32, (3, 2))}, {"w": (F16, (2, 3))}, {"gone": (F32, (2, 3))}, {"b": (F32, (1, 3))}],
    ids=["shape", "type", "name", "rank"],
)
def test_a_graph_of_other_tensors_is_refused(declared: Any) -> None:
    assert fitted_to_source(SOURCE, SOURCE, OWN).stored == {}
    with pytest.raises(GraphError, match="the graph has it as") as caught:
        fitted_to_source(SOURCE, SOURCE, replace(OWN, parameters=declared, buffers={}))
    assert caught.value.tensor == next(iter(declared))


def test_what_was_joined_stays_the_source_s_with_all_that_is_known_of_it() -> None:
    joined = concat([SOURCE.tensors["w"], SOURCE.tensors["b"].reshape((1, 3))], axis=0)
    planned = replace(
        SOURCE,
        tensors={"joined": joined, "n": SOURCE.tensors["n"]},
        aliases={"copy": "joined", "twin": "n"},
        origins={"joined": "w"},
        frozen=frozenset({"joined"}),
        optimizer=state("joined"),
        lines=(*SOURCE.lines, dropped("b", "joined with w")),
    )
    fitted = fitted_to_source(planned, SOURCE, replace(OWN, parameters={"w": (F32, (2, 3))})).checkpoint
    assert list(fitted.tensors) == ["n", "w", "b"]
    assert fitted.aliases == {"twin": "n"}
    assert fitted.origins == {}
    assert fitted.frozen == {"b"}
    assert fitted.optimizer is None
    assert [line.name for line in fitted.lines] == ["table", "gone"]
    assert any("optimizer state not carried" in each for each in fitted.warnings)
    assert "w keeps name and layout, as the graph has it" in fitted.warnings
    kept = fitted_to_source(replace(planned, optimizer=state("n")), SOURCE, OWN).checkpoint
    assert kept.optimizer is not None
    clash = replace(planned, tensors={**planned.tensors, "b": tensor(7)})
    with pytest.raises(GraphError, match="is already the name of another tensor") as caught:
        fitted_to_source(clash, SOURCE, OWN)
    assert caught.value.tensor == "b"


A = tensor(2, 3, 4)


@pytest.mark.parametrize(
    ("moved", "steps"),
    [
        (A, ()),
        (A.cast(F16), ()),
        (A.transpose((2, 0, 1)), (LayoutStep(kind="transpose", values=(1, 2, 0)),)),
        (A.reshape((6, 4)), (LayoutStep(kind="reshape", values=(2, 3, 4)),)),
        (
            A.transpose((1, 2, 0)).reshape((12, 2)),
            (LayoutStep(kind="reshape", values=(3, 4, 2)), LayoutStep(kind="transpose", values=(2, 0, 1))),
        ),
        (tensor(2, 3, 4), None),
        (concat([A, A], axis=0), None),
    ],
    ids=["same", "cast", "turned", "reshaped", "both", "equal and another", "joined"],
)
def test_movement_is_undone_step_by_step(moved: Tensor, steps: Any) -> None:
    assert steps_back(moved, A) == steps
    if not steps:
        return
    made = moved.numpy()
    for step in steps:
        made = made.transpose(step.values) if step.kind == "transpose" else made.reshape(step.values)
    np.testing.assert_array_equal(made, A.numpy())


def test_what_both_sides_did_is_no_movement() -> None:
    """A source that is itself a movement of something is made by the steps that the other has not done."""
    turned = A.transpose((2, 1, 0))
    assert steps_back(turned.reshape((4, 6)), turned) == (LayoutStep(kind="reshape", values=(4, 3, 2)),)
    assert steps_back(A, turned) == (LayoutStep(kind="transpose", values=(2, 1, 0)),)


def test_which_tensors_share_bytes() -> None:
    assert derives_from(concat([tensor(1, 3, 4), A], axis=0), [tensor(1), A.transpose((1, 0, 2))])
    assert not derives_from(A.transpose((1, 0, 2)), [tensor(2, 3, 4)])
    assert not derives_from(A, [])


def test_which_ranges_of_files_share_bytes(tmp_path: Path) -> None:
    for name in ("x", "y"):
        (tmp_path / name).write_bytes(bytes(32))
    x, y = (LocalFile(tmp_path / name) for name in ("x", "y"))

    def part(file: SourceFile, start: int, stop: int) -> FileTensor:
        return FileTensor(dtype=DType.UINT8, shape=(stop - start,), file=file, offset=start)

    middle = part(x, 8, 16)
    for start, stop, is_shared in ((0, 8, False), (0, 9, True), (15, 16, True), (16, 24, False), (0, 32, True)):
        assert derives_from(part(x, start, stop), [middle]) is is_shared
        assert derives_from(middle, [part(x, start, stop)]) is is_shared
        assert not derives_from(part(y, start, stop), [middle])


# sets of arrays


def test_arrays_of_every_kind_survive_a_file(tmp_path: Path) -> None:
    half = np.array([1.5, -2], ml_dtypes.bfloat16)
    sets = {
        "0": {"a/b": np.arange(3), "bits": np.array([1, 2], np.uint16)},
        "1": {"h": half, "text": np.array([b"x\xff", "y"], object)},
    }
    path = str(tmp_path / "x.npz")
    write_sets(path, sets)
    found = read_arrays(path)
    assert set(found) == {"0/a/b", "0/bits", "1/h", "1/text"}
    assert (found["1/h"].dtype, found["0/bits"].dtype) == (half.dtype, np.uint16)
    np.testing.assert_array_equal(found["1/h"], half)
    assert found["1/text"].tolist() == ["x\\xff", "y"]
    assert set(read_arrays(path, "1/")) == {"1/h", "1/text"}
    assert {number: set(arrays) for number, arrays in read_sets(path).items()} == {
        "0": {"a/b", "bits"},
        "1": {"h", "text"},
    }


def test_arrays_of_names_that_an_archive_would_confuse_stay_apart(tmp_path: Path) -> None:
    names = [
        "y",
        "y.npy",
        "y.npy.npy",
        "y\0a",
        "y\0b",
        "y.bfloat16",
        "keys.json",
        "0",
        "../y",
        "\udc80",
        "",
        "x" * 70_000,
    ]
    path = str(tmp_path / "x.npz")
    write_sets(path, {"0": {name: np.array([number], np.uint16) for number, name in enumerate(names)}})
    assert {name: array.tolist() for name, array in read_sets(path)["0"].items()} == {
        name: [number] for number, name in enumerate(names)
    }


def test_a_set_that_fails_says_why_and_the_others_run(tmp_path: Path) -> None:
    def run(arrays: Any) -> Any:
        (number,) = arrays["x"]
        if number == 1:
            raise GraphError("said so", path="somewhere")
        if number == 2:
            raise OSError("two\n lines")
        if number == 3:
            raise OSError
        return {"y": arrays["x"] * 2}

    path = str(tmp_path / "x.npz")
    sets = {name: {"x": np.array([number])} for number, name in enumerate("abcd")}
    assert run_sets(sets, path, run, (OSError,)) == {"b": "said so", "c": "two lines", "d": "OSError"}
    assert {key: array.tolist() for key, array in read_arrays(path).items()} == {"a/y": [0]}
    with pytest.raises(OSError, match="two"):
        run_sets(sets, path, run)
    for error in (MemoryError(), RuntimeError("std::bad_alloc")):

        def exhausts(arrays: Any, error: Exception = error) -> Any:
            raise error

        with pytest.raises(type(error)):
            run_sets(sets, path, exhausts, (MemoryError, RuntimeError))


def test_a_group_with_which_nothing_runs_is_told_and_put_back(tmp_path: Path) -> None:
    weights = Arrays({"a": np.ones(2, np.float32), "b": np.ones(2, np.float32)})

    def run(arrays: Any) -> Any:
        if weights.arrays["b"][0] != 1:
            raise RuntimeError
        return {"y": weights.arrays["a"]}

    told = try_groups(weights, run, {"0": {"x": np.zeros(1)}}, path=str(tmp_path / "x.npz"), since=-1e9)
    assert [told["tried"][number] for number in told["failed"]] == ["b"]
    assert all((array == 1).all() for array in weights.arrays.values())
    (key,) = read_arrays(str(tmp_path / "x.npz"))
    assert key == f"{told['tried'].index('a')}/y"


class _Large(Arrays):
    """Layers of one group, each 100 MiB."""

    def __init__(self, mebibytes: int) -> None:
        super().__init__({f"layer.{number}.w": np.ones(2, np.float32) for number in range(4)})
        self.mebibytes = mebibytes
        self.written: set[str] = set()

    def sizes(self) -> dict[str, int]:
        return dict.fromkeys(self.arrays, self.mebibytes << 20)

    def write(self, name: str, values: Any) -> None:
        self.written.add(name)
        super().write(name, values)


@pytest.mark.parametrize(("mebibytes", "count"), [(64, 4), (65, 3), (128, 2), (129, 1), (1000, 1)])
def test_of_a_group_as_many_layers_change_as_memory_is_for(mebibytes: int, count: int, tmp_path: Path) -> None:
    weights = _Large(mebibytes)
    path = str(tmp_path / "x.npz")
    try_groups(weights, lambda arrays: {"y": np.zeros(1)}, {"0": {"x": np.zeros(1)}}, path=path, since=-1e9)
    assert weights.written == {f"layer.{number}.w" for number in range(count)}


def test_other_values_are_neither_only_turned_round_nor_only_noise() -> None:
    before = np.array([1, 2, 3, 4], np.float32)
    after = perturbed(before, "a")
    assert (after > before[::-1]).all()
    symmetric = np.array([-3, 3, -3], np.float32)
    assert (np.abs(perturbed(symmetric, "a")) != 3).all()
    assert (perturbed(before, "a") != perturbed(before, "b")).any()


# what a user declares


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "is empty"),
        (" ", "is a list"),
        ("a:int64[1],", "ends with a comma"),
        ("a:int64[1],a:int64[2]", "has 'a' twice"),
        ("a:int65[1]", "unknown type 'int65'"),
        ("a:int64[1 2]", "'1 2' is no dimension of a"),
        ("a:int64[1,]", "'' is no dimension of a"),
        ("a:int64[-1]", "'-1' is no dimension of a"),
        ("a:int64[1234567890]", "is no dimension of a"),
        ("a:int64[1]b:int64[1]", "is a list"),
        ("1a:int64[1]", "is a list"),
    ],
)
def test_inputs_that_are_none(text: str, why: str) -> None:
    assert [each.name for each in parse_inputs("a:int64[b,2], c:float32[]")] == ["a", "c"]
    with pytest.raises(UsageError, match=why):
        parse_inputs(text)


def test_a_description_survives_a_file() -> None:
    sampling = Sampling(role=Role.IDS, low=1, high=9, padding=0, leading=(3,), excluded=(4, 5))
    architecture = replace(
        ARCHITECTURE,
        inputs=(GraphInput(name="x", dtype=DType.INT64, shape=("batch", 3), sampling=sampling),),
        outputs=("y", "z"),
        dimensions=(Dimension(name="batch", low=1, step=2, high=9, reach=12, checked=(1, 2)),),
        thresholds=(Threshold(name="window 8", dimension="sequence", count=8),),
        heads=3,
    )
    written = architecture.to_json()
    assert Signature.from_json(written) == architecture
    for key in written:
        with pytest.raises(GraphError, match="not usable"):
            Signature.from_json({name: value for name, value in written.items() if name != key})
    with pytest.raises(GraphError, match="not usable"):
        Signature.from_json({**written, "parameters": {"a": ["float33", [1]]}})


def test_extents_of_a_dimension() -> None:
    free, bounded = Dimension(name="n"), Dimension(name="n", low=3, step=2, high=8)
    assert [free.extent(count) for count in (0, 1, 7)] == [1, 1, 7]
    assert [bounded.extent(count) for count in (0, 2, 3, 9)] == [3, 7, 8, 8]
    assert [bounded.has(extent) for extent in (0, 1, 8, 9)] == [False, True, True, False]
