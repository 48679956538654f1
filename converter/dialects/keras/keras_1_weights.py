"""The weights of a Keras 1 file as Keras 2 has them: which arrays make which variable, and how.

Facts: `build` of the layers of Keras 1.2.2, and `preprocess_weights_for_loading` of Keras 2.0 (engine/topology.py).

What Keras 1 has that Keras 2 has not:

- an array for each gate of a recurrent layer, unless `consume_less` was "gpu"
- kernels of convolutions that are laid out as maps are, channels first or last
- kernels of Theano, which turns the windows of convolutions by 180 degrees, and TensorFlow does not. No file states
  which of the two it was, but names do: those of TensorFlow's variables end in ``:0``.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from converter.dialects.keras import architecture, keras_1
from converter.dialects.keras.architecture import MODELS, Layer
from converter.dialects.keras.keras_1_names import parted, told
from converter.dialects.keras.modules import WITHOUT_VARIABLES
from converter.dialects.names.operations import TwoWay
from converter.dialects.rewriting import Derivation, Rewriting
from converter.encoding.hdf5.layers import TOP_LEVEL
from converter.errors import ReadError
from converter.model.checkpoint import Checkpoint, Config, Dialect, Listing
from converter.model.tensor import Array, ComputedTensor, Tensor, concat

_NOT_TRAINED = ("running_mean", "running_std")
NOT_TRAINED = tuple(f"_{array}" for array in _NOT_TRAINED)
"""How the names of variables end that no layer of Keras 1 trains."""

Recipes = Mapping[str, Sequence[object]]
"""Layer -> how each of its variables is made, as JSON values."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Variable:
    """A variable of Keras 2, made of arrays of Keras 1 side by side; `window` says how a kernel is laid out."""

    name: str
    sources: tuple[str, ...]
    window: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kind:
    """A way to store a layer: its arrays in the order of a file, and the variables that they make."""

    arrays: tuple[str, ...]
    variables: tuple[_Variable, ...]

    def without_bias(self) -> _Kind:
        """Return the kind of a layer that has no bias, of those that may have none."""
        variables = tuple(each for each in self.variables if each.sources != ("b",))
        return _Kind(arrays=tuple(each for each in self.arrays if each != "b"), variables=variables)


def _plain(window: str = "", /, **arrays: str) -> _Kind:
    """Return the kind that has an array for each variable; `window` is that of all kernels."""
    variables = tuple(
        _Variable(name=name, sources=(array,), window=window if name != "bias" else "")
        for name, array in arrays.items()
    )
    return _Kind(arrays=tuple(arrays.values()), variables=variables)


def _gated(gates: str, stored: str) -> _Kind:
    """Return the kind that has arrays for each gate, as they are `stored`; variables have `gates` side by side."""
    parts = {"W": "kernel", "U": "recurrent_kernel", "b": "bias"}
    variables = tuple(
        _Variable(name=name, sources=tuple(f"{part}_{gate}" for gate in gates)) for part, name in parts.items()
    )
    return _Kind(arrays=tuple(f"{part}_{gate}" for gate in stored for part in parts), variables=variables)


_WHOLE = _plain(kernel="W", recurrent_kernel="U", bias="b")
_NORMALIZATION = _plain(gamma="gamma", beta="beta", moving_mean="running_mean", moving_variance="running_std")
_SEPARABLE = _plain("channels", depthwise_kernel="depthwise_kernel", pointwise_kernel="pointwise_kernel", bias="b")
_KINDS: Mapping[str, tuple[_Kind, ...]] = {
    "Dense": (_plain(kernel="W", bias="b"),),
    "Conv1D": (_plain("line", kernel="W", bias="b"),),
    "Conv2D": (_plain("convolution", kernel="W", bias="b"),),
    "Conv3D": (_plain("convolution", kernel="W", bias="b"),),
    "Conv2DTranspose": (_plain("transposed", kernel="W", bias="b"),),
    "SeparableConv2D": (_SEPARABLE,),
    "BatchNormalization": (_NORMALIZATION,),
    "Embedding": (_plain(embeddings="W"),),
    "PReLU": (_plain(alpha="alphas"),),
    "SimpleRNN": (_WHOLE,),
    "LSTM": (_gated("ifco", stored="icfo"), _WHOLE),
    "GRU": (_gated("zrh", stored="zrh"), _WHOLE),
}
"""Class in Keras 2 -> how Keras 1 stores it, of two ways the first where there are arrays for gates.

What is called `running_std` is the variance.
"""

