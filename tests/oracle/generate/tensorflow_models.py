"""Small TensorFlow models of transformers 4.57.6, and the PyTorch models whose random weights they hold.

Needs transformers 4.57.6, tf-keras and torch, and TF_USE_LEGACY_KERAS=1 in the environment.
"""

from __future__ import annotations

import copy
import importlib
import inspect
import os
import re
import zlib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np

from converter.dialects.transformers.mechanical import translated
from tests.oracle.generate.tensorflow_configs import COMPOSITES, CONFIGS, values

NOT_MODELS = {
    "TFBartPretrainedModel",
    "TFDPREncoder",
    "TFDPRPretrainedContextEncoder",
    "TFDPRPretrainedQuestionEncoder",
    "TFDPRPretrainedReader",
    "TFDPRSpanPredictor",
    "TFSegformerDecodeHead",
}
"""Subclasses of TFPreTrainedModel that are bases or parts of models, and never saved on their own."""

_CALLED_OTHERWISE = (
    (r"/pos_proj/", "/pos_key_proj/"),
    (r"/pos_q_proj/", "/pos_query_proj/"),
    (r"/tf_esm_attention(_\d+)?/", "/crossattention/"),
    (r"/question_encoder/bert/", "/question_encoder/"),
    (r"^final_logits_bias", "tf_rag/rag/generator/final_logits_bias"),
)
"""What is in TensorFlow's name, and what in PyTorch's: DeBERTa-v2 without shared keys, ESM's cross-attention, RAG."""

_PARTS = {"Text": "text_config", "Vision": "vision_config"}


@dataclass(frozen=True)
class Pair:
    """A PyTorch model with random values, and the TensorFlow model that transformers loaded them into.

    `missing`   variables that the loader found no source for; they keep random values of their own
    `unused`    names of PyTorch that the loader found no variable for
    """

    tensorflow: Any
    torch: Any
    missing: list[str]
    unused: list[str]


def classes() -> dict[str, tuple[str, Any]]:
    """Return class name -> model type of its tables' config, and class, of every TensorFlow model of transformers."""
    import transformers.models
    from transformers.modeling_tf_utils import TFPreTrainedModel

    found = {}
    root = os.path.dirname(transformers.models.__file__)
    for folder in sorted(os.listdir(root)):
        path = os.path.join(root, folder)
        names = sorted(os.listdir(path)) if os.path.isdir(path) else []
        for name in names:
            if name.startswith("modeling_tf_") and name.endswith(".py") and name != "modeling_tf_auto.py":
                module = importlib.import_module(f"transformers.models.{folder}.{name[:-3]}")
                for class_name, value in vars(module).items():
                    if _is_model(value, TFPreTrainedModel, module.__name__):
                        found[class_name] = (_family(value, folder), value)
    return found


def _is_model(value: object, base: type, module: str) -> bool:
    if not inspect.isclass(value) or not issubclass(value, base) or value.__module__ != module:
        return False
    return not value.__name__.endswith("PreTrainedModel") and value.__name__ not in NOT_MODELS


def _family(model_class: Any, folder: str) -> str:
    """Return the key of CONFIGS: the model type of the whole model, where the class is one of its parts."""
    model_type = getattr(model_class.config_class, "model_type", None)
    if model_type in CONFIGS or model_type in COMPOSITES:
        return str(model_type)
    return next((key for key in (folder.replace("_", "-"), folder) if key in CONFIGS or key in COMPOSITES), folder)


def config_of(class_name: str, family: str, model_class: Any, variant: int) -> Any:
    """Return the small config of a class."""
    given = values(family, variant)
    config_class = model_class.config_class
    for part, key in _PARTS.items():
        if f"{part}Config" in config_class.__name__ and key in given:
            given = given[key]
            break
    if class_name == "TFDPRReader":
        given = {**given, "projection_dim": 0}
    return config_class(**given)


def variants() -> Iterator[tuple[str, str, Any, int]]:
    """Yield class name, family, class and variant of all that is to be built."""
    for class_name, (family, model_class) in classes().items():
        if family in CONFIGS or family in COMPOSITES:
            for variant in (0, 1):
                yield class_name, family, model_class, variant


def build(class_name: str, family: str, model_class: Any, variant: int) -> Pair:
    """Return both models of a class with the same random values; which ones, the name and variant decide."""
    import transformers
    from transformers.modeling_tf_pytorch_utils import load_pytorch_weights_in_tf2_model

    config = config_of(class_name, family, model_class, variant)
    generator = np.random.default_rng(zlib.crc32(f"{class_name} {variant}".encode()))
    torch_model = getattr(transformers, class_name[2:])(copy.deepcopy(config)).eval()
    fill_torch(torch_model, generator)
    model = model_class(config)
    model.build_in_name_scope()
    with suppress(Exception):  # some parts are built by a call alone, and some variants cannot take the dummy inputs
        model(model.dummy_inputs, training=False)
    fill(model, generator)
    model, told = load_pytorch_weights_in_tf2_model(
        model,
        torch_model.state_dict(),
        tf_inputs={},
        allow_missing_keys=True,
        output_loading_info=True,
        tf_to_pt_weight_rename=getattr(model, "tf_to_pt_weight_rename", None),
    )
    complete(model, torch_model.state_dict())
    return Pair(
        tensorflow=model, torch=torch_model, missing=list(told["missing_keys"]), unused=list(told["unexpected_keys"])
    )


def complete(model: Any, state: Mapping[str, Any]) -> None:
    """Load what the loader of transformers calls by a wrong name, and leaves as it was."""
    for variable in model.weights:
        name = variable.name
        for pattern, replacement in _CALLED_OTHERWISE:
            name = re.sub(pattern, replacement, name)
        if name == variable.name:
            continue
        path = translated(name.removesuffix(":0").partition("/")[2], len(variable.shape)).name
        tensor = state.get(path, state.get(path.partition(".")[2]))
        if tensor is not None:
            array = tensor.numpy()
            variable.assign(array.T if name.endswith("kernel:0") else array)


def fill_torch(model: Any, generator: np.random.Generator) -> None:
    """Put random numbers into every parameter and buffer but those that the class computes."""
    import torch

    computed = {f"{path}.weight" for path, module in model.named_modules() if "Sinusoidal" in type(module).__name__}
    done: set[int] = set()
    for name, tensor in model.state_dict().items():
        is_computed = name in computed or name.endswith("inv_freq") or not tensor.is_floating_point()
        if is_computed or tensor.data_ptr() in done:
            continue
        done.add(tensor.data_ptr())
        tensor.copy_(torch.from_numpy(_random(name, tuple(tensor.shape), generator)))


def fill(model: Any, generator: np.random.Generator) -> None:
    """Put random numbers into every variable."""
    for variable in model.weights:
        if variable.dtype.is_floating:
            variable.assign(_random(variable.name, tuple(variable.shape), generator))


def _random(name: str, shape: tuple[int, ...], generator: np.random.Generator) -> Any:
    is_variance = name.endswith(("moving_variance:0", "running_var"))
    array = generator.uniform(0.5, 1.5, shape) if is_variance else generator.normal(0.0, 0.3, shape)
    return np.asarray(array, np.float32)
