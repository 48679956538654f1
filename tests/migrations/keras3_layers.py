"""Layers of their author's own in siamese models of Keras 3."""

from __future__ import annotations

from typing import Any

import keras


class SimilarityLayer(keras.layers.Layer):
    def __init__(self, units: int = 128, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.units = units
        self.dense = keras.layers.Dense(units, activation="relu")

    def build(self, shape: Any) -> None:
        self.dense.build(shape)

    def call(self, x: Any) -> Any:
        return self.dense(x)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "units": self.units}


class CosineSimilarity(keras.layers.Layer):
    def call(self, pair: Any) -> Any:
        return keras.losses.cosine_similarity(*pair, axis=1)

    def compute_output_shape(self, shapes: Any) -> Any:
        return shapes[0][:1]
