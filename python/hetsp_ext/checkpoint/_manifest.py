"""The manifest: what a committed checkpoint consists of, as JSON whose last line is the checksum of all before.

    {"version": 1, "uid", "step", "sequence", "world", "checksum",
     "files":   [{"name", "bytes", "header_bytes", "header_hash", "extents": [[begin, end, hash], ...]}, ...],
     "tensors": {name: {"dtype", "shape", "boxes": [{"file", "key", "offsets", "sizes"}, ...]}, ...},
     "values":  {"trees": [tree, ...], "ranks": [index into trees, ...]},
     "planner_data": anything, or null}

A tensor's boxes tile it; each is the tensor `key` of the file number `file`. Extents are byte ranges of a file that cover it,
behind its header, without gap. `sequence` counts commits to one directory: newest means highest, since steps repeat after a
fallback and clocks err. `values` holds the trees (see _tree.py) of the ranks, equal ones once. Nothing here is pickled: a
manifest is data, and reading a damaged one ends in CheckpointCorrupt, never in code or in memory without bound.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from ..errors import CheckpointCorrupt
from ._dtypes import ITEM_BYTES
from ._shard import MOST_DIMENSIONS

VERSION = 1
LONGEST_EXTENT = 4 << 20  # bytes: what one hash covers, and so the least that a partial read must verify
CHECKSUMS = {"xxh3-128": 32, "crc32c": 8}  # name -> hex digits

Part = TypeVar("Part")


@dataclass(frozen=True)
class Extent:
    """Bytes [begin, end) of a file and their hash."""

    begin: int
    end: int
    hash: str


@dataclass(frozen=True)
class FileEntry:
    """One rank's file; the first `header_bytes` are its header."""

    name: str
    bytes: int
    header_bytes: int
    header_hash: str
    extents: tuple[Extent, ...]


@dataclass(frozen=True)
class Box:
    """Elements [offsets, offsets + sizes) of a tensor, stored as tensor `key` of file number `file`."""

    file: int
    key: str
    offsets: tuple[int, ...]
    sizes: tuple[int, ...]


@dataclass(frozen=True)
class TensorEntry:
    """A tensor as the program sees it: `shape` is global, `dtype` safetensors' name."""

    dtype: str
    shape: tuple[int, ...]
    boxes: tuple[Box, ...]


@dataclass(frozen=True)
class Manifest:
    """See the module's comment. `trees[ranks[r]]` is rank r's tree."""

    uid: str
    step: int
    sequence: int
    world: int
    checksum: str
    files: tuple[FileEntry, ...]
    tensors: Mapping[str, TensorEntry]
    trees: tuple[Any, ...]
    ranks: tuple[int, ...]
    planner_data: Any = None

    def tree(self, rank: int) -> Any:
        """The tree of the values of a rank of the saving job."""
        return self.trees[self.ranks[rank]]

    def to_json(self) -> bytes:
        """One JSON object and a newline; the seal is added by whoever writes the file."""
        body = {
            "version": VERSION,
            "uid": self.uid,
            "step": self.step,
            "sequence": self.sequence,
            "world": self.world,
            "checksum": self.checksum,
            "files": [
                {
                    "name": file.name,
                    "bytes": file.bytes,
                    "header_bytes": file.header_bytes,
                    "header_hash": file.header_hash,
                    "extents": [[extent.begin, extent.end, extent.hash] for extent in file.extents],
                }
                for file in self.files
            ],
            "tensors": {
                name: {
                    "dtype": tensor.dtype,
                    "shape": tensor.shape,
                    "boxes": [
                        {"file": box.file, "key": box.key, "offsets": box.offsets, "sizes": box.sizes} for box in tensor.boxes
                    ],
                }
                for name, tensor in self.tensors.items()
            },
            "values": {"trees": self.trees, "ranks": self.ranks},
            "planner_data": self.planner_data,
        }
        return json.dumps(body, separators=(",", ":"), allow_nan=False).encode("ascii") + b"\n"

    @classmethod
    def from_json(cls, path: str, text: bytes) -> Manifest:
        """Reads what to_json wrote; every fault is a CheckpointCorrupt that names `path` and the place in the manifest."""
        return _Reader(path).manifest(text)


def deduplicated(trees: list[Any]) -> tuple[tuple[Any, ...], tuple[int, ...]]:
    """(trees, ranks) of a Manifest out of one tree a rank."""
    distinct: list[Any] = []
    index: dict[str, int] = {}
    ranks = []
    for tree in trees:
        text = json.dumps(tree, allow_nan=False)
        if text not in index:
            index[text] = len(distinct)
            distinct.append(tree)
        ranks.append(index[text])
    return tuple(distinct), tuple(ranks)


def plain_file_name(name: Any) -> bool:
    """Whether `name` names a file inside the checkpoint's own directory and nowhere else."""
    return isinstance(name, str) and 0 < len(name) <= 255 and name not in (".", "..") and not re.search(r"[/\x00]", name)


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def _no_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key appears twice")
    return found


