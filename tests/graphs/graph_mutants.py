"""Seeded mutants of valid SavedModels against the check: it answers, or raises a CkconvError.

``python -m tests.graphs.graph_mutants --count 50000 FOLDER ...`` tries that many of the `saved_model.pb` in these
folders, and prints what came of them; ``--seed`` and ``--run N``, which gives N of those that pass to the child process
that runs graphs from elsewhere. A mutant depends on its seed and its number alone.

What passes is judged by another reader than the one under test: TensorFlow's own protobuf classes, by a search of all
messages for whatever is an operator or a function's name.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from converter.errors import CkconvError
from converter.execution import child
from converter.execution.child import Terms
from converter.graphs.calls import run_foreign_saved_model
from converter.graphs.run.arrays import write_arrays
from converter.graphs.trace.tensorflow.cutting import Cut, cut
from converter.graphs.trace.tensorflow.operators import COMPUTE

_HOSTILE = ("WriteFile", "SaveV2", "ReadFile", "PyFunc", "PrintV2", "MergeV2Checkpoints")
_BYTES = (0x00, 0x01, 0x0A, 0x12, 0x1A, 0x2A, 0x52, 0x7F, 0x80, 0xFF)


def mutant(saved: Any, seed: int, number: int) -> bytes:
    """Return a mutant of a SavedModel message: of its structure, of its bytes, or of both."""
    rng = random.Random(f"{seed}/{number}")
    copy = type(saved)()
    copy.CopyFrom(saved)
    kind = rng.randrange(3)
    if kind < 2:
        for _ in range(rng.randint(1, 3)):
            rng.choice(_STRUCTURAL)(copy.meta_graphs[0], rng)
    data = bytearray(copy.SerializeToString())
    if kind > 0:
        for _ in range(rng.randint(1, 4)):
            _change_bytes(data, rng)
    return bytes(data)


def _change_bytes(data: bytearray, rng: random.Random) -> None:
    place = rng.randrange(len(data))
    match rng.randrange(5):
        case 0:
            data[place] ^= 1 << rng.randrange(8)
        case 1:
            data[place] = rng.choice(_BYTES)
        case 2:
            del data[place : place + rng.randint(1, 8)]
        case 3:
            other = rng.randrange(len(data))
            data[place:place] = data[other : other + rng.randint(1, 64)]
        case 4:  # one name for another, of the same length
            word = rng.choice(("Identity", "MatMul", "Const", "ReadVariableOp", "Placeholder")).encode()
            place = data.find(word, place)
            if place >= 0:
                data[place : place + len(word)] = rng.choice(_HOSTILE).ljust(len(word), "x")[: len(word)].encode()


def _nodes(meta_graph: Any) -> list[Any]:
    graph = meta_graph.graph_def
    return [*graph.node, *(node for function in graph.library.function for node in function.node_def)]


def _change_operator(meta_graph: Any, rng: random.Random) -> None:
    rng.choice(_nodes(meta_graph)).op = rng.choice((*_HOSTILE, *sorted(COMPUTE), ""))


def _change_input(meta_graph: Any, rng: random.Random) -> None:
    node, other = rng.choice(_nodes(meta_graph)), rng.choice(_nodes(meta_graph))
    reference = rng.choice(("{}", "^{}", "{}:0", "{}:output:0", "^{}:0", "{}:x:y")).format(other.name)
    if node.input and rng.random() < 0.5:
        node.input[rng.randrange(len(node.input))] = reference
    else:
        node.input.append(reference)


def _add_node(meta_graph: Any, rng: random.Random) -> None:
    holders = [meta_graph.graph_def.node, *(each.node_def for each in meta_graph.graph_def.library.function)]
    nodes = rng.choice(holders)
    name = rng.choice(("planted", rng.choice(_nodes(meta_graph)).name))
    nodes.add(name=name, op=rng.choice((*_HOSTILE, "Identity", "PartitionedCall")))
    if len(nodes) > 1:
        rng.choice(list(nodes)[:-1]).input.append(rng.choice(("^{}", "{}", "{}:output:0")).format(name))


def _name_function(meta_graph: Any, rng: random.Random) -> None:
    functions = [each.signature.name for each in meta_graph.graph_def.library.function]
    called = rng.choice((*functions, *_HOSTILE, "SymbolicGradient", ""))
    value = rng.choice(_nodes(meta_graph)).attr[rng.choice(("f", "body", "then_branch", "branches", "_attr", "T"))]
    match rng.randrange(4):
        case 0:
            value.func.name = called
        case 1:
            value.list.func.add().name = called
        case 2:
            value.func.attr["again"].func.name = called
        case 3:
            value.placeholder = called


def _plant_into_function(meta_graph: Any, rng: random.Random) -> None:
    if not meta_graph.graph_def.library.function:
        return
    function = rng.choice(meta_graph.graph_def.library.function)
    match rng.randrange(4):
        case 0:
            function.node_def.add(name="planted", op=rng.choice(_HOSTILE))
        case 1:
            function.signature.name = rng.choice(_HOSTILE)
        case 2:
            function.signature.attr.add(name="F", type="func").default_value.func.name = rng.choice(_HOSTILE)
        case 3:
            gradient = rng.choice(meta_graph.graph_def.library.function).signature.name
            meta_graph.graph_def.library.gradient.add(function_name=function.signature.name, gradient_func=gradient)


def _change_signature(meta_graph: Any, rng: random.Random) -> None:
    for signature in meta_graph.signature_def.values():
        ports = rng.choice((signature.inputs, signature.outputs))
        if ports:
            info = ports[rng.choice(list(ports))]
            info.name = f"{rng.choice(_nodes(meta_graph)).name}:{rng.randrange(2)}"


def _change_constant(meta_graph: Any, rng: random.Random) -> None:
    for node in _nodes(meta_graph):
        if node.op == "Const" and rng.random() < 0.3:
            node.attr["value"].tensor.dtype = rng.choice((1, 3, 7, 9, 20, 21, 101))


def _remove(meta_graph: Any, rng: random.Random) -> None:
    nodes = meta_graph.graph_def.node
    del nodes[rng.randrange(len(nodes))]


_STRUCTURAL = (
    _change_operator,
    _change_input,
    _add_node,
    _name_function,
    _plant_into_function,
    _change_signature,
    _change_constant,
    _remove,
)


def faults(data: bytes, part: Cut) -> Iterator[str]:
    """Yield what is wrong with a cut graph, as TensorFlow's classes read it, and the file that it was cut from."""
    from google.protobuf.message import DecodeError
    from tensorflow.core.framework import graph_pb2

    try:
        graph = graph_pb2.GraphDef.FromString(part.graph)
    except DecodeError:  # a shape or a constant is malformed, and TensorFlow takes no graph with it
        return
    functions = {each.signature.name for each in graph.library.function}
    for node in _messages(graph, "NodeDef"):
        if node.op not in COMPUTE | functions:
            yield f"operator {node.op}"
        if node.device or any(key.startswith("_") for key in node.attr):
            yield f"node {node.name} has a device or an annotation"
    for called in _messages(graph, "NameAttrList"):
        if called.name not in functions or called.attr:
            yield f"a call of {called.name!r}"
    if graph.library.gradient or graph.library.registered_gradients or list(_messages(graph, "VariantTensorDataProto")):
        yield "a gradient or an object"
    if any(value.placeholder for value in _messages(graph, "AttrValue")):
        yield "an attribute of its caller"
    yield from (f"operator {name}, reached" for name in _reached_operators(data, part.name) - COMPUTE - functions)


