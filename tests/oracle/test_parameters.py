"""The order of parameters that the table says is that of the classes, built from configs that it was not made of."""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from converter.dialects.optimizer.class_order import order_of_class
from converter.dialects.optimizer.numbering_conventions import trainer_exempts
from converter.dialects.tables import document
from converter.errors import CkconvError
from converter.model.checkpoint import Checkpoint, Config
from converter.model.tensor import ArrayTensor
from tests.graphs.zoo import OTHERS, ZOO
from tests.oracle import environment
from tests.slices import IS_FULL, SEED

os.environ["HF_HUB_OFFLINE"] = "1"

TYPES_OF_A_PART = 12
LAYERS = ("num_hidden_layers", "num_layers", "n_layer", "n_layers", "encoder_layers", "decoder_layers", "depth")
SWITCHES_AT_ONCE = 3
REFUSED_OF_HUNDRED = 5
REFUSED = {"SegformerForSemanticSegmentation": "what is in memory stage by stage is saved kind by kind"}

pytestmark = pytest.mark.skipif(not environment.PYTHON, reason="CKCONV_ORACLE_PYTHON names no Python")


def checkpoint_of(class_: Any, config: Any, seed: random.Random) -> tuple[Checkpoint, list[str], frozenset[str]] | None:
    """Return what save_pretrained would write, by names alone in any order, the order of the class, and LayerNorms.

    None for a model that is saved in another form.
    """
    import torch

    from converter.graphs.trace.canonical_names import tied_names
    from converter.graphs.trace.model_building import abstract_model, unsaved_parameters
    from converter.graphs.trace.saved_form import saved_form

    model = abstract_model(class_, config)
    form = saved_form(model)
    left_out = {*tied_names(model), *unsaved_parameters(model)}
    if form.parts:
        return None
    shapes = {form.names[name]: tuple(each.shape) for name, each in model.state_dict().items() if name not in left_out}
    names = list(shapes)
    owner = {form.names[alias]: form.names[name] for alias, name in tied_names(model).items()}
    listed = [form.names.get(name, name) for name, _ in model.named_parameters()]
    free = {form.names[name] for name in unsaved_parameters(model)}
    order = [owner.get(name, name) for name in listed if name not in free]
    norms = frozenset(
        owner.get(form.names[f"{path}.{leaf}"], form.names[f"{path}.{leaf}"])
        for path, module in model.named_modules()
        if isinstance(module, torch.nn.LayerNorm)
        for leaf, _ in module.named_parameters(recurse=False)
    )
    seed.shuffle(names)
    tensors = {name: ArrayTensor.of(np.broadcast_to(np.float32(0), shapes[name])) for name in names}
    values = {**config.to_dict(), "architectures": [class_.__name__]}
    return Checkpoint(tensors=tensors, config=Config(values=values, raw=b"{}")), order, norms


def answer(class_: Any, config: Any, seed: random.Random) -> str | None:
    """Return "" where the table is right, else what is wrong or refused; None where a class has no order."""
    made = checkpoint_of(class_, config, seed)
    if made is None:
        return None
    checkpoint, order, norms = made
    try:
        found = order_of_class(checkpoint, class_.__name__)
    except CkconvError as error:
        return f"refused: {error.message}"
    if list(found.names) != order:
        if set(order) - set(found.names):
            return f"refused: no place for {min(set(order) - set(found.names))}"
        return f"wrong: {next(pair for pair in zip(found.names, order, strict=False) if pair[0] != pair[1])}"
    exempts, rule = trainer_exempts(checkpoint, found), trainer_exempts(checkpoint, replace(found, layer_norms=norms))
    other = [name for name in order if exempts(name) != rule(name)]
    return f"wrong: decay of {other[0]}" if other else ""


@pytest.mark.parametrize("model", [*ZOO, *OTHERS], ids=lambda model: model.architecture)
def test_the_zoo_has_the_order_of_the_table(model: Any) -> None:
    import transformers

    from converter.graphs.trace.model_building import model_config

    class_ = getattr(transformers, model.architecture)
    found = answer(class_, model_config(class_, model.config), random.Random(SEED))
    assert (found or "").startswith("refused") if model.architecture in REFUSED else not found


def test_classes_have_the_order_of_the_table(tell: Callable[[str], None]) -> None:
    """More layers than the table was made of, which sort otherwise as text, and several switches changed at once."""
    import transformers

    models = document("parameters")["models"]
    seed = random.Random(SEED)
    chosen = sorted(models) if IS_FULL else sorted(seed.sample(sorted(models), min(TYPES_OF_A_PART, len(models))))
    found: dict[str, str] = {}
    for model_type in chosen:
        for name in sorted({name for variant in models[model_type] for name in variant["classes"]}):
            for number in range(2):
                try:
                    made = answer(getattr(transformers, name), _config(model_type, seed, number), seed)
                except Exception:  # a config that is none, or a model that this cannot be
                    continue
                if made is not None:
                    found[f"{name} {number}"] = made
    counts = Counter(answer.partition(":")[0] or "right" for answer in found.values())
    others = {name: answer for name, answer in found.items() if answer}
    tell(f"parameters.json: {', '.join(chosen)}: {dict(counts)}; {others}")
    assert counts["wrong"] == 0, others
    assert counts["right"] > 0
    assert counts["refused"] * 100 <= REFUSED_OF_HUNDRED * len(found) or not IS_FULL, others


def _config(model_type: str, seed: random.Random, number: int) -> Any:
    import transformers

    config = transformers.CONFIG_MAPPING[model_type]()
    values: dict[str, Any] = {key: 11 for key in LAYERS if type(vars(config).get(key)) is int}
    switches = sorted(key for key, value in vars(config).items() if isinstance(value, bool) and key[0] != "_")
    taken = [key for key in switches if not key.startswith(("output_", "return_", "use_cache"))]
    changed = seed.sample(taken, min(len(taken), SWITCHES_AT_ONCE * number))
    values.update({key: not vars(config)[key] for key in changed})
    return transformers.CONFIG_MAPPING[model_type](**values)
