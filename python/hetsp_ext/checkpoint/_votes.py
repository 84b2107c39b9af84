"""What the ranks tell rank 0 of one save, and the manifest that it makes of it.

A vote is a file in the checkpoint's own `.part` directory, sealed: votes need no collective, which a background thread could
not run beside training's, and a dead rank is a missing file, not a hang. A rank votes after its file is durable:

    {"rank", "step", "ok": true, "file": {"name", "bytes", "header_bytes", "header_hash", "extents"},
     "tensors": [[name, dtype, shape, key, offsets, sizes, sort, hash], ...], "values": tree, "samples": {name: hex}}
    {"rank", "step", "ok": false, "error": text, "kind": "mutated" | "write" | "other"}

sort is "shared" (a box of what several ranks hold), "own" (this rank's, under a name of its own) or "volatile": every rank
writes these small tensors whole; where all hashes agree one is kept in the manifest, else each rank's under its own name.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..errors import CheckpointError
from . import _boxes
from ._devices import Taking
from ._fence import list_names
from ._items import VOLATILE
from ._manifest import Box, Extent, FileEntry, Manifest, TensorEntry, deduplicated
from ._table import Table
from ._tree import Leaf


class Diverged(CheckpointError):
    """Ranks that held the same tensors no longer do; `names` says which."""

    def __init__(self, message: str, names: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.names = list(names)


@dataclass
class Taken:
    """What save() has taken beside the capture itself."""

    table: Table
    trees: list[list[Any]]
    leaves: list[Leaf]
    others: Taking | None = None  # what other ranks' state is compared with, where there are any


def own_name(name: str, rank: int) -> str:
    """The name of a tensor that is one rank's own."""
    return f"{name}@{rank}"


def file_name(rank: int) -> str:
    """The name of a rank's file."""
    return f"rank-{rank:05d}.safetensors"


def values_tree(taken: Taken, world: int) -> Any:
    """The tree of a rank's values; volatile tensors still have the name that they share with the other ranks'."""
    table = taken.table
    for leaf, name, item in zip(taken.leaves, table.names, table.item_of_leaf, strict=True):
        leaf.node["tensor"] = own_name(name, table.rank) if world > 1 and item.private else name
    return {
        "dict": [
            ["kinds", {"dict": [[name, kind] for name, kind in table.kinds.items()]}],
            ["metadata", {"dict": [[name, _plain(metadata)] for name, metadata in table.metadata.items()]}],
            ["states", {"dict": taken.trees}],
        ]
    }


def _plain(value: Any) -> Any:
    """A tree of dictionaries of plain values."""
    return {"dict": [[key, _plain(item)] for key, item in value.items()]} if isinstance(value, dict) else value


def vote(taken: Taken, capture: Any, step: int, world: int) -> dict[str, Any]:
    """The vote of a rank whose file is durable."""
    table = taken.table
    volatile, sampled = (taken.others.volatile(), taken.others.samples()) if taken.others is not None else (b"", b"")
    tensors = []
    at = 0
    for item in table.written:
        part = item.written
        sort, digest = "shared", ""
        if item.private and world > 1:
            sort = "own"
        elif item.kind == VOLATILE and item.plain and world > 1:
            sort = "volatile"
        if item.kind == VOLATILE:
            if sort == "volatile":
                digest = hashlib.blake2b(volatile[at : at + part.nbytes], digest_size=16).hexdigest()
            at += part.nbytes
        tensors.append([item.name, item.dtype, item.shape, item.name, item.written_offsets, list(part.shape), sort, digest])
    samples = {name: sampled[begin:end].hex() for name, begin, end in table.sample_ranges}
    return {
        "rank": table.rank,
        "step": step,
        "ok": True,
        "file": {
            "name": file_name(table.rank),
            "bytes": table.header.file_bytes,
            "header_bytes": table.header.header_bytes,
            "header_hash": capture.header_hash,
            "extents": [list(extent) for extent in capture.extents],
        },
        "tensors": tensors,
        "values": values_tree(taken, world),
        "samples": {name: hashlib.blake2b(bytes.fromhex(text), digest_size=8).hexdigest() for name, text in samples.items()},
    }


