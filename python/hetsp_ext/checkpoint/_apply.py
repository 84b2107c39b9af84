"""How a checkpoint goes back into live objects: which stored tensor into which live one, and then the states as a whole.

A stored tensor and a live one belong together if they lie at the same path of their object's state. What a live object does not
have yet - an optimizer's moments before its first step - is made, and handed to load_state_dict with the rest; what it has is
read in place. Nothing but tensors that are read in place changes before everything has verified, and those can be undone.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from ..errors import CheckpointCorrupt, InvalidArgument
from ._dtypes import DTYPES, NAMES
from ._items import box_of, dtensor_class
from ._manifest import Manifest
from ._restore import Target
from ._state import RNG, kind_of, put, put_rng, walk_all
from ._tree import Path, decode

logger = logging.getLogger("hetsp_ext.checkpoint")

Keys = tuple[Any, ...]


def keys_of(path: Path | None) -> Keys:
    """A path as a tuple, outermost key first."""
    keys = []
    while path is not None:
        keys.append(path[1])
        path = path[0]
    return tuple(reversed(keys))


def tensors_of(tree: Any, keys: Keys, found: dict[Keys, str]) -> None:
    """The names of a tree's tensors by their path, as `walk` would number it."""
    if isinstance(tree, list):
        for index, item in enumerate(tree):
            tensors_of(item, (*keys, index), found)
    elif isinstance(tree, dict):
        ((kind, body),) = tree.items()
        if kind == "tensor":
            found[keys] = body
        elif kind == "tuple":
            tensors_of(body, keys, found)
        elif isinstance(body, list):
            for pair in body:
                key = decode(pair[0], {})
                tensors_of(pair[1], (*keys, key), found)


def relabel(tree: Any, keys: Keys) -> Any:
    """The tree with each tensor's path, written out, for its name: one stored tensor may fill several live ones."""
    if isinstance(tree, list):
        return [relabel(item, (*keys, index)) for index, item in enumerate(tree)]
    if isinstance(tree, dict):
        ((kind, body),) = tree.items()
        if kind == "tensor":
            return {"tensor": repr(keys)}
        if kind == "tuple":
            return {"tuple": relabel(body, keys)}
        if isinstance(body, list):
            return {kind: [[pair[0], relabel(pair[1], (*keys, decode(pair[0], {})))] for pair in body]}
    return tree


