"""Activations of Keras by name, each with what computes the same in PyTorch; layers of Keras have them built in.

keras/src/activations (Keras 3.15), tf_keras/src/activations.py (2.21) and keras/activations.py (1.2.2).
"""

from __future__ import annotations

from collections.abc import Mapping

_TORCH: Mapping[str, str | None] = {
    "linear": "",
    "relu": "torch.nn.ReLU()",
    "relu6": "torch.nn.ReLU6()",
    "leaky_relu": "torch.nn.LeakyReLU(0.2)",
    "elu": "torch.nn.ELU()",
    "celu": "torch.nn.CELU()",
    "selu": "torch.nn.SELU()",
    "gelu": "torch.nn.GELU()",
    "silu": "torch.nn.SiLU()",
    "swish": "torch.nn.SiLU()",
    "mish": "torch.nn.Mish()",
    "sigmoid": "torch.nn.Sigmoid()",
    "log_sigmoid": "torch.nn.LogSigmoid()",
    "hard_sigmoid": "torch.nn.Hardsigmoid()",
    "hard_silu": "torch.nn.Hardswish()",
    "hard_swish": "torch.nn.Hardswish()",
    "tanh": "torch.nn.Tanh()",
    "hard_tanh": "torch.nn.Hardtanh()",
    "tanh_shrink": "torch.nn.Tanhshrink()",
    "hard_shrink": "torch.nn.Hardshrink()",
    "soft_shrink": "torch.nn.Softshrink()",
    "softplus": "torch.nn.Softplus()",
    "softsign": "torch.nn.Softsign()",
    "exponential": "torch.exp",
    "softmax": "torch.nn.Softmax({axis})",
    "log_softmax": "torch.nn.LogSoftmax({axis})",
    "glu": "torch.nn.GLU({axis})",
    "squareplus": "lambda x: (x + (x * x + 4).sqrt()) / 2",
    "sparse_plus": "lambda x: torch.where(x >= 1, x, (x.clamp(min=-1) + 1) ** 2 / 4)",
    "sparse_sigmoid": "lambda x: ((x + 1) / 2).clamp(0, 1)",
    "sparsemax": None,
    "threshold": None,
}
"""Name -> what is called in PyTorch, "" for nothing; None where PyTorch has no such function."""

_HARD_SIGMOID_BEFORE_3 = "lambda x: (0.2 * x + 0.5).clamp(0, 1)"
NAMES = frozenset(_TORCH)


def named(value: object) -> str:
    """Return what an activation of a config is called: `relu`, `LeakyReLU(negative_slope=0.1)`, `linear` for none."""
    if value is None:
        return "linear"
    if isinstance(value, Mapping):
        name, config = value.get("class_name", "?"), value.get("config")
        if name == "function" and isinstance(config, str):
            return config
        settings = config if isinstance(config, Mapping) else {}
        shown = ", ".join(
            f"{key}={each!r}" for key, each in settings.items() if key not in ("name", "dtype", "trainable")
        )
        return f"{name}({shown})"
    return str(value)


def in_torch(value: object, *, is_keras_3: bool, axis: int = -1) -> str | None:
    """Return the expression of PyTorch that computes an activation, "" for `linear`; None where no table has it.

    `axis` is where PyTorch has what is the last axis in Keras. `hard_sigmoid` is another line before Keras 3.
    """
    name = named(value)
    if name == "hard_sigmoid" and not is_keras_3:
        return _HARD_SIGMOID_BEFORE_3
    found = _TORCH.get(name)
    return None if found is None else found.format(axis=axis)
