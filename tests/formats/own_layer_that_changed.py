"""A layer of a user's own that has been changed since its weights were saved."""

import keras


class Tower(keras.layers.Layer):
    """Has one layer left."""

    def __init__(self, units=4, depth=2, **keywords):
        super().__init__(**keywords)
        self.last = keras.layers.Dense(units)
