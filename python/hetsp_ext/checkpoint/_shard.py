"""The header of a rank's file: safetensors, padded so that the data begin at a multiple of 4096.

    8 bytes   length of the JSON text, little-endian
    text      {"__metadata__": {str: str}, key: {"dtype", "shape", "data_offsets": [begin, end]}, ...}, then spaces
    data      the tensors back to back in the order of the header, nothing between them and nothing behind them

Trailing spaces are legal JSON, so every safetensors reader takes the file as it is. `hetsp_uid` and `hetsp_rank` in the
metadata tell one checkpoint's and one rank's file from another's; DCP_SHARDING_INFO, {key: {"saved_offsets": [...]}}, is
where torch's HuggingFaceStorageReader looks for the place of a shard in its tensor, and of all tensors if of one.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import CheckpointCorrupt, InvalidArgument
from ._dtypes import ITEM_BYTES

ALIGNMENT = 4096  # bytes: a multiple of every disk's logical block, what O_DIRECT asks for
LONGEST_TEXT = 100_000_000  # bytes; safetensors readers refuse a longer header
MOST_DIMENSIONS = 64  # of a tensor; torch allows no more
METADATA = "__metadata__"
SHARDING = "DCP_SHARDING_INFO"


@dataclass(frozen=True)
class ShardTensor:
    """One tensor, or one box of one, in a file; `begin` and `end` count bytes from the file's first."""

    key: str
    dtype: str
    shape: tuple[int, ...]
    begin: int = 0
    end: int = 0

    @property
    def bytes(self) -> int:
        """Bytes of the elements."""
        return math.prod(self.shape) * ITEM_BYTES[self.dtype]


@dataclass(frozen=True)
class ShardHeader:
    """What the first `data_begin` bytes of a file say."""

    metadata: dict[str, str]
    tensors: dict[str, ShardTensor]
    data_begin: int
    data_end: int


class HeaderTemplate:
    """The header of a list of tensors, rendered for one checkpoint after another: only the uid differs, in equal length."""

    def __init__(self, tensors: Sequence[ShardTensor], rank: int, offsets: Mapping[str, Sequence[int]], uid_bytes: int) -> None:
        self._uid_bytes = uid_bytes
        marker = "\x00" * uid_bytes  # no JSON text holds a NUL byte: it is escaped as six characters
        metadata = {
            "format": "pt",
            "hetsp_uid": marker,
            "hetsp_rank": str(rank),
            SHARDING: json.dumps(
                {tensor.key: {"saved_offsets": list(offsets.get(tensor.key, [0] * len(tensor.shape)))} for tensor in tensors}
            ),
        }
        entries: dict[str, Any] = {METADATA: metadata}
        end = 0
        for tensor in tensors:
            if tensor.key in entries:
                raise InvalidArgument(f"tensor name {tensor.key!r} is taken already; names in one file must differ")
            entries[tensor.key] = {
                "dtype": tensor.dtype,
                "shape": list(tensor.shape),
                "data_offsets": [end, end + tensor.bytes],
            }
            end += tensor.bytes
        escaped = "\\u0000" * uid_bytes
        text = json.dumps(entries, separators=(",", ":"))
        self._before, found, self._after = text.partition(f'"hetsp_uid":"{escaped}"')
        assert found
        # ASCII throughout, since json escapes the rest: characters are bytes.
        length = len(text) - len(escaped) + uid_bytes
        self._pad = -(8 + length) % ALIGNMENT
        self.header_bytes = 8 + length + self._pad
        self.file_bytes = self.header_bytes + end
        if length + self._pad > LONGEST_TEXT:
            raise InvalidArgument(
                f"the header of {len(tensors)} tensors takes {length} bytes; a safetensors file allows {LONGEST_TEXT}"
            )

    def render(self, uid: str) -> bytes:
        """The header's bytes for the checkpoint `uid`."""
        if len(uid) != self._uid_bytes or json.dumps(uid) != f'"{uid}"':
            raise InvalidArgument(f"uid {uid!r} must be {self._uid_bytes} plain ASCII characters")
        text = f'{self._before}"hetsp_uid":"{uid}"{self._after}{" " * self._pad}'.encode("ascii")
        return len(text).to_bytes(8, "little") + text