def _messages(message: Any, kind: str) -> Iterator[Any]:
    """Yield all messages of a kind, however deep, in `message`."""
    if message.DESCRIPTOR.name == kind:
        yield message
    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        if field.message_type.GetOptions().map_entry:
            inner = value.values() if field.message_type.fields_by_name["value"].message_type else ()
        else:
            inner = [value] if hasattr(value, "DESCRIPTOR") else list(value)
        for each in inner:
            yield from _messages(each, kind)


def _reached_operators(data: bytes, signature: str) -> set[str]:
    """Return the operators that a signature reaches in a file as TensorFlow reads it; none where it does not."""
    from google.protobuf.message import DecodeError
    from tensorflow.core.protobuf import saved_model_pb2

    try:
        saved = saved_model_pb2.SavedModel.FromString(data)
    except DecodeError:  # what is out of reach may be malformed
        return set()
    meta_graph = next(each for each in saved.meta_graphs if "serve" in each.meta_info_def.tags)
    ports = meta_graph.signature_def[signature]
    names = {info.name for each in (ports.inputs, ports.outputs) for info in each.values()}
    nodes = {name.partition(":")[0] for name in names}
    functions: set[str] = set()
    size = -1
    while size != len(nodes) + len(functions):
        size = len(nodes) + len(functions)
        main = [node for node in meta_graph.graph_def.node if node.name in nodes]
        called = [each for each in meta_graph.graph_def.library.function if each.signature.name in functions]
        every = [*main, *(node for function in called for node in function.node_def)]
        nodes |= {each.lstrip("^").partition(":")[0] for node in main for each in node.input}
        functions |= {node.op for node in every}
        functions |= {each.name for node in every for each in _messages(node, "NameAttrList")}
    return {node.op for node in every}


