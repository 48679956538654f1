"""Which layers take the features of a flattened channels-last map, and so have their inputs in another order.

Keras flattens (H, W, C), PyTorch (C, H, W): a Dense behind a Flatten has its rows permuted, and what normalises
between the two its vectors. Only the number of channels matters, H and W stay together.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum

from converter.dialects.keras.architecture import MODELS, Layer, projections
from converter.dialects.keras.modules import CONVOLUTIONS, DENSE, RECURRENT, Slot


class Order(Enum):
    """How the features of a tensor are laid out."""

    PLAIN = "features last, the same in both frameworks"
    MAP = "a map with channels last"
    MAP_FIRST = "a map with channels first"
    TURNED = "a map with its axes in an order of their own"
    FLAT = "a map with channels last, flattened"
    KEPT = "as a layer of the config laid them out, which no rearrangement of channels tells"
    UNKNOWN = "flattened, with channels that are not known"


@dataclass(frozen=True, slots=True, kw_only=True)
class Features:
    """What is known of the features that a layer gives or takes; `channels` None when that is not.

    `by`  which layer laid out those that are kept, or the flattened ones that are no longer known
    """

    order: Order
    channels: int | None = None
    by: str = ""


_PLAIN = Features(order=Order.PLAIN)
_UNKNOWN = Features(order=Order.UNKNOWN)
_SAME_NAMES = """
Activation ReLU LeakyReLU ELU Softmax ThresholdedReLU Dropout SpatialDropout1D SpatialDropout2D SpatialDropout3D
GaussianDropout GaussianNoise AlphaDropout ActivityRegularization Masking Identity Rescaling UnitNormalization
BatchNormalization LayerNormalization GroupNormalization RMSNormalization PReLU ZeroPadding1D ZeroPadding2D
ZeroPadding3D Cropping1D Cropping2D Cropping3D UpSampling1D UpSampling2D UpSampling3D Resizing CenterCrop RandomFlip
RandomRotation RandomZoom RandomTranslation RandomContrast RandomCrop RandomBrightness RepeatVector LayerScale
StochasticDepth Normalization
"""
_SAME = frozenset(_SAME_NAMES.split())
_POOLS = ("MaxPool", "AveragePool", "AvgPool", "AdaptiveMaxPool", "AdaptiveAveragePool")


def input_features(model: Layer) -> dict[str, Features]:
    """Return, by path, the features of each layer's input that are not plain: FLAT with channels, KEPT or UNKNOWN."""
    trace = _Trace()
    trace.output_of_model(model, [])
    found: dict[str, Features] = {}
    for path, features in trace.inputs.items():
        different = set(features)
        one = features[0] if len(different) == 1 else _UNKNOWN
        if one.order in (Order.FLAT, Order.KEPT, Order.UNKNOWN):
            found[path] = one
    return found


def on_maps(model: Layer) -> frozenset[str]:
    """Return the paths of the layers that take maps with channels last, of four axes or more."""
    trace = _Trace()
    trace.output_of_model(model, [])
    return frozenset(
        path for path, inputs in trace.inputs.items() if any(features.order is Order.MAP for features in inputs)
    )


def is_misordered(slot: Slot, features: Features, shape: Sequence[int]) -> bool:
    """Whether a variable may be in another order than PyTorch's: the features that it takes are not known, or turned.

    A layer of the user's own may flatten a map: where there are more rows than channels, as if for each place.
    """
    if features.order is Order.KEPT:
        channels = features.channels or 0
        return 0 < channels < shape[0] and shape[0] % channels == 0 if shape else False
    is_permuted = slot.layout is not None and "channels" in slot.layout.sizes
    return features.order is Order.UNKNOWN or not is_permuted


