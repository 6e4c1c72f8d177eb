"""What the queued graph says of a node's inputs: from which nodes, settings and files they come."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
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
        tree = [_upstream(graph, graph[node_id]["inputs"][name]) for name in inputs]
    except KeyError:
        return None
    files = fingerprint(sorted({file for text in _texts(tree) for file in host.named_files(text)}))
    return hashlib.sha256(json.dumps([tree, files], sort_keys=True, default=str).encode()).hexdigest()


def checkpoint_of(graph: Graph | None, node_id: str, name: str) -> Path | None:
    """The checkpoint that is named upstream of an input, if there is just one."""
    try:
        texts = set(_texts(_upstream(graph or {}, (graph or {})[node_id]["inputs"][name])))
    except KeyError:
        return None
    found = [host.model_path("checkpoints", text) for text in sorted(texts & set(host.model_files("checkpoints")))]
    return found[0] if len(found) == 1 else None


def metadata(graph: Graph | None, extra: Mapping[str, Any] | None) -> dict[str, str]:
    """The entries by which ComfyUI opens a picture as a graph, as Save Image writes them."""
    values = ({"prompt": graph} if graph else {}) | dict(extra or {})
    return {name: json.dumps(value) for name, value in values.items()}


def _upstream(graph: Graph, value: Any) -> Any:
    """A link as the node it comes from, with that node's own inputs; other values as they are."""
    if not (isinstance(value, list) and len(value) == 2 and isinstance(value[0], str) and isinstance(value[1], int)):
        return value
    node = graph[value[0]]
    return [node["class_type"], value[1], {name: _upstream(graph, item) for name, item in sorted(node["inputs"].items())}]


def _texts(tree: Any) -> Iterator[str]:
    if isinstance(tree, str):
        yield tree
    elif isinstance(tree, dict):
        yield from (text for item in tree.values() for text in _texts(item))
    elif isinstance(tree, list):
        yield from (text for item in tree for text in _texts(item))
