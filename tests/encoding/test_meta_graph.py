"""What a `saved_model.pb` says around its graph, read as data: signatures, objects, what functions were traced with."""

from __future__ import annotations

import pytest

from converter.encoding.meta_graph import meta_graph
from converter.encoding.protobuf import content_field, content_fields, number_field, varint
from converter.encoding.saved_function import Leaf, SavedFunction, traced
from converter.errors import ReadError
from tests.graphs.messages import (
    FLOAT,
    INT64,
    STRING,
    called,
    child,
    concrete,
    constant,
    dictionary,
    graph_def,
    listed,
    named_tuple,
    node,
    nothing,
    ragged,
    saved_model,
    served,
    shape,
    tensor,
    truth,
    tuple_,
    variable,
    word,
)

GRAPH = graph_def([node("x", "Placeholder")])


def info(name: str, kind: int, *extents: int | None, more: bytes = b"") -> bytes:
    return content_field(1, name) + number_field(2, kind) + content_field(3, shape(*extents)) + more


def entry(key: str, value: bytes) -> bytes:
    return content_field(1, key) + content_field(2, value)


# graphs, signatures


def test_the_graph_of_a_tag() -> None:
    data = saved_model(GRAPH, tags=("train",)) + saved_model(graph_def([node("y", "NoOp")]), tags=("gpu", "serve"))
    assert list(served(data).graph.nodes) == ["y"]
    assert meta_graph(data, "tpu") is None
    found = meta_graph(data, "train")
    assert found is not None
    assert list(found.graph.nodes) == ["x"]


def test_a_signature_names_tensors_of_the_main_graph() -> None:
    said = content_field(1, entry("a", info("x:0", FLOAT, None, 3)))
    said += content_field(1, entry("s", info("x:1", INT64, more=content_field(4, b""))))
    said += content_field(1, entry("c", info("x:1", INT64, more=content_field(5, b""))))
    said += content_field(2, entry("y", info("x:2", STRING)))
    found = served(saved_model(GRAPH, signatures={"serving_default": said})).signatures["serving_default"]
    assert {name: (each.tensor, each.type_number, each.shape) for name, each in found.inputs.items()} == {
        "a": ("x:0", FLOAT, (None, 3)),
        "s": ("", INT64, ()),
        "c": ("", INT64, ()),
    }
    assert {name: (each.tensor, each.shape) for name, each in found.outputs.items()} == {"y": ("x:2", ())}


def collection(*names: str) -> bytes:
    return content_field(1, content_fields(1, names))


def of_variables(*names: str) -> bytes:
    return content_field(2, content_fields(1, (content_field(1, name) for name in names)))


def test_what_a_loader_would_run_first() -> None:
    """The signature before the collections, and of these the first that there is."""
    signature = content_field(2, entry("__saved_model_init_op", info("init:0", FLOAT)))
    collections = {"table_initializer": collection("t"), "legacy_init_op": collection("^l", "m:0")}
    with_signature = saved_model(GRAPH, signatures={"__saved_model_init_op": signature}, collections=collections)
    assert served(with_signature).initialisers == ("init",)
    assert served(saved_model(GRAPH, collections=collections)).initialisers == ("l", "m")
    main = {**collections, "saved_model_main_op": collection("main")}
    assert served(saved_model(GRAPH, collections=main)).initialisers == ("main",)
    assert served(saved_model(GRAPH)).initialisers == ()


def test_what_is_trained_of_tensorflow_1() -> None:
    found = served(saved_model(GRAPH, objects=None, collections={"trainable_variables": of_variables("a:0", "b")}))
    assert (found.trained, found.objects) == ({"a", "b"}, None)
    found = served(saved_model(GRAPH, collections={"variables": of_variables("a:0")}))
    assert (found.trained, found.objects) == (frozenset(), ())


# objects


def test_objects_are_what_they_say() -> None:
    objects = [
        child("w", 1) + child("c", 2),
        variable("w", FLOAT, 4, None, is_trainable=False),
        constant("const"),
        called("f", "g", arguments=("x", "training")),
        variable("b", INT64),
    ]
    root, w, c, f, b = served(saved_model(GRAPH, objects=objects)).objects or ()
    assert (root.children, root.variable, root.function, root.constant) == ({"w": 1, "c": 2}, None, None, None)
    assert w.variable is not None
    assert (w.variable.name, w.variable.type_number, w.variable.shape) == ("w", FLOAT, (4, None))
    assert not w.variable.is_trainable
    assert c.constant == "const"
    assert f.function == SavedFunction(traced=("f", "g"), arguments=("x", "training"))
    assert b.variable is not None
    assert b.variable.is_trainable


@pytest.mark.parametrize("is_packed", [True, False])
def test_what_a_function_captures(is_packed: bool) -> None:
    one_by_one = number_field(2, 1) + number_field(2, 2) + concrete(tuple_(), None)
    way = concrete(tuple_(), None, 1, 2) if is_packed else one_by_one
    objects = [b"", variable("w", FLOAT), constant("c")]
    found = served(saved_model(GRAPH, objects=objects, functions={"f": way}))
    assert (dict(found.captures), list(found.traced)) == ({"f": (1, 2)}, ["f"])
    with pytest.raises(ReadError, match="captures an object which is not there"):
        served(saved_model(GRAPH, objects=objects[:2], functions={"f": way}))
    beyond = content_field(2, varint(1 << 63))
    with pytest.raises(ReadError, match="captures an object which is not there"):
        served(saved_model(GRAPH, objects=objects, functions={"f": beyond}))


