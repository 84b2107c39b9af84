"""From stored boxes to live tensors: which bytes of which file go to which address, and what needs a detour.

Bytes go from the file straight into a tensor where file and memory agree on runs long enough to be worth a piece each. All
else takes a detour through a temporary in the stored layout, and is copied from there once everything read has verified:
other devices, other dtypes, transposed or otherwise scattered tensors, narrow columns, memory wanted under two names.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import torch

from ..errors import InvalidArgument
from ._boxes import Box, contiguous_strides, run_elements, runs

__all__ = ["Reads", "StoredBox"]

# A piece costs about as much as copying this many bytes; shorter runs are read as one span and picked from memory.
SHORT_RUN_BYTES = 4096


@dataclass(frozen=True)
class StoredBox:
    """A box of a tensor that lies row-major in a file, its first byte at `begin`."""

    file: int  # index
    begin: int
    box: Box


@dataclass
class Reads:
    """What one call of the native reader is to do, gathered tensor by tensor."""

    pieces: list[tuple[int, int, int, int]] = field(default_factory=list)  # file, offset in it, bytes, address
    detours: list[tuple[torch.Tensor, torch.Tensor]] = field(default_factory=list)  # live view <- temporary
    direct: list[torch.Tensor] = field(default_factory=list)  # live tensors written past torch
    _spans: list[tuple[int, int, object]] = field(default_factory=list)  # addresses [begin, end) of `direct`, and their reads

    @property
    def detour_bytes(self) -> int:
        """Memory that the temporaries hold."""
        return sum(temporary.untyped_storage().nbytes() for _, temporary in self.detours)

    def want(
        self, name: str, tensor: torch.Tensor, offsets: Sequence[int], stored: Iterable[StoredBox], dtype: torch.dtype
    ) -> None:
        """Adds a tensor whose first element is the element `offsets` of the stored tensor `name`; it is filled in place.

        What the stored boxes do not cover stays as it is: that they tile the whole tensor is checked with the manifest.

        Raises:
            InvalidArgument: memory that cannot be filled: no storage, or several elements in one place.
        """
        tensor = tensor.detach()
        if tensor.device.type == "meta" or tensor.layout != torch.strided:
            raise InvalidArgument(
                f"{name}: cannot fill a tensor of layout {tensor.layout} on device {tensor.device}; allowed: strided, not meta"
            )
        if any(stride == 0 and size > 1 for size, stride in zip(tensor.shape, tensor.stride(), strict=True)):
            raise InvalidArgument(
                f"{name}: several elements of the tensor (strides {tensor.stride()}) share memory; allowed: none"
            )
        wanted, stored = Box(tuple(offsets), tuple(tensor.shape)), list(stored)
        in_place = tensor.device.type == "cpu" and tensor.dtype == dtype and not (tensor.is_conj() or tensor.is_neg())
        if in_place and wanted.elements:
            claim = self._claim(tensor, (tensor.shape, tensor.stride(), tuple(offsets), stored))
            if claim == "same":
                return
            in_place = claim == "new"
        for source in stored:
            part = wanted.intersect(source.box)
            if part is None:
                continue
            target = tensor
            for d, (begin, size) in enumerate(zip(part.relative_to(wanted.offsets).offsets, part.sizes, strict=True)):
                target = target.narrow(d, begin, size)
            self._want_part(target, source, part, dtype, in_place)

    def _claim(self, tensor: torch.Tensor, reads: tuple[object, ...]) -> str:
        """ "new" where no other tensor is read into these addresses; "same" where the same bytes are, as for tied weights."""
        begin = tensor.data_ptr()
        end = begin + tensor.itemsize * (1 + sum((n - 1) * a for n, a in zip(tensor.shape, tensor.stride(), strict=True)))
        at = bisect_left(self._spans, begin, key=lambda span: span[1] - 1)  # the first that ends behind our beginning
        if at < len(self._spans) and self._spans[at][0] < end:
            return "same" if self._spans[at] == (begin, end, reads) else "taken"
        insort(self._spans, (begin, end, reads), key=lambda span: span[:2])
        self.direct.append(tensor)
        return "new"

    def _want_part(self, target: torch.Tensor, source: StoredBox, part: Box, dtype: torch.dtype, in_place: bool) -> None:
        strides = contiguous_strides(source.box.sizes)
        first = sum(a * stride for a, stride in zip(part.relative_to(source.box.offsets).offsets, strides, strict=True))
        begin = source.begin + first * dtype.itemsize

        def long(destination: tuple[int, ...]) -> bool:
            elements = run_elements(part.sizes, strides, destination)
            return elements == part.elements or elements * dtype.itemsize >= SHORT_RUN_BYTES

        if in_place and long(target.stride()):
            self._pieces(source.file, begin, part, strides, target)
            return
        packed = contiguous_strides(part.sizes)
        if long(packed):
            temporary = torch.empty(part.sizes, dtype=dtype)
            self._pieces(source.file, begin, part, strides, temporary)
        else:
            span = 1 + sum((size - 1) * stride for size, stride in zip(part.sizes, strides, strict=True))
            flat = torch.empty(span, dtype=dtype)
            self.pieces.append((source.file, begin, span * dtype.itemsize, flat.data_ptr()))
            temporary = flat.as_strided(part.sizes, strides)
        self.detours.append((target, temporary))

    def _pieces(self, file: int, begin: int, part: Box, strides: tuple[int, ...], memory: torch.Tensor) -> None:
        found, item = runs(part.sizes, strides, memory.stride()), memory.dtype.itemsize
        offsets = (found.source * item + begin).tolist()
        addresses = (found.destination * item + memory.data_ptr()).tolist()
        self.pieces += [(file, a, found.elements * item, b) for a, b in zip(offsets, addresses, strict=True)]

    def place(self) -> None:
        """Call when every piece has been read and verified: copies the temporaries, and tells autograd of the rest."""
        for target, temporary in self.detours:
            with torch.inference_mode(target.is_inference()):
                target.copy_(temporary)
        for tensor in self.direct:
            if not tensor.is_inference():  # those have no version
                torch.autograd.graph.increment_version(tensor)
        self.detours.clear()
