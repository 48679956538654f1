"""Tables of models that are made of two models of other types, put together from the tables of those.

transformers 4.57.6: EncoderDecoderModel, VisionEncoderDecoderModel, VisionTextDualEncoderModel and RAG. In TensorFlow
the name of a part comes before that of its main layer (``encoder/bert/...``), PyTorch's base models have none
(``encoder.embeddings``). Which class a part is of, its place says: a base model, or one with the head that the place
needs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from converter.dialects.tables import Condition, ModelClass, TensorFlowTable, tensorflow_table
from converter.dialects.tables.rows import Row, Rows, Template, layout_of
from converter.model.checkpoint import type_named

_DENSE = "i o -> o i"
_HEADS = {
    "base": ("Model", "DPRQuestionEncoder"),
    "causal": ("ForCausalLM", "LMHeadModel"),
    "sequence to sequence": ("ForConditionalGeneration", "MarianMTModel"),
}
_NOT_BASE = ("LMHeadModel", "HeadsModel", "MTModel", "EncoderModel", "BaseModel")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    """Where a composite has one of its models: the attribute, the key of its config, and what kind of class it is.

    `types` are the only ones that TensorFlow's class makes there from a config; none for any.
    """

    name: str
    config: str
    kind: str = "base"
    types: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Composite:
    """What the classes of a type are made of.

    `classes`  PyTorch's class -> what comes before the names of the TensorFlow one's parts, and whether it is a base
    `prefix`   what PyTorch has before the names of the parts in classes that are no base
    """

    classes: Mapping[str, tuple[str, bool]]
    places: tuple[_Place, ...]
    rows: tuple[tuple[str, str, str | None], ...] = ()
    prefix: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CompositePart:
    """A model in a composite.

    `name`      its attribute; what TensorFlow calls a variable of the model begins with it
    `key`       that of its config
    `canonical` what PyTorch calls a tensor of the model begins with it
    `prefix`    what the model's own names lose there, when it is a base model
    `model`     the class, as `table` has it
    `config`    its config
    """

    name: str
    key: str
    canonical: str
    prefix: str
    model: str
    table: TensorFlowTable
    config: Mapping[str, Any]

    def theirs(self, path: str) -> str:
        """Return what a variable of the model, or the path of several, is called in the composite.

        One that no layer holds keeps its name.
        """
        return path if "/" not in path and path in self.table.outside else f"{self.name}/{path}"

    def named(self, canonical: str) -> str | None:
        """Return what a tensor of the model is called in the composite, None when a base model has none."""
        if not canonical.startswith(self.prefix):
            return None
        return f"{self.canonical}.{canonical.removeprefix(self.prefix)}"

    def both_named(self, pairs: Mapping[str, str]) -> dict[str, str]:
        """Return pairs of the model's tensors as the composite calls them, without those that a base model lacks."""
        named = ((self.named(alias), self.named(owner)) for alias, owner in pairs.items())
        return {alias: owner for alias, owner in named if alias is not None and owner is not None}


_PROJECTION = (
    ("enc_to_dec_proj/kernel", "enc_to_dec_proj.weight", _DENSE),
    ("enc_to_dec_proj/bias", "enc_to_dec_proj.bias", None),
)
_CROSS = ("bert", "camembert", "gpt2", "rembert", "roberta", "roberta-prelayernorm", "xglm", "xlm-roberta")
_ENCODER_DECODER = (
    _Place(name="encoder", config="encoder"),
    _Place(name="decoder", config="decoder", kind="causal", types=_CROSS),
)
_COMPOSITES = {
    "encoder-decoder": _Composite(
        classes={"EncoderDecoderModel": ("tf_encoder_decoder_model", False)},
        places=_ENCODER_DECODER,
        rows=_PROJECTION,
    ),
    "vision-encoder-decoder": _Composite(
        classes={"VisionEncoderDecoderModel": ("tf_vision_encoder_decoder_model", False)},
        places=_ENCODER_DECODER,
        rows=_PROJECTION,
    ),
    "vision-text-dual-encoder": _Composite(
        classes={"VisionTextDualEncoderModel": ("tf_vision_text_dual_encoder_model", False)},
        places=(
            _Place(name="vision_model", config="vision_config"),
            _Place(name="text_model", config="text_config"),
        ),
        rows=(
            ("visual_projection/kernel", "visual_projection.weight", _DENSE),
            ("text_projection/kernel", "text_projection.weight", _DENSE),
            ("logit_scale", "logit_scale", "1 ->"),
        ),
    ),
    "rag": _Composite(
        classes={
            "RagModel": ("tf_rag_model", True),
            "RagSequenceForGeneration": ("tf_rag_sequence_for_generation/rag", False),
            "RagTokenForGeneration": ("tf_rag_token_for_generation/rag", False),
        },
        places=(
            _Place(name="question_encoder", config="question_encoder"),
            _Place(name="generator", config="generator", kind="sequence to sequence", types=("bart",)),
        ),
        prefix="rag",
    ),
}


