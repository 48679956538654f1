"""Parts of transformers' models that torch.export cannot follow, as others that compute the same, while it traces.

Each is for transformers 5.23; transformers.exporters has such of its own. What is not patched: Longformer classes that
give some tokens global attention themselves (QuestionAnswering, SequenceClassification, MultipleChoice), for how many
there are is in the data.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable, Iterator
from typing import Any

_SCANNING = ("mamba", "falcon_mamba", "jamba", "zamba")
_WITH_GLOBAL_ATTENTION = ("longformer", "led")
_LISTING_IMAGES = ("llava", "vipllava")
_WITHOUT_KEYS_AT_PADDING = ("deberta", "deberta-v2")
_GLOBAL_BY_ITSELF = ("ForQuestionAnswering", "ForSequenceClassification", "ForMultipleChoice")


@contextlib.contextmanager
def exportable(model: Any) -> Iterator[None]:
    """Patch what the model uses, and undo it afterwards."""
    import torch

    with contextlib.ExitStack() as stack:
        for model_type in {getattr(config, "model_type", "") for config in _configs(model.config)}:
            if model_type in _SCANNING:
                module = _modeling(model_type)
                stack.enter_context(replaced(module, "mamba_selective_scan", _selective_scan))
                # a scan that has a gradient keeps extents for it, which torch 2.13 takes for tensors
                stack.enter_context(torch.no_grad())
            if model_type == "funnel":
                structure = _modeling("funnel").FunnelAttentionStructure
                stack.enter_context(replaced(structure, "get_position_embeds", _funnel_positions))
            if model_type == "fsmt":
                stack.enter_context(replaced(_modeling("fsmt"), "make_padding_mask", _padding_mask))
            if model_type == "vilt":
                embeddings = _modeling("vilt").ViltEmbeddings
                stack.enter_context(replaced(embeddings, "visual_embed", _all_patches))
            if model_type in _LISTING_IMAGES:
                stack.enter_context(_images_as_one(_modeling(model_type)))
            if model_type == "led":
                encoder = _modeling("led").LEDEncoder
                stack.enter_context(replaced(encoder, "_pad_to_window_size", _padded(encoder._pad_to_window_size)))
            if model_type in _WITH_GLOBAL_ATTENTION and not type(model).__name__.endswith(_GLOBAL_BY_ITSELF):
                stack.enter_context(_in_windows(model.config))
        stack.enter_context(_attention_as_on_a_cpu())
        yield


@contextlib.contextmanager
def padding_as_tensorflow(model: Any) -> Iterator[None]:
    """Have the model compute padded positions as its class of TensorFlow, where the two differ: in DeBERTa's attention.

    TFDebertaXSoftmax (transformers 4.57) gives a query that is padding no keys, the class of PyTorch all of them.
    """
    model_type = model.config.model_type
    if model_type not in _WITHOUT_KEYS_AT_PADDING:
        yield
        return
    attention = _modeling(model_type.replace("-", "_")).DisentangledSelfAttention
    original = attention.forward

    def forward(self: Any, hidden_states: Any, attention_mask: Any, *others: Any, **keywords: Any) -> Any:
        found, *more = original(self, hidden_states, attention_mask, *others, **keywords)
        return found * attention_mask.bool().any(dim=-1)[:, 0, :, None], *more

    with replaced(attention, "forward", forward):
        yield


def masks_as_they_are() -> Any:
    """Return a context where no mask is left out for being all ones: on the meta device none is known to be."""
    masking = importlib.import_module("transformers.masking_utils")
    return replaced(masking, "_ignore_causal_mask_sdpa", lambda *arguments, **keywords: False)


def _configs(config: Any) -> Iterator[Any]:
    yield config
    yield from (part for part in vars(config).values() if hasattr(part, "to_diff_dict"))


def _modeling(model_type: str) -> Any:
    return importlib.import_module(f"transformers.models.{model_type}.modeling_{model_type}")


@contextlib.contextmanager
def replaced(owner: Any, name: str, replacement: Any) -> Iterator[None]:
    """Have `owner` call something else by this name for a while."""
    original = getattr(owner, name)
    setattr(owner, name, replacement)
    try:
        yield
    finally:
        setattr(owner, name, original)


@contextlib.contextmanager
def _attention_as_on_a_cpu() -> Iterator[None]:
    """Attend evenly where a mask of numbers has the least one at every key, as torch does on a CPU and in eager mode.

    The exporter of transformers gives such a query zeros instead, which are right for masks of truth values and of
    minus infinity.
    """
    import torch
    from transformers.exporters import exporter_onnx, utils

    def attention(original: Callable[..., Any]) -> Callable[..., Any]:
        theirs = exporter_onnx._patch_sdpa(original)

        def attend(query: Any, key: Any, value: Any, attn_mask: Any = None, *others: Any, **keywords: Any) -> Any:
            if attn_mask is None or attn_mask.dtype is torch.bool:
                return theirs(query, key, value, attn_mask, *others, **keywords)
            torch._check(key.shape[-2] == value.shape[-2])
            attended = (attn_mask > -torch.inf).to(query.dtype).sum(dim=-1, keepdim=True)
            found = original(query, key, value, attn_mask, *others, **keywords)
            return torch.where(attended < 1, torch.zeros((), dtype=found.dtype, device=found.device), found)

        return attend

    patches = [
        (owner, name, attention if name == "scaled_dot_product_attention" else replacement)
        for owner, name, replacement in utils._PATCHES["onnx"]
    ]
    with _replaced_item(utils._PATCHES, "onnx", patches):
        yield


@contextlib.contextmanager
def attention_without_keys() -> Iterator[None]:
    """Attend to nothing where a mask leaves no key, as torch does: the exporter of torch attends to all keys evenly."""
    import torch

    original = torch.nn.functional.scaled_dot_product_attention

    def attend(query: Any, key: Any, value: Any, attn_mask: Any = None, *others: Any, **keywords: Any) -> Any:
        found = original(query, key, value, attn_mask, *others, **keywords)
        if attn_mask is None:
            return found
        has_key = (attn_mask if attn_mask.dtype is torch.bool else attn_mask > -torch.inf).any(dim=-1, keepdim=True)
        return torch.where(has_key, found, torch.zeros((), dtype=found.dtype, device=found.device))

    with replaced(torch.nn.functional, "scaled_dot_product_attention", attend):
        yield


@contextlib.contextmanager
def _replaced_item(owner: dict[str, Any], key: str, replacement: Any) -> Iterator[None]:
    """Have `owner` hold something else at this key for a while."""
    original = owner[key]
    owner[key] = replacement
    try:
        yield
    finally:
        owner[key] = original


class _Padding:
    """How many tokens were added to fill windows, for `states[:, :-padding]`: also of none, which upstream asks for."""

    def __init__(self, kept: Any) -> None:
        self.kept = kept

    def __gt__(self, other: int) -> bool:
        return True

    def __neg__(self) -> Any:
        return self.kept


def _padded(original: Callable[..., Any]) -> Callable[..., Any]:
    """Return LED's padding to whole windows with a `_Padding` in place of the number."""

    def padded(self: Any, input_ids: Any, attention_mask: Any, inputs_embeds: Any, pad_token_id: Any) -> Any:
        kept = (inputs_embeds if input_ids is None else input_ids).shape[1]
        return (_Padding(kept), *original(self, input_ids, attention_mask, inputs_embeds, pad_token_id)[1:])

    return padded


