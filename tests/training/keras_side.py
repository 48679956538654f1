"""Training in Keras 3 or tf_keras: `python -m tests.training.keras_side JOBS` does a JSON list of jobs.

Which Keras it is says TF_USE_LEGACY_KERAS, as it does for transformers. A job is {"do": "train" or "resume", "kind",
"algorithm", "source" (resume), "folder"}; it leaves `ended.npz` in its folder, and where it was to resume,
`reset.npz` of a run that forgot the moments. {"do": "describe", "kind", "folder"} leaves the config of a model alone.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
IS_LEGACY = os.environ.get("TF_USE_LEGACY_KERAS") == "1"

import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402

if IS_LEGACY:
    import tf_keras as keras
else:
    import keras

from tests.training.batches import HEADS, LABELS, LAYERS, LENGTH, VOCABULARY, WIDTH, Batch, batches  # noqa: E402

layers = keras.layers


def mlp() -> Any:
    x = keras.Input((8,), name="x")
    here = layers.Dense(16, activation="tanh", name="fc1")(x)
    here = layers.LayerNormalization(name="norm", epsilon=1e-5)(here)
    here = layers.Dense(16, activation="tanh", name="fc2")(here)
    return keras.Model(x, layers.Dense(LABELS, name="out")(here), name="mlp")


def cnn() -> Any:
    here = x = keras.Input((4, 4, 3), name="x")
    for number, channels in (("1", 4), ("2", 6)):
        here = layers.Conv2D(channels, 3, padding="same", use_bias=False, name=f"conv{number}")(here)
        here = layers.BatchNormalization(name=f"bn{number}", epsilon=1e-5, momentum=0.9)(here)
        here = layers.Activation("tanh", name=f"tanh{number}")(here)
    return keras.Model(x, layers.Dense(LABELS, name="out")(layers.Flatten(name="flat")(here)), name="cnn")


def encoder() -> Any:
    initial = keras.initializers.RandomNormal(stddev=0.02)  # as BERT's
    ids, positions = keras.Input((LENGTH, VOCABULARY), name="ids"), keras.Input((LENGTH, LENGTH), name="places_in")
    tokens = layers.Dense(WIDTH, use_bias=False, kernel_initializer=initial, name="tokens")(ids)
    places = layers.Dense(WIDTH, use_bias=False, kernel_initializer=initial, name="places")(positions)
    norm: Callable[[str], Any] = lambda name: layers.LayerNormalization(name=name, epsilon=1e-5)  # noqa: E731
    here = norm("norm")(layers.Add(name="sum")([tokens, places]))
    for index in range(LAYERS):
        attention = layers.MultiHeadAttention(
            HEADS, WIDTH // HEADS, kernel_initializer=initial, name=f"attention{index}"
        )
        here = norm(f"norm{index}a")(layers.Add(name=f"sum{index}a")([here, attention(here, here)]))
        wide = layers.Dense(2 * WIDTH, activation="gelu", kernel_initializer=initial, name=f"up{index}")(here)
        narrow = layers.Dense(WIDTH, kernel_initializer=initial, name=f"down{index}")(wide)
        here = norm(f"norm{index}b")(layers.Add(name=f"sum{index}b")([here, narrow]))
    here = layers.GlobalAveragePooling1D(name="mean")(here)
    return keras.Model([ids, positions], layers.Dense(LABELS, name="out")(here), name="encoder")


def bert() -> Any:
    import transformers

    config = transformers.BertConfig(
        vocab_size=VOCABULARY,
        hidden_size=WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        intermediate_size=2 * WIDTH,
        max_position_embeddings=LENGTH,
        num_labels=LABELS,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    model = transformers.TFBertForSequenceClassification(config)
    model(batches("bert", is_resumed=False)[0][0])
    return model


MODELS: dict[str, Callable[[], Any]] = {"mlp": mlp, "cnn": cnn, "encoder": encoder, "bert": bert}
OPTIMIZERS: dict[str, Callable[[], Any]] = {
    "adamw": lambda: keras.optimizers.AdamW(0.001, weight_decay=0.05),
    "sgd": lambda: keras.optimizers.SGD(0.05, momentum=0.9),
    "rmsprop": lambda: keras.optimizers.RMSprop(0.00025, momentum=0.5),
}
SUFFIX = ".h5" if IS_LEGACY else ".keras"
LEAVES = {
    **{"kernel": "weight", "gamma": "weight", "embeddings": "weight", "weight": "weight"},
    **{"beta": "bias", "bias": "bias"},
}


def compiled(model: Any, optimizer: Any) -> Any:
    model.compile(optimizer=optimizer, loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


def steps(model: Any, over: list[Batch]) -> list[float]:
    """Train on batches; return the loss of each."""
    losses = []
    for inputs, labels in over:
        model.reset_metrics()  # else what is reported is a mean
        given = list(inputs.values())
        losses.append(float(model.train_on_batch(given[0] if len(given) == 1 else given, labels)))
    return losses


def bert_steps(model: Any, optimizer: Any, over: list[Batch]) -> list[float]:
    """The loop of one's own that models of transformers are trained with."""
    measure = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    @tf.function
    def step(inputs: Any, labels: Any) -> Any:
        with tf.GradientTape() as tape:
            loss = measure(labels, model(inputs, training=True).logits)
        optimizer.apply_gradients(
            zip(tape.gradient(loss, model.trainable_variables), model.trainable_variables, strict=True)
        )
        return loss

    return [float(step(inputs, labels)) for inputs, labels in over]


