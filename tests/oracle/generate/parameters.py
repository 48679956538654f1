"""Makes converter/dialects/tables/parameters.json: in which order classes of transformers have their parameters.

    python -m tests.oracle.generate.parameters TABLE [model type ...]

in an environment with transformers 5 and torch. Every class of a model type is built on the meta device from the
configs that anyone may have; its base model and its largest class also with each switch of the config changed, those of
its parts, and what the source of the class compares settings with. The orders seen are put together into one tree of
names for as many classes as one order is right for, and every order seen is compared with what the tree says.
"""

from __future__ import annotations

import contextlib
import copy
import inspect
import json
import os
import re
import sys
import warnings
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"

import torch
import transformers

from converter.dialects.identity.classes import template_of
from converter.dialects.tables import document
from converter.graphs.trace.canonical_names import tied_names
from converter.graphs.trace.model_building import abstract_model, unsaved_parameters
from converter.graphs.trace.saved_form import saved_form
from tests.oracle.generate.classes import usual_configs
from tests.oracle.generate.in_process import flipped, model_classes

PLAIN, NORM, EITHER = 0, 1, 2
_CHANGES_LIMIT = 60
_TIES_LIMIT = 30
"""Of more, which layers share which is a matter of the config: the class then has parameters that a file lacks."""
_LAYERS = re.compile(r"(num|n)_[a-z_]*layers?|[a-z]*_layers|depth")
_TIE = "tie_word_embeddings"
_TOGETHER: tuple[dict[str, Any], ...] = (
    {"is_decoder": True, "add_cross_attention": True},
    {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "share_att_key": False, "norm_rel_ebd": "layer_norm"},
    {"conv_kernel_size": 3, "conv_act": "gelu"},
)
_COMPARED = re.compile(r"config\.(\w+) (?:==|!=|in|not in) [(\[{]?((?:\"\w[\w-]*\"(?:, )?)+)")
_SWITCH = re.compile(r"getattr\((?:self\.)?config, \"(\w+)\", (True|False)\)")
_COUNT = re.compile(r"if (?:self\.)?config\.(\w+)(?: > 0| is not None| is None)?(?=:| else)")


class ConflictError(Exception):
    """Orders that no tree has at once."""


@dataclass(frozen=True)
class Order:
    """What one config shows of a class: its parameters in order, LayerNorms or not, and which need not be saved.

    `apart` are templates of what is saved in another form, `ties` are names of a parameter -> that it is saved under,
    `buffers` templates of what is no parameter, and `usual` is the number of the config among the usual ones.
    """

    rows: tuple[tuple[str, int], ...]
    free: frozenset[str]
    apart: frozenset[str]
    ties: tuple[tuple[str, str], ...]
    is_tied: bool
    buffers: frozenset[str]
    usual: int | None


@dataclass
class Seen:
    """A class and its orders; `prefix` is what it calls its base model, `home` what others call it."""

    name: str
    prefix: str
    home: str
    orders: list[Order] = field(default_factory=list)


def order_of(class_: Any, config: Any, usual: int | None) -> tuple[str, Order]:
    """Return what a class calls its base model, and the order of its parameters."""
    model = abstract_model(class_, config)
    form = saved_form(model)
    norms = {
        id(parameter)
        for module in model.modules()
        if isinstance(module, torch.nn.LayerNorm)
        for parameter in module.parameters(recurse=False)
    }
    rows, apart = {}, set()
    for name, parameter in model.named_parameters(remove_duplicate=False):
        if name in form.parts:
            apart.update(map(template_of, form.parts[name]))
        else:
            rows[form.names.get(name, name)] = NORM if id(parameter) in norms else PLAIN
    free = {form.names.get(name, name) for name in unsaved_parameters(model)}
    prefix = model.base_model_prefix if hasattr(model, model.base_model_prefix or " ") else ""
    pairs = [(form.names.get(alias), form.names.get(owner)) for alias, owner in tied_names(model).items()]
    ties = tuple((alias, owner) for alias, owner in pairs if alias in rows and owner in rows)
    is_tied = bool(getattr(config, "tie_word_embeddings", True))
    buffers = frozenset(template_of(form.names.get(name, name)) for name, _ in model.named_buffers())
    return prefix, Order(tuple(rows.items()), frozenset(free), frozenset(apart), ties, is_tied, buffers, usual)


