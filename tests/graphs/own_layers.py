"""A layer of a user's own, that --custom-objects names."""

from __future__ import annotations

import keras


class Gain(keras.layers.Layer):
    """Multiplies by a weight per feature."""

    def build(self, shape):
        self.gain = self.add_weight(shape=(shape[-1],), initializer="random_normal", name="gain")

    def call(self, x):
        return x * self.gain


class Tower(keras.layers.Layer):
    """Layers under attributes that are not called as they are: one, one behind another of its class, some in a list."""

    def __init__(self, units=4, depth=2, **keywords):
        super().__init__(**keywords)
        self.units, self.depth = units, depth
        self.last = keras.layers.Dense(units)
        self.first = keras.layers.Dense(units, activation="relu")
        self.blocks = [Gain(name=f"gain_{number}") for number in range(depth)]
        self.norm = keras.layers.BatchNormalization()

    def build(self, shape):
        self.scale = self.add_weight(shape=(1,), initializer="random_normal", name="scale")
        self.first.build(shape)
        inside = (*shape[:-1], self.units)
        for layer in (self.last, *self.blocks, self.norm):
            layer.build(inside)

    def call(self, x):
        x = self.first(x)
        for block in self.blocks:
            x = block(x)
        return self.norm(self.last(x)) * self.scale

    def get_config(self):
        return {**super().get_config(), "units": self.units, "depth": self.depth}
