"""Names of BERT, ALBERT and ELECTRA as Google released them, in TensorFlow 1 checkpoints.

https://github.com/google-research/bert, albert and electra: `bert/encoder/layer_0/attention/self/query/kernel`. What
each is in PyTorch, `tables/tf1.json` says. Their config files have no `model_type`: the names tell it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from converter.dialects.rewriting import Derivation, Rewriting
from converter.dialects.tables import tensorflow_1_table
from converter.dialects.tables.rows import Match
from converter.errors import ReadError
from converter.model.checkpoint import Checkpoint, Config, Dialect
from converter.model.ledger import LedgerLine, dropped

_EXPORT = "module/"
_TELLING = {
    "bert": re.compile(r"(?:module/)?bert/encoder/layer_[0-9]+/attention/self/query/kernel"),
    "albert": re.compile(r"(?:module/)?bert/encoder/transformer/group_[0-9]+/inner_group_[0-9]+/.+"),
    "electra": re.compile(r"(?:electra|generator)/encoder/layer_[0-9]+/attention/self/query/kernel"),
}
_GENERATOR = "electra-generator"
_GENERATOR_CLASSES = ("ElectraForMaskedLM", "ElectraForCausalLM")


def model_type_of(names: Iterable[str]) -> str | None:
    """Return the model type whose TensorFlow 1 names are among `names`, None when they are nobody's, or of several."""
    found = {kind for name in names for kind, pattern in _TELLING.items() if pattern.fullmatch(name)}
    return found.pop() if len(found) == 1 else None


def match(model_type: str, name: str) -> Match | None:
    """Return what PyTorch calls a variable and how their layouts differ, None when no row has it.

    `model_type` is one of the table's. A slot of an optimizer goes by the name of its weight.
    """
    table = tensorflow_1_table(model_type)
    return None if table is None else table.to_canonical(name.removeprefix(_EXPORT))


def to_canonical(checkpoint: Checkpoint) -> Checkpoint:
    """Return a checkpoint of `model_type_of` names with PyTorch's names and layouts; its config says its model type.

    Nothing is read. A variable that the table does not know is a loss that is refused by default; of ELECTRA's two
    models, the one that the config names is taken, or the discriminator. Raises ReadError for a shape that its row
    has not, and when a config is another model's.
    """
    model_type = model_type_of(checkpoint.names)
    if model_type is None:
        raise ReadError("has no names of BERT, ALBERT or ELECTRA as TensorFlow 1 has them")
    config = _with_model_type(checkpoint.config, model_type)
    rewriting = Rewriting(source=checkpoint)
    if config is not checkpoint.config:
        rewriting.note(f"config.json: model_type is now {model_type}")
    chosen = _GENERATOR if model_type == "electra" and _is_generator(config) else model_type
    for name in checkpoint.names:
        found = match(chosen, name)
        if found is None:
            rewriting.lines.append(_line(name, model_type, chosen))
            continue
        rewriting.carry(Derivation(before=(name,), after=(found.name,), operations=found.operations))
    return rewriting.done(Dialect.PYTORCH, config=config, **rewriting.state_of_variables())


def _line(name: str, model_type: str, chosen: str) -> LedgerLine:
    if name.rpartition("/")[2] == "temperature":
        return dropped(name, "no weight: a setting of the pretraining")
    other = model_type if chosen == _GENERATOR else _GENERATOR
    if model_type == "electra" and match(other, name) is not None:
        which, wanted = ("generator", _GENERATOR_CLASSES[0]) if other == _GENERATOR else ("discriminator", "another")
        return dropped(name, f"of the {which}: a config whose architectures name {wanted} takes that model")
    return dropped(name, f"no weight that {model_type} is known to have", is_refused_by_default=True)


def _is_generator(config: Config | None) -> bool:
    return config is not None and config.architecture in _GENERATOR_CLASSES


def _with_model_type(config: Config | None, model_type: str) -> Config | None:
    """Return the config with its model type; itself where it says so already. Raises ReadError when it says another."""
    if config is None:
        return None
    stated = config.values.get("model_type")
    if stated not in (None, model_type):
        raise ReadError(f"has the names of {model_type}, and its config is of model type {stated!r}")
    return config.with_values({"model_type": model_type})
