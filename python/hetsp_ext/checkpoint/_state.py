"""The state of live objects as trees with tensors, taken in one walk; and how a tree goes back into them.

Scalars, lists and texts are copied by the walk itself. Tensors are left where they are: _table.py says which of them may be
read later, because nothing writes to them before the next optimizer step, and which must be copied at once.
"""

from __future__ import annotations

import random
import struct
import sys
from array import array
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import is_
from typing import Any, Literal

import torch

from ..errors import InvalidArgument
from ._tree import Leaf, Path, walk

Kind = Literal["model", "optimizer", "object"]

RNG = "rng"


def kind_of(thing: Any) -> Kind:
    """How an object's state is taken and put back."""
    if isinstance(thing, torch.nn.Module):
        return "model"
    return "optimizer" if isinstance(thing, torch.optim.Optimizer) else "object"


def named(positional: Sequence[Any], keywords: Mapping[str, Any]) -> dict[str, Any]:
    """Objects by name: keywords as they are, others by what they are ("model", "optimizer", ...), numbered from the second on.

    Raises InvalidArgument for what has no state_dict and load_state_dict, for one object given twice, and for no object.
    """
    found: dict[str, Any] = {}
    for thing in positional:
        base = _base_name(thing)
        name, number = base, 1
        while name in found or name in keywords:
            name, number = f"{base}{number}", number + 1
        found[name] = thing
    found.update(keywords)
    if not found:
        raise InvalidArgument("LazyCheckpointer got no object; it needs at least one with state_dict and load_state_dict")
    seen: dict[int, str] = {}
    for name, thing in found.items():
        if not name.isidentifier() or name == RNG:
            raise InvalidArgument(f"an object is named {name!r}; allowed: Python identifiers other than {RNG!r}")
        lacking = [method for method in ("state_dict", "load_state_dict") if not callable(getattr(thing, method, None))]
        if lacking:
            raise InvalidArgument(f"{name!r}, of type {type(thing).__qualname__}, has no {' and no '.join(lacking)}")
        if id(thing) in seen:
            raise InvalidArgument(f"{name} is the same object as {seen[id(thing)]}; each is saved once")
        seen[id(thing)] = name
    return found


def _base_name(thing: Any) -> str:
    kind = kind_of(thing)
    if kind != "object":
        return kind
    if isinstance(thing, torch.optim.lr_scheduler.LRScheduler):
        return "scheduler"
    return "scaler" if isinstance(thing, torch.amp.GradScaler) else type(thing).__name__.lower()


def take(thing: Any) -> Any:
    """The state_dict of an object, with its live tensors in it."""
    return thing.state_dict(keep_vars=True) if isinstance(thing, torch.nn.Module) else thing.state_dict()


def module_metadata(state: Any) -> Any:
    """Versions of the modules, which load_state_dict migrates old states by; kept as an attribute, so no walk sees them."""
    return {key: dict(value) for key, value in getattr(state, "_metadata", {}).items()}


@dataclass(slots=True)
class _Walked:
    """A dictionary of tensors as the walk before found it, and what became of it."""

    keys: list[Any]
    tensors: list[torch.Tensor]
    tree: Any
    leaves: list[Leaf]


class Walker:
    """Walks the same objects again and again. Dictionaries that hold nothing but the tensors that they held before - most of a
    module's state, and an optimizer's of each parameter - cost a comparison instead of a walk."""

    def __init__(self, objects: Mapping[str, Any]) -> None:
        self._objects = objects
        self._known: dict[Any, _Walked] = {}
        self._used: dict[Any, _Walked] = {}

    def __call__(self) -> tuple[list[list[Any]], list[Leaf]]:
        """([[name, tree], ...], tensors) of all objects and of the random number generators, which come last."""
        leaves: list[Leaf] = []
        self._used = {}
        trees = []
        for name, thing in self._objects.items():
            state, path = take(thing), (None, name)
            if isinstance(thing, torch.nn.Module):
                tree = self._tensors(name, state, path, leaves)
            elif type(state) is dict and isinstance(thing, torch.optim.Optimizer) and type(state.get("state")) is dict:
                tree = {"dict": [[key, self._of_optimizer(name, key, item, path, leaves)] for key, item in state.items()]}
            else:
                tree = walk(state, path, leaves)
            trees.append([name, tree])
        trees.append([RNG, walk(take_rng(), (None, RNG), leaves)])
        self._known = self._used  # what has vanished is forgotten, and not kept alive
        return trees, leaves

    def _of_optimizer(self, name: str, key: Any, item: Any, path: Path, leaves: list[Leaf]) -> Any:
        below = (path, key)
        if key != "state" or not all(type(number) is int and type(moments) is dict for number, moments in item.items()):
            return walk(item, below, leaves, 1)
        return {
            "dict": [
                [number, self._tensors((name, number), moments, (below, number), leaves)] for number, moments in item.items()
            ]
        }

    def _tensors(self, place: Any, value: Any, path: Path, leaves: list[Leaf]) -> Any:
        known = self._known.get(place)
        if (
            known is not None
            and len(value) == len(known.tensors)
            and all(map(is_, value.values(), known.tensors))
            and list(value) == known.keys
        ):
            leaves += known.leaves
            self._used[place] = known
            return known.tree
        begin = len(leaves)
        tree = walk(value, path, leaves, 2)
        if all(isinstance(item, torch.Tensor) for item in value.values()):
            self._used[place] = _Walked(list(value), list(value.values()), tree, leaves[begin:])
        return tree