def _selective_scan(
    hidden_states: Any,
    dt: Any,
    transition: Any,
    inward: Any,
    outward: Any,
    *,
    z: Any = None,
    delta_bias: Any = None,
    delta_softplus: bool = False,
    return_last_state: bool = False,
    **others: Any,
) -> Any:
    """The recurrence of a state space, as a scan: upstream it is a Python loop over the sequence."""
    import torch
    from torch._higher_order_ops.scan import scan

    functional = torch.nn.functional
    if delta_bias is not None:
        dt = dt + delta_bias.to(dt.dtype)[..., None]
    if delta_softplus:
        dt = functional.softplus(dt)
    steps = dt.permute(2, 0, 1)
    inputs, outputs = inward.permute(2, 0, 1), outward.permute(2, 0, 1)
    decay = torch.exp(steps[..., None] * transition[None, None])
    added = steps[..., None] * inputs[:, :, None, :].float() * hidden_states.permute(2, 0, 1)[..., None].float()

    def step(state: Any, each: Any) -> Any:
        decay, added, output = each
        state = decay * state + added
        return state, torch.matmul(state, output[..., None])[..., 0]

    state, found = scan(step, torch.zeros_like(added[0]), (decay, added, outputs))
    result = found.permute(1, 2, 0)
    skipped = others.get("D")
    if skipped is not None:
        result = result + hidden_states * skipped[None, :, None]
    if z is not None:
        result = result * functional.silu(z)
    return (result, state) if return_last_state else result


