"""Nested state as JSON, and its tensors by name.

    None, true, 3, "s"     as they are          float           as it is; if not finite {"float": its 8 bytes in hex}
    2**100                 {"int": "0x1000..."}: integers beyond 64 bits, which not every reader of JSON keeps
    [a, b]                 as it is             (a, b)          {"tuple": [a, b]}
    {"k": a, 3: b}         {"dict": [["k", a], [3, b]]}, and {"OrderedDict": ...}, {"Counter": ...}
    b"..."                 {"bytes": base64}    tensor          {"tensor": name}

An object is always a marker, so data never looks like one. Order and key types of a dict survive; so does every float, since
Python writes the shortest text that reads back as the same number. A tensor's name is its path, joined by dots; where two
paths would share a name (a key 0 beside a key "0"), the later gets a suffix. Whatever else a state holds is refused with its
path: pickling it would make a checkpoint a program.
"""

from __future__ import annotations

import base64
import binascii
import collections
import math
import struct
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from ..errors import CheckpointCorrupt, InvalidArgument

DEEPEST = 100  # levels of nesting; a state that refers to itself ends here
DICTS: dict[str, type] = {"dict": dict, "OrderedDict": collections.OrderedDict, "Counter": collections.Counter}
_KINDS = {kind: name for name, kind in DICTS.items()}
_PLAIN = (str, bool, type(None))
_LARGEST_INT = 1 << 63
ALLOWED = "dict, list, tuple, int, float, str, bool, None, bytes, torch.Tensor"

# The path to a value, innermost key last: a linked list, so that walking a state formats no text.
Path = tuple["Path | None", Any]


@dataclass(slots=True)
class Leaf:
    """A tensor of a state; `node` is its {"tensor": ...} in the tree, which `name` has still to be written into."""

    path: Path
    tensor: torch.Tensor
    node: dict[str, Any]


def path_text(path: Path | None) -> str:
    """The keys of a path joined by dots."""
    keys = []
    while path is not None:
        keys.append(str(path[1]))
        path = path[0]
    return ".".join(reversed(keys))


def walk(value: Any, path: Path, leaves: list[Leaf], depth: int = 0) -> Any:
    """The tree of `value`, a copy that later changes do not reach; appends its tensors, still without names, to `leaves`."""
    kind = type(value)
    if kind in _PLAIN:
        return value
    if kind is int:
        return value if -_LARGEST_INT <= value < _LARGEST_INT else {"int": hex(value)}
    if kind is float:
        return value if math.isfinite(value) else {"float": struct.pack(">d", value).hex()}
    if isinstance(value, torch.Tensor):
        node: dict[str, Any] = {"tensor": None}
        leaves.append(Leaf(path, value, node))
        return node
    if depth > DEEPEST:
        raise InvalidArgument(f"state {path_text(path)[:200]!r} is nested deeper than {DEEPEST} levels")
    if kind in _KINDS:
        items = [
            [walk(key, (path, key), leaves, depth + 1), walk(item, (path, key), leaves, depth + 1)]
            if type(key) in (str, int)
            else _keyed(key, item, path, leaves, depth)
            for key, item in value.items()
        ]
        return {_KINDS[kind]: items}
    if kind is list:
        return [walk(item, (path, index), leaves, depth + 1) for index, item in enumerate(value)]
    if kind is tuple:
        return {"tuple": [walk(item, (path, index), leaves, depth + 1) for index, item in enumerate(value)]}
    if kind is bytes:
        return {"bytes": base64.b64encode(value).decode("ascii")}
    found = f"{kind.__module__}.{kind.__qualname__}"
    raise InvalidArgument(f"state {path_text(path)!r} is a {found}, which a checkpoint cannot hold; allowed: {ALLOWED}")


