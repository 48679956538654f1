"""TensorFlow's graphs as they are read and written anew without TensorFlow: nothing is kept that was not looked at."""

from __future__ import annotations

import pytest

from converter.encoding.graph_def import Attribute, Graph, entries, node_of
from converter.encoding.protobuf import (
    LENGTH_DELIMITED,
    Message,
    content_field,
    content_fields,
    fixed32_field,
    number_field,
    tag,
    varint,
)
from converter.errors import CkconvError, ReadError, SafetyError
from tests.graphs.messages import (
    FLOAT,
    INT64,
    function,
    function_named,
    graph_def,
    node,
    shape,
    text_attribute,
    type_,
    types,
)

PATH = "model/saved_model.pb"


def graph(*nodes: bytes, functions: tuple[bytes, ...] = ()) -> Graph:
    return Graph(memoryview(graph_def(nodes, functions)), PATH)


def again(whole: Graph) -> Graph:
    """The graph that is written of one, read again."""
    nodes = (whole.node(name) for name in whole.nodes)
    return Graph(memoryview(whole.encoded(nodes, (whole.function(name) for name in whole.functions))), PATH)


def refused(*nodes: bytes, functions: tuple[bytes, ...] = (), match: str, error: type[CkconvError] = ReadError) -> None:
    graph(node("sound", "NoOp"))
    with pytest.raises(error, match=match) as caught:
        again(graph(*nodes, functions=functions))
    assert caught.value.path == PATH


def test_a_node_is_what_it_says() -> None:
    whole = graph(
        node("x", "Placeholder", dtype=type_(FLOAT)),
        node("y", "AddV2", "x", "x:1", "^x", T=type_(INT64), word=text_attribute("said"), yes=tag(5, 0) + varint(1)),
    )
    assert list(whole.nodes) == ["x", "y"]
    y = whole.node("y")
    assert (y.name, y.operator, y.inputs, y.sources) == ("y", "AddV2", ("x", "x:1", "^x"), ("x", "x", "x"))
    assert (y.attributes["T"].type_number, y.attributes["T"].text, y.attributes["T"].is_true) == (INT64, "", False)
    assert (y.text("word"), y.text("T"), y.text("nothing")) == ("said", "", "")
    assert (y.attributes["yes"].is_true, y.attributes["word"].is_true, y.attributes["word"].type_number) == (
        True,
        False,
        0,
    )
    assert not Attribute(data=memoryview(tag(5, 0) + varint(0)), kind=5, functions=()).is_true
    assert whole.node("y") is y
    with pytest.raises(ReadError, match="has no node 'z', and its graph needs one"):
        whole.node("z")


@pytest.mark.parametrize(("reference", "name"), [("^a", "a"), ("a:1", "a"), ("a:out:0", "a"), ("a/b", "a/b")])
def test_what_a_reference_refers_to(reference: str, name: str) -> None:
    assert node_of(reference) == name


def test_what_says_where_and_how_is_left_out() -> None:
    """Devices, annotations, and the ways in which variables and calls are run: TensorFlow has its own way here."""
    local = ("container", "allowed_devices", "debug_name", "config", "config_proto", "executor_type")
    attributes = {name: text_attribute("elsewhere") for name in (*local, "_class", "_output_shapes")}
    whole = graph(
        node("v", "VarHandleOp", device="/job:worker", dtype=type_(FLOAT), **attributes),
        node("t", "HashTableV2", shared_name=text_attribute("theirs"), key_dtype=type_(INT64)),
        node("c", "NoOp", other=text_attribute("kept")),
    )
    written = again(whole)
    assert set(written.node("v").attributes) == {"dtype", "shared_name"}
    assert written.node("v").text("shared_name") == "v"
    assert (written.node("t").text("shared_name"), written.node("t").attributes["key_dtype"].type_number) == (
        "t",
        INT64,
    )
    assert written.node("c").text("other") == "kept"
    assert "shared_name" not in written.node("c").attributes
    assert b"/job:worker" not in whole.encoded([whole.node("v")], [])


