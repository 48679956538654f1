"""SavedModels with an operator that has no business in a checkpoint, made by TensorFlow.

``python -m tests.graphs.hostile_saved_models FOLDER`` writes one below FOLDER for each kind, and two harmless ones.
"""

from __future__ import annotations

import sys
from pathlib import Path

KINDS = {
    "read-file": "ReadFile",
    "write-file": "WriteFile",
    "print": "PrintV2",
    "python": "EagerPyFunc",
    "in-loop": "WriteFile",
    "in-branch": "ReadFile",
    "table-from-file": "InitializeTableFromTextFileV2",
    "in-unused-function": "WriteFile",
    "at-load": "WriteFile",
    "saver": "SaveV2",
    "table-saver": "SaveV2",
}
UNREACHED = ("in-unused-function", "at-load", "saver", "table-saver")
"""Those that the signature does not reach; TensorFlow's loader runs all but the first."""
REACHED = tuple(kind for kind in KINDS if kind not in UNREACHED)


def make(kind: str, folder: Path) -> None:
    """Write a model y = x * w that does `kind` besides; what it would write is a mark.

    It does nothing more for "harmless", and for "tensorflow-1", which that made.
    """
    import tensorflow as tf

    folder.parent.mkdir(parents=True, exist_ok=True)
    mark = str(folder.parent / "mark")
    if kind in ("saver", "tensorflow-1"):
        of_tensorflow_1(folder)
        if kind == "saver":
            let_saver_save(folder, mark)
        return
    root = tf.Module()
    root.w = tf.Variable([1.0, 2.0, 3.0], name="w")

    def effect(x):
        if kind == "read-file":
            x = x + tf.strings.to_number(tf.strings.substr(tf.io.read_file("/proc/uptime"), 0, 1))
        elif kind == "write-file":
            tf.io.write_file(mark, "written")
        elif kind == "print":
            tf.print("printed", output_stream=f"file://{mark}")
        elif kind == "python":
            x = tf.py_function(lambda value: value, [x], tf.float32)
        elif kind == "in-loop":
            for _ in tf.range(2):
                tf.io.write_file(mark, "written")
        elif kind == "in-branch":
            if tf.reduce_sum(x) > 1e9:
                x = x + tf.cast(tf.strings.length(tf.io.read_file(mark)), tf.float32)
        elif kind == "table-from-file":
            x = x + tf.cast(root.table.lookup(tf.constant(["a"])), tf.float32)
        return x

    if kind == "table-from-file":
        Path(mark).write_text("a\t1\n")
        source = tf.lookup.TextFileInitializer(mark, tf.string, 0, tf.int64, 1)
        root.table = tf.lookup.StaticHashTable(source, -1)
    if kind == "table-saver":
        root.table = tf.lookup.experimental.MutableHashTable(tf.int64, tf.int64, -1)
    if kind == "at-load":
        root.resource = resource_written_at_load(mark)

    @tf.function(input_signature=[tf.TensorSpec([None, 3], tf.float32, name="x")])
    def call(x):
        return {"y": effect(x * root.w)}

    if kind == "in-unused-function":

        @tf.function(input_signature=[])
        def unused():
            tf.io.write_file(mark, "written")

        root.unused = unused
    tf.saved_model.save(root, str(folder), signatures={"serving_default": call})
    if kind == "table-saver":
        let_table_save(folder, mark)
    for left in folder.parent.glob("mark*"):
        left.unlink()


def resource_written_at_load(mark: str):
    """A resource whose initialiser writes a file: what `tf.saved_model.load` runs unasked."""
    import tensorflow as tf
    from tensorflow.python.trackable.resource import CapturableResource

    class Writing(CapturableResource):
        def _create_resource(self):
            return tf.raw_ops.HashTableV2(key_dtype=tf.string, value_dtype=tf.int64, shared_name="table")

        def _initialize(self):
            tf.io.write_file(mark, "written")

    return Writing()


def of_tensorflow_1(folder: Path) -> None:
    """Write y = x * w as TensorFlow 1 saved it."""
    import tensorflow as tf

    v1 = tf.compat.v1
    with v1.Graph().as_default(), v1.Session() as session:
        x = v1.placeholder(tf.float32, [None, 3], name="x")
        w = v1.get_variable("w", initializer=[1.0, 2.0, 3.0], use_resource=True)
        y = tf.multiply(x, w, name="y")
        session.run(v1.global_variables_initializer())
        v1.saved_model.simple_save(session, str(folder), {"x": x}, {"y": y})


def let_saver_save(folder: Path, mark: str) -> None:
    """Let what restores the variables wait for what writes a checkpoint."""
    saved = read(folder)
    graph = saved.meta_graphs[0].graph_def
    add_save(graph.node, mark, "{}:0".format)
    restoring = next(node for node in graph.node if node.name == saved.meta_graphs[0].saver_def.restore_op_name)
    restoring.input.append("^written")
    (folder / "saved_model.pb").write_bytes(saved.SerializeToString())


def let_table_save(folder: Path, mark: str) -> None:
    """Let the function that restores a table write a checkpoint, and an annotation of the saver name that function."""
    saved = read(folder)
    meta_graph = saved.meta_graphs[0]
    objects = meta_graph.object_graph_def
    table = next(each for each in objects.nodes if each.saveable_objects)
    restoring = next(iter(table.saveable_objects.values())).restore_function
    name = objects.nodes[restoring].bare_concrete_function.concrete_function_name
    function = next(each for each in meta_graph.graph_def.library.function if each.signature.name == name)
    add_save(function.node_def, mark, "{}:output:0".format)
    function.signature.control_output.append("written")
    function.control_ret["written"] = "written"
    saver = meta_graph.saver_def.restore_op_name
    node = next(each for each in meta_graph.graph_def.node if each.name == saver)
    node.attr["_attr"].func.name = name
    (folder / "saved_model.pb").write_bytes(saved.SerializeToString())


def read(folder: Path):
    from tensorflow.core.protobuf import saved_model_pb2

    return saved_model_pb2.SavedModel.FromString((folder / "saved_model.pb").read_bytes())


def add_save(nodes, mark: str, reference) -> None:
    """Add the node "written", which writes a checkpoint at `mark`, and constants for it."""
    import tensorflow as tf

    for name, value in {"prefix": mark, "names": ["t"], "slices": [""], "value": "written by the graph"}.items():
        node = nodes.add(name=f"planted_{name}", op="Const")
        tensor = tf.make_tensor_proto(value)
        node.attr["dtype"].type = tensor.dtype
        node.attr["value"].tensor.CopyFrom(tensor)
    inputs = [reference(f"planted_{name}") for name in ("prefix", "names", "slices", "value")]
    node = nodes.add(name="written", op="SaveV2", input=inputs)
    node.attr["dtypes"].list.type.append(tf.string.as_datatype_enum)


if __name__ == "__main__":
    for each in ("harmless", "tensorflow-1", *KINDS):
        make(each, Path(sys.argv[1]) / each / "model")
