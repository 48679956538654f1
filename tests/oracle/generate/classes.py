"""Makes converter/dialects/tables/classes.json: which classes a model type has, and which names tell them apart.

    python -m tests.oracle.generate.classes TABLE [model type ...]

in an environment with transformers 5 and torch. Every class that transformers lists for a task, or that is named as
others for one where it lists none of a model type, is built on the meta device: from the default config of its model
type, with two layers where it takes that; from that of the zoo, where it has one; and with each switch of the config
flipped. What only a flipped config has is optional. Of the names that save_pretrained would write, the first components
of the base model's are kept, and the whole names of all else.
"""

from __future__ import annotations

import os
import re
import sys
import warnings
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"

import transformers
from transformers.models.auto import modeling_auto

from converter.dialects.identity.classes import POSITION_EMBEDDINGS, layer_of, template_of
from converter.dialects.identity.tasks import CAUSAL_TASK, CHOICE_TASK, CLASS_SUFFIXES, LISTS
from converter.graphs.trace.canonical_names import tied_names
from converter.graphs.trace.model_building import abstract_model, model_config
from converter.graphs.trace.saved_form import saved_form
from tests.graphs.zoo import OTHERS, ZOO
from tests.oracle.generate import table_file
from tests.oracle.generate.in_process import model_classes, small

_LAYERS = re.compile(r"(num|n)_(hidden_|decoder_|encoder_)?layers?|(en|de)coder_layers|depth")
_NO_TENSORS = ("output_", "return_", "use_cache", "is_decoder", "_")
_OTHER_CHANGES = ({"position_embedding_type": "rotary"}, {"n_langs": 2, "use_lang_emb": True})
_FILLED = {
    "head_dim": 64,
    "layer_types": ["full_attention"] * 2,
    "num_key_value_heads": 2,
    "prediction_length": 4,
    "vocab_size": 32,
    "vocabulary_map": {"<image>": 4},
}
"""What a config leaves open that its classes need."""


@dataclass(frozen=True)
class Model:
    """A class as one config builds it: what is saved of it, in which names and shapes, and what is tied."""

    prefix: str
    shapes: Mapping[str, tuple[int, ...]]
    ties: Mapping[str, str]
    is_tied: bool

    @property
    def base(self) -> set[str]:
        """The first components of the base model's names; of all names, where no base model is inside."""
        before = f"{self.prefix}." if self.prefix else ""
        return {name.removeprefix(before).partition(".")[0] for name in self.shapes if name.startswith(before)}

    @property
    def head(self) -> set[str]:
        """The names outside the base model."""
        return {template_of(name) for name in self.shapes if self.prefix and not name.startswith(f"{self.prefix}.")}

    def is_all_tied(self, inside: str) -> bool:
        """Whether all that is in a layer, or has that first component, is another's."""
        names = [name for name in self.shapes if f"{name}.".startswith(f"{inside}.")]
        return bool(names) and all(name in self.ties for name in names)


def listed(model_type: str) -> Mapping[str, list[str]]:
    """Return class -> its tasks, for all that transformers lists for a model type."""
    found: dict[str, list[str]] = {}
    for task, mappings in LISTS.items():
        for mapping in mappings:
            names = getattr(modeling_auto, mapping, {}).get(model_type, ())
            for name in (names,) if isinstance(names, str) else names:
                tasks = found.setdefault(name, [])
                if task not in tasks:
                    tasks.append(task)
    return found


def named_for_tasks(names: Sequence[str]) -> Mapping[str, list[str]]:
    """Return class -> its task, of classes that transformers exports, by how they are called."""
    found = {}
    for name in names:
        tasks = [task for task, suffix in CLASS_SUFFIXES.items() if name.endswith(suffix)]
        tasks = [CAUSAL_TASK] if name.endswith("LMHeadModel") else tasks
        if tasks and hasattr(transformers, name):
            found[name] = [max(tasks, key=lambda task: len(CLASS_SUFFIXES[task]))]
    return found