def test_versions_are_kept() -> None:
    whole = Graph(memoryview(graph_def(versions=(1882, 7))))
    found = Message.parse(whole.encoded([], []), {4: LENGTH_DELIMITED})
    versions = Message.parse(found.content(4), {1: 0, 2: 0})
    assert (versions.unsigned(1), versions.unsigned(2)) == (1882, 7)


def test_functions_that_attributes_name_are_named_without_their_attributes() -> None:
    inner = content_field(2, content_field(1, "g") + content_field(2, function_named("deep")))
    called = content_field(10, content_field(1, "f") + inner)
    several = content_field(1, content_fields(9, [content_field(1, "a") + inner, content_field(1, "b")]))
    whole = graph(node("call", "If", then=called, branches=several, T=types(FLOAT, INT64)))
    call = whole.node("call")
    assert call.functions == ("f", "deep", "a", "deep", "b")
    assert (call.attributes["then"].called, call.attributes["branches"].called) == (("f",), ("a", "b"))
    assert call.attributes["T"].called == ()
    written = again(whole).node("call")
    assert written.functions == ("f", "a", "b")
    assert bytes(written.attributes["T"].data) == types(FLOAT, INT64)


SHAPES = content_field(1, content_fields(7, [shape(None, 4), shape()]))


def test_a_function_is_what_it_says() -> None:
    more = number_field(17, 1) + content_field(20, "effect")
    beside = content_field(5, content_field(1, "_input_shapes") + content_field(2, SHAPES))
    beside += content_field(5, content_field(1, "_noinline") + content_field(2, text_attribute("x")))
    beside += content_field(6, content_field(1, "effect") + content_field(2, "n"))
    by_argument = content_field(1, content_field(1, "_output_shapes") + content_field(2, SHAPES))
    beside += content_field(7, number_field(1, 1) + content_field(2, by_argument))
    data = function(
        "f", node("n", "NoOp"), takes={"a": FLOAT, "b": INT64}, returns={"y": (FLOAT, "n:out:0")}, more=more
    )
    for whole in (graph(functions=(data + beside,)), again(graph(functions=(data + beside,)))):
        found = whole.function("f")
        assert [(each.name, each.type_number) for each in found.arguments] == [("a", FLOAT), ("b", INT64)]
        assert [(each.name, each.type_number) for each in found.results] == [("y", FLOAT)]
        assert (found.returned, found.controls) == ({"y": "n:out:0"}, {"effect": "n"})
        assert (found.control_outputs, found.is_stateful) == (("effect",), True)
        assert [each.name for each in found.nodes] == ["n"]
        assert found.shapes is not None
        assert bytes(found.shapes.data) == SHAPES
        assert {place: bytes(each.data) for place, each in found.argument_shapes.items()} == {1: SHAPES}
    assert not graph(functions=(function("g"),)).function("g").is_stateful
    assert b"_noinline" not in again(graph(functions=(data + beside,))).function("f").encoded()


def test_shapes_that_are_none_are_left_out() -> None:
    numbers = types(FLOAT)
    beside = content_field(5, content_field(1, "_input_shapes") + content_field(2, numbers))
    of_argument = content_field(1, content_field(1, "_output_shapes") + content_field(2, numbers))
    other = content_field(1, content_field(1, "_user_specified_name") + content_field(2, SHAPES))
    beside += content_field(7, number_field(1, 0) + content_field(2, of_argument))
    beside += content_field(7, number_field(1, 1) + content_field(2, other))
    found = graph(functions=(function("f") + beside,)).function("f")
    assert (found.shapes, found.argument_shapes) == (None, {})
    assert not Attribute(data=memoryview(b""), kind=0, functions=()).is_shapes()


def test_gradients_are_those_that_are_there() -> None:
    gradients = content_fields(
        2, (content_field(1, "f") + content_field(2, name) for name in ("gradient", "not there", "other"))
    )
    library = content_fields(1, [function("f"), function("gradient"), function("other")]) + gradients
    whole = Graph(memoryview(content_field(2, library)))
    assert whole.gradients("f") == ["gradient", "other"]
    assert whole.gradients("gradient") == []


