"""Settings of layers in few lines: what layers of one class have alike is one line, however many they are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from converter.model.ledger import Setting, SettingKind

_SHOWN = 3
_TOGETHER = 8
_NEEDS = frozenset({SettingKind.ARGUMENT, SettingKind.BESIDE, SettingKind.WIRING})
_BUILT = _NEEDS | {SettingKind.ABSENT, SettingKind.UNKNOWN}
_MODULES = {"LSTM": "torch.nn.LSTM", "GRU": "torch.nn.GRU", "SimpleRNN": "torch.nn.RNN"}

Groups = dict[tuple[str, tuple[str, ...]], list[Setting]]


def lines(settings: Sequence[Setting], *, is_for_keras: bool) -> tuple[str, ...]:
    """Return the lines that a user should read: of modules to build, or of a Keras config that PyTorch's weights get.

    What concerns a model as a whole is one line: precision, what layers do in training alone, layers without weights.
    """
    wide = [each for each in settings if each.name == "dtype"]
    built = [each for each in settings if each.kind in _BUILT and each not in wide]
    lines = [_of_class(class_name, names, held, is_for_keras) for (class_name, names), held in _groups(built).items()]
    for text, names in _by_text(wide).items():
        lines.append(f"{text}: {_listed(names)}, with a Keras policy of mixed precision")
    if is_for_keras:
        return tuple(lines)
    training = [f"{text} ({_listed(names)})" for text, names in _by_text(_kind(settings, SettingKind.TRAINING)).items()]
    if training:
        lines.append(f"not in the weights, for training alone: {_joined(training)}")
    unwritten = list(_unwritten(_kind(settings, SettingKind.UNWRITTEN)))
    if unwritten:
        lines.append(f"layers without weights are for the model's code: {_joined(unwritten)}")
    return tuple(lines)


def _kind(settings: Iterable[Setting], kind: SettingKind) -> list[Setting]:
    return [each for each in settings if each.kind is kind and each.name != "dtype"]


def _groups(settings: Sequence[Setting]) -> Groups:
    """Return settings by class and by the layers that have them: layers that are set alike in all, or in one thing.

    Of the two ways that each class allows, the one with fewer groups.
    """
    by_class: dict[str, list[Setting]] = {}
    for each in settings:
        by_class.setdefault(each.class_name, []).append(each)
    groups: Groups = {}
    for class_name, held in by_class.items():
        ways = (_by_layers(held), _by_settings(held))
        groups |= {(class_name, names): list(alike) for names, alike in min(ways, key=len)}
    return groups


_Way = list[tuple[tuple[str, ...], tuple[Setting, ...]]]


def _by_layers(settings: Sequence[Setting]) -> _Way:
    layers: dict[str, dict[tuple[SettingKind, str], Setting]] = {}
    for each in settings:
        layers.setdefault(each.layer, {}).setdefault((each.kind, each.note), each)
    alike: dict[tuple[tuple[SettingKind, str], ...], list[str]] = {}
    for name, held in layers.items():
        alike.setdefault(tuple(held), []).append(name)
    return [(tuple(names), tuple(layers[names[0]].values())) for names in alike.values()]


def _by_settings(settings: Sequence[Setting]) -> _Way:
    layers: dict[tuple[SettingKind, str], list[Setting]] = {}
    for each in settings:
        layers.setdefault((each.kind, each.note), []).append(each)
    alike: dict[tuple[str, ...], list[Setting]] = {}
    for held in layers.values():
        alike.setdefault(tuple(dict.fromkeys(each.layer for each in held)), []).append(held[0])
    return [(names, tuple(held)) for names, held in alike.items()]


def _of_class(class_name: str, names: Sequence[str], held: Sequence[Setting], is_for_keras: bool) -> str:
    absent = [each.note for each in held if each.kind is SettingKind.ABSENT]
    needs = [each.note for each in held if each.kind in _NEEDS]
    unknown = [each.note for each in held if each.kind is SettingKind.UNKNOWN]
    parts = []
    if absent:
        module = next((its for name, its in _MODULES.items() if name in class_name), "PyTorch's module")
        what = "none of these" if len(absent) > 1 else "no such"
        parts.append(f"{', '.join(absent)}: {module} has {what}, the weights alone are carried")
    if needs:
        parts.append(f"{'right where PyTorch had' if is_for_keras else 'PyTorch needs'} {', '.join(needs)}")
    if unknown:
        parts.append(f"{', '.join(unknown)}: not known here, and not carried")
    return f"{class_name} {_listed(names)}: {'; '.join(parts)}"


def _by_text(settings: Iterable[Setting]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for each in settings:
        found.setdefault(each.note, []).append(each.layer)
    return found


def _unwritten(settings: Sequence[Setting]) -> Iterator[str]:
    by_layer: dict[tuple[str, str], list[str]] = {}
    for each in settings:
        by_layer.setdefault((each.layer, each.class_name), []).extend(filter(None, [each.note]))
    counted = Counter((class_name, tuple(notes)) for (_, class_name), notes in by_layer.items())
    for (class_name, notes), count in counted.items():
        set_to = f" ({', '.join(notes)})" if notes else ""
        yield f"{class_name}{set_to}" + (f" x{count}" if count > 1 else "")


def _joined(parts: Sequence[str]) -> str:
    shown = ", ".join(parts[:_TOGETHER])
    return shown if len(parts) <= _TOGETHER else f"{shown} and {len(parts) - _TOGETHER} more kinds"


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_SHOWN])
    return shown if len(names) <= _SHOWN else f"{shown} and {len(names) - _SHOWN} more"
