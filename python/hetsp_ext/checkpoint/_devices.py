"""Which memory the engine copies from a GPU by itself, and the streams that have written it.

The engine copies on a stream of its own, behind an event on the producer's: the stream that is current in save(). What must be
known on the host as well (to compare ranks) is brought there beside it, without waiting: see Fetched.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from .._native import core

HOST = -1  # as the engine numbers the host's memory


def number_of(tensor: torch.Tensor) -> int | None:
    """The number of the device that the engine reads the tensor's memory on, HOST for the host's; None where it cannot."""
    if tensor.device.type == "cpu":
        return HOST
    return tensor.device.index if tensor.device.type == "cuda" and not core.cuda_absent_why() else None


def producers(numbers: Iterable[int]) -> dict[int, int]:
    """Of each device among `numbers` the stream that is current on this thread."""
    return {number: torch.cuda.current_stream(number).cuda_stream for number in set(numbers) - {HOST}}


class Fetched:
    """The bytes of tensors on one device, or of the host, as they are now; back to back, on the host when asked for."""

    def __init__(self, tensors: Sequence[torch.Tensor]) -> None:
        parts = [tensor.detach().contiguous().view(-1).view(torch.uint8) for tensor in tensors]
        self._bytes = torch.cat(parts) if parts else torch.empty(0, dtype=torch.uint8)
        self._event: Any = None
        if self._bytes.device.type != "cpu":
            host = torch.empty(self._bytes.numel(), dtype=torch.uint8, pin_memory=True)
            host.copy_(self._bytes, non_blocking=True)
            self._event = torch.get_device_module(self._bytes.device).current_stream(self._bytes.device).record_event()
            self._bytes = host

    def __bytes__(self) -> bytes:
        if self._event is not None:
            self._event.synchronize()
        return self._bytes.numpy().tobytes()


@dataclass
class Taking:
    """What Table.fetch() gives; its bytes are there when asked for."""

    _host: Fetched
    _devices: Sequence[Fetched]
    _samples: Sequence[Fetched]
    _places: Sequence[tuple[bool, int]]

    def volatile(self) -> bytes:
        """Copies of what is volatile, back to back, in the order of Table.written."""
        sources = {False: io.BytesIO(bytes(self._host)), True: io.BytesIO(b"".join(map(bytes, self._devices)))}
        return b"".join(sources[on_device].read(size) for on_device, size in self._places)

    def samples(self) -> bytes:
        """What Table.sample_ranges tells the places of."""
        return b"".join(map(bytes, self._samples))
