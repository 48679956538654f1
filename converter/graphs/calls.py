"""Every function of graphs that a child process runs, once: what it takes, what it returns, and what it is for.

Each imports what it calls when it is called, for that imports a framework: this module is imported without any. The
functions behind them say in detail what they do and raise. Files and folders are strings, and all else JSON values.

Functions that trace write the ONNX file `graph`, whose external initializers (location "weights") are called as the
reader calls the tensors, and return `Signature.to_json()`. Functions that run a model read the .npz file `inputs` and
write the .npz file `outputs` (converter.graphs.run.arrays): a reference takes `nudge`, to change every weight before in
the last place of that type, or of its own where that is less precise, and a target `canary` and `since`, to change
weights afterwards (converter.graphs.run.canary).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from converter.graphs.run.answers import Answer, Prepared
from converter.model.child_function import child_function

# onnxruntime is none of them: it starts a thread when it is imported, which asks the network, and is quick to import.
_ONNX = ("onnx", "onnx_ir", "onnxscript.optimizer")
_TORCH = (
    *_ONNX,
    "torch.export",
    "torch._functorch.aot_autograd",
    "torch._inductor.compiler_bisector",
    "transformers.modeling_utils",
    "transformers.exporters.exporter_onnx",
)
_TENSORFLOW = (*_ONNX, "tensorflow")


@child_function("reading the graph: transformers", imports=_TORCH)
def trace_transformers(
    *,
    config: str,
    architecture: str,
    graph: str,
    opset: int | None,
    with_cache: bool,
    padding_rows: bool,
    as_tensorflow: bool,
) -> dict[str, Any]:
    """Trace the class `architecture` of transformers, built from the config.json at `config`."""
    from converter.graphs.trace import transformers

    return transformers.trace(
        config=config,
        architecture=architecture,
        graph=graph,
        opset=opset,
        with_cache=with_cache,
        padding_rows=padding_rows,
        as_tensorflow=as_tensorflow,
    )


@child_function("reading the graph: user module", imports=_TORCH)
def trace_user_module(
    *, factory: str, folder: str, inputs: list[dict[str, Any]], graph: str, opset: int | None
) -> dict[str, Any]:
    """Trace the module of torch that the user's own ``package.module:factory`` returns."""
    from converter.graphs.trace import user_module

    return user_module.trace(factory=factory, folder=folder, inputs=inputs, graph=graph, opset=opset)


@child_function("reading the graph: onnx model", imports=_ONNX)
def trace_onnx(*, model: str, graph: str, names: dict[str, str], has_weights_inside: bool = True) -> dict[str, Any]:
    """Take the graph of an ONNX file."""
    from converter.graphs.trace import onnx_model

    return onnx_model.trace(model=model, graph=graph, names=names, has_weights_inside=has_weights_inside)


