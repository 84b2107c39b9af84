"""Offsets beyond 2^31 elements, where 32-bit arithmetic would wrap: strides over a sparse mapping that is hardly touched."""

import mmap
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from tests.support.devices import on_cuda

NO_RESERVE = getattr(mmap, "MAP_NORESERVE", 0x4000)  # Python 3.10 lacks the name
ROWS, HEADS, DIM = 70, 2, 16
STEP = (2**31 + 2**24) // (ROWS - 1) // DIM * DIM  # elements from row to row
FORWARD, BACKWARD = torch.ops.hetsp.varlen_attention_forward, torch.ops.hetsp.varlen_attention_backward
LAYOUTS: dict[str, tuple[int, int]] = {
    "rows far apart": (STEP, DIM),  # token stride, head stride
    "heads far apart": (DIM, 2**31 + 2**10),
}


def far(x: Tensor, strides: tuple[int, int]) -> Tensor:
    """The same numbers in a fresh mapping: a page or two for every row is all the memory that it takes. A GPU has it all."""
    elements = (ROWS - 1) * strides[0] + (HEADS - 1) * strides[1] + DIM
    assert elements > 2**31
    if x.is_cuda:
        return torch.empty(elements, dtype=x.dtype).as_strided((ROWS, HEADS, DIM), (*strides, 1)).copy_(x)
    try:
        memory = mmap.mmap(-1, elements * x.element_size(), mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | NO_RESERVE)
    except OSError as error:
        pytest.skip(f"this machine maps no {elements * x.element_size() / 2**30:.0f} GiB without backing them: {error}")
    view = torch.frombuffer(memory, dtype=x.dtype).as_strided((ROWS, HEADS, DIM), (*strides, 1))
    return view.copy_(x)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("operand", ["q", "k", "v", "out", "dout"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
def test_strides_beyond_32_bits(operand: str, layout: str, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    tensors = {name: torch.randn(ROWS, HEADS, DIM).to(dtype) for name in ("q", "k", "v", "dout")}
    segments = torch.tensor([[0, 40, 0, 40, 0, 0, -1, 0], [40, ROWS, 40, ROWS, 0, 0, -1, 0]])

    def run(change: Callable[[str, Tensor], Tensor]) -> list[Tensor]:
        q, k, v = (change(name, tensors[name]) for name in ("q", "k", "v"))
        out, lse = FORWARD(q, k, v, segments, 0.25, 0.0, None, None, None, False)
        dout, given = change("dout", tensors["dout"]), change("out", out)
        return [out, lse, *BACKWARD(dout, None, q, k, v, given, lse, segments, 0.25, 0.0, None, False)[:3]]

    near = run(lambda name, x: x)
    there = run(lambda name, x: far(x, LAYOUTS[layout]) if name == operand else x)
    if on_cuda():
        torch.cuda.empty_cache()  # 4 or 9 GB for each process that runs such a test
    assert all(torch.equal(x, y) for x, y in zip(near, there, strict=True))