def is_composite(model_type: object) -> bool:
    """Whether models of a type are made of models of others."""
    return model_type in _COMPOSITES


def is_built(config: Mapping[str, Any]) -> bool:
    """Whether TensorFlow's class of a composite makes its parts from this config, which `parts_of` knows.

    RAG hands its generator an argument that BART's class alone takes; decoders need cross-attention.
    """
    composite = _COMPOSITES[config["model_type"]]
    return all(not place.types or config[place.config]["model_type"] in place.types for place in composite.places)


def table_of(config: Mapping[str, Any]) -> TensorFlowTable | None:
    """Return the table of the model that a config describes, None when none knows its type or those of its parts."""
    model_type = type_named(config)
    if model_type is None:
        return None
    composite = _COMPOSITES.get(model_type)
    return tensorflow_table(model_type) if composite is None else _composed(composite, model_type, config)


def parts_of(config: Mapping[str, Any]) -> tuple[CompositePart, ...] | None:
    """Return the models that the config of a composite says it is made of, None when no table knows one of them."""
    composite = _COMPOSITES[config["model_type"]]
    before = f"{composite.prefix}." if composite.prefix else ""
    found = []
    for place in composite.places:
        own = config.get(place.config)
        table = table_of(own) if isinstance(own, Mapping) and not is_composite(own.get("model_type")) else None
        model = None if table is None else _class_in(place, table)
        if table is None or model is None or not isinstance(own, Mapping):
            return None
        is_base = table.classes[model].is_base
        found.append(
            CompositePart(
                name=place.name,
                key=place.config,
                canonical=before + place.name,
                prefix=f"{table.prefix}." if table.prefix and is_base else "",
                model=model,
                table=table,
                config=own,
            )
        )
    return tuple(found)


def _class_in(place: _Place, table: TensorFlowTable) -> str | None:
    names = [name for name in table.classes if name.endswith(_HEADS[place.kind])]
    if place.kind == "base":
        names = [name for name in names if not name.endswith(_NOT_BASE)]
    return names[0] if len(names) == 1 else None


def _composed(composite: _Composite, model_type: str, config: Mapping[str, Any]) -> TensorFlowTable | None:
    parts = parts_of(config)
    if parts is None:
        return None
    rows = [Row.of(row) for row in composite.rows]
    aliases: list[Row] = []
    lacks: list[str] = []
    optional = [row.canonical.text for row in rows if row.canonical.text.startswith("enc_to_dec_proj")]
    ties: dict[str, str] = {}
    ties_when_untied: dict[str, str] = {}
    outside: list[str] = []
    not_trained: list[str] = []
    used: list[str] = []
    prevails: list[str] = []
    unless: dict[str, Condition] = {}
    for part in parts:
        table, own = part.table, part.table.classes[part.model]
        rows += _inside(part, table.rows.all)
        aliases += _inside(part, table.aliases.all)
        lacks += filter(None, map(part.named, own.lacks))
        optional += filter(None, map(part.named, own.optional))
        is_tied = part.config.get("tie_word_embeddings", table.tied_by_default)
        ties |= part.both_named(own.ties)
        ties_when_untied |= part.both_named(own.ties if is_tied else own.ties_when_untied)
        used += filter(None, map(part.named, table.used))
        prevails += filter(None, map(part.named, table.prevails))
        not_trained += [f"{part.name}/{path}" for path in table.not_trained]
        unless |= dict(_conditions(part))
        outside += [part.theirs(name.partition("/")[2]) if "/" in name else name for name in table.outside]
    return TensorFlowTable(
        model_type=model_type,
        prefix=composite.prefix,
        rows=Rows(rows),
        aliases=Rows(aliases, is_two_way=False),
        classes={
            name: ModelClass(
                name=name,
                is_base=is_base,
                layer=layer,
                lacks=tuple(lacks),
                optional=tuple(optional),
                ties=ties,
                ties_when_untied=ties_when_untied,
                is_decided=True,
            )
            for name, (layer, is_base) in composite.classes.items()
        },
        tied_by_default=False,
        outside=tuple(outside),
        not_trained=tuple(not_trained),
        prevails=tuple(prevails),
        unless=unless,
        used=tuple(used),
    )


def _conditions(part: CompositePart) -> Iterator[tuple[str, Condition]]:
    """Yield names of tensors that a part has only when its config says so, and the key and value that say it."""
    for template, condition in part.table.unless.items():
        name = part.named(template)
        if name is not None:
            yield name, Condition(key=f"{part.key}.{condition.key}", value=condition.value)


def _inside(part: CompositePart, rows: Iterable[Row]) -> Iterator[Row]:
    """Yield the rows of a model as another has them whose part it is; a base model has those of the base alone."""
    for row in rows:
        name = part.named(row.canonical.text)
        if name is not None:
            yield Row(
                theirs=Template(text=part.theirs(row.theirs.text)),
                canonical=Template(text=name),
                layout=row.layout if row.layout is None else layout_of(row.layout.pattern),
            )
