"""Manifests: what is written is read back, and each fault is named with its place."""

import copy
import json
import random

import pytest

from hetsp_ext.checkpoint._manifest import Box, Extent, FileEntry, Manifest, TensorEntry, deduplicated
from hetsp_ext.errors import CheckpointCorrupt, HetspError

HASH = "0123456789abcdef0123456789abcdef"


def example():
    extents = (Extent(4096, 4096 + 60, HASH), Extent(4156, 4156 + (4 << 20), HASH))
    file = FileEntry("rank-00000.safetensors", 4156 + (4 << 20), 4096, HASH, extents)
    empty = FileEntry("rank-00001.safetensors", 4096, 4096, HASH, ())
    tensors = {
        "w": TensorEntry("F32", (3, 5), (Box(0, "w", (0, 0), (3, 5)),)),
        "e": TensorEntry("BF16", (0,), ()),
        "s": TensorEntry("I64", (), (Box(0, "s", (), ()),)),
    }
    trees, ranks = deduplicated([{"dict": [["a", 1]]}, {"dict": [["a", 1]]}])
    return Manifest("run-00000001", 120, 7, 2, "xxh3-128", (file, empty), tensors, trees, ranks, {"k": ["a", 0]})


def test_a_manifest_survives():
    manifest = example()
    text = manifest.to_json()
    assert text.endswith(b"}\n")
    assert Manifest.from_json("m", text) == manifest
    assert manifest.tree(1) == {"dict": [["a", 1]]}


def test_equal_trees_are_held_once():
    assert deduplicated([1, 2, 1, {"tensor": "a"}, {"tensor": "a"}]) == ((1, 2, {"tensor": "a"}), (0, 1, 0, 2, 2))
    assert deduplicated([1, True, 1.0]) == ((1, True, 1.0), (0, 1, 2))


def at(body, path, value):
    *front, last = path
    for key in front:
        body = body[key]
    if value is DELETE:
        del body[last]
    else:
        body[last] = value
    return body


DELETE = object()
EXTENTS = ("files", 0, "extents")


@pytest.mark.parametrize(
    ("path", "value", "what"),
    [
        (("version",), 2, "version: 2 is not 1"),
        (("version",), DELETE, "version: None"),
        (("uid",), 5, "uid: must be a string"),
        (("more",), 5, "must be an object of"),
        (("step",), DELETE, "must be an object of"),
        (("step",), -1, "step: '-1'"),
        (("step",), 1.0, "step: '1.0'"),
        (("step",), True, "step: 'True'"),
        (("sequence",), 1 << 63, "sequence"),
        (("world",), 3, "one index for each of 3 ranks"),
        (("checksum",), "md5", "'md5' is unknown"),
        (("files",), {}, "files: must be a list"),
        (("files", 0, "name"), "../x", "no file name"),
        (("files", 0, "name"), "", "no file name"),
        (("files", 0, "name"), "a\0b", "no file name"),
        (("files", 0, "name"), "rank-00001.safetensors", "appears twice"),
        (("files", 0, "bytes"), 5, r"end at byte \d+ of 5"),
        (("files", 0, "header_bytes"), 8192, "begins at 4096"),
        (("files", 0, "header_hash"), "0" * 31, "32 hexadecimal"),
        (("files", 0, "header_hash"), "G" * 32, "32 hexadecimal"),
        ((*EXTENTS, 1), [4157, 4158, HASH], r"extents\[1\]: begins at 4157"),
        ((*EXTENTS, 1, 1), 4156 + (4 << 20) + 1, "must hold 1 to 4194304"),
        ((*EXTENTS, 1, 1), 4156, "must hold 1 to"),
        ((*EXTENTS, 0), [4096], r"must be \[begin, end, hash\]"),
        (EXTENTS, [], "end at byte 4096"),
        (("tensors",), [], "tensors: must be an object"),
        (("tensors", "w", "dtype"), "F31", "'F31' is unknown"),
        (("tensors", "w", "shape"), [3, 4], "do not lie in shape"),
        (("tensors", "w", "shape"), [3], "do not lie in shape"),
        (("tensors", "w", "shape"), [1] * 65, "at most 64"),
        (("tensors", "w", "boxes", 0, "file"), 2, "boxes.0..file"),
        (("tensors", "w", "boxes", 0, "key"), None, "key: must be a string"),
        (("tensors", "w", "boxes", 0, "offsets"), [1, 0], "do not lie in shape"),
        (("values", "ranks"), [0], "one index for each"),
        (("values", "ranks"), [0, 1], r"values.ranks\[1\]"),
        (("values", "trees"), None, "values: must hold"),
        (("values", "trees"), [], r"values.ranks\[0\]"),
        (("files",), [], "boxes.0..file: '0' must be"),
    ],
)
def test_each_fault_is_named(path, value, what):
    body = json.loads(example().to_json())
    at(body, path, value)
    with pytest.raises(CheckpointCorrupt, match=what) as error:
        Manifest.from_json("step-1/manifest.json", json.dumps(body).encode())
    assert str(error.value).startswith("step-1/manifest.json: ")


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"null", b"\xff", b'{"a":NaN}', b"[" * 100_000, b'{"uid":1,"uid":2}'])
def test_text_that_is_no_manifest(text):
    with pytest.raises(CheckpointCorrupt):
        Manifest.from_json("m", text)


@pytest.mark.parametrize("seed", range(4))
def test_no_change_of_structure_passes_as_anything_else(seed):
    """Random values at random places end in a manifest or in CheckpointCorrupt, never in another exception."""
    draw = random.Random(seed)
    values = [None, True, -1, 0, 1, 1 << 70, 0.5, "", "x", [], [0], {}, {"a": 1}]

    def places(node, path=()):
        yield path
        items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
        for key, item in items:
            yield from places(item, (*path, key))

    original = json.loads(example().to_json())
    paths = [path for path in places(original) if path]
    for _ in range(400):
        body = copy.deepcopy(original)
        at(body, draw.choice(paths), draw.choice(values))
        try:
            Manifest.from_json("m", json.dumps(body).encode())
        except HetspError as error:
            assert isinstance(error, CheckpointCorrupt)  # noqa: PT017 - most changes raise, some are harmless