class Plan:
    """One restore of these objects: `targets` for each checkpoint that is tried, `apply` for the one that has verified."""

    def __init__(self, objects: Mapping[str, Any], rank: int, rank_of: Any) -> None:
        self._objects = objects
        self._rank = rank
        self._rank_of = rank_of
        _, leaves = walk_all(objects)
        self._live: dict[Keys, torch.Tensor] = {keys_of(leaf.path): leaf.tensor for leaf in leaves}
        self._parts: dict[str, Any] = {}
        self._filled: dict[Keys, torch.Tensor] = {}
        self._same_rank = True

    def targets(self, manifest: Manifest) -> Sequence[Target]:
        """What to read out of a checkpoint. Raises InvalidArgument where it is of other objects, CheckpointCorrupt for a tree
        that is not one of ours."""
        self._same_rank = self._rank < manifest.world
        tree = manifest.tree(self._rank % manifest.world)
        parts = decode_parts(tree)
        self._check_objects(parts)
        self._parts, self._filled = parts, {}
        targets = []
        for name in (*self._objects, RNG):
            stored: dict[Keys, str] = {}
            try:
                tensors_of(parts["states"][name], (name,), stored)
            except (ValueError, TypeError, IndexError) as error:
                raise CheckpointCorrupt(f"values of {name}: {error}") from None
            if name in self._objects and kind_of(self._objects[name]) == "model":
                self._check_module(name, stored)
            if name == RNG and not self._same_rank:
                continue
            for keys, tensor_name in stored.items():
                entry = manifest.tensors.get(tensor_name)
                if entry is None:
                    raise CheckpointCorrupt(f"the values name tensor {tensor_name!r}, which the manifest does not list")
                tensor, local, offsets = self._destination(name, keys, tensor_name, entry)
                self._filled[keys] = tensor
                targets.append(Target(tensor_name, local, offsets))
        return targets

    def _check_objects(self, parts: Mapping[str, Any]) -> None:
        saved = [name for name in parts["states"] if name != RNG]
        for name, thing in self._objects.items():
            if name not in parts["states"]:
                raise InvalidArgument(f"the checkpoint holds no {name!r}; it holds {', '.join(saved)}")
            kind = parts["kinds"].get(name)
            if kind != kind_of(thing):
                raise InvalidArgument(f"the checkpoint's {name!r} is of kind {kind}, the live one is of kind {kind_of(thing)}")
        if left := [name for name in saved if name not in self._objects]:
            logger.info("the checkpoint's %s are not asked for, and left", ", ".join(left))

    def _check_module(self, name: str, stored: Mapping[Keys, str]) -> None:
        live = {keys for keys in self._live if keys[0] == name}
        for what, keys in (("lacks", live - stored.keys()), ("has a surplus", stored.keys() - live)):
            if keys:
                first = sorted(".".join(map(str, path)) for path in keys)[0]
                raise InvalidArgument(f"the checkpoint {what} {first!r}, one of {len(keys)}: it is of another model")

    def _destination(
        self, name: str, keys: Keys, tensor_name: str, entry: Any
    ) -> tuple[torch.Tensor, torch.Tensor, tuple[int, ...] | None]:
        """(tensor for the state, the memory to fill, its offsets)."""
        dtype, live = DTYPES[entry.dtype], self._live.get(keys)
        fits = live is not None and live.dtype == dtype and tuple(live.shape) == entry.shape
        if live is not None and not fits and name in self._objects and kind_of(self._objects[name]) == "model":
            raise InvalidArgument(
                f"{'.'.join(map(str, keys))} is stored as {entry.dtype} {list(entry.shape)}, "
                f"the live one is {NAMES.get(live.dtype, live.dtype)} {list(live.shape)}"
            )
        if live is None or not fits or name == RNG:
            live = self._make(name, keys, entry, dtype)
        if isinstance(live, dtensor_class()):
            local, offsets, _ = box_of(live, tensor_name, self._rank_of)
            return live, local, offsets
        return live, live, None

    def _make(self, name: str, keys: Keys, entry: Any, dtype: torch.dtype) -> torch.Tensor:
        """A tensor that the live object does not have: an optimizer's of a sharded parameter is sharded like that."""
        thing = self._objects.get(name)
        if isinstance(thing, torch.optim.Optimizer) and len(keys) > 3 and keys[1] == "state":
            parameters = [parameter for group in thing.param_groups for parameter in group["params"]]
            number = keys[2]
            if isinstance(number, int) and number < len(parameters):
                parameter = parameters[number]
                if tuple(parameter.shape) == entry.shape and entry.shape:
                    return torch.empty_like(parameter, dtype=dtype, requires_grad=False, memory_format=torch.preserve_format)
        return torch.empty(entry.shape, dtype=dtype)

    def apply(self) -> None:
        """Gives every object its state; call it once the targets of the last `targets` have been filled."""
        tensors = {repr(keys): tensor for keys, tensor in self._filled.items()}
        for name, thing in self._objects.items():
            state = decode(relabel(self._parts["states"][name], (name,)), tensors, name)
            put(name, thing, state, self._parts["metadata"].get(name, {}))
        if self._same_rank:
            put_rng(decode(relabel(self._parts["states"][RNG], (RNG,)), tensors, RNG))
        else:
            logger.warning(
                "rank %d is not among those that saved: its random number generators are left as they are", self._rank
            )


def decode_parts(tree: Any) -> dict[str, Any]:
    """{"kinds", "metadata", "states"} of a rank's tree; the states are left as trees, by name."""
    try:
        parts = {pair[0]: pair[1] for pair in tree["dict"]}
        states = {pair[0]: pair[1] for pair in parts["states"]["dict"]}
        kinds, metadata = decode(parts["kinds"], {}, "kinds"), decode(parts["metadata"], {}, "metadata")
        if not isinstance(kinds, dict) or not isinstance(metadata, dict):
            raise TypeError("kinds and metadata must be dictionaries")
        return {"kinds": kinds, "metadata": metadata, "states": {RNG: states[RNG], **states}}
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise CheckpointCorrupt(f"the values of the manifest are not a state: {type(error).__name__}: {error}") from None
