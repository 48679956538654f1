"""The layers that Keras 2 had for cuDNN alone, in Keras 3, which has none: as files have their weights.

`_convert_rnn_weights` of Keras 2.15 (saving/legacy/hdf5_format.py) says what an ordinary layer has instead.
"""

from __future__ import annotations

import re
from contextlib import AbstractContextManager, nullcontext
from typing import Any

_NAMES = ("CuDNNLSTM", "CuDNNGRU")
NAMES = frozenset(_NAMES)
_FOR_TRAINING = re.compile(r"_(initializer|regularizer|constraint)$|^unit_forget_bias$")


def known(framework: Any) -> AbstractContextManager[Any]:
    """Return a context in which Keras 3 finds the classes, its wrappers of layers too."""
    return framework.saving.custom_object_scope(_classes(framework)) if framework.__name__ == "keras" else nullcontext()


def _classes(keras: Any) -> dict[str, Any]:
    def converted(kernel: Any, recurrent: Any, gates: int, units: int) -> tuple[Any, Any]:
        """Return both kernels as an ordinary layer has them: each gate is read as cuDNN does, then the gates joined."""
        ops = keras.ops
        apart = ops.transpose(ops.reshape(kernel, (-1, gates, units)), (1, 0, 2))
        taken = ops.transpose(ops.reshape(apart, (gates, units, -1)), (2, 0, 1))
        turned = ops.transpose(ops.reshape(recurrent, (units, gates, units)), (2, 1, 0))
        width = gates * units
        return ops.reshape(taken, (-1, width)), ops.reshape(turned, (units, width))

    def with_own_weights(cell_class: type[Any], gates: int) -> type[Any]:
        class Cell(cell_class):  # type: ignore[misc]
            def build(self, input_shape: Any) -> None:
                width = gates * self.units
                self.own = [
                    self.add_weight(shape=shape, name=name)
                    for name, shape in (
                        ("kernel", (input_shape[-1], width)),
                        ("recurrent_kernel", (self.units, width)),
                        ("bias", (2 * width,)),
                    )
                ]
                self.built = True

            def convert(self) -> None:
                """Compute what the cell goes by, once for all steps."""
                kernel, recurrent, bias = (keras.ops.convert_to_tensor(each) for each in self.own)
                self.kernel, self.recurrent_kernel = converted(kernel, recurrent, gates, self.units)
                two = keras.ops.reshape(bias, (2, -1))
                self.bias = two if gates == 3 else keras.ops.sum(two, 0)

        return Cell

    def layer(name: str, cell_class: type[Any], gates: int) -> type[Any]:
        cell_of = with_own_weights(cell_class, gates)

        class Layer(keras.layers.RNN):  # type: ignore[misc]
            def __init__(self, units: int, **config: Any) -> None:
                used = {key: value for key, value in config.items() if _FOR_TRAINING.search(key) is None}
                super().__init__(cell_of(units), **used)
                self.units = units

            def call(self, sequences: Any, initial_state: Any = None, mask: Any = None, training: bool = False) -> Any:
                self.cell.convert()
                return super().call(sequences, initial_state=initial_state, mask=mask, training=training)

            def get_config(self) -> dict[str, Any]:
                config = super().get_config()
                del config["cell"]
                return {**config, "units": self.units}

            @classmethod
            def from_config(cls, config: dict[str, Any]) -> Any:
                return cls(**config)

        Layer.__name__ = Layer.__qualname__ = name
        return Layer

    cells = (keras.layers.LSTMCell, keras.layers.GRUCell)
    return {name: layer(name, cell, gates) for name, cell, gates in zip(_NAMES, cells, (4, 3), strict=True)}
