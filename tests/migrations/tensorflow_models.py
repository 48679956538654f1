"""The models of the second environment: transformers' TensorFlow classes, and Keras models around them."""

from __future__ import annotations

from typing import Any

import tensorflow as tf
import transformers

from tests.migrations.siamese_layers import SimilarityLayer
from tests.migrations.texts import BERT, LENGTH, XLM_ROBERTA

layers = tf.keras.layers
OWN = {
    "TFBertModel": transformers.TFBertModel,
    "TFXLMRobertaModel": transformers.TFXLMRobertaModel,
    "TFXLMRobertaForSequenceClassification": transformers.TFXLMRobertaForSequenceClassification,
    "SimilarityLayer": SimilarityLayer,
}


def xlm_roberta() -> Any:
    config = transformers.XLMRobertaConfig(**XLM_ROBERTA, num_labels=2)
    return transformers.TFXLMRobertaForSequenceClassification(config)


def squad() -> Any:
    return transformers.TFBertForQuestionAnswering(transformers.BertConfig(**BERT))


def _texts(length: int | None) -> list[Any]:
    return [layers.Input((length,), dtype=tf.int32, name=name) for name in ("input_ids", "attention_mask")]


def classifier(*, with_numbers: bool = False, of_head: str | None = None) -> tuple[Any, Any]:
    """A functional model around a BERT, and the BERT."""
    bert = transformers.TFBertModel(transformers.BertConfig(**BERT, num_labels=2))
    inputs = _texts(LENGTH)
    state = bert(inputs)[0][:, 0, :]
    if with_numbers:
        inputs.append(layers.Input((10,), dtype=tf.float32, name="numerical_features"))
        state = layers.concatenate([state, inputs[-1]])
    return tf.keras.Model(inputs=inputs, outputs=layers.Dense(2, activation="softmax", dtype=of_head)(state)), bert


def numbers() -> tuple[Any, Any]:
    return classifier(with_numbers=True)


def mixed() -> tuple[Any, Any]:
    """The same under a policy that computes in float16, but for a head that gives float32."""
    tf.keras.mixed_precision.set_global_policy("mixed_float16")
    try:
        return classifier(with_numbers=True, of_head="float32")
    finally:
        tf.keras.mixed_precision.set_global_policy("float32")


def _around_xlm_roberta(*, is_pooled: bool, units: int) -> tuple[Any, Any]:
    encoder = transformers.TFXLMRobertaModel(transformers.XLMRobertaConfig(**XLM_ROBERTA))
    ids, mask = _texts(None)
    states = encoder(ids, attention_mask=mask)[0]
    state = layers.GlobalAveragePooling1D()(states) if is_pooled else states[:, 0, :]
    outputs = layers.Dense(units, activation="sigmoid" if units == 1 else "softmax")(state)
    return tf.keras.Model(inputs=[ids, mask], outputs=outputs), encoder


def sigmoid() -> tuple[Any, Any]:
    return _around_xlm_roberta(is_pooled=False, units=1)


def softmax() -> tuple[Any, Any]:
    return _around_xlm_roberta(is_pooled=False, units=3)


def pooling() -> tuple[Any, Any]:
    return _around_xlm_roberta(is_pooled=True, units=3)


def siamese(*, has_own_layer: bool = True) -> tuple[Any, Any]:
    encoder = transformers.TFBertModel(transformers.BertConfig(**BERT))
    inputs = [layers.Input((None,), dtype=tf.int32, name=name) for name in ("input_a", "input_b", "mask_a", "mask_b")]
    a = encoder(inputs[0], attention_mask=inputs[2]).last_hidden_state[:, 0, :]
    b = encoder(inputs[1], attention_mask=inputs[3]).last_hidden_state[:, 0, :]
    if has_own_layer:
        similarity = SimilarityLayer(units=64)
        a, b = similarity(a), similarity(b)
    cosine = layers.Lambda(lambda x: tf.keras.losses.cosine_similarity(x[0], x[1], axis=1), name="cosine_similarity")
    return tf.keras.Model(inputs=inputs, outputs=cosine([a, b])), encoder


def siamese_plain() -> tuple[Any, Any]:
    return siamese(has_own_layer=False)
