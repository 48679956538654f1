"""The user's own code for layers of a Keras model: imported with the Keras that it is for, and what to say of it.

`tf.keras` is Keras 3, or tf_keras where TF_USE_LEGACY_KERAS says so: TensorFlow looks once, when `tf.keras` is used,
and for ``from tensorflow.keras`` when it is imported itself (tensorflow/__init__.py of 2.21).
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from converter.errors import ArchitectureError, CkconvError, GraphError, UsageError
from converter.graphs.failures import lines_of

_LEGACY = "TF_USE_LEGACY_KERAS"
_TITLES = {"keras": "Keras 3", "tf_keras": "tf_keras"}
_INSTALL = "pip install tf-keras, which runs it, or write it for Keras 3"
_REASON_CHARACTERS = 200


def framework_of(value: Any) -> str:
    """Return which Keras a model or layer is of, whoever wrote its class."""
    roots = {each.__module__.partition(".")[0] for each in type(value).__mro__}
    return "tf_keras" if "tf_keras" in roots else "keras"


class OwnCode:
    """The code that ``package.module:Name,Name`` names, for a model that Keras 2 saved (`is_older`), or Keras 3."""

    def __init__(self, custom_objects: Sequence[str], *, is_older: bool) -> None:
        self._custom_objects = custom_objects
        self._is_older = is_older
        self._is_at_hand = importlib.util.find_spec("tf_keras") is not None

    def frameworks(self, *, has_encoder: bool) -> Sequence[str]:
        """Return which Keras is to build the model, in turn: code of a file of Keras 2 is for Keras 2."""
        if self._custom_objects and self._is_older and self._is_at_hand:
            return "tf_keras", "keras"
        return ("keras",) if has_encoder else ("keras", "tf_keras")

    def imported(self, folder: str) -> dict[str, Any]:
        """Import it, which the user asked for. Raises UsageError when it is not there."""
        objects: dict[str, Any] = {}
        if not self._custom_objects:
            return objects
        if self._is_older and self._is_at_hand:
            _use_tf_keras()
        if folder:
            sys.path.insert(0, folder)
        for text in self._custom_objects:
            module, _, listed = text.partition(":")
            try:
                held = vars(importlib.import_module(module))
            except Exception as error:  # the user's own code
                reason = _in_short(error)
                hint = "pip install tf-keras: the file is of Keras 2" if self._lacks_tf_keras(error) else None
                raise UsageError(f"--custom-objects: {module} cannot be imported: {reason}", hint=hint) from error
            try:
                objects.update({name: held[name] for name in listed.split(",")})
            except KeyError as error:
                raise UsageError(f"--custom-objects: {module} has no {error.args[0]!r}") from error
        return objects

    def refusal(self, failures: Mapping[str, BaseException]) -> CkconvError | None:
        """Return what to say where the code fails, of what each Keras raised; None where it is not to blame."""
        if not self._custom_objects:
            return None
        framework, error = next(iter(failures.items()))
        where, reason = self._place_in(error)
        if self._lacks_tf_keras(error):
            place = f" ({where})" if where else ""
            return ArchitectureError(
                f"is of Keras 2, and Keras 3 does not run the code of --custom-objects, which is for Keras 2{place}: "
                f"{reason}",
                hint=_INSTALL,
            )
        if where is None:
            return None
        tried = " or ".join(_TITLES[each] for each in failures)
        at = f"{where} in {_TITLES[framework]}"
        return GraphError(f"the code of --custom-objects does not run in {tried}; {at}: {reason}")

    def _lacks_tf_keras(self, error: BaseException) -> bool:
        is_for_it = isinstance(error, ImportError) and (error.name or "").partition(".")[0] == "tf_keras"
        return (self._is_older or is_for_it) and not self._is_at_hand

    def _place_in(self, error: BaseException) -> tuple[str | None, str]:
        """Return the last line of the user's own that was run, and what was raised there; Keras raises others of it."""
        modules = {sys.modules.get(text.partition(":")[0]) for text in self._custom_objects}
        files = {each.__file__ for each in modules if each is not None}
        found: tuple[str | None, str] = None, _in_short(error)
        raised: BaseException | None = error
        while raised is not None:
            lines = [frame for frame in traceback.extract_tb(raised.__traceback__) if frame.filename in files]
            if lines:
                found = f"{Path(lines[-1].filename).name}, line {lines[-1].lineno}", _in_short(raised)
            raised = raised.__cause__ or raised.__context__
        return found


def _in_short(error: BaseException) -> str:
    lines = lines_of(error)
    return lines[0][:_REASON_CHARACTERS] if lines else type(error).__name__


def _use_tf_keras() -> None:
    """Let `tf.keras` be tf_keras from now on."""
    os.environ[_LEGACY] = "1"
    tensorflow = sys.modules.get("tensorflow")
    spec = importlib.util.find_spec("tf_keras.api._v2.keras")
    if tensorflow is not None and spec is not None and spec.origin is not None:
        tensorflow.__path__.insert(0, os.fspath(Path(spec.origin).parents[1]))
