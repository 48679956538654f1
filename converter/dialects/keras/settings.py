"""Every setting that the layers of Keras have in their configs, and what becomes of it where PyTorch gets the weights.

`LAYERS` is the table, of data: class -> setting -> rule. Settings are those of get_config() in Keras 3.15, tf_keras
2.21 and, by the names that Keras 2 gave them (`OLDER`), Keras 1.2.2. What a rule says of a value is in `semantics`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from converter.dialects.keras.modules import CUDNN


class Fate(Enum):
    """What becomes of a setting."""

    HELD = "names, shapes or layouts of the tensors hold it"
    INERT = "it changes nothing that the layer computes"
    TRAINING = "it changes training alone"
    ARGUMENT = "the module of PyTorch has an argument for it"
    BESIDE = "something beside the module of PyTorch computes it"
    ABSENT = "PyTorch's module does not compute it"
    WIRING = "it is written where the module is called, as PyTorch's modules have no such setting"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """The rule of one setting.

    `default`   what Keras takes where a config does not say
    `plain`     values with which PyTorch's module computes the same without a word
    `argument`  PyTorch's name of it, for `ARGUMENT`
    `reading`   the function of `semantics` that says more than the value, by name
    """

    fate: Fate
    default: Any = None
    plain: tuple[Any, ...] = ()
    argument: str = ""
    reading: str = ""


Rules = Mapping[str, Rule]

HELD, INERT = Rule(fate=Fate.HELD), Rule(fate=Fate.INERT)
TRAINING = Rule(fate=Fate.TRAINING, plain=(None, 0, False))
_OFF = (None, False)


def _each(rule: Rule, names: str) -> dict[str, Rule]:
    return dict.fromkeys(names.split(), rule)


def _alike(rules: Rules, names: str) -> dict[str, Rules]:
    return dict.fromkeys(names.split(), rules)


def _absent(*plain: Any, reading: str = "") -> Rule:
    return Rule(fate=Fate.ABSENT, default=plain[0], plain=plain, reading=reading)


def _argument(name: str, default: Any, *plain: Any, reading: str = "") -> Rule:
    return Rule(fate=Fate.ARGUMENT, default=default, plain=plain, argument=name, reading=reading)


def _wiring(default: Any = None, *plain: Any) -> Rule:
    return Rule(fate=Fate.WIRING, default=default, plain=plain)


_SAME_PRECISION = Rule(fate=Fate.BESIDE, reading="precision")
COMMON: Rules = {
    **_each(INERT, "name batch_input_shape batch_shape batch_size input_dtype registered_name"),
    **_each(TRAINING, "activity_regularizer"),
    "trainable": Rule(fate=Fate.TRAINING, default=True, plain=(True, None)),
    "dtype": _SAME_PRECISION,
    "quantization_config": _absent(None),
}
"""What every layer may have; input shapes too, which the first of a Sequential has."""

_ACTIVATION = Rule(fate=Fate.BESIDE, default="linear", reading="activation")
_KERNEL: Rules = {
    **_each(HELD, "use_bias"),
    **_each(INERT, "kernel_initializer bias_initializer"),
    **_each(TRAINING, "kernel_regularizer bias_regularizer kernel_constraint bias_constraint"),
    "activation": _ACTIVATION,
}
_DENSE: Rules = {**_KERNEL, **_each(HELD, "units input_dim"), "lora_rank": _absent(None), "lora_alpha": _absent(None)}
_CONVOLUTION: Rules = {
    **_KERNEL,
    **_each(HELD, "filters kernel_size data_format"),
    "strides": _argument("stride", 1, 1),
    "padding": Rule(fate=Fate.ARGUMENT, default="valid", reading="padding"),
    "dilation_rate": _argument("dilation", 1, 1),
    "groups": _argument("groups", 1, 1),
    "lora_rank": _absent(None),
    "lora_alpha": _absent(None),
}
_TRANSPOSED: Rules = {
    **_CONVOLUTION,
    "padding": Rule(fate=Fate.ARGUMENT, default="valid", reading="cropping"),
    "output_padding": HELD,  # in the note on padding
}
_DEPTHWISE: Rules = {
    **_CONVOLUTION,
    **_each(HELD, "depth_multiplier groups"),
    **_each(INERT, "depthwise_initializer"),
    **_each(TRAINING, "depthwise_regularizer depthwise_constraint"),
}
_SEPARABLE: Rules = {
    **_DEPTHWISE,
    **_each(INERT, "pointwise_initializer"),
    **_each(TRAINING, "pointwise_regularizer pointwise_constraint"),
}
_SCALED: Rules = {
    **_each(HELD, "center scale"),
    **_each(INERT, "beta_initializer gamma_initializer"),
    **_each(TRAINING, "beta_regularizer gamma_regularizer beta_constraint gamma_constraint"),
}
_BATCH: Rules = {
    **_SCALED,
    **_each(INERT, "moving_mean_initializer moving_variance_initializer fused renorm_clipping renorm_momentum"),
    **_each(TRAINING, "renorm virtual_batch_size adjustment synchronized"),
    "axis": Rule(fate=Fate.ABSENT, default=-1, reading="channel_axis"),
    "epsilon": _argument("eps", 1e-3, 1e-5),
    "momentum": Rule(fate=Fate.ARGUMENT, default=0.99, reading="momentum"),
    "mode": _absent(0),  # of Keras 1: 1 normalises each sample, 2 each batch
}
_LAYER_NORM: Rules = {
    **_SCALED,
    "axis": Rule(fate=Fate.ABSENT, default=-1, reading="last_axes"),
    "epsilon": _argument("eps", 1e-3, 1e-5),
    "rms_scaling": _absent(False),
}
_RECURRENT: Rules = {
    **_each(HELD, "units use_bias input_dim"),
    **_each(INERT, "kernel_initializer recurrent_initializer bias_initializer unit_forget_bias unroll implementation"),
    **_each(INERT, "input_length seed time_major"),  # time_major is in the note on batch_first
    **_each(TRAINING, "kernel_regularizer recurrent_regularizer bias_regularizer kernel_constraint"),
    **_each(TRAINING, "recurrent_constraint bias_constraint dropout recurrent_dropout"),
    "activation": _absent("tanh", reading="gate"),
    "go_backwards": _absent(False),
    "stateful": _absent(False),
    "zero_output_for_mask": _absent(False),
    "return_sequences": Rule(fate=Fate.WIRING, default=False, reading="sequences"),
    "return_state": _wiring(False, False),
}
_GATED: Rules = {
    "activation": _RECURRENT["activation"],
    "recurrent_activation": Rule(fate=Fate.ABSENT, default="sigmoid", plain=("sigmoid",), reading="gate"),
    **_RECURRENT,
}
_POOL: Rules = {
    "pool_size": _wiring(2),
    "strides": _wiring(),
    "padding": _wiring("valid", "valid"),
    "data_format": HELD,
}
_GLOBAL_POOL: Rules = {"data_format": HELD, "keepdims": _wiring(False, False)}
_RANDOM: Rules = _each(TRAINING, "rate stddev l1 l2 factor height_factor width_factor mode") | _each(
    INERT, "seed noise_shape data_format fill_mode fill_value interpolation value_range rng_type"
)
_SIZED: Rules = {
    **_each(_wiring(), "height width"),
    **_each(_wiring(False, False), "crop_to_aspect_ratio pad_to_aspect_ratio antialias"),
    **_each(INERT, "seed rng_type fill_mode fill_value"),
    "data_format": HELD,
    "interpolation": _wiring("bilinear"),
}

LAYERS: Mapping[str, Rules] = {
    "Dense": _DENSE,
    "EinsumDense": {
        **{key: rule for key, rule in _DENSE.items() if key != "use_bias"},
        **_each(HELD, "bias_axes output_shape"),
        "equation": Rule(fate=Fate.BESIDE, reading="equation"),
    },
    "Embedding": {
        **_each(HELD, "input_dim output_dim"),
        **_each(INERT, "embeddings_initializer input_length sparse"),
        **_each(TRAINING, "embeddings_regularizer embeddings_constraint dropout"),
        "mask_zero": _absent(False),
        "lora_rank": _absent(None),
        "lora_alpha": _absent(None),
    },
    **{name: _CONVOLUTION for rank in "123" for name in (f"Conv{rank}D", f"Convolution{rank}D")},
    **{f"Conv{rank}DTranspose": _TRANSPOSED for rank in "123"},
    **{f"DepthwiseConv{rank}D": _DEPTHWISE for rank in "12"},
    **{f"SeparableConv{rank}D": _SEPARABLE for rank in "12"},
    "BatchNormalization": _BATCH,
    "LayerNormalization": _LAYER_NORM,
    "GroupNormalization": {
        **_LAYER_NORM,
        "groups": _argument("num_groups", 32, reading="groups"),
        "axis": _BATCH["axis"],
    },
    "RMSNormalization": {
        **_each(HELD, "scale"),
        "axis": _LAYER_NORM["axis"],
        "epsilon": _argument("eps", 1e-6),
    },
    "Normalization": {
        "axis": Rule(fate=Fate.ABSENT, default=-1, reading="last_axes"),
        "invert": _absent(False),
        **_each(Rule(fate=Fate.BESIDE, plain=(None,)), "mean variance"),
    },
    "PReLU": {
        **_each(HELD, "shared_axes"),
        **_each(INERT, "alpha_initializer"),
        **_each(TRAINING, "alpha_regularizer alpha_constraint"),
    },
    "LSTM": _GATED,
    "GRU": {**_GATED, "reset_after": Rule(fate=Fate.ABSENT, default=True, plain=(True,))},
    **dict.fromkeys(CUDNN, _RECURRENT),
    "SimpleRNN": {**_RECURRENT, "activation": _argument("nonlinearity", "tanh", "tanh", reading="nonlinearity")},
    "MultiHeadAttention": {
        **_each(HELD, "use_bias output_shape query_shape key_shape value_shape"),
        **_each(INERT, "kernel_initializer bias_initializer flash_attention seed"),
        **_each(TRAINING, "dropout kernel_regularizer bias_regularizer kernel_constraint bias_constraint"),
        **_each(Rule(fate=Fate.BESIDE, reading="heads"), "num_heads key_dim value_dim"),
        **_each(_absent(None, False), "sliding_window use_gate softmax_robust_masking"),
        "attention_axes": Rule(fate=Fate.BESIDE, reading="attention_axes"),
    },
    "Bidirectional": {**_each(HELD, "layer backward_layer"), "merge_mode": _absent("concat")},
    "TimeDistributed": _each(HELD, "layer"),
    "Wrapper": _each(HELD, "layer"),
    "InputLayer": _each(INERT, "sparse ragged optional") | _each(HELD, "shape"),
    "Activation": {"activation": Rule(fate=Fate.WIRING, default="linear", reading="function")},
    "ReLU": {
        "max_value": _wiring(None, None),
        "negative_slope": _wiring(0, 0, None),
        "threshold": _wiring(0, 0, None),
    },
    "LeakyReLU": {"negative_slope": _wiring(0.3, 0.01), "alpha": _wiring(0.01, 0.01)},
    "ELU": {"alpha": _wiring(1, 1)},
    "ThresholdedReLU": {"theta": _wiring(1)},
    "Softmax": {"axis": _wiring(-1, -1)},
    **_alike(_RANDOM, "Dropout GaussianDropout GaussianNoise AlphaDropout ActivityRegularization"),
    **{f"SpatialDropout{rank}D": _RANDOM for rank in "123"},
    **_alike(_RANDOM, "RandomFlip RandomRotation RandomZoom RandomTranslation RandomContrast RandomBrightness"),
    "RandomCrop": _SIZED,
    "Resizing": _SIZED,
    "CenterCrop": _SIZED,
    "Flatten": {"data_format": HELD},
    "Reshape": {"target_shape": _wiring()},
    "Permute": {"dims": _wiring()},
    "RepeatVector": {"n": _wiring()},
    "Masking": {"mask_value": _wiring(0)},
    "Identity": {},
    "Lambda": {
        **_each(_wiring(None, None), "function arguments output_shape mask"),
        **_each(INERT, "function_type module output_shape_type output_shape_module"),
    },
    **_alike({}, "Add Subtract Multiply Average Maximum Minimum"),
    **_alike({"function": _wiring()}, "TFOpLambda SlicingOpLambda"),
    "Concatenate": {"axis": _wiring(-1, -1)},
    "Dot": {"axes": _wiring(), "normalize": _wiring(False, False)},
    **{f"{kind}{rank}D": _POOL for kind in ("MaxPooling", "AveragePooling", "MaxPool", "AvgPool") for rank in "123"},
    **{f"Global{kind}Pooling{rank}D": _GLOBAL_POOL for kind in ("Max", "Average") for rank in "123"},
    **{f"ZeroPadding{rank}D": {"padding": _wiring(1), "data_format": HELD} for rank in "123"},
    **{f"Cropping{rank}D": {"cropping": _wiring(), "data_format": HELD} for rank in "123"},
    **{
        f"UpSampling{rank}D": {"size": _wiring(2), "data_format": HELD, "interpolation": _wiring("nearest", "nearest")}
        for rank in "123"
    },
    "Rescaling": {"scale": _wiring(), "offset": _wiring(0, 0)},
    "UnitNormalization": {"axis": _wiring(-1, -1), **_each(INERT, "order")},
}
"""Layer classes of `modules.SIMPLE`, `modules.RECURRENT` and `modules.WITHOUT_VARIABLES`, attention and wrappers."""

CALLS: Mapping[str, tuple[Any, ...]] = {
    "training": _OFF,
    "mask": _OFF,
    "attention_mask": _OFF,
    "use_causal_mask": _OFF,
    "return_attention_scores": _OFF,
    "initial_state": _OFF,
    "constants": _OFF,
}
"""What a layer may be called with, and the values that change nothing."""

OLDER: Mapping[str, str] = {
    "nb_filter": "filters",
    "subsample": "strides",
    "subsample_length": "strides",
    "border_mode": "padding",
    "dim_ordering": "data_format",
    "atrous_rate": "dilation_rate",
    "bias": "use_bias",
    "inner_activation": "recurrent_activation",
    "init": "kernel_initializer",
    "inner_init": "recurrent_initializer",
    "forget_bias_init": "unit_forget_bias",
    "consume_less": "implementation",
    "beta_init": "beta_initializer",
    "gamma_init": "gamma_initializer",
    "W_regularizer": "kernel_regularizer",
    "U_regularizer": "recurrent_regularizer",
    "b_regularizer": "bias_regularizer",
    "W_constraint": "kernel_constraint",
    "U_constraint": "recurrent_constraint",
    "b_constraint": "bias_constraint",
    "dropout_W": "dropout",
    "dropout_U": "recurrent_dropout",
    "pool_length": "pool_size",
    "stride": "strides",
    "p": "rate",
    "sigma": "stddev",
    "length": "size",
}
"""Settings of Keras 1 -> what Keras 2 calls them (keras/legacy/interfaces.py, Keras 2.0)."""
_SIZES = "nb_row nb_col nb_depth kernel_dim1 kernel_dim2 kernel_dim3 filter_length output_dim input_dim input_length"
OLDER_HELD = frozenset(_SIZES.split())
"""Settings of Keras 1 that shapes hold."""