def suspects(guessed: Mapping[str, Slot], shapes: Mapping[str, tuple[int, ...]]) -> list[str]:
    """Return the kernels that may be behind a Flatten, as far as shapes tell.

    Their rows are a multiple of the channels of a convolution, and no other layer makes features of that number.
    """
    layouts = {name: slot.layout for name, slot in guessed.items()}
    convolutions = [shapes[name] for name, layout in layouts.items() if layout in CONVOLUTIONS.values()]
    channels = {extent for shape in convolutions for extent in shape[-2:]}
    wide = [shape for shape in shapes.values() if len(shape) > 2]
    rewriting = {shape[1] for shape in shapes.values() if len(shape) == 2}
    rewriting |= {extent for shape in wide for extent in (*shape[-2:], shape[-2] * shape[-1])}
    return [
        name
        for name, layout in layouts.items()
        if layout == DENSE
        and guessed[name].keras == "kernel"
        and guessed[name].torch == ("weight",)
        and shapes[name][0] not in rewriting
        and any(1 < channel < shapes[name][0] and shapes[name][0] % channel == 0 for channel in channels)
    ]


@dataclass(slots=True)
class _Trace:
    """The features of every input of every layer, by the layer's path."""

    inputs: dict[str, list[Features]] = field(default_factory=dict)

    def output_of_model(self, model: Layer, inputs: Sequence[Features]) -> Features:
        """Return the features of a model's output, having noted those of its layers' inputs."""
        return self._sequential(model, inputs) if model.class_name == "Sequential" else self._functional(model, inputs)

    def _sequential(self, model: Layer, inputs: Sequence[Features]) -> Features:
        here = inputs[0] if inputs else _PLAIN
        for position, layer in enumerate(model.layers):
            if layer.class_name == "InputLayer":
                here = inputs[0] if inputs else _input(layer)
            else:
                if position == 0 and not inputs:
                    here = _first(layer)
                here = self.output(layer, [here])
        return here

    def _functional(self, model: Layer, inputs: Sequence[Features]) -> Features:
        by_name = {layer.name: layer for layer in model.layers}
        known: dict[tuple[str, int], Features] = {}
        fed = [layer.name for layer in model.layers if layer.class_name == "InputLayer"]
        for name, features in zip(fed, inputs, strict=False):
            known[name, 0] = features
        # config lists layers after those they take from, so that one pass settles them; the rest stays unknown
        for layer in model.layers:
            calls = layer.inbound or ((),)
            for call, sources in enumerate(calls):
                if (layer.name, call) in known:
                    continue
                if layer.class_name == "InputLayer":
                    known[layer.name, call] = _input(layer)
                    continue
                gathered = [known.get(source, known.get((source[0], 0), _UNKNOWN)) for source in sources]
                known[layer.name, call] = self.output(by_name[layer.name], gathered)
        outputs = [known.get(source, known.get((source[0], 0), _UNKNOWN)) for source in model.outputs]
        return _merged(model, outputs) if outputs else _PLAIN

    def output(self, layer: Layer, inputs: Sequence[Features]) -> Features:
        """Return the features of a layer's output."""
        if layer.class_name in MODELS:
            return self.output_of_model(layer, inputs)
        here = inputs[0] if inputs else _PLAIN
        merged = here if len(inputs) <= 1 else _merged(layer, inputs)
        self.inputs.setdefault(layer.path, []).append(merged)
        if layer.class_name == "TimeDistributed" and layer.layers:  # every step as its layer takes it
            return self.output(layer.layers[0], inputs)
        inside = layer.layers if layer.class_name == "Bidirectional" else ()
        for path in (*(each.path for each in inside), *projections(layer)):
            self.inputs.setdefault(path, []).append(merged)
        return _rule(layer.class_name)(layer, here, inputs)


def _rule(class_name: str) -> _Rule:
    if class_name in _RULES:
        return _RULES[class_name]
    if class_name.startswith("Global"):
        return _global_pooling
    if class_name.startswith(_POOLS):
        return _pooling
    return _convolution if "Conv" in class_name else _unknown_layer


