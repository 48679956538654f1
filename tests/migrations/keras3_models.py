"""The models as they would be written with Keras 3 today: an encoder of Keras's own layers, and heads."""

from __future__ import annotations

from typing import Any

import keras
from keras import layers

from tests.migrations.keras3_layers import CosineSimilarity, SimilarityLayer

OWN = {"SimilarityLayer": SimilarityLayer, "CosineSimilarity": CosineSimilarity}


def _encoder() -> Any:
    ids = layers.Input((None,), dtype="int32", name="ids")
    mask = layers.Input((None,), dtype="int32", name="mask")
    x = layers.Embedding(300, 64, name="embed")(ids)
    rows = layers.Reshape((1, -1), name="mask_row")(mask)
    for number in range(2):
        seen = layers.MultiHeadAttention(8, 8, name=f"attention_{number}")(x, x, attention_mask=rows)
        x = layers.LayerNormalization(epsilon=1e-6, name=f"norm_{number}a")(layers.Add()([x, seen]))
        wide = layers.Dense(128, activation="gelu", name=f"in_{number}")(x)
        narrow = layers.Dense(64, name=f"out_{number}")(wide)
        x = layers.LayerNormalization(epsilon=1e-6, name=f"norm_{number}b")(layers.Add()([x, narrow]))
    return keras.Model([ids, mask], x, name="encoder")


def numbers() -> Any:
    ids = layers.Input((None,), dtype="int32", name="input_ids")
    mask = layers.Input((None,), dtype="int32", name="attention_mask")
    features = layers.Input((10,), name="numerical_features")
    pooled = layers.GlobalAveragePooling1D()(_encoder()([ids, mask]))
    head = layers.Dense(3, activation="softmax", name="head")
    return keras.Model([ids, mask, features], head(layers.Concatenate()([pooled, features])))


def _pairs() -> list[Any]:
    return [layers.Input((None,), dtype="int32", name=name) for name in ("input_a", "input_b", "mask_a", "mask_b")]


def siamese_lambda() -> Any:
    inputs = _pairs()
    encoder, similarity = _encoder(), SimilarityLayer(64)
    states = [encoder([inputs[0], inputs[2]]), encoder([inputs[1], inputs[3]])]
    first = [layers.Lambda(lambda x: x[:, 0], name=f"first_{number}")(state) for number, state in enumerate(states)]
    return keras.Model(inputs, CosineSimilarity(name="cosine")([similarity(state) for state in first]))


def siamese_own() -> Any:
    inputs = _pairs()
    encoder, similarity = _encoder(), SimilarityLayer(64)
    states = [encoder([inputs[0], inputs[2]]), encoder([inputs[1], inputs[3]])]
    return keras.Model(inputs, CosineSimilarity(name="cosine")([similarity(state[:, 0]) for state in states]))