_AXES: Mapping[tuple[str, bool, int], tuple[int, ...]] = {
    ("line", True, 4): (2, 3, 1, 0),
    ("convolution", True, 4): (2, 3, 1, 0),
    ("convolution", True, 5): (2, 3, 4, 1, 0),
    ("transposed", True, 4): (2, 3, 0, 1),
    ("transposed", False, 4): (0, 1, 3, 2),
    ("channels", True, 4): (2, 3, 1, 0),
}
"""Kind of kernel, whether channels are first, and rank -> its axes as Keras 2 has them, where that differs."""
_TURNED = ("line", "convolution", "transposed")
"""Kinds of kernels whose windows Theano turns."""


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

    @property
    def is_trained(self) -> bool:
        return _is_trained(self.layer, self.variable.sources[0])


def is_of_keras_1(checkpoint: Checkpoint) -> bool:
    """Whether Keras 1 wrote a file, as its config says or, without one, names of weights that no layer's is before."""
    config, listing = checkpoint.keras_config, checkpoint.listing
    if config is not None:
        return keras_1.is_of_keras_1(config.values, checkpoint.metadata.get("keras_version"))
    names = [] if listing is None else _names(listing)
    return bool(parted(names)) and not any("/" in name for name in names)


def _names(listing: Listing) -> list[str]:
    return [called for pairs in listing.layers.values() for called, _ in pairs]


def renewed(checkpoint: Checkpoint, place: str) -> tuple[Checkpoint, Recipes | None]:
    """Return a checkpoint of Keras 1 with the config, names and layouts of Keras 2, and how its variables are made.

    Without a config, layers are told by names and shapes. `place` is where the groups of layers are in the file. The
    recipes are None where those of a layer are not known.
    """
    listing = checkpoint.listing
    assert listing is not None
    config = _as_keras_2(checkpoint, listing)
    layers = _told(checkpoint, listing) if config is None else architecture.parse(config.values).layers
    by_name = {layer.name: layer for layer in layers}
    renewal = _Renewal(rewriting=Rewriting(source=checkpoint), place=place, is_theano=_is_theano(checkpoint, listing))
    found = {group: renewal.add(group, by_name.get(group), pairs) for group, pairs in listing.layers.items()}
    renewal.note(layers)
    rewriting = renewal.rewriting
    metadata = {key: value for key, value in checkpoint.metadata.items() if key not in ("keras_version", "backend")}
    done = rewriting.done(Dialect.KERAS, keras_config=config, metadata=metadata, **rewriting.state())
    return replace(done, listing=replace(listing, layers=found)), renewal.recipes if renewal.is_whole else None


def _as_keras_2(checkpoint: Checkpoint, listing: Listing) -> Config | None:
    config = checkpoint.keras_config
    if config is None or not is_of_keras_1(checkpoint):
        return config
    values = keras_1.as_keras_2(config.values, [name for name in listing.layers if name != TOP_LEVEL])
    return Config(values=values, raw=json.dumps(values).encode("ascii"))


def _told(checkpoint: Checkpoint, listing: Listing) -> tuple[Layer, ...]:
    groups = {
        group: {called: checkpoint.tensor(name).shape for called, name in pairs}
        for group, pairs in listing.layers.items()
    }
    return tuple(layer for group, shapes in groups.items() if (layer := told(group, shapes)) is not None)


def _is_theano(checkpoint: Checkpoint, listing: Listing) -> bool:
    backend = checkpoint.metadata.get("backend")
    return backend == "theano" if backend is not None else not any(name.endswith(":0") for name in _names(listing))


