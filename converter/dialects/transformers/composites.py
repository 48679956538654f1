"""Tables of models that are made of two models of other types, put together from the tables of those.

transformers 4.57.6: EncoderDecoderModel, VisionEncoderDecoderModel, VisionTextDualEncoderModel. In TensorFlow the name
of a part comes before that of its main layer (``encoder/bert/...``), PyTorch's base models have none
(``encoder.embeddings``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from converter.dialects.transformers.rows import Row, Rows, Template, layout_of
from converter.dialects.transformers.tables import ModelTable, model_table

_FRAMEWORK = "tensorflow"
_DENSE = "i o -> o i"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    """One of the models: `name` is its attribute, `config` the key of its config; a base model loses its prefix."""

    name: str
    config: str
    is_base: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class _Composite:
    architecture: str
    layer: str
    parts: tuple[_Part, ...]
    rows: tuple[tuple[str, str, str | None], ...]


_PROJECTION = (
    ("enc_to_dec_proj/kernel", "enc_to_dec_proj.weight", _DENSE),
    ("enc_to_dec_proj/bias", "enc_to_dec_proj.bias", None),
)
_ENCODER_DECODER = (
    _Part(name="encoder", config="encoder"),
    _Part(name="decoder", config="decoder", is_base=False),
)
_COMPOSITES = {
    "encoder-decoder": _Composite(
        architecture="EncoderDecoderModel",
        layer="tf_encoder_decoder_model",
        parts=_ENCODER_DECODER,
        rows=_PROJECTION,
    ),
    "vision-encoder-decoder": _Composite(
        architecture="VisionEncoderDecoderModel",
        layer="tf_vision_encoder_decoder_model",
        parts=_ENCODER_DECODER,
        rows=_PROJECTION,
    ),
    "vision-text-dual-encoder": _Composite(
        architecture="VisionTextDualEncoderModel",
        layer="tf_vision_text_dual_encoder_model",
        parts=(
            _Part(name="vision_model", config="vision_config"),
            _Part(name="text_model", config="text_config"),
        ),
        rows=(
            ("visual_projection/kernel", "visual_projection.weight", _DENSE),
            ("text_projection/kernel", "text_projection.weight", _DENSE),
            ("logit_scale", "logit_scale", "1 ->"),
        ),
    ),
}


def table_of(config: Mapping[str, Any]) -> ModelTable | None:
    """Return the table of the model that a config describes, None when none knows its type or those of its parts."""
    model_type = config.get("model_type")
    if not isinstance(model_type, str):
        return None
    composite = _COMPOSITES.get(model_type)
    return model_table(_FRAMEWORK, model_type) if composite is None else _composed(composite, model_type, config)


def _composed(composite: _Composite, model_type: str, config: Mapping[str, Any]) -> ModelTable | None:
    rows = [Row.of(row) for row in composite.rows]
    aliases: list[Row] = []
    ties: dict[str, str] = {}
    is_tied = True
    for part in composite.parts:
        own = config.get(part.config)
        table = table_of(own) if isinstance(own, Mapping) else None
        if table is None or not isinstance(own, Mapping):
            return None
        rows += _inside(part, table, table.rows.all)
        aliases += _inside(part, table, table.aliases.all)
        if not part.is_base:
            is_tied = bool(own.get("tie_word_embeddings", table.more["tied_by_default"]))
            for entry in table.more["classes"].values():
                ties |= {f"{part.name}.{alias}": f"{part.name}.{owner}" for alias, owner in entry["ties"].items()}
    entry = {
        "layer": composite.layer,
        "is_base": False,
        "lacks": [],
        "optional": sorted({row.canonical.text.partition(".")[0] for row in rows}),
        "ties": ties,
        "ties_when_untied": ties if is_tied else {},
    }
    return ModelTable(
        model_type=model_type,
        prefix="",
        rows=Rows(rows),
        aliases=Rows(aliases, is_two_way=False),
        more={"classes": {composite.architecture: entry}, "tied_by_default": is_tied, "not_trained": []},
    )


def _inside(part: _Part, table: ModelTable, rows: Iterable[Row]) -> list[Row]:
    """Return the rows of a model as a part of another has them; a base model has those of the base alone."""
    prefix = f"{table.prefix}." if table.prefix and part.is_base else ""
    return [
        Row(
            theirs=Template(text=f"{part.name}/{row.theirs.text}"),
            canonical=Template(text=f"{part.name}.{row.canonical.text.removeprefix(prefix)}"),
            layout=row.layout if row.layout is None else layout_of(row.layout.pattern),
        )
        for row in rows
        if row.canonical.text.startswith(prefix)
    ]
