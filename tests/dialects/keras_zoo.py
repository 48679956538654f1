"""Layers of Keras, each with the module of PyTorch that computes the same, for tests to compare."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A Keras layer called "layer" on inputs of `shape`, the module, and how to run the module on the same inputs."""

    layer: Callable[[Any], Any]
    module: Callable[[Any], Any]
    shape: tuple[int, ...]
    run: Callable[[Any, Any], Any] = lambda module, inputs: module(inputs)
    is_integer: bool = False
    is_invertible: bool = True
    is_told_by_names: bool = True


def channels_first(module: Any, inputs: Any) -> Any:
    return module(inputs.movedim(-1, 1)).movedim(1, -1)


def first_output(module: Any, inputs: Any) -> Any:
    return module(inputs)[0]


def separable(nn: Any, rank: int) -> Any:
    convolution = getattr(nn, f"Conv{rank}d")
    module = nn.Module()
    module.depthwise = convolution(3, 6, 3, groups=3, bias=False)
    module.pointwise = convolution(6, 5, 1)
    return module


def run_separable(module: Any, inputs: Any) -> Any:
    return channels_first(lambda x: module.pointwise(module.depthwise(x)), inputs)


def attention(nn: Any, *, bias: bool = True) -> Any:
    module = nn.Module()
    module.query, module.key = nn.Linear(6, 8, bias=bias), nn.Linear(6, 8, bias=bias)
    module.value, module.attention_output = nn.Linear(6, 6, bias=bias), nn.Linear(6, 6, bias=bias)
    return module


def run_attention(module: Any, inputs: Any) -> Any:
    import torch

    def heads(projection: Any) -> Any:
        return projection(inputs).unflatten(-1, (2, -1)).transpose(1, 2)

    attended = torch.nn.functional.scaled_dot_product_attention(
        heads(module.query), heads(module.key), heads(module.value)
    )
    return module.attention_output(attended.transpose(1, 2).flatten(2))