@dataclass(slots=True, kw_only=True)
class _Renewal:
    """A checkpoint on its way to Keras 2; `is_whole` says whether every layer was known so far."""

    rewriting: Rewriting
    place: str
    is_theano: bool
    recipes: dict[str, list[object]] = field(default_factory=dict)
    turned: list[str] = field(default_factory=list)
    is_whole: bool = True

    def add(self, group: str, layer: Layer | None, pairs: Sequence[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
        """Add what a group holds, as variables of its layer where that is known, and return their names for a list.

        `pairs` are what the file and the checkpoint call its arrays.
        """
        names = dict(pairs)
        made = None if layer is None else _made(layer, list(names))
        if made is None:
            for name in names.values():
                self.rewriting.put(name, name)
            self.is_whole = self.is_whole and not names
            return tuple(pairs)
        if made:
            self.recipes[group] = [self._add(group, each, names) for each in made]
        return tuple((each.name, each.name) for each in made)

    def _add(self, group: str, made: _Made, names: Mapping[str, str]) -> list[object]:
        """Add a variable, and return its recipe."""
        before = tuple(names[source] for source in made.sources)
        recipe = _recipe(made, [self.rewriting.source.tensor(name).shape for name in before], is_theano=self.is_theano)
        if made.name not in self.rewriting.tensors:  # else stored once per layer that uses it
            self.rewriting.carry(Derivation(before=before, after=(made.name,), operations=(recipe,)))
        if recipe.reversed_axes:
            self.turned.append(made.name)
        if made.variable.sources[0] in _NOT_TRAINED:
            self.rewriting.buffers.add(made.name)
        return recipe.to_json([f"{self.place}{group}/{source}" for source in made.sources])

    def note(self, layers: Iterable[Layer]) -> None:
        """Say what was made of Theano's conventions, and where none is made of them."""
        if self.turned:
            why = "as their names are those of Theano's variables"
            self.rewriting.note(f"kernels turned by 180 degrees, {why}: {', '.join(self.turned)}")
        padded = [each.path for layer in layers for each in _leaves(layer) if _pads_by_backend(each)]
        if padded and self.is_theano:
            why = "with a stride or an even window Theano pads at other ends than TensorFlow, which graphs go by"
            self.rewriting.note(f"padding 'same' of {', '.join(padded)}: {why}")


def _pads_by_backend(layer: Layer) -> bool:
    """Whether Theano pads a convolution or pooling layer otherwise than TensorFlow."""
    window = layer.config.get("kernel_size")
    sizes = window if isinstance(window, list) else [0]  # of pooling, which it always pads by rules of its own
    is_odd = all(size in range(1, 100, 2) for size in sizes)
    is_alike = is_odd and layer.config.get("strides") == [1] * len(sizes)
    return layer.config.get("padding") == "same" and not is_alike


def _leaves(layer: Layer) -> Iterator[Layer]:
    """Yield the layers that have arrays of their own, of models and wrappers those inside."""
    if layer.class_name in (*MODELS, "Bidirectional", "TimeDistributed"):
        for inner in layer.layers:
            yield from _leaves(inner)
    else:
        yield layer


def _made(layer: Layer, listed: Sequence[str]) -> list[_Made] | None:
    """Return the variables of a layer in the order of Keras 2, None where those of one inside it are not known."""
    inner = [each for each in _leaves(layer) if each.class_name not in WITHOUT_VARIABLES]
    if any(each.class_name not in _KINDS for each in inner):
        return None
    kinds = [(each, _kind_of(each, listed)) for each in inner]
    arrays = [(each, array) for each, kind in kinds for array in kind.arrays]
    if len(arrays) != len(listed):
        return None
    places = _placed(arrays, listed)
    made = [
        _Made(
            name=f"{each.path}/{variable.name}",
            layer=each,
            variable=variable,
            sources=tuple(places[each.path, source] for source in variable.sources),
        )
        for each, kind in kinds
        for variable in kind.variables
    ]
    return sorted(made, key=lambda each: not each.is_trained)


def _kind_of(layer: Layer, listed: Sequence[str]) -> _Kind:
    kinds = _KINDS[layer.class_name]
    has_gates = any(array == kinds[0].arrays[0] for _, array in parted(listed))
    kind = kinds[0] if has_gates else kinds[-1]
    return kind if layer.config.get("use_bias", True) else kind.without_bias()


def _placed(arrays: Sequence[tuple[Layer, str]], listed: Sequence[str]) -> dict[tuple[str, str], str]:
    """Return what each array of layers is called: by names or, where a layer was renamed after them, by their order."""
    by_name = parted(listed)
    found: Sequence[str] = [by_name.get((layer.name, array), "") for layer, array in arrays]
    if set(found) != set(listed):
        arrays, found = sorted(arrays, key=lambda each: not _is_trained(*each)), listed
    return {(layer.path, array): name for (layer, array), name in zip(arrays, found, strict=True)}


def _is_trained(layer: Layer, array: str) -> bool:
    return bool(layer.config.get("trainable", True)) and array not in _NOT_TRAINED


def _recipe(made: _Made, shapes: Sequence[tuple[int, ...]], *, is_theano: bool) -> Recipe:
    """Return how a variable is made of arrays of these shapes. Raises ReadError for shapes that do not fit."""
    if len({shape[:-1] for shape in shapes}) > 1 or not all(shapes):
        raise ReadError(f"is made of arrays of shapes {[*map(list, shapes)]}", tensor=made.name)
    joined = (*shapes[0][:-1], sum(shape[-1] for shape in shapes))
    rank, window = len(joined), made.variable.window
    axes = _AXES.get((window, _has_channels_first(made, joined), rank), tuple(range(rank)))
    laid = tuple(joined[axis] for axis in axes)
    is_turned = is_theano and window in _TURNED
    return Recipe(
        axes=axes,
        reversed_axes=tuple(axis for axis in range(rank - 2) if laid[axis] > 1) if is_turned else (),
        shape=(laid[0], *laid[2:]) if window == "line" and laid[1:-2] == (1,) else laid,
    )


def _has_channels_first(made: _Made, shape: tuple[int, ...]) -> bool:
    if made.variable.window == "line":  # [length, 1, in, out]; before Keras 1.1 [out, in, length, 1]
        return shape[1:2] != (1,) and shape[-1] == 1
    return made.layer.config.get("data_format") == "channels_first"
