"""A committed checkpoint, opened for reading: its manifest, the headers of its files, and whether the two agree.

The manifest is sealed and names every file with its size and the hash of its header; a header says where each tensor lies.
Everything that is said twice is compared, so that a file of another checkpoint, of another rank or of an older save is named
as what it is before its bytes are looked at. The bytes themselves are verified by the native reader, extent by extent.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .._native import core
from ..errors import CheckpointCorrupt
from ._boxes import Box, tiling_fault
from ._dtypes import DTYPES
from ._manifest import FileEntry, Manifest
from ._planner_data import PlannerData
from ._reads import StoredBox
from ._shard import ShardHeader, parse_header, text_bytes

MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Fault:
    """Something in a checkpoint that is not as it was committed."""

    file: str
    what: str
    begin: int | None = None  # bytes of the file, half open, where the fault can be told to lie
    end: int | None = None
    tensors: tuple[str, ...] = ()  # those that have bytes there

    def __str__(self) -> str:
        bytes_ = "" if self.begin is None else f" bytes [{self.begin}, {self.end})"
        names = f" ({', '.join(self.tensors[:3])}{', ...' if len(self.tensors) > 3 else ''})" if self.tensors else ""
        return f"{self.file}{bytes_}{names}: {self.what}"


def joined(found: Iterable[tuple[int, int, int, str]]) -> list[tuple[int, int, int, str]]:
    """Faults (file, begin, end, what) of which those that adjoin and say the same are one: of a file that was cut, all the
    extents behind its end."""
    runs: list[tuple[int, int, int, str]] = []
    for file, begin, end, what in sorted(found, key=lambda fault: (fault[0], fault[3], fault[1])):
        if runs and (file, what, begin) == (runs[-1][0], runs[-1][3], runs[-1][2]):
            begin = runs.pop()[1]
        runs.append((file, begin, end, what))
    return sorted(runs)


class Opened:
    """The checkpoint in a directory.

    Raises CheckpointCorrupt where the manifest is missing, damaged, or describes tensors that its boxes do not tile.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        file = str(self.path / MANIFEST)
        try:
            text = core.read_sealed(file)
        except OSError as error:
            raise CheckpointCorrupt(f"{file}: {error}") from error
        self.manifest = Manifest.from_json(file, text)
        for name, tensor in self.manifest.tensors.items():
            boxes = [Box(box.offsets, box.sizes) for box in tensor.boxes]
            if fault := tiling_fault(tensor.shape, boxes):
                raise CheckpointCorrupt(f"{file}: tensor {name!r}: {fault}")
        self.planner_data = PlannerData.from_json(file, self.manifest.planner_data, self.manifest.tensors)
        self._headers: dict[int, ShardHeader] = {}
        self._boxes: dict[str, dict[tuple[int, ...], list[StoredBox]]] = {}
        self._keys: list[dict[str, tuple[str, str, tuple[int, ...]]]] = [{} for _ in self.manifest.files]
        for name, tensor in self.manifest.tensors.items():
            for stored in tensor.boxes:
                self._keys[stored.file][stored.key] = (name, tensor.dtype, stored.sizes)

    @property
    def bytes(self) -> int:
        """Bytes of all its files but the manifest."""
        return sum(file.bytes for file in self.manifest.files)

    def header(self, index: int) -> ShardHeader:
        """The header of a file, compared with the manifest; CheckpointCorrupt naming the file where they differ."""
        if index not in self._headers:
            self._headers[index] = self._read_header(index, self.manifest.files[index])
        return self._headers[index]

    def _read_header(self, index: int, entry: FileEntry) -> ShardHeader:
        file = str(self.path / entry.name)
        try:
            with open(file, "rb") as stream:
                size = os.fstat(stream.fileno()).st_size
                if size != entry.bytes:
                    raise CheckpointCorrupt(f"{file}: {size} bytes, committed with {entry.bytes}")
                first = stream.read(8)
                if 8 + text_bytes(file, first, size) != entry.header_bytes:
                    raise CheckpointCorrupt(f"{file}: the header's length is not {entry.header_bytes - 8}, as committed")
                header = parse_header(file, first + stream.read(entry.header_bytes - 8), size)
        except OSError as error:
            raise CheckpointCorrupt(f"{file}: {error.strerror or error}") from error
        uid, rank = header.metadata.get("hetsp_uid"), header.metadata.get("hetsp_rank")
        numbers = re.search(r"(\d+)", entry.name)
        if uid != self.manifest.uid or (numbers and rank != str(int(numbers[1]))):
            raise CheckpointCorrupt(f"{file}: is the file of rank {rank} of checkpoint {uid}, not of {self.manifest.uid}")
        stored = {key: (tensor.dtype, tensor.shape) for key, tensor in header.tensors.items()}
        for key, (name, dtype, sizes) in self._keys[index].items():
            if stored.get(key) != (dtype, sizes):
                found = stored.get(key, "nothing")
                raise CheckpointCorrupt(f"{file}: holds {found} as {key!r}, tensor {name!r} needs {(dtype, sizes)}")
        return header

    def stored(self, name: str, at: tuple[int, ...] | None = None) -> list[StoredBox]:
        """Where the boxes of a tensor lie; with `at`, those that begin at this element of it."""
        if name not in self._boxes:
            self._boxes[name] = {}
            for box in self.manifest.tensors[name].boxes:
                begin = self.header(box.file).tensors[box.key].begin
                self._boxes[name].setdefault(box.offsets, []).append(StoredBox(box.file, begin, Box(box.offsets, box.sizes)))
        boxes = self._boxes[name]
        return [box for held in boxes.values() for box in held] if at is None else boxes.get(at, [])

    def dtype(self, name: str) -> Any:
        """The torch.dtype of a tensor."""
        return DTYPES[self.manifest.tensors[name].dtype]

    def file_spec(self, index: int) -> Any:
        """A file as the native reader wants it described."""
        entry = self.manifest.files[index]
        extents = [(extent.begin, extent.end, extent.hash) for extent in entry.extents]
        return core.FileSpec(str(self.path / entry.name), entry.bytes, entry.header_hash, extents)

    def fault(self, index: int, begin: int, end: int, what: str) -> Fault:
        """A fault of the native reader, with the tensors that lie there."""
        names = []
        if index in self._headers:
            for key, tensor in self._headers[index].tensors.items():
                if tensor.begin < end and begin < tensor.end and key in self._keys[index]:
                    names.append(self._keys[index][key][0])
        return Fault(self.manifest.files[index].name, what, begin, end, tuple(names))
