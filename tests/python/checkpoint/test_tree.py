"""Nested state as JSON: everything allowed comes back as it was, everything else is refused by its path."""

import collections
import json
import struct

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hetsp_ext.checkpoint import _tree
from hetsp_ext.errors import CheckpointCorrupt, InvalidArgument

KEYS = st.one_of(
    st.text(max_size=5), st.integers(), st.booleans(), st.none(), st.floats(allow_nan=False), st.binary(max_size=3)
)
KEYS = st.one_of(KEYS, st.tuples(st.integers(), st.text(max_size=3)))
TENSORS = st.integers(0, 3).map(lambda n: torch.arange(n))
PLAIN = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), st.binary(max_size=8), TENSORS)


def nested(inner):
    return st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=4).map(tuple),
        st.dictionaries(KEYS, inner, max_size=4),
        st.dictionaries(KEYS, inner, max_size=4).map(collections.OrderedDict),
    )


STATES = st.recursive(PLAIN, nested, max_leaves=30)


def same(a, b):
    """Equal in type, order and every bit."""
    if type(a) is not type(b):
        return False
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, float):
        return struct.pack("d", a) == struct.pack("d", b)
    if isinstance(a, dict):
        return len(a) == len(b) and all(same(x, y) and same(v, w) for (x, v), (y, w) in zip(a.items(), b.items(), strict=True))
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return a == b


@settings(max_examples=200, deadline=None)
@given(STATES)
def test_a_state_survives_json(state):
    tree, tensors = _tree.encode(state, "root")
    read = json.loads(json.dumps(tree, allow_nan=False))
    assert list(_tree.tensor_names(read)) == list(tensors)
    assert same(_tree.decode(read, tensors), state)


def test_every_kind_that_is_allowed():
    counter = collections.Counter({3: 2, 7: 1})
    state = {
        "c": counter,
        "o": collections.OrderedDict(b=1, a=2),
        "n": float("nan"),
        "i": -float("inf"),
        "z": -0.0,
        "big": 1 << 5000,
    }
    tree, tensors = _tree.encode(state)
    assert same(_tree.decode(json.loads(json.dumps(tree, allow_nan=False)), tensors), state)


def test_names_are_paths_and_differ():
    a, b, c, d = (torch.zeros(1) for _ in range(4))
    _, tensors = _tree.encode({"state": {0: {"m": a}, "0": {"m": b}}, "list": [c], "state.0": {"m": d}}, "optimizer")
    assert list(tensors) == ["optimizer.state.0.m", "optimizer.state.0.m~1", "optimizer.list.0", "optimizer.state.0.m~2"]
    assert [tensors[name] for name in tensors] == [a, b, c, d]


def test_a_tree_is_a_copy():
    state = {"a": [1, {"b": 2}]}
    tree, _ = _tree.encode(state)
    state["a"][1]["b"] = 3
    state["a"].append(4)
    assert _tree.decode(tree, {}) == {"a": [1, {"b": 2}]}


@pytest.mark.parametrize(
    ("state", "path", "kind"),
    [
        ({"a": {"b": {1, 2}}}, "s.a.b", "builtins.set"),
        ({"a": [0, object()]}, "s.a.1", "builtins.object"),
        ({"a": torch.float32}, "s.a", "torch.dtype"),
        ({"a": collections.defaultdict(list)}, "s.a", "collections.defaultdict"),
        ({"f": len}, "s.f", "builtins.builtin_function_or_method"),
        ([torch.Size([1])], "s.0", "torch.Size"),
    ],
)
def test_other_types_are_refused_by_path(state, path, kind):
    with pytest.raises(InvalidArgument) as error:
        _tree.encode(state, "s")
    assert repr(path) in str(error.value)
    assert kind in str(error.value)


def test_a_key_that_holds_a_tensor_is_refused():
    with pytest.raises(InvalidArgument, match="key that holds a tensor"):
        _tree.encode({"a": {(torch.zeros(1),): 1}})


def test_a_state_that_holds_itself_is_refused():
    state = {}
    state["self"] = state
    with pytest.raises(InvalidArgument, match="nested deeper than 100"):
        _tree.encode(state)


@pytest.mark.parametrize(
    "tree",
    [
        {},
        {"a": 1, "b": 2},
        {"set": [1]},
        {"dict": {"a": 1}},
        {"dict": [["a"]]},
        {"dict": [["a", 1, 2]]},
        {"dict": [[[1], 2]]},
        {"dict": [[{"tensor": "t"}, 2]]},
        {"tuple": "ab"},
        {"tensor": "missing"},
        {"tensor": 3},
        {"bytes": "###"},
        {"float": "00"},
        {"float": "zz"},
        {"int": "0xg"},
        {"pickle": "gASVCg=="},
    ],
)
def test_a_tree_that_is_not_ours_is_corrupt(tree):
    with pytest.raises(CheckpointCorrupt):
        _tree.decode({"dict": [["k", tree]]}, {"t": torch.zeros(1)})


def test_a_bottomless_tree_is_corrupt():
    tree: list = []
    for _ in range(500):
        tree = [tree]
    with pytest.raises(CheckpointCorrupt, match="nested deeper"):
        _tree.decode(tree, {})
