"""What the queued graph says of a node's inputs: from which nodes, settings and files they come."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

from . import host
from .fingerprint import fingerprint

Graph = Mapping[str, Any]  # node id -> class_type and inputs, as ComfyUI's hidden input PROMPT holds it


def origin_of(graph: Graph | None, node_id: str, inputs: Iterable[str]) -> str | None:
    """A digest of everything upstream of these inputs: nodes, widgets, and the files that widgets name.

    It is to a restart what ComfyUI's own cache is to a session. None where the graph does not know the node.
    """
    if not graph or node_id not in graph:
        return None
    try:
        values = [graph[node_id]["inputs"][name] for name in inputs]
        nodes = _upstream(graph, values)
    except KeyError:
        return None
    marks: dict[str, str] = {}
    for name in TopologicalSorter(nodes).static_order():
        marks[name] = _digest([graph[name]["class_type"], _marked(graph[name]["inputs"], marks)])
    files = {file for text in _texts([graph[name]["inputs"] for name in nodes]) for file in host.named_paths(text)}
    return _digest([_marked(dict(enumerate(values)), marks), fingerprint(sorted(files))])


def checkpoint_of(graph: Graph | None, node_id: str, name: str) -> Path | None:
    """The checkpoint that is named upstream of an input, if there is just one."""
    try:
        nodes = _upstream(graph or {}, [(graph or {})[node_id]["inputs"][name]])
    except KeyError:
        return None
    texts = {text for node in nodes for text in _texts((graph or {})[node]["inputs"])}
    found = [host.model_path("checkpoints", text) for text in sorted(texts & set(host.model_files("checkpoints")))]
    return found[0] if len(found) == 1 else None


def metadata(graph: Graph | None, extra: Mapping[str, Any] | None) -> dict[str, str]:
    """The entries by which ComfyUI opens a picture as a graph, as Save Image writes them."""
    values = ({"prompt": graph} if graph else {}) | dict(extra or {})
    return {name: json.dumps(value) for name, value in values.items()}


def _upstream(graph: Graph, values: Iterable[Any]) -> dict[str, set[str]]:
    """Every node that these values come from, directly or not, with the nodes that it is linked to itself."""
    found: dict[str, set[str]] = {}
    waiting = {value[0] for value in values if _is_link(value)}
    while waiting:
        name = waiting.pop()
        found[name] = {value[0] for value in graph[name]["inputs"].values() if _is_link(value)}
        waiting |= found[name] - found.keys()
    return found


def _is_link(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and isinstance(value[0], str) and isinstance(value[1], int)


def _marked(inputs: Mapping[Any, Any], marks: Mapping[str, str]) -> dict[Any, Any]:
    """The inputs with the digest of a node in place of its id, which says nothing."""
    return {name: [marks[value[0]], value[1]] if _is_link(value) else value for name, value in inputs.items()}


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


def _texts(tree: Any) -> Iterator[str]:
    if isinstance(tree, str):
        yield tree
    elif isinstance(tree, dict):
        yield from (text for item in tree.values() for text in _texts(item))
    elif isinstance(tree, list):
        yield from (text for item in tree for text in _texts(item))