def build_header(
    tensors: Iterable[ShardTensor], uid: str, rank: int, offsets: Mapping[str, Sequence[int]] | None = None
) -> bytes:
    """The header of a file that holds `tensors` in this order. `offsets`: where a box lies in its tensor, by key."""
    return HeaderTemplate(list(tensors), rank, offsets or {}, len(uid)).render(uid)


def _no_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key appears twice")
    return found


def _natural(value: Any) -> bool:
    return type(value) is int and 0 <= value < 1 << 63


def text_bytes(file: str, first: bytes, file_bytes: int) -> int:
    """Length of the JSON text, out of the file's first 8 bytes; CheckpointCorrupt where it cannot be true."""
    if len(first) < 8:
        raise CheckpointCorrupt(f"{file}: {len(first)} bytes, too few for a header's length")
    length = int.from_bytes(first[:8], "little")
    if not 2 <= length <= min(LONGEST_TEXT, file_bytes - 8):
        raise CheckpointCorrupt(f"{file}: header of {length} bytes in a file of {file_bytes}; at most {LONGEST_TEXT} allowed")
    return length


def parse_header(file: str, header: bytes, file_bytes: int) -> ShardHeader:
    """Reads a header; `header` holds at least its bytes, `file` names the file in errors.

    Raises CheckpointCorrupt for whatever a safetensors reader refuses, naming the tensor: unknown types, shapes that do not
    match their bytes, holes, overlaps, bytes behind the last tensor, repeated names.
    """
    length = text_bytes(file, header, file_bytes)
    if len(header) < 8 + length:
        raise CheckpointCorrupt(f"{file}: the header is cut at byte {len(header)} of {8 + length}")
    text = header[8 : 8 + length]
    try:
        if not text.startswith(b"{"):
            raise ValueError("it does not start with '{'")
        entries = json.loads(text.decode("utf-8"), object_pairs_hook=_no_repeats)
    except (ValueError, RecursionError) as error:
        raise CheckpointCorrupt(f"{file}: the header is no JSON object: {error}") from None
    metadata = entries.pop(METADATA, {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise CheckpointCorrupt(f"{file}: {METADATA} must hold strings only")
    begin = 8 + length
    tensors = {key: _tensor(file, key, entry, begin) for key, entry in entries.items()}
    end = begin
    for tensor in sorted(tensors.values(), key=lambda tensor: (tensor.begin, tensor.end)):
        if tensor.begin != end:
            raise CheckpointCorrupt(
                f"{file}: tensor {tensor.key!r} begins at byte {tensor.begin}, the one before ends at {end}"
            )
        end = tensor.end
    if end != file_bytes:
        raise CheckpointCorrupt(f"{file}: the tensors end at byte {end}, the file at {file_bytes}")
    return ShardHeader(metadata, tensors, begin, end)


def _tensor(file: str, key: str, entry: Any, data_begin: int) -> ShardTensor:
    def wrong(what: str) -> CheckpointCorrupt:
        return CheckpointCorrupt(f"{file}: tensor {key!r}: {what}")

    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise wrong("must have dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in ITEM_BYTES:
        raise wrong(f"dtype {dtype!r} is unknown; allowed: {', '.join(ITEM_BYTES)}")
    if not isinstance(shape, list) or len(shape) > MOST_DIMENSIONS or not all(_natural(extent) for extent in shape):
        raise wrong(f"shape must be a list of at most {MOST_DIMENSIONS} integers >= 0")
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(_natural(offset) for offset in offsets):
        raise wrong(f"data_offsets {offsets!r} must be two integers >= 0")
    tensor = ShardTensor(key, dtype, tuple(shape), data_begin + offsets[0], data_begin + offsets[1])
    if tensor.end - tensor.begin != tensor.bytes:
        raise wrong(f"data_offsets {offsets} hold {offsets[1] - offsets[0]} bytes; {dtype} {shape} needs {tensor.bytes}")
    return tensor