def check_samples(votes: Sequence[Mapping[str, Any]]) -> None:
    """Raises Diverged naming the tensors of which ranks that should hold the same took different samples."""
    first: dict[str, str] = {}
    different = set()
    for told in votes:
        for name, digest in told["samples"].items():
            if first.setdefault(name, digest) != digest:
                different.add(name)
    if different:
        names = sorted(different)
        raise Diverged(
            f"ranks no longer hold the same values in {list_names(names)}; plain tensors are saved by each rank from now on",
            names,
        )


@dataclass
class _Gathered:
    files: list[FileEntry] = field(default_factory=list)
    dtypes: dict[str, tuple[str, tuple[int, ...]]] = field(default_factory=dict)
    boxes: dict[str, list[Box]] = field(default_factory=dict)

    def add(self, name: str, dtype: str, shape: Iterable[int], box: Box) -> None:
        said = (dtype, tuple(shape))
        if self.dtypes.setdefault(name, said) != said:
            raise CheckpointError(f"ranks disagree on tensor {name!r}: {self.dtypes[name]} and {said}")
        self.boxes.setdefault(name, []).append(box)


def manifest_of(votes: Sequence[Mapping[str, Any]], uid: str, step: int, sequence: int, checksum: str) -> Manifest:
    """The manifest of the votes of all ranks, in their order.

    Raises:
        Diverged: see check_samples.
        CheckpointError: the ranks saved different steps, or what they wrote does not make whole tensors.
    """
    for told in votes:
        if told["step"] != step:
            raise CheckpointError(f"rank {told['rank']} saved step {told['step']}, rank 0 step {step}")
    check_samples(votes)
    gathered = _Gathered()
    volatile: dict[str, list[Any]] = {}
    for index, told in enumerate(votes):
        entry = told["file"]
        extents = tuple(Extent(begin, end, digest) for begin, end, digest in entry["extents"])
        gathered.files.append(FileEntry(entry["name"], entry["bytes"], entry["header_bytes"], entry["header_hash"], extents))
        for name, dtype, shape, key, offsets, sizes, sort, digest in told["tensors"]:
            box = Box(index, key, tuple(offsets), tuple(sizes))
            if sort == "volatile":
                volatile.setdefault(name, []).append((told["rank"], digest, dtype, tuple(shape), box))
            else:
                gathered.add(own_name(name, told["rank"]) if sort == "own" else name, dtype, shape, box)
    renamed: dict[int, set[str]] = {}
    for name, copies in volatile.items():
        if len({(digest, dtype, shape) for _, digest, dtype, shape, _ in copies}) == 1:
            gathered.add(name, *copies[0][2:])
            continue
        for rank, _, dtype, shape, box in copies:
            gathered.add(own_name(name, rank), dtype, shape, box)
            renamed.setdefault(rank, set()).add(name)
    tensors = {}
    for name, (dtype, shape) in gathered.dtypes.items():
        boxes = tuple(gathered.boxes[name])
        fault = _boxes.tiling_fault(shape, [_boxes.Box(box.offsets, box.sizes) for box in boxes]) if math.prod(shape) else None
        if fault:
            raise CheckpointError(f"what the ranks wrote does not make tensor {name!r} whole: {fault}")
        tensors[name] = TensorEntry(dtype, shape, boxes)
    trees = [_rename(told["values"], renamed.get(told["rank"], set()), told["rank"]) for told in votes]
    distinct, ranks = deduplicated(trees)
    return Manifest(uid, step, sequence, len(votes), checksum, tuple(gathered.files), tensors, distinct, ranks)


def _rename(tree: Any, names: set[str], rank: int) -> Any:
    if not names:
        return tree
    if isinstance(tree, list):
        return [_rename(item, names, rank) for item in tree]
    if isinstance(tree, dict):
        if tree.get("tensor") in names:
            return {"tensor": own_name(tree["tensor"], rank)}
        return {key: _rename(item, names, rank) for key, item in tree.items()}
    return tree
