"""Print what get_config() of every layer, optimizer and schedule of a Keras says: `python FILE tf_keras`.

Needs that Keras alone. tf_keras_settings.json beside this file is what tf_keras 2.21 with TensorFlow 2.21 says.
"""

from __future__ import annotations

import importlib
import json
import sys
from typing import Any

LAYERS = """
Dense Embedding Conv1D Conv2D Conv3D Conv1DTranspose Conv2DTranspose Conv3DTranspose DepthwiseConv1D DepthwiseConv2D
SeparableConv1D SeparableConv2D BatchNormalization LayerNormalization GroupNormalization RMSNormalization Normalization
PReLU EinsumDense LSTM SimpleRNN GRU MultiHeadAttention Bidirectional TimeDistributed InputLayer Activation ReLU
LeakyReLU ELU Softmax ThresholdedReLU Dropout SpatialDropout1D SpatialDropout2D SpatialDropout3D GaussianDropout
GaussianNoise AlphaDropout ActivityRegularization Flatten Reshape Permute RepeatVector Masking Identity Lambda Add
Subtract Multiply Average Maximum Minimum Concatenate Dot MaxPooling1D MaxPooling2D MaxPooling3D AveragePooling1D
AveragePooling2D AveragePooling3D GlobalMaxPooling1D GlobalMaxPooling2D GlobalMaxPooling3D GlobalAveragePooling1D
GlobalAveragePooling2D GlobalAveragePooling3D ZeroPadding1D ZeroPadding2D ZeroPadding3D Cropping1D Cropping2D Cropping3D
UpSampling1D UpSampling2D UpSampling3D Rescaling Resizing CenterCrop UnitNormalization RandomFlip RandomRotation
RandomZoom RandomTranslation RandomContrast RandomCrop RandomBrightness
"""
OPTIMIZERS = "Adam AdamW SGD RMSprop Adagrad Adadelta Adamax Nadam Ftrl Lion Lamb Muon Adafactor"
LEGACY = "Adam SGD RMSprop Adagrad"
_FACTORS = """
Dropout SpatialDropout1D SpatialDropout2D SpatialDropout3D GaussianDropout GaussianNoise AlphaDropout Rescaling
RandomRotation RandomZoom RandomContrast RandomBrightness
"""
_ARGUMENTS: dict[str, tuple[Any, ...]] = {
    "Dense": (2,),
    "Embedding": (3, 4),
    "EinsumDense": ("ab,bc->ac", 3),
    **dict.fromkeys(("LSTM", "GRU", "SimpleRNN", "RepeatVector"), (3,)),
    "MultiHeadAttention": (2, 4),
    "Activation": ("relu",),
    "Reshape": ((2,),),
    "Permute": ((2, 1),),
    "Dot": (1,),
    **dict.fromkeys(("Resizing", "CenterCrop", "RandomCrop"), (2, 2)),
    "RandomTranslation": (0.1, 0.1),
    **{f"{kind}Pooling{rank}D": (2,) for kind in ("Max", "Average") for rank in "123"},
    **{f"DepthwiseConv{rank}D": (3,) for rank in "12"},
    **{kind.format(rank): (2, 3) for kind in ("Conv{}D", "Conv{}DTranspose", "SeparableConv{}D") for rank in "123"},
    **dict.fromkeys(_FACTORS.split(), (0.1,)),
}


def configs(keras: Any) -> dict[str, dict[str, Any]]:
    """Return the configs of one layer of each class that a Keras has, by class."""
    given = dict(_ARGUMENTS)
    given |= {"Bidirectional": (keras.layers.LSTM(2),), "TimeDistributed": (keras.layers.Dense(2),)}
    given["Lambda"] = (abs,)
    more = {"InputLayer": {"input_shape": (2,)}}
    made = {}
    for name in LAYERS.split():
        layer_class = getattr(keras.layers, name, None)
        if layer_class is not None:
            made[name] = layer_class(*given.get(name, ()), **more.get(name, {})).get_config()
    return made


def optimizers(keras: Any) -> dict[str, dict[str, Any]]:
    """Return the configs of optimizers as they are by default, by class; those before 2.11 as `legacy.Adam`."""
    found = {name: getattr(keras.optimizers, name, None) for name in OPTIMIZERS.split()}
    if keras.__name__ == "tf_keras":
        found |= {f"legacy.{name}": getattr(keras.optimizers.legacy, name) for name in LEGACY.split()}
    return {name: optimizer().get_config() for name, optimizer in found.items() if optimizer is not None}


def plain(config: dict[str, Any]) -> dict[str, Any]:
    """Return a config with the class alone of each object in it."""
    return {key: value.get("class_name") if isinstance(value, dict) else value for key, value in config.items()}


def schedules(keras: Any) -> list[str]:
    """Return the names of the classes of schedules."""
    return sorted(name for name in dir(keras.optimizers.schedules) if name.endswith(("Decay", "Restarts")))


def main(name: str) -> None:
    keras = importlib.import_module(name)
    told = {
        "layers": {layer: plain(config) for layer, config in configs(keras).items()},
        "optimizers": {optimizer: plain(config) for optimizer, config in optimizers(keras).items()},
        "schedules": schedules(keras),
        "activations": sorted(each for each in dir(keras.activations) if each[0].islower()),
    }
    print(json.dumps(told, indent=1, default=lambda value: value.tolist()))


if __name__ == "__main__":
    main(sys.argv[1])