def tried(saved: Any, count: int, seed: int, offset: int = 0) -> Iterator[tuple[str, bytes]]:
    """Yield what came of every mutant: the kind of its error, "passed", or what is wrong; and the mutant."""
    for number in range(offset, offset + count):
        data = mutant(saved, seed, number)
        try:
            part = cut(data)
        except CkconvError as error:
            yield type(error).__name__, data
            continue
        wrong = next(faults(data, part), None)
        yield (f"wrong: {wrong}" if wrong else "passed"), data


def ran(data: bytes, model: Path, folder: Path) -> str:
    """Run a mutant in a child process, with the variables of `model`; return what came of it, and what it wrote."""
    source, scratch = folder / "model", folder / "scratch"
    shutil.copytree(model, source)
    (source / "saved_model.pb").write_bytes(data)
    scratch.mkdir()
    shapes = {name: info.shape or () for name, info in cut(data).signature.inputs.items()}
    ones = {f"0/{name}": np.ones([min(each or 2, 64) for each in shape]) for name, shape in shapes.items()}
    write_arrays(str(folder / "inputs.npz"), ones)
    before = _listed(folder, scratch)
    given = {"model": source, "inputs": folder / "inputs.npz", "outputs": scratch / "outputs.npz"}
    arguments = {name: os.fspath(path) for name, path in given.items()}
    try:
        child.call_all([run_foreign_saved_model.call(**arguments)], scratch, terms=Terms(reads=(folder,)))
        outcome = "ran"
    except CkconvError as error:
        said = str(error).partition("failed: ")[2]
        has_died = said.startswith(("@ ", "killed by signal", "*** "))  # TensorFlow aborts; the child alone ends
        outcome = f"wrong: {error}" if said and not has_died else type(error).__name__
    return outcome if _listed(folder, scratch) == before else "wrong: something was written"


def _listed(folder: Path, scratch: Path) -> dict[str, tuple[int, int]]:
    paths = [path for path in folder.rglob("*") if scratch not in (path, *path.parents)]
    return {os.fspath(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in paths if path.is_file()}


def main() -> int:
    """Try the mutants that the command line asks for."""
    from tensorflow.core.protobuf import saved_model_pb2

    parser = argparse.ArgumentParser()
    parser.add_argument("models", nargs="+", type=Path)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--run", type=int, default=0)
    given = parser.parse_args()
    found, passed = Counter[str](), []
    for model in given.models:
        saved = saved_model_pb2.SavedModel.FromString((model / "saved_model.pb").read_bytes())
        for outcome, data in tried(saved, given.count // len(given.models), given.seed):
            found[outcome] += 1
            if outcome == "passed" and data != saved.SerializeToString():
                passed.append((model, data))
    print(dict(found), flush=True)
    drawn = random.Random(given.seed).sample(passed, min(given.run, len(passed)))
    outcomes = Counter[str]()
    for model, data in drawn:
        with tempfile.TemporaryDirectory() as folder:
            outcomes[ran(data, model, Path(folder))] += 1
    print(dict(outcomes))
    return int(any(each.startswith("wrong") for each in (*found, *outcomes)))


if __name__ == "__main__":
    sys.exit(main())
