"""SavedModels that look integers up in tables, made by TensorFlow and Keras 3: `SOURCES` has one of each kind."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

v1 = tf.compat.v1
INT64, INT32, FLOAT, DOUBLE = tf.int64, tf.int32, tf.float32, tf.float64
LIMITS = np.iinfo(np.int64)
MANY = np.unique([LIMITS.min, LIMITS.max, -1, 0, *np.random.default_rng(4).integers(-(1 << 60), 1 << 60, 1000)])


def static(keys: Any, values: Any, default: Any) -> Any:
    return tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer(keys, values), default)


def mutable(keys: Any, values: Any, default: Any) -> Any:
    table = tf.lookup.experimental.MutableHashTable(keys.dtype, values.dtype, default)
    if len(keys):
        table.insert(keys, values)
    return table


def dense(keys: Any, values: Any, default: Any) -> Any:
    table = tf.lookup.experimental.DenseHashTable(
        keys.dtype, values.dtype, default_value=default, empty_key=-1, deleted_key=-2, initial_num_buckets=16
    )
    table.insert(tf.concat([keys, [77]], 0), tf.concat([values, values[:1]], 0))
    table.remove(tf.constant([77], keys.dtype))
    return table


def ids(*numbers: int, dtype: Any = INT64) -> Any:
    return tf.constant(numbers, dtype)


def saved(
    folder: Path,
    tables: list[Any],
    look_up: Callable[..., Any],
    *,
    dtype: Any = INT64,
    shape: Any = (None,),
) -> None:
    """Save a module that returns what `look_up` makes of its input `key`, the tables, and w = 2."""
    root = tf.Module()
    root.tables, root.w = tables, tf.Variable(2.0, name="w")

    def call(key: Any) -> Any:
        found = look_up(key, *tables)
        return {**(found if isinstance(found, dict) else {"found": found}), "two": root.w * tf.ones_like(key, FLOAT)}

    function = tf.function(call, input_signature=[tf.TensorSpec(shape, dtype, name="key")])
    tf.saved_model.save(root, str(folder), signatures={"serving_default": function})


def called(folder: Path, table: Any) -> None:
    """Save a module without a signature, which looks its argument up when it is called."""

    class Called(tf.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.table, self.w = table, tf.Variable(2.0, name="w")

        @tf.function(input_signature=[tf.TensorSpec([None], INT64, name="key")])  # type: ignore[untyped-decorator]
        def __call__(self, key: Any) -> Any:
            return {"found": self.table.lookup(key), "two": self.w * tf.ones_like(key, FLOAT)}

    tf.saved_model.save(Called(), str(folder), signatures={})


def saved_again(folder: Path, kind: str) -> None:
    """Save what TensorFlow's loader makes of another source: its tables are made and filled by calls of calls."""
    before = folder.with_name("before")
    SOURCES[kind](before)
    loaded = tf.saved_model.load(str(before))
    tf.saved_model.save(loaded, str(folder), signatures=loaded.signatures)


def of_keras(folder: Path, *, through: str = "export", adapted: Any = None, **options: Any) -> None:
    import keras

    entered = keras.Input((3,), dtype="int64", name="key")
    layer = keras.layers.IntegerLookup(**options)
    if adapted is not None:
        layer.adapt(adapted)
    here = layer(entered)
    if options.get("output_mode", "int") == "int":
        here = keras.layers.Flatten()(keras.layers.Embedding(12, 4)(here))
    else:
        here = keras.ops.cast(here, "float32")
    model = keras.Model(entered, keras.layers.Dense(2)(here))
    if through == "export":
        model.export(folder, verbose=False)
    else:
        tf.saved_model.save(model, str(folder))


def of_tensorflow_1(folder: Path, make: Callable[[Any], tuple[Any, Any]], *, is_first: bool) -> None:
    """Save what `make` returns of a placeholder: the values found, and what fills tables, first or before saving."""
    with v1.Graph().as_default(), v1.Session() as session:
        key = v1.placeholder(INT64, [None], name="key")
        found, filling = make(key)
        w = v1.get_variable("w", initializer=2.0, use_resource=False)
        outputs = {"found": found, "two": w * tf.ones_like(key, FLOAT)}
        session.run(v1.global_variables_initializer())
        if not is_first:
            session.run(filling)
        builder = v1.saved_model.builder.SavedModelBuilder(str(folder))
        signature = v1.saved_model.predict_signature_def({"key": key}, outputs)
        builder.add_meta_graph_and_variables(
            session, ["serve"], signature_def_map={"serving_default": signature}, main_op=filling if is_first else None
        )
        builder.save()


def _static_of_1(key: Any) -> tuple[Any, Any]:
    with tf.name_scope("scope"):
        table = v1.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer([3, 5], [1.0, 2.0], INT64, FLOAT), -1.0)
    return table.lookup(key), v1.tables_initializer()


def _mutable_of_1(key: Any) -> tuple[Any, Any]:
    with tf.name_scope("scope"):
        tables = [tf.lookup.experimental.MutableHashTable(INT64, FLOAT, -1.0, name=name) for name in ("a", "b")]
    filling = [table.insert(ids(3, 5 + place), [1.0 + place, 2.0]) for place, table in enumerate(tables)]
    return tables[0].lookup(key) + 10 * tables[1].lookup(key), tf.group(*filling)


