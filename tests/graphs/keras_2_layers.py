"""Layers of a user's own as code for Keras 2 has them: `add_weight` takes a name first, `build` a TensorShape."""

from __future__ import annotations

import tensorflow as tf


class Gain(tf.keras.layers.Layer):
    def build(self, input_shape):
        self.gain = self.add_weight("gain", shape=(int(input_shape[-1]),), initializer="ones")
        self.shift = self.add_weight("shift", (int(input_shape[-1]),), tf.float32, "zeros")
        super().build(input_shape)

    def call(self, x):
        return x * self.gain + self.shift


class Widened(tf.keras.layers.Layer):
    """A layer inside, and a weight that is not trained."""

    def __init__(self, units=5, **keywords):
        super().__init__(**keywords)
        self.units = units
        self._inner = tf.keras.layers.Dense(units, name="inner")

    def build(self, input_shape):
        width = input_shape.as_list()[-1]
        self.kernel = self.add_weight("kernel", shape=(width, self.units), initializer="glorot_uniform")
        self.factor = self.add_weight(name="factor", shape=(), trainable=False, initializer="ones")
        super().build(input_shape)

    def call(self, x):
        return tf.matmul(x, self.kernel) * self.factor + self._inner(x)

    def get_config(self):
        return {**super().get_config(), "units": self.units}
