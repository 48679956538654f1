"""What a transformers class takes: text, images, sound, and several of them; from its signature and its config.

Each input is made by a function of its own. What a class can do without (labels, caches, embeddings instead of ids,
head masks) is not an input of a graph, unless a tokenizer or processor always gives it.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from converter.errors import GraphError, UsageError
from converter.graphs.description.signature import Dimension, GraphInput, Role, Sampling, Threshold
from converter.graphs.trace.thresholds import OF_FRAMES, OF_TOKENS, has_growing_positions, thresholds
from converter.model.dtype import DType

_TEXT = ("input_ids", "attention_mask", "token_type_ids")
_READING_HEADS = ("SEQUENCE_CLASSIFICATION", "TOKEN_CLASSIFICATION", "QUESTION_ANSWERING")
_ENCODER_POSITIONS = ("max_encoder_position_embeddings",)
_DECODER_POSITIONS = ("max_target_positions", "max_decoder_position_embeddings")
_POSITIONS = ("max_position_embeddings", "n_positions", "max_seq_len")
_ATTENTION = ("num_attention_heads", "num_heads", "encoder_attention_heads", "attention_heads")
_STEP_PIXELS = 32
_CODE_POINTS = 0x3000
_BATCH = Dimension(name="batch", checked=(3, 1, 4, 2, 2))
_CHOICES = Dimension(name="choices", checked=(2, 4, 3, 2, 1))


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """Inputs in order, those dimensions in their shapes that may vary, and past what a model computes otherwise."""

    inputs: tuple[GraphInput, ...]
    dimensions: tuple[Dimension, ...]
    thresholds: tuple[Threshold, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Class:
    """A model class with its config, and what is known of it.

    `model`           an instance on the meta device
    `forward_names`   the names that its forward takes
    `tokenizer`       the names that its tokenizer gives
    `has_any_size`    whether images of any size are tried
    """

    model: Any
    forward_names: tuple[str, ...]
    tokenizer: tuple[str, ...]
    has_any_size: bool

    @property
    def config(self) -> Any:
        return self.model.config

    @property
    def text(self) -> Any:
        """The part of the config that says which text is read."""
        return self._part(("text_config", "text_encoder_config", "text_encoder", "encoder"), "vocab_size")

    @property
    def written(self) -> Any:
        """The part of the config that says which text is written."""
        return self._part(("decoder", "text_config"), "vocab_size")

    @property
    def sound(self) -> Any:
        """The part of the config that says which sound is heard."""
        return self._part(("audio_config", "speech_config", "encoder"), "num_mel_bins")

    @property
    def vision(self) -> Any:
        """The part of the config that says which images are seen."""
        return self._part(("vision_config", "image_config", "encoder"), "patch_size")

    def _part(self, names: tuple[str, ...], key: str) -> Any:
        parts = [part for name in names if hasattr(part := getattr(self.config, name, None), "to_diff_dict")]
        return next((part for part in parts if hasattr(part, key)), parts[0] if parts else self.config)

    @property
    def reads_text(self) -> bool:
        return "input_ids" in self.forward_names

    def is_among(self, *tasks: str) -> bool:
        """Whether the class is listed for one of these tasks."""
        from transformers.models.auto import modeling_auto

        lists = (getattr(modeling_auto, f"MODEL_FOR_{task}_MAPPING_NAMES") for task in tasks)
        name = type(self.model).__name__
        return any(name == each or name in each for names in lists for each in names.values())


def inputs_of(model: Any, wanted: Sequence[str] | None, *, has_any_size: bool) -> Inputs:
    """Return what the class of `model`, which is on the meta device, takes; `wanted` restricts it to these, in order.

    `has_any_size` lets height and width of images vary. Raises GraphError for a class that needs something unknown,
    UsageError for a wanted input that is none.
    """
    signature = inspect.signature(type(model).forward).parameters
    kind = _Class(
        model=model,
        forward_names=tuple(name for name in signature if name != "self"),
        tokenizer=_tokenizer_inputs(model.config.model_type),
        has_any_size=has_any_size,
    )
    known = {
        name: described
        for name in kind.forward_names
        if name in _INPUTS and (described := _INPUTS[name](kind)) is not None
    }
    order = [*kind.tokenizer, *_TEXT] if kind.reads_text else []
    names = sorted(known, key=lambda name: order.index(name) if name in order else len(order))
    if wanted is None:
        _check_complete(kind, signature, known)
    else:
        _check_wanted(kind, wanted, names)
    inputs = tuple(known[name][0] for name in (names if wanted is None else wanted))
    dimensions = {each.name: each for _, own in known.values() for each in own}
    used = {extent for each in inputs for extent in each.shape}
    return Inputs(
        inputs=inputs,
        dimensions=tuple(each for name, each in dimensions.items() if name in used),
        thresholds=tuple(each for each in _thresholds(kind) if each.dimension in used),
    )


def _check_complete(kind: _Class, signature: Mapping[str, inspect.Parameter], known: Collection[str]) -> None:
    """Raise GraphError when a class cannot do without an input that is not `known`."""
    required = [name for name, each in signature.items() if each.default is each.empty]
    lacking = [name for name in required if name not in known and name != "kwargs"][1:]
    if not known or any(signature[name].kind is inspect.Parameter.POSITIONAL_OR_KEYWORD for name in lacking):
        what = ", ".join(lacking or kind.forward_names)
        raise GraphError(f"{type(kind.model).__name__} takes {what}, and nothing is known of what that is")


def _check_wanted(kind: _Class, wanted: Sequence[str], known: Sequence[str]) -> None:
    unknown = [name for name in wanted if name not in known]
    if unknown:
        message = f"{type(kind.model).__name__} takes no input {unknown[0]!r}"
        raise UsageError(message, hint=f"it takes {', '.join(known)}")


def may_have_any_size(model: Any) -> bool:
    """Whether the class takes images alone, and computes on images of a size that its config does not say.

    Some with attention do, but the conditions on height and width that an export of those meets take it minutes.
    """
    import torch

    if any(getattr(model.config, name, None) is not None for name in _ATTENTION):
        return False
    fixed = inputs_of(model, None, has_any_size=False)
    if [each.name for each in fixed.inputs] != ["pixel_values"] or len(fixed.inputs[0].shape) != 4:
        return False
    _, channels, height, width = fixed.inputs[0].shape
    assert isinstance(height, int)
    assert isinstance(width, int)
    other = (
        2,
        channels,
        math.ceil(height / _STEP_PIXELS + 1) * _STEP_PIXELS,
        (width // _STEP_PIXELS + 3) * _STEP_PIXELS,
    )
    try:
        with torch.no_grad():
            model(pixel_values=torch.empty(other, device="meta"))
    except Exception:
        # Whatever a model says to an image of another size.
        return False
    return True


_Described = tuple[GraphInput, tuple[Dimension, ...]]


def _input_ids(kind: _Class) -> _Described:
    shape, dimensions, images = _text_shape(kind)
    high = next(
        (size for name in ("vocab_size", "n_words", "src_vocab_size") if (size := getattr(kind.text, name, 0))), 0
    )
    return GraphInput(
        name="input_ids",
        dtype=DType.INT64,
        shape=shape,
        sampling=Sampling(
            role=Role.IDS,
            high=high or _CODE_POINTS,
            padding=getattr(kind.text, "pad_token_id", None) or 0,
            leading=images,
            excluded=tuple(sorted({*images, *_special_ids(kind.config)})),
        ),
    ), dimensions


def _special_ids(config: Any) -> list[int]:
    """Ids of the config that stand for something else than text: images, their ends, sounds."""
    names = [name for name in vars(config) if name.endswith(("_token_id", "_token_index"))]
    plain = ("pad_", "bos_", "eos_", "sep_", "cls_", "mask_", "unk_", "decoder_start_", "forced_")
    values = [getattr(config, name) for name in names if not name.startswith(plain)]
    return [value for value in values if isinstance(value, int)]


def _text_shape(kind: _Class) -> tuple[tuple[int | str, ...], tuple[Dimension, ...], tuple[int, ...]]:
    """Return shape and dimensions of text, and the ids that stand for an image at its start."""
    images = _image_ids(kind)
    limit = _limit(kind.model, _positions(kind.text, *_ENCODER_POSITIONS))
    sequence = Dimension(name="sequence", low=len(images), high=limit)
    if kind.is_among("MULTIPLE_CHOICE"):
        return ("batch", "choices", "sequence"), (_BATCH, _CHOICES, sequence), images
    return ("batch", "sequence"), (_BATCH, sequence), images


def _positions(config: Any, *names: str) -> tuple[str, int] | None:
    """Return which value of a config says how many positions there are, and how many."""
    for group in (names, _POSITIONS):
        limits = {name: getattr(config, name, None) for name in group}
        known = {name: limit for name, limit in limits.items() if isinstance(limit, int) and limit > 0}
        if known:
            return min(known.items(), key=lambda item: item[1])
    return None


def _limit(model: Any, positions: tuple[str, int] | None) -> int | None:
    """Return how long a text may be: a table of positions that has one for padding counts those of a text after it."""
    if positions is None:
        return None
    _, limit = positions
    reserved = [
        module.padding_idx + 1
        for name, module in model.named_modules()
        if "position" in name
        and isinstance(getattr(module, "padding_idx", None), int)
        and getattr(module, "num_embeddings", limit) == limit
    ]
    return max(limit - max(reserved, default=0), 1)


def _thresholds(kind: _Class) -> Iterator[Threshold]:
    """Yield the lengths of text and sound from which on the class computes otherwise, the last positions among them."""
    for dimension, config, names in (
        ("sequence", kind.text, _ENCODER_POSITIONS),
        ("decoder_sequence", kind.written, _DECODER_POSITIONS),
    ):
        for name, count in thresholds(config, OF_TOKENS).items():
            yield Threshold(name=name, dimension=dimension, count=count)
        positions = _positions(config, *names)
        if positions is not None:
            last = _limit(kind.model, positions) or 1
            count = positions[1] if has_growing_positions(config) else last - 1
            yield Threshold(name=" ".join(map(str, positions)), dimension=dimension, count=count)
    sound = kind.sound
    for name, count in thresholds(sound, OF_FRAMES).items():
        yield Threshold(name=name, dimension="samples", count=count)
        yield Threshold(name=name, dimension="frames", count=count << (getattr(sound, "num_conv_layers", None) or 0))


def _image_ids(kind: _Class) -> tuple[int, ...]:
    """Return the ids that a processor writes for one image, where images are put into the text."""
    token = getattr(kind.config, "image_token_id", None) or getattr(kind.config, "image_token_index", None)
    if (
        not isinstance(token, int)
        or "pixel_values" not in kind.forward_names
        or not hasattr(kind.model, "get_image_features")
    ):
        return ()
    import torch

    shape = [1 if isinstance(extent, str) else extent for extent in _image_shape(kind)]
    with torch.no_grad():
        found = kind.model.get_image_features(pixel_values=torch.empty(shape, device="meta"))
    pooled = getattr(found, "pooler_output", found)
    features = pooled if isinstance(pooled, (list, tuple)) else [pooled]
    count: int = sum(math.prod(each.shape[:-1]) for each in features)
    return (token,) * count


def _attention_mask(kind: _Class) -> _Described | None:
    if kind.reads_text:
        shape, dimensions, images = _text_shape(kind)
        low = len(images)
    elif "input_values" in kind.forward_names and getattr(kind.config, "feat_extract_norm", None) == "layer":
        samples = _samples(kind)
        shape, dimensions, low = ("batch", "samples"), (_BATCH, samples), samples.low
    elif "input_features" in kind.forward_names and _has_any_length(kind):
        frames = _frames(kind)
        shape, dimensions, low = ("batch", "frames"), (_BATCH, frames), frames.low
    else:
        return None
    sampling = Sampling(role=Role.MASK, low=low)
    return GraphInput(name="attention_mask", dtype=DType.INT64, shape=shape, sampling=sampling), dimensions


def _token_type_ids(kind: _Class) -> _Described | None:
    count = getattr(kind.text, "type_vocab_size", 0)
    if not kind.reads_text or ("token_type_ids" not in kind.tokenizer and count <= 1):
        return None
    shape, dimensions, _ = _text_shape(kind)
    sampling = Sampling(role=Role.TYPES, high=max(int(getattr(kind.text, "type_vocab_size", 2)), 1))
    return GraphInput(name="token_type_ids", dtype=DType.INT64, shape=shape, sampling=sampling), dimensions


def _bbox(kind: _Class) -> _Described:
    shape, dimensions, _ = _text_shape(kind)
    high = min(getattr(kind.config, "max_2d_position_embeddings", 1000), 1000)
    sampling = Sampling(role=Role.BOXES, high=high)
    return GraphInput(name="bbox", dtype=DType.INT64, shape=(*shape, 4), sampling=sampling), dimensions


def _decoder_input_ids(kind: _Class) -> _Described | None:
    if not getattr(kind.config, "is_encoder_decoder", False) or kind.is_among(*_READING_HEADS):
        return None
    written = kind.written
    limit = _limit(kind.model, _positions(written, *_DECODER_POSITIONS))
    start = getattr(kind.config, "decoder_start_token_id", None)
    sampling = Sampling(
        role=Role.IDS,
        high=getattr(written, "tgt_vocab_size", None)
        or getattr(written, "decoder_vocab_size", None)
        or written.vocab_size,
        padding=getattr(kind.config, "pad_token_id", None) or 0,
        leading=() if start is None else (start,),
    )
    sequence = Dimension(name="decoder_sequence", high=limit, checked=(7, 5, 6, 4, 1))
    return GraphInput(
        name="decoder_input_ids", dtype=DType.INT64, shape=("batch", "decoder_sequence"), sampling=sampling
    ), (_BATCH, sequence)


def _pixel_values(kind: _Class) -> _Described:
    shape = _image_shape(kind)
    dimensions = (
        _batch_of_images(kind),
        Dimension(name="height", step=_STEP_PIXELS, checked=(4, 3)),
        Dimension(name="width", step=_STEP_PIXELS, checked=(6, 2)),
    )
    return GraphInput(name="pixel_values", dtype=DType.FLOAT32, shape=shape), dimensions


def _batch_of_images(kind: _Class) -> Dimension:
    """Texts and images that are compared, each with each, need not be equally many."""
    is_dual = all(hasattr(kind.model, name) for name in ("logit_scale", "get_text_features", "get_image_features"))
    return Dimension(name="image_batch", checked=(2, 4)) if is_dual else _BATCH


def _image_shape(kind: _Class) -> tuple[int | str, ...]:
    vision = kind.vision
    channels = next((count for name in ("num_channels", "in_channels") if (count := getattr(vision, name, None))), 3)
    size = getattr(vision, "image_size", None) or 7 * _STEP_PIXELS
    if isinstance(size, dict):
        size = (size["height"], size["width"])
    height, width = size if isinstance(size, (list, tuple)) else (size, size)
    extents: tuple[int | str, ...] = ("height", "width") if kind.has_any_size else (height, width)
    frames = getattr(vision, "num_frames", None)
    before = (channels,) if frames is None else (frames, channels)
    return (_batch_of_images(kind).name, *before, *extents)


def _input_values(kind: _Class) -> _Described:
    if hasattr(kind.config, "conv_stride"):
        sampling = Sampling(padding=0)
        found = GraphInput(name="input_values", dtype=DType.FLOAT32, shape=("batch", "samples"), sampling=sampling)
        return found, (_BATCH, _samples(kind))
    if hasattr(kind.config, "max_length") and hasattr(kind.config, "num_mel_bins"):
        shape = ("batch", kind.config.max_length, kind.config.num_mel_bins)
        return GraphInput(name="input_values", dtype=DType.FLOAT32, shape=shape), (_BATCH,)
    raise GraphError(f"{type(kind.model).__name__} takes input_values, and nothing is known of what they are")


def _samples(kind: _Class) -> Dimension:
    """The waveform: at least what the convolutions see at once, and one frame more for each product of strides."""
    seen, step = 1, 1
    for width, stride in zip(kind.config.conv_kernel, kind.config.conv_stride, strict=True):
        seen += (width - 1) * step
        step *= stride
    return Dimension(name="samples", low=seen + step // 2, step=step)


def _input_features(kind: _Class) -> _Described:
    names = ("num_mel_bins", "input_feat_per_channel", "feature_projection_input_dim", "feature_size")
    features = next((size for name in names if (size := getattr(kind.config, name, None))), None)
    if features is None:
        raise GraphError(f"{type(kind.model).__name__} takes input_features, and nothing is known of what they are")
    if not _has_any_length(kind):
        shape: tuple[int | str, ...] = ("batch", features, 2 * kind.config.max_source_positions)
        return GraphInput(name="input_features", dtype=DType.FLOAT32, shape=shape), (_BATCH,)
    shape = ("batch", "frames", features)
    return GraphInput(name="input_features", dtype=DType.FLOAT32, shape=shape), (_BATCH, _frames(kind))


def _has_any_length(kind: _Class) -> bool:
    """Whether sound may have any length; Whisper reads thirty seconds, and its features come before its frames."""
    return not (hasattr(kind.config, "max_source_positions") and hasattr(kind.config, "num_mel_bins"))


def _frames(kind: _Class) -> Dimension:
    high = getattr(kind.config, "max_source_positions", None)
    return Dimension(name="frames", low=16, high=high, checked=(21, 9, 12, 6, 1))


_INPUTS: dict[str, Callable[[_Class], _Described | None]] = {
    "input_ids": _input_ids,
    "attention_mask": _attention_mask,
    "token_type_ids": _token_type_ids,
    "bbox": _bbox,
    "pixel_values": _pixel_values,
    "input_values": _input_values,
    "input_features": _input_features,
    "decoder_input_ids": _decoder_input_ids,
}


def _tokenizer_inputs(model_type: str) -> tuple[str, ...]:
    import transformers
    from transformers.models.auto.tokenization_auto import TOKENIZER_MAPPING_NAMES

    names = TOKENIZER_MAPPING_NAMES.get(model_type)
    tokenizer = getattr(transformers, names if isinstance(names, str) else "", None)
    return tuple(getattr(tokenizer, "model_input_names", ()))
