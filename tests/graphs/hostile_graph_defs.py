"""Operators that do more than compute, and the ways a graph leads to one: a table, planted into harmless SavedModels.

`plant` puts a case into a MetaGraphDef either where the signature reaches it, or where only a saver, an initialiser,
another signature and nothing at all do.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """An operator, the way to it (a function of this module), and what it would do."""

    operator: str
    way: str
    why: str


def _case(line: str) -> Case:
    operator, way, why = line.split(maxsplit=2)
    return Case(operator=operator, way=way, why=why)


CASES = tuple(
    map(
        _case,
        """
ReadFile data reads any file of the machine into the outputs
WriteFile control writes any bytes to any path
Save control writes a checkpoint of any bytes to any path
SaveV2 then_branch writes a checkpoint to any path when a condition is met
SaveSlices body writes a checkpoint in every step of a loop
MergeV2Checkpoints branches renames and deletes files
Restore data reads any checkpoint of the machine
RestoreV2 call reads any checkpoint of the machine
RestoreSlice else_branch reads a part of any checkpoint
ShardedFilename stateful_call is of a saver, and names files
PyFunc call calls Python
PyFuncStateless nested_attribute calls Python
EagerPyFunc cond calls Python
Print data writes to the standard error
PrintV2 control_in_function writes to any path: output_stream "file://..."
DebugIdentity data sends its input to a file or a server: debug_urls
DebugIdentityV2 call writes dumps below any folder
DebugNumericSummary three_deep sends a summary to a file or a server
WriteSummary branches writes event files
CreateSummaryFileWriter control makes folders and event files
CreateSummaryDbWriter body opens a database
ImportEvent else_branch writes what it is given to an event file
WholeFileReaderV2 data reads files whose names come from a queue
TFRecordReaderV2 operator_name reads files whose names come from a queue
TextLineDataset call reads files
TFRecordDatasetV2 then_branch reads files
SnapshotDatasetV2 three_deep writes files
DatasetToTFRecord control writes a file
IteratorFromStringHandle data takes a handle that its caller forges
OneShotIterator listed_in_nested runs a dataset of its own
GeneratorDataset stateful_call calls functions behind the graph's back
DataServiceDatasetV4 body talks to a server
ImmutableConst data maps any file into memory
InitializeTableFromTextFileV2 call reads any file into a table
DecodeProtoV2 data reads descriptors of any file
GenerateVocabRemapping for_body reads any file
LoadAndRemapMatrix cond reads any checkpoint
MatchingFiles data lists any folder
FileSystemSetConfiguration control changes how files are opened in this process
RemoteCall annotation runs a function on another machine
BatchFunction gradient runs a function in threads of its own
SymbolicGradient control runs the gradient of any function
XlaLaunch operator_name compiles and runs machine code
TRTEngineOp input runs a serialised program of another kind
TPUPartitionedCall default_attribute talks to devices
_Send control talks to other processes
CollectiveReduceV2 data talks to other machines
Abort control_in_function kills the process
NoSuchOperator data is of a library that would have to be loaded
Addons>Hidden body is of a library that would have to be loaded
""".strip().splitlines(),
    )
)


def plant(meta_graph: Any, case: Case, *, is_reached: bool) -> None:
    """Add the case to a MetaGraphDef whose signature is `serving_default`."""
    graph = meta_graph.graph_def
    signature = meta_graph.signature_def["serving_default"]
    nodes = {node.name: node for node in graph.node}
    if case.way == "input":
        entry = _node(graph.node, f"{case.operator}_of_input", case.operator)
        info = signature.inputs["planted"] if is_reached else meta_graph.signature_def["other"].inputs["planted"]
        info.name, info.dtype = f"{entry}:0", 1
        return
    entry = WAYS[case.way](graph, case.operator)
    if is_reached:
        output = next(iter(signature.outputs.values())).name.partition(":")[0]
        nodes[output].input.append(f"^{entry}")
        return
    if meta_graph.saver_def.restore_op_name:
        nodes[meta_graph.saver_def.restore_op_name].input.append(f"^{entry}")
    _node(graph.node, f"{entry}_first", "NoOp", f"^{entry}")
    meta_graph.collection_def["saved_model_main_op"].node_list.value.append(f"{entry}_first")
    other = meta_graph.signature_def["other"].outputs[entry]
    other.name, other.dtype = f"{entry}:0", 1


def _node(nodes: Any, name: str, operator: str, *inputs: str, **functions: str | list[str]) -> str:
    """Add a node whose attributes name `functions`; return its name."""
    node = nodes.add(name=name.replace(">", "_"), op=operator, input=inputs)
    for key, called in functions.items():
        if isinstance(called, str):
            node.attr[key].func.name = called
        else:
            node.attr[key].list.func.extend([type(node.attr[key].func)(name=each) for each in called])
    return str(node.name)


def _function(graph: Any, name: str, operator: str) -> str:
    """Add a function with one node; return its name."""
    function = graph.library.function.add()
    function.signature.name = f"__planted_{name.replace('>', '_')}"
    _node(function.node_def, "inner", operator)
    return str(function.signature.name)


def _plain(graph: Any) -> str:
    return _function(graph, f"harmless_{len(graph.library.function)}", "NoOp")


def _data(graph: Any, operator: str) -> str:
    planted = _node(graph.node, f"planted_{operator}", operator)
    return _node(graph.node, f"planted_{operator}_taken", "Identity", f"{planted}:0")


def _control(graph: Any, operator: str) -> str:
    planted = _node(graph.node, f"planted_{operator}", operator)
    return _node(graph.node, f"planted_{operator}_waited_for", "NoOp", f"^{planted}")


def _by_attribute(caller: str, key: str, **others: str) -> Callable[[Any, str], str]:
    def way(graph: Any, operator: str) -> str:
        called = _function(graph, operator, operator)
        rest = {name: _plain(graph) for name in others}
        return _node(graph.node, f"planted_{operator}", caller, **{**rest, key: called})

    return way


def _branches(graph: Any, operator: str) -> str:
    called = _function(graph, operator, operator)
    return _node(graph.node, f"planted_{operator}", "Case", branches=[_plain(graph), called, _plain(graph)])


def _operator_name(graph: Any, operator: str) -> str:
    return _node(graph.node, f"planted_{operator}", _function(graph, operator, operator))


def _nested_attribute(graph: Any, operator: str) -> str:
    called = _function(graph, operator, operator)
    name = _node(graph.node, f"planted_{operator}", "PartitionedCall", f=_plain(graph))
    graph.node[-1].attr["f"].func.attr["handed_on"].func.name = called
    return name


def _listed_in_nested(graph: Any, operator: str) -> str:
    called = _function(graph, operator, operator)
    name = _node(graph.node, f"planted_{operator}", "PartitionedCall", f=_plain(graph))
    graph.node[-1].attr["f"].func.attr["handed_on"].list.func.add().name = _plain(graph)
    graph.node[-1].attr["f"].func.attr["handed_on"].list.func[0].attr["again"].func.name = called
    return name


def _three_deep(graph: Any, operator: str) -> str:
    called = _function(graph, operator, operator)
    for level in range(2):
        function = graph.library.function.add()
        function.signature.name = f"__planted_{operator}_{level}"
        _node(function.node_def, "deeper", "PartitionedCall", f=called)
        called = function.signature.name
    return _node(graph.node, f"planted_{operator}", "If", then_branch=_plain(graph), else_branch=called)


def _control_in_function(graph: Any, operator: str) -> str:
    called = _function(graph, operator, operator)
    function = graph.library.function[-1]
    _node(function.node_def, "kept", "NoOp", "^inner")
    function.signature.control_output.append("kept")
    function.control_ret["kept"] = "kept"
    return _node(graph.node, f"planted_{operator}", "StatefulPartitionedCall", f=called)


def _annotation(graph: Any, operator: str) -> str:
    called = _function(graph, operator, operator)
    return _node(graph.node, f"planted_{operator}", "NoOp", _planted=called)


def _gradient(graph: Any, operator: str) -> str:
    owner = _plain(graph)
    graph.library.gradient.add(function_name=owner, gradient_func=_function(graph, operator, operator))
    return _node(graph.node, f"planted_{operator}", "PartitionedCall", f=owner)


def _default_attribute(graph: Any, operator: str) -> str:
    called = _function(graph, operator, operator)
    function = graph.library.function.add()
    function.signature.name = f"__planted_{operator}_of_its_caller"
    attribute = function.signature.attr.add(name="F", type="func")
    attribute.default_value.func.name = called
    _node(function.node_def, "calls", "PartitionedCall")
    function.node_def[-1].attr["f"].placeholder = "F"
    return _node(graph.node, f"planted_{operator}", function.signature.name)


WAYS: dict[str, Callable[[Any, str], str]] = {
    "data": _data,
    "control": _control,
    "call": _by_attribute("PartitionedCall", "f"),
    "stateful_call": _by_attribute("StatefulPartitionedCall", "f"),
    "then_branch": _by_attribute("If", "then_branch", else_branch=""),
    "else_branch": _by_attribute("StatelessIf", "else_branch", then_branch=""),
    "body": _by_attribute("While", "body", cond=""),
    "cond": _by_attribute("StatelessWhile", "cond", body=""),
    "for_body": _by_attribute("For", "body"),
    "branches": _branches,
    "operator_name": _operator_name,
    "nested_attribute": _nested_attribute,
    "listed_in_nested": _listed_in_nested,
    "three_deep": _three_deep,
    "control_in_function": _control_in_function,
    "annotation": _annotation,
    "gradient": _gradient,
    "default_attribute": _default_attribute,
}