def shallow(config: Any) -> Any:
    """Return the config with two layers in each of its parts, where they take that."""
    changed = copy.deepcopy(config)
    for part in _parts(changed):
        for key, value in list(vars(part).items()):
            if type(value) is int and value > 2 and _LAYERS.fullmatch(key):
                with contextlib.suppress(Exception):  # a value that this config does not take
                    setattr(part, key, 2)
    return changed


def _with(config: Any, **values: Any) -> Any:
    changed = copy.deepcopy(config)
    for key, value in values.items():
        with contextlib.suppress(Exception):  # a value that this config does not take
            setattr(changed, key, value)
    return changed


def _parts(config: Any) -> list[Any]:
    return [part for part in vars(config).values() if isinstance(part, transformers.PreTrainedConfig)]


def changed_configs(class_: Any, config: Any) -> Iterator[Any]:
    """Yield the config with each switch changed, and what the source compares with something; some go together."""
    yield from (_with(config, **together) for together in _TOGETHER if together.keys() & vars(config).keys())
    yield from flipped(config)
    parts = [config, *_parts(config)]
    source = _source(class_, parts)
    wanted: dict[tuple[str, Any], None] = {}
    for key, words in _COMPARED.findall(source):
        wanted.update(((key, word), None) for word in re.findall(r'"([\w-]+)"', words))
    wanted.update(((key, default == "False"), None) for key, default in _SWITCH.findall(source))
    for key in _COUNT.findall(source):
        wanted.update({(key, 0): None, (key, 4): None, (key, None): None})
    for part in range(len(parts)):
        for key, value in wanted:
            changed = copy.deepcopy(config)
            held = [changed, *_parts(changed)]
            now = getattr(held[part], key, None)
            if not isinstance(now, list | dict | transformers.PreTrainedConfig) and now != value:
                with contextlib.suppress(Exception):  # a value that this config does not take
                    setattr(held[part], key, value)
                    yield changed


def _source(class_: Any, parts: Sequence[Any]) -> str:
    modules = {class_.__module__}
    for part in parts[1:]:
        modules.add(type(part).__module__.replace("configuration_", "modeling_"))
    return "\n".join(inspect.getsource(sys.modules[name]) for name in sorted(modules) if name in sys.modules)


def seen_of(model_type: str, classes: Mapping[str, Any]) -> list[Seen]:
    """Return the classes of a model type that can be built, and their orders."""
    usual = list(usual_configs(model_type))
    found: dict[str, Seen] = {}
    for name, class_ in classes.items():
        for number, config in enumerate(usual):
            _see(found, name, class_, config, number)
        for config in usual[:1]:
            _see(found, name, class_, _with(config, tie_word_embeddings=not getattr(config, _TIE, True)), None)
    homes = list(dict.fromkeys(each.prefix for each in found.values() if each.prefix))
    for each in found.values():
        each.home = "" if each.prefix or not homes else homes[0]
    bases = [each for each in found.values() if not each.prefix]
    largest = sorted(found.values(), key=lambda each: -max(len(order.rows) for order in each.orders))
    for each in {each.name: each for each in (*bases[:1], *largest[:1])}.values():
        for config in usual:
            for number, changed in enumerate(changed_configs(classes[each.name], config)):
                if number == _CHANGES_LIMIT:
                    break
                _see(found, each.name, classes[each.name], changed, None)
    return list(found.values())