def usual_configs(model_type: str) -> Iterator[Any]:
    """Yield configs that anyone may have: the default one, those of equal and of other widths, that of the zoo."""
    config_class = transformers.CONFIG_MAPPING[model_type]
    default = shrunk(config_class)
    yield default
    if open_keys := {key: value for key, value in _FILLED.items() if vars(default).get(key, 0) is None}:
        yield shrunk(config_class, **open_keys)
    if "embedding_size" in vars(default) and "hidden_size" in vars(default):
        yield shrunk(config_class, embedding_size=default.hidden_size)
        yield shrunk(config_class, embedding_size=default.hidden_size // 2)
    for model in (*OTHERS, *ZOO):
        if model.model_type == model_type:
            yield model_config(getattr(transformers, model.architecture), model.config)


def shrunk(config_class: Any, **values: Any) -> Any:
    """Return the default config with two layers, where it takes that; else as it is."""
    default = small(config_class)
    counts = {
        key: 2 for key, value in vars(default).items() if type(value) is int and value > 2 and _LAYERS.fullmatch(key)
    }
    try:
        return config_class(**counts, **values)
    except Exception:  # whatever a config objects to
        return default


def flipped_configs(config: Any) -> Iterator[Any]:
    """Yield the config with each of its own switches flipped."""
    switches = {key: not value for key, value in vars(config).items() if isinstance(value, bool)}
    changes: list[dict[str, Any]] = [{key: value} for key, value in switches.items() if not key.startswith(_NO_TENSORS)]
    changes += [change for change in _OTHER_CHANGES if change.keys() <= vars(config).keys()]
    for change in changes:
        try:
            yield type(config)(**{**config.to_dict(), **change})
        except Exception:  # whatever a config objects to
            continue


def built(class_name: str, config: Any) -> Model:
    """Build a class and see what is saved of it."""
    class_ = getattr(transformers, class_name)
    if class_.config_class is not type(config):
        raise TypeError(f"has a config of {class_.config_class.__name__}")
    model = abstract_model(class_, config)
    form = saved_form(model)
    shapes = {saved: tuple(t.shape) for name, t in model.state_dict().items() for saved in form.saved_names(name)}
    pairs = {**model.all_tied_weights_keys, **tied_names(model)}
    ties = {form.names.get(alias, alias): form.names.get(owner, owner) for alias, owner in pairs.items()}
    prefix = model.base_model_prefix
    has_base = bool(prefix) and hasattr(model, prefix) and any(name.startswith(f"{prefix}.") for name in shapes)
    is_tied = bool(getattr(config, "tie_word_embeddings", True))
    return Model(prefix=prefix if has_base else "", shapes=shapes, ties=ties, is_tied=is_tied)


def models_of(class_name: str, configs: Sequence[Any], *, is_told: bool = False) -> list[Model]:
    """Return a class as each of several configs builds it, as far as they can."""
    made = []
    for config in configs:
        try:
            made.append(built(class_name, config))
        except Exception as error:  # whatever a model raises, it is a result
            if is_told:
                print(f"{class_name}: {type(error).__name__}: {error}".splitlines()[0][:200], file=sys.stderr)
    return made


def entry(usual: Sequence[Model], flipped: Sequence[Model], tasks: list[str]) -> dict[str, Any]:
    """Return what the table says of a class that is like `usual`, and may be like `flipped`."""
    first = usual[0]
    every = [model for model in (*usual, *flipped) if model.prefix == first.prefix]
    alike = [model for model in usual if model.prefix == first.prefix]
    base = set.intersection(*(model.base for model in every)) or set.intersection(*(model.base for model in alike))
    head = set.intersection(*(model.head for model in alike))
    bases, heads = (set[str]().union(*(getattr(model, part) for model in every)) for part in ("base", "head"))
    if not first.prefix:
        base -= {part for part in base if first.is_all_tied(part)}
    tied = _tied_layers(first, head)
    head = {name for name in head if layer_of(name) not in tied}
    ties = {alias: owner for model in every if model.is_tied for alias, owner in model.ties.items()}
    ties = {alias: ties.get(owner, owner) for alias, owner in ties.items()}
    shapes = {template_of(name): shape for name, shape in first.shapes.items()}
    rows = sorted(name for name in head if name.endswith("weight") and shapes[name][:1] == (1,))
    return {
        "tasks": tasks,
        "prefix": first.prefix,
        "base": sorted(base),
        "base_optional": sorted(bases - base),
        "head": sorted(head),
        "optional": sorted(heads - head),
        "output": rows[0] if CHOICE_TASK in tasks and len(rows) == 1 else "",
        "ties": {alias: owner for alias, owner in sorted(ties.items()) if alias in first.shapes},
    }


def _tied_layers(model: Model, head: set[str]) -> set[str]:
    """Return the layers of a head that a file may leave out: tied ones, and beside others those with an own bias."""
    shared = {template_of(name) for pair in model.ties.items() for name in pair}
    layers = {layer_of(name): {other for other in head if layer_of(other) == layer_of(name)} for name in head}
    wholly = {layer for layer, names in layers.items() if names <= shared}
    partly = {layer for layer, names in layers.items() if names & shared}
    return partly if set(layers) - partly else wholly


def model_of(model_type: str, others: Sequence[str]) -> dict[str, Any]:
    """Return the entry of a model type; `others` are classes of its config, in a list or not."""
    configs = list(usual_configs(model_type))
    flipped = [other for config in configs[:1] for other in flipped_configs(config)]
    classes: dict[str, Any] = {}
    first: dict[str, Model] = {}
    has_positions = []
    for name, tasks in sorted((listed(model_type) or named_for_tasks(others)).items()):
        usual = models_of(name, configs, is_told=True)
        if usual:
            models = models_of(name, flipped)
            classes[name] = entry(usual, models, tasks)
            first[name] = usual[0]
            has_positions += [_has_positions(model) for model in (*usual, *models)]
    for name, each in classes.items():
        each["tells"] = tells(name, classes, first)
    return {
        "anchor": POSITION_EMBEDDINGS if has_positions and all(has_positions) else "",
        "is_tied": bool(getattr(configs[0], "tie_word_embeddings", True)),
        "others": sorted({*others, *listed(model_type)} - set(classes)),
        "classes": classes,
    }


def tells(name: str, classes: Mapping[str, Any], models: Mapping[str, Model]) -> list[str]:
    """Return the layers that tell a class without a base model inside from those whose names start alike."""
    key = {other: (each["prefix"], tuple(each["base"])) for other, each in classes.items()}
    rivals = [other for other in classes if other != name and key[other] == key[name]]
    if classes[name]["prefix"] or not rivals:
        return []
    return sorted(
        {*map(layer_of, models[name].shapes)}
        - set.intersection(*({*map(layer_of, models[rival].shapes)} for rival in rivals))
    )


def _has_positions(model: Model) -> bool:
    prefix = f"{model.prefix}." if model.prefix else ""
    ends = [name for name in model.shapes if f".{name}".endswith(f".{POSITION_EMBEDDINGS}")]
    return ends == [prefix + POSITION_EMBEDDINGS]


def main(table: Path, model_types: list[str]) -> None:
    """Write the table; print what could not be built."""
    warnings.simplefilter("ignore")
    transformers.logging.set_verbosity_error()
    others: dict[str, list[str]] = defaultdict(list)
    for class_ in model_classes():
        others[class_.config_class.model_type].append(class_.__name__)
    known = {name for lists in LISTS.values() for each in lists for name in getattr(modeling_auto, each, {})}
    found = {}
    wanted = set(model_types) or known | set(others)
    for model_type in sorted(wanted & set(transformers.CONFIG_MAPPING)):
        try:
            found[model_type] = model_of(model_type, others[model_type])
        except Exception as error:  # a config that does not build by default
            print(f"{model_type}: {type(error).__name__}: {error}".splitlines()[0][:200], file=sys.stderr)
    models = {model_type: each for model_type, each in found.items() if each["classes"]}
    table_file.write(table, {"versions": {"transformers": transformers.__version__}, "models": models})


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
