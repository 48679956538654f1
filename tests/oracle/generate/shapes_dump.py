"""Builds classes of transformers from many configs on the meta device, and writes down what each saves in which shape.

    python -m tests.oracle.generate.shapes_dump DUMP [model type ...]

in an environment with transformers 5 and torch. DUMP is a folder that gets a file for each model type; those that are
there are left as they are. Of every config each setting is changed by itself, then many are together, at random but
the same in every run. `shapes` fits formulas to what was seen.
"""

from __future__ import annotations

import contextlib
import copy
import inspect
import json
import os
import random
import re
import sys
import time
import typing
import warnings
import zlib
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"

import torch
import transformers
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import WeightConverter, revert_weight_conversion
from transformers.initialization import no_init_weights

from converter.dialects.identity.classes import template_of
from converter.dialects.tables import document
from converter.graphs.trace.canonical_names import tied_names
from converter.graphs.trace.model_building import abstract_model, unsaved_parameters
from converter.graphs.trace.transformers import ignored_names
from tests.graphs.zoo import OTHERS, ZOO
from tests.oracle.generate import tensorflow_configs
from tests.oracle.generate.in_process import limited, model_classes

LAYERS = re.compile(r"(num|n)_[a-z_]*layers?|[a-z]*_layers|depth|num_hidden_layers")
INERT = re.compile(
    r".*dropout.*|.*_token_id|.*_token_index|initializer.*|.*_eps|eps|use_cache|output_(attentions|hidden_states)|"
    r"return_dict|problem_type|id2label|label2id|torch_dtype|dtype|_.*|transformers_version|architectures|rope_.*|"
    r"model_type|finetuning_task|tokenizer_class|.*loss_(coef|weight|scale|coefficient).*|.*_cost|is_encoder_decoder|"
    r"(?!conv_).*_act|act_fn|.*_act_fn|.*activation(_function)?|.*_std|.*_token_ids|attribute_map|base_config_key|attn_implementation|quantization_config|chunk_size_feed_forward|"
    r"ctc_loss_reduction|mask_(time|feature)_.*|.*drop_?path.*|.*layerdrop|vocab_list|apply_spec_augment|.*_prob"
)
"""Settings that no class makes a tensor of."""
_SINGLES_SECONDS, _JOINT_SECONDS, _BRANCHES_SECONDS, _OTHERS_SECONDS, _BUILD_SECONDS = 5.0, 4.0, 5.0, 4.0, 10
_JOINT, _FLIPPED, _OF_OTHERS = 9, 10, 10
_ALIKE, _ALIKE_SECONDS = 16, 2.5
_TENSORS_LIMIT = 2500
_PATIENCE = 5
_LITTLE = """
beit big_bird blt chmv2 clap_audio_model dpt emu3_vqgan ernie4_5_vl_moe ernie4_5_vl_moe_text esmfold2
fastspeech2_conformer fastspeech2_conformer_with_hifigan florence2 gemma4 gemma4_text gemma4_unified
gemma4_unified_text granite_speech granitemoe hgnet_v2 hiera inkling_vision lfm2_vl longcat_flash longt5 mask2former
mimi mimi_encoder mimo_v2_flash minicpm_ocr minicpmv4_7 mistral_large4 neucodec olmo3 parakeet_rnnt patchtsmixer
pp_ocrv5_mobile_det qwen3_omni_moe_thinker roformer rt_detr_resnet sew-d swinv2 tapas tvp wav2vec2-bert
wav2vec2-conformer wavlm
"""
_SHOWING_LITTLE = frozenset(_LITTLE.split())
"""Model types of which so few configs show what decides that formulas fit by chance."""
_COMPARED = re.compile(r"config\.(\w+) (?:==|!=|in|not in) [(\[{]?((?:\"\w[\w-]*\"(?:, )?)+)")
_COUNT = re.compile(r"num_(\w+_)?(stages|layers|levels|blocks|scales)$")
_WORDS = {
    "feed_forward_proj": ["gated-gelu", "relu"],
    "conv_act": ["gelu"],
    "position_embedding_type": ["absolute", "rotary", "relative_key"],
}
_SWITCH = re.compile(r"getattr\((?:self\.)?config, \"(\w+)\", (True|False)\)")
_TOGETHER: tuple[dict[str, Any], ...] = (
    {"is_decoder": True, "add_cross_attention": True},
    {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "share_att_key": False, "norm_rel_ebd": "layer_norm"},
    {"conv_kernel_size": 3, "conv_act": "gelu"},
)