def _of_references(key: Any) -> tuple[Any, Any]:
    """Operators of before 2016, whose handles are references."""
    table = tf.raw_ops.HashTable(key_dtype=INT64, value_dtype=FLOAT)
    filling = tf.raw_ops.InitializeTable(table_handle=table, keys=ids(3, 5), values=[1.0, 2.0])
    return tf.raw_ops.LookupTableFind(table_handle=table, keys=key, default_value=-1.0), filling


def _in_loop(key: Any, table: Any) -> Any:
    for _ in tf.range(3):
        key = table.lookup(key)
    return key


def _in_branch(key: Any, first: Any, second: Any) -> Any:
    return tf.cond(tf.reduce_sum(key) > 10, lambda: first.lookup(key), lambda: second.lookup(key + 1))


def _all(key: Any, *tables: Any) -> Any:
    return {f"found_{place}": table.lookup(key) for place, table in enumerate(tables)}


SOURCES: dict[str, Callable[[Path], None]] = {
    "static": lambda folder: saved(
        folder,
        [static(ids(3, 5, 9), tf.constant([1.5, 2.5, -1.0]), -7.0)],
        lambda key, table: {"found": table.lookup(key), "size": tf.reshape(table.size(), [1]) + tf.size(key, INT64)},
    ),
    "types": lambda folder: saved(
        folder,
        [
            static(ids(3, 5, dtype=INT32), ids(7, 8, dtype=INT32), -1),
            static(ids(3, -6, 8, dtype=INT32), tf.constant([0.25, -0.0, np.inf], DOUBLE), -np.inf),
            dense(ids(3, 5, dtype=INT32), tf.constant([[1.0, 2.0], [3.0, 4.0]]), [0.0, -1.0]),
        ],
        _all,
        dtype=INT32,
    ),
    "truth": lambda folder: saved(
        folder, [dense(ids(3, 5), tf.constant([True, False]), default) for default in (False, True)], _all
    ),
    "mutable": lambda folder: saved(folder, [mutable(ids(3, 5, -4), ids(10, 11, 12), -1)], _all, shape=(None, 2, None)),
    "rows": lambda folder: saved(
        folder, [mutable(ids(3, 5), tf.constant([[1.0, 2.0], [3.0, 4.0]]), [0.0, -1.0])], _all, shape=(None, None)
    ),
    "dense": lambda folder: saved(folder, [dense(ids(3, 5, 1 << 40), ids(10, 11, 12), -1)], _all),
    "many": lambda folder: saved(
        folder, [static(MANY, MANY[::-1].copy(), -5), mutable(ids(*MANY), MANY / 2, 0.5)], _all
    ),
    "none": lambda folder: saved(
        folder, [mutable(ids(), ids(), -1), static(ids(4), ids(1), 0), mutable(ids(), np.zeros(0, "f4"), 0.5)], _all
    ),
    "one number": lambda folder: saved(folder, [static(ids(0, 1), ids(5, 6), -1)], _all, shape=()),
    "one after the other": lambda folder: saved(
        folder,
        [static(ids(3, 5, 7), ids(4, 6, 8), -1), mutable(ids(4, 6), tf.constant([0.5, 1.5]), -0.5)],
        lambda key, first, second: second.lookup(first.lookup(key)),
    ),
    "default of each": lambda folder: saved(
        folder, [mutable(ids(3, 5), ids(10, 11), -1)], lambda key, table: table.lookup(key, key * 2)
    ),
    "twice the same": lambda folder: saved(folder, [static(ids(3, 5, 3), ids(10, 11, 10), -1)], _all),
    "in a loop": lambda folder: saved(folder, [static(ids(3, 5, 9), ids(5, 9, 3), 4)], _in_loop),
    "in a branch": lambda folder: saved(
        folder, [static(ids(3, 50), ids(5, 9), -1), static(ids(4, 9), ids(1, 2), -2)], _in_branch
    ),
    "called": lambda folder: called(folder, static(ids(3, 5), ids(10, 11), -1)),
    "called mutable": lambda folder: called(folder, mutable(ids(3, 5), ids(10, 11), -1)),
    "called dense": lambda folder: called(folder, dense(ids(3, 5), ids(10, 11), -1)),
    "saved again": lambda folder: saved_again(folder, "static"),
    "mutable saved again": lambda folder: saved_again(folder, "mutable"),
    "dense saved again": lambda folder: saved_again(folder, "dense"),
    "keras saved again": lambda folder: saved_again(folder, "keras"),
    "tensorflow-1": lambda folder: of_tensorflow_1(folder, _static_of_1, is_first=True),
    "tensorflow-1 mutable": lambda folder: of_tensorflow_1(folder, _mutable_of_1, is_first=False),
    "tensorflow-1 references": lambda folder: of_tensorflow_1(folder, _of_references, is_first=True),
    "keras": lambda folder: of_keras(folder, vocabulary=[10, 12, -7, 52], mask_token=0),
    "keras saved": lambda folder: of_keras(folder, through="save", vocabulary=[10, 12, -7, 52]),
    "keras adapted": lambda folder: of_keras(folder, adapted=np.array([5, 5, 5, -3, -3, 100]), num_oov_indices=2),
    "keras without others": lambda folder: of_keras(folder, vocabulary=[10, 12, -7, 52], num_oov_indices=0),
    "keras inverse": lambda folder: of_keras(folder, vocabulary=[1, 2, 7], invert=True, oov_token=9),
    "keras multi-hot": lambda folder: of_keras(folder, vocabulary=[10, 12, -7, 52], output_mode="multi_hot"),
}
