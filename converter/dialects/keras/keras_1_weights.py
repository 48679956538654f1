"""The weights of a Keras 1 file as Keras 2 has them: which arrays make which variable, and how.

Facts: `build` of the layers of Keras 1.2.2, and `preprocess_weights_for_loading` of Keras 2.0 (engine/topology.py).
Theano turns the windows of convolutions by 180 degrees, TensorFlow does not. No file states which of the two it was,
but names do: those of TensorFlow's variables end in ``:0``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from converter.dialects.keras import architecture, keras_1
from converter.dialects.keras.architecture import MODELS, Layer
from converter.dialects.keras.modules import WITHOUT_VARIABLES
from converter.dialects.names.operations import TwoWay
from converter.dialects.rewriting import Derivation, Rewriting
from converter.encoding.hdf5.layers import TOP_LEVEL
from converter.errors import ReadError
from converter.model.checkpoint import Checkpoint, Config, Dialect, Listing
from converter.model.tensor import Array, ComputedTensor, Tensor, concat

_SUFFIX = ":0"
_LEAF_NAMES = """
depthwise_kernel pointwise_kernel running_mean running_std gamma beta alphas
W_i W_f W_c W_o W_z W_r W_h U_i U_f U_c U_o U_z U_r U_h b_i b_f b_c b_o b_z b_r b_h W U b
"""
_NAME = re.compile(rf"(.+)_({'|'.join(_LEAF_NAMES.split())})(?:_\d+)?(?::0)?")
NOT_TRAINED = ("_running_mean", "_running_std")
"""How the names of variables end that no layer of Keras 1 trains."""
_NUMBER = re.compile(r"_\d+$")

Recipes = Mapping[str, Sequence[object]]
"""Layer -> how each of its variables is made, as JSON values."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Variable:
    """A variable of Keras 2, made of arrays of Keras 1 side by side; `window` says how a kernel is laid out."""

    name: str
    sources: tuple[str, ...]
    window: str = ""
    is_trained: bool = True


def _gated(gates: str, stored: str) -> tuple[tuple[str, ...], tuple[_Variable, ...]]:
    """Return the arrays of a recurrent layer, a kind for each gate, as they are stored, and what they make."""
    kinds = {"W": "kernel", "U": "recurrent_kernel", "b": "bias"}
    listed = tuple(f"{kind}_{gate}" for gate in stored for kind in kinds)
    made = (_Variable(name=name, sources=tuple(f"{kind}_{gate}" for gate in gates)) for kind, name in kinds.items())
    return listed, tuple(made)


def _plain(*variables: _Variable) -> tuple[tuple[str, ...], tuple[_Variable, ...]]:
    return tuple(each.sources[0] for each in variables), variables


_BIAS = _Variable(name="bias", sources=("b",))
_KERNEL = _Variable(name="kernel", sources=("W",))
_WHOLE = _plain(_KERNEL, _Variable(name="recurrent_kernel", sources=("U",)), _BIAS)
_SEPARABLE = tuple(_Variable(name=name, sources=(name,), window="channels") for name in _LEAF_NAMES.split()[:2])

_Kind = tuple[tuple[str, ...], tuple[_Variable, ...]]
_KINDS: Mapping[str, tuple[_Kind, ...]] = {
    "Dense": (_plain(_KERNEL, _BIAS),),
    **{f"Conv{rank}D": (_plain(replace(_KERNEL, window="convolution"), _BIAS),) for rank in "123"},
    "Conv2DTranspose": (_plain(replace(_KERNEL, window="transposed"), _BIAS),),
    "SeparableConv2D": (_plain(*_SEPARABLE, _BIAS),),
    "BatchNormalization": (
        _plain(
            *(_Variable(name=name, sources=(name,)) for name in ("gamma", "beta")),
            _Variable(name="moving_mean", sources=("running_mean",), is_trained=False),
            _Variable(name="moving_variance", sources=("running_std",), is_trained=False),
        ),
    ),
    "Embedding": (_plain(_Variable(name="embeddings", sources=("W",))),),
    "PReLU": (_plain(_Variable(name="alpha", sources=("alphas",))),),
    "SimpleRNN": (_WHOLE,),
    "LSTM": (_gated("ifco", "icfo"), _WHOLE),
    "GRU": (_gated("zrh", "zrh"), _WHOLE),
}
"""Class in Keras 2 -> the arrays that it has in Keras 1, in the order of a file, and the variables that they make.

Recurrent layers have an array for each gate, or with `consume_less` "gpu" one for all. What is called `running_std` is
the variance.
"""

