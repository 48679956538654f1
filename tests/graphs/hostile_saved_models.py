"""SavedModels with an operator that has no business in a checkpoint, made by TensorFlow.

``python -m tests.graphs.hostile_saved_models FOLDER`` writes one below FOLDER for each kind, and a harmless one.
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
    "in-unused-function": "WriteFile",
    "at-load": "WriteFile",
    "table-from-file": "InitializeTableFromTextFileV2",
}


def make(kind: str, folder: Path) -> None:
    """Write a model y = x * w that does `kind` besides, or nothing for "harmless"; what it would write is a mark."""
    import tensorflow as tf

    folder.parent.mkdir(parents=True, exist_ok=True)
    mark = str(folder.parent / "mark")
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
    Path(mark).unlink(missing_ok=True)


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


if __name__ == "__main__":
    for each in ("harmless", *KINDS):
        make(each, Path(sys.argv[1]) / each / "model")
