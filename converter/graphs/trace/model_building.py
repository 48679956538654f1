"""Building a transformers class from a hostile config: its own registry only, sizes capped, no weight in memory."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

from converter.errors import ArchitectureError, GraphError, MissingExtraError

DEFAULT_SIZE_LIMIT_BYTES = 1 << 44
_MODULE_LIMIT = 100_000
_BUFFER_LIMIT_BYTES = 1 << 30
# What a checkpoint's config must not decide here: code to import, kernels, quantisation, and what the graph returns.
_REMOVED_KEYS = frozenset(
    {"auto_map", "attn_implementation", "experts_implementation", "quantization_config", "dtype", "torch_dtype"}
)
_RETURNED_STATE = ("use_cache", "use_mems_eval")
_STATES = ("output_hidden_states", "output_attentions")
_GRAPH_SETTINGS = {"return_dict": True, **dict.fromkeys(_STATES, False)}


def model_class(architecture: str) -> Any:
    """Return the transformers class of that name, from the model mappings of transformers itself.

    Raises ArchitectureError when they do not list it, MissingExtraError without torch or transformers.
    """
    transformers = _transformers()
    from transformers.models.auto import modeling_auto

    registered: set[str] = set()
    for attribute, mapping in vars(modeling_auto).items():
        if attribute.endswith("MAPPING_NAMES"):
            for names in mapping.values():
                registered.update((names,) if isinstance(names, str) else names)
    found = getattr(transformers, architecture, None) if architecture in registered else None
    if found is None or not issubclass(found, transformers.PreTrainedModel):
        raise ArchitectureError(
            f"{architecture!r} is not a model class of transformers {transformers.__version__}",
            hint="name one with --task or --config",
        )
    return found


def model_config(class_: Any, config_values: Mapping[str, Any]) -> Any:
    """Return the config object of a model class, less what a checkpoint must not decide.

    Raises ArchitectureError when the config is another model's, or does not build.
    """
    config_class = class_.config_class
    model_type = config_values.get("model_type", config_class.model_type)
    if model_type != config_class.model_type:
        raise ArchitectureError(
            f"{class_.__name__} wants a config of model type {config_class.model_type!r}, this is {model_type!r}"
        )
    cleaned = {**_cleaned(config_values), **_GRAPH_SETTINGS}
    with _build_failures(class_.__name__):
        config = config_class.from_dict(cleaned)
        for part in (config, *(each for each in vars(config).values() if hasattr(each, "to_diff_dict"))):
            for state in _RETURNED_STATE:
                if getattr(part, state, False):
                    setattr(part, state, False)
    return config


def return_states(config: Any, config_values: Mapping[str, Any]) -> None:
    """Have a model return the hidden states and attention maps that a config says it returns."""
    for state in _STATES:
        if config_values.get(state) is True:
            setattr(config, state, True)
    if config.output_attentions:
        config._attn_implementation = "eager"  # the only one that has them


def config_of_type(config_values: Mapping[str, Any]) -> Any:
    """Return the config object of the model type that a config names, less what a checkpoint must not decide.

    Raises ArchitectureError when transformers has no such type, or the config does not build.
    """
    transformers = _transformers()
    model_type = str(config_values.get("model_type"))
    if model_type not in transformers.CONFIG_MAPPING:
        raise ArchitectureError(f"{model_type!r} is not a model type of transformers {transformers.__version__}")
    with _build_failures(model_type):
        return transformers.CONFIG_MAPPING[model_type].from_dict(_cleaned(config_values))


def _cleaned(values: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: _cleaned(value) if isinstance(value, Mapping) else value
        for key, value in values.items()
        if not key.startswith("_") and key not in _REMOVED_KEYS
    }


def abstract_model(class_: Any, config: Any, *, size_limit_bytes: int = DEFAULT_SIZE_LIMIT_BYTES) -> Any:
    """Return the model wholly on the meta device, in evaluation mode.

    Raises ArchitectureError when the config does not build, or builds more than `size_limit_bytes` of parameters.
    """
    import torch

    with _build_failures(class_.__name__), _registration(size_limit_bytes, is_abstract=True), torch.device("meta"):
        return class_(config).eval()


def computed_tensors(class_: Any, config: Any) -> dict[str, Any]:
    """Return what the config alone decides, with its real values, and no checkpoint need have.

    That is the non-persistent buffers of a model (position ids, rotary frequencies), and the parameters that
    save_pretrained leaves out (sinusoids). Only these are allocated: others move to the meta device as they are
    registered. Call `abstract_model` first: it is the one that refuses absurd sizes before anything is allocated.
    """
    with _build_failures(class_.__name__), _registration(DEFAULT_SIZE_LIMIT_BYTES, is_abstract=False):
        model = class_(config).eval()
    persistent = set(model.state_dict())
    values = {name: value.detach() for name, value in model.named_buffers() if name not in persistent}
    for name in unsaved_parameters(model):
        first, second = (_initialised(model, name) for _ in range(2))
        if first.equal(second):
            values[name] = first
    return values


def unsaved_parameters(model: Any) -> tuple[str, ...]:
    """Return the names of what is in the state dict of a model and save_pretrained leaves out."""
    return tuple(name for name in model.state_dict() if name in (model._keys_to_ignore_on_save or ()))


def _initialised(model: Any, name: str) -> Any:
    import torch

    path, _, leaf = name.rpartition(".")
    module = model.get_submodule(path).to_empty(device="cpu", recurse=False)
    torch.nn.init.normal_(getattr(module, leaf).data)
    for each in module.parameters(recurse=False):
        each._is_hf_initialized = False
    module._is_hf_initialized = False
    with torch.no_grad():
        model._init_weights(module)
    return getattr(module, leaf).detach().clone()


@contextlib.contextmanager
def _registration(size_limit_bytes: int, *, is_abstract: bool) -> Iterator[None]:
    """Count what modules register, stop at the limits, and keep parameters off the memory of the machine."""
    import torch

    module = torch.nn.Module
    register_parameter, register_buffer, initialise = module.register_parameter, module.register_buffer, module.__init__
    sizes = {"parameters": 0, "buffers": 0, "modules": 0}

    def count(kind: str, amount: int, limit: int) -> None:
        sizes[kind] += amount
        if sizes[kind] > limit:
            raise ArchitectureError(f"the config asks for more {kind} than there may be ({limit})")

    def counted_initialise(self: Any, *arguments: Any, **keywords: Any) -> None:
        count("modules", 1, _MODULE_LIMIT)
        initialise(self, *arguments, **keywords)

    def counted_parameter(self: Any, name: str, parameter: Any) -> None:
        if parameter is not None:
            count("parameters", parameter.numel() * parameter.element_size(), size_limit_bytes)
            if not parameter.is_meta:
                parameter = torch.nn.Parameter(parameter.to("meta"), requires_grad=parameter.requires_grad)
        register_parameter(self, name, parameter)

    def counted_buffer(self: Any, name: str, buffer: Any, *arguments: Any, **keywords: Any) -> None:
        if is_abstract and buffer is not None:
            count("buffers", buffer.numel() * buffer.element_size(), _BUFFER_LIMIT_BYTES)
        register_buffer(self, name, buffer, *arguments, **keywords)

    replacements = {
        "__init__": counted_initialise,
        "register_parameter": counted_parameter,
        "register_buffer": counted_buffer,
    }
    try:
        for name, replacement in replacements.items():
            setattr(module, name, replacement)
        yield
    finally:
        for name, original in zip(replacements, (initialise, register_parameter, register_buffer), strict=True):
            setattr(module, name, original)


@contextlib.contextmanager
def _build_failures(architecture: str) -> Iterator[None]:
    # The config's values reach the constructors of some four hundred model classes, which fail in any way they like.
    try:
        yield
    except (ArchitectureError, GraphError):
        raise
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ArchitectureError(f"{architecture} cannot be built from this config: {reason[:300]}") from error


def _transformers() -> Any:
    try:
        import torch  # noqa: F401
        import transformers
    except ImportError as error:
        raise MissingExtraError("torch", "tracing a transformers model") from error
    return transformers