def _funnel_positions(self: Any, seq_len: Any, dtype: Any, device: Any) -> Any:
    """Relative positions of Funnel's blocks, from the ends of sequences: upstream they are lists as long as the text.

    A sequence is its first position, the step and start of the others, and how many there are.
    """
    import torch

    config = self.config
    half = config.d_model // 2
    frequencies = torch.arange(0, half, 1.0, dtype=torch.int64, device=device).to(dtype)
    frequencies = 1 / (10000 ** (frequencies / half))
    if config.attention_type == "factorized":
        angles = torch.arange(0, seq_len, 1.0, dtype=torch.int64, device=device).to(dtype)[:, None] * frequencies[None]
        sine, cosine = torch.sin(angles), torch.cos(angles)
        pairs = ((sine, sine), (cosine, cosine), (cosine, sine), (-sine, cosine))
        phi, pi, psi, omega = (torch.cat(pair, dim=-1) for pair in pairs)
        return phi, pi, psi, omega

    def embedded(first: Any, last: Any, reference: Any, count: Any, stride: int) -> Any:
        start = reference - first + count * stride
        distances = torch.arange(start, reference - last - 1, -stride, dtype=torch.long, device=device)
        angles = distances.to(dtype)[:, None] * frequencies[None]
        return torch.cat([torch.sin(angles), torch.cos(angles)], dim=-1)

    first, slope, offset, count = 0, 1, 0, seq_len
    result = []
    for block in range(config.num_blocks):
        pooling = None
        if block > 0:
            old_first, old_last = first, slope * (count - 1) + offset
            if config.separate_cls:
                kept = count - 2 if config.truncate_seq else count - 1
                first, slope, offset, count = 1 - 2**block, 2 * slope, offset - slope, 1 + (kept + 1) // 2
            else:
                slope, count = 2 * slope, (count + 1) // 2
            pooling = embedded(old_first, old_last, first, 2 * count, 2 ** (block - 1))
        last = slope * (count - 1) + offset
        result.append([embedded(first, last, first, count, 2**block), pooling])
    return result


def _padding_mask(input_ids: Any, padding_idx: int = 1) -> Any:
    """Where padding is, also where there is none: upstream that is None instead, which depends on the data."""
    return input_ids.eq(padding_idx)


def _all_patches(self: Any, pixel_values: Any, pixel_mask: Any, max_image_length: int = 200) -> Any:
    """Patches of whole images in their order: upstream they are in an order drawn by chance, for masks may hide some.

    Outputs that do not depend on the order are the same. Raises ValueError where chance would leave patches out.
    """
    import torch

    patches = self.patch_embeddings(pixel_values)
    batch, size, height, width = patches.shape
    if 0 <= max_image_length < height * width:
        raise ValueError(f"{max_image_length} of {height * width} patches would be drawn by chance")
    grid = self.config.image_size // self.config.patch_size
    first, others = self.position_embeddings[:, :1], self.position_embeddings[:, 1:]
    positions = others.transpose(1, 2).reshape(1, size, grid, grid)
    if (height, width) != (grid, grid):
        positions = torch.nn.functional.interpolate(positions, (height, width), mode="bilinear", align_corners=True)
    embedded = torch.cat([self.cls_token + first, positions.flatten(2).transpose(1, 2)], dim=1)
    embedded = embedded + torch.nn.functional.pad(patches.flatten(2).transpose(1, 2), (0, 0, 1, 0))
    mask = torch.ones((batch, height * width + 1), dtype=torch.long, device=patches.device)
    places = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    places = torch.stack(places, dim=-1).reshape(1, -1, 2).expand(batch, -1, -1)
    return embedded, mask, (places, (height, width))


def _images_as_one(module: Any) -> Any:
    """Keep the features of all images in one tensor: upstream they are a list, as long as there are images."""
    import torch
    from torch.overrides import TorchFunctionMode

    owner = next(value for name, value in vars(module).items() if name.lower() in ("llavamodel", "vipllavamodel"))
    original = owner.get_image_features

    class Flattening(TorchFunctionMode):  # type: ignore[misc]
        def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if function is torch.Tensor.unbind:
                return (args[0].flatten(0, 1),)
            if function is torch.Tensor.__len__:
                # What `list` asks for to reserve memory, and so would be burnt into the graph.
                return 1
            return function(*args, **(kwargs or {}))

    def features(self: Any, *arguments: Any, **keywords: Any) -> Any:
        with Flattening():
            return original(self, *arguments, **keywords)

    return replaced(owner, "get_image_features", features)


@contextlib.contextmanager
def _in_windows(config: Any) -> Iterator[None]:
    """Attention in windows, without global attention: no token has it where no mask says so, whatever the text.

    Windows that overlap are unfolded instead of strided, and what they number is divided as integers, not as tensors.
    """
    import torch
    from torch.overrides import TorchFunctionMode

    class Windows(TorchFunctionMode):  # type: ignore[misc]
        def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            keywords = kwargs or {}
            if function is torch.Tensor.item and args[0].dtype is torch.bool:
                return False
            if function is torch.div and not isinstance(args[0], torch.Tensor):
                return args[0] // args[1]
            if function is torch.Tensor.as_strided:
                # Three windows of values around each of queries.
                width = keywords["size"][2]
                return args[0].unfold(1, width, width // 3).transpose(2, 3)
            return function(*args, **keywords)

    original = getattr(config, "onnx_export", False)
    config.onnx_export = True
    try:
        with Windows():
            yield
    finally:
        config.onnx_export = original
