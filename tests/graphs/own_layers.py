"""A layer of a user's own, that --custom-objects names."""

from __future__ import annotations

import keras


class Gain(keras.layers.Layer):
    """Multiplies by a weight per feature."""

    def build(self, shape):
        self.gain = self.add_weight(shape=(shape[-1],), initializer="random_normal", name="gain")

    def call(self, x):
        return x * self.gain