Flat = dict[str, Any]


@dataclass(frozen=True)
class Form:
    """What a class saves: name -> shape, which of them are tied to others, and which are not written to files."""

    shapes: tuple[tuple[str, tuple[int, ...]], ...]
    tied: frozenset[str]
    unsaved: frozenset[str]


@dataclass
class Dump:
    """What was seen of a model type.

    `base`     the settings, flat, of the config that says nothing but what is `given`; `whole` of one that says nothing
    `names`    other name of a setting -> its name
    `samples`  what a config was given, the settings that it has otherwise than in `base`, and class -> form
    """

    model_type: str
    seed: int = 0
    names: Mapping[str, str] = field(default_factory=dict)
    whole: Flat = field(default_factory=dict)
    given: Flat = field(default_factory=dict)
    base: Flat = field(default_factory=dict)
    prefixes: dict[str, str] = field(default_factory=dict)
    ignored: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = field(default_factory=dict)
    renamings: dict[str, list[Any]] = field(default_factory=dict)
    samples: list[tuple[Flat, Flat, dict[str, int]]] = field(default_factory=list)
    forms: list[Form] = field(default_factory=list)


def flattened(values: Mapping[str, Any], before: str = "") -> Flat:
    """Return settings with dotted names; labels are counted."""
    flat: Flat = {}
    for key, value in values.items():
        if key == "id2label" and isinstance(value, Mapping):
            flat[f"{before}num_labels"] = len(value)
        elif isinstance(value, Mapping) and not INERT.fullmatch(key) and all(isinstance(each, str) for each in value):
            flat |= flattened(value, f"{before}{key}.")
        elif key == "model_type" or not INERT.fullmatch(key):
            flat[before + key] = list(value) if isinstance(value, tuple | list) else value
    return flat


def nested(flat: Flat) -> dict[str, Any]:
    """Return settings as a config takes them."""
    values: dict[str, Any] = {}
    for path, value in flat.items():
        *parts, key = path.split(".")
        inside = values
        for part in parts:
            inside = inside.setdefault(part, {})
        inside[key] = copy.deepcopy(value)
    return values


def form_of(model: Any) -> Form:
    """Return what a model on the meta device saves."""
    state = model.state_dict()
    origin = {id(tensor): name for name, tensor in state.items()}
    written = revert_weight_conversion(model, dict(state))
    saved = {origin[id(tensor)]: name for name, tensor in written.items() if id(tensor) in origin}
    tied = {saved.get(name, name) for name in {**model.all_tied_weights_keys, **tied_names(model)}}
    unsaved = {saved.get(name, name) for name in unsaved_parameters(model)}
    shapes = tuple((name, tuple(tensor.shape)) for name, tensor in written.items())
    return Form(shapes=shapes, tied=frozenset(tied & written.keys()), unsaved=frozenset(unsaved))


def renamings_of(model: Any) -> list[Any]:
    """Return what from_pretrained does to the names in a file: patterns, what comes in their place, and where."""
    return [
        [
            type(each).__name__,
            each.compiled_sources.pattern,
            list(each.target_patterns),
            each.scope_prefix,
            each.base_model_prefix,
            getattr(each, "offset", None),
            isinstance(each, WeightConverter),
        ]
        for each in get_model_conversion_mapping(model)
    ]


