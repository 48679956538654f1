"""Sizes that a config.json leaves out and the shapes of the tensors tell.

transformers fills them with those of a release, and then refuses the tensors. What is made like a BERT is told by a few
tensors of any name, all else by the table of shapes. Few shapes tell how many heads there are, none how often an ALBERT
computes its one layer.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from converter.dialects import canonical
from converter.dialects.identity import disentangled
from converter.dialects.identity.inference import infer_architecture
from converter.dialects.identity.settings import is_setting
from converter.dialects.identity.shapes import UncheckedError, leaves_sizes_out
from converter.dialects.identity.sizes import Told, settings_told
from converter.dialects.names.wrappers import unwrapped
from converter.dialects.quantised import quantisation_of
from converter.errors import ArchitectureError, CkconvError
from converter.model.checkpoint import Checkpoint, Config, Dialect

_WORDS, _POSITIONS = "embeddings.word_embeddings.weight", "embeddings.position_embeddings.weight"
_OF_BERT = {
    "vocab_size": (_WORDS, 0),
    "hidden_size": ("encoder.layer.0.intermediate.dense.weight", 1),
    "max_position_embeddings": (_POSITIONS, 0),
    "type_vocab_size": ("embeddings.token_type_embeddings.weight", 0),
    "intermediate_size": ("encoder.layer.0.intermediate.dense.weight", 0),
}
_AS_BERT = """
bert bert-generation camembert data2vec-text ernie ibert layoutlm megatron-bert mpnet roberta roberta-prelayernorm
splinter xlm-roberta xlm-roberta-xl
"""
_ALBERT_LAYER = "encoder.albert_layer_groups.0.albert_layers.0"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Family:
    """Types that are laid out alike, and what their configs call their sizes.

    `sizes`    key -> the tensor, by the end of its name, and the axis that tells it
    `numbered` key -> what it counts: what is below this, by number
    `untold`   keys besides `heads` that no shape tells
    `called`   key -> what transformers takes for it, too
    """

    types: tuple[str, ...]
    sizes: Mapping[str, tuple[str, int]]
    numbered: Mapping[str, str] = field(default_factory=lambda: {"num_hidden_layers": "encoder.layer"})
    hidden: str = "hidden_size"
    heads: str = "num_attention_heads"
    untold: tuple[str, ...] = ()
    called: Mapping[str, str] = field(default_factory=dict)

    def said(self, key: str, values: Mapping[str, object]) -> object:
        """Return what a config says under a key or its other name, None for nothing."""
        return values.get(key, values.get(self.called.get(key, key)))


_FAMILIES = (
    _Family(types=tuple(_AS_BERT.split()), sizes=_OF_BERT),
    _Family(types=("electra", "convbert"), sizes={**_OF_BERT, "embedding_size": (_WORDS, 1)}),
    _Family(
        types=("roformer",),
        sizes={
            **_OF_BERT,
            "embedding_size": (_WORDS, 1),
            "max_position_embeddings": ("encoder.embed_positions.weight", 0),
        },
    ),
    _Family(types=("rembert",), sizes={**_OF_BERT, "input_embedding_size": (_WORDS, 1)}),
    _Family(
        types=("albert",),
        sizes={
            **_OF_BERT,
            "embedding_size": (_WORDS, 1),
            "hidden_size": ("encoder.embedding_hidden_mapping_in.weight", 0),
            "intermediate_size": (f"{_ALBERT_LAYER}.ffn.weight", 0),
        },
        numbered={
            "num_hidden_groups": "encoder.albert_layer_groups",
            "inner_group_num": "encoder.albert_layer_groups.0.albert_layers",
        },
        untold=("num_hidden_layers",),
    ),
    _Family(
        types=("distilbert",),
        sizes={
            "vocab_size": (_WORDS, 0),
            "dim": (_WORDS, 1),
            "max_position_embeddings": (_POSITIONS, 0),
            "hidden_dim": ("transformer.layer.0.ffn.lin1.weight", 0),
        },
        numbered={"n_layers": "transformer.layer"},
        hidden="dim",
        heads="n_heads",
        called={"dim": "hidden_size", "n_heads": "num_attention_heads", "n_layers": "num_hidden_layers"},
    ),
)
_OF_LABELS = ("classifier.weight", "classifier.out_proj.weight")
_LISTS = ("pos_att_type",)
_LABEL_KEYS = ("id2label", "label2id", "num_labels")


_HEADS = (
    "num_attention_heads",
    *("n_head", "n_heads", "num_heads", "attention_heads", "encoder_attention_heads", "decoder_attention_heads"),
    *("num_encoder_attention_heads", "num_decoder_attention_heads", "decoder_num_attention_heads"),
)
"""What configs call numbers of heads. The first is another name for the first of the others that a config has."""

_OWN_SIZES_OF_HEADS = ("head_dim", "attention_head_dim", "attention_head_size", "kv_channels", "d_kv", "qk_head_dim")
"""What configs say of the size of a head where it is none of the hidden size over the number of heads."""


class UntoldError(ArchitectureError):
    """No tensor tells all that the config leaves out; `config` has what they tell."""

    def __init__(self, message: str, *, hint: str, config: Config) -> None:
        super().__init__(message, hint=hint)
        self.config = config


def with_sizes(checkpoint: Checkpoint) -> Checkpoint:
    """Return the checkpoint with the sizes that its config leaves out, and a warning that says them.

    Raises ArchitectureError where the config does not say the number of heads either, or what else no shape tells.
    """
    config = checkpoint.config
    if config is None or config.model_type is None or checkpoint.dialect != Dialect.PYTORCH:
        return checkpoint
    family = next((each for each in _FAMILIES if config.model_type in each.types), None)
    return _by_table(checkpoint, config) if family is None else _by_family(checkpoint, config, family)


def with_told_sizes(checkpoint: Checkpoint) -> Checkpoint:
    """Return the same for a target without a config, whose names follow one: what no tensor tells stays unsaid."""
    try:
        return replace(with_sizes(checkpoint), warnings=checkpoint.warnings)
    except UntoldError as untold:
        return replace(checkpoint, config=untold.config)
    except ArchitectureError:
        return checkpoint


def _by_family(checkpoint: Checkpoint, config: Config, family: _Family) -> Checkpoint:
    told = _sizes(checkpoint, family)
    heads, hidden = (family.said(key, {**told, **config.values}) for key in (family.heads, family.hidden))
    if told:
        _check_heads((family.heads, heads), (family.hidden, hidden))
    sizes = {name: size for name, size in told.items() if family.said(name, config.values) is None}
    if not sizes:
        return checkpoint
    untold = [name for name in (family.heads, *family.untold) if family.said(name, config.values) is None]
    labels = _labels(checkpoint)
    if labels is not None and config.values.keys().isdisjoint(_LABEL_KEYS):
        sizes["num_labels"] = labels
    return _filled(checkpoint, config, sizes, untold)


def _by_table(checkpoint: Checkpoint, config: Config) -> Checkpoint:
    told = _told(checkpoint, config)
    if told is None:
        return checkpoint
    known = {**told.values, **config.values}
    untold = [*_unsaid_heads(config, known), *disentangled.untold(config.model_type, known)]
    has_sizes = any(not isinstance(value, bool) for value in told.values.values())
    if not told.differs and not told.wrong and not (untold and has_sizes):
        return checkpoint
    if not any(_is_setting(config, name) for name in _OWN_SIZES_OF_HEADS):
        _check_heads((_HEADS[0], known.get(_HEADS[0])), ("hidden_size", known.get("hidden_size")))
    if told.wrong and not untold:
        tensor, names = next(iter(told.wrong.items()))
        raise ArchitectureError(
            f"config.json does not say {' or '.join(names)}, and with what {config.model_type} has by default {tensor} "
            "would be another",
            hint=f"--config-value {names[0]}=VALUE",
        )
    return _filled(checkpoint, config, told.values, untold)


def _told(checkpoint: Checkpoint, config: Config) -> Told | None:
    """Return what the tensors tell of a config, None where no table knows their class, or they are codes."""
    if not leaves_sizes_out(config.values) or quantisation_of(checkpoint) is not None:
        return None
    try:
        named = canonical(unwrapped(replace(checkpoint, optimizer=None, structure=None)))
        inference = infer_architecture(named.tensors, config.values)
        held = {name.removeprefix(inference.prefix): named.tensor(name).shape for name in named.names}
        return settings_told(config.values, inference.architecture, held)
    except (CkconvError, UncheckedError):
        return None


def _is_setting(config: Config, name: str) -> bool:
    """Whether a table knows a setting of the type of a config."""
    try:
        return is_setting(config.values, name)
    except ArchitectureError:
        return False


def _unsaid_heads(config: Config, known: Mapping[str, Any]) -> list[str]:
    """Return what a config calls the numbers of heads that neither it nor any tensor says."""
    keys = [key for key in _HEADS if _is_setting(config, key)]
    unsaid = [key for key in keys if key not in known]
    return [key for key in unsaid if key != keys[0] or _HEADS[0] not in known]


def _filled(checkpoint: Checkpoint, config: Config, sizes: Mapping[str, Any], untold: Sequence[str]) -> Checkpoint:
    """Return the checkpoint with sizes in its config. Raises ArchitectureError for settings that are not told."""
    values = dict(sizes)
    labels = values.pop("num_labels", None)
    listed = ", ".join(f"{name} {size}" for name, size in values.items())
    if untold:
        raise UntoldError(
            f"config.json does not say {' and '.join(untold)}, which no tensor tells (they tell {listed})",
            hint=" ".join(f"--config-value {name}={'VALUE' if name in _LISTS else 'N'}" for name in untold),
            config=config.with_values(values),
        )
    if labels is not None:
        values |= _numbered(labels)
        listed += f", {labels} labels"
    warning = f"config.json: as the shapes of the tensors tell, {listed}"
    return replace(checkpoint, config=config.with_values(values), warnings=(*checkpoint.warnings, warning))


def _check_heads(heads: tuple[str, object], hidden: tuple[str, object]) -> None:
    (name, count), (whole, size) = heads, hidden
    if isinstance(count, int) and isinstance(size, int) and (count < 1 or size % count):
        raise ArchitectureError(
            f"config.json says {name} {count}, of which {whole} {size} is no multiple",
            hint=f"--config-value {name}=N",
        )


def _numbered(labels: int) -> dict[str, object]:
    """Return what a config says of labels that have no names."""
    names = {str(number): f"LABEL_{number}" for number in range(labels)}
    return {"id2label": names, "label2id": {name: int(number) for number, name in names.items()}}


def _sizes(checkpoint: Checkpoint, family: _Family) -> Mapping[str, int]:
    found: dict[str, int] = {}
    for size, (ending, axis) in family.sizes.items():
        shape = _shape(checkpoint, ending)
        if shape is not None and len(shape) == 2:
            found[size] = shape[axis]
    counts = {key: _count(checkpoint, above) for key, above in family.numbered.items()}
    return {**found, **counts} if all(counts.values()) and found else {}


def _count(checkpoint: Checkpoint, above: str) -> int:
    below = re.compile(rf"(?:^|\.){re.escape(above)}\.(\d+)\.")
    return max((1 + int(match[1]) for match in map(below.search, checkpoint.names) if match is not None), default=0)


def _labels(checkpoint: Checkpoint) -> int | None:
    shapes = (_shape(checkpoint, ending) for ending in _OF_LABELS)
    return next((shape[0] for shape in shapes if shape is not None and len(shape) == 2), None)


def _shape(checkpoint: Checkpoint, ending: str) -> tuple[int, ...] | None:
    named = (name for name in checkpoint.names if name == ending or name.endswith(f".{ending}"))
    return next((checkpoint.tensor(name).shape for name in named), None)