def _keyed(key: Any, item: Any, path: Path, leaves: list[Leaf], depth: int) -> list[Any]:
    """A [key, item] whose key is a tuple, bytes or a float; one that holds a tensor is refused."""
    found: list[Leaf] = []
    tree = walk(key, (path, key), found, depth + 1)
    if found:
        raise InvalidArgument(f"state {path_text(path)!r} has a key that holds a tensor; keys must be plain values")
    return [tree, walk(item, (path, key), leaves, depth + 1)]


def unique(name: str, taken: Callable[[str], bool]) -> str:
    """`name`, or the first of name~1, name~2, ... that is not taken."""
    if not taken(name):
        return name
    number = 1
    while taken(f"{name}~{number}"):
        number += 1
    return f"{name}~{number}"


def encode(value: Any, root: str = "") -> tuple[Any, dict[str, torch.Tensor]]:
    """(tree, its tensors by name). `root` is the first component of every name.

    Raises InvalidArgument naming the path of a value that is none of the allowed types, or nested too deeply.
    """
    leaves: list[Leaf] = []
    tree = walk(value, (None, root), leaves)
    tensors: dict[str, torch.Tensor] = {}
    for leaf in leaves:
        name = unique(path_text(leaf.path).lstrip("."), tensors.__contains__)
        leaf.node["tensor"] = name
        tensors[name] = leaf.tensor
    return tree, tensors


def tensor_names(tree: Any) -> Iterable[str]:
    """The names of a tree's tensors, in its order."""
    if isinstance(tree, list):
        for item in tree:
            yield from tensor_names(item)
    elif isinstance(tree, dict):
        for kind, body in tree.items():
            if kind == "tensor":
                yield body
            elif isinstance(body, list):
                yield from tensor_names(body)


def decode(tree: Any, tensors: Mapping[str, torch.Tensor], where: str = "values", depth: int = 0) -> Any:
    """What `encode` was given, with `tensors` in place of the tensors; CheckpointCorrupt where the tree is not one of ours."""

    def wrong(what: str) -> CheckpointCorrupt:
        return CheckpointCorrupt(f"{where[:200]}: {what}")

    def inner(item: Any, key: Any) -> Any:
        return decode(item, tensors, f"{where}/{str(key)[:40]}", depth + 1)

    if type(tree) in _PLAIN or type(tree) in (int, float):
        return tree
    if depth > DEEPEST + 1:
        raise wrong(f"nested deeper than {DEEPEST} levels")
    if isinstance(tree, list):
        return [inner(item, index) for index, item in enumerate(tree)]
    if not isinstance(tree, dict) or len(tree) != 1:
        raise wrong("an object must hold one marker")
    ((kind, body),) = tree.items()
    if kind == "tuple" or kind in DICTS:
        if not isinstance(body, list):
            raise wrong(f"{kind} must hold a list")
        if kind == "tuple":
            return tuple(inner(item, index) for index, item in enumerate(body))
        built = DICTS[kind]()
        for index, pair in enumerate(body):
            if not isinstance(pair, list) or len(pair) != 2:
                raise wrong(f"item {index} of a {kind} must be [key, value]")
            key = decode(pair[0], {}, f"{where}/key {index}", depth + 1)
            try:
                built[key] = inner(pair[1], key)
            except TypeError:
                raise wrong(f"key {index} of a {kind} is a {type(key).__name__}, which cannot be one") from None
        return built
    if not isinstance(body, str):
        raise wrong(f"{str(kind)[:40]!r} must hold a string")
    if kind == "tensor":
        if body not in tensors:
            raise wrong(f"there is no tensor {body[:200]!r}")
        return tensors[body]
    try:
        if kind == "bytes":
            return base64.b64decode(body.encode("ascii"), validate=True)
        if kind == "float":
            return struct.unpack(">d", bytes.fromhex(body))[0]
        if kind == "int":
            return int(body, 16)
    except (ValueError, binascii.Error, struct.error) as error:
        raise wrong(f"{kind}: {error}") from None
    raise wrong(f"marker {str(kind)[:40]!r} is unknown")
