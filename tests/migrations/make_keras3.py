"""Sources of Keras 3. `python -m tests.migrations.make_keras3 FOLDER GROUP...`"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import keras
import numpy as np

from tests.migrations import keras3_models
from tests.migrations.saving import GoOn, Save, make, save
from tests.migrations.steps import goes_on_in_tensorflow


def _go_on(model: Any, inputs: dict[str, Any]) -> GoOn:
    return lambda: goes_on_in_tensorflow(model, lambda: {model.output_names[0]: model(inputs)})


def numbers(folder: Path) -> None:
    random = np.random.default_rng(1)
    model = keras3_models.numbers()
    model.compile(optimizer=keras.optimizers.AdamW(1e-3), loss="categorical_crossentropy")
    inputs = {
        "input_ids": random.integers(0, 300, (4, 12), dtype=np.int32),
        "attention_mask": np.array([[1] * 12, [1] * 9 + [0] * 3] * 2, np.int32),
        "numerical_features": random.random((4, 10), dtype=np.float32),
    }
    model.fit(inputs, np.eye(3)[[0, 1, 0, 2]], epochs=5, verbose=0)

    def weights(to: Path) -> None:
        (to / "model.json").write_text(model.to_json())
        model.save_weights(to / "model.weights.h5")

    saves: dict[str, Save] = {
        "keras3_keras": lambda to: model.save(to / "model.keras"),
        "keras3_h5": lambda to: model.save(to / "model.h5"),
        "keras3_weights": weights,
        "keras3_export": lambda to: model.export(to / "model", verbose=False),
    }
    save(folder, saves, inputs, {model.output_names[0]: model(inputs)}, _go_on(model, inputs))


def _siamese(folder: Path, group: str) -> None:
    random = np.random.default_rng(1)
    model: Any = getattr(keras3_models, group)()
    model.compile(optimizer=keras.optimizers.Adam(1e-3), loss="mse")
    shapes = {"input_a": (4, 12), "input_b": (4, 9)}
    inputs = {name: random.integers(0, 300, shape, dtype=np.int32) for name, shape in shapes.items()}
    inputs |= {f"mask_{name[-1]}": np.ones(shape, np.int32) for name, shape in shapes.items()}
    model.fit(inputs, np.array([-0.2, -0.9, -0.9, -0.2]), epochs=4, verbose=0)

    def with_json(to: Path) -> None:
        (to / "get_config.json").write_text(json.dumps(model.get_config()))
        model.save_weights(to / "model.weights.h5")

    saves: dict[str, Save] = {
        f"keras3_{group}_keras": lambda to: model.save(to / "model.keras"),
        f"keras3_{group}_json": with_json,
    }
    save(folder, saves, inputs, {model.output_names[0]: model(inputs)}, _go_on(model, inputs))


def siamese_lambda(folder: Path) -> None:
    _siamese(folder, "siamese_lambda")


def siamese_own(folder: Path) -> None:
    _siamese(folder, "siamese_own")


if __name__ == "__main__":
    make(globals(), lambda: keras.utils.set_random_seed(5))
