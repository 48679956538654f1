"""Small Flax models of transformers 4.57.6 with random weights, and the PyTorch models that hold the same.

Needs transformers 4.57.6, flax and torch. PyTorch's names are told by rule, for every leaf, and confirmed twice: by
what transformers' own loader makes of the same leaves, and by equal outputs.
"""

from __future__ import annotations

import importlib
import inspect
import os
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from tests.oracle.generate.flax_configs import COMPOSITES, CONFIGS, CROSS_ATTENTION, values

Path = tuple[str, ...]

_PARTS = {"Text": "text_config", "Vision": "vision_config"}
_OTHER_TORCH_CLASSES = {"FlaxBertForCausalLM": "BertLMHeadModel"}
TIED_IN_TORCH_ONLY = {"llama", "mistral"}
"""Types whose Flax class has a head of its own although the config ties it: what is saved has the same values twice."""

_CAUSAL = "ForCausalLM"
_LAYOUTS = {1: None, 2: "i o -> o i", 3: "x i o -> o i x", 4: "y x i o -> o i y x"}
_LEAVES = {
    "scale": "weight",
    "embedding": "weight",
    "mean": "running_mean",
    "var": "running_var",
    "weight_g": "parametrizations.weight.original0",
    "weight_v": "parametrizations.weight.original1",
}


def allow_old_names() -> None:
    """Let jax.numpy have what jax 0.10 has no more: `a_min` and `a_max` of clip (T5, MT5, LongT5) and cat (Bloom)."""
    import jax.numpy as jnp

    if not hasattr(jnp, "cat"):
        jnp.cat = jnp.concatenate
    present = jnp.clip
    if "a_max" in inspect.signature(present).parameters:
        return

    def clip(arr: Any, min: Any = None, max: Any = None, *, a_min: Any = None, a_max: Any = None) -> Any:
        return present(arr, a_min if min is None else min, a_max if max is None else max)

    jnp.clip = clip


def classes() -> dict[str, tuple[str, Any]]:
    """Return class name -> key of the configs, and class, of every Flax model of transformers."""
    import transformers.models
    from transformers.modeling_flax_utils import FlaxPreTrainedModel

    found = {}
    root = os.path.dirname(transformers.models.__file__)
    for folder in sorted(os.listdir(root)):
        path = os.path.join(root, folder)
        names = sorted(os.listdir(path)) if os.path.isdir(path) else []
        for name in names:
            if name.startswith("modeling_flax_") and name.endswith(".py") and name != "modeling_flax_auto.py":
                module = importlib.import_module(f"transformers.models.{folder}.{name[:-3]}")
                for class_name, value in vars(module).items():
                    is_own = inspect.isclass(value) and value.__module__ == module.__name__
                    is_model = is_own and issubclass(value, FlaxPreTrainedModel)
                    if is_model and not class_name.endswith("PreTrainedModel"):
                        found[class_name] = (_family(value, folder), value)
    return found


def _family(model_class: Any, folder: str) -> str:
    model_type = model_class.config_class.model_type
    return model_type if model_type in CONFIGS or model_type in COMPOSITES else folder.replace("_", "-")


def variants() -> Iterator[tuple[str, str, Any, int]]:
    """Yield class name, family, class and variant of all that is to be built."""
    for class_name, (family, model_class) in classes().items():
        for variant in (0, 1):
            yield class_name, family, model_class, variant


def config_of(class_name: str, family: str, model_class: Any, variant: int) -> Any:
    """Return the small config of a class."""
    if family in COMPOSITES:
        return _composite_config(family, model_class, variant)
    given = values(family, variant)
    if class_name.endswith("QuestionAnswering"):
        given.pop("num_labels", None)
    config_class = model_class.config_class
    for part, key in _PARTS.items():
        if f"{part}Config" in config_class.__name__ and key in given:
            given = given[key]
    if class_name.endswith(_CAUSAL) and family in {*CROSS_ATTENTION, "bart"}:
        given |= {"is_decoder": True, "add_cross_attention": bool(variant) and family in CROSS_ATTENTION}
    return config_class(**given)