def _see(found: dict[str, Seen], name: str, class_: Any, config: Any, usual: int | None) -> None:
    if class_.config_class is not type(config):
        return
    for candidate in (shallow(config), config):
        try:
            prefix, order = order_of(class_, candidate, usual)
        except Exception:  # a config that is none, or a model that this cannot be
            continue
        seen = found.setdefault(name, Seen(name, prefix, ""))
        if order not in seen.orders:
            seen.orders.append(order)
        return


class Node:
    """A module of the tree: its children in the order they were first seen, and what each was seen after.

    A child that is met again behind others has a ``+`` for each time: names as they are saved need not be together.
    """

    def __init__(self) -> None:
        self.children: dict[str, Node] = {}
        self.after: dict[str, set[str]] = {}
        self.optional: set[str] = set()
        self.kind: int | None = None

    def child(self, key: str) -> Node:
        """Return the child of that key, new or not."""
        self.after.setdefault(key, set())
        return self.children.setdefault(key, Node())

    def ordered(self) -> list[str]:
        """Return the keys of the children in an order that fits all that was seen. Raises ConflictError for none."""
        left, done = list(self.children), []
        while left:
            key = next((each for each in left if not self.after[each] & set(left)), None)
            if key is None:
                raise ConflictError(f"no order of {left}")
            done.append(key)
            left.remove(key)
        return done


class Walk:
    """One order on its way through the tree: which children of each module it has met."""

    def __init__(self, root: Node) -> None:
        self._root = root
        self._last: dict[tuple[str, ...], tuple[str, str]] = {}
        self._runs: dict[tuple[str, ...], dict[str, int]] = defaultdict(dict)
        self.nodes: dict[tuple[str, ...], Node] = {(): root}

    def meet(self, name: str) -> tuple[str, ...]:
        """Return the keys on the way to a parameter, which are added where they are new."""
        node, path, keys = self._root, (), []
        for part in name.split("."):
            key = self._key(path, part, node)
            node = node.child(key)
            path = (*path, f"{part}{'+' * key.count('+')}")
            self.nodes[path] = node
            keys.append(key)
        return tuple(keys)

    def _key(self, path: tuple[str, ...], part: str, node: Node) -> str:
        kind = template_of(part)
        last = self._last.get(path)
        if last is not None and last[0] == part:
            return last[1]
        if last is not None and kind == template_of(last[0]) == "#" and int(last[0]) < int(part):
            key = last[1]
        else:
            runs = self._runs[path]
            runs[kind] = runs.get(kind, -1) + 1
            key = kind + "+" * runs[kind]
            node.child(key)
            if last is not None:
                node.after[key].add(last[1])
        self._last[path] = (part, key)
        return key


def add(root: Node, seen: Seen, home: str) -> None:
    """Add the orders of a class, which is at `home` in the tree."""
    for order in seen.orders:
        walk = Walk(root)
        for name, kind in order.rows:
            node: Node = root
            for key in walk.meet(_below(home, name)):
                node = node.children[key]
            node.kind = kind if node.kind in (None, kind) else EITHER
            if node.children:
                raise ConflictError(f"{name} is a parameter and a module")


def _below(home: str, name: str) -> str:
    return f"{home}.{name}" if home else name


Tree = dict[str, Any]


def tree_of(node: Node) -> Any:
    """Return the tree as the table has it, less what is optional."""
    return {key: tree_of(node.children[key]) for key in node.ordered()} if node.children else node.kind


def places(tree: Any, parts: Sequence[str]) -> list[list[tuple[int, int]]]:
    """Return where a name is in a tree: in each module the number of the child, and that in its name."""
    if not parts or not isinstance(tree, dict):
        return [] if parts or isinstance(tree, dict) else [[]]
    kind, number = template_of(parts[0]), int(parts[0]) if parts[0].isdigit() else 0
    return [
        [(position, number), *rest]
        for position, (key, child) in enumerate(tree.items())
        if key.rstrip("+") == kind
        for rest in places(child, parts[1:])
    ]


