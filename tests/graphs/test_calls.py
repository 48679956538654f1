"""What child processes are called for: each declaration is of a function that there is, and callers are held to it."""

from __future__ import annotations

import ast
import inspect
import json
import subprocess
import sys
from typing import Any

import pytest

from converter import formats
from converter.graphs import calls
from converter.model.child_function import ChildFunction

DECLARED: dict[str, ChildFunction[..., Any]] = {
    name: each for name, each in vars(calls).items() if isinstance(each, ChildFunction)
}
SIGNATURES = """
import importlib, inspect, json, sys
found = {}
for name, (module, function) in json.loads(sys.argv[1]).items():
    parameters = inspect.signature(getattr(importlib.import_module(module), function)).parameters.values()
    found[name] = [(each.name, each.kind.name, each.default is each.empty) for each in parameters]
print(json.dumps(found))
"""


def behind(declared: ChildFunction[..., Any]) -> tuple[str, str]:
    """Return the module and the name of the function that a declaration hands its arguments to."""
    *_, imported, last = ast.parse(inspect.getsource(declared.function)).body[0].body  # type: ignore[attr-defined]
    called = last.value.func
    (alias,) = imported.names
    assert called.value.id == (alias.asname or alias.name)
    return f"{imported.module}.{alias.name}", called.attr


def is_of_tensorflow(module: str) -> bool:
    return "tensorflow" in module or module.rpartition(".")[2] in ("keras", "saved_model", "foreign_saved_model")


@pytest.mark.parametrize("framework", ["torch", "tensorflow"])
def test_the_functions_behind_take_what_their_callers_give(framework: str) -> None:
    pytest.importorskip(framework)
    places = {name: behind(each) for name, each in DECLARED.items()}
    wanted = {
        name: place for name, place in places.items() if is_of_tensorflow(place[0]) == (framework == "tensorflow")
    }
    assert len(wanted) > 5
    command = [sys.executable, "-c", SIGNATURES, json.dumps(wanted)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    for name, found in json.loads(done.stdout.splitlines()[-1]).items():
        taken = {parameter: (kind, is_needed) for parameter, kind, is_needed in found}
        for parameter in inspect.signature(DECLARED[name].function).parameters.values():
            assert taken.pop(parameter.name)[0] == parameter.kind.name == "KEYWORD_ONLY", (name, parameter)
        assert not [parameter for parameter, (_, is_needed) in taken.items() if is_needed], name


def test_a_call_is_checked_before_a_process_is_started() -> None:
    call = calls.check_onnx.call(model="x.onnx")
    assert (call.address, call.arguments) == ("converter.graphs.calls:check_onnx", {"model": "x.onnx"})
    given = calls.trace_onnx.with_arguments(names={"a": "b"})
    assert given.call(model="x", graph="y").arguments == {"model": "x", "graph": "y", "names": {"a": "b"}}
    with pytest.raises(TypeError, match="graph"):
        given.call(model="x")
    with pytest.raises(TypeError, match="name"):
        given.with_arguments(name={})
    with pytest.raises(TypeError, match="file"):
        given.call(model="x", graph="y", file="z")


def test_a_given_keyword_may_be_given_anew() -> None:
    assert calls.run_onnx.with_arguments(nudge=None).with_arguments(nudge="float16").arguments == {"nudge": "float16"}
    assert calls.run_onnx.arguments == {}


def test_runners_are_called_alike() -> None:
    runners = {name: each for name, each in DECLARED.items() if name.startswith("run_")}
    of_targets = [
        each for known in formats.registry().values() for each in (known.runner, known.foreign_runner) if each
    ]
    assert {each.address.partition(":")[2] for each in of_targets} < runners.keys()
    for runner in (*runners.values(), *of_targets):
        assert all(map(runner.takes, ("model", "inputs", "outputs")))
        assert runner.takes("nudge") or runner.takes("canary")
    assert all(runner.takes("canary") and runner.takes("since") for runner in of_targets)