@child_function("reading the graph: keras", imports=_TENSORFLOW)
def trace_keras(
    *,
    model: str,
    graph: str,
    config: Mapping[str, Any],
    elements: int | None = None,
    layers: Sequence[tuple[str, Sequence[str]]] | None = None,
    places: Mapping[str, str] | None = None,
    custom_objects: Sequence[str] = (),
    folder: str = "",
    encoder: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Build a Keras model of its config and convert it."""
    from converter.graphs.trace.tensorflow import keras

    return keras.trace(
        model=model,
        graph=graph,
        config=config,
        elements=elements,
        layers=layers,
        places=places,
        custom_objects=custom_objects,
        folder=folder,
        encoder=encoder,
    )


@child_function("reading the graph: keras attributes", imports=_TENSORFLOW)
def attributes_of_keras(
    *, layers: Mapping[str, Mapping[str, Any]], custom_objects: Sequence[str], folder: str, is_older: bool
) -> dict[str, list[tuple[str, str, str, str]]]:
    """Make layers of the user's own classes; return place, name, path and class of each layer inside them."""
    from converter.graphs.trace.tensorflow import attributes

    return attributes.run(layers=layers, custom_objects=custom_objects, folder=folder, is_older=is_older)


@child_function("reading the graph: saved model", imports=_TENSORFLOW)
def trace_saved_model(
    *, model: str, graph: str, names: Mapping[str, str], kernels: Sequence[str], signature: str | None = None
) -> dict[str, Any]:
    """Convert what a SavedModel serves."""
    from converter.graphs.trace.tensorflow import saved_model

    return saved_model.trace(model=model, graph=graph, names=names, kernels=kernels, signature=signature)


@child_function("preparing the graph: preparing", imports=_ONNX)
def prepare(
    *,
    graph: str,
    stored: dict[str, dict[str, Any]],
    declared: list[str],
    names: list[str],
    shapes: dict[str, list[int | str]],
    opset: int | None,
    inexact: list[str],
) -> Prepared:
    """Make a traced graph agree with the tensors of a checkpoint."""
    from converter.graphs.passes import preparing

    return preparing.run(
        graph=graph, stored=stored, declared=declared, names=names, shapes=shapes, opset=opset, inexact=inexact
    )


@child_function("building the graph: program", imports=_TORCH)
def build_torch_program(
    *,
    graph: str,
    signature: dict[str, Any],
    tensors: dict[str, list[Any]],
    small: dict[str, list[Any]],
    trainable: list[str],
    ties: dict[str, str],
    file: str,
) -> dict[str, str]:
    """Write a program of torch.export without weights; return its keywords by input name."""
    from converter.graphs.lower.torch import program

    return program.build(
        graph=graph,
        signature=signature,
        tensors=tensors,
        small=small,
        trainable=trainable,
        ties=ties,
        file=file,
    )


@child_function("building the graph: saved model", imports=_TENSORFLOW)
def build_saved_model(
    *,
    graph: str,
    weights: str,
    folder: str,
    trainable: list[str],
    input_dtype: str,
    names: dict[str, str],
    kernels: Sequence[str],
    optimizer: str | None,
) -> None:
    """Write a SavedModel that runs and trains."""
    from converter.graphs.lower.tensorflow import saved_model

    saved_model.build(
        graph=graph,
        weights=weights,
        folder=folder,
        trainable=trainable,
        input_dtype=input_dtype,
        names=names,
        kernels=kernels,
        optimizer=optimizer,
    )


@child_function("comparing outputs: transformers", imports=_TORCH)
def run_transformers(*, model: str, architecture: str, inputs: str, outputs: str, nudge: str | None = None) -> Answer:
    """Run the class `architecture` of transformers with the weights of the save_pretrained folder `model`."""
    from converter.graphs.run import transformers

    return transformers.run(model=model, architecture=architecture, inputs=inputs, outputs=outputs, nudge=nudge)


@child_function("comparing outputs: user module", imports=_TORCH)
def run_user_module(*, model: str, inputs: str, outputs: str, nudge: str | None = None) -> Answer:
    """Run the user's own module of torch with the weights in the folder `model`."""
    from converter.graphs.run import user_module

    return user_module.run(model=model, inputs=inputs, outputs=outputs, nudge=nudge)


@child_function("comparing outputs: keras", imports=_TENSORFLOW)
def run_keras(
    *,
    model: str,
    inputs: str,
    outputs: str,
    config: Mapping[str, Any],
    elements: int | None = None,
    custom_objects: Sequence[str] = (),
    folder: str = "",
    encoder: Mapping[str, Any] | None = None,
    nudge: str | None = None,
    recipes: Mapping[str, Sequence[Any]] | None = None,
) -> Answer:
    """Run the Keras model in the file `model`, built of its config."""
    from converter.graphs.run import keras

    return keras.run(
        model=model,
        inputs=inputs,
        outputs=outputs,
        config=config,
        elements=elements,
        custom_objects=custom_objects,
        folder=folder,
        encoder=encoder,
        nudge=nudge,
        recipes=recipes,
    )


@child_function("comparing outputs: foreign saved model", imports=_TENSORFLOW)
def run_foreign_saved_model(
    *,
    model: str,
    inputs: str,
    outputs: str,
    canary: str | None = None,
    since: float = 0.0,
    nudge: str | None = None,
    signature: str | None = None,
) -> Answer:
    """Run a SavedModel from anywhere, without TensorFlow's loader."""
    from converter.graphs.run import foreign_saved_model

    return foreign_saved_model.run(
        model=model, inputs=inputs, outputs=outputs, canary=canary, since=since, nudge=nudge, signature=signature
    )


@child_function("comparing outputs: saved model", imports=_TENSORFLOW)
def run_saved_model(*, model: str, inputs: str, outputs: str, canary: str | None = None, since: float = 0.0) -> Answer:
    """Run a SavedModel that this program wrote, with TensorFlow's loader."""
    from converter.graphs.run import saved_model

    return saved_model.run(model=model, inputs=inputs, outputs=outputs, canary=canary, since=since)


@child_function("comparing outputs: torch export", imports=_TORCH)
def run_torch_program(
    *, model: str, inputs: str, outputs: str, canary: str | None = None, since: float = 0.0
) -> Answer:
    """Run a program of torch.export that this program wrote."""
    from converter.graphs.run import torch_export

    return torch_export.run(model=model, inputs=inputs, outputs=outputs, canary=canary, since=since)


@child_function("comparing outputs: onnxruntime", imports=_ONNX)
def run_onnx(
    *,
    model: str,
    inputs: str,
    outputs: str,
    canary: str | None = None,
    since: float = 0.0,
    nudge: str | None = None,
    inexact: Sequence[str] = (),
) -> Answer:
    """Run an ONNX model in onnxruntime."""
    from converter.graphs.run import onnxruntime

    return onnxruntime.run(
        model=model, inputs=inputs, outputs=outputs, canary=canary, since=since, nudge=nudge, inexact=inexact
    )


@child_function("checking the graph: onnx", imports=_ONNX)
def check_onnx(*, model: str) -> None:
    """Hold an ONNX file to the checker of onnx."""
    from converter.graphs.run import onnxruntime

    onnxruntime.check(model=model)


@child_function("checking the graph: onnxruntime", imports=_ONNX)
def open_onnx(*, model: str) -> None:
    """Open an ONNX file in onnxruntime."""
    from converter.graphs.run import onnxruntime

    onnxruntime.open_session(model=model)
