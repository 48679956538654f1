"""Sources of transformers 4.57.6 and tf_keras. `python -m tests.migrations.make_tensorflow FOLDER GROUP...`"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
import transformers

from tests.migrations import tensorflow_models
from tests.migrations.saving import GoOn, Save, make, save
from tests.migrations.steps import goes_on_in_tensorflow
from tests.migrations.texts import CONTEXTS, LENGTH, QUESTION, TEXTS, sentencepiece, wordpiece

keras = tf.keras
_FROM_LOGITS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def _xlm_roberta_tokenizer(folder: Path) -> Any:
    return transformers.XLMRobertaTokenizer(str(sentencepiece(folder / "tokenizers" / "xlm_roberta")))


def _bert_tokenizer(folder: Path) -> Any:
    return transformers.BertTokenizer(str(wordpiece(folder / "tokenizers" / "bert")))


def _with_config(write: Save, config: Any, tokenizer: Any) -> Save:
    def both(folder: Path) -> None:
        write(folder)
        config.save_pretrained(folder / "hf_config")
        tokenizer.save_pretrained(folder / "tokenizer")

    return both


def _go_on(model: Any, inputs: dict[str, Any], names: tuple[str, ...] = ()) -> GoOn:
    def compute() -> dict[str, Any]:
        found = model(inputs, training=False)
        return {name: found[name] for name in names} if names else {model.output_names[0]: found}

    return lambda: goes_on_in_tensorflow(model, compute)


def xlm_roberta(folder: Path) -> None:
    tokenizer = _xlm_roberta_tokenizer(folder)
    model = tensorflow_models.xlm_roberta()
    inputs = dict(tokenizer(TEXTS, padding=True, return_tensors="tf"))
    model.compile(optimizer=keras.optimizers.Adam(1e-3), loss=_FROM_LOGITS)
    model.fit(inputs, np.array([1, 0, 1, 0]), epochs=6, batch_size=2, verbose=0)
    saves: dict[str, Save] = {
        "xlmr_weights": lambda to: model.save_weights(str(to / "weights.h5")),
        "xlmr_pretrained": lambda to: model.save_pretrained(to / "model"),
        "xlmr_export": lambda to: tf.saved_model.save(model, str(to / "export")),
        "xlmr_dir": lambda to: model.save(str(to / "model")),
        "xlmr_pretrained_saved_model": lambda to: model.save_pretrained(to / "model", saved_model=True),
        "xlmr_keras": lambda to: model.save(str(to / "model.keras")),
        "xlmr_checkpoint": lambda to: model.save_weights(str(to / "checkpoint" / "weights")),
    }
    saves = {name: _with_config(write, model.config, tokenizer) for name, write in saves.items()}
    save(folder, saves, inputs, {"logits": model(inputs).logits}, _go_on(model, inputs, ("logits",)))


def squad(folder: Path) -> None:
    tokenizer = _bert_tokenizer(folder)
    model = tensorflow_models.squad()
    inputs = dict(tokenizer([QUESTION] * 2, CONTEXTS, padding=True, return_tensors="tf"))
    model.compile(optimizer=keras.optimizers.Adam(1e-3), loss=_FROM_LOGITS)
    answers = np.array([9, 9])
    model.fit(inputs, {"start_logits": answers, "end_logits": answers}, epochs=8, verbose=0)

    def write(to: Path) -> None:
        model.save_pretrained(to / "model")
        tokenizer.save_pretrained(to / "model")

    outputs = model(inputs)
    names = ("start_logits", "end_logits")
    computed = {name: outputs[name] for name in names}
    save(folder, {"squad_tensorflow": write}, inputs, computed, _go_on(model, inputs, names))


def _ways(model: Any) -> dict[str, Save]:
    def weights_v3(to: Path) -> None:
        (to / "model.json").write_text(model.to_json())
        model.save_weights(str(to / "model.weights.h5"))

    return {
        "dir": lambda to: model.save(str(to / "model")),
        "h5": lambda to: model.save(str(to / "model.h5")),
        "keras": lambda to: model.save(str(to / "model.keras")),
        "weights": lambda to: model.save_weights(str(to / "weights.h5")),
        "weights_v3": weights_v3,
        "checkpoint": lambda to: model.save_weights(str(to / "checkpoint" / "weights")),
    }


def _save_functional(
    folder: Path, group: str, ways: str, made: tuple[Any, Any], tokenizer: Any, inputs: dict[str, np.ndarray]
) -> None:
    model, encoder = made
    saves = {
        f"{group}_{way}": _with_config(write, encoder.config, tokenizer)
        for way, write in _ways(model).items()
        if way in ways.split()
    }
    save(folder, saves, inputs, {model.output_names[0]: model(inputs)}, _go_on(model, inputs))


def _classifier(folder: Path, group: str, ways: str) -> None:
    tokenizer = _bert_tokenizer(folder)
    model, encoder = getattr(tensorflow_models, group)()
    model.compile(optimizer="adam", loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    random = np.random.default_rng(0)
    rows = [random.integers(0, 300, (10, LENGTH)), random.integers(0, 2, (10, LENGTH)), random.random((10, 10))]
    model.fit(rows[: len(model.inputs)], random.integers(0, 2, 10), epochs=3, verbose=0)
    texts = tokenizer(TEXTS, padding="max_length", max_length=LENGTH, return_tensors="np")
    inputs = {name: texts[name].astype(np.int32) for name in ("input_ids", "attention_mask")}
    if len(model.inputs) == 3:
        inputs["numerical_features"] = random.random((4, 10)).astype(np.float32)
    _save_functional(folder, group, ways, (model, encoder), tokenizer, inputs)


def classifier(folder: Path) -> None:
    _classifier(folder, "classifier", "dir h5 keras weights weights_v3 checkpoint")


def numbers(folder: Path) -> None:
    _classifier(folder, "numbers", "dir h5 keras weights")


def mixed(folder: Path) -> None:
    _classifier(folder, "mixed", "dir h5 keras")


def _of_texts(folder: Path, group: str, ways: str, labels: Any, loss: str) -> None:
    tokenizer = _xlm_roberta_tokenizer(folder)
    model, encoder = getattr(tensorflow_models, group)()
    model.compile(optimizer=keras.optimizers.AdamW(1e-3), loss=loss, metrics=["accuracy"])
    texts = tokenizer(TEXTS, padding=True, return_tensors="np")
    inputs = {name: texts[name].astype(np.int32) for name in ("input_ids", "attention_mask")}
    model.fit(list(inputs.values()), labels, epochs=5, batch_size=4, verbose=0)
    _save_functional(folder, group, ways, (model, encoder), tokenizer, inputs)


def sigmoid(folder: Path) -> None:
    _of_texts(folder, "sigmoid", "dir h5 keras weights", np.array([1, 0, 1, 0]), "binary_crossentropy")


def softmax(folder: Path) -> None:
    _of_texts(folder, "softmax", "dir h5 keras", np.eye(3)[[0, 1, 0, 2]], "categorical_crossentropy")


def pooling(folder: Path) -> None:
    _of_texts(folder, "pooling", "dir h5 keras weights", np.eye(3)[[0, 1, 0, 2]], "categorical_crossentropy")


def _siamese(folder: Path, group: str, more: Callable[[Any, Any, Any], dict[str, Save]]) -> None:
    tokenizer = _bert_tokenizer(folder)
    model, encoder = getattr(tensorflow_models, group)()
    model.compile(optimizer=keras.optimizers.Adam(1e-3), loss="mse")
    a, b = (tokenizer(texts, padding=True, return_tensors="np") for texts in (TEXTS, TEXTS[::-1]))
    given = (a["input_ids"], b["input_ids"], a["attention_mask"], b["attention_mask"])
    inputs = {each.name: value.astype(np.int32) for each, value in zip(model.inputs, given, strict=True)}
    model.fit(list(inputs.values()), np.array([-0.2, -0.9, -0.9, -0.2]), epochs=6, verbose=0)
    saves = {f"{group}_{way}": _ways(model)[way] for way in ("dir", "h5", "keras")} | more(model, encoder, tokenizer)
    saves = {name: _with_config(write, encoder.config, tokenizer) for name, write in saves.items()}
    states = encoder(inputs["input_a"], attention_mask=inputs["mask_a"]).last_hidden_state
    computed = {model.output_names[0]: model(inputs), "encoder": states}
    save(folder, saves, inputs, computed, _go_on(model, inputs))


def siamese(folder: Path) -> None:
    def more(model: Any, encoder: Any, tokenizer: Any) -> dict[str, Save]:
        def get_config(to: Path) -> None:
            (to / "get_config.json").write_text(json.dumps(model.get_config()))
            model.save_weights(str(to / "weights.h5"))

        def to_json(to: Path) -> None:
            (to / "to_json.json").write_text(model.to_json())
            model.save_weights(str(to / "weights.h5"))

        def of_encoder(to: Path) -> None:
            encoder.save_pretrained(to / "model")
            tokenizer.save_pretrained(to / "model")

        return {"siamese_get_config": get_config, "siamese_to_json": to_json, "siamese_encoder": of_encoder}

    _siamese(folder, "siamese", more)


def siamese_plain(folder: Path) -> None:
    _siamese(folder, "siamese_plain", lambda *_: {})


if __name__ == "__main__":
    transformers.logging.set_verbosity_error()
    make(globals(), lambda: keras.utils.set_random_seed(11))