@pytest.mark.parametrize("name", ["", "^", "^a:1", ":a", "a:", "a:1:0", "a:b:", "a:123456", "a:b:c", "a:b:0:1"])
def test_what_is_no_output_of_a_node_is_not_taken(name: str) -> None:
    refused(node("x", "NoOp", name), match="is no output of a node")
    returning = function("f", returns={"y": (FLOAT, name)})
    refused(functions=(returning,), match="is no output of a node")


def test_names_are_there_once() -> None:
    refused(node("x", "NoOp"), node("x", "NoOp"), match="has two nodes called 'x'")
    refused(functions=(function("f"), function("f")), match="has two functions called 'f'")
    twice = node("x", "NoOp", a=type_(1)) + content_field(5, content_field(1, "a") + content_field(2, type_(1)))
    refused(twice, match="has two entries called 'a' in one map")
    assert [key for key, _ in entries([memoryview(content_field(1, "k"))])] == ["k"]


def constant(**fields: int) -> bytes:
    """An AttrValue that is a TensorProto."""
    handles = b"".join(content_field({"handle": 14, "variant": 15}[key], b"") for key in fields if key != "dtype")
    return content_field(8, number_field(1, fields.get("dtype", FLOAT)) + handles)


@pytest.mark.parametrize(
    "value", [constant(dtype=20), constant(dtype=21), constant(dtype=101), constant(handle=1), constant(variant=1)]
)
def test_a_constant_is_numbers_or_text(value: bytes) -> None:
    assert again(graph(node("c", "Const", value=constant()))).node("c").attributes["value"].kind == 8
    refused(node("c", "Const", value=value), match="a constant that is a handle or an object", error=SafetyError)
    listed = content_field(1, content_field(8, bytes(Message.parse(value, {8: LENGTH_DELIMITED}).content(8))))
    refused(node("c", "Const", value=listed), match="a constant that is a handle or an object", error=SafetyError)


def test_nothing_is_left_to_a_caller() -> None:
    refused(node("x", "NoOp", a=content_field(9, "T")), match="whose value is its caller's to say", error=SafetyError)
    made = function("f", more=content_field(4, content_field(1, "T")))
    refused(functions=(made,), match="that is made for its caller's types", error=SafetyError)
    for number in (4, 5, 6):
        argument = content_field(2, content_field(1, "a") + content_field(number, "T"))
        refused(
            functions=(function("f", more=argument),), match="an argument .'a'. of its caller's type", error=SafetyError
        )


def test_an_attribute_is_one_value_of_a_known_kind() -> None:
    for value in (type_(1) + text_attribute("x"), content_field(11, b"x"), number_field(2, 1), content_field(6, b"x")):
        refused(node("x", "NoOp", a=value), match="is not one value of a known kind")
    assert graph(node("x", "NoOp", a=b"")).node("x").attributes["a"].kind == 0
    assert graph(node("x", "NoOp", a=fixed32_field(4, 1))).node("x").attributes["a"].kind == 4


def test_a_list_is_of_one_kind_where_functions_are_in_it() -> None:
    mixed = content_field(1, content_field(9, content_field(1, "f")) + number_field(6, 1))
    refused(node("x", "NoOp", a=mixed), match="a list of functions and of something else")
    for inner in (content_field(10, b""), content_field(1, b""), number_field(7, 1), number_field(9, 1)):
        refused(node("x", "NoOp", a=content_field(1, inner)), match="a list of values of an unknown kind")


def test_functions_name_functions_only_so_deep() -> None:
    def nested(depth: int) -> bytes:
        value = function_named("f")
        for _ in range(depth):
            value = content_field(
                10, content_field(1, "f") + content_field(2, content_field(1, "g") + content_field(2, value))
            )
        return value

    assert len(graph(node("x", "NoOp", a=nested(8))).node("x").functions) == 9
    refused(node("x", "NoOp", a=nested(9)), match="attributes nested more than 8 deep")