def _unchanged(layer: Layer, here: Features, inputs: Sequence[Features]) -> Features:
    return here


def _plain(layer: Layer, here: Features, inputs: Sequence[Features]) -> Features:
    return _PLAIN


def _unknown_layer(layer: Layer, here: Features, inputs: Sequence[Features]) -> Features:
    orders = {item.order for item in inputs}
    if orders <= {Order.PLAIN}:
        return _PLAIN
    mixed = _mixed(layer, orders)
    return replace(mixed, channels=here.channels) if mixed.order is Order.KEPT and len(inputs) == 1 else mixed


def _merge(layer: Layer, here: Features, inputs: Sequence[Features]) -> Features:
    return _merged(layer, inputs)


def _concatenate(layer: Layer, here: Features, inputs: Sequence[Features]) -> Features:
    return _concatenated(layer, inputs)


def _flatten(layer: Layer, here: Features, inputs: Sequence[Features]) -> Features:
    return _flat(layer, here, channels_first=_is_channels_first(layer))


def _reshape(layer: Layer, here: Features, inputs: Sequence[Features]) -> Features:
    target = _extents(layer.config.get("target_shape"))
    if len(target) == 1:
        return _flat(layer, here, channels_first=False)
    return _reshaped(layer, here, target) if target else _UNKNOWN


def _permute(layer: Layer, here: Features, inputs: Sequence[Features]) -> Features:
    if here.order is Order.MAP:
        return _turned(here, _extents(layer.config.get("dims")))
    return _unknown_layer(layer, here, inputs)


def _dense(layer: Layer, here: Features, inputs: Sequence[Features]) -> Features:
    if here.order in (Order.MAP, Order.MAP_FIRST):
        return Features(order=Order.MAP, channels=_extent(layer.config.get("units")))
    return _units(layer, here, inputs)


def _units(layer: Layer, here: Features, inputs: Sequence[Features]) -> Features:
    channels = _extent(layer.config.get("units")) or _extent(layer.config.get("output_dim"))
    return Features(order=Order.PLAIN, channels=channels)


def _global_pooling(layer: Layer, here: Features, inputs: Sequence[Features]) -> Features:
    return Features(order=Order.PLAIN, channels=here.channels)


def _pooling(layer: Layer, here: Features, inputs: Sequence[Features]) -> Features:
    is_map = here.order not in (Order.KEPT, Order.UNKNOWN)
    return here if not is_map else Features(order=_order_of_map(layer), channels=here.channels)


def _convolution(layer: Layer, here: Features, inputs: Sequence[Features]) -> Features:
    filters = _extent(layer.config.get("filters"))
    multiplier = _extent(layer.config.get("depth_multiplier", 1))
    depthwise = here.channels * multiplier if here.channels and multiplier else None
    return Features(order=_order_of_map(layer), channels=filters or depthwise)


_Rule = Callable[[Layer, Features, Sequence[Features]], Features]
_RULES: Mapping[str, _Rule] = {
    **dict.fromkeys(_SAME, _unchanged),
    **dict.fromkeys(("Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum"), _merge),
    **dict.fromkeys(("Embedding", *RECURRENT), _units),
    **dict.fromkeys(("Bidirectional", "MultiHeadAttention", "EinsumDense"), _plain),
    "Concatenate": _concatenate,
    "Flatten": _flatten,
    "Reshape": _reshape,
    "Permute": _permute,
    "Dense": _dense,
}
"""What each class of layers does to the features; `_rule` has those of poolings and convolutions."""


def _is_channels_first(layer: Layer) -> bool:
    return layer.config.get("data_format") == "channels_first"


def _order_of_map(layer: Layer) -> Order:
    return Order.MAP_FIRST if _is_channels_first(layer) else Order.MAP


def _extent(value: object) -> int | None:
    return value if isinstance(value, int) else None