# structured values


def leaves(value: bytes) -> list[tuple[tuple[str, ...], Leaf]]:
    """The leaves of a result."""
    found = traced("f", memoryview(concrete(tuple_(), value)), SavedFunction(traced=(), arguments=()), "model")
    return list(found.outputs)


def test_leaves_are_in_the_order_of_tensorflow() -> None:
    inside = dictionary(b=tensor("b"), a=listed(tensor("a", INT64, 2, None), nothing()))
    value = tuple_(inside, named_tuple("Pair", z=tensor("z"), y=truth(True)), word("said"), ragged())
    assert [(place, leaf.name or leaf.text or leaf.is_true or leaf.is_other) for place, leaf in leaves(value)] == [
        (("0", "a", "0"), "a"),
        (("0", "a", "1"), False),
        (("0", "b"), "b"),
        (("1", "z"), "z"),
        (("1", "y"), True),
        (("2",), "said"),
        (("3",), True),
    ]
    ((_, first), *_) = leaves(value)
    assert (first.type_number, first.shape) == (INT64, (2, None))


def test_values_that_are_no_tensors_are_told_apart() -> None:
    values = [nothing(), truth(True), truth(False), word("True"), content_field(31, shape(1)), b""]
    found = [leaves(value)[0][1] for value in values]
    assert [leaf.type_number for leaf in found] == [0] * len(values)
    assert [leaf.is_true for leaf in found] == [False, True, False, False, False, False]
    assert [leaf.text for leaf in found] == [None, None, None, "True", None, None]
    assert found[0].value == found[5].value
    assert len({leaf.value for leaf in found}) == len(values) - 1
    bounded = content_field(35, content_field(1, "x") + content_field(2, shape(3)) + number_field(3, FLOAT))
    assert [(leaf.name, leaf.shape) for _, leaf in leaves(bounded)] == [("x", (3,))]
    assert leaves(tensor("x", is_unknown=True))[0][1].shape is None
    assert leaves(tensor("x"))[0][1].shape == ()


def test_a_structure_is_one_thing_and_not_endless() -> None:
    with pytest.raises(ReadError, match="a structure of several kinds at once") as caught:
        leaves(nothing() + truth(True))
    assert caught.value.path == "model"
    deep = tensor("x")
    for _ in range(32):
        deep = listed(deep)
    assert len(leaves(deep)) == 1
    with pytest.raises(ReadError, match="nested more than 32 deep"):
        leaves(listed(deep))
    twice = content_field(53, content_fields(1, [entry("a", nothing())] * 2))
    with pytest.raises(ReadError, match="two entries called 'a'"):
        leaves(twice)


def places(arguments: bytes, *names: str) -> list[tuple[str, ...]]:
    function = SavedFunction(traced=(), arguments=names)
    return [place for place, _ in traced("f", memoryview(concrete(arguments, None)), function, "model").inputs]


def test_arguments_by_position_have_their_names_as_far_as_these_go() -> None:
    given = tuple_(tuple_(tensor(), listed(tensor(), tensor()), tensor()), dictionary(kind=word("x")))
    assert places(given, "x", "y") == [("x",), ("y", "0"), ("y", "1"), ("2",), ("kind",)]
    assert places(given) == [("0",), ("1", "0"), ("1", "1"), ("2",), ("kind",)]
    assert places(tuple_(tuple_(), dictionary())) == []


@pytest.mark.parametrize(
    "given",
    [
        tensor("x"),
        tuple_(tensor("x")),
        tuple_(tuple_(), dictionary(), tuple_(tensor("x"))),
        dictionary(**{"0": dictionary(x=tensor())}),
        dictionary(**{"0": dictionary(**{"-1": tensor()})}),
        dictionary(**{"0": dictionary(**{"123456": tensor()})}),
        dictionary(args=tuple_(tensor("x"))),
    ],
    ids=["a tensor", "no group", "a third group", "a key", "below 0", "too far", "another group"],
)
def test_arguments_that_are_not_declared(given: bytes) -> None:
    with pytest.raises(ReadError, match=r"has a function \('f'\) whose arguments are not declared") as caught:
        places(given, "x")
    assert caught.value.path == "model"


def test_only_the_listed_arguments_of_a_signature_have_names() -> None:
    spec = named_tuple(
        "FullArgSpec", args=listed(word("x"), nothing()), varargs=word("rest"), defaults=tuple_(word("d"))
    )
    said = content_field(6, content_field(1, "f") + content_field(2, content_field(1, spec)))
    (only,) = served(saved_model(GRAPH, objects=[said])).objects or ()
    assert only.function == SavedFunction(traced=("f",), arguments=("x", ""))
    (bare,) = served(saved_model(GRAPH, objects=[called("f")])).objects or ()
    assert bare.function == SavedFunction(traced=("f",), arguments=())
