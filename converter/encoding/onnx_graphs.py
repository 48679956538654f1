"""Tensors of an ONNX model that are no initializers of its graph: of nodes, of functions, and of graphs inside nodes.

https://github.com/onnx/onnx/blob/v1.19.0/onnx/onnx.proto. ONNX does not say which of them are weights. The rule here:
floating-point tensors with at least one axis and more than one element, but for those that operators take as
parameters (converter.encoding.onnx_operands); all others are constants of the graph. A weight has the name of its
value. Where two are equal, the way to each stands before it, with slashes: a node's name or, without one, its operator
and number; the graph's attribute in it; of a function ``domain.name``.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from converter.encoding.onnx_sparse import read_sparse, sparse_declaration
from converter.encoding.onnx_tensors import (
    FilesBeside,
    check_location,
    count_of,
    declaration_of,
    read_floats,
    read_tensor,
    tensor_name,
)
from converter.encoding.protobuf_file import Range, Readable, Window, contents, fields, read_text
from converter.errors import ReadError, SafetyError
from converter.model.dtype import DType
from converter.model.file import SourceFile
from converter.model.tensor import Tensor

NODE, INITIALIZER, SPARSE, FUNCTION_NODE = 1, 5, 15, 7
_GRAPH_NAME, _GRAPH_VALUES = 2, (11, 12, 13)
_VALUE_DIMENSION = (2, 1, 2, 1, 2)
"""The way from a value to a dimension's name: type, tensor_type, shape, dim, dim_param."""
_INPUT, _OUTPUT, _NAME, _OPERATOR, _ATTRIBUTE, _DOMAIN, _OVERLOAD = 1, 2, 3, 4, 5, 7, 8
_NODE_TEXTS = (_INPUT, _OUTPUT, _NAME, _OPERATOR, _DOMAIN, _OVERLOAD)
_FUNCTION_NAME, _FUNCTION_DEFAULTS, _FUNCTION_DOMAIN, _FUNCTION_OVERLOAD = 1, 11, 10, 13
_FUNCTION_TEXTS = (_FUNCTION_NAME, 4, 5, 6, _FUNCTION_DOMAIN, _FUNCTION_OVERLOAD)
_ATTRIBUTE_NAME, _FLOAT, _INTEGER, _FLOATS, _INTEGERS, _REFERENCE = 1, 2, 3, 7, 8, 21
_GRAPHS, _TENSORS, _SPARSE_TENSORS = (6, 11), (5, 10), (22, 23)
_SPARSE_PARTS = (1, 2)
_MAIN_DOMAINS = ("", "ai.onnx")
_LEARNT_DOMAIN, _LEARNT = "ai.onnx.ml", ("TfIdfVectorizer",)
"""Whose operators have what was learnt in lists of numbers that are attributes, and those of other domains."""
_DEPTH_LIMIT = 32
_SHORT_BYTES = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a tensor stands.

    `function`   domain, name and overload of the function that it is in, None in the model's graph
    `through`    from there, for each graph inside a node: number of the node, attribute, and number in that
    `node`       number of the node that has it for an attribute, None for an initializer, and which `attribute`
    """

    function: tuple[str, str, str] | None = None
    through: tuple[tuple[int, str, int], ...] = ()
    node: int | None = None
    attribute: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """A tensor that is no initializer of the model's graph, or a sparse one.

    `value` is the name of the initializer, or of what the node gives; `path` the way there, `scope` where in the file
    that graph is. `numbers` is how many numbers it has, `tensor` None for one that is not read, `operator` that of a
    node which is no Constant.
    """

    value: str
    path: tuple[str, ...]
    scope: int
    place: Place
    numbers: int
    tensor: Tensor | None = None
    is_sparse: bool = False
    operator: str | None = None

    @property
    def is_weight(self) -> bool:
        """Whether it is one by its type and shape."""
        return self.operator is None and self.tensor is not None and is_weight(self.tensor.dtype, self.tensor.shape)

    @property
    def full_name(self) -> str:
        """The name with the way to it."""
        return "/".join((*self.path, self.value))


def is_weight(dtype: DType, shape: Sequence[int]) -> bool:
    """Whether a tensor of this type and shape is a weight, where nothing else says it."""
    is_number = dtype.is_floating or dtype in (DType.COMPLEX64, DType.COMPLEX128)
    return is_number and len(shape) > 0 and math.prod(shape) > 1


def named(held: Iterable[Held], initializers: Collection[str], reserved: Collection[str]) -> dict[str, Held]:
    """Return each by a name of its own, beside the `initializers` of the graph.

    What is not in the model's graph itself does not have one of the `reserved` names either.
    """
    listed = list(held)
    counts = Counter((*initializers, *(each.value for each in listed)))
    taken, found = set(initializers), dict[str, Held]()
    for each in listed:
        is_own = counts[each.value] == 1 and not (each.path and each.value in reserved)
        base = each.value if is_own else each.full_name
        name = next(
            name for number in itertools.count() if (name := f"{base}_{number}" if number else base) not in taken
        )
        taken.add(name)
        found[name] = each
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class At:
    """A graph, or the body of a function, on the way through a model."""

    scope: int
    path: tuple[str, ...] = ()
    place: Place = Place()

    def inside(self, graph: Range, label: str, node: int, attribute: str, number: int) -> At:
        """Return a graph that is an attribute of a node."""
        step = attribute if number == 0 else f"{attribute}_{number}"
        through = (*self.place.through, (node, attribute, number))
        return At(scope=graph.start, path=(*self.path, label, step), place=replace(self.place, through=through))


@dataclass(slots=True, kw_only=True)
class Node:
    """A node as far as it is looked at. `near` is where its own bytes are read from."""

    near: Readable
    number: int
    name: str = ""
    operator: str = ""
    domain: str = ""
    overload: str = ""
    inputs: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    attributes: list[Range] = field(default_factory=list)

    @property
    def label(self) -> str:
        """What the node is called on the way to what is in it."""
        return self.name or f"{self.operator}_{self.number}"

    def graphs(self) -> Iterator[tuple[str, int, Range]]:
        """Yield attribute, number and content of each graph in it."""
        for each in self.attributes:
            attribute, numbers = Attribute.of(self.near, each), itertools.count()
            for kind, value in attribute.parts:
                if kind in _GRAPHS:
                    yield attribute.name, next(numbers), value


@dataclass(slots=True, kw_only=True)
class Attribute:
    """An attribute: its name, the number and content of its fields, and the numbers that are not in such a field."""

    name: str = ""
    parts: list[tuple[int, Range]] = field(default_factory=list)
    single: int = 0
    floats: int = 0
    integers: int = 0

    @classmethod
    def of(cls, near: Readable, within: Range) -> Attribute:
        """Read an attribute; tensors and graphs in it are not. Raises ReadError for names that are not UTF-8."""
        found = cls()
        for number, _, value in fields(near, within):
            if not isinstance(value, Range):
                found.single += number == _INTEGER
                found.integers += number == _INTEGERS
            elif number == _ATTRIBUTE_NAME:
                found.name = read_text(near, value)
            elif number == _REFERENCE:
                read_text(near, value)
            elif number == _FLOAT:
                found.single += 1
            elif number == _FLOATS:
                found.floats += value.nbytes // 4
            elif number == _INTEGERS:
                found.integers += count_of(near, value)
            else:
                found.parts.append((number, value))
        return found


def nodes(file: SourceFile, within: Range, node_field: int) -> Iterator[Node]:
    """Yield the nodes of a graph or of a function, in order. Raises ReadError for names that are not UTF-8."""
    for number, (_, value) in enumerate(contents(file, within, (node_field,))):
        near = Window(file, value) if value.nbytes <= _SHORT_BYTES else file
        node = Node(near=near, number=number)
        for kind, each in contents(near, value, (*_NODE_TEXTS, _ATTRIBUTE)):
            if kind == _ATTRIBUTE:
                node.attributes.append(each)
                continue
            text = read_text(near, each)
            match kind:
                case 1:
                    node.inputs.append(text)
                case 2:
                    node.outputs.append(text)
                case 3:
                    node.name = text
                case 4:
                    node.operator = text
                case 7:
                    node.domain = "" if text in _MAIN_DOMAINS else text
                case _:
                    node.overload = text
        yield node


@dataclass(frozen=True, slots=True, kw_only=True)
class Function:
    """A function of the model: what it is called, and where it is."""

    domain: str
    name: str
    overload: str
    content: Range

    @classmethod
    def of(cls, file: SourceFile, content: Range) -> Function:
        """Read what a function is called. Raises ReadError for names that are not UTF-8."""
        texts: dict[int, str] = {}
        for number, value in contents(file, content, _FUNCTION_TEXTS):
            texts[number] = read_text(file, value)
        domain, name, overload = (
            texts.get(number, "") for number in (_FUNCTION_DOMAIN, _FUNCTION_NAME, _FUNCTION_OVERLOAD)
        )
        return cls(domain="" if domain in _MAIN_DOMAINS else domain, name=name, overload=overload, content=content)

    @property
    def identifier(self) -> tuple[str, str, str]:
        """What calls name it by."""
        return self.domain, self.name, self.overload

    @property
    def at(self) -> At:
        """Its body, on the way through a model."""
        label = ".".join(each for each in (self.domain, self.name) if each)
        label = f"{label}:{self.overload}" if self.overload else label
        return At(scope=self.content.start, path=(label,), place=Place(function=self.identifier))


@dataclass(frozen=True, slots=True, kw_only=True)
class Walk:
    """What is found in nodes and in graphs inside them.

    `held` are tensors; `attributes` lists of numbers that are attributes of operators, each with its operator;
    `texts` initializers of strings; `operators` what the nodes are.

    Raises ReadError for a name that is not UTF-8, a weight that is malformed, and graphs too deep in one another;
    SafetyError for a tensor in a file that is not in the folder.
    """

    file: SourceFile
    beside: FilesBeside
    held: list[Held] = field(default_factory=list)
    attributes: list[Held] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    operators: set[str] = field(default_factory=set)

    def graph(self, graph: Range, at: At) -> None:
        """Look at a graph inside a node: its initializers, and all that `nodes` looks at."""
        if len(at.place.through) > _DEPTH_LIMIT:
            raise ReadError(f"has graphs inside graphs, more than {_DEPTH_LIMIT} deep", path=self.file.path)
        for number, value in contents(self.file, graph, (INITIALIZER, SPARSE)):
            self._initializer(value, at, is_sparse=number == SPARSE)
        check_values(self.file, graph)
        self.nodes(graph, NODE, at)

    def sparse(self, graph: Range, at: At) -> None:
        """Look at the sparse initializers of the model's graph."""
        for _, value in contents(self.file, graph, (SPARSE,)):
            self._initializer(value, at, is_sparse=True)

    def function(self, function: Function) -> None:
        """Look at a function of the model."""
        at = function.at
        self.nodes(function.content, FUNCTION_NODE, at)
        for _, value in contents(self.file, function.content, (_FUNCTION_DEFAULTS,)):
            self._attribute(Node(near=self.file, number=0, operator=at.path[0], domain="own"), value, at, ("", ""))

    def _initializer(self, value: Range, at: At, *, is_sparse: bool) -> None:
        within = value
        if is_sparse:
            within = next((part for _, part in contents(self.file, value, _SPARSE_PARTS[:1])), value)
        name = tensor_name(self.file, within)
        self._tensor(value, at, name, at.place, is_sparse=is_sparse)

    def nodes(self, within: Range, node_field: int, at: At) -> None:
        """Look at the nodes of a graph or function, what they have for attributes, and the graphs among that."""
        for node in nodes(self.file, within, node_field):
            self.operators.add(node.operator)
            value = next(iter(node.outputs), "")
            for each in node.attributes:
                self._attribute(node, each, at, (node.label, value))

    def _attribute(self, node: Node, within: Range, at: At, names: tuple[str, str]) -> None:
        attribute, (label, value) = Attribute.of(node.near, within), names
        is_constant = node.operator == "Constant" and not node.domain and value != ""
        place = replace(at.place, node=node.number, attribute=attribute.name)
        called = value if is_constant else "/".join(each for each in (label, attribute.name) if each)
        operator = None if is_constant else node.operator
        graphs = itertools.count()
        for kind, part in attribute.parts:
            if kind in _GRAPHS:
                number = next(graphs)
                self.graph(part, at.inside(part, label, node.number, attribute.name, number))
            elif kind in _TENSORS or kind in _SPARSE_TENSORS:
                self._tensor(part, at, called, place, is_sparse=kind in _SPARSE_TENSORS, operator=operator)
        numbers = attribute.floats + attribute.integers
        if is_constant:
            tensor = read_floats(self.file, within, _FLOATS) if attribute.floats else None
            numbers += attribute.single
            if numbers:
                self.held.append(
                    Held(value=called, path=at.path, scope=at.scope, place=place, numbers=numbers, tensor=tensor)
                )
        elif numbers and (node.domain == _LEARNT_DOMAIN or node.operator in _LEARNT):
            self.attributes.append(
                Held(value=called, path=at.path, scope=at.scope, place=place, numbers=numbers, operator=node.operator)
            )

    def _tensor(
        self, value: Range, at: At, name: str, place: Place, *, is_sparse: bool, operator: str | None = None
    ) -> None:
        parts = [part for _, part in contents(self.file, value, _SPARSE_PARTS)] if is_sparse else [value]
        for part in parts:
            check_location(self.file, part, self.beside)
        declared = sparse_declaration(self.file, value) if is_sparse else declaration_of(self.file, value)
        is_like_weight = declared.dtype is not None and is_weight(declared.dtype, declared.shape)
        if declared.is_text:
            if place.node is None:
                self.texts.append("/".join((*at.path, name)))
            return
        held = Held(
            value=name,
            path=at.path,
            scope=at.scope,
            place=place,
            numbers=max(math.prod(declared.shape), 0),
            tensor=self._read(value, name, is_sparse) if is_sparse or (is_like_weight and operator is None) else None,
            is_sparse=is_sparse,
            operator=operator,
        )
        (self.attributes if operator is not None and is_like_weight else self.held).append(held)

    def _read(self, value: Range, name: str, is_sparse: bool) -> Tensor | None:
        try:
            return (read_sparse if is_sparse else read_tensor)(self.file, value, self.beside)
        except (ReadError, SafetyError) as error:
            error.tensor = name
            error.path = error.path or str(self.file.path)
            raise


def check_values(file: SourceFile, graph: Range) -> list[str]:
    """Return what the inputs and outputs of a graph are called; it, they and what is between must be text."""
    names: list[str] = []
    for number, value in contents(file, graph, (_GRAPH_NAME, *_GRAPH_VALUES)):
        near: Readable = Window(file, value) if value.nbytes <= _SHORT_BYTES else file
        if number == _GRAPH_NAME:
            read_text(near, value)
            continue
        if number != _GRAPH_VALUES[-1]:
            names += [read_text(near, name) for _, name in contents(near, value, (1,))]
        elif isinstance(near, Window) and near.is_ascii:
            continue
        else:
            check_texts(near, value, (1,))
        parts = [value]
        for step in _VALUE_DIMENSION[:-1]:
            parts = [inner for part in parts for _, inner in contents(near, part, (step,))]
        for part in parts:
            check_texts(near, part, _VALUE_DIMENSION[-1:])
    return names


def check_texts(file: Readable, within: Range, numbers: Sequence[int]) -> None:
    """Check the names that are fields of a message."""
    for _, value in contents(file, within, numbers):
        read_text(file, value)
