"""Checkpoints as training code saves them: nested data -> models, optimizers and the rest."""

from converter.dialects.training.optimizers import prefix_of
from converter.dialects.training.parts import WEIGHTS_KEYS
from converter.dialects.training.reading import checkpoint_of, names_in, select_option

__all__ = ["WEIGHTS_KEYS", "checkpoint_of", "names_in", "prefix_of", "select_option"]