MAP, LINE, BLOCK = (2, 7, 6, 3), (2, 7, 3), (2, 5, 6, 4, 3)
CASES = {
    "dense": Case(layer=lambda k: k.Dense(4), module=lambda nn: nn.Linear(3, 4), shape=LINE),
    "dense-no-bias": Case(
        layer=lambda k: k.Dense(4, use_bias=False), module=lambda nn: nn.Linear(3, 4, bias=False), shape=LINE
    ),
    "embedding": Case(
        layer=lambda k: k.Embedding(11, 4), module=lambda nn: nn.Embedding(11, 4), shape=(2, 5), is_integer=True
    ),
    "conv1d": Case(
        layer=lambda k: k.Conv1D(4, 3), module=lambda nn: nn.Conv1d(3, 4, 3), shape=LINE, run=channels_first
    ),
    "conv2d": Case(
        layer=lambda k: k.Conv2D(4, (3, 2)), module=lambda nn: nn.Conv2d(3, 4, (3, 2)), shape=MAP, run=channels_first
    ),
    "conv2d-groups": Case(
        layer=lambda k: k.Conv2D(6, 3, groups=3),
        module=lambda nn: nn.Conv2d(3, 6, 3, groups=3),
        shape=MAP,
        run=channels_first,
    ),
    "conv3d": Case(
        layer=lambda k: k.Conv3D(4, (2, 3, 1)),
        module=lambda nn: nn.Conv3d(3, 4, (2, 3, 1)),
        shape=BLOCK,
        run=channels_first,
    ),
    "conv1d-transpose": Case(
        layer=lambda k: k.Conv1DTranspose(4, 3),
        module=lambda nn: nn.ConvTranspose1d(3, 4, 3),
        shape=LINE,
        run=channels_first,
    ),
    "conv2d-transpose": Case(
        layer=lambda k: k.Conv2DTranspose(4, (3, 2), strides=2),
        module=lambda nn: nn.ConvTranspose2d(3, 4, (3, 2), stride=2),
        shape=MAP,
        run=channels_first,
    ),
    "conv3d-transpose": Case(
        layer=lambda k: k.Conv3DTranspose(4, 2),
        module=lambda nn: nn.ConvTranspose3d(3, 4, 2),
        shape=BLOCK,
        run=channels_first,
    ),
    "depthwise1d": Case(
        layer=lambda k: k.DepthwiseConv1D(3, depth_multiplier=2),
        module=lambda nn: nn.Conv1d(3, 6, 3, groups=3),
        shape=LINE,
        run=channels_first,
    ),
    "depthwise2d": Case(
        layer=lambda k: k.DepthwiseConv2D((3, 2), depth_multiplier=2),
        module=lambda nn: nn.Conv2d(3, 6, (3, 2), groups=3),
        shape=MAP,
        run=channels_first,
    ),
    "separable1d": Case(
        layer=lambda k: k.SeparableConv1D(5, 3, depth_multiplier=2),
        module=lambda nn: separable(nn, 1),
        shape=LINE,
        run=run_separable,
    ),
    "separable2d": Case(
        layer=lambda k: k.SeparableConv2D(5, 3, depth_multiplier=2),
        module=lambda nn: separable(nn, 2),
        shape=MAP,
        run=run_separable,
    ),
    "batch-norm": Case(
        layer=lambda k: k.BatchNormalization(),
        module=lambda nn: nn.BatchNorm2d(3, eps=1e-3),
        shape=MAP,
        run=channels_first,
    ),
    "batch-norm-no-scale": Case(
        layer=lambda k: k.BatchNormalization(scale=False),
        module=lambda nn: nn.BatchNorm2d(3, eps=1e-3),
        shape=MAP,
        run=channels_first,
        is_told_by_names=False,  # positions alone do not say which of gamma and beta is missing
    ),
    "batch-norm-neither": Case(
        layer=lambda k: k.BatchNormalization(scale=False, center=False),
        module=lambda nn: nn.BatchNorm2d(3, eps=1e-3, affine=False),
        shape=MAP,
        run=channels_first,
    ),
    "layer-norm": Case(layer=lambda k: k.LayerNormalization(), module=lambda nn: nn.LayerNorm(3, eps=1e-3), shape=LINE),
    "group-norm": Case(
        layer=lambda k: k.GroupNormalization(3),
        module=lambda nn: nn.GroupNorm(3, 3, eps=1e-3),
        shape=MAP,
        run=channels_first,
    ),
    "rms-norm": Case(
        layer=lambda k: k.RMSNormalization(epsilon=1e-6),
        module=lambda nn: nn.RMSNorm(3, eps=1e-6),
        shape=LINE,
        is_told_by_names=False,  # anything may be called `scale`
    ),
    "lstm": Case(
        layer=lambda k: k.LSTM(4, return_sequences=True),
        module=lambda nn: nn.LSTM(3, 4, batch_first=True),
        shape=LINE,
        run=first_output,
        is_invertible=True,
    ),
    "lstm-no-bias": Case(
        layer=lambda k: k.LSTM(4, return_sequences=True, use_bias=False),
        module=lambda nn: nn.LSTM(3, 4, batch_first=True, bias=False),
        shape=LINE,
        run=first_output,
    ),
    "rnn": Case(
        layer=lambda k: k.SimpleRNN(4, return_sequences=True),
        module=lambda nn: nn.RNN(3, 4, batch_first=True),
        shape=LINE,
        run=first_output,
    ),
    "gru": Case(
        layer=lambda k: k.GRU(4, return_sequences=True),
        module=lambda nn: nn.GRU(3, 4, batch_first=True),
        shape=LINE,
        run=first_output,
    ),
    "bidirectional-lstm": Case(
        layer=lambda k: k.Bidirectional(k.LSTM(4, return_sequences=True)),
        module=lambda nn: nn.LSTM(3, 4, batch_first=True, bidirectional=True),
        shape=LINE,
        run=first_output,
    ),
    "bidirectional-gru": Case(
        layer=lambda k: k.Bidirectional(k.GRU(4, return_sequences=True)),
        module=lambda nn: nn.GRU(3, 4, batch_first=True, bidirectional=True),
        shape=LINE,
        run=first_output,
    ),
    "attention": Case(
        layer=lambda k: k.MultiHeadAttention(2, 4, value_dim=3), module=attention, shape=(2, 5, 6), run=run_attention
    ),
    "attention-no-bias": Case(
        layer=lambda k: k.MultiHeadAttention(2, 4, value_dim=3, use_bias=False),
        module=lambda nn: attention(nn, bias=False),
        shape=(2, 5, 6),
        run=run_attention,
    ),
    "einsum-dense": Case(
        layer=lambda k: k.EinsumDense("abc,cd->abd", output_shape=(None, 4), bias_axes="d"),
        module=lambda nn: nn.Linear(3, 4),
        shape=LINE,
    ),
    "einsum-heads": Case(
        layer=lambda k: k.EinsumDense("abc,cde->abde", output_shape=(None, 2, 4), bias_axes="de"),
        module=lambda nn: nn.Linear(3, 8),
        shape=LINE,
        run=lambda module, inputs: module(inputs).unflatten(-1, (2, 4)),
    ),
    "prelu": Case(
        layer=lambda k: k.PReLU(shared_axes=[1, 2], alpha_initializer="uniform"),
        module=lambda nn: nn.PReLU(3),
        shape=MAP,
        run=channels_first,
    ),
}


def randomised(model: Any) -> Any:
    """Give every weight of a Keras model values of its own, variances positive."""
    generator = np.random.default_rng(7)
    for weight in model.weights:
        values = generator.normal(size=tuple(weight.shape)).astype("float32")
        weight.assign(np.abs(values) + 0.5 if "variance" in weight.path else values)
    return model


def inputs_of(case: Case) -> Any:
    """Return inputs for a case."""
    generator = np.random.default_rng(3)
    return (
        generator.integers(0, 9, case.shape) if case.is_integer else generator.normal(size=case.shape).astype("float32")
    )
