"""Files of TensorFlow classes whose optimizers are numbered: `python -m tests.oracle.numbered_optimizers FOLDER`.

Of each class, `NAME.weights.h5` after two steps, its config.json in `NAME/`, and `NAME.npz` with what Keras holds: the
trained weights as `w0`, `w1` ... and the slots of each as `w0/0`, `w0/1` ...
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

SIZES = {
    "vocab_size": 40,
    "hidden_size": 8,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "max_position_embeddings": 20,
}
CASES = {
    "bert": ("BertConfig", "TFBertForSequenceClassification", "AdamW"),
    "xlm-roberta": ("XLMRobertaConfig", "TFXLMRobertaForTokenClassification", "Adam"),
    "electra": ("ElectraConfig", "TFElectraForQuestionAnswering", "SGD"),
}


def write(folder: Path, name: str) -> None:
    import numpy as np
    import tensorflow as tf
    import tf_keras
    import transformers

    config, model_class, optimizer_class = CASES[name]
    model: Any = getattr(transformers, model_class)(getattr(transformers, config)(**SIZES))
    extra = {"momentum": 0.9} if optimizer_class == "SGD" else {}
    optimizer = getattr(tf_keras.optimizers, optimizer_class)(1e-3, **extra)
    model.compile(optimizer=optimizer)
    model(tf.constant([[3, 4, 5]]))
    trained = model.trainable_variables
    optimizer.build(trained)
    random = np.random.default_rng(0)
    for _ in range(2):
        gradients = [tf.constant(random.normal(size=each.shape), each.dtype) for each in trained]
        optimizer.apply_gradients(zip(gradients, trained, strict=True))
    model.save_weights(str(folder / f"{name}.weights.h5"))
    model.config.save_pretrained(folder / name)
    each_has = 1 if optimizer_class == "SGD" else 2
    slots = [each.numpy() for each in optimizer.variables[-each_has * len(trained) :]]
    arrays = {f"w{index}": each.numpy() for index, each in enumerate(trained)}
    arrays |= {f"w{index // each_has}/{index % each_has}": slot for index, slot in enumerate(slots)}
    np.savez(folder / f"{name}.npz", **arrays)


if __name__ == "__main__":
    for each in CASES:
        write(Path(sys.argv[1]), each)
