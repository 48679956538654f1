"""A tensor bundle as a structure (`converter.model.structure`): what a copy needs that its own program loads.

Each place hangs where the graph of objects has it, so that one which is left out takes its attribute along: an object
whose variable is not in the checkpoint is not asked for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from converter.encoding import protobuf
from converter.encoding.object_graph import ATTRIBUTE, attribute_key, raw_nodes
from converter.encoding.tensor_bundle import OBJECT_GRAPH_KEY, Bundle, StoredEntry
from converter.errors import ReadError
from converter.model.ledger import Kind
from converter.model.structure import Slot, State
from converter.model.tensor import Tensor

_RAW_LIMIT_BYTES = 16 << 20
"""Of what is no tensor in all: text, and variables of types that none of ours have."""
_NODES, _REST, _ATTRIBUTES, _KEYS = "nodes", "rest", "attributes", "keys"


@dataclass(frozen=True, slots=True, kw_only=True)
class Laid:
    """What a copy holds by key, and its graph of objects, None where it has none."""

    tensors: Mapping[str, Tensor]
    entries: Mapping[str, StoredEntry]
    names: Mapping[str, str]
    graph: bytes | None


def structure_of(bundle: Bundle, names: Mapping[str, str], kinds: Mapping[str, Kind]) -> Any:
    """Return how a bundle nests what it holds, None for one that cannot be copied as it is.

    `names` maps the keys of weights -> names; `kinds` what is no weight -> what it is.
    """
    try:
        places = dict(_places(bundle, names, kinds))
    except ReadError:
        return None
    if bundle.is_big_endian or sum(len(each.data) for each in _stored(places)) > _RAW_LIMIT_BYTES:
        return None
    if OBJECT_GRAPH_KEY not in bundle.entries:
        return {_KEYS: places}
    left = dict(places)
    nodes = []
    for fields in raw_nodes(bundle):
        rest, attributes = b"", {}
        for number, encoded, content in fields:
            key = attribute_key(content, bundle.path) if number == ATTRIBUTE else None
            if key in places:
                attributes[content] = places[str(key)]
                left.pop(str(key), None)
            else:
                rest += encoded
        nodes.append({_REST: rest, _ATTRIBUTES: attributes} if attributes else {_REST: rest})
    return {_NODES: nodes, _KEYS: left} if left else {_NODES: nodes}


def _places(bundle: Bundle, names: Mapping[str, str], kinds: Mapping[str, Kind]) -> Iterator[tuple[str, Any]]:
    for key in bundle.entries:
        if key == OBJECT_GRAPH_KEY:
            continue
        tensor = bundle.tensors.get(key)
        if key in names and tensor is not None:
            yield key, Slot(names[key], tensor.dtype, tensor.shape)
            continue
        value = tensor if tensor is not None else bundle.stored(key, limit_bytes=_RAW_LIMIT_BYTES)
        yield key, State(value) if kinds.get(key) is Kind.OPTIMIZER else value


def _stored(places: Mapping[str, Any]) -> Iterator[StoredEntry]:
    for place in places.values():
        value = place.value if isinstance(place, State) else place
        if isinstance(value, StoredEntry):
            yield value


def laid_of(structure: Any, tensors: Mapping[str, Tensor]) -> Laid:
    """Return what a bundle of this structure holds; `tensors` are the weights by name."""
    found: dict[str, Any] = dict(structure.get(_KEYS, {}))
    graph = None
    if _NODES in structure:
        graph = b""
        for node in structure[_NODES]:
            attributes = node.get(_ATTRIBUTES, {})
            found.update((attribute_key(attribute), place) for attribute, place in attributes.items())
            graph += protobuf.content_field(1, node[_REST] + protobuf.content_fields(ATTRIBUTE, attributes))
    names = {key: place.name for key, place in found.items() if isinstance(place, Slot)}
    values = {key: place.value if isinstance(place, State) else place for key, place in found.items()}
    held = {key: tensors[names[key]] if key in names else value for key, value in values.items()}
    return Laid(
        tensors={key: value for key, value in held.items() if isinstance(value, Tensor)},
        entries={key: value for key, value in held.items() if isinstance(value, StoredEntry)},
        names=names,
        graph=graph,
    )