class _Reader:
    """Checks one manifest; `self.where` is what a fault is reported at."""

    def __init__(self, path: str) -> None:
        self.path = path

    def wrong(self, where: str, what: str) -> CheckpointCorrupt:
        return CheckpointCorrupt(f"{self.path}: {where}: {what}")

    def fields(self, where: str, value: Any, *names: str) -> list[Any]:
        if not isinstance(value, dict) or set(value) != set(names):
            raise self.wrong(where, f"must be an object of {', '.join(names)}")
        return [value[name] for name in names]

    def natural(self, where: str, value: Any, below: int = 1 << 63) -> int:
        if type(value) is not int or not 0 <= value < below:
            raise self.wrong(where, f"{str(value)[:40]!r} must be an integer in [0, {below})")
        return value

    def text(self, where: str, value: Any) -> str:
        if not isinstance(value, str):
            raise self.wrong(where, "must be a string")
        return value

    def list(self, where: str, value: Any, part: Callable[[str, Any], Part], most: int = 1 << 40) -> tuple[Part, ...]:
        if not isinstance(value, list) or len(value) > most:
            raise self.wrong(where, f"must be a list of at most {most}")
        return tuple(part(f"{where}[{index}]", item) for index, item in enumerate(value))

    def naturals(self, where: str, value: Any) -> tuple[int, ...]:
        return self.list(where, value, self.natural, MOST_DIMENSIONS)

    def manifest(self, text: bytes) -> Manifest:
        try:
            body = json.loads(text.decode("utf-8"), object_pairs_hook=_no_repeats, parse_constant=_refuse_constant)
        except (ValueError, RecursionError) as error:
            raise self.wrong("manifest", f"no JSON: {error}") from None
        if not isinstance(body, dict) or type(body.get("version")) is not int or body["version"] != VERSION:
            found = body.get("version") if isinstance(body, dict) else None
            raise self.wrong("version", f"{str(found)[:40]} is not {VERSION}, the one this program reads")
        names = ("version", "uid", "step", "sequence", "world", "checksum", "files", "tensors", "values", "planner_data")
        _, uid, step, sequence, world, checksum, files, tensors, values, planner_data = self.fields("manifest", body, *names)
        if not isinstance(checksum, str) or checksum not in CHECKSUMS:
            raise self.wrong("checksum", f"{checksum!r} is unknown; allowed: {', '.join(CHECKSUMS)}")
        self.digits = CHECKSUMS[checksum]
        self.natural("world", world, 1 << 31)
        self.files = self.list("files", files, self.file)
        if len({file.name for file in self.files}) != len(self.files):
            raise self.wrong("files", "a name appears twice")
        if not isinstance(tensors, dict):
            raise self.wrong("tensors", "must be an object")
        trees, ranks = self.fields("values", values, "trees", "ranks")
        if not isinstance(trees, list) or not isinstance(ranks, list) or len(ranks) != world:
            raise self.wrong("values", f"must hold a list of trees and one index for each of {world} ranks")
        return Manifest(
            self.text("uid", uid),
            self.natural("step", step),
            self.natural("sequence", sequence),
            world,
            checksum,
            self.files,
            {name: self.tensor(f"tensors[{name!r}]", tensor) for name, tensor in tensors.items()},
            tuple(trees),
            self.list("values.ranks", ranks, lambda where, index: self.natural(where, index, len(trees))),
            planner_data,
        )

    def hash(self, where: str, value: Any) -> str:
        if not isinstance(value, str) or not re.fullmatch(f"[0-9a-f]{{{self.digits}}}", value):
            raise self.wrong(where, f"must be {self.digits} hexadecimal digits")
        return value

    def file(self, where: str, value: Any) -> FileEntry:
        name, size, header_bytes, header_hash, extents = self.fields(
            where, value, "name", "bytes", "header_bytes", "header_hash", "extents"
        )
        if not plain_file_name(name):
            raise self.wrong(where, f"{str(name)[:80]!r} is no file name")
        entry = FileEntry(
            name,
            self.natural(f"{where}.bytes", size),
            self.natural(f"{where}.header_bytes", header_bytes),
            self.hash(f"{where}.header_hash", header_hash),
            self.list(f"{where}.extents", extents, self.extent),
        )
        end = entry.header_bytes
        for index, extent in enumerate(entry.extents):
            if extent.begin != end:
                raise self.wrong(f"{where}.extents[{index}]", f"begins at {extent.begin}, the one before ends at {end}")
            end = extent.end
        if end != entry.bytes:
            raise self.wrong(f"{where}.extents", f"end at byte {end} of {entry.bytes} of {entry.name}")
        return entry

    def extent(self, where: str, value: Any) -> Extent:
        if not isinstance(value, list) or len(value) != 3:
            raise self.wrong(where, "must be [begin, end, hash]")
        extent = Extent(self.natural(where, value[0]), self.natural(where, value[1]), self.hash(where, value[2]))
        if not 0 < extent.end - extent.begin <= LONGEST_EXTENT:
            raise self.wrong(where, f"[{extent.begin}, {extent.end}) must hold 1 to {LONGEST_EXTENT} bytes")
        return extent

    def tensor(self, where: str, value: Any) -> TensorEntry:
        dtype, shape, boxes = self.fields(where, value, "dtype", "shape", "boxes")
        if not isinstance(dtype, str) or dtype not in ITEM_BYTES:
            raise self.wrong(where, f"dtype {str(dtype)[:40]!r} is unknown; allowed: {', '.join(ITEM_BYTES)}")
        entry = TensorEntry(dtype, self.naturals(f"{where}.shape", shape), self.list(f"{where}.boxes", boxes, self.box))
        for index, box in enumerate(entry.boxes):
            fits = len(box.offsets) == len(box.sizes) == len(entry.shape) and all(
                offset + size <= extent for offset, size, extent in zip(box.offsets, box.sizes, entry.shape, strict=True)
            )
            if not fits:
                raise self.wrong(
                    f"{where}.boxes[{index}]",
                    f"offsets {list(box.offsets)}, sizes {list(box.sizes)} do not lie in shape {list(entry.shape)}",
                )
        return entry

    def box(self, where: str, value: Any) -> Box:
        file, key, offsets, sizes = self.fields(where, value, "file", "key", "offsets", "sizes")
        return Box(
            self.natural(f"{where}.file", file, len(self.files)),
            self.text(f"{where}.key", key),
            self.naturals(f"{where}.offsets", offsets),
            self.naturals(f"{where}.sizes", sizes),
        )
