"""Which class of a model type a checkpoint is of, for every type but the encoder families: told by a generated table.

`tables/classes.json` says of each class under which name its base model is, and with which components the names of
everything else start. `tests/oracle/generate/classes.py` makes it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache

from converter.dialects.families import BASE_TASK, CAUSAL_TASK, CHOICE_TASK, MASKED_TASK, SEQUENCE_TASK
from converter.dialects.transformers.tables import document
from converter.errors import ArchitectureError

_TABLE = "classes"
_OUTER = ("", "model.", "module.")
_OUTPUT_EMBEDDINGS = frozenset({"lm_head", "embed_out"})

TASKS: Mapping[str, tuple[str, ...]] = {
    BASE_TASK: ("MODEL_MAPPING_NAMES",),
    MASKED_TASK: ("MODEL_FOR_MASKED_LM_MAPPING_NAMES",),
    CAUSAL_TASK: ("MODEL_FOR_CAUSAL_LM_MAPPING_NAMES",),
    "text2text-generation": ("MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES",),
    SEQUENCE_TASK: ("MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES",),
    CHOICE_TASK: ("MODEL_FOR_MULTIPLE_CHOICE_MAPPING_NAMES",),
    "token-classification": ("MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES",),
    "question-answering": ("MODEL_FOR_QUESTION_ANSWERING_MAPPING_NAMES",),
    "next-sentence-prediction": ("MODEL_FOR_NEXT_SENTENCE_PREDICTION_MAPPING_NAMES",),
    "pretraining": ("MODEL_FOR_PRETRAINING_MAPPING_NAMES",),
    "image-classification": ("MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES",),
    "image-segmentation": (
        "MODEL_FOR_SEMANTIC_SEGMENTATION_MAPPING_NAMES",
        "MODEL_FOR_IMAGE_SEGMENTATION_MAPPING_NAMES",
    ),
    "object-detection": ("MODEL_FOR_OBJECT_DETECTION_MAPPING_NAMES",),
    "depth-estimation": ("MODEL_FOR_DEPTH_ESTIMATION_MAPPING_NAMES",),
    "masked-image-modeling": ("MODEL_FOR_MASKED_IMAGE_MODELING_MAPPING_NAMES",),
    "video-classification": ("MODEL_FOR_VIDEO_CLASSIFICATION_MAPPING_NAMES",),
    "automatic-speech-recognition": (
        "MODEL_FOR_CTC_MAPPING_NAMES",
        "MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING_NAMES",
    ),
    "audio-classification": ("MODEL_FOR_AUDIO_CLASSIFICATION_MAPPING_NAMES",),
    "audio-frame-classification": ("MODEL_FOR_AUDIO_FRAME_CLASSIFICATION_MAPPING_NAMES",),
    "audio-xvector": ("MODEL_FOR_AUDIO_XVECTOR_MAPPING_NAMES",),
    "zero-shot-image-classification": ("MODEL_FOR_ZERO_SHOT_IMAGE_CLASSIFICATION_MAPPING_NAMES",),
    "visual-question-answering": ("MODEL_FOR_VISUAL_QUESTION_ANSWERING_MAPPING_NAMES",),
    "image-text-to-text": ("MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES",),
}
"""Task -> the lists of transformers.models.auto.modeling_auto that have its classes; the table was made from them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelClass:
    """A class, and the first components of its names.

    `prefix`     the name of its base model, "" for a class that is one
    `base`       those below `prefix`
    `head`       those outside
    `optional`   those outside that a file may leave out, because they are tied to others
    """

    name: str
    tasks: tuple[str, ...]
    prefix: str
    base: frozenset[str]
    head: frozenset[str]
    optional: frozenset[str]

    def misfit(self, firsts: frozenset[str], below: frozenset[str]) -> tuple[int, int]:
        """Return how many of its components names lack, and how many they have over.

        `firsts` are those that the names start with, `below` those after `prefix`.
        """
        head = firsts - {self.prefix}
        over = (head - self.head - self.optional) | (below - self.base)
        return len(self.head - head) + len(self.base - below), len(over)


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """A class, and what stands before all names; `is_certain` when no name is missing or left over."""

    name: str
    prefix: str
    is_certain: bool


@cache
def classes_of(model_type: str) -> tuple[ModelClass, ...]:
    """Return the classes that the table has of a model type; none where it does not know it."""
    entry = document(_TABLE)["models"].get(model_type)
    if entry is None:
        return ()
    return tuple(
        ModelClass(
            name=name,
            tasks=tuple(each["tasks"]),
            prefix=each["prefix"],
            base=frozenset(each["base"]),
            head=frozenset(each["head"]),
            optional=frozenset(each["optional"]),
        )
        for name, each in entry["classes"].items()
    )


def class_for_task(model_type: str, task: str) -> str | None:
    """Return the class of a model type for a task, None where there is none. Raises ArchitectureError for several."""
    found = [each.name for each in classes_of(model_type) if task in each.tasks]
    if len(found) > 1:
        raise ArchitectureError(
            f"{' and '.join(found)} are for {task}", hint="name one in the 'architectures' of a config.json: --config"
        )
    return found[0] if found else None


def told_by_names(model_type: str, names: Iterable[str], named: str | None, *, is_tied: bool = False) -> Told | None:
    """Return the class that `names` fit best; of those that fit alike `named`, which the config says.

    `is_tied` is whether the config ties word embeddings: output embeddings may be missing then, whatever the default.

    What stands before all names is looked for: a wrapper's, or that of a base model inside a class with a head. None
    when the table does not know the type, or nothing fits it: then a name that every class has is missing. Raises
    ArchitectureError when several fit alike and none of them is named.
    """
    names = tuple(names)
    known = tuple(map(_with_tied_head, classes_of(model_type))) if is_tied else classes_of(model_type)
    outers = dict.fromkeys((*_OUTER, *(f"{each.prefix}." for each in known if each.prefix)))
    scored: dict[tuple[int, int], list[Told]] = {}
    for outer in outers:
        if all(name.startswith(outer) for name in names):
            for each in known:
                below = _firsts(names, f"{outer}{each.prefix}.") if each.prefix else frozenset()
                misfit = each.misfit(_firsts(names, outer), below)
                told = Told(name=each.name, prefix=outer, is_certain=misfit == (0, 0))
                scored.setdefault(misfit, []).append(told)
    if not scored or min(scored)[0]:
        return None
    best = scored[min(scored)]
    chosen = next((each for each in best if each.name == named), None)
    if chosen is not None:
        return chosen
    alike = [each.name for each in best if each.prefix == best[0].prefix]
    if len(alike) > 1:
        tasks = sorted({task for each in known for task in each.tasks if each.name in alike})
        raise ArchitectureError(
            f"the tensors are of {' or '.join(alike)}, nothing says which",
            hint=f"give --task ({', '.join(tasks)}), or --config with a config.json that has 'architectures', "
            "or --weights-only",
        )
    return best[0]


def _with_tied_head(known: ModelClass) -> ModelClass:
    """Return a class with its output embeddings as names that a file may leave out."""
    tied = known.head & _OUTPUT_EMBEDDINGS
    return replace(known, head=known.head - tied, optional=known.optional | tied) if known.prefix else known


def _firsts(names: Iterable[str], before: str) -> frozenset[str]:
    """Return the first components of those names that start with `before`, after that."""
    return frozenset(name.removeprefix(before).partition(".")[0] for name in names if name.startswith(before))