def together(group: Sequence[tuple[Seen, str]]) -> Tree:
    """Return the tree of some classes. Raises ConflictError where it does not say what was seen of each."""
    root = Node()
    for seen, home in group:
        add(root, seen, home)
    tree: Tree = tree_of(root)
    for seen, home in group:
        for order in seen.orders:
            found = [places(tree, _below(home, name).split(".")) for name, _ in order.rows]
            if any(len(each) != 1 for each in found) or found != sorted(found):
                raise ConflictError(f"{seen.name} is not in this order")
    return tree


def consistent(seen: Seen) -> Seen:
    """Return the class with the orders that one tree can have: the first ones go before."""
    kept = Seen(seen.name, seen.prefix, seen.home)
    for order in seen.orders:
        kept.orders.append(order)
        try:
            together([(kept, "")])
        except ConflictError:
            kept.orders.pop()
    return kept


def groups_of(classes: Sequence[Seen]) -> list[list[tuple[Seen, str]]]:
    """Return the classes in as few groups as have one order each, with the place of each in the tree of its group."""
    groups: list[list[tuple[Seen, str]]] = []
    for seen in classes:
        homes = list(dict.fromkeys((seen.home, "")))
        tried = [(group, home) for home in homes for group in groups if _fits([*group, (seen, home)])]
        if tried:
            tried[0][0].append((seen, tried[0][1]))
        else:
            groups.append([(seen, homes[0])])
    return groups


def _fits(group: Sequence[tuple[Seen, str]]) -> bool:
    try:
        together(group)
    except ConflictError:
        return False
    return True


def paths_of(seen: Seen, home: str, usual: int | None = None) -> set[str]:
    """Return the templates of all modules and parameters of a class, with their places in its group's tree."""
    orders = [order for order in seen.orders if usual is None or order.usual == usual]
    names = {template_of(_below(home, name)) for order in orders for name, _ in order.rows}
    return {".".join(parts[: size + 1]) for parts in (name.split(".") for name in names) for size in range(len(parts))}


def lacks_of(seen: Seen, home: str, group: Sequence[tuple[Seen, str]]) -> list[str]:
    """Return the paths that other classes have with the same configs and this one has not, inside modules it has."""
    own = paths_of(seen, home)
    others: set[str] = set()
    for usual in {order.usual for order in seen.orders if order.usual is not None}:
        others |= set[str]().union(*(paths_of(other, where, usual) for other, where in group))
    depth = home.count(".") + 1 if home else 0
    return sorted(path for path in others - own if path.rpartition(".")[0] in own and path.count(".") > depth)


def mark_optional(group: Sequence[tuple[Seen, str]], lacks: Mapping[str, Sequence[str]]) -> set[tuple[str, ...]]:
    """Return the keys on the way to all that some config of some class leaves out, or that is not saved."""
    optional: set[tuple[str, ...]] = set()
    whole = Node()
    for seen, home in group:
        add(whole, seen, home)
    for seen, home in group:
        left_out = set(lacks[seen.name])
        for order in seen.orders:
            modules: dict[tuple[str, ...], tuple[tuple[str, ...], set[str]]] = {}
            walk = Walk(Node())
            for name, _ in order.rows:
                keys = walk.meet(_below(home, name))
                literal = _below(home, name).split(".")
                runs = [f"{part}{'+' * key.count('+')}" for part, key in zip(literal, keys, strict=True)]
                for size, key in enumerate(keys):
                    modules.setdefault(tuple(runs[:size]), (keys[:size], set()))[1].add(key)
                if name in order.free:
                    optional.add(keys)
            for keys, children in modules.values():
                node = whole
                for key in keys:
                    node = node.children[key]
                for key in node.children.keys() - children:
                    path = ".".join(each.rstrip("+") for each in (*keys, key))
                    is_root = len(keys) <= (home.count(".") + 1 if home else 0)
                    if path not in left_out and not (is_root and path not in paths_of(seen, home)):
                        optional.add((*keys, key))
    return optional