class Building:
    """Builds the classes of a model type from settings, and keeps what came of it."""

    def __init__(self, dump: Dump, config_class: Any, classes: Mapping[str, Any], patience: int) -> None:
        self.dump, self.config_class, self.classes, self.patience = dump, config_class, classes, patience
        self._numbers: dict[Form, int] = {}

    def config(self, given: Flat) -> Any:
        with limited(_BUILD_SECONDS):
            return self.config_class.from_dict(nested({**self.dump.given, **given}))

    def form(self, name: str, config: Any) -> int:
        with limited(_BUILD_SECONDS), no_init_weights():
            own = copy.deepcopy(config)  # classes for questions set num_labels in it, whatever a file says
            model = abstract_model(self.classes[name], own, size_limit_bytes=1 << 62)
            form = form_of(model)
        if len(form.shapes) > _TENSORS_LIMIT:
            raise ValueError("too many tensors")
        if name not in self.dump.prefixes:
            self._describe(name, model)
        if form not in self._numbers:
            self._numbers[form] = len(self.dump.forms)
            self.dump.forms.append(form)
        return self._numbers[form]

    def _describe(self, name: str, model: Any) -> None:
        has_base = hasattr(model, model.base_model_prefix or " ")
        self.dump.prefixes[name] = model.base_model_prefix if has_base else ""
        missing = tuple(sorted(model._keys_to_ignore_on_load_missing or ()))
        self.dump.ignored[name] = (missing, ignored_names(model))
        self.dump.renamings[name] = renamings_of(model)

    def add(self, given: Flat, names: Sequence[str], found: dict[str, int] | None = None) -> dict[str, int] | None:
        """Build classes from settings; return what came of each, None where none can be built."""
        forms = {}
        try:
            config = self.config(given)
            flat = flattened(config.to_dict())
        except Exception:  # whatever a config objects to
            return None
        for name in names:
            with contextlib.suppress(Exception):  # a class that this config is not for
                forms[name] = self.form(name, config)
        if not forms:
            return None
        if found is not None:
            found.update(forms)
            return forms
        base = self.dump.base
        changed = {key: value for key, value in flat.items() if key not in base or base[key] != value}
        changed |= {key: "<absent>" for key in base if key not in flat}
        self.dump.samples.append((given, changed, forms))
        return forms


def values_for(key: str, value: Any, hint: Any, words: Sequence[str]) -> list[Any]:
    """Return other values that a setting may have, those first that are likelier to be taken."""
    last = key.rpartition(".")[2]
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int):
        return _integers(last, value)
    if isinstance(value, float):
        return [value * 2, value / 2, value + 1]
    if isinstance(value, str):
        return [each for each in words if each != value]
    if isinstance(value, list) and value and all(type(each) is int for each in value):
        return [[each * 2 for each in value], [each + 1 for each in value], value[::-1]]
    if isinstance(value, list) and value and all(type(each) is float for each in value):
        return [[each * 2 for each in value], [each + number for number, each in enumerate(value)]]
    if isinstance(value, list) and value and all(type(each) is bool for each in value):
        return [[not each for each in value], [not each for each in value[:1]] + value[1:]]
    if isinstance(value, list) and value and all(type(each) is str for each in value):
        return [*[[word] * len(value) for word in dict.fromkeys((*value, *words))][:4], value[::-1]]
    if value is None:
        text = str(hint)
        integers = [4, 64, 32, 2] if "int" in text and "list" not in text else []
        return [*integers, *([True, False] if "bool" in text else []), *words]
    return []


