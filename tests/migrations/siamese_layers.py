"""The layer of its author's own in a siamese model of tf_keras."""

from __future__ import annotations

from typing import Any

import tensorflow as tf


class SimilarityLayer(tf.keras.layers.Layer):
    def __init__(self, units: int = 8, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.units = units
        self.dense = tf.keras.layers.Dense(units, activation="relu")

    def call(self, x: Any) -> Any:
        return self.dense(x)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "units": self.units}