def walk_all(objects: Mapping[str, Any]) -> tuple[list[list[Any]], list[Leaf]]:
    """One walk; see Walker."""
    return Walker(objects)()


def take_rng() -> dict[str, Any]:
    """States of the generators of torch, random and, where it is imported, numpy. Large ones become tensors."""
    version, words, gauss = random.getstate()
    state: dict[str, Any] = {
        "torch": torch.get_rng_state(),
        "random": [version, _words(array("I", words).tobytes()), gauss],
    }
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        state["cuda"] = torch.cuda.get_rng_state_all()
    if numpy := sys.modules.get("numpy"):
        name, keys, position, has_gauss, cached = _numpy_state(numpy)
        state["numpy"] = [str(name), _words(keys.astype("<u4").tobytes()), int(position), int(has_gauss), float(cached)]
    return state


def _numpy_state(numpy: Any) -> tuple[Any, ...]:
    found = numpy.random.get_state()
    if not isinstance(found, tuple):  # someone has replaced numpy's global Mersenne twister
        raise InvalidArgument(f"numpy's global generator is {found.get('bit_generator')}; allowed: MT19937, its default")
    return found


def _words(data: bytes) -> torch.Tensor:
    return torch.frombuffer(bytearray(data), dtype=torch.uint8)


def _from_words(tensor: torch.Tensor) -> tuple[int, ...]:
    return struct.unpack(f"<{tensor.numel() // 4}I", tensor.numpy().tobytes())


def put_rng(state: Mapping[str, Any]) -> None:
    """Sets the generators as take_rng found them; numpy's only where numpy is imported or can be."""
    torch.set_rng_state(state["torch"])
    version, words, gauss = state["random"]
    random.setstate((version, _from_words(words), gauss))
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"][: torch.cuda.device_count()])
    if "numpy" in state and (numpy := sys.modules.get("numpy")):
        name, keys, position, has_gauss, cached = state["numpy"]
        numpy.random.set_state((name, numpy.array(_from_words(keys), dtype=numpy.uint32), position, has_gauss, cached))


def put(name: str, thing: Any, state: Any, metadata: Any) -> None:
    """Gives an object its restored state. Tensors of `state` that are the object's own stay where they are."""
    if isinstance(thing, torch.nn.Module):
        state = OrderedDict(state)
        state._metadata = OrderedDict(metadata)
        with torch.no_grad():
            thing.load_state_dict(state)
    elif isinstance(thing, torch.optim.Optimizer):
        thing.load_state_dict(state)
        _undo_casts(thing, state)
    else:
        thing.load_state_dict(state)


def _undo_casts(optimizer: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
    """Optimizer.load_state_dict casts moments to their parameter's dtype, which loses bits where they had more."""
    if not {"state", "param_groups"} <= set(state):  # a state of the class's own making
        return
    numbers = [number for group in state["param_groups"] for number in group["params"]]
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for number, parameter in zip(numbers, parameters, strict=True):
        for key, saved in state["state"].get(number, {}).items():
            loaded = optimizer.state[parameter].get(key)
            if isinstance(saved, torch.Tensor) and isinstance(loaded, torch.Tensor) and loaded.dtype != saved.dtype:
                optimizer.state[parameter][key] = saved.to(loaded.device)