def _integers(last: str, value: int) -> list[int]:
    if LAYERS.fullmatch(last):
        return [each for each in (2, 4, 1, 5) if each != value]
    if value <= 12:
        found = dict.fromkeys((value * 2, value + 1, value * 3, value - 1, value // 2))
        return [each for each in found if each >= 0 and each != value]
    return [value * 2, value * 3, value // 2, value * 4, value + 1]


def common(model_type: str) -> Iterator[Flat]:
    """Yield the settings of other tests' configs, which are like those that anyone has."""
    configs = [model.config for model in (*OTHERS, *ZOO) if model.model_type == model_type]
    known = model_type in tensorflow_configs.CONFIGS
    configs += [tensorflow_configs.values(model_type, variant) for variant in (0, 1) if known]
    for config in configs:
        flat: Flat = {}
        for key, value in config.items():
            inside = {f"{key}.{name}": each for name, each in value.items()} if isinstance(value, Mapping) else {}
            flat |= inside or {key: list(value) if isinstance(value, tuple) else value}
        yield {key: value for key, value in flat.items() if key != "model_type"}


def resized(base: Flat) -> Iterator[Flat]:
    """Yield settings with the lists of one length one shorter or longer, and with them the numbers that count them."""
    lengths = {len(value) for value in base.values() if isinstance(value, list) and len(value) > 1}
    for length in sorted(lengths):
        lists = {key: value for key, value in base.items() if isinstance(value, list) and len(value) == length}
        counts = [key for key, value in base.items() if value == length and _COUNT.search(key)]
        for start in {key.rpartition(".")[0] for key in lists}:
            own = {key: value for key, value in lists.items() if key.rpartition(".")[0] == start}
            counted = [key for key in counts if key.rpartition(".")[0] == start]
            yield {**{key: value[:-1] for key, value in own.items()}, **dict.fromkeys(counted, length - 1)}
            yield {**{key: [*value, value[-1]] for key, value in own.items()}, **dict.fromkeys(counted, length + 1)}
            yield {key: value[:-1] for key, value in own.items()}


def words_of(module_names: set[str]) -> tuple[dict[str, list[str]], dict[str, bool]]:
    """Return what the source of classes compares settings with, and switches that a config need not have."""
    source = "\n".join(inspect.getsource(sys.modules[name]) for name in sorted(module_names) if name in sys.modules)
    words: dict[str, list[str]] = defaultdict(list)
    for key, found in _COMPARED.findall(source):
        words[key] += [word for word in re.findall(r'"([\w-]+)"', found) if word not in words[key]]
    return words, {key: default == "True" for key, default in _SWITCH.findall(source)}


def _hints(config_class: Any) -> Mapping[str, Any]:
    found: dict[str, Any] = {}
    for class_ in reversed(config_class.__mro__):
        found.update(vars(class_).get("__annotations__", {}))
    return found


def _literals(hint: Any) -> list[str]:
    if typing.get_origin(hint) is typing.Literal:
        return [each for each in typing.get_args(hint) if isinstance(each, str)]
    return [each for inner in typing.get_args(hint) for each in _literals(inner)]


def explored(model_type: str, classes: Mapping[str, Any], seed: int = 0, patience: int = 1) -> Dump | None:
    """Return what is seen of a model type, None where nothing of it can be built.

    `patience`   how many times as many configs and as much time as usual it may take
    """
    config_class = transformers.CONFIG_MAPPING[model_type]
    dump = Dump(model_type)
    building = Building(dump, config_class, classes, patience)
    default = config_class()
    parts = {key: part for key, part in vars(default).items() if isinstance(part, transformers.PreTrainedConfig)}
    dump.names = dict(config_class.attribute_map or {})
    for key, part in parts.items():
        dump.names |= {f"{key}.{alias}": f"{key}.{name}" for alias, name in (part.attribute_map or {}).items()}
    dump.whole = flattened(default.to_dict())
    forms: dict[str, int] = {}
    for given in _bases(dump.whole, parts):
        dump.given = given
        with contextlib.suppress(Exception):
            dump.base = flattened(building.config({}).to_dict())
            if building.add({}, list(classes), forms):
                break
    if not forms:
        return None
    dump.samples.append(({}, {}, dict(forms)))
    sizes = {name: len(dump.forms[number].shapes) for name, number in forms.items()}
    bases = [name for name in sizes if not dump.prefixes[name]]
    main = list(dict.fromkeys([max(sizes, key=lambda each: sizes[each]), *bases[:1]]))
    modules = {class_.__module__ for class_ in classes.values()}
    modules |= {type(part).__module__.replace("configuration_", "modeling_") for part in parts.values()}
    words, switches = words_of(modules)
    words |= {key: [*words.get(key, ()), *found] for key, found in _WORDS.items()}
    for key in [key for key, value in vars(default).items() if isinstance(value, str)]:
        more = getattr(config_class, f"{key}s", None)
        if isinstance(more, list) and all(isinstance(each, str) for each in more):
            words[key] = [*words.get(key, ()), *more]
    for key, value in switches.items():
        dump.base.setdefault(key, value)
    hints = {**_hints(config_class)}
    for key, part in parts.items():
        hints |= {f"{key}.{name}": hint for name, hint in _hints(type(part)).items()}
    dump.seed = seed
    explore(building, main, [name for name in forms if name not in main], hints, words)
    return dump


def _bases(whole: Flat, parts: Mapping[str, Any]) -> Iterator[Flat]:
    """Yield settings to begin with: few layers, few experts, and what is needed; then with less of that."""
    types = {f"{key}.model_type": part.model_type for key, part in parts.items() if part.model_type}
    count = re.compile(r"(num|n)_[a-z_]*experts|" + LAYERS.pattern)
    few = {
        key: 3 if LAYERS.fullmatch(key.rpartition(".")[2]) else 4
        for key, value in whole.items()
        if type(value) is int and value > 3 and count.fullmatch(key.rpartition(".")[2])
    }
    layers = {key: value for key, value in few.items() if value == 3}
    filled = {
        key: value
        for key, value in (("head_dim", 64), ("num_key_value_heads", 2), ("prediction_length", 4), ("vocab_size", 32))
        if whole.get(key, 0) is None
    }
    for start in (types, {}):
        yield {**start, **few}
        yield {**start, **few, **filled}
        yield {**start, **layers}
        yield {**start, **{key: value for key, value in few.items() if "." not in key}}
        yield start
        yield {**start, **filled}


def explore(
    building: Building, main: Sequence[str], others: Sequence[str], hints: Mapping[str, Any], words: Any
) -> None:
    """Change each setting of a config by itself, then many together."""
    dump = building.dump
    chance = random.Random(zlib.crc32(f"{dump.model_type} {dump.seed}".encode()))
    choices: dict[str, list[Any]] = {"num_labels": [5, 3]}
    for key, value in dump.base.items():
        last = key.rpartition(".")[2]
        if not INERT.fullmatch(last) and last != "num_labels":
            found = values_for(key, value, hints.get(key), [*words.get(last, ()), *_literals(hints.get(key))])
            if found:
                choices[key] = found
    taken = singles(building, main, choices)
    for together in _TOGETHER:
        if together.keys() <= dump.base.keys():
            building.add(dict(together), main)
    for given in common(dump.model_type):
        building.add(given, [*main, *others])
    first = {key: good[0] for key, good in taken.items() if _is_number(dump.base.get(key))}
    for together in resized(dump.base):
        for mixed in (together, {**first, **together}):
            building.add(mixed, main)
    joint = joints(building, main, choices, taken, chance)
    joint += branches(building, main, taken, chance)
    alike(building, main, taken, chance)
    start = time.process_time()
    for given in joint[::-1][: _OF_OTHERS * building.patience] + [{key: values[0]} for key, values in taken.items()]:
        if time.process_time() - start > _OTHERS_SECONDS * building.patience or not others:
            break
        building.add(given, others)


def singles(building: Building, main: Sequence[str], choices: Mapping[str, Sequence[Any]]) -> dict[str, list[Any]]:
    """Change each setting by itself; return the values that can be built with."""
    dump, start = building.dump, time.process_time()
    usual = dump.samples[0][2]
    taken: dict[str, list[Any]] = {}
    for key, values in sorted(choices.items(), key=lambda item: item[0].count(".")):
        if time.process_time() - start > _SINGLES_SECONDS * building.patience:
            break
        number_wanted = len(values) if not isinstance(dump.base.get(key), int | float) else 2
        has_effect, good = False, []
        for value in values:
            forms = building.add({key: value}, main)
            if forms is not None:
                good.append(value)
                has_effect |= any(usual.get(name) != number for name, number in forms.items())
            if len(good) >= (number_wanted if has_effect or isinstance(value, str | list | int) else 1):
                break
        if good:
            taken[key] = good
    return taken


def joints(
    building: Building,
    main: Sequence[str],
    choices: Mapping[str, Sequence[Any]],
    taken: Mapping[str, list[Any]],
    chance: Any,
) -> list[Flat]:
    """Change many settings together; return what was built with."""
    dump, start, done = building.dump, time.process_time(), []
    numbers = [key for key in choices if _is_number(dump.base.get(key)) and taken.get(key)]
    switches = [key for key in taken if key not in numbers]
    for count, with_switches in ((_JOINT, False), (_FLIPPED, True)):
        for _ in range(count * building.patience):
            if time.process_time() - start > _JOINT_SECONDS * building.patience * (1 + with_switches) / 2:
                break
            given = {key: _chosen(dump.base[key], taken[key], key, chance) for key in numbers}
            if with_switches:
                given |= {key: chance.choice(taken[key]) for key in switches if chance.random() < 0.3}
            for _ in range(8):
                if building.add(given, main) is not None:
                    done.append(given)
                    break
                given = {key: value for key, value in given.items() if chance.random() < 0.6}
    return done


def alike(building: Building, main: Sequence[str], taken: Mapping[str, list[Any]], chance: Any) -> None:
    """Build with sizes that are the same, by which a model may leave out what fits one to the other."""
    dump, start = building.dump, time.process_time()
    sizes = {key: dump.base[key] for key in taken if type(dump.base.get(key)) is int and dump.base[key] > 1}
    lists = {
        key: dump.base[key] for key in taken if _is_number(dump.base.get(key)) and isinstance(dump.base[key], list)
    }
    found: list[Flat] = []
    for key, value in sizes.items():
        part = key.rpartition(".")[0]
        near = {other: size for other, size in sizes.items() if other != key and other.rpartition(".")[0] == part}
        closest = sorted(
            near, key=lambda other: abs(near[other] - value) if (near[other] > 12) == (value > 12) else 1 << 40
        )
        found += [{key: near[other], other: near[other]} for other in closest[:2]]
        found += [
            {name: [value] * len(dump.base[name])} for name in lists if name.rpartition(".")[0] == part and value > 12
        ]
    chance.shuffle(found)
    for given in found[: _ALIKE * building.patience]:
        if time.process_time() - start > _ALIKE_SECONDS * building.patience:
            break
        building.add(given, main)


def branches(building: Building, main: Sequence[str], taken: Mapping[str, list[Any]], chance: Any) -> list[Flat]:
    """Build what a setting adds or leaves out with other numbers, too; return what was built with."""
    dump, start, done = building.dump, time.process_time(), []
    usual = {name: _names(dump.forms[number]) for name, number in dump.samples[0][2].items()}
    alone = [
        given
        for given, _, forms in dump.samples
        if 0 < len(given) < 5 and any(_names(dump.forms[number]) != usual.get(name) for name, number in forms.items())
    ]
    numbers = [key for key in taken if _is_number(dump.base.get(key))]
    for given in alone:
        for _ in range(3):
            if time.process_time() - start > _BRANCHES_SECONDS * building.patience:
                return done
            mixed = {key: _chosen(dump.base[key], taken[key], key, chance) for key in numbers}
            for _ in range(4):
                if building.add({**mixed, **given}, main) is not None:
                    done.append({**mixed, **given})
                    break
                mixed = {key: value for key, value in mixed.items() if chance.random() < 0.6}
    return done


def _names(form: Form) -> frozenset[str]:
    return frozenset(template_of(name) for name, _ in form.shapes)


def _is_number(value: Any) -> bool:
    return (isinstance(value, int | float) and not isinstance(value, bool)) or (
        isinstance(value, list) and bool(value) and all(type(each) is int for each in value)
    )


def _chosen(value: Any, good: Sequence[Any], key: str, chance: Any) -> Any:
    """Return a random value; of a list each entry by itself."""
    if isinstance(value, list):
        return [max(1, each * chance.choice((1, 2, 3))) if each > 4 else chance.choice((1, 2, 3)) for each in value]
    if isinstance(value, float):
        return chance.choice([value, *good])
    if LAYERS.fullmatch(key.rpartition(".")[2]):
        return chance.choice((1, 2, 3, 4))
    if key == "num_labels":
        return chance.randint(1, 9)
    if value > 12:
        return value * chance.choice((1, 2, 3, 4, 5, 6))
    return chance.choice([value, *good])


def main(folder: Path, model_types: list[str]) -> None:
    """Write a file for each model type."""
    warnings.simplefilter("ignore")
    transformers.logging.set_verbosity_error()
    torch.set_num_threads(1)
    folder.mkdir(exist_ok=True)
    every: dict[str, dict[str, Any]] = defaultdict(dict)
    for class_ in model_classes():
        every[class_.config_class.model_type][class_.__name__] = class_
    known = document("classes")["models"]
    for model_type in model_types or sorted(transformers.CONFIG_MAPPING):
        path = folder / f"{model_type}.json"
        if path.exists():
            continue
        start = time.process_time()
        entry = known.get(model_type, {"classes": {}, "others": ()})
        names = sorted({*entry["classes"], *entry["others"], *every[model_type]})
        classes = {
            name: class_
            for name, class_ in ((name, getattr(transformers, name, None)) for name in names)
            if hasattr(transformers, name) and class_.config_class is transformers.CONFIG_MAPPING[model_type]
        }
        try:
            dump = explored(model_type, classes, patience=_PATIENCE if model_type in _SHOWING_LITTLE else 1)
        except Exception as error:  # a config that does not build by default
            print(f"{model_type}: {type(error).__name__}: {str(error)[:200]}", flush=True)
            continue
        if dump is None:
            print(f"{model_type}: nothing is built of it", flush=True)
            continue
        forms = [[form.shapes, sorted(form.tied), sorted(form.unsaved)] for form in dump.forms]
        path.write_text(json.dumps({**vars(dump), "forms": forms}))
        seconds = time.process_time() - start
        print(f"{model_type}: {len(dump.samples)} configs, {len(dump.forms)} forms, {seconds:.1f} s", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
