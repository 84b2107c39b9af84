"""The state of live objects as trees with tensors, taken in one walk; and how a tree goes back into them.

Scalars, lists and texts are copied by the walk itself. Tensors are left where they are: _table.py says which of them may be
read later, because nothing writes to them before the next optimizer step, and which must be copied at once.
"""

from __future__ import annotations

import random
import struct
import sys
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch

from ..errors import InvalidArgument
from ._tree import Leaf, walk

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
            raise InvalidArgument(f"{name} is a {type(thing).__qualname__}, which has no {' and no '.join(lacking)}")
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


def walk_all(objects: Mapping[str, Any]) -> tuple[list[list[Any]], list[Leaf]]:
    """([[name, tree], ...], tensors) of all objects and of the random number generators, which come last."""
    leaves: list[Leaf] = []
    trees = [[name, walk(take(thing), (None, name), leaves)] for name, thing in objects.items()]
    trees.append([RNG, walk(take_rng(), (None, RNG), leaves)])
    return trees, leaves


def take_rng() -> dict[str, Any]:
    """States of the generators of torch, random and, where it is imported, numpy. Large ones become tensors."""
    version, words, gauss = random.getstate()
    state: dict[str, Any] = {
        "torch": torch.get_rng_state(),
        "random": [version, _words(words), gauss],
    }
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        state["cuda"] = torch.cuda.get_rng_state_all()
    if numpy := sys.modules.get("numpy"):
        name, keys, position, has_gauss, cached = _numpy_state(numpy)
        state["numpy"] = [str(name), _words(keys.tolist()), int(position), int(has_gauss), float(cached)]
    return state


def _numpy_state(numpy: Any) -> tuple[Any, ...]:
    found = numpy.random.get_state()
    if not isinstance(found, tuple):  # someone has replaced numpy's global Mersenne twister
        raise InvalidArgument(f"numpy's global generator is {found.get('bit_generator')}; allowed: MT19937, its default")
    return found


def _words(words: Sequence[int]) -> torch.Tensor:
    return torch.frombuffer(bytearray(struct.pack(f"<{len(words)}I", *words)), dtype=torch.uint8)


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
