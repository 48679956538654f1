"""Sources that are made where they are tested: `make(folder)` writes one of each kind below a folder."""

from __future__ import annotations

from pathlib import Path


def make(folder: Path) -> list[Path]:
    return [own_layer(folder), of_tensorflow_1(folder), loops(folder), exported(folder), arithmetic(folder)]


def own_layer(folder: Path) -> Path:
    """A Keras model with a layer that Keras does not have."""
    import keras

    from tests.graphs.own_layers import Gain

    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name="dense"), Gain(name="own")])
    model.save(folder / "own.keras")
    return folder / "own.keras"


def of_tensorflow_1(folder: Path) -> Path:
    """A SavedModel as TensorFlow 1 wrote it: variables in the main graph, a saver, no objects."""
    import tensorflow as tf

    v1 = tf.compat.v1
    with v1.Graph().as_default(), v1.Session() as session:
        x = v1.placeholder(tf.float32, [None, 3], name="x")
        kernel = v1.get_variable("scope/kernel", [3, 2], initializer=v1.random_normal_initializer(seed=3))
        bias = v1.get_variable("scope/bias", [2], initializer=v1.random_normal_initializer(seed=4))
        steps = v1.get_variable("steps", [], initializer=v1.ones_initializer(), trainable=False)
        y = tf.identity(tf.matmul(x, kernel) + bias * steps, name="y")
        session.run(v1.global_variables_initializer())
        v1.saved_model.simple_save(session, str(folder / "tf1"), {"x": x}, {"y": y})
    return folder / "tf1"


def loops(folder: Path) -> Path:
    """Variables read and gathered from in a loop, in the branches of a condition, and in functions of functions."""
    import tensorflow as tf

    class Looping(tf.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = tf.Variable(tf.random.stateless_normal([5, 3], [1, 2]), name="table")
            self.kernel = tf.Variable(tf.random.stateless_normal([3, 3], [3, 4]), name="kernel")
            self.zeros = tf.Variable(tf.zeros([3]), name="zeros")
            self.also_zeros = tf.Variable(tf.zeros([3]), name="also_zeros", trainable=False)

        @tf.function
        def looked_up(self, index):
            return tf.gather(self.table, index)

        @tf.function(input_signature=[tf.TensorSpec([None, 3], tf.float32, name="x")])
        def call(self, x):
            for step in tf.range(3):
                x = tf.tanh(tf.matmul(x, self.kernel)) + self.looked_up(step)
            if tf.reduce_sum(x) > 0:
                x = x + self.zeros + tf.gather(self.table, tf.constant([1]))
            else:
                x = x - self.also_zeros * 2 - self.table[0]
            return {"y": x, "same": x}

    module = Looping()
    tf.saved_model.save(module, str(folder / "loops"), signatures={"only": module.call})
    return folder / "loops"


def exported(folder: Path) -> Path:
    """What Keras 3 exports: a SavedModel of its own making, BatchNormalization in it."""
    import keras

    inputs = keras.Input((6,), name="x")
    hidden = keras.layers.BatchNormalization(name="norm")(keras.layers.Dense(4, name="dense")(inputs))
    keras.Model(inputs, hidden).export(str(folder / "exported"), verbose=False)
    return folder / "exported"


def arithmetic(folder: Path) -> Path:
    """Quotients and remainders of negative integers, comparisons of large numbers, choices of floats and none."""
    import tensorflow as tf

    class Arithmetic(tf.Module):
        def __init__(self):
            super().__init__()
            self.w = tf.Variable([2.0], name="w")

        @tf.function(input_signature=[tf.TensorSpec([None, 1], tf.int64, name="n")])
        def call(self, n):
            numbers = (n + 1) * tf.range(-7, 8, dtype=tf.int64)
            small = tf.cast(numbers, tf.int32)
            x = tf.cast(numbers, tf.float32) * self.w
            return {
                "quotient": tf.cast(numbers // 3, tf.float32),
                "remainder": tf.cast(numbers % -3, tf.float32),
                "small": tf.cast(small // -3 + 10 * (small % 3), tf.float32),
                "of floats": x // 3.0 + x % 3.0,
                "root": tf.where(x >= 0, tf.sqrt(x), -x),
                "inverse": tf.where(x == 0, 0.0, 1 / x),
                "further": tf.cast((1 << 30) + small > (1 << 30), tf.float32),
                "nearer": tf.cast((1 << 30) + numbers < (1 << 30), tf.float32),
                "sorted": tf.cast(tf.sort((1 << 30) + numbers) - (1 << 30), tf.float32),
                "largest": tf.cast(tf.math.top_k(1e9 + tf.cast(numbers, tf.float64), 3).values - 1e9, tf.float32),
                "places": tf.cast(tf.math.top_k((1 << 30) + small, 3).indices, tf.float32),
            }

    module = Arithmetic()
    tf.saved_model.save(module, str(folder / "arithmetic"), signatures={"serving_default": module.call})
    return folder / "arithmetic"