def torch_name(model: Any, variable: Any) -> str:
    """Return what torch_side calls a variable: layer and leaf, or the path inside TFBert."""
    path = variable.name.removesuffix(":0") if IS_LEGACY else variable.path
    own = path.replace("_._", "/").partition("/")[2] if hasattr(model, "bert") else path
    *above, leaf = own.split("/")
    return ".".join([*above, LEAVES[leaf]])


def as_torch(name: str, array: Any) -> Any:
    """Return a weight in PyTorch's layout."""
    if name == "out.weight" and array.shape[0] == 6 * 4 * 4:  # behind a Flatten, channels last
        return array.reshape(4, 4, 6, LABELS).transpose(3, 2, 0, 1).reshape(LABELS, -1)
    if array.ndim == 4:
        return array.transpose(3, 2, 0, 1)
    if array.ndim == 3:  # heads apart
        is_output = name.endswith("attention_output.weight")
        return (array.reshape(-1, array.shape[-1]) if is_output else array.reshape(array.shape[0], -1)).T
    if array.ndim == 2 and name.endswith(("query.bias", "key.bias", "value.bias")):
        return array.reshape(-1)
    return array if name.endswith("embeddings.weight") else array.T


def ended(model: Any, losses: list[float]) -> dict[str, Any]:
    named = {torch_name(model, variable): variable.numpy() for variable in model.trainable_variables}
    return {"losses": np.array(losses), **{f"weight/{name}": as_torch(name, array) for name, array in named.items()}}


def train(kind: str, algorithm: str, folder: Path) -> None:
    """Train, save `checkpoint.<suffix>`, and go on; a model of transformers and its optimizer as a checkpoint."""
    keras.utils.set_random_seed(0)
    model, optimizer = MODELS[kind](), OPTIMIZERS[algorithm]()
    before, after = batches(kind, is_resumed=False), batches(kind, is_resumed=True)
    if kind == "bert":
        bert_steps(model, optimizer, before)
        model.config.save_pretrained(folder)
        tf.train.Checkpoint(model=model, optimizer=optimizer).write(str(folder / "checkpoint"))
        losses = bert_steps(model, optimizer, after)
    else:
        steps(compiled(model, optimizer), before)
        model.save(folder / f"checkpoint{SUFFIX}")
        losses = steps(model, after)
    np.savez(folder / "ended.npz", **ended(model, losses))


def describe(kind: str, folder: Path) -> None:
    """Leave the config of a model, as a user has it who knows the model in Keras."""
    if kind != "bert":
        (folder / "model.json").write_text(MODELS[kind]().to_json())


def resume(kind: str, algorithm: str, source: Path, folder: Path) -> None:
    """Load what was converted, as a script does, and train on; and once more with the moments forgotten."""
    after = batches(kind, is_resumed=True)
    for name in ("ended", "reset"):
        if kind == "bert":
            model, optimizer = loaded_bert(source, is_reset=name == "reset")
            losses = bert_steps(model, optimizer, after)
        else:
            model = loaded(source, is_reset=name == "reset")
            losses = steps(model, after)
        np.savez(folder / f"{name}.npz", **ended(model, losses))


def loaded(source: Path, *, is_reset: bool) -> Any:
    if not IS_LEGACY:
        import converter.keras_optimizers  # noqa: F401
    model = keras.models.load_model(source)
    optimizer = model.optimizer
    return compiled(model, type(optimizer).from_config(optimizer.get_config()) if is_reset else optimizer)


def loaded_bert(source: Path, *, is_reset: bool) -> tuple[Any, Any]:
    import transformers

    model = transformers.TFBertForSequenceClassification.from_pretrained(source)
    optimizer = keras.optimizers.deserialize(json.loads((source / "optimizer.json").read_text()))
    optimizer.build(model.trainable_variables)
    if not is_reset:
        tf.train.Checkpoint(optimizer=optimizer).restore(str(source / "optimizer")).assert_existing_objects_matched()
    return model, optimizer


def main() -> None:
    for job in json.loads(sys.argv[1]):
        folder = Path(job["folder"])
        folder.mkdir(parents=True, exist_ok=True)
        if job["do"] == "describe":
            describe(job["kind"], folder)
        elif job["do"] == "train":
            train(job["kind"], job["algorithm"], folder)
        else:
            resume(job["kind"], job["algorithm"], Path(job["source"]), folder)


if __name__ == "__main__":
    main()
