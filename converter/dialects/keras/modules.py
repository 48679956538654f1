"""What the layers of Keras hold, and what the modules of PyTorch that compute the same hold instead.

A `Module` is one table for both directions: variables of a Keras layer on one side, tensors of a PyTorch module on
the other. Layers and their variables are those of Keras 3.15 and tf_keras 2.21, modules those of PyTorch 2.13.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from converter.dialects.names.operations import Rearrange, TwoWay, Unstack
from converter.dialects.names.rearrangement import AS_IS, Rearrangement


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """One variable of a layer: `keras` and `torch` are names inside layer and module.

    `older`   what Keras 2 calls it, where that differs
    `torch`   two names when the variable's first axis holds two tensors of PyTorch
    `again`   a second rearrangement, of what the first gives
    `added`   a tensor that PyTorch adds to this one, zeros unless it came with values of its own
    `is_buffer`   whether it is no parameter
    """

    keras: str
    torch: tuple[str, ...]
    layout: Rearrangement | None = AS_IS
    again: Rearrangement | None = None
    older: str | None = None
    added: str | None = None
    is_buffer: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """What Keras may call it."""
        return (self.keras,) if self.older is None else (self.keras, self.older)

    @property
    def operations(self) -> tuple[TwoWay, ...]:
        """What makes PyTorch's tensors of the variable."""
        rearranged = tuple(Rearrange(layout) for layout in (self.layout, self.again) if layout is not None)
        return rearranged if len(self.torch) == 1 else (*rearranged, Unstack(0, len(self.torch)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Module:
    """One layer: where Keras keeps its variables, and the module it is in PyTorch.

    `path`    the layer's place by names, as in `block/conv`
    `module`  the module's place in PyTorch, dots between names
    `also`    places that other versions give it
    `stores`  where `.weights.h5` has its `vars`, by version
    `slots`   its variables, in the order of their positions
    `constant`   tensors that PyTorch has and Keras has not, name -> value of every element
    """

    path: str
    module: str
    slots: tuple[Slot, ...]
    also: tuple[str, ...] = ()
    stores: tuple[str, ...] = ()
    constants: Mapping[str, int] | None = None
    is_trainable: bool = True

    def torch_name(self, leaf: str) -> str:
        """Return the whole name of a tensor of the module."""
        return f"{self.module}.{leaf}" if self.module else leaf


Config = Mapping[str, Any]

DENSE = Rearrangement(pattern="i o -> o i")
CONVOLUTIONS = {
    3: Rearrangement(pattern="x i o -> o i x"),
    4: Rearrangement(pattern="y x i o -> o i y x"),
    5: Rearrangement(pattern="z y x i o -> o i z y x"),
}
"""By rank of the kernel; of transposed convolutions too: (..., out, in) in Keras is (in, out, ...) in PyTorch."""
_DEPTHWISE = {3: "x c m -> (c m) 1 x", 4: "y x c m -> (c m) 1 y x"}
HEADS_IN, HEADS_OUT, HEADS_BIAS = "d h k -> (h k) d", "h k d -> d (h k)", "h k -> (h k)"
_GRU_ORDER = (1, 0, 2)
"""Keras has update, reset, candidate; PyTorch reset, update, candidate."""
_NOT_OF_FEATURES = ("bias", "recurrent_kernel", "embeddings", "count")
_OF_MAPS = frozenset([*(each.pattern for each in CONVOLUTIONS.values()), *_DEPTHWISE.values()])
_SHARED = "1 "
ALPHA = Rearrangement(pattern="c -> c")
"""Of a PReLU whose config does not say that axes share one: of a vector, or of more for all that it says."""


def takes_features(slot: Slot) -> bool:
    """Whether the first axis of a variable is the features that its layer takes."""
    pattern = "" if slot.layout is None else slot.layout.pattern
    return slot.keras not in _NOT_OF_FEATURES and pattern not in _OF_MAPS and not pattern.startswith(_SHARED)


def flattened(slot: Slot, channels: int) -> Slot | None:
    """Return a slot whose layer takes a flattened map: channels last in Keras, first in PyTorch.

    None when its layout has no axis that is the features alone, on both sides.
    """
    if not takes_features(slot):
        return slot
    layout = slot.layout or Rearrangement(pattern="i -> i")
    keras, _, torch = layout.pattern.partition("->")
    features, *others = keras.split()
    alone = re.compile(rf"(?<!\S)({re.escape(features)}|\({re.escape(features)}\))(?!\S)")
    if features.startswith("(") or not alone.search(torch):
        return None
    pattern = f"{' '.join(('(map channels)', *others))} -> {alone.sub('(channels map)', torch.strip())}"
    return replace(slot, layout=replace(layout, pattern=pattern, sizes={**layout.sizes, "channels": channels}))


def depthwise(rank: int, multiplier: int) -> Rearrangement:
    """Return the layout of a depthwise kernel. Channel c has its `multiplier` outputs side by side in both."""
    return Rearrangement(pattern=_DEPTHWISE[rank], sizes={"m": multiplier})


def _size(config: Config, name: str, default: int | None = None) -> int:
    """Return a number of heads, channels or features. Raises ValueError for what is none: configs hold anything."""
    value = config.get(name, default)
    if type(value) is not int or value < 1:
        raise ValueError(repr(name))
    return value


def _axes(config: Config, name: str) -> list[int]:
    """Return one axis or several as a list. Raises ValueError for anything else."""
    value = config[name]
    axes = value if isinstance(value, list | tuple) else [value]
    if any(type(axis) is not int for axis in axes):
        raise ValueError(repr(name))
    return list(axes)


def _bias(config: Config, torch: str = "bias") -> tuple[Slot, ...]:
    return (Slot(keras="bias", torch=(torch,)),) if config.get("use_bias", True) else ()


def dense(config: Config) -> tuple[Slot, ...]:
    """Return the variables of a Dense layer: a kernel of [in, out]."""
    return (Slot(keras="kernel", torch=("weight",), layout=DENSE), *_bias(config))


def embedding(config: Config) -> tuple[Slot, ...]:
    """Return the variable of an Embedding: rows as PyTorch has them."""
    return (Slot(keras="embeddings", torch=("weight",)),)


def convolution(rank: int) -> Callable[[Config], tuple[Slot, ...]]:
    """Return the variables of a convolution over `rank` axes: a kernel of [*window, in, out]."""
    return lambda config: (Slot(keras="kernel", torch=("weight",), layout=CONVOLUTIONS[rank]), *_bias(config))


def depthwise_convolution(rank: int) -> Callable[[Config], tuple[Slot, ...]]:
    """Return the variables of a depthwise convolution: a kernel of [*window, in, multiplier]."""

    def slots(config: Config) -> tuple[Slot, ...]:
        layout = depthwise(rank, _size(config, "depth_multiplier", 1))
        return (Slot(keras="kernel", older="depthwise_kernel", torch=("weight",), layout=layout), *_bias(config))

    return slots


def separable_convolution(rank: int) -> Callable[[Config], tuple[Slot, ...]]:
    """Return the variables of a separable convolution: depthwise, then pointwise."""

    def slots(config: Config) -> tuple[Slot, ...]:
        layout = depthwise(rank, _size(config, "depth_multiplier", 1))
        return (
            Slot(keras="depthwise_kernel", torch=("depthwise.weight",), layout=layout),
            Slot(keras="pointwise_kernel", torch=("pointwise.weight",), layout=CONVOLUTIONS[rank]),
            *_bias(config, "pointwise.bias"),
        )

    return slots


def normalization(config: Config) -> tuple[Slot, ...]:
    """Return the variables of LayerNormalization and GroupNormalization, as `scale` and `center` say."""
    if config.get("rms_scaling"):
        return (Slot(keras="gamma", torch=("weight",)),)
    gamma = (Slot(keras="gamma", torch=("weight",)),) if config.get("scale", True) else ()
    beta = (Slot(keras="beta", torch=("bias",)),) if config.get("center", True) else ()
    return (*gamma, *beta)


def batch_normalization(config: Config) -> tuple[Slot, ...]:
    """Return the variables of BatchNormalization, running statistics among them."""
    return (
        *normalization({**config, "rms_scaling": False}),
        Slot(keras="moving_mean", torch=("running_mean",), is_buffer=True),
        Slot(keras="moving_variance", torch=("running_var",), is_buffer=True),
    )


def batch_constants(has_gamma: bool, has_beta: bool) -> dict[str, int]:
    """Return what torch.nn.BatchNorm has besides: a counter, and weight and bias only together."""
    constants = {"num_batches_tracked": 0}
    if has_gamma != has_beta:
        constants.update({"bias": 0} if has_gamma else {"weight": 1})
    return constants


def rms_normalization(config: Config) -> tuple[Slot, ...]:
    """Return the variable of RMSNormalization."""
    return (Slot(keras="scale", torch=("weight",)),)


def adapted(config: Config) -> tuple[Slot, ...]:
    """Return the statistics of a Normalization layer, which keep their names: PyTorch has no such module.

    The config may hold them instead.
    """
    if config.get("mean") is not None:
        return ()
    return tuple(Slot(keras=name, torch=(name,), is_buffer=True) for name in ("mean", "variance", "count"))


def prelu(config: Config) -> tuple[Slot, ...] | None:
    """Return the variable of PReLU; None unless `alpha` is one value or one per channel, as PyTorch's is."""
    if config.get("shared_axes") is None:
        return (Slot(keras="alpha", torch=("weight",), layout=ALPHA),)
    shared = _axes(config, "shared_axes")
    if sorted(shared) != list(range(1, len(shared) + 1)):
        return None
    return (Slot(keras="alpha", torch=("weight",), layout=prelu_layout(len(shared) + 1)),)


def of_elements(module: Module) -> Module:
    """Return a PReLU that has an alpha for each element, which torch.nn.PReLU has not: it stays as it is stored."""
    return replace(module, slots=tuple(replace(slot, torch=(slot.keras,), layout=None) for slot in module.slots))


def prelu_layout(rank: int) -> Rearrangement:
    """Return the layout of an `alpha` shared along all axes but the last."""
    return Rearrangement(pattern=f"{'1 ' * (rank - 1)}c -> c")


def recurrent(
    config: Config, *, gates: tuple[int, ...] | None = None, count: int = 1, suffix: str = "_l0"
) -> tuple[Slot, ...]:
    """Return the variables of a recurrent cell: kernels of [in, gates x units], `gates` in the order of PyTorch."""
    pattern, sizes = ("i (g n) -> (g n) i", {"g": count}) if gates else ("i o -> o i", {})
    layout = Rearrangement(pattern=pattern, sizes=sizes, gates=gates)
    slots = (
        Slot(keras="kernel", torch=(f"weight_ih{suffix}",), layout=layout),
        Slot(keras="recurrent_kernel", torch=(f"weight_hh{suffix}",), layout=layout),
    )
    if not config.get("use_bias", True):
        return slots
    if gates is None:
        return (*slots, Slot(keras="bias", torch=(f"bias_ih{suffix}",), added=f"bias_hh{suffix}"))
    two = Rearrangement(pattern="b (g n) -> b (g n)", sizes=sizes, gates=gates)
    return (*slots, Slot(keras="bias", torch=(f"bias_ih{suffix}", f"bias_hh{suffix}"), layout=two))


def reversed_direction(slot: Slot) -> Slot:
    """Return a slot of a recurrent layer as that of the backward one of two."""
    added = None if slot.added is None else f"{slot.added}_reverse"
    return replace(slot, torch=tuple(f"{name}_reverse" for name in slot.torch), added=added)


def gru(config: Config, *, suffix: str = "_l0") -> tuple[Slot, ...] | None:
    """Return the variables of a GRU; None unless `reset_after` is set: torch.nn.GRU computes nothing else."""
    return recurrent(config, gates=_GRU_ORDER, count=3, suffix=suffix) if config.get("reset_after", True) else None


def cudnn(config: Config, *, count: int, gates: tuple[int, ...] | None = None, suffix: str = "_l0") -> tuple[Slot, ...]:
    """Return the variables of a layer that Keras 2 had for cuDNN alone, shaped as an LSTM's or GRU's but for the bias.

    Each gate has its weights as cuDNN does, and there are two biases: `_convert_rnn_weights` of Keras 2.15
    (saving/legacy/hdf5_format.py) makes an ordinary layer's of them.
    """
    sizes, units = {"g": count}, _size(config, "units")
    apart = Rearrangement(pattern="i (g n) -> g (i n)", sizes={**sizes, "n": units}, gates=gates)
    read_again = Rearrangement(pattern="g (n i) -> (g n) i", sizes={**sizes, "n": units})
    within = Rearrangement(pattern="m (g n) -> (g m) n", sizes=sizes, gates=gates)
    two = Rearrangement(pattern="(b g n) -> b (g n)", sizes={"b": 2, **sizes}, gates=gates)
    return (
        Slot(keras="kernel", torch=(f"weight_ih{suffix}",), layout=apart, again=read_again),
        Slot(keras="recurrent_kernel", torch=(f"weight_hh{suffix}",), layout=within),
        Slot(keras="bias", torch=(f"bias_ih{suffix}", f"bias_hh{suffix}"), layout=two),
    )


RECURRENT: Mapping[str, Callable[..., tuple[Slot, ...] | None]] = {
    "LSTM": recurrent,
    "SimpleRNN": recurrent,
    "GRU": gru,
    "CuDNNLSTM": partial(cudnn, count=4),
    "CuDNNGRU": partial(cudnn, count=3, gates=_GRU_ORDER),
}
CUDNN = ("CuDNNLSTM", "CuDNNGRU")
"""They are cells of their own, which others have inside."""


def attention(config: Config) -> dict[str, tuple[Slot, ...]] | None:
    """Return the slots of the projections of MultiHeadAttention by name, in the order of the layer's variables."""
    heads, key = _size(config, "num_heads"), _size(config, "key_dim")
    value = _size(config, "value_dim") if config.get("value_dim") else key
    if config.get("output_shape") and len(_axes(config, "output_shape")) != 1:
        return None
    has_bias = config.get("use_bias", True)
    return {
        "query": heads_in(heads, key, has_bias=has_bias),
        "key": heads_in(heads, key, has_bias=has_bias),
        "value": heads_in(heads, value, has_bias=has_bias),
        "attention_output": heads_out(heads, value, has_bias=has_bias),
    }


def heads_in(heads: int, size: int, *, has_bias: bool) -> tuple[Slot, ...]:
    """Return kernel and bias of a projection into heads: [in, heads, size]."""
    sizes = {"h": heads, "k": size}
    kernel = Slot(keras="kernel", torch=("weight",), layout=Rearrangement(pattern=HEADS_IN, sizes=sizes))
    bias = Slot(keras="bias", torch=("bias",), layout=Rearrangement(pattern=HEADS_BIAS, sizes=sizes))
    return (kernel, bias) if has_bias else (kernel,)


def heads_out(heads: int, size: int, *, has_bias: bool) -> tuple[Slot, ...]:
    """Return kernel and bias of a projection out of heads: [heads, size, out]."""
    layout = Rearrangement(pattern=HEADS_OUT, sizes={"h": heads, "k": size})
    return (Slot(keras="kernel", torch=("weight",), layout=layout), *_bias({"use_bias": has_bias}))


def einsum_dense(config: Config) -> tuple[Slot, ...] | None:
    """Return the slots of an EinsumDense that is a linear map of trailing axes, None for any other.

    Raises ValueError for an equation or bias axes that are none.
    """
    equation, axes = config["equation"], config.get("bias_axes")
    if not isinstance(equation, str) or not isinstance(axes, str | None):
        raise ValueError("'equation' or 'bias_axes'")
    linear = _linear_map(equation)
    if linear is None:
        return None
    sizes = linear.sizes(config)
    produced = " ".join(linear.produced)
    pattern = f"{' '.join(linear.kernel)} -> ({produced}) ({' '.join(linear.contracted)})"
    kernel = Slot(keras="kernel", torch=("weight",), layout=Rearrangement(pattern=pattern, sizes=sizes))
    if axes is None:
        return (kernel,)
    if sorted(axes) != sorted(linear.produced):
        return None
    layout = Rearrangement(pattern=f"{produced} -> ({produced})", sizes=sizes)
    return kernel, Slot(keras="bias", torch=("bias",), layout=layout)


@dataclass(frozen=True, slots=True, kw_only=True)
class _LinearMap:
    """The axes of an equation that sums over the last axes of its input and has new ones as the last of its output."""

    kernel: str
    output: str
    contracted: str
    produced: str

    def sizes(self, config: Config) -> dict[str, int]:
        """Return the extents of those produced axes that the `output_shape` of the config has, counted from its end.

        Raises ValueError for one of another length.
        """
        shape = config.get("output_shape")
        shape = shape if isinstance(shape, list | tuple) else [] if shape is None else [shape]
        if any(extent is not None and type(extent) is not int for extent in shape):
            raise ValueError("'output_shape'")
        from_the_end = zip(reversed(self.output), reversed(shape), strict=False)
        return {axis: extent for axis, extent in from_the_end if axis in self.produced and extent}


def _linear_map(equation: str) -> _LinearMap | None:
    match = re.fullmatch(r"(\.\.\.)?([a-zA-Z]+),([a-zA-Z]+)->(\.\.\.)?([a-zA-Z]+)", equation.replace(" ", ""))
    if match is None:
        return None
    inputs, kernel, output = match[2], match[3], match[5]
    contracted = "".join(axis for axis in inputs if axis in kernel and axis not in output)
    produced = "".join(axis for axis in output if axis in kernel and axis not in inputs)
    if sorted(contracted + produced) != sorted(kernel) or not contracted or not produced:
        return None
    if not inputs.endswith(contracted) or not output.endswith(produced):
        return None
    return _LinearMap(kernel=kernel, output=output, contracted=contracted, produced=produced)


SIMPLE: Mapping[str, Callable[[Config], tuple[Slot, ...] | None]] = {
    "Dense": dense,
    "Embedding": embedding,
    "Conv1D": convolution(3),
    "Conv2D": convolution(4),
    "Conv3D": convolution(5),
    "Conv1DTranspose": convolution(3),
    "Conv2DTranspose": convolution(4),
    "Conv3DTranspose": convolution(5),
    "Convolution1D": convolution(3),
    "Convolution2D": convolution(4),
    "Convolution3D": convolution(5),
    "DepthwiseConv1D": depthwise_convolution(3),
    "DepthwiseConv2D": depthwise_convolution(4),
    "SeparableConv1D": separable_convolution(3),
    "SeparableConv2D": separable_convolution(4),
    "BatchNormalization": batch_normalization,
    "LayerNormalization": normalization,
    "GroupNormalization": normalization,
    "RMSNormalization": rms_normalization,
    "Normalization": adapted,
    "PReLU": prelu,
    "EinsumDense": einsum_dense,
}
"""Layers whose variables are their own; those of recurrent layers and attention are inside cells and projections."""

_WITHOUT_VARIABLES_NAMES = """
InputLayer Activation ReLU LeakyReLU ELU Softmax ThresholdedReLU Dropout SpatialDropout1D SpatialDropout2D
SpatialDropout3D GaussianDropout GaussianNoise AlphaDropout ActivityRegularization Flatten Reshape Permute
RepeatVector Masking Identity Lambda Add Subtract Multiply Average Maximum Minimum Concatenate Dot
MaxPooling1D MaxPooling2D MaxPooling3D AveragePooling1D AveragePooling2D AveragePooling3D MaxPool1D MaxPool2D
MaxPool3D AvgPool1D AvgPool2D AvgPool3D GlobalMaxPooling1D GlobalMaxPooling2D GlobalMaxPooling3D
GlobalAveragePooling1D GlobalAveragePooling2D GlobalAveragePooling3D ZeroPadding1D ZeroPadding2D ZeroPadding3D
Cropping1D Cropping2D Cropping3D UpSampling1D UpSampling2D UpSampling3D Rescaling Resizing CenterCrop
UnitNormalization RandomFlip RandomRotation RandomZoom RandomTranslation RandomContrast RandomCrop RandomBrightness
TFOpLambda SlicingOpLambda
"""
WITHOUT_VARIABLES = frozenset(_WITHOUT_VARIABLES_NAMES.split())
"""Layers of Keras that have nothing to convert."""
