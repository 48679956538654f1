"""Names of tensors as paths of modules: `encoder.layer.0.weight` is the parameter `weight` of `encoder.layer.0`.

A part that PyTorch or Python refuses, or that would hide something of nn.Module, gets a ``>`` at its end; the name of a
tensor that is the path of a module, too, gets two. Each ``>`` that a part ends with already becomes three: so names
come back.
"""

from __future__ import annotations

import keyword
from collections.abc import Iterable

_MARK = ">"

# What an nn.Module, or the one that converter.graphs.lower.torch.module makes, has as attributes (torch 2.13), and what
# transformers 5.23 gives to every nn.Module when it makes a model.
_RESERVED = """
    T_destination _apply _backward_hooks _backward_pre_hooks _buffers _call_impl _compiled_call_impl _constants
    _forward_hooks _forward_hooks_always_called _forward_hooks_with_kwargs _forward_pre_hooks
    _forward_pre_hooks_with_kwargs _get_backward_hooks _get_backward_pre_hooks _get_name _graph
    _is_full_backward_hook _load_from_state_dict _load_state_dict_post_hooks _load_state_dict_pre_hooks
    _maybe_warn_non_full_backward_hook _modules _named_members _non_persistent_buffers_set _parameters
    _register_load_state_dict_pre_hook _register_state_dict_hook _replicate_for_data_parallel _save_to_state_dict
    _slow_forward _state_dict_hooks _state_dict_pre_hooks _version _wrapped_call_impl add_module apply bfloat16
    buffers call_super_init children compile cpu cuda double dump_patches eval extra_repr float forward get_buffer
    get_extra_state get_parameter get_submodule half ipu load_state_dict modules mtia named_buffers named_children
    named_modules named_parameters parameters register_backward_hook register_buffer register_forward_hook
    register_forward_pre_hook register_full_backward_hook register_full_backward_pre_hook
    register_load_state_dict_post_hook register_load_state_dict_pre_hook register_module register_parameter
    register_state_dict_post_hook register_state_dict_pre_hook requires_grad_ set_extra_state set_submodule
    share_memory smart_apply state_dict to to_empty train training type xpu zero_grad
"""
# torch.fx writes programs as Python source.
RESERVED = frozenset((*_RESERVED.split(), *keyword.kwlist))
_MODULE = "self"
"""What the module is called there: no tensor of its own may be, though any other part of a name."""


def module_names(names: Iterable[str]) -> dict[str, str]:
    """Return name -> the key that the tensor has in the module's state_dict."""
    names = list(names)
    modules = {name[:at] for name in names for at, character in enumerate(name) if character == "."}
    return {name: _escaped(name, is_module_too=name in modules) for name in names}


def original_name(key: str) -> str:
    """Return the name that `module_names` made `key` of."""
    return ".".join(_restored(part) for part in key.split("."))


def _escaped(name: str, *, is_module_too: bool) -> str:
    if name == _MODULE:
        return name + (2 if is_module_too else 1) * _MARK
    *modules, leaf = name.split(".")
    return ".".join([*map(_marked, modules), _tripled(leaf) + 2 * _MARK if is_module_too else _marked(leaf)])


def _marked(part: str) -> str:
    is_reserved = part == "" or part in RESERVED or part.startswith("__")
    return _tripled(part) + (_MARK if is_reserved else "")


def _tripled(part: str) -> str:
    plain = part.rstrip(_MARK)
    return plain + 3 * part[len(plain) :]


def _restored(part: str) -> str:
    plain = part.rstrip(_MARK)
    return plain + (len(part) - len(plain)) // 3 * _MARK