def shortened(tree: Any, optional: set[tuple[str, ...]], keys: tuple[str, ...] = ()) -> Any:
    """Return a tree with a ``?`` at all that is optional, and as words what has nothing but parameters of one kind."""
    if not isinstance(tree, dict):
        return tree
    made = {
        key + "?" * ((*keys, key) in optional and key.rstrip("+") != "#"): shortened(child, optional, (*keys, key))
        for key, child in tree.items()
    }
    kinds = [child for child in made.values() if isinstance(child, int)]
    if len(kinds) == len(made) and set(kinds) in ({PLAIN}, {NORM}):
        return ("LayerNorm: " if kinds[0] == NORM else "") + " ".join(made)
    return made


def always_tied(seen: Seen) -> set[str]:
    """Return the names that are tied also where the config asks for no ties."""
    untied = [order for order in seen.orders if not order.is_tied]
    return set.intersection(*({alias for alias, _ in order.ties} for order in untied)) if untied else set()


def entry_of(group: Sequence[tuple[Seen, str]]) -> dict[str, Any]:
    """Return what the table says of classes with one tree."""
    lacks = {seen.name: lacks_of(seen, home, group) for seen, home in group}
    classes = {}
    for seen, home in group:
        depth = home.count(".") + 1 if home else 0
        roots = {path for path in paths_of(seen, home) if path.count(".") == depth and path.startswith(home)}
        ties = dict(sorted({pair for order in seen.orders for pair in order.ties}))
        own = {
            "home": home,
            "has": sorted(roots),
            "lacks": lacks[seen.name],
            "ties": ties if len(ties) <= _TIES_LIMIT else {},
            "always": sorted(always_tied(seen) & ties.keys()) if len(ties) <= _TIES_LIMIT else [],
        }
        classes[seen.name] = {key: value for key, value in own.items() if value}
    apart = {_below(home, name) for seen, home in group for order in seen.orders for name in order.apart}
    tree = shortened(together(group), mark_optional(group, lacks))
    parameters, buffers = (
        {_below(home, name) for seen, home in group for order in seen.orders for name in names(order)}
        for names in (lambda order: [template_of(name) for name, _ in order.rows], lambda order: order.buffers)
    )
    return {"tree": tree, "apart": sorted(apart), "unsure": sorted(parameters & buffers), "classes": classes}


def text_of(models: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """Return the table as text: a tree is a line, and so is a class."""
    versions = json.dumps({"transformers": transformers.__version__})
    types = []
    for model_type, entries in models.items():
        variants = []
        for entry in entries:
            classes = ",\n".join(f"    {json.dumps(name)}: {json.dumps(own)}" for name, own in entry["classes"].items())
            others = {key: value for key, value in entry.items() if key != "classes" and value}
            lines = [f'   "{key}": {json.dumps(value, separators=(",", ":"))},\n' for key, value in others.items()]
            variants.append("".join(lines) + f'   "classes": {{\n{classes}\n   }}')
        types.append(f"  {json.dumps(model_type)}: [{{\n" + "\n  }, {\n".join(variants) + "\n  }]")
    return f'{{\n "versions": {versions},\n "models": {{\n' + ",\n".join(types) + "\n }\n}\n"


def main(table: Path, model_types: list[str]) -> None:
    """Write the table."""
    warnings.simplefilter("ignore")
    transformers.logging.set_verbosity_error()
    every: dict[str, dict[str, Any]] = defaultdict(dict)
    for class_ in model_classes():
        every[class_.config_class.model_type][class_.__name__] = class_
    models = {}
    for model_type, known in sorted(document("classes")["models"].items()):
        if model_types and model_type not in model_types:
            continue
        names = sorted({*known["classes"], *known["others"]})
        classes = {name: every[model_type].get(name, getattr(transformers, name, None)) for name in names}
        seen = seen_of(model_type, {name: class_ for name, class_ in classes.items() if class_ is not None})
        groups = groups_of([each for each in map(consistent, seen) if each.orders])
        if groups:
            models[model_type] = [entry_of(group) for group in groups]
    table.write_text(text_of(models), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
