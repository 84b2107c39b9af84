"""A checkpoint written the slow, obvious way, byte by byte as docs/checkpoint.md says: what readers are tested against.

Nothing of the writing half of hetsp_ext is used, so the two halves check each other; the checksum is CRC-32C from its
definition.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

NAMES = {
    torch.float32: "F32",
    torch.float64: "F64",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
_TABLE = []
for _byte in range(256):
    for _ in range(8):
        _byte = _byte >> 1 ^ (0x82F63B78 if _byte & 1 else 0)
    _TABLE.append(_byte)


def crc32c(data: bytes) -> str:
    """CRC-32C (RFC 3720, appendix B.4) as 8 hex digits."""
    value = 0xFFFFFFFF
    for byte in data:
        value = _TABLE[(value ^ byte) & 255] ^ value >> 8
    return f"{value ^ 0xFFFFFFFF:08x}"


def sealed(text: bytes) -> bytes:
    """A text with the line that says whether it is whole."""
    text = text if text.endswith(b"\n") else text + b"\n"
    return text + f"crc32c {crc32c(text)}\n".encode()


def raw(tensor: torch.Tensor) -> bytes:
    """The elements' bytes, row by row."""
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def write_checkpoint(
    path: Path,
    tensors: Mapping[str, torch.Tensor],
    *,
    step: int = 0,
    sequence: int = 1,
    world: int = 1,
    cuts: Mapping[str, Sequence[int]] | None = None,
    trees: Sequence[Any] = (None,),
    planner_data: Any = None,
    extent_bytes: int = 512,
) -> dict[str, Any]:
    """Writes the directory `path`, one file a rank, and returns its manifest's content.

    `cuts[name]`: rows at which a tensor is cut, one piece a rank; a tensor without is all on rank hash(position) % world.
    """
    path.mkdir(parents=True)
    uid = path.name.rpartition("-")[2]
    held: list[dict[str, tuple[list[int], torch.Tensor]]] = [{} for _ in range(world)]
    for position, (name, tensor) in enumerate(tensors.items()):
        if cuts and name in cuts:
            ends = [0, *cuts[name], len(tensor)]
            for rank, (begin, end) in enumerate(itertools.pairwise(ends)):
                held[rank][name] = ([begin] + [0] * (tensor.dim() - 1), tensor[begin:end])
        else:
            held[position % world][name] = ([0] * tensor.dim(), tensor)
    files, boxes = [], {name: [] for name in tensors}
    for rank, part in enumerate(held):
        offsets = {name: {"saved_offsets": at} for name, (at, _) in part.items()}
        entries: dict[str, Any] = {
            "__metadata__": {
                "format": "pt",
                "hetsp_uid": uid,
                "hetsp_rank": str(rank),
                "DCP_SHARDING_INFO": json.dumps(offsets),
            }
        }
        data, extents = b"", []
        for name, (at, piece) in part.items():
            entries[name] = {
                "dtype": NAMES[piece.dtype],
                "shape": list(piece.shape),
                "data_offsets": [len(data), len(data) + piece.nbytes],
            }
            boxes[name].append({"file": rank, "key": name, "offsets": at, "sizes": list(piece.shape)})
            data += raw(piece)
        text = json.dumps(entries).encode()
        text += b" " * (-(8 + len(text)) % 4096)
        header = len(text).to_bytes(8, "little") + text
        for begin in range(0, len(data), extent_bytes):
            cut = data[begin : begin + extent_bytes]
            extents.append([len(header) + begin, len(header) + begin + len(cut), crc32c(cut)])
        name = f"rank-{rank:05d}.safetensors"
        (path / name).write_bytes(header + data)
        files.append(
            {
                "name": name,
                "bytes": len(header) + len(data),
                "header_bytes": len(header),
                "header_hash": crc32c(header),
                "extents": extents,
            }
        )
    manifest = {
        "version": 1,
        "uid": uid,
        "step": step,
        "sequence": sequence,
        "world": world,
        "checksum": "crc32c",
        "files": files,
        "tensors": {
            name: {"dtype": NAMES[tensor.dtype], "shape": list(tensor.shape), "boxes": boxes[name]}
            for name, tensor in tensors.items()
        },
        "values": {"trees": list(trees), "ranks": [0] * world},
        "planner_data": planner_data,
    }
    (path / "manifest.json").write_bytes(sealed(json.dumps(manifest).encode()))
    return manifest
