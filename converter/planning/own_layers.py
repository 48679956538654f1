"""What the user's own Keras layers have inside, asked of their code where a file of another kind needs it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from converter.execution.child import require
from converter.execution.workshop import LocalWorkshop
from converter.graphs import calls
from converter.model.checkpoint import Checkpoint
from converter.options import Options


@dataclass(slots=True)
class _Code:
    """The code of `--custom-objects`, which is imported when it is asked."""

    workshop: LocalWorkshop
    custom_objects: tuple[str, ...]
    is_asked: bool = False

    def __call__(
        self, *, layers: Mapping[str, Mapping[str, Any]], is_older: bool
    ) -> dict[str, list[tuple[str, str, str, str]]]:
        """Return what `Listing.asked` does. Raises what `calls.attributes_of_keras` raises."""
        require("tensorflow", "making layers of your own")
        self.is_asked = True
        return self.workshop.call(
            calls.attributes_of_keras,
            layers=layers,
            custom_objects=self.custom_objects,
            folder=os.getcwd(),
            is_older=is_older,
        )


def with_own_layers(checkpoint: Checkpoint, options: Options, workshop: LocalWorkshop) -> Checkpoint:
    """Return the checkpoint, its listing, if any, with the code of `--custom-objects`."""
    if checkpoint.listing is None:
        return checkpoint
    asked = _Code(workshop, options.custom_objects)
    return replace(checkpoint, listing=replace(checkpoint.listing, asked=asked))


def is_code_asked(checkpoint: Checkpoint) -> bool:
    """Whether something was made by the code that `with_own_layers` gave a checkpoint."""
    asked = None if checkpoint.listing is None else checkpoint.listing.asked
    return isinstance(asked, _Code) and asked.is_asked