def _extents(value: object) -> Sequence[int]:
    """Return the extents or axes that a config lists; none where it lists something else."""
    return value if isinstance(value, list | tuple) and all(isinstance(each, int) for each in value) else ()


def _input(layer: Layer) -> Features:
    shape = layer.config.get("batch_shape") or layer.config.get("batch_input_shape") or ()
    return _of_shape(shape)


def _first(layer: Layer) -> Features:
    """What the first layer of a Sequential without an InputLayer takes."""
    return _of_shape(layer.config.get("batch_input_shape") or layer.input_shape or ())


def _of_shape(shape: Sequence[int | None]) -> Features:
    if not isinstance(shape, list | tuple) or len(shape) < 2:
        return _PLAIN
    channels = shape[-1] if isinstance(shape[-1], int) else None
    return Features(order=Order.MAP if len(shape) > 3 else Order.PLAIN, channels=channels)


def _flat(layer: Layer, here: Features, *, channels_first: bool) -> Features:
    if here.order is Order.MAP_FIRST:  # a Flatten that says channels_first brings channels last before it flattens
        return Features(order=Order.FLAT, channels=here.channels) if channels_first else _PLAIN
    if here.order is Order.TURNED or (here.order is Order.MAP and channels_first):
        return _kept(layer)
    if here.order is not Order.MAP:
        return here
    channels = here.channels or (layer.input_shape[-1] if layer.input_shape else None)
    return _UNKNOWN if channels is None else Features(order=Order.FLAT, channels=channels)


def _turned(here: Features, axes: Sequence[int]) -> Features:
    """Return what a Permute makes of a map; axes are counted from 1, behind the batch."""
    if list(axes) == [len(axes), *range(1, len(axes))]:
        return Features(order=Order.MAP_FIRST, channels=here.channels)
    return here if axes and axes[-1] == len(axes) else Features(order=Order.TURNED)


def _reshaped(layer: Layer, here: Features, target: Sequence[int]) -> Features:
    if here.order is Order.PLAIN:
        return _of_shape((None, *target))
    is_same = bool(here.channels) and target[-1] == here.channels
    if is_same and here.order is Order.MAP:
        return Features(order=Order.PLAIN, channels=here.channels)
    if is_same and here.order is Order.FLAT and len(target) > 2:
        return Features(order=Order.MAP, channels=here.channels)
    return _mixed(layer, {here.order})


def _kept(layer: Layer) -> Features:
    target = _extents(layer.config.get("target_shape") or layer.config.get("dims"))
    to = f" to ({', '.join(map(str, target))})" if target else ""
    return Features(order=Order.KEPT, by=f"{layer.class_name} {layer.path!r}{to}")


def _merged(layer: Layer, inputs: Sequence[Features]) -> Features:
    orders = {item.order for item in inputs}
    if not inputs:
        return _UNKNOWN
    if len(set(inputs)) == 1:
        return inputs[0]
    if orders == {Order.PLAIN}:
        return _PLAIN
    if orders <= {Order.MAP, Order.PLAIN}:  # one of them is broadcast
        return next(item for item in inputs if item.order is Order.MAP)
    return _mixed(layer, orders)


def _mixed(layer: Layer, orders: set[Order]) -> Features:
    """Return what a layer makes of features that are laid out in these ways, and are no longer."""
    if Order.UNKNOWN in orders:
        return _UNKNOWN
    return replace(_kept(layer), order=Order.UNKNOWN) if Order.FLAT in orders else _kept(layer)


def _concatenated(layer: Layer, inputs: Sequence[Features]) -> Features:
    orders = {item.order for item in inputs}
    if len(orders) != 1 or not orders <= {Order.PLAIN, Order.MAP}:
        return _mixed(layer, orders) if inputs else _UNKNOWN
    channels = [item.channels for item in inputs if item.channels]
    return Features(order=inputs[0].order, channels=sum(channels) if len(channels) == len(inputs) else None)
