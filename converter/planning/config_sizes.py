"""Sizes that a config.json leaves out and the shapes of the tensors tell: of a BERT, and of what is made like one.

transformers fills them with those of a release, and then refuses the tensors. No shape tells how many heads there are,
nor how often an ALBERT computes its one layer.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from converter.errors import ArchitectureError
from converter.model.checkpoint import Checkpoint, Dialect

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
_LABEL_KEYS = ("id2label", "label2id", "num_labels")


def with_sizes(checkpoint: Checkpoint) -> Checkpoint:
    """Return the checkpoint with the sizes that its config leaves out, and a warning that says them.

    Raises ArchitectureError where the config does not say the number of heads either, or what else no shape tells.
    """
    config = checkpoint.config
    family = None if config is None else next((each for each in _FAMILIES if config.model_type in each.types), None)
    if config is None or family is None or checkpoint.dialect != Dialect.PYTORCH:
        return checkpoint
    told = _sizes(checkpoint, family)
    heads, hidden = (family.said(key, {**told, **config.values}) for key in (family.heads, family.hidden))
    if told:
        _check_heads(heads, hidden, family)
    sizes = {name: size for name, size in told.items() if family.said(name, config.values) is None}
    if not sizes:
        return checkpoint
    listed = ", ".join(f"{name} {size}" for name, size in sizes.items())
    for untold in (family.heads, *family.untold):
        if family.said(untold, config.values) is None:
            raise ArchitectureError(
                f"config.json does not say {untold}, which no tensor tells (they tell {listed})",
                hint=f"--config-value {untold}=N",
            )
    values: dict[str, object] = dict(sizes)
    labels = _labels(checkpoint)
    if labels is not None and config.values.keys().isdisjoint(_LABEL_KEYS):
        values |= _numbered(labels)
        listed += f", {labels} labels"
    warning = f"config.json: as the shapes of the tensors tell, {listed}"
    return replace(checkpoint, config=config.with_values(values), warnings=(*checkpoint.warnings, warning))


def _check_heads(heads: object, hidden: object, family: _Family) -> None:
    if isinstance(heads, int) and isinstance(hidden, int) and (heads < 1 or hidden % heads):
        raise ArchitectureError(
            f"config.json says {family.heads} {heads}, of which {family.hidden} {hidden} is no multiple",
            hint=f"--config-value {family.heads}=N",
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