def _composite_config(family: str, model_class: Any, variant: int) -> Any:
    _, (first, first_key), (second, second_key), more = COMPOSITES[family][variant]
    parts = {}
    for key, model_type in ((first_key, first), (second_key, second)):
        parts[key] = {**_part_values(model_type), "model_type": model_type}
    if second_key == "decoder":
        parts["decoder"] |= {"is_decoder": True, "add_cross_attention": True, "bos_token_id": 1, "eos_token_id": 2}
        if more.get("adapter"):
            parts["encoder"] |= {"add_adapter": True, "num_adapter_layers": 2, "output_hidden_size": 16}
        if more.get("wide"):
            key = "n_embd" if second == "gpt2" else "hidden_size"
            parts["decoder"] |= {key: 18}
        return model_class.config_class(**parts, decoder_start_token_id=1, pad_token_id=0)
    return model_class.config_class(**parts, projection_dim=10)


def _part_values(model_type: str) -> dict[str, Any]:
    if model_type == "clip_vision_model":
        return dict(values("clip", 0)["vision_config"])
    return values(model_type, 0)


def build(class_name: str, family: str, model_class: Any, variant: int) -> Any:
    """Return the Flax model with random values in every leaf; which ones, the name and variant decide."""
    allow_old_names()
    config = config_of(class_name, family, model_class, variant)
    given = {"input_shape": input_shape(config)} if input_shape(config) is not None else {}
    model = model_class(config, seed=0, **given)
    seed = zlib.crc32(f"{class_name} {variant}".encode())
    generator = np.random.default_rng(seed)
    leaves = {path: random_leaf(generator, path, leaf) for path, leaf in flat(model.params).items()}
    if family in TIED_IN_TORCH_ONLY and config.tie_word_embeddings and ("lm_head", "kernel") in leaves:
        leaves["lm_head", "kernel"] = leaves["model", "embed_tokens", "embedding"].T
    model.params = nested(leaves)
    return model


def input_shape(config: Any) -> tuple[int, ...] | None:
    """Return the shape of inputs that a model is initialised with, None for that of the class."""
    shapes = {"longt5": (1, 8)}
    return shapes.get(config.model_type)


def random_leaf(generator: np.random.Generator, path: Path, leaf: Any) -> np.ndarray:
    """Return random numbers of a leaf's shape and type; variances are positive."""
    shape = tuple(leaf.shape)
    if path[0] == "batch_stats" and path[-1] == "var":
        return generator.uniform(0.5, 1.5, shape).astype(leaf.dtype)
    return generator.normal(0.0, 0.3, shape).astype(leaf.dtype)


def flat(params: Any) -> dict[Path, np.ndarray]:
    """Return path -> array of a tree of parameters."""
    from flax.core import unfreeze
    from flax.traverse_util import flatten_dict

    return {path: np.asarray(leaf) for path, leaf in flatten_dict(unfreeze(params)).items()}


def nested(leaves: Mapping[Path, np.ndarray]) -> Any:
    """Return the tree of parameters with these leaves, as arrays of jax."""
    import jax.numpy as jnp
    from flax.traverse_util import unflatten_dict

    return unflatten_dict({path: jnp.asarray(leaf) for path, leaf in leaves.items()})


def torch_class(class_name: str) -> Any:
    """Return PyTorch's class of a Flax class."""
    import transformers

    return getattr(transformers, _OTHER_TORCH_CLASSES.get(class_name, class_name.removeprefix("Flax")))


@dataclass(frozen=True)
class Pair:
    """A Flax model, and the PyTorch model with the same values.

    `mapping`   leaf -> name of PyTorch's state dict and layout
    `left`      leaves that PyTorch has no tensor for
    `missing`   PyTorch's names that no leaf is for
    `loader`    "same" when transformers' own loader made the same of the leaves, else what it did
    """

    flax: Any
    torch: Any
    mapping: Mapping[Path, tuple[str, str | None]]
    left: list[Path]
    missing: list[str]
    loader: str


