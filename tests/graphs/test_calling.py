"""Which way of a root's `__call__` is taken, and the graph that calls it; TensorFlow is not needed for that."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from converter.errors import ArchitectureError, CkconvError, GraphError, ReadError
from converter.graphs.trace.tensorflow.calling import CalledFunction, called
from tests.graphs.messages import (
    FLOAT,
    INT32,
    INT64,
    RESOURCE,
    Value,
    child,
    concrete,
    constant,
    dictionary,
    function,
    graph_def,
    node,
    ragged,
    saved_model,
    served,
    tensor,
    text_attribute,
    truth,
    tuple_,
    type_,
    variable,
    word,
)
from tests.graphs.messages import called as calls

X, Y = tensor("x", FLOAT, None, 4), tensor("", FLOAT, None, 3)
TABLE = {"shared_name": text_attribute("table"), "key_dtype": type_(INT64)}


def arguments(*positional: Value, **named: Value) -> Value:
    return tuple_(tuple_(*positional), dictionary(**named))


def body(name: str = "f", *, takes: dict[str, int] | None = None, returns: Sequence[int] = (FLOAT,)) -> bytes:
    results = {f"y{number}": (kind, "y:0") for number, kind in enumerate(returns)}
    return function(name, takes={"x": FLOAT, "w": RESOURCE} if takes is None else takes, returns=results)


def taken(
    *ways: tuple[str, bytes],
    bodies: Sequence[bytes] = (body(),),
    nodes: Sequence[bytes] = (),
    objects: Sequence[bytes] = (variable("w", FLOAT, 4, 3),),
    names: Sequence[str] = ("x", "training"),
) -> CalledFunction | None:
    """What is called of a model whose root calls `ways`; the first of `objects` is number 2."""
    root = child("__call__", 1) + child("w", 2)
    data = saved_model(
        graph_def(nodes, bodies),
        objects=[root, calls(*(name for name, _ in ways), arguments=names), *objects],
        functions=dict(ways),
    )
    return called(served(data), "model")


def plain(**changes: Any) -> CalledFunction:
    found = taken(("f", concrete(arguments(X), Y, 2)), **{"names": ("x",), **changes})
    assert found is not None
    return found


def test_a_graph_that_calls_a_function_of_an_input_and_a_variable() -> None:
    found = plain()
    assert {name: (info.tensor, info.type_number, info.shape) for name, info in found.signature.inputs.items()} == {
        "x": ("called/input_0:0", FLOAT, (None, 4))
    }
    assert {name: info.tensor for name, info in found.signature.outputs.items()} == {"output_0": "called/call:0"}
    assert found.note == "no signature: the graph is that of __call__(x [?, 4])"
    assert found.kept == ()
    start, handle, call = found.nodes
    assert (start.operator, start.name, start.attributes["dtype"].type_number) == (
        "Placeholder",
        "called/input_0",
        FLOAT,
    )
    assert (handle.operator, handle.name) == ("VarHandleOp", "called/variable_2")
    assert (call.operator, call.inputs) == ("StatefulPartitionedCall", ("called/input_0", "called/variable_2"))
    assert call.attributes["f"].called == ("f",)


def test_a_variable_that_is_captured_twice_has_one_handle() -> None:
    takes = {"x": FLOAT, "w": RESOURCE, "again": RESOURCE}
    found = taken(("f", concrete(arguments(X), Y, 2, 2)), bodies=[body(takes=takes)], names=("x",))
    assert found is not None
    assert [each.operator for each in found.nodes] == ["Placeholder", "VarHandleOp", "StatefulPartitionedCall"]
    assert found.nodes[-1].inputs == ("called/input_0", "called/variable_2", "called/variable_2")


def test_names_of_the_graph_are_not_given_again() -> None:
    found = plain(nodes=[node("called/call", "NoOp"), node("called_", "NoOp")])
    assert [each.name for each in found.nodes] == ["called__/input_0", "called__/variable_2", "called__/call"]


def test_what_was_never_traced_is_not_called() -> None:
    assert taken() is None
    assert called(served(saved_model(graph_def(), objects=[b""])), None) is None
    assert called(served(saved_model(graph_def(), objects=None)), None) is None
    assert called(served(saved_model(graph_def(), objects=[child("__call__", 7)])), None) is None


# the way that is taken


FIXED, OTHER, ANY = tensor("x", FLOAT, 2, 4), tensor("x", FLOAT, 3, 4), tensor("x", FLOAT, is_unknown=True)


def way(name: str, *positional: Value, **named: Value) -> tuple[str, bytes]:
    return name, concrete(arguments(*positional, **named), Y, 2)


@pytest.mark.parametrize(
    ("ways", "chosen"),
    [
        ([way("f", X)], "f"),
        ([way("f", FIXED), way("g", X)], "g"),
        ([way("f", X), way("g", FIXED)], "f"),
        ([way("f", X), way("g", ANY)], "g"),
        ([way("f", ANY), way("g", X)], "f"),
        ([way("f", X, truth(True)), way("g", FIXED, truth(False))], "g"),
        ([way("f", FIXED, truth(False)), way("g", X, truth(True))], "f"),
        ([way("f", X, truth(True))], "f"),
        ([way("f", FIXED), way("g", X), way("h", OTHER)], "g"),
    ],
    ids=range(9),
)
def test_the_way_that_serves_and_takes_what_others_take(ways: list[tuple[str, bytes]], chosen: str) -> None:
    found = taken(*ways, bodies=[body(name) for name, _ in ways])
    assert found is not None
    assert found.nodes[-1].attributes["f"].called == (chosen,)
    assert ("one of the" in found.note) == (len(ways) > 1)


@pytest.mark.parametrize(
    "ways",
    [
        [way("f", FIXED), way("g", OTHER)],
        [way("f", X), way("g", tensor("x", INT32, None, 4))],
        [way("f", X), way("g", tensor("x", FLOAT, None, 4, 1))],
        [way("f", X, kind=word("plain")), way("g", X, kind=word("turned"))],
        [way("f", X), way("g", X, shift=X)],
        [way("f", X), way("g", ragged())],
    ],
    ids=["extents", "types", "ranks", "words", "arguments", "kinds"],
)
def test_ways_of_which_none_takes_what_the_others_do(ways: list[tuple[str, bytes]]) -> None:
    with pytest.raises(ArchitectureError, match="was traced in 2 ways") as caught:
        taken(*ways, bodies=[body(name) for name, _ in ways])
    assert (caught.value.path, caught.value.hint) == ("model", "--weights-only writes no graph")


def test_a_way_is_shown_with_its_words_and_what_is_true() -> None:
    given = (X, truth(True), word("plain"), ANY, truth(False))
    names = ("x", "training", "kind", "any", "off")
    takes = {"x": FLOAT, "any": FLOAT, "w": RESOURCE}
    found = taken(way("f", *given), bodies=[body(takes=takes)], names=names)
    assert found is not None
    assert found.note.endswith("__call__(x [?, 4], training=True, kind=plain, any [?])")


# inputs and outputs


@pytest.mark.parametrize("names", [("a", "a"), ("", "b")], ids=["of one name", "without a name"])
def test_inputs_whose_names_tell_nothing_have_those_of_the_arguments(names: tuple[str, str]) -> None:
    first, second = (tensor(name, FLOAT, 1) for name in names)
    takes = {"left": FLOAT, "right": FLOAT, "w": RESOURCE}
    found = taken(("f", concrete(arguments(first, second), Y, 2)), bodies=[body(takes=takes)], names=("p", "q"))
    assert found is not None
    assert list(found.signature.inputs) == ["left", "right"]


def test_outputs_of_a_dictionary_have_its_keys_and_others_are_numbered() -> None:
    results = dictionary(b=Y, a=tuple_(Y, Y))
    several = concrete(arguments(X), results, 2)
    found = taken(("f", several), bodies=[body(returns=(FLOAT,) * 3)], names=("x",))
    assert found is not None
    assert {name: each.tensor for name, each in found.signature.outputs.items()} == {
        "a_0": "called/call:0",
        "a_1": "called/call:1",
        "b": "called/call:2",
    }
    found = taken(("f", concrete(arguments(X), tuple_(Y, Y), 2)), bodies=[body(returns=(FLOAT,) * 2)], names=("x",))
    assert found is not None
    assert list(found.signature.outputs) == ["output_0", "output_1"]


def test_results_that_are_not_described_are_those_of_the_function() -> None:
    found = taken(("f", concrete(arguments(X), None, 2)), bodies=[body(returns=(FLOAT, INT64))], names=("x",))
    assert found is not None
    assert [each.type_number for each in found.signature.outputs.values()] == [FLOAT, INT64]
    assert found.signature.outputs["output_1"].shape is None


@pytest.mark.parametrize(
    ("way", "of", "error", "match"),
    [
        (concrete(arguments(X), Y), {}, ReadError, "takes something else than its object says"),
        (concrete(arguments(tensor("x", INT32, 4)), Y, 2), {}, ReadError, "takes something else"),
        (concrete(arguments(X, X), Y, 2), {}, ReadError, "takes something else"),
        (concrete(arguments(X), tensor("", INT64, 3), 2), {}, ReadError, "returns something else than its object says"),
        (concrete(arguments(X), tuple_(Y, Y), 2), {}, ReadError, "returns something else"),
        (concrete(arguments(ragged()), Y, 2), {}, GraphError, "'x' of __call__ is not one tensor"),
        (concrete(arguments(X), ragged(), 2), {}, GraphError, "what __call__ returns is more than tensors"),
        (
            concrete(arguments(X), dictionary(a=tuple_(Y), a_0=Y), 2),
            {"bodies": [body(returns=(FLOAT, FLOAT))]},
            GraphError,
            "two tensors of one name",
        ),
        (concrete(arguments(X), Y, 2), {"bodies": []}, ReadError, "which is not there"),
        (concrete(arguments(X), Y, 2), {"objects": [child("x", 0)]}, GraphError, "is no variable, constant or lookup"),
    ],
)
def test_what_cannot_be_called(way: bytes, of: dict[str, Any], error: type[CkconvError], match: str) -> None:
    assert taken(("f", concrete(arguments(X), Y, 2)), names=("x",)) is not None
    with pytest.raises(error, match=match) as caught:
        taken(("f", way), **{"names": ("x",), **of})
    if error is ReadError:
        assert caught.value.path == "model"


# constants and tables


def test_a_constant_is_the_node_that_there_is() -> None:
    found = plain(objects=[constant("c")], nodes=[node("c", "Const")])
    assert found.kept == ("c",)
    assert found.nodes[-1].inputs == ("called/input_0", "c")
    with pytest.raises(ReadError, match="has a constant whose node is called 'c:0'"):
        plain(objects=[constant("c:0")], nodes=[node("c", "Const")])


def with_table(*nodes: bytes, inside: bytes | None = None, place: int = 3) -> CalledFunction:
    creator = function("create", node("made", "HashTableV2", **TABLE) if inside is None else inside)
    objects = [child("_create_resource", place), calls("create")]
    return plain(objects=objects, bodies=[body(), creator], nodes=nodes)


def test_a_table_is_the_node_that_makes_it_under_its_name() -> None:
    others = (
        node("other", "HashTableV2", shared_name=text_attribute("another")),
        node("alike", "MutableHashTableV2", **TABLE),
        node("no_table", "NoOp", **TABLE),
        node("nameless", "HashTableV2"),
    )
    found = with_table(*others, node("table", "HashTableV2", **TABLE))
    assert found.kept == ("table",)
    assert found.nodes[-1].inputs == ("called/input_0", "table")


@pytest.mark.parametrize(
    "nodes",
    [
        (),
        (node("table", "HashTableV2", **TABLE), node("again", "HashTableV2", **TABLE)),
        (node("table", "HashTableV2", shared_name=text_attribute("another")),),
    ],
    ids=["none", "two of one name", "another"],
)
def test_a_table_that_no_one_node_makes(nodes: tuple[bytes, ...]) -> None:
    with pytest.raises(GraphError, match="is no variable, constant or lookup table of the graph"):
        with_table(*nodes)
    with pytest.raises(GraphError, match="is no variable, constant or lookup table"):
        with_table(node("table", "HashTableV2", **TABLE), inside=node("made", "HashTableV2"))
    with pytest.raises(GraphError, match="is no variable, constant or lookup table"):
        with_table(node("table", "HashTableV2", **TABLE), place=9)
