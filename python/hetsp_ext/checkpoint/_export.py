"""A checkpoint as other programs want it: whole tensors in safetensors files with an index, the layout of the Hugging Face hub.

    OUT/model.safetensors                             where one file holds it
    OUT/model-00001-of-00003.safetensors ...          else; no file larger than asked, but for a single tensor that is
    OUT/model.safetensors.index.json                  {"metadata": {"total_size"}, "weight_map": {tensor: file}}

Each file's tensors are assembled from their boxes, verified, in memory, so exporting takes the memory of one file. The
directory appears by one rename when all is written and synced.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from ..errors import CheckpointCorrupt, InvalidArgument
from ._manifest import TensorEntry
from ._opened import Opened
from ._restore import RING_BYTES, Target, read
from ._shard import ALIGNMENT, ShardTensor

FILE_BYTES = 5_000_000_000


def _bytes(tensor: TensorEntry) -> int:
    return ShardTensor("", tensor.dtype, tensor.shape).bytes


def _files(tensors: dict[str, TensorEntry], file_bytes: int) -> Iterator[dict[str, TensorEntry]]:
    """The tensors in order, cut where a file would grow beyond `file_bytes`."""
    current: dict[str, TensorEntry] = {}
    filled = 0
    for name, tensor in tensors.items():
        if current and filled + _bytes(tensor) > file_bytes:
            yield current
            current, filled = {}, 0
        current[name] = tensor
        filled += _bytes(tensor)
    yield current


def export(
    path: str | os.PathLike[str], destination: str | os.PathLike[str], *, prefix: str = "", file_bytes: int = FILE_BYTES
) -> list[Path]:
    """Writes the tensors of one checkpoint whole, whatever boxes they are stored in; returns the files.

    Args:
        path: the directory of one checkpoint.
        destination: a directory that does not exist yet, or is empty.
        prefix: only tensors whose names begin with it, which is taken off: "model." for what transformers loads.
        file_bytes: largest size of a file's data.

    Raises:
        CheckpointCorrupt: a byte of the tensors does not verify; nothing is left at `destination`.
        InvalidArgument: no tensor with this prefix, or a destination that holds something.
    """
    destination = Path(destination)
    if file_bytes < 1:
        raise InvalidArgument(f"file_bytes is {file_bytes}, must be at least 1")
    if destination.exists() and (not destination.is_dir() or any(destination.iterdir())):
        raise InvalidArgument(f"{destination} exists and is no empty directory")
    opened = Opened(path)
    stored = opened.manifest.tensors
    left_out = {prefix, *opened.planner_data.bytes}
    chosen = {name: tensor for name, tensor in stored.items() if name.startswith(prefix) and name not in left_out}
    if not chosen:
        raise InvalidArgument(f"{path}: of {len(stored)} tensors no name begins with {prefix!r} and goes on")
    parts = list(_files(chosen, file_bytes))
    names = [f"model-{index + 1:05d}-of-{len(parts):05d}.safetensors" for index in range(len(parts))]
    if len(parts) == 1:
        names = ["model.safetensors"]
    destination.parent.mkdir(parents=True, exist_ok=True)
    unfinished = destination.with_name(f".{destination.name}.{os.getpid()}.part")
    unfinished.mkdir()
    try:
        for name, tensors in zip(names, parts, strict=True):
            _write_file(opened, tensors, prefix, unfinished / name)
        index = {
            "metadata": {"total_size": sum(map(_bytes, chosen.values()))},
            "weight_map": {key.removeprefix(prefix): name for name, part in zip(names, parts, strict=True) for key in part},
        }
        with open(unfinished / "model.safetensors.index.json", "w") as text:
            json.dump(index, text, indent=2)
            text.flush()
            os.fsync(text.fileno())
        _sync(unfinished)
        os.rename(unfinished, destination)
        _sync(destination.parent)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    return [destination / name for name in names]


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write_file(opened: Opened, tensors: dict[str, TensorEntry], prefix: str, file: Path) -> None:
    memory = {name: torch.empty(tensor.shape, dtype=opened.dtype(name)) for name, tensor in tensors.items()}
    pending = read(opened, [Target(name, tensor) for name, tensor in memory.items()], ring_bytes=RING_BYTES, undo=False)
    if pending.faults:
        raise CheckpointCorrupt(f"{opened.path}: " + "; ".join(map(str, pending.faults[:3])))
    pending.place()
    with open(file, "xb") as stream:
        stream.write(_header(tensors, prefix))
        for tensor in memory.values():
            stream.write(tensor.reshape(-1).view(torch.uint8).numpy().data)
        stream.flush()
        os.fsync(stream.fileno())


def _header(tensors: dict[str, TensorEntry], prefix: str) -> bytes:
    """A plain one: nothing of ours in it, so that no reader takes the file for a shard of something."""
    entries: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, tensor in tensors.items():
        begin, end = end, end + _bytes(tensor)
        entries[name.removeprefix(prefix)] = {"dtype": tensor.dtype, "shape": list(tensor.shape), "data_offsets": [begin, end]}
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-(8 + len(text)) % ALIGNMENT)
    return len(text).to_bytes(8, "little") + text