_AXES: Mapping[tuple[str, bool, int], tuple[int, ...]] = {
    ("convolution", True, 4): (2, 3, 1, 0),
    ("convolution", True, 5): (2, 3, 4, 1, 0),
    ("transposed", True, 4): (2, 3, 0, 1),
    ("transposed", False, 4): (0, 1, 3, 2),
    ("channels", True, 4): (2, 3, 1, 0),
}
"""Kind of kernel, whether channels are first, and rank -> its axes as Keras 2 has them, where that differs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe(TwoWay):
    """What is done to arrays side by side: axes permuted, then some of them reversed, then another shape."""

    axes: tuple[int, ...]
    reversed_axes: tuple[int, ...] = ()
    shape: tuple[int, ...]

    def forward(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Return the variable of Keras 2."""
        joined = concat(tensors, axis=len(tensors[0].shape) - 1) if len(tensors) > 1 else tensors[0]
        is_as_it_was = self.axes == tuple(range(len(self.axes)))
        laid = joined if is_as_it_was else joined.transpose(self.axes)
        if self.reversed_axes:
            operation = _Reversed(axes=self.reversed_axes)
            laid = ComputedTensor(dtype=laid.dtype, shape=laid.shape, inputs=(laid,), operation=operation)
        return [laid if laid.shape == self.shape else laid.reshape(self.shape)]

    def backward(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Raise ReadError: nothing goes back to Keras 1."""
        raise ReadError("is of Keras 1, which no format is written for")

    def to_json(self, places: Sequence[str]) -> list[object]:
        """Return how the program that runs Keras makes the variable of the datasets at these places."""
        return [[*places], [*self.axes], [*self.reversed_axes], [*self.shape]]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Reversed:
    """Some axes the other way around."""

    axes: tuple[int, ...]

    def declare(self, inputs: Sequence[Tensor]) -> tuple[Any, tuple[int, ...]]:
        return inputs[0].dtype, inputs[0].shape

    def __call__(self, *arrays: Array) -> Array:
        return np.flip(arrays[0], self.axes)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Made:
    """A variable of Keras 2, and what it is made of: names in the file's list."""

    name: str
    layer: Layer
    variable: _Variable
    sources: tuple[str, ...]


def is_of_keras_1(checkpoint: Checkpoint) -> bool:
    """Whether Keras 1 wrote a file, as its config says or, without one, names of weights that no layer's is before."""
    config, listing = checkpoint.keras_config, checkpoint.listing
    if config is not None:
        return keras_1.is_of_keras_1(config.values, checkpoint.metadata.get("keras_version"))
    names = [called for pairs in listing.layers.values() for called, _ in pairs] if listing is not None else []
    return bool(names) and not any("/" in name for name in names) and any(map(_NAME.fullmatch, names))


def _as_keras_2(checkpoint: Checkpoint, listing: Listing) -> Config | None:
    config = checkpoint.keras_config
    if config is None or not keras_1.is_of_keras_1(config.values, checkpoint.metadata.get("keras_version")):
        return config
    values = keras_1.as_keras_2(config.values, [name for name in listing.layers if name != TOP_LEVEL])
    return Config(values=values, raw=json.dumps(values).encode("ascii"))


def renewed(checkpoint: Checkpoint, place: str) -> tuple[Checkpoint, Recipes | None]:
    """Return a checkpoint of Keras 1 with the config, names and layouts of Keras 2, and how its variables are made.

    Without a config, layers are told by names and shapes. `place` is where the groups of layers are in the file. The
    recipes are None where those of a layer are not known.
    """
    listing = checkpoint.listing
    assert listing is not None
    config = _as_keras_2(checkpoint, listing)
    layers = None if config is None else {layer.name: layer for layer in architecture.parse(config.values).layers}
    renewal = _Renewal(rewriting=Rewriting(source=checkpoint), place=place, is_theano=_is_theano(checkpoint, listing))
    found: dict[str, tuple[tuple[str, str], ...]] = {}
    for group, pairs in listing.layers.items():
        shapes = {called: checkpoint.tensor(name).shape for called, name in pairs}
        layer = _told(group, shapes) if layers is None else layers.get(group)
        made = None if layer is None else _made(layer, list(shapes))
        found[group] = pairs if made is None else tuple((each.name, each.name) for each in made)
        if made is None:
            renewal.keep(pairs)
        else:
            renewal.add(group, made, dict(pairs))
    rewriting = renewal.rewriting
    renewal.note(() if layers is None else layers.values())
    metadata = {key: value for key, value in checkpoint.metadata.items() if key not in ("keras_version", "backend")}
    done = rewriting.done(Dialect.KERAS, keras_config=config, metadata=metadata, **rewriting.state())
    return replace(done, listing=replace(listing, layers=found)), renewal.recipes if renewal.is_whole else None


@dataclass(slots=True, kw_only=True)
class _Renewal:
    """A checkpoint on its way to Keras 2; `is_whole` says whether every layer was known so far."""

    rewriting: Rewriting
    place: str
    is_theano: bool
    recipes: dict[str, list[object]] = field(default_factory=dict)
    turned: list[str] = field(default_factory=list)
    is_whole: bool = True

    def keep(self, pairs: Iterable[tuple[str, str]]) -> None:
        """Keep the arrays of a layer as they are stored."""
        for _, name in pairs:
            self.is_whole = False
            self.rewriting.put(name, name)

    def add(self, group: str, made: Sequence[_Made], names: Mapping[str, str]) -> None:
        """Add the variables of a layer, whose arrays the checkpoint has by these names."""
        for each in made:
            before = tuple(names[source] for source in each.sources)
            shapes = [self.rewriting.source.tensor(name).shape for name in before]
            recipe = _recipe(each, shapes, is_theano=self.is_theano)
            if each.name not in self.rewriting.tensors:  # else stored once per layer that uses it
                self.rewriting.carry(Derivation(before=before, after=(each.name,), operations=(recipe,)))
            self.turned += [each.name] if recipe.reversed_axes else []
            self.rewriting.buffers |= set() if each.variable.is_trained else {each.name}
            places = [f"{self.place}{group}/{source}" for source in each.sources]
            self.recipes.setdefault(group, []).append(recipe.to_json(places))

    def note(self, layers: Iterable[Layer]) -> None:
        """Say what was made of Theano's conventions, and where none is made of them."""
        if self.turned:
            why = "as their names are those of Theano's variables"
            self.rewriting.note(f"kernels turned by 180 degrees, {why}: {', '.join(self.turned)}")
        padded = list(_padded_by_theano(layers)) if self.is_theano else []
        if padded:
            why = "with a stride or an even window Theano pads at other ends than TensorFlow, which graphs go by"
            self.rewriting.note(f"padding 'same' of {', '.join(padded)}: {why}")


def _padded_by_theano(layers: Iterable[Layer]) -> Iterator[str]:
    """Yield the paths of convolutions and pooling layers that Theano pads otherwise than TensorFlow."""
    for each in (leaf for layer in layers for leaf in _leaves(layer)):
        window, strides = each.config.get("kernel_size"), each.config.get("strides")
        is_odd = isinstance(window, list) and all(size in range(1, 100, 2) for size in window)
        is_each = isinstance(strides, list) and all(stride == 1 for stride in strides)
        if each.config.get("padding") == "same" and not (is_odd and is_each):
            yield each.path


def _is_theano(checkpoint: Checkpoint, listing: Listing) -> bool:
    backend = checkpoint.metadata.get("backend")
    names = (called for pairs in listing.layers.values() for called, _ in pairs)
    return backend == "theano" if backend is not None else not any(name.endswith(_SUFFIX) for name in names)


def _leaves(layer: Layer) -> Iterator[Layer]:
    """Yield the layers that have arrays of their own, of models and wrappers those inside."""
    if layer.class_name in (*MODELS, "Bidirectional", "TimeDistributed"):
        for inner in layer.layers:
            yield from _leaves(inner)
    else:
        yield layer


def _made(layer: Layer, listed: Sequence[str]) -> list[_Made] | None:
    """Return the variables of a layer in the order of Keras 2, None where those of one inside it are not known.

    Arrays are found by their names; where a layer was renamed after they got theirs, by their order.
    """
    inner = [each for each in _leaves(layer) if each.class_name not in WITHOUT_VARIABLES]
    kinds = [_kind_of(each, listed) for each in inner]
    arrays = [(each, leaf) for each, kind in zip(inner, kinds, strict=True) if kind for leaf in kind[0]]
    if None in kinds or len(arrays) != len(listed):
        return None
    by_name = {(match[1], match[2]): name for name in listed if (match := _NAME.fullmatch(name))}
    places = {(each.name, leaf): by_name.get((each.name, leaf)) for each, leaf in arrays}
    if None in places.values() or len(set(places.values())) != len(listed):
        order = sorted(arrays, key=lambda array: not _is_trained(*array))
        places = {(each.name, leaf): name for (each, leaf), name in zip(order, listed, strict=True)}
    made = [
        _Made(
            name=f"{each.path}/{variable.name}",
            layer=each,
            variable=variable,
            sources=tuple(str(places[each.name, source]) for source in variable.sources),
        )
        for each, kind in zip(inner, kinds, strict=True)
        for variable in (kind[1] if kind else ())
    ]
    return sorted(made, key=lambda each: not (each.variable.is_trained and _trains(each.layer)))


def _trains(layer: Layer) -> bool:
    return bool(layer.config.get("trainable", True))


def _is_trained(layer: Layer, leaf: str) -> bool:
    return _trains(layer) and not leaf.startswith("running_")


def _kind_of(layer: Layer, listed: Sequence[str]) -> _Kind | None:
    """Return the arrays of a layer, without a bias that it has not; those for each gate unless names say other."""
    kinds = _KINDS.get(layer.class_name)
    if kinds is None:
        return None
    leaves = {match[2] for name in listed if (match := _NAME.fullmatch(name)) and match[1] == layer.name}
    stored, made = kinds[-1] if "W" in leaves or len(listed) < len(kinds[0][0]) else kinds[0]
    if layer.config.get("use_bias", True):
        return stored, made
    return tuple(each for each in stored if each != "b"), tuple(each for each in made if each is not _BIAS)


def _recipe(made: _Made, shapes: Sequence[tuple[int, ...]], *, is_theano: bool) -> Recipe:
    """Return how a variable is made of arrays of these shapes. Raises ReadError for shapes that do not fit."""
    first, window = shapes[0], made.variable.window
    if len({shape[:-1] for shape in shapes}) > 1 or not all(shapes):
        raise ReadError(f"is made of arrays of shapes {[*map(list, shapes)]}", tensor=made.name)
    joined = (*first[:-1], sum(shape[-1] for shape in shapes))
    rank = len(joined)
    is_first = made.layer.config.get("data_format") == "channels_first"
    axes = _AXES.get((window, is_first, rank), tuple(range(rank)))
    is_line = made.layer.class_name == "Conv1D" and window and rank == 4
    if is_line and joined[1] != 1 and joined[3] == 1:  # before Keras 1.1: [out, in, length, 1]
        axes = (2, 3, 1, 0)
    laid = tuple(joined[axis] for axis in axes)
    is_turned = is_theano and window in ("convolution", "transposed")
    return Recipe(
        axes=axes,
        reversed_axes=tuple(axis for axis in range(rank - 2) if laid[axis] > 1) if is_turned else (),
        shape=(laid[0], *laid[2:]) if is_line else laid,
    )


_CLASS_OF: Mapping[str, str] = {
    **{f"{kind}convolution{rank}d": f"Conv{rank}D" for kind in ("", "atrous") for rank in "123"},
    "deconvolution2d": "Conv2DTranspose",
    "embedding": "Embedding",
    "batchnormalization": "BatchNormalization",
    "prelu": "PReLU",
}
"""What Keras 1 calls a layer that has no name of its own -> its class in Keras 2."""


def _told(group: str, shapes: Mapping[str, tuple[int, ...]]) -> Layer | None:
    """Return what names and shapes say of a layer, or of those inside of it; None where they say too little."""
    matches = [(match, shape) for name, shape in shapes.items() if (match := _NAME.fullmatch(name))]
    if not matches or len(matches) < len(shapes):
        return None
    by_layer: dict[str, dict[str, tuple[int, ...]]] = {}
    for match, shape in matches:
        by_layer.setdefault(match[1], {})[match[2]] = shape
    inner = []
    for name, leaves in by_layer.items():
        path = group if name == group else f"{group}/{name}"
        class_name = _class_told(name, leaves)
        if class_name is None:
            return None
        config = {"use_bias": "b" in leaves or "b_i" in leaves or "b_z" in leaves}
        if class_name.startswith(("Conv", "Separable")) and _has_channels_first(class_name, leaves):
            config |= {"data_format": "channels_first"}  # type: ignore[dict-item]
        inner.append(Layer(class_name=class_name, name=name, config=config, path=path, store=""))
    if len(inner) == 1 and inner[0].path == group:
        return inner[0]
    return Layer(class_name="Model", name=group, config={}, path=group, store="", layers=tuple(inner))


def _class_told(name: str, leaves: Mapping[str, tuple[int, ...]]) -> str | None:
    kernel = leaves.get("W", ())
    if "U" in leaves and len(leaves["U"]) == 2 and leaves["U"][0]:
        return {1: "SimpleRNN", 3: "GRU", 4: "LSTM"}.get(leaves["U"][1] // leaves["U"][0])
    for leaf, class_name in {
        "W_c": "LSTM", "W_z": "GRU", "depthwise_kernel": "SeparableConv2D", "gamma": "BatchNormalization",
        "alphas": "PReLU",
    }.items():  # fmt: skip
        if leaf in leaves:
            return class_name
    called = _CLASS_OF.get(_NUMBER.sub("", name))
    by_rank = {2: "Dense", 4: "Conv2D", 5: "Conv3D"}.get(len(kernel))
    if called == "Embedding":
        return called if len(kernel) == 2 and "b" not in leaves else None
    is_fit = called is not None and by_rank == {"1": "Conv2D", "2": "Conv2D", "3": "Conv3D"}.get(called[4:5])
    return called if is_fit else by_rank


def _has_channels_first(class_name: str, leaves: Mapping[str, tuple[int, ...]]) -> bool:
    """Whether the shapes of a kernel are those of channels first: its outputs are as many as its bias has."""
    kernel, bias = leaves.get("pointwise_kernel", leaves.get("W", ())), leaves.get("b")
    if not kernel or class_name == "Conv1D":
        return False
    if bias is not None and (kernel[0] == bias[0]) != (kernel[-1] == bias[0]):
        return kernel[0] == bias[0]
    return kernel[-1] == kernel[-2] < min(kernel[:2])
