"""The rules by which a migration may be refused, as README lists them, and what the line of a refusal says."""

from __future__ import annotations

import re

RULES = {
    "no model of transformers": (
        r"a pretrained folder (?:needs a config\.json|holds a model of)|which no table of transformers knows"
    ),
    "no file of Keras": (
        r"Keras opens a model |Keras loads no |, has layers inside|whose variables cannot be named|"
        r"needs the config of a Keras model|no table says where|of no layer of the Keras model|"
        r"layer '.*' is a .*(?:--weights-only|needs no names)"
    ),
    "no graph": (
        r"no class of the .* family has|no config\.json says which model this is|no graph of its own|"
        r"nothing says what is computed"
    ),
    "code": r"Lambda, which is code|--custom-objects",
    "not told": r"which no tensor tells|optimizer state:|optimizer's variables",
}


def rule_of(said: str) -> str | None:
    """Return the rule that a refusal goes by, None when it goes by none of them."""
    return next((name for name, pattern in RULES.items() if re.search(pattern, said)), None)