def in_torch(model: Any) -> Pair:
    """Return the model with the same in PyTorch. Raises ValueError when shapes do not fit."""
    import torch

    class_ = torch_class(type(model).__name__)
    # as from_dict does it; the attention that Flax computes is the eager one
    config = type(model.config).from_dict(model.config.to_dict())
    torch_model = class_._from_config(config, attn_implementation="eager").eval()
    state = torch_model.state_dict()
    leaves = flat(model.params)
    mapping: dict[Path, tuple[str, str | None]] = {}
    left = []
    for path, leaf in leaves.items():
        name = torch_name(path, class_.base_model_prefix, state)
        if name is None:
            left.append(path)
            continue
        layout = layout_of(path, leaf)
        mapping[path] = (name, layout)
        array = arranged(leaf, layout)
        if array.shape != tuple(state[name].shape):
            raise ValueError(f"{path} is {array.shape} and {name} is {tuple(state[name].shape)}")
        state[name] = torch.from_numpy(np.array(array, order="C"))
    taken = {name for name, _ in mapping.values()}
    pointers = {name: tensor.data_ptr() for name, tensor in torch_model.state_dict().items()}
    tied = {pointers[name] for name in taken}
    for name, pointer in pointers.items():
        if name not in taken and pointer in tied:
            state[name] = state[next(other for other in taken if pointers[other] == pointer)]
    torch_model.load_state_dict(state)
    missing = [name for name, pointer in pointers.items() if name not in taken and pointer not in tied]
    return Pair(
        flax=model,
        torch=torch_model,
        mapping=mapping,
        left=left,
        missing=missing,
        loader=_loader_says(model, class_, config, state, mapping),
    )


def torch_name(path: Path, prefix: str, state: Mapping[str, Any]) -> str | None:
    """Return the name in PyTorch's state dict of a leaf, None when there is none."""
    *above, leaf = path[1:] if path[0] in ("params", "batch_stats") else path
    candidates = [leaf] if leaf != "kernel" else ["weight"]
    candidates = [_LEAVES[leaf], leaf] if leaf in _LEAVES else candidates
    for modules in _module_paths(above):
        for candidate in candidates:
            name = ".".join([*modules, candidate])
            for full in (name, f"{prefix}.{name}"):
                if full in state:
                    return full
    return None


def _module_paths(above: list[str]) -> list[list[str]]:
    """Return the modules that a leaf may be of: as Flax has them, and as PyTorch calls two of them."""
    flattened = [module.removeprefix("layer_") if module.startswith("layer_") else module for module in above]
    whisper = ["proj_out"] if above == ["lm_head"] else above
    return [above, flattened, whisper]


def layout_of(path: Path, leaf: np.ndarray) -> str | None:
    """Return how a leaf's layout differs from PyTorch's."""
    return _LAYOUTS[leaf.ndim] if path[-1] == "kernel" else None


def arranged(leaf: np.ndarray, layout: str | None) -> np.ndarray:
    """Return a leaf in PyTorch's layout."""
    if layout is None:
        return leaf
    before, after = (side.split() for side in layout.split("->"))
    return leaf.transpose([before.index(axis) for axis in after])


def _loader_says(model: Any, class_: Any, config: Any, state: Any, mapping: Any) -> str:
    from transformers.modeling_flax_pytorch_utils import load_flax_weights_in_pytorch_model

    try:
        loaded = load_flax_weights_in_pytorch_model(class_(config), model.params).state_dict()
    except Exception as error:  # whatever the loader raises, it is a result
        return f"{type(error).__name__}: {str(error).splitlines()[0][:200]}"
    other = sorted({name for name, _ in mapping.values() if not np.array_equal(loaded[name], state[name])})
    return f"misses {', '.join(other[:4])}{' ...' if len(other) > 4 else ''}" if other else "same"
