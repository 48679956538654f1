"""What child processes may do in a conversion: read its source, write its scratch folder, in bounds by its size."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from converter.box.limits import Limits
from converter.execution.child import Terms, call_all
from converter.execution.inside import nothing
from converter.graphs.description.source import GraphSource
from converter.model.file import Location
from converter.options import Options
from converter.planning.source import Source


def terms_of(source: Source, options: Options, *, reads: Sequence[Location] = ()) -> Terms:
    """Return the terms of children that work on `source`.

    They read its files, what its graph is in, and `reads`; the working folder too where they import the user's own
    code.
    """
    checkpoint, files = source.checkpoint, source.files
    read: list[Location | None] = [*(file.path for file in files), *reads, source.path]
    graph = GraphSource.of(checkpoint)
    if graph is not None:
        read.append(graph.model)
    places = [place for place in read if isinstance(place, Path)]  # what is elsewhere is copied into the scratch folder
    model_bytes = max(checkpoint.nbytes, sum(file.size for file in files))
    has_own_code = options.model is not None or bool(options.custom_objects)
    return Terms(
        timeout_seconds=options.timeout,
        limits=Limits.of(model_bytes=model_bytes, timeout_seconds=options.timeout),
        reads=tuple(dict.fromkeys(each for place in places for each in (place, *_blobs_of(place)))),
        own_code=(Path.cwd(),) if has_own_code else (),
        is_box_required=options.require_sandbox,
    )


def _blobs_of(place: Path) -> Iterator[Path]:
    """Yield where a Hugging Face cache has the files that those in `snapshots/<revision>` link to."""
    for folder in Path(os.path.realpath(place.parent), place.name).parents:
        if folder.parent.name == "snapshots":
            yield folder.parent.parent / "blobs"
    if place.parent.name == "snapshots":
        yield place.parent.parent / "blobs"


def asked_of(values: Mapping[str, Any]) -> tuple[Options, dict[str, Any]]:
    """Return the options of a conversion among `values`, and those of formats.

    Raises UsageError for a value that its option does not have, SafetyError as `require_sandbox` does.
    """
    options, specific = Options.split(values)
    require_sandbox(options)
    return options, specific


def require_sandbox(options: Options) -> None:
    """Raise SafetyError where `options` demand the whole sandbox and this system does not have it."""
    if options.require_sandbox:
        with tempfile.TemporaryDirectory(prefix="ckconv-") as folder:
            call_all([nothing.call()], Path(folder), terms=Terms(is_box_required=True))
